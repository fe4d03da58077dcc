// SPDX-License-Identifier: MIT
//! What a thread of ours does when the system has no memory left: it waits, and asks again.
//!
//! Rust ends the process when an allocation fails that nobody looks at. A publisher has time: while
//! it waits, events gather in its ring, and give way there by class and counted, as they do when a
//! broker does not keep up. Threads of FreeSWITCH never wait: what the event callback has no memory
//! for is counted as `no-memory`. The allocator that asks this is `switch::memory`.

use std::collections::TryReserveError;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long an allocation is tried. After it the process ends, as it would have at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// From one attempt to the next, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

/// Allocations that were waited for.
static WAITS: AtomicU64 = AtomicU64::new(0);

/// Says whether the calling thread waits from now on, and tells whether it did. The allocator knows how.
pub type SetPatience = fn(bool) -> bool;

/// How many allocations were waited for since the library was opened. From any thread.
pub fn waits() -> u64 {
    WAITS.load(Ordering::Relaxed)
}

/// Runs something that can do without the memory it asks for.
pub fn without_waiting<R>(set: SetPatience, body: impl FnOnce() -> R) -> R {
    struct Back(SetPatience);
    impl Drop for Back {
        fn drop(&mut self) {
            (self.0)(true);
        }
    }
    // Lazily: what is made is also dropped.
    let _back = set(false).then(|| Back(set));
    body()
}

/// Asks again for what there was no memory for, for some seconds. On threads of ours, and without
/// allocating anything.
pub fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    WAITS.fetch_add(1, Ordering::Relaxed);
    let [mut pause, longest] = PAUSES;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = ask();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        // Nothing tells of memory that is free again.
        std::thread::park_timeout(pause);
        pause = longest.min(pause * 2);
    }
}

/// Sees to it that there are so many bytes, by waiting for them on threads of ours, for what allocates without asking us: what is
/// given back at once is what the next allocations of this thread are served from.
///
/// # Errors
///
/// When there are not.
pub fn expect(bytes: usize) -> Result<(), TryReserveError> {
    let mut block = Vec::<u8>::new();
    block.try_reserve_exact(bytes)?;
    drop(black_box(block));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_until_there_is_some() {
        let mut left = 3;
        let before = waits();
        let found = wait_for(|| {
            left -= 1;
            (left == 0).then_some("memory")
        });
        assert_eq!((found, left), (Some("memory"), 0));
        assert!(waits() > before);
    }
}
