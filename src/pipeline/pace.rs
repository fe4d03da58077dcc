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
    /// How many events the queue has room for. No more than a sixteenth may gather in the ring.
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
    pub(super) fn new(linger: Duration, now: Instant) -> Self {
        Self {
            longest: linger.saturating_mul(LINGERS).min(LONGEST),
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
