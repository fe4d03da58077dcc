// SPDX-License-Identifier: MIT
//! What the queue is synchronized by. `tests/loom_ring` puts loom's model of it in its place.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(super) use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

pub(super) use crossbeam_queue::ArrayQueue;
pub(super) use crossbeam_utils::CachePadded;

/// Where the calling thread's stack is now.
#[inline]
pub(super) fn address_of_stack() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(std::hint::black_box(&here)).addr()
}
