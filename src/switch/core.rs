// SPDX-License-Identifier: MIT
//! Facts about the running core, asked once at load.

use std::ffi::{CStr, c_char};
use std::path::PathBuf;
use std::ptr::{self, NonNull};

use super::{EventRef, SwitchError, text};
use crate::event::{Class, EventKind, EventNames, Index, Record, Uncopied};
use crate::ffi;

/// What the module must know of the core it runs in.
#[derive(Clone, Debug)]
pub struct Core {
    /// `Core-UUID`: another one after every start of the switch.
    pub uuid: String,
    /// The configured switch name, by default the host name.
    pub switchname: String,
    /// The version as FreeSWITCH prints it.
    pub version: String,
    /// Names of its events, by number.
    pub names: EventNames,
    /// The number that stands for all events.
    pub all: EventKind,
}

/// A folder of the installation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Directory {
    /// Where configuration is read from.
    Conf,
    /// Where log files go.
    Log,
    /// Where modules keep what must survive a restart.
    Storage,
}

impl Core {
    /// Asks the core. For the thread that loads the module.
    ///
    /// # Errors
    ///
    /// When the core does not know `ALL` or its own UUID.
    pub fn ask() -> Result<Self, SwitchError> {
        let all = kind_of(c"ALL").ok_or(SwitchError::Missing("event ALL"))?;
        let names = (0..=all.number()).map(|number| {
            let kind = ffi::switch_event_types_t(u32::from(number));
            // SAFETY: the core answers with a static string, or null for a number it lacks.
            let name = unsafe { ffi::switch_event_name(kind) };
            // SAFETY: null or a static C string, as above.
            unsafe { text::lossy(name) }.unwrap_or_default()
        });
        // SAFETY: a static string of the core's, set before any module loads.
        let uuid = unsafe { ffi::switch_core_get_uuid() };
        // SAFETY: as for the UUID; null only when unset.
        let switchname = unsafe { ffi::switch_core_get_switchname() };
        // SAFETY: as for the UUID.
        let hostname = unsafe { ffi::switch_core_get_hostname() };
        // SAFETY: a string constant of the core's.
        let version = unsafe { ffi::switch_version_full() };
        // SAFETY: null or a C string that stays for the life of the core.
        let read = |value: *const c_char| unsafe { text::lossy(value) };
        Ok(Self {
            uuid: read(uuid).ok_or(SwitchError::Missing("Core-UUID"))?,
            switchname: read(switchname)
                .filter(|name| !name.is_empty())
                .or_else(|| read(hostname))
                .unwrap_or_else(|| "freeswitch".into()),
            version: read(version).unwrap_or_default(),
            names: EventNames::new(names),
            all,
        })
    }

    /// Fires a CUSTOM event without headers of its own. The core's queue gives it to a dispatch thread
    /// behind every event that was fired before it.
    ///
    /// Never from a callback: the core's queue may be full, and callbacks empty it. Then it waits, as
    /// every thread of the core that fires an event does.
    ///
    /// # Errors
    ///
    /// When the core has no such event or no memory.
    pub fn fire_custom(subclass: &CStr) -> Result<(), SwitchError> {
        let custom = kind_of(c"CUSTOM").ok_or(SwitchError::Missing("event CUSTOM"))?;
        OwnEvent::create(custom, subclass)?.fire()
    }

    /// The number of the event with this name in the running core.
    pub fn kind_of(name: &CStr) -> Option<EventKind> {
        kind_of(name)
    }

    /// A folder of this installation, as the core was started with it.
    pub fn directory(directory: Directory) -> Option<PathBuf> {
        let dirs = &raw const ffi::SWITCH_GLOBAL_dirs;
        // SAFETY: the core fills this static before it loads any module and leaves it alone.
        let dirs = unsafe { dirs.read() };
        let path = match directory {
            Directory::Conf => dirs.conf_dir,
            Directory::Log => dirs.log_dir,
            Directory::Storage => dirs.storage_dir,
        };
        // SAFETY: null or a C string that stays for the life of the core.
        unsafe { text::lossy(path) }.filter(|path| !path.is_empty()).map(PathBuf::from)
    }
}

/// The number of the event with this name in the running core.
fn kind_of(name: &CStr) -> Option<EventKind> {
    let mut kind = ffi::switch_event_types_t(u32::MAX);
    // SAFETY: the core reads the name and writes the number before it returns.
    let status = unsafe { ffi::switch_name_event(name.as_ptr(), &raw mut kind) };
    (status == ffi::switch_status_t::SWITCH_STATUS_SUCCESS)
        .then(|| u16::try_from(kind.0).ok().map(EventKind::new))
        .flatten()
}

