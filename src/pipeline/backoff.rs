// SPDX-License-Identifier: MIT
//! How long to wait before the next attempt.

use std::time::{Duration, Instant};

/// Exponential, with jitter, so that a thousand switches do not come back in the same instant.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    attempt: u32,
    noise: u64,
}

impl Backoff {
    /// Waits from `min`, doubling up to `max`. `seed` tells switches apart.
    pub(super) fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self { min, max: max.max(min), attempt: 0, noise: seed | 1 }
    }

    /// The next wait: between half of what doubling gives and all of it.
    pub(super) fn next(&mut self) -> Duration {
        let doubled = self.min.saturating_mul(1 << self.attempt.min(16)).min(self.max);
        self.attempt = self.attempt.saturating_add(1);
        // xorshift: any spread will do, and it needs no entropy from the system.
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        let half = doubled / 2;
        let spread = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).saturating_add(1);
        half + Duration::from_nanos(self.noise % spread)
    }

    /// Begins again: an attempt succeeded.
    pub(super) fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// A number that differs between processes and sinks.
pub(super) fn seed(name: &str) -> u64 {
    let name = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let clock = Instant::now().elapsed().subsec_nanos();
    name ^ (u64::from(std::process::id()) << 32) ^ u64::from(clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum_and_begin_again_after_a_success() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::new(min, max, 7);
        for attempt in 0..20 {
            let full = min.saturating_mul(1 << attempt.min(16)).min(max);
            let wait = backoff.next();
            assert!(wait >= full / 2 && wait <= full, "attempt {attempt} waits {wait:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= min);
    }
}
