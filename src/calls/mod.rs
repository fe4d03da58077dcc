// SPDX-License-Identifier: MIT
//! Live calls, so that those which a crash of the switch ended are told.
//!
//! Calls that were alive when the process died would stay open in every consumer for ever: their
//! `CHANNEL_DESTROY` will never come. So a small table of them is kept on disk, and at the next start
//! each call of an earlier boot becomes a CUSTOM event `rustbridge::orphan` with that boot's
//! Core-UUID and an id of its own (`<old boot>-orphan-<uuid>`), once for every sink that wants it.
//!
//! * [`Table`] is the calls and the orphans in memory, and their file.
//! * [`LiveCallsSink`] keeps it up to date; it is a sink like any other, behind a ring of its own, so
//!   no thread of FreeSWITCH's ever touches the disk for it.
//! * [`Teller`] publishes the orphans and notes for each sink when it has them for good.
//!
//! **What it promises.** A crash of the process loses what the publisher had not yet written: some
//! milliseconds (its `linger`). A power loss loses up to [`Table::SYNC_EVERY`] more. A call that began
//! in that time is missed; one that ended in it is told although its end was told too, with the
//! same Unique-ID. What was not seen for sure (the module was not loaded for a while, its queue ran
//! over, lines of the file are damaged) is told with `Rustbridge-Confirmed: false`.

mod call;
mod file;
mod sink;
mod table;
mod teller;
#[cfg(test)]
mod tests;

pub use call::Call;
pub use sink::{EVENTS, LiveCallsSink, shared};
pub use table::{Orphan, Report, Stats, Table};
pub use teller::{Audience, Teller, Told};

/// The subclass of the events that tell of orphans.
pub const SUBCLASS: &str = "rustbridge::orphan";
