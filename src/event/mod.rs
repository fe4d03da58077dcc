// SPDX-License-Identifier: MIT
//! An event, owned and inert: what the callback copied, how the publisher reads it, and which
//! ones a sink wants.
//!
//! Nothing in here knows FreeSWITCH, a broker or a thread. [`Record`] is written once, on a
//! dispatch thread, as one run of bytes; [`Index`] is how a publisher thread finds its way in it
//! without copying again.

mod index;
mod kind;
pub mod known;
pub mod names;
mod record;
pub mod selection;

pub use index::{Index, Value};
pub(crate) use index::{Member, MemberName, MemberValue, Span, number};
pub use kind::{Class, EventKind, EventNames};
pub use record::{DecodeError, Record, Uncopied};
#[cfg(test)]
pub(crate) use {
    known::RELEASES,
    record::{KNOWN_NAMES, STORED_VERSION},
};
