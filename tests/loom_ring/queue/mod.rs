// SPDX-License-Identifier: MIT
//! The sources of the queue, over loom's atomics.

// The counters of an account are only ever added to and have no part in the protocol, so they are
// the real ones: loom need not try their orders.
#[path = "../../../src/queue/account.rs"]
mod account;
#[path = "../../../src/queue/lane.rs"]
mod lane;
#[path = "../../../src/queue/pool.rs"]
mod pool;
#[path = "../../../src/queue/ring.rs"]
mod ring;
#[path = "../../../src/queue/shelf.rs"]
mod shelf;
mod sync;

pub(crate) use account::{Account, DropReason};
pub(crate) use lane::Lane;
pub(crate) use pool::Pool;
pub(crate) use ring::{Admission, Limits, Ring};
