// SPDX-License-Identifier: MIT
//! What `src/queue/sync.rs` names, as loom models it.

use std::collections::VecDeque;
use std::ops::Deref;

pub(super) use std::sync::TryLockError;

pub(super) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(super) use loom::sync::{Arc, Mutex, MutexGuard};

/// A bounded queue as `crossbeam_queue::ArrayQueue` promises to be one: each operation happens at
/// one moment, and what came before a push is seen after the pop of it.
///
/// loom can't look into that crate, so it is taken at its word here. The lock orders more than the
/// real queue does, which orders a push and the pop of it only; no model relies on the rest.
#[derive(Debug)]
pub(super) struct ArrayQueue<T> {
    capacity: usize,
    items: Mutex<VecDeque<T>>,
}

impl<T> ArrayQueue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, items: Mutex::new(VecDeque::new()) }
    }

    pub(super) fn push(&self, item: T) -> Result<(), T> {
        let mut items = self.items.lock().unwrap();
        if items.len() == self.capacity {
            return Err(item);
        }
        items.push_back(item);
        Ok(())
    }

    pub(super) fn pop(&self) -> Option<T> {
        self.items.lock().unwrap().pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.items.lock().unwrap().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Nothing is gained by a padding in a model.
#[derive(Debug)]
pub(super) struct CachePadded<T>(T);

impl<T> CachePadded<T> {
    pub(super) fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for CachePadded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// All model threads are one thread of the system, and a model must do the same each time.
pub(super) fn address_of_stack() -> usize {
    0
}