/// Builds an event in the core, walks it through our view of its structs, and compares with what
/// the core's own getters say. A core whose structs differ is refused here, at load, instead of
/// being misread later.
///
/// # Errors
///
/// [`SwitchError::Layout`] with the first difference.
pub fn self_test() -> Result<(), SwitchError> {
    const SUBCLASS: &CStr = c"rustbridge::self-test";
    let custom = kind_of(c"CUSTOM").ok_or(SwitchError::Missing("event CUSTOM"))?;
    let event = OwnEvent::create(custom, SUBCLASS)?;
    let headers = [
        (c"Rustbridge-One", c"first"),
        (c"Rustbridge-Two", c"a\r\nb"),
        (c"Rustbridge-Three", c"\xff third"),
    ];
    for (name, value) in headers {
        event.add(name, value)?;
    }
    let differs = |what: String| Err(SwitchError::Layout(what));
    // SAFETY: `event` owns it, and lives to the end of this function.
    let view = unsafe { EventRef::from_raw(event.event) };
    if view.kind() != custom {
        return differs(format!("event number {} for {}", view.kind().number(), custom.number()));
    }
    if view.subclass() != Some(SUBCLASS.to_bytes()) {
        return differs("another subclass name".into());
    }
    let mut record = Record::default();
    match view.copy_to(&mut record, Class::Normal, 1 << 20) {
        Ok(()) => {}
        Err(Uncopied::TooLarge) => return differs("a header list without end".into()),
        Err(Uncopied::NoMemory) => return Err(SwitchError::NoMemory),
    }
    let mut index = Index::default();
    index.read(&record);
    for name in [c"Event-Name", c"Core-UUID", c"Event-Sequence", c"Event-Subclass"]
        .into_iter()
        .chain(headers.map(|(name, _)| name))
    {
        let ours = index.get(&record, name.to_bytes());
        if ours.is_none() || ours != event.get(name).as_deref() {
            return differs(format!("another value of {}", name.to_string_lossy()));
        }
    }
    Ok(())
}

/// An event that we made and have not fired.
struct OwnEvent {
    event: NonNull<ffi::switch_event_t>,
}

impl OwnEvent {
    fn create(kind: EventKind, subclass: &CStr) -> Result<Self, SwitchError> {
        let mut event = ptr::null_mut();
        // SAFETY: the core copies the subclass and writes `event` before it returns; file and
        // function are constants that it stores as headers.
        let status = unsafe {
            ffi::switch_event_create_subclass_detailed(
                c"mod_rustbridge".as_ptr(),
                c"self_test".as_ptr(),
                0,
                &raw mut event,
                ffi::switch_event_types_t(u32::from(kind.number())),
                subclass.as_ptr(),
            )
        };
        NonNull::new(event)
            .map(|event| Self { event })
            .ok_or(SwitchError::Refused { action: "create an event", status: status.0 })
    }

    fn add(&self, name: &CStr, value: &CStr) -> Result<(), SwitchError> {
        // SAFETY: the event is ours and live; the core copies both strings.
        let status = unsafe {
            ffi::switch_event_add_header_string(
                self.event.as_ptr(),
                ffi::switch_stack_t::SWITCH_STACK_BOTTOM,
                name.as_ptr(),
                value.as_ptr(),
            )
        };
        if status == ffi::switch_status_t::SWITCH_STATUS_SUCCESS {
            Ok(())
        } else {
            Err(SwitchError::Refused { action: "add a header", status: status.0 })
        }
    }

    /// Hands the event to the core, which destroys it once it is delivered.
    fn fire(self) -> Result<(), SwitchError> {
        let mut event = std::mem::ManuallyDrop::new(self).event.as_ptr();
        // SAFETY: ours until here; the core takes it and clears the pointer when it succeeds.
        let status = unsafe {
            ffi::switch_event_fire_detailed(
                c"mod_rustbridge".as_ptr(),
                c"fire".as_ptr(),
                0,
                &raw mut event,
                ptr::null_mut(),
            )
        };
        match NonNull::new(event) {
            None => Ok(()),
            Some(event) => {
                drop(Self { event });
                Err(SwitchError::Refused { action: "fire an event", status: status.0 })
            }
        }
    }

    fn get(&self, name: &CStr) -> Option<Vec<u8>> {
        // SAFETY: the event is ours and live; -1 asks for the whole value.
        let value =
            unsafe { ffi::switch_event_get_header_idx(self.event.as_ptr(), name.as_ptr(), -1) };
        // SAFETY: null or a C string of the event's own, copied before anything changes it.
        unsafe { text::bytes(value) }.map(<[u8]>::to_vec)
    }
}

impl Drop for OwnEvent {
    fn drop(&mut self) {
        let mut event = self.event.as_ptr();
        // SAFETY: ours, never fired, destroyed once.
        unsafe { ffi::switch_event_destroy(&raw mut event) };
    }
}
