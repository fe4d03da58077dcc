// SPDX-License-Identifier: MIT
//! How many messages may be unconfirmed: as many as the way to the broker holds, and a reserve.
//!
//! A broker next door is kept busy by a reserve of messages that wait at it. Over a longer way as
//! many again are on that way, there or back, as are confirmed in the time that it takes: the
//! rate times the latency of a broker with nothing to do. With a fixed number a far broker would
//! be sent too few, or a near one's crash would repeat too many.
//!
//! What latency is the way's and what is waiting at the broker cannot be told apart while the
//! window is full. So the least one counts, of a minute or two; and after a minute in which the
//! window was full all the time, it is let run empty for once to look.

use std::time::{Duration, Instant};

/// The shortest time over which confirms make a rate: they come in bursts.
const PERIOD: Duration = Duration::from_millis(250);
/// Periods of which the best counts: a broker that pauses for a moment is not slow for it.
const PERIODS: usize = 4;
/// How long a least latency is believed, at least; twice as long at most.
pub const LATENCY_BELIEVED: Duration = Duration::from_secs(60);

/// Tags of messages in flight at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traffic {
    /// The first that is not settled.
    pub(super) unsettled: u64,
    /// The one that the next message will have.
    pub(super) next: u64,
}

/// What a publisher has learned of the way to its broker since it connected.
#[derive(Debug)]
pub(super) struct Reach {
    reserve: usize,
    /// How long a least latency is believed.
    believed: Duration,
    limit: usize,
    /// A message under way, and since when.
    mark: Option<(u64, Instant)>,
    /// The least latency since `believed_since`, and in the time before.
    least: Option<Duration>,
    least_before: Option<Duration>,
    believed_since: Instant,
    /// The window was full in each period since then.
    was_always_full: bool,
    /// The window runs empty, to look at the way alone.
    is_probing: bool,
    /// The next message's tag after the last round.
    next: u64,
    /// Where the period began: when, and the first message not settled then.
    since: Instant,
    first: u64,
    /// The window was full in this period at some time.
    was_full: bool,
    /// Messages a second in the last periods with a full window.
    rates: [u64; PERIODS],
    period: usize,
}

impl Default for Reach {
    /// Bounds nothing.
    fn default() -> Self {
        Self::new(usize::MAX, LATENCY_BELIEVED, Instant::now())
    }
}

impl Reach {
    /// For a broker that needs `reserve` messages next door. A latency is `believed` so long.
    pub(super) fn new(reserve: usize, believed: Duration, now: Instant) -> Self {
        Self {
            reserve,
            believed,
            limit: reserve,
            mark: None,
            least: None,
            least_before: None,
            believed_since: now,
            was_always_full: true,
            is_probing: false,
            next: 0,
            since: now,
            first: 0,
            was_full: false,
            rates: [0; PERIODS],
            period: 0,
        }
    }

    /// How many messages may be in flight, were the sink to take them.
    pub(super) fn limit(&self) -> usize {
        // One message alone waits for no other.
        if self.is_probing { 1 } else { self.limit }
    }

    /// Whether the window is to run empty, for a look at the way alone.
    pub(super) fn is_probing(&self) -> bool {
        self.is_probing
    }

    /// Learns from what was handed over just now. `is_full`: more waits for room in the window.
    pub(super) fn sent(&mut self, traffic: Traffic, is_full: bool, now: Instant) {
        self.was_full |= is_full;
        let first = std::mem::replace(&mut self.next, traffic.next);
        // The first of those that go together waits for none of them.
        let is_alone = first <= traffic.unsettled;
        if self.mark.is_none() && first < traffic.next && (is_alone || !self.is_probing) {
            self.mark = Some((first, now));
        }
    }

    /// Learns from what was settled since. True when that ended a look at the way alone.
    pub(super) fn settled(&mut self, traffic: Traffic, now: Instant) -> bool {
        if self.reserve == usize::MAX {
            return false;
        }
        let mut has_looked = false;
        if let Some((_, at)) = self.mark.take_if(|(tag, _)| *tag < traffic.unsettled) {
            has_looked = self.is_probing;
            self.note_time(traffic, now.saturating_duration_since(at), now);
        }
        // Over a way of seconds a period has to hold what comes back from it.
        let period = PERIOD.max(self.way().saturating_mul(2));
        let took = now.saturating_duration_since(self.since);
        if took >= period {
            self.note_rate(traffic, took);
            self.begin(traffic, now);
        }
        if now.saturating_duration_since(self.believed_since) >= self.believed && !self.is_probing {
            if self.was_always_full {
                self.is_probing = true;
                self.mark = None;
            } else {
                self.least_before = self.least.take();
                self.believe_from(now);
            }
        }
        has_looked
    }

