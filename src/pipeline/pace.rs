// SPDX-License-Identifier: MIT
//! How long a publisher lets work gather before it looks again: batches that follow the load.
//!
//! With little to do a publisher is woken by whatever comes, an acknowledgement or the end of a
//! linger, so an event waits no longer than a linger. With much to do each acknowledgement would
//! wake it for a handful of messages, and looking would cost more than what it finds. Then it
//! rests between two rounds, deaf to what comes, for about as long as a good batch takes to
//! gather. It never rests longer than a few lingers, and never for so much that the broker might
//! run out of work or the ring out of room.

use std::time::{Duration, Instant};

/// Messages that a round should have: the three system calls of a round are little for so many.
const BATCH: usize = 128;
/// A smaller batch is not worth a rest: a small window, or a small queue.
const HANDFUL: usize = 8;
/// The longest rest, in lingers: what an event may wait under load.
const LINGERS: u32 = 5;
/// And in any case: for a longer time records of the pool could be too few for what comes.
const LONGEST: Duration = Duration::from_millis(25);
/// How long messages are counted to know the load. Twice in a row it must be much.
const PERIOD: Duration = Duration::from_millis(30);
/// Messages in the longest rest that make it worth to begin with: with the usual linger, a
/// thousand a second.
const WORTH: usize = 25;
/// How many looks a burst is remembered for.
const BURSTS: u32 = 32;

/// What a round had to do, and what bounds the next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Round {
    /// Events taken from the ring.
    pub(super) taken: usize,
    /// Messages handed to the sink. With a full window these are the acknowledged ones.
    pub(super) handed: usize,
    /// How many messages may be in flight. An eighth of them may be confirmed, and as much room be
    /// unused, before the publisher looks.
    pub(super) window: usize,
    /// How many more events the queue has room for. No more than a sixteenth may gather in the ring.
    pub(super) room: usize,
    /// Messages wait because the window is full.
    pub(super) is_full: bool,
}

/// What to do between two rounds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wait {
    /// Be woken by what comes, or after a linger.
    Linger,
    /// Be woken by what comes, or after so long.
    For(Duration),
    /// Leave what comes lying for so long.
    Deaf(Duration),
}

/// What a publisher has learned of its load.
#[derive(Debug)]
pub(super) struct Pace {
    longest: Duration,
    /// How long a batch takes to gather. Nothing: there is little to do.
    span: Duration,
    taken: usize,
    handed: usize,
    /// When counting these began.
    since: Instant,
    /// The period before had much as well.
    was_busy: bool,
    /// Looks for which the broker is taken to tell of much at once, and of little in between. Who
    /// does not hear a burst at once leaves it with nothing to do.
    bursts: u32,
}

impl Pace {
    /// `by_disk`: each event goes to disk first, and what the ring holds is what a crash takes. That
    /// stays within a linger.
    pub(super) fn new(linger: Duration, by_disk: bool, now: Instant) -> Self {
        let lingers = if by_disk { 1 } else { LINGERS };
        Self {
            longest: linger.saturating_mul(lingers).min(LONGEST),
            span: Duration::ZERO,
            taken: 0,
            handed: 0,
            since: now,
            was_busy: false,
            bursts: 0,
        }
    }

