// SPDX-License-Identifier: MIT
//! The panic boundary.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};

/// A body panicked; message and place are in the log by now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Panicked;

/// Runs `body`, turning a panic into an error, so that no unwind reaches a C frame.
///
/// # Errors
///
/// When `body` panicked.
pub fn guard<T>(body: impl FnOnce() -> T) -> Result<T, Panicked> {
    // What bodies share is atomics, queues and locks that ignore poison; a panic leaves none of
    // them half-changed.
    panic::catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        // Its destructor could panic too, and nothing above this frame catches.
        forget(payload);
        Panicked
    })
}

#[expect(clippy::mem_forget, reason = "a destructor that may panic must not run here")]
fn forget(payload: Box<dyn Any + Send>) {
    std::mem::forget(payload);
}

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send + 'static>;

/// While it lives, a panic anywhere in the module is logged once, with its message and place.
#[must_use = "dropping it takes the hook away"]
#[expect(missing_debug_implementations, reason = "holds a closure")]
pub struct PanicWatch {
    before: Option<Hook>,
}

/// Takes over the panic hook of this library's own copy of std.
pub fn watch_panics() -> PanicWatch {
    let before = panic::take_hook();
    panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("(no message)");
        let place = info.location().map_or_else(String::new, ToString::to_string);
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("a thread of FreeSWITCH");
        log::error!(
            "A fault of mod_rustbridge on {thread} at {place}: {message}. The switch goes on."
        );
    }));
    PanicWatch { before: Some(before) }
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if let Some(before) = self.before.take().filter(|_| !std::thread::panicking()) {
            panic::set_hook(before);
        }
    }
}