    /// The latency of the way itself, as far as it is known.
    fn way(&self) -> Duration {
        let times = [self.least, self.least_before];
        times.into_iter().flatten().min().unwrap_or_default()
    }

    fn believe_from(&mut self, now: Instant) {
        self.believed_since = now;
        self.was_always_full = true;
    }

    fn begin(&mut self, traffic: Traffic, now: Instant) {
        self.since = now;
        self.first = traffic.unsettled;
        self.was_full = false;
    }

    /// A message was confirmed so long after it had been handed over.
    fn note_time(&mut self, traffic: Traffic, took: Duration, now: Instant) {
        if self.is_probing {
            self.is_probing = false;
            self.least_before = None;
            self.least = Some(took);
            self.believe_from(now);
            // A period with an empty window has no rate.
            self.begin(traffic, now);
        } else {
            self.least = Some(self.least.map_or(took, |least| least.min(took)));
        }
    }

    /// Ends a period: what was confirmed in it is the broker's rate, if it was given enough.
    fn note_rate(&mut self, traffic: Traffic, took: Duration) {
        if !self.was_full || self.is_probing {
            self.was_always_full &= self.was_full;
            return;
        }
        let settled = u128::from(traffic.unsettled.saturating_sub(self.first));
        let rate = settled * 1_000_000 / took.as_micros().max(1);
        if let Some(slot) = self.rates.get_mut(self.period % PERIODS) {
            *slot = u64::try_from(rate).unwrap_or(u64::MAX);
        }
        self.period += 1;
        let best = u128::from(self.rates.iter().copied().max().unwrap_or_default());
        let under_way = best * self.way().as_micros() / 1_000_000;
        let under_way = usize::try_from(under_way).unwrap_or(usize::MAX);
        self.limit = self.reserve.saturating_add(under_way);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const RESERVE: usize = 1024;

    /// A broker that takes `rate` messages a second, one after another, `way` there and back, and
    /// a publisher with a round each millisecond that has messages without end.
    struct Run {
        reach: Reach,
        now: Instant,
        next: u64,
        unsettled: u64,
        /// When which message's confirm comes.
        coming: VecDeque<(u64, Instant)>,
        /// When the broker is done with the last one.
        busy_until: Instant,
        /// What the sink takes at most.
        ceiling: usize,
        most: usize,
        least: usize,
    }

    impl Run {
        fn new() -> Self {
            let now = Instant::now();
            Self {
                reach: Reach::new(RESERVE, LATENCY_BELIEVED, now),
                now,
                next: 0,
                unsettled: 0,
                coming: VecDeque::new(),
                busy_until: now,
                ceiling: usize::MAX,
                most: 0,
                least: usize::MAX,
            }
        }

        fn traffic(&self) -> Traffic {
            Traffic { unsettled: self.unsettled, next: self.next }
        }

        /// Goes on for so many seconds; `offered` messages a second at most. How many were
        /// confirmed.
        fn seconds(&mut self, seconds: u64, rate: u64, way: Duration, offered: u64) -> u64 {
            let before = self.unsettled;
            let started = self.now;
            let mut sent = 0;
            for round in 0..seconds * 1000 {
                self.now = started + Duration::from_millis(round);
                while self.coming.front().is_some_and(|(_, at)| *at <= self.now) {
                    self.unsettled = self.coming.pop_front().unwrap().0 + 1;
                }
                self.reach.settled(self.traffic(), self.now);
                let mut is_full = false;
                while sent < offered * (round + 1) / 1000 {
                    let in_flight = usize::try_from(self.next - self.unsettled).unwrap();
                    is_full = in_flight >= self.reach.limit().min(self.ceiling);
                    if is_full {
                        break;
                    }
                    self.busy_until = self.busy_until.max(self.now + way / 2)
                        + Duration::from_nanos(1_000_000_000 / rate);
                    self.coming.push_back((self.next, self.busy_until + way / 2));
                    self.next += 1;
                    sent += 1;
                }
                self.reach.sent(self.traffic(), is_full, self.now);
                if !self.reach.is_probing {
                    self.most = self.most.max(self.reach.limit());
                    self.least = self.least.min(self.reach.limit());
                }
            }
            self.unsettled - before
        }
    }

    const PLENTY: u64 = 1_000_000;
    const NEAR: Duration = Duration::from_millis(1);
    const FAR: Duration = Duration::from_millis(200);

    #[test]
    fn a_near_broker_gets_the_reserve_and_little_more() {
        let mut run = Run::new();
        run.seconds(10, 10_000, NEAR, PLENTY);
        assert!(run.most <= RESERVE + 300, "{}", run.most);
    }

    #[test]
    fn a_far_broker_is_kept_busy_all_the_same() {
        let mut run = Run::new();
        run.seconds(5, 10_000, FAR, PLENTY);
        let confirmed = run.seconds(5, 10_000, FAR, PLENTY);
        assert!(confirmed >= 49_000, "{confirmed} of 50 000");
        assert!(run.most >= 3000 && run.most <= 3400, "{}", run.most);
        // With the reserve alone it is half of that.
        let mut fixed = Run::new();
        fixed.ceiling = RESERVE;
        let confirmed = fixed.seconds(5, 10_000, FAR, PLENTY);
        assert!(confirmed < 26_000, "{confirmed}");
    }

    #[test]
    fn a_slow_broker_is_not_taken_for_a_far_one() {
        let mut run = Run::new();
        // Ten minutes of a full window, at a latency of two seconds that is all of waiting.
        run.seconds(600, 500, NEAR, PLENTY);
        assert!(run.most <= RESERVE + 50, "{}", run.most);
    }

    #[test]
    fn looking_costs_little() {
        let mut run = Run::new();
        let confirmed = run.seconds(600, 10_000, NEAR, PLENTY);
        assert!(confirmed >= 5_980_000, "{confirmed} of 6 000 000");
        assert!(run.most <= RESERVE + 300, "{}", run.most);
        // Far away it is two round trips a minute.
        let mut run = Run::new();
        run.seconds(5, 10_000, FAR, PLENTY);
        let confirmed = run.seconds(600, 10_000, FAR, PLENTY);
        assert!(confirmed >= 5_940_000, "{confirmed} of 6 000 000");
        assert!(run.most <= 3500, "{}", run.most);
    }

    #[test]
    fn with_little_to_do_the_way_is_known_and_the_window_stays() {
        let mut run = Run::new();
        run.seconds(300, 10_000, FAR, 100);
        assert_eq!((run.most, run.least), (RESERVE, RESERVE));
        // And when the load comes it is where it has to be in a few periods.
        run.seconds(3, 10_000, FAR, PLENTY);
        assert!(run.most >= 2500, "{}", run.most);
    }

    #[test]
    fn a_way_that_becomes_longer_is_noticed() {
        let mut run = Run::new();
        run.seconds(70, 10_000, NEAR, PLENTY);
        run.seconds(130, 10_000, FAR, PLENTY);
        let confirmed = run.seconds(5, 10_000, FAR, PLENTY);
        assert!(confirmed >= 47_000, "{confirmed} of 50 000");
        // And one that becomes shorter.
        run.seconds(130, 10_000, NEAR, PLENTY);
        assert!(run.reach.limit() <= RESERVE + 300, "{}", run.reach.limit());
    }

    #[test]
    fn a_broker_that_confirms_nothing_changes_nothing() {
        let now = Instant::now();
        let mut reach = Reach::new(RESERVE, LATENCY_BELIEVED, now);
        let at = |second| now + Duration::from_secs(second);
        for second in 0..600 {
            let traffic = Traffic { unsettled: 0, next: 1024 };
            reach.sent(traffic, true, at(second));
            reach.settled(traffic, at(second));
            // From the first minute on it is asked to run empty, and does not.
            assert_eq!(reach.limit(), if second < 60 { RESERVE } else { 1 }, "{second}");
        }
        // When it does at last, one message goes alone, and the window is what it was.
        assert!(!reach.settled(Traffic { unsettled: 1024, next: 1024 }, at(600)));
        assert_eq!(reach.limit(), 1);
        reach.sent(Traffic { unsettled: 1024, next: 1025 }, true, at(600));
        assert!(reach.settled(Traffic { unsettled: 1025, next: 1025 }, at(601)));
        assert_eq!(reach.limit(), RESERVE);
    }
}
