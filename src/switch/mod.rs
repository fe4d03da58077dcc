// SPDX-License-Identifier: MIT
//! What FreeSWITCH lets us do, safely.
//!
//! Three kinds of wrapper, by who owns what is behind the pointer: owning ones release it in
//! `Drop` ([`Subscription`], [`xml::Document`]); borrowing ones carry a lifetime no longer than
//! the callback that lent them ([`EventRef`], [`Session`]); and values that C sends are checked
//! before they are believed. Every `extern "C"` function runs its body inside [`guard()`], with a
//! fallback chosen for that callback: no panic reaches a C frame.
//!
//! Names of C stay in here; so does `unsafe`.

#![allow(unsafe_code, reason = "this is the layer that calls FreeSWITCH")]

mod api;
mod copy;
mod core;
mod event;
mod guard;
mod interface;
mod log;
pub mod memory;
mod subscription;
mod text;
pub mod thread;
pub mod xml;

pub use self::api::{Answer, ApiHandler, AppHandler, Completion, Session};
pub use self::core::{Core, Directory, self_test};
pub use self::event::EventRef;
pub use self::guard::{PanicWatch, Panicked, guard, watch_panics};
pub use self::interface::{Interfaces, Load, Missing, Status, load_shim, shutdown_shim};
pub use self::log::install as install_log;
pub use self::subscription::{EventHandler, Subscription};

/// Why FreeSWITCH did not do what it was asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SwitchError {
    /// A call came back with this `switch_status_t`.
    #[error("FreeSWITCH refused to {action} (status {status})")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// The status as a number; `switch_types.h` names them.
        status: u32,
    },
    /// Something the module cannot live without is not there.
    #[error("this FreeSWITCH has no {0}")]
    Missing(&'static str),
    /// The structs of the running core are not the ones that the module was built for.
    #[error(
        "this FreeSWITCH lays out its events differently from the headers the module was built \
         with ({0}): build the module against the headers of this FreeSWITCH"
    )]
    Layout(String),
    /// An allocation failed.
    #[error("the system has no memory left")]
    NoMemory,
    /// The configuration could not be had.
    #[error("{0}")]
    Configuration(String),
}
