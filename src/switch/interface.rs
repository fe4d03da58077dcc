// SPDX-License-Identifier: MIT
//! What the module registers with the core, and the two shims behind the exported symbol.

use std::ffi::CStr;
use std::ptr::NonNull;

use super::SwitchError;
use super::api::{ApiHandler, AppHandler, Completion, call_api, complete, run_app};
use super::guard::guard;
use super::text::c_string;
use crate::ffi;

/// What a C function of ours returns to the core.
pub type Status = ffi::switch_status_t;

impl Status {
    /// All is well.
    pub const SUCCESS: Self = Self::SWITCH_STATUS_SUCCESS;
    /// From `load`: the module is not there, and the core unloads the library.
    pub const FAILURE: Self = Self::SWITCH_STATUS_GENERR;
    /// From `shutdown`: the library must stay where it is.
    pub const STAY: Self = Self::SWITCH_STATUS_NOUNLOAD;
}

/// The module's entry in the core, while it is being filled during load.
#[derive(Debug)]
pub struct Interfaces {
    module: NonNull<ffi::switch_loadable_module_interface_t>,
    completions: Vec<&'static CStr>,
}

/// An API command or application that the core did not register.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Missing {
    /// `api` or `app`.
    pub kind: &'static str,
    /// Its name.
    pub name: &'static CStr,
}

impl Interfaces {
    /// Registers an API command. `name`, `about` and `syntax` must be constants: the core keeps
    /// pointers to them.
    ///
    /// # Errors
    ///
    /// When the core has no memory for it.
    pub fn add_api<H: ApiHandler>(
        &mut self,
        name: &'static CStr,
        about: &'static CStr,
        syntax: &'static CStr,
    ) -> Result<(), SwitchError> {
        let api = self
            .create(ffi::switch_module_interface_name_t::SWITCH_API_INTERFACE)?
            .cast::<ffi::switch_api_interface_t>();
        // SAFETY: the core made this struct for us from the module's pool and reads it only after
        // load has returned.
        let api = unsafe { &mut *api.as_ptr() };
        api.interface_name = name.as_ptr();
        api.desc = about.as_ptr();
        api.syntax = syntax.as_ptr();
        api.function = Some(call_api::<H>);
        Ok(())
    }

    /// Registers an application that needs no media, may run while the call is routed, and after
    /// it has hung up.
    ///
    /// # Errors
    ///
    /// When the core has no memory for it.
    pub fn add_app<H: AppHandler>(
        &mut self,
        name: &'static CStr,
        about: &'static CStr,
        syntax: &'static CStr,
    ) -> Result<(), SwitchError> {
        use ffi::switch_application_flag_enum_t as flag;
        let app = self
            .create(ffi::switch_module_interface_name_t::SWITCH_APPLICATION_INTERFACE)?
            .cast::<ffi::switch_application_interface_t>();
        // SAFETY: as in `add_api`.
        let app = unsafe { &mut *app.as_ptr() };
        app.interface_name = name.as_ptr();
        app.application_function = Some(run_app::<H>);
        app.long_desc = about.as_ptr();
        app.short_desc = about.as_ptr();
        app.syntax = syntax.as_ptr();
        app.flags =
            flag::SAF_SUPPORT_NOMEDIA.0 | flag::SAF_ROUTING_EXEC.0 | flag::SAF_ZOMBIE_EXEC.0;
        Ok(())
    }

    fn create(
        &mut self,
        kind: ffi::switch_module_interface_name_t,
    ) -> Result<NonNull<std::ffi::c_void>, SwitchError> {
        // SAFETY: the module's entry was made by the core for this load.
        let made =
            unsafe { ffi::switch_loadable_module_create_interface(self.module.as_ptr(), kind) };
        NonNull::new(made).ok_or(SwitchError::Missing("memory for an interface"))
    }

    /// Says how a command line goes on. `line` is in the core's own notation, such as
    /// `add rustbridge status json`.
    pub fn complete(line: &str) {
        let line = c_string(line);
        // SAFETY: the core copies the line. It refuses without its database; completion is then
        // simply not there.
        unsafe { ffi::switch_console_set_complete(line.as_ptr()) };
    }

