// SPDX-License-Identifier: MIT
//! Who runs when. Every test waits here on a thread of its own for its turn: a few at a time, those that break a broker one
//! after another, and what takes longest first. There are two pairs of brokers: one for those that break them, and one for
//! everybody else.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many run at once. They wait most of their time, so more than this has cores.
const AT_ONCE: usize = 5;

/// What takes longest, and would last alone if it began late.
const LONG: [&str; 3] = [
    "events_from_before_the_brokers_are_there_arrive_once_they_are",
    "the_image_loads_the_module_as_nobody_special_on_a_read_only_root",
    "the_example_comes_up_healthy_with_metrics_and_goes_away",
];

/// Nobody waits longer than the whole takes.
const PATIENCE: Duration = Duration::from_secs(1500);

/// What a test does with a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Stops it, pauses it, cuts it off or has it away: nobody else is at it meanwhile.
    Alone,
    /// Publishes to it or reads from it.
    Shared,
    No,
}

/// For each broker, in the order of `Broker::ALL`.
pub type Uses = [Use; 2];

/// Whether it is at the pair of brokers that are broken; who is not is in nobody's way.
pub fn breaks(uses: Uses) -> bool {
    uses.contains(&Use::Alone)
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    uses: Uses,
    long: bool,
    ticket: u64,
}

impl Waiting {
    /// Those that one after another need a broker alone make the whole last as long as it does, so they go first; those that
    /// need none fit in anywhere.
    fn rank(&self) -> (usize, u64) {
        let count = |wanted: Use| self.uses.iter().filter(|&&one| one == wanted).count();
        let rank = match (self.long, count(Use::Alone), count(Use::No)) {
            (true, ..) => 0,
            (_, 2, _) => 1,
            (_, 1, _) => 2,
            (_, _, 0 | 1) => 3,
            _ => 4,
        };
        (rank, self.ticket)
    }
}

#[derive(Debug)]
struct State {
    running: usize,
    /// How many are at a broker of the pair that is broken, and whether one of them is alone there.
    at: [usize; 2],
    alone: [bool; 2],
    /// Those without a turn yet, the first to begin in front.
    waiting: Vec<Waiting>,
    next: u64,
}

#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

/// A turn; it ends with this.
#[derive(Debug)]
pub struct Turn<'g> {
    gate: &'g Gate,
    uses: Uses,
}

impl State {
    /// The ticket of whoever may begin now.
    fn first(&self) -> Option<u64> {
        if self.running >= AT_ONCE {
            return None;
        }
        // Who waits for a broker keeps those behind from it, else somebody would always be there.
        let mut kept = [false; 2];
        for &Waiting { uses, ticket, .. } in &self.waiting {
            if !breaks(uses) {
                return Some(ticket);
            }
            let free = |broker: usize| match uses[broker] {
                Use::Alone => self.at[broker] == 0 && !kept[broker],
                Use::Shared => !self.alone[broker] && !kept[broker],
                Use::No => true,
            };
            if free(0) && free(1) {
                return Some(ticket);
            }
            for (kept, used) in kept.iter_mut().zip(uses) {
                *kept |= used != Use::No;
            }
        }
        None
    }
}

impl Gate {
    pub const fn new() -> Self {
        let state =
            State { running: 0, at: [0; 2], alone: [false; 2], waiting: Vec::new(), next: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn enter(&self, test: &str, uses: Uses) -> Turn<'_> {
        let end = Instant::now() + PATIENCE;
        let mut state = self.lock();
        let ticket = state.next;
        state.next += 1;
        state.waiting.push(Waiting { uses, long: LONG.contains(&test), ticket });
        state.waiting.sort_unstable_by_key(Waiting::rank);
        // Somebody who waits may be behind this one now, or before.
        self.changed.notify_all();
        while state.first() != Some(ticket) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited {PATIENCE:?} in vain for a turn");
            state =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.waiting.retain(|other| other.ticket != ticket);
        state.running += 1;
        for (broker, used) in uses.into_iter().enumerate().filter(|_| breaks(uses)) {
            state.at[broker] += usize::from(used != Use::No);
            state.alone[broker] |= used == Use::Alone;
        }
        self.changed.notify_all();
        Turn { gate: self, uses }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.running -= 1;
        let uses = self.uses;
        for (broker, used) in uses.into_iter().enumerate().filter(|_| breaks(uses)) {
            state.at[broker] -= usize::from(used != Use::No);
            state.alone[broker] &= used != Use::Alone;
        }
        self.gate.changed.notify_all();
    }
}