    /// Learns from a round, and says what to do before the next.
    pub(super) fn next(&mut self, round: Round, now: Instant) -> Wait {
        let batch = BATCH.min(round.window / 8).min(round.room / 16);
        self.taken = self.taken.saturating_add(round.taken);
        self.handed = self.handed.saturating_add(round.handed);
        if round.is_full {
            let is_burst = round.handed > round.window / 4;
            self.bursts = if is_burst { BURSTS } else { self.bursts.saturating_sub(1) };
        } else {
            self.bursts = 0;
            if !self.span.is_zero() && round.handed < HANDFUL {
                // One such round may be chance; a few of them are not.
                self.span /= 2;
                if self.span < self.longest / 8 {
                    self.begin(false, now);
                    self.span = Duration::ZERO;
                }
            }
        }
        let took = now.saturating_duration_since(self.since);
        if took >= PERIOD {
            // What the longest rest would find at this rate.
            let found = in_time(self.taken.max(self.handed), self.longest, took);
            let worth = if self.span.is_zero() { WORTH } else { HANDFUL };
            let is_busy = round.is_full || found >= worth.min(batch);
            self.span = if is_busy && (self.was_busy || round.is_full) {
                let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
                let batches = self.longest.saturating_mul(number(batch));
                self.longest.min(batches / number(found.max(1)))
            } else {
                Duration::ZERO
            };
            self.begin(is_busy, now);
        }
        if self.span.is_zero() || batch < HANDFUL {
            Wait::Linger
        } else if self.bursts > 0 || (round.is_full && round.handed == 0) {
            Wait::For(self.span)
        } else {
            Wait::Deaf(self.span)
        }
    }

    /// Begins a period of counting.
    fn begin(&mut self, was_busy: bool, now: Instant) {
        self.was_busy = was_busy;
        self.since = now;
        self.taken = 0;
        self.handed = 0;
    }
}

