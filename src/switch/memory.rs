// SPDX-License-Identifier: MIT
//! The allocator of the module's Rust code: the C library's, and on threads of ours an allocation
//! that fails is [waited for](crate::memory).
//!
//! Allocations of C libraries in the module (librdkafka, OpenSSL) do not come here.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::memory;

/// Which of the process's thread-specific values says whether a thread waits; beyond any while there is none.
///
/// Not a thread-local of Rust: in a library that was opened later, a thread's first look at one allocates, and ends the process
/// where it cannot.
static KEY: AtomicU32 = AtomicU32::new(NO_KEY);
const NO_KEY: libc::pthread_key_t = libc::pthread_key_t::MAX;

/// To be called on every thread of ours, first thing: allocations there may wait.
pub(super) fn be_patient() {
    if KEY.load(Ordering::Acquire) == NO_KEY {
        let mut fresh = NO_KEY;
        // SAFETY: writes one number, which is valid for writes; no destructor is registered.
        if unsafe { libc::pthread_key_create(&raw mut fresh, None) } != 0 {
            return;
        }
        if KEY.compare_exchange(NO_KEY, fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: the key was made above, and nobody else has seen it.
            unsafe { libc::pthread_key_delete(fresh) };
        }
    }
    set_patience(true);
}

fn is_patient() -> bool {
    let key = KEY.load(Ordering::Acquire);
    // SAFETY: the key exists. Reading allocates nothing: glibc has room for it in each thread or answers null.
    key != NO_KEY && !unsafe { libc::pthread_getspecific(key) }.is_null()
}

/// Says whether the calling thread waits from now on, and tells whether it did. One that was never ours does not.
pub fn set_patience(patient: bool) -> bool {
    let (key, was) = (KEY.load(Ordering::Acquire), is_patient());
    if was != patient && key != NO_KEY {
        let mark = if patient { ptr::without_provenance(1) } else { ptr::null() };
        // SAFETY: the key exists and is never deleted; the value is a mark that nobody follows.
        unsafe { libc::pthread_setspecific(key, mark) };
    }
    was
}

/// Asks again, if the calling thread may wait.
#[cold]
#[inline(never)]
fn again(ask: &mut dyn FnMut() -> *mut u8) -> *mut u8 {
    if !is_patient() {
        return ptr::null_mut();
    }
    memory::wait_for(|| NonNull::new(ask())).map_or(ptr::null_mut(), NonNull::as_ptr)
}

/// See the module.
#[derive(Debug)]
pub struct Patient;

// SAFETY: everything is done by `System`, which keeps the contract; asking it once more after it failed is another call
// of the same kind, and what it was given stays valid when it fails.
unsafe impl GlobalAlloc for Patient {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this very function.
        let mut ask = || unsafe { System.alloc(layout) };
        let found = ask();
        if found.is_null() { again(&mut ask) } else { found }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this very function.
        let mut ask = || unsafe { System.alloc_zeroed(layout) };
        let found = ask();
        if found.is_null() { again(&mut ask) } else { found }
    }

    #[inline]
    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this very function; where there was no memory, `old` is as it was.
        let mut ask = || unsafe { System.realloc(old, layout, size) };
        let found = ask();
        if found.is_null() { again(&mut ask) } else { found }
    }

    #[inline]
    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.dealloc(old, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_of_ours_waits_but_for_what_it_can_do_without() {
        assert!(!is_patient(), "a thread is not ours before it says so");
        memory::without_waiting(set_patience, || assert!(!is_patient()));
        assert!(!is_patient());
        be_patient();
        assert!(is_patient());
        memory::without_waiting(set_patience, || {
            assert!(!is_patient());
            memory::without_waiting(set_patience, || assert!(!is_patient()));
            assert!(!is_patient());
        });
        assert!(is_patient());
        // It may be another test's thread next.
        assert!(set_patience(false));
    }
}
