// SPDX-License-Identifier: MIT
//! Getting the connection, keeping it, and waiting on it.

use std::time::{Duration, Instant};

use crate::pipeline::link::Attempt;
use crate::pipeline::pace::{Round, Wait};
use crate::pipeline::publisher::Publisher;
use crate::pipeline::reach::Reach;
use crate::pipeline::status::SinkState;
use crate::pipeline::store::Store;
use crate::sink::{Class, SinkError};

/// How long nothing is sent so that the way back to the first broker costs no duplicates. A broker
/// that takes longer to confirm what it has is left for another time.
const RETURN_TIME: Duration = Duration::from_secs(5);
/// Lines about failures of a kind, while there is no connection that holds: an outage of hours is a
/// few of them, whatever its attempts end with.
const TOLD_MAX: u32 = 3;

/// What the log was told since the connection last held. A broker that comes back and refuses is
/// news however long it was away, so each kind has its own count.
#[derive(Debug, Default)]
pub(super) struct Told {
    losses: u32,
    refusals: u32,
}

impl Told {
    /// Whether one more line about such a failure is not too many.
    fn another(&mut self, is_refusal: bool) -> bool {
        let count = if is_refusal { &mut self.refusals } else { &mut self.losses };
        let is_fine = *count < TOLD_MAX;
        *count += u32::from(is_fine);
        is_fine
    }
}

impl Publisher {
    /// Gets the connection, or gets on with getting it.
    pub(super) fn connect(&mut self) {
        let attempt = self.link.attempt();
        self.note_attempt(&attempt);
        if self.link.is_down() && Instant::now() >= self.retry_at && !self.gives_up() {
            if !self.refused && self.stop.is_none() && !self.paused {
                self.board.state(SinkState::Connecting);
            }
            let attempt = self.link.open(
                &self.settings.name,
                self.settings.prepare,
                self.settings.open_timeout,
                &self.interrupt,
            );
            self.note_attempt(&attempt);
        }
    }

    /// Whether no further attempt is worth it: about to stop, with a disk to put things on.
    fn gives_up(&self) -> bool {
        self.stop.is_some() && self.store.as_ref().is_some_and(Store::is_open)
    }

    fn note_attempt(&mut self, attempt: &Attempt) {
        match attempt {
            Attempt::Pending => {}
            Attempt::Open => self.connected(),
            Attempt::Failed(error) => self.failed(error),
        }
    }

    fn connected(&mut self) {
        self.backoff.reset();
        self.degraded = false;
        self.note_down(false);
        self.board.peer(self.link.peer().unwrap_or_default());
        // Also when a panic or an odd sink left something: nothing of another connection counts.
        self.take_back();
        // What is left at a stop goes as fast as it may: no time to learn.
        self.reach = match self.link.up() {
            Some(sink) if self.stop.is_none() => {
                Reach::new(sink.reserve(), self.settings.latency_believed, Instant::now())
            }
            _ => Reach::default(),
        };
        if !self.doubted {
            self.welcome();
        }
    }

    /// The connection holds.
    fn welcome(&mut self) {
        self.refused = false;
        self.doubted = false;
        self.told = Told::default();
        if self.stop.is_none() && self.board.state(SinkState::Connected) {
            log::info!(
                target: "mod_rustbridge::notice",
                "[{}] Connected to {}",
                self.settings.name,
                self.link.peer().unwrap_or_default()
            );
        }
    }

    /// An attempt failed, or the connection broke.
    pub(super) fn failed(&mut self, error: &SinkError) {
        let was_up = self.link.is_up();
        self.take_back();
        self.link.drop_connection();
        self.reach = Reach::default();
        self.degraded = false;
        self.stay();
        // A broker that is away asks for nothing.
        if self.blocked_since.take().is_some() {
            self.board.blocked(None);
        }
        self.note_down(true);
        if was_up {
            self.board.reconnected();
        }
        if matches!(error, SinkError::Interrupted) {
            self.retry_at = Instant::now();
            return;
        }
        self.refused = error.class() == Class::Refused;
        // A broker that lets us in and then takes nothing does so at the next attempt too.
        self.doubted |= self.refused && was_up;
        let wait = if self.refused { self.settings.reconnect.refused } else { self.backoff.next() };
        self.retry_at = Instant::now() + wait;
        let words = error.to_string();
        let news = self.board.error(&words);
        if let Some(peer) = self.link.peer() {
            self.board.peer(peer);
        }
        let state = if self.refused { SinkState::Refused } else { SinkState::Connecting };
        let changed = self.stop.is_none() && self.board.state(state);
        // Once per change, not once per attempt.
        if (news || changed) && self.told.another(self.refused) {
            let name = &self.settings.name;
            if self.refused {
                log::error!("[{name}] {words}");
            } else {
                log::warn!("[{name}] {words}; events wait, trying again");
            }
        }
    }

    /// How to wait after this round, from what it and those before it had to do.
    fn pace(&mut self) -> Wait {
        if !self.link.is_up() {
            return Wait::Linger;
        }
        let window = self.room_in_flight();
        let limits = self.ring.limits();
        let (events, bytes) = self.ring.held();
        let number = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        // Events as large as those that are held now.
        let size = number(bytes / events.max(1)).max(1);
        let free_events = limits.events.saturating_sub(number(events));
        let free_bytes = limits.bytes.saturating_sub(number(bytes));
        let round = Round {
            taken: std::mem::take(&mut self.taken),
            handed: std::mem::take(&mut self.handed),
            window,
            room: free_events.min(free_bytes / size),
            is_full: self.is_window_full(),
        };
        if self.reach.is_probing() {
            // One message is on its way alone, and timed.
            return Wait::Linger;
        }
        let wait = self.pace.next(round, Instant::now());
        // Whoever waits for the end of a stop or of a hold is not made to wait for this as well.
        let is_free = self.stop.is_none() && self.hold_until.is_none() && !self.window.is_empty();
        if is_free { wait } else { Wait::Linger }
    }

