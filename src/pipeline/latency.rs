// SPDX-License-Identifier: MIT
//! How long events take from the core's making them to the broker's acknowledgement.
//!
//! By the clock of the day, since that is what an event carries (`Event-Date-Timestamp`): an event
//! that waited out a restart on disk counts with all of its time, and a clock that is set counts
//! wrong for once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Parts of each doubling: a quantile is told a sixteenth too high at most.
const PARTS: usize = 16;
/// Doublings above the first sixteen microseconds: enough for a year.
const DOUBLINGS: usize = 41;
const BUCKETS: usize = PARTS * (DOUBLINGS + 1);

/// A distribution of microseconds. One thread notes, others read.
#[derive(Debug)]
pub(super) struct Latency {
    counts: Box<[AtomicU64]>,
    max_us: AtomicU64,
}

/// What a distribution amounts to, in microseconds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LatencyView {
    /// How many events it is made of.
    pub count: u64,
    /// Half of them took no longer.
    pub p50: u64,
    /// Of a hundred, one took longer.
    pub p99: u64,
    /// Of a thousand, one took longer.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

/// Microseconds since 1970, as events carry them.
pub(super) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            max_us: AtomicU64::new(0),
        }
    }
}

impl Latency {
    /// Notes one event. For the publisher's thread alone.
    #[inline]
    pub(super) fn note(&self, us: u64) {
        // Nobody else writes, so a plain addition will do.
        if let Some(count) = self.counts.get(bucket(us)) {
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        if us > self.max_us.load(Ordering::Relaxed) {
            self.max_us.store(us, Ordering::Relaxed);
        }
    }

    /// What it amounts to now.
    pub(super) fn view(&self) -> LatencyView {
        let counts: Vec<u64> =
            self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        let max = self.max_us.load(Ordering::Relaxed);
        let quantile = |thousandths: u64| {
            let mut left = (count * thousandths).div_ceil(1000);
            let reached = counts.iter().position(|in_bucket| {
                left = left.saturating_sub(*in_bucket);
                left == 0
            });
            reached.map_or(0, |bucket| upper(bucket).min(max))
        };
        LatencyView { count, p50: quantile(500), p99: quantile(990), p999: quantile(999), max }
    }
}

/// Where a time is counted: the first sixteen by themselves, then sixteen parts a doubling.
#[inline]
fn bucket(us: u64) -> usize {
    let doubling = (us / 16).checked_ilog2().map_or(0, |log| log + 1);
    let part = us >> doubling.saturating_sub(1);
    let place = u64::from(doubling.saturating_sub(1)) * 16 + part;
    usize::try_from(place).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The longest time that is counted there.
fn upper(bucket: usize) -> u64 {
    let bucket = u64::try_from(bucket).unwrap_or(u64::MAX);
    let shift = (bucket / 16).saturating_sub(1);
    (((bucket - shift * 16) + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_of_times_that_are_known() {
        let latency = Latency::default();
        assert_eq!(latency.view(), LatencyView::default());
        (1..=1000).for_each(|us| latency.note(us));
        let LatencyView { count, p50, p99, p999, max } = latency.view();
        assert_eq!((count, max), (1000, 1000));
        for (told, exact) in [(p50, 500), (p99, 990), (p999, 999)] {
            assert!((exact..=exact + exact / 16).contains(&told), "{told} {exact}");
        }
    }

    #[test]
    fn no_time_is_too_long() {
        let latency = Latency::default();
        latency.note(u64::MAX);
        latency.note(0);
        assert_eq!(latency.view().count, 2);
        assert_eq!(latency.view().p50, 0);
    }

    proptest! {
        #[test]
        fn a_bucket_holds_what_is_at_most_a_sixteenth_below_its_end(us in 0_u64..1 << 44) {
            let end = upper(bucket(us));
            prop_assert!(end >= us && end - us <= us / 16, "{} {}", us, end);
            prop_assert!(bucket(us) == 0 || upper(bucket(us) - 1) < us);
        }
    }
}
