// SPDX-License-Identifier: MIT
//! A bounded stack of records that nobody ever waits at.
//!
//! A thread that is stopped in the middle of a push to a lock-free queue makes a thread that pops spin until it goes on, which at
//! real-time priority, on the same processor, it may not do for long. So this is a stack behind a lock that is only ever tried:
//! whoever finds it held goes elsewhere. A lock that nobody waits for is taken and given back without a system call.

use super::sync::{Arc, AtomicUsize, Mutex, MutexGuard, Ordering, TryLockError};
use crate::event::Record;

/// Ready records. What was put down last is taken first: its memory is the likeliest to be in the caches.
#[derive(Debug)]
pub(super) struct Shelf {
    stack: Mutex<Stack>,
    /// How many lie there, for those who only want to know.
    ready: AtomicUsize,
    room: usize,
    /// What all that lie there may hold together.
    bytes: usize,
}

#[derive(Debug)]
struct Stack {
    records: Vec<Arc<Record>>,
    /// Bytes that they hold.
    held: usize,
    /// What each record holds without growing, but for the lowest `small`.
    fits: usize,
    small: usize,
}

impl Shelf {
    /// An empty one with room for so many, and for so many bytes of theirs.
    pub(super) fn new(room: usize, bytes: usize) -> Self {
        let stack = Stack { records: Vec::with_capacity(room), held: 0, fits: 0, small: 0 };
        Self { stack: Mutex::new(stack), ready: AtomicUsize::new(0), room, bytes }
    }

    /// How many lie there.
    pub(super) fn ready(&self) -> usize {
        self.ready.load(Ordering::Relaxed)
    }

    /// None while somebody else has it.
    fn hold(&self) -> Option<MutexGuard<'_, Stack>> {
        match self.stack.try_lock() {
            Ok(stack) => Some(stack),
            // Nothing that is done here stops half way.
            Err(TryLockError::Poisoned(stack)) => Some(stack.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The one on top. None when there is none, and while another thread is here.
    #[inline]
    pub(super) fn take(&self) -> Option<Arc<Record>> {
        if self.ready() == 0 {
            return None;
        }
        let mut stack = self.hold()?;
        let record = stack.records.pop()?;
        stack.held -= record.capacity();
        let left = stack.records.len();
        stack.small = stack.small.min(left);
        self.ready.store(left, Ordering::Relaxed);
        Some(record)
    }

    /// Puts one on top. It comes back when there is no room, when it is smaller than those here, and while another thread is here.
    pub(super) fn give(&self, record: Arc<Record>) -> Result<(), Arc<Record>> {
        if self.ready() >= self.room {
            return Err(record);
        }
        let Some(mut stack) = self.hold() else { return Err(record) };
        let capacity = record.capacity();
        // One has room, however large.
        let is_full = stack.held > 0 && stack.held + capacity > self.bytes;
        if stack.records.len() >= self.room || is_full || capacity < stack.fits {
            return Err(record);
        }
        stack.held += capacity;
        stack.records.push(record);
        self.ready.store(stack.records.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Has up to `count` records looked at and, where they hold less than `bytes`, changed for one that `larger` makes. Says
    /// whether all here hold as much now. For publishers.
    pub(super) fn enlarge(
        &self,
        bytes: usize,
        count: &mut usize,
        larger: impl Fn() -> Option<Record>,
    ) -> bool {
        let mut spare = None;
        loop {
            let Some(mut stack) = self.hold() else { return false };
            if stack.fits < bytes {
                stack.fits = bytes;
                stack.small = stack.records.len();
            }
            let Some(lowest) = stack.small.checked_sub(1) else { return true };
            if *count == 0 {
                return false;
            }
            let Some(record) = stack.records.get_mut(lowest) else { return true };
            if record.capacity() < bytes {
                // Made while nobody is kept from the others.
                let Some(larger) = spare.take() else {
                    drop(stack);
                    spare = larger().map(Arc::new);
                    if spare.is_none() {
                        return false;
                    }
                    continue;
                };
                let more = larger.capacity();
                let small = std::mem::replace(record, larger);
                stack.held = stack.held - small.capacity() + more;
                spare = Some(small);
            }
            stack.small = lowest;
            *count -= 1;
            drop(stack);
            // What was too small is freed here, by a publisher.
            spare = spare.filter(|spare| spare.capacity() >= bytes);
        }
    }
}
