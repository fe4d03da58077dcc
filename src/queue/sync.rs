// SPDX-License-Identifier: MIT
//! What the queue is synchronized by. `tests/loom_ring` puts loom's model of it in its place.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(super) use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

pub(super) use crossbeam_queue::ArrayQueue;
pub(super) use crossbeam_utils::CachePadded;
