// SPDX-License-Identifier: MIT
//! How a sink is doing, for anyone who asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::pipeline::Settings;
use crate::pipeline::latency::{Latency, LatencyView};
use crate::queue::{AccountView, Ring};
use crate::spool::SpoolStats;

/// What a publisher is at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SinkState {
    /// Waiting for the sink that it replaces.
    Waiting,
    /// Has no connection yet, or tries to get it back.
    Connecting,
    /// Delivers.
    Connected,
    /// Connected, and the broker asks for a pause.
    Blocked,
    /// The broker refuses us; tried again, but slowly, until an operator acts.
    Refused,
    /// Told to send nothing.
    Paused,
    /// About to stop, delivering what is left.
    Draining,
    /// Stopped.
    Stopped,
}

impl SinkState {
    /// The name in status and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Blocked => "blocked",
            Self::Refused => "refused",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// A sink at one moment.
#[derive(Clone, Debug)]
pub struct SinkStatus {
    /// Its configured name.
    pub name: String,
    /// `file`, `amqp` or `kafka`.
    pub kind: &'static str,
    /// What it is at.
    pub state: SinkState,
    /// Since when.
    pub since: SystemTime,
    /// The broker in use or tried last.
    pub peer: String,
    /// The last thing that went wrong, also when all is well again.
    pub last_error: Option<String>,
    /// The counters.
    pub account: AccountView,
    /// Accepted and neither delivered, dead nor dropped: in memory and on disk.
    pub waiting: u64,
    /// Bytes of these in memory.
    pub memory_bytes: u64,
    /// Of these, handed to the broker and not yet acknowledged.
    pub in_flight: u64,
    /// How many may be at this moment: none without a connection.
    pub window: u64,
    /// How often it was let run empty for a look at the way to the broker.
    pub window_looks: u64,
    /// Connections lost since the sink started.
    pub reconnects: u64,
    /// Time the broker asked us to pause, in all.
    pub blocked: Duration,
    /// Faults of ours that the publisher survived.
    pub panics: u64,
    /// The disk behind the queue, when there is one.
    pub spool: Option<SpoolStatus>,
    /// How long events took from their making to the broker's acknowledgement.
    pub latency: LatencyView,
    /// Dead letters that are kept: of any life, and without those that gave way or were taken out.
    pub dead_letters: u64,
}

/// A sink's spool at one moment, posted a few times a second.
#[derive(Clone, Debug, Default)]
pub struct SpoolStatus {
    /// Messages that wait in it.
    pub records: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Bytes of all its files.
    pub disk_bytes: u64,
    /// When the oldest of them was put there, in milliseconds since 1970. None also where damage has taken what says so.
    pub oldest_ms: Option<u64>,
    /// The number of the last message that survives a power cut. None where nothing is synced, as then nobody knows.
    pub durable_seq: Option<u64>,
    /// Messages that a power cut would take: the loss window. None likewise.
    pub undurable_records: Option<u64>,
    /// Bytes of these.
    pub undurable_bytes: Option<u64>,
    /// Damaged files that were moved to `quarantine/` since it was opened, and by opening it.
    pub quarantined: u64,
    /// Messages that would have gone through it and went past it, because its disk did not work.
    pub bypassed: u64,
    /// What is wrong with it.
    pub trouble: Option<String>,
}

impl SpoolStatus {
    fn of(stats: &SpoolStats) -> Self {
        Self {
            records: stats.records,
            bytes: stats.bytes,
            disk_bytes: stats.disk_bytes,
            oldest_ms: stats.oldest_appended_unix_ms,
            durable_seq: stats.durable_seq.filter(|_| stats.syncs),
            undurable_records: stats.syncs.then_some(stats.undurable_records),
            undurable_bytes: stats.syncs.then_some(stats.undurable_bytes),
            quarantined: stats.quarantined,
            bypassed: 0,
            trouble: None,
        }
    }
}

/// Where a publisher posts what others may read.
#[derive(Debug)]
pub struct StatusBoard {
    name: String,
    kind: &'static str,
    slow: Mutex<Slow>,
    in_flight: AtomicU64,
    window: AtomicU64,
    window_looks: AtomicU64,
    spooled: AtomicU64,
    reconnects: AtomicU64,
    panics: AtomicU64,
    latency: Latency,
    /// The sink that this one replaces, until what that holds is this one's.
    before: Mutex<Option<(Arc<Self>, Arc<Ring>)>>,
}

#[derive(Clone, Debug)]
struct Slow {
    state: SinkState,
    since: SystemTime,
    peer: String,
    last_error: Option<String>,
    spool: Option<SpoolStatus>,
    /// Since when the broker asks us to pause.
    blocked_since: Option<Instant>,
    /// How long it has before that.
    blocked: Duration,
}

impl StatusBoard {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            name: settings.name.clone(),
            kind: settings.kind,
            slow: Mutex::new(Slow {
                state: SinkState::Connecting,
                since: SystemTime::now(),
                peer: String::new(),
                last_error: None,
                spool: None,
                blocked_since: None,
                blocked: Duration::ZERO,
            }),
            in_flight: AtomicU64::new(0),
            window: AtomicU64::new(0),
            window_looks: AtomicU64::new(0),
            spooled: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            latency: Latency::default(),
            before: Mutex::default(),
        }
    }

    /// Until it is told otherwise, what another sink holds waits here too: they share an account.
    pub(super) fn follow(&self, before: Option<(Arc<Self>, Arc<Ring>)>) {
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = before;
    }

    /// How many messages wait, in memory and on disk.
    fn waiting(&self, ring: &Ring) -> u64 {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        let inherited = before.as_ref().map_or(0, |(board, ring)| board.waiting(ring));
        ring.held().0 + self.spooled.load(Ordering::Relaxed) + inherited
    }

    fn slow(&self) -> std::sync::MutexGuard<'_, Slow> {
        // Each field is whole after every statement, whatever a panic cut short.
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Posts a state. True when it is another one than before.
    pub(super) fn state(&self, state: SinkState) -> bool {
        let mut slow = self.slow();
        let changed = slow.state != state;
        if changed {
            slow.state = state;
            slow.since = SystemTime::now();
        }
        changed
    }

    pub(super) fn peer(&self, peer: String) {
        self.slow().peer = peer;
    }

    /// Posts an error. True when it is another one than the last.
    pub(super) fn error(&self, words: &str) -> bool {
        // Memory may have to be waited for, and nobody is to wait for that at the lock.
        let words = words.to_owned();
        let mut slow = self.slow();
        let news = slow.last_error.as_ref() != Some(&words);
        if news {
            slow.last_error = Some(words);
        }
        news
    }

    pub(super) fn in_flight(&self, count: usize, window: usize) {
        for (gauge, value) in [(&self.in_flight, count), (&self.window, window)] {
            gauge.store(u64::try_from(value).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    pub(super) fn looked(&self) {
        self.window_looks.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn spooled(&self, count: u64) {
        self.spooled.store(count, Ordering::Relaxed);
    }

    pub(super) fn spool(&self, stats: Option<&SpoolStats>, bypassed: u64, trouble: Option<String>) {
        let shown = stats.map_or_else(SpoolStatus::default, SpoolStatus::of);
        self.slow().spool = Some(SpoolStatus { bypassed, trouble, ..shown });
    }

    /// There is no spool any more.
    pub(super) fn no_spool(&self) {
        self.spooled(0);
        self.slow().spool = None;
    }

    pub(super) fn reconnected(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Where the publisher notes how long its events took.
    pub(super) fn latency(&self) -> &Latency {
        &self.latency
    }

    /// Posts since when the broker asks for a pause, or that it does no more.
    pub(super) fn blocked(&self, since: Option<Instant>) {
        let mut slow = self.slow();
        let before = std::mem::replace(&mut slow.blocked_since, since);
        slow.blocked += before.map_or(Duration::ZERO, |before| before.elapsed());
    }

    /// The sink now. `ring` is its queue, `dead_letters` says how many it keeps.
    pub fn view(&self, ring: &Ring, dead_letters: u64) -> SinkStatus {
        let slow = self.slow().clone();
        let (_, bytes) = ring.held();
        SinkStatus {
            name: self.name.clone(),
            kind: self.kind,
            state: slow.state,
            since: slow.since,
            peer: slow.peer,
            last_error: slow.last_error,
            account: ring.account().view(),
            waiting: self.waiting(ring),
            memory_bytes: bytes,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            window: self.window.load(Ordering::Relaxed),
            window_looks: self.window_looks.load(Ordering::Relaxed),
            reconnects: self.reconnects.load(Ordering::Relaxed),
            blocked: slow.blocked
                + slow.blocked_since.map_or(Duration::ZERO, |since| since.elapsed()),
            panics: self.panics.load(Ordering::Relaxed),
            spool: slow.spool,
            latency: self.latency.view(),
            dead_letters,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::SpoolState;

    fn stats() -> SpoolStats {
        SpoolStats {
            records: 3,
            bytes: 300,
            disk_bytes: 4096,
            oldest_seq: Some(1),
            oldest_appended_unix_ms: Some(1_700_000_000_000),
            newest_seq: Some(3),
            appended_total: 3,
            read_total: 0,
            in_flight: 0,
            durable_seq: Some(2),
            syncs: true,
            undurable_records: 1,
            undurable_bytes: 100,
            segments: 1,
            quarantined: 7,
            fsync_errors: 0,
            state: SpoolState::Ok,
        }
    }

    #[test]
    fn a_spool_is_shown_with_the_age_of_its_oldest_and_what_was_set_aside() {
        let mut stats = stats();
        let shown = |stats: &SpoolStats| {
            let spool = SpoolStatus::of(stats);
            (spool.oldest_ms, spool.quarantined)
        };
        assert_eq!(shown(&stats), (Some(1_700_000_000_000), 7));
        stats.oldest_appended_unix_ms = None;
        assert_eq!(shown(&stats), (None, 7));
    }

    #[test]
    fn without_syncs_nobody_knows_what_a_power_cut_takes() {
        let mut stats = stats();
        let told = |stats: &SpoolStats| {
            let spool = SpoolStatus::of(stats);
            (spool.records, spool.durable_seq, spool.undurable_records, spool.undurable_bytes)
        };
        assert_eq!(told(&stats), (3, Some(2), Some(1), Some(100)));
        stats.syncs = false;
        assert_eq!(told(&stats), (3, None, None, None));
    }
}
