// SPDX-License-Identifier: MIT
//! Where every event of a sink ended, counted where it happens.
//!
//! `offered + recovered = filtered + delivered + dropped{reason} + dead + waiting`. No term is
//! computed from the others, so that the sum means something.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use super::lane::Lane;

/// Why an event that passed the filter did not get through.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum DropReason {
    /// The queue, or the share of it that the event's class may take, was full.
    QueueFull,
    /// Larger than `max-event-bytes`.
    Oversize,
    /// Gave way to newer ones under `drop-oldest`.
    Outdated,
    /// The spool was full, or its disk was.
    SpoolFull,
    /// Damaged on disk.
    SpoolDamaged,
    /// Still undelivered when the module had to stop, with no spool to keep it.
    Shutdown,
    /// The module was stopping or swapping sinks.
    Closed,
    /// A fault of ours; the switch went on.
    Panic,
    /// Taken away by an operator (`dlq purge`).
    Purged,
    /// The system had no memory to copy it to.
    NoMemory,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::QueueFull,
        Self::Oversize,
        Self::Outdated,
        Self::SpoolFull,
        Self::SpoolDamaged,
        Self::Shutdown,
        Self::Closed,
        Self::Panic,
        Self::Purged,
        Self::NoMemory,
    ];

    /// The name in status, metrics and gap records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::Oversize => "oversize",
            Self::Outdated => "outdated",
            Self::SpoolFull => "spool-full",
            Self::SpoolDamaged => "spool-damaged",
            Self::Shutdown => "shutdown",
            Self::Closed => "closed",
            Self::Panic => "panic",
            Self::Purged => "purged",
            Self::NoMemory => "no-memory",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|reason| *reason == self).unwrap_or(0)
    }
}

/// What dispatch threads count, once for each lane. Apart from what the publisher counts, so that the two do not
/// pull one cache line to and fro.
#[derive(Debug, Default)]
pub struct Offered {
    /// Events that the core delivered while the sink was there.
    pub offered: AtomicU64,
    /// Of these, the ones the sink did not ask for.
    pub filtered: AtomicU64,
}

/// The counters of one sink. All of them only ever grow.
#[derive(Debug, Default)]
pub struct Account {
    intake: [CachePadded<Offered>; Lane::COUNT],
    dropped: CachePadded<[AtomicU64; DropReason::ALL.len()]>,
    outcome: CachePadded<Outcomes>,
}

#[derive(Debug, Default)]
struct Outcomes {
    delivered: AtomicU64,
    dead: AtomicU64,
    recovered: AtomicU64,
    gaps: AtomicU64,
    duplicates_possible: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AccountView {
    /// Events that the core delivered while the sink was there, and messages published to it.
    pub offered: u64,
    /// Of these, the ones the sink did not ask for.
    pub filtered: u64,
    /// Acknowledged by the broker (written, for a file).
    pub delivered: u64,
    /// Lost, by reason, in the order of [`DropReason::ALL`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Put to the dead letters.
    pub dead: u64,
    /// Found waiting in the spool at start: they were offered in an earlier life.
    pub recovered: u64,
    /// Gap records made. They are messages of the module's own, outside the sum.
    pub gaps: u64,
    /// Messages sent again after a connection broke: each may have arrived before.
    pub resent: u64,
}

impl AccountView {
    /// All drops together.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

impl Account {
    /// Counts an event offered to the sink, for a thread in this lane.
    #[inline]
    pub fn offered(&self, lane: Lane) {
        lane.pick(&self.intake).offered.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an event that the sink did not ask for, for a thread in this lane.
    #[inline]
    pub fn filtered(&self, lane: Lane) {
        lane.pick(&self.intake).filtered.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts `count` lost events.
    pub fn dropped(&self, reason: DropReason, count: u64) {
        if let Some(counter) = self.dropped.get(reason.index()) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Counts acknowledged messages.
    pub fn delivered(&self, count: u64) {
        self.outcome.delivered.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts a dead letter.
    pub fn dead(&self, count: u64) {
        self.outcome.dead.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts messages found in the spool at start, or taken back from the dead letters.
    pub fn recovered(&self, count: u64) {
        self.outcome.recovered.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts a gap record.
    pub fn gap(&self) {
        self.outcome.gaps.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts messages sent again after a connection broke.
    pub fn resent(&self, count: u64) {
        self.outcome.duplicates_possible.fetch_add(count, Ordering::Relaxed);
    }

    /// The counters now. Each is exact; together they are of one moment only while the switch is
    /// quiet.
    pub fn view(&self) -> AccountView {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        AccountView {
            offered: self.intake.iter().map(|intake| load(&intake.offered)).sum(),
            filtered: self.intake.iter().map(|intake| load(&intake.filtered)).sum(),
            delivered: load(&self.outcome.delivered),
            dropped: std::array::from_fn(|n| self.dropped.get(n).map_or(0, load)),
            dead: load(&self.outcome.dead),
            recovered: load(&self.outcome.recovered),
            gaps: load(&self.outcome.gaps),
            resent: load(&self.outcome.duplicates_possible),
        }
    }
}