    /// Waits for acknowledgements, or just waits.
    pub(super) fn wait(&mut self, budget: Duration) {
        let opening = !self.link.is_down();
        let budget = match self.stop {
            Some(deadline) => budget.min(deadline.saturating_duration_since(Instant::now())),
            None => budget,
        };
        let held = self.hold_until.map(|until| until.saturating_duration_since(Instant::now()));
        let budget = match held {
            Some(Duration::ZERO) | None => {
                self.hold_until = None;
                budget
            }
            Some(held) => budget.min(held),
        };
        // Without a budget there is more to hand over at once.
        let wait = if budget.is_zero() { Wait::Linger } else { self.pace() };
        let Some(sink) = self.link.up() else {
            let until_retry = self.retry_at.saturating_duration_since(Instant::now());
            let budget = if opening { budget } else { budget.min(until_retry) };
            if self.stop.is_some() && self.interrupt.is_raised() {
                // The flag is for the attempt under way; wait for that instead.
                self.link.await_attempt(Instant::now() + budget);
            } else {
                self.interrupt.wait(budget);
            }
            return;
        };
        let budget = match wait {
            Wait::For(span) => span.max(budget),
            // What has come meanwhile lies there.
            Wait::Deaf(span) if sink.rest(span) => Duration::ZERO,
            Wait::Linger | Wait::Deaf(_) => budget,
        };
        let result = sink.poll(budget, &mut self.outcomes);
        let blocked = sink.blocked_since();
        let degraded = sink.degraded();
        match result {
            Ok(()) => {
                self.note_degraded(degraded);
                self.note_accepted();
                self.note_blocked(blocked);
                self.return_to_primary();
                self.renew();
            }
            Err(error) => {
                self.settle();
                self.failed(&error);
            }
        }
    }

    /// After a refusal in the middle of things only what the broker does with a message tells whether
    /// it takes them again.
    fn note_accepted(&mut self) {
        if !self.doubted || self.degraded {
            return;
        }
        let is_idle = self.window.is_empty() && !self.has_work();
        if is_idle || !self.outcomes.is_empty() {
            self.welcome();
        }
    }

    fn note_blocked(&mut self, blocked: Option<Instant>) {
        let name = &self.settings.name;
        match (self.blocked_since, blocked) {
            (None, Some(since)) => {
                self.blocked_since = Some(since);
                self.board.blocked(Some(since));
                log::warn!("[{name}] The broker asks for a pause; events wait");
            }
            (Some(_), None) => {
                self.blocked_since = None;
                self.board.blocked(None);
                log::info!("[{name}] The broker takes messages again");
            }
            _ => {}
        }
        if self.stop.is_none() && !self.paused && !self.degraded {
            self.board.state(match blocked {
                Some(_) => SinkState::Blocked,
                None if self.doubted => SinkState::Refused,
                None => SinkState::Connected,
            });
        }
    }

    /// A client that keeps its connections itself has none, or has one again.
    fn note_degraded(&mut self, degraded: Option<String>) {
        match degraded {
            Some(words) => {
                let news = self.board.error(&words);
                if self.stop.is_none() && !self.paused {
                    self.board.state(SinkState::Connecting);
                }
                if !self.degraded {
                    self.degraded = true;
                    self.board.reconnected();
                    self.note_down(true);
                    log::warn!("[{}] {words}; events wait", self.settings.name);
                } else if news {
                    log::info!("[{}] {words}", self.settings.name);
                }
            }
            None if self.degraded => {
                self.degraded = false;
                self.note_down(false);
                if !self.doubted {
                    log::info!(
                        target: "mod_rustbridge::notice",
                        "[{}] Connected to {}",
                        self.settings.name,
                        self.link.peer().unwrap_or_default()
                    );
                }
            }
            None => {}
        }
    }

    /// Makes the connection anew when that was asked for and nothing is in flight any more: new
    /// certificates, another broker.
    fn renew(&mut self) {
        if !self.renew {
            return;
        }
        let is_late = self.returning.is_some_and(|deadline| Instant::now() >= deadline);
        if !self.window.is_empty() {
            if is_late {
                self.stay();
                self.away_from_primary = None;
            }
            return;
        }
        let returns = self.returning.is_some();
        self.stay();
        let Some(sink) = self.link.up() else { return };
        sink.close(Instant::now() + Duration::from_secs(1));
        if returns {
            sink.return_to_primary();
            self.away_from_primary = None;
        }
        self.link.drop_connection();
        self.reach = Reach::default();
        self.retry_at = Instant::now();
    }

    /// Keeps the connection that there is.
    pub(super) fn stay(&mut self) {
        self.renew = false;
        self.returning = None;
    }

    /// Looks for the preferred broker when it is time to: nothing more is sent until all that is in
    /// flight is answered, for under load there would always be something.
    fn return_to_primary(&mut self) {
        let every = self.settings.reconnect.return_to_primary;
        if every.is_zero() || self.stop.is_some() || self.renew {
            return;
        }
        let Some(sink) = self.link.up() else { return };
        if sink.is_on_primary() {
            self.away_from_primary = None;
            return;
        }
        let now = Instant::now();
        let since = *self.away_from_primary.get_or_insert(now);
        if now.saturating_duration_since(since) < every {
            return;
        }
        log::info!("[{}] Looking for the first broker of the list again", self.settings.name);
        self.renew = true;
        self.returning = Some(now + RETURN_TIME);
    }
}
