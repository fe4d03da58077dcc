// SPDX-License-Identifier: MIT
//! The only thing that a dispatch thread and a publisher thread share.
//!
//! # What it must be
//!
//! A dispatch thread runs at real-time priority under the core's event lock. So its side
//! ([`Ring::offer`]) takes no lock, makes no system call, wakes nobody and allocates nothing: it
//! reserves room with one atomic addition, and pushes. The publisher looks at the ring at least
//! once per linger, under load once per batch; being woken per event was measured to cost the dispatch thread ten times what
//! the copy costs.
//!
//! # How memory is bounded
//!
//! One 64-bit word holds both how many events a sink has in memory and how many bytes they are.
//! An event is counted from `offer` until the publisher says [`Ring::release`]: while it lies in
//! the ring, waits behind a broker that is away, or is in flight. What a class may take of the
//! bound is its budget: bulk is refused first, critical last.
//!
//! # How loss stays visible
//!
//! An event that finds no room is counted by reason and by kind, and the next event that does get
//! in carries how many are missing in front of it. The publisher gives those their numbers in
//! the stream too, so that a consumer sees the hole exactly where it is.

mod account;
mod lane;
mod pool;
mod ring;
mod shelf;
mod sync;

pub use account::{Account, AccountView, DropReason, Offered};
pub use lane::{Lane, Lanes};
pub use pool::Pool;
pub use ring::{Admission, Limits, Missed, Ring, Slot};