    /// Offers words under `name`, for lines that say `::name`.
    pub fn add_completion<C: Completion>(&mut self, name: &'static CStr) {
        // SAFETY: the core copies the name and keeps the function until it is deleted, which
        // `forget_completions` does before the module goes.
        unsafe { ffi::switch_console_add_complete_func(name.as_ptr(), Some(complete::<C>)) };
        self.completions.push(name);
    }

    /// Takes back what [`add_completion`](Self::add_completion) offered, and all lines of `command`.
    pub fn forget_completions(&self, command: &str) {
        for name in &self.completions {
            // SAFETY: a constant name; unknown ones are ignored.
            unsafe { ffi::switch_console_del_complete_func(name.as_ptr()) };
        }
        Self::complete(&format!("del {command}"));
    }
}

// SAFETY: after load only `forget_completions` is called, which touches the core's own tables
// under the core's own locks and never the entry itself.
unsafe impl Send for Interfaces {}
// SAFETY: as above.
unsafe impl Sync for Interfaces {}

impl Missing {
    /// Of these API commands and applications, the ones that the core does not have: 1.11's
    /// interface allowlist refuses them while load succeeds. For a time after load, when the core
    /// has registered what it was given.
    pub fn find(commands: &[&'static CStr], applications: &[&'static CStr]) -> Vec<Self> {
        let mut missing = Vec::new();
        for name in commands {
            // SAFETY: reads the name; what it returns is held for us until released.
            let api = unsafe { ffi::switch_loadable_module_get_api_interface(name.as_ptr()) };
            if api.is_null() {
                missing.push(Self { kind: "api", name });
            } else {
                // SAFETY: just taken, given back once.
                unsafe { ffi::rustbridge_release_api(api) };
            }
        }
        for name in applications {
            // SAFETY: as for an API.
            let app =
                unsafe { ffi::switch_loadable_module_get_application_interface(name.as_ptr()) };
            if app.is_null() {
                missing.push(Self { kind: "app", name });
            } else {
                // SAFETY: just taken, given back once.
                unsafe { ffi::rustbridge_release_application(app) };
            }
        }
        missing
    }
}

/// What the exported symbol's functions do.
pub trait Load {
    /// The name that the module goes by.
    const NAME: &'static CStr;

    /// Starts everything. What fails has undone itself: the core calls no shutdown then.
    ///
    /// # Errors
    ///
    /// With what an operator should read.
    fn load(interfaces: Interfaces) -> Result<(), String>;

    /// Ends everything, within its own deadline. False when something could not be ended, so
    /// that the library has to stay mapped and loaded.
    fn shutdown() -> bool;
}

/// The C side of [`Load::load`].
///
/// # Safety
///
/// For the core only: `interface` is where it wants the module's entry, `pool` the module's pool.
pub unsafe extern "C" fn load_shim<L: Load>(
    interface: *mut *mut ffi::switch_loadable_module_interface_t,
    pool: *mut ffi::switch_memory_pool_t,
) -> Status {
    super::install_log();
    // SAFETY: the core's own pool, and a constant name.
    let entry =
        unsafe { ffi::switch_loadable_module_create_module_interface(pool, L::NAME.as_ptr()) };
    let Some(module) = NonNull::new(entry) else { return Status::FAILURE };
    // SAFETY: by this function's contract.
    unsafe { interface.write(entry) };
    let loaded = guard(|| L::load(Interfaces { module, completions: Vec::new() }));
    match loaded {
        Ok(Ok(())) => Status::SUCCESS,
        Ok(Err(words)) => {
            for line in words.lines() {
                log::error!("{line}");
            }
            Status::FAILURE
        }
        Err(_) => Status::FAILURE,
    }
}

/// The C side of [`Load::shutdown`].
///
/// # Safety
///
/// For the core only, after a load that succeeded.
pub unsafe extern "C" fn shutdown_shim<L: Load>() -> Status {
    // A panic leaves threads behind that may run our code: the library must stay.
    if guard(L::shutdown) == Ok(true) { Status::SUCCESS } else { Status::STAY }
}