/// `count` that came in `took`, as it would be in `other`.
fn in_time(count: usize, other: Duration, took: Duration) -> usize {
    let count = u128::try_from(count).unwrap_or(u128::MAX);
    let there = count.saturating_mul(other.as_micros()) / took.as_micros().max(1);
    usize::try_from(there).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_millis(5);
    const PLENTY: Round = Round { taken: 0, handed: 0, window: 1024, room: 65_536, is_full: false };

    /// A pace whose clock is what its rounds take.
    struct Run {
        pace: Pace,
        now: Instant,
    }

    impl Run {
        fn new(linger: Duration) -> Self {
            let now = Instant::now();
            Self { pace: Pace::new(linger, false, now), now }
        }

        /// Rounds of so many messages that take so long each; the last one's advice.
        fn rounds(&mut self, count: usize, round: Round, took: Duration) -> Wait {
            let mut wait = Wait::Linger;
            for _ in 0..count {
                self.now += took;
                wait = self.pace.next(round, self.now);
            }
            wait
        }

        fn of(&mut self, rounds: usize, messages: usize, millis: u64) -> Wait {
            let round = Round { taken: messages, handed: messages, ..PLENTY };
            self.rounds(rounds, round, Duration::from_millis(millis))
        }
    }

    #[test]
    fn with_little_to_do_what_comes_wakes_the_publisher() {
        let mut run = Run::new(LINGER);
        // A hundred a second; then eight hundred.
        assert_eq!(run.of(100, 1, 10), Wait::Linger);
        assert_eq!(run.of(100, 4, 5), Wait::Linger);
        // A burst in one period, as of a call that begins.
        assert_eq!(run.of(1, 200, 5), Wait::Linger);
        assert_eq!(run.of(20, 1, 10), Wait::Linger);
    }

    #[test]
    fn at_five_thousand_a_second_a_round_has_a_hundred_messages_and_more() {
        let mut run = Run::new(LINGER);
        assert_eq!(run.of(20, 25, 5), Wait::Deaf(Duration::from_millis(25)));
        assert_eq!(run.of(20, 125, 25), Wait::Deaf(Duration::from_millis(25)));
    }

    #[test]
    fn the_rest_is_as_long_as_a_batch_takes_to_gather() {
        let mut run = Run::new(LINGER);
        let Wait::Deaf(span) = run.of(20, 100, 5) else { panic!("much to do") };
        let expected = Duration::from_micros(6400);
        assert!(span.abs_diff(expected) < Duration::from_micros(50), "{span:?}");
        // It stays so when the rounds are as long as that.
        let Wait::Deaf(span) = run.of(50, 128, 6) else { panic!("much to do") };
        assert!(span.abs_diff(Duration::from_millis(6)) < Duration::from_micros(50), "{span:?}");
    }

    #[test]
    fn a_short_linger_bounds_the_rest_and_none_forbids_it() {
        let mut run = Run::new(Duration::from_millis(1));
        assert_eq!(run.of(200, 10, 1), Wait::Deaf(Duration::from_millis(5)));
        let mut run = Run::new(Duration::ZERO);
        assert_eq!(run.of(200, 10, 1), Wait::Linger);
        // And a long one does not put the publisher to sleep.
        let mut run = Run::new(Duration::from_secs(1));
        assert_eq!(run.of(20, 25, 5), Wait::Deaf(LONGEST));
    }

    #[test]
    fn in_front_of_a_disk_the_rest_is_a_linger() {
        let now = Instant::now();
        let mut run = Run { pace: Pace::new(LINGER, true, now), now };
        assert_eq!(run.of(20, 50, 5), Wait::Deaf(LINGER));
    }

    #[test]
    fn when_the_load_goes_the_rest_goes_within_three_rounds() {
        let mut run = Run::new(LINGER);
        run.of(20, 125, 25);
        assert_eq!(run.of(1, 2, 25), Wait::Deaf(Duration::from_micros(12_500)));
        run.of(2, 1, 10);
        assert_eq!(run.of(1, 0, 5), Wait::Linger);
        assert_eq!(run.of(20, 1, 10), Wait::Linger);
    }

    #[test]
    fn a_small_window_or_queue_is_looked_after_at_once() {
        for (window, room) in [(32, 65_536), (0, 65_536), (1024, 100)] {
            let mut run = Run::new(LINGER);
            let round = Round { taken: 50, handed: 50, window, room, is_full: false };
            assert_eq!(run.rounds(20, round, LINGER), Wait::Linger, "{window} {room}");
        }
        // Sixty-four in a round, of a queue for a thousand.
        let mut run = Run::new(LINGER);
        let round = Round { taken: 50, handed: 50, room: 1024, ..PLENTY };
        assert_eq!(run.rounds(20, round, LINGER), Wait::Deaf(Duration::from_micros(6400)));
    }

    #[test]
    fn a_full_window_is_rested_over_however_slow_the_broker() {
        let mut run = Run::new(LINGER);
        let trickle = Round { handed: 2, is_full: true, ..PLENTY };
        assert_eq!(run.rounds(20, trickle, LINGER), Wait::Deaf(LONGEST));
        // But while nothing is told the first word is heard.
        let silent = Round { handed: 0, ..trickle };
        assert_eq!(run.rounds(20, silent, LONGEST), Wait::For(LONGEST));
        assert_eq!(run.rounds(2, trickle, LONGEST), Wait::Deaf(LONGEST));
    }

    #[test]
    fn a_broker_that_tells_in_bursts_is_listened_to() {
        let mut run = Run::new(LINGER);
        let burst = Round { handed: 900, is_full: true, ..PLENTY };
        let silent = Round { handed: 0, ..burst };
        for _ in 0..5 {
            run.rounds(1, burst, LONGEST);
            run.rounds(4, silent, LONGEST);
        }
        let trickle = Round { handed: 3, ..burst };
        assert!(matches!(run.rounds(1, trickle, LINGER), Wait::For(_)));
        // Until it does so no more.
        assert!(matches!(run.rounds(64, trickle, LINGER), Wait::Deaf(_)));
    }

    #[test]
    fn events_that_come_fast_are_taken_in_often_though_none_can_be_sent() {
        let mut run = Run::new(LINGER);
        let flood = Round { taken: 1000, handed: 0, is_full: true, ..PLENTY };
        let Wait::For(span) = run.rounds(20, flood, LINGER) else { panic!("nothing is told") };
        assert!(span < Duration::from_millis(1), "{span:?}");
    }
}
