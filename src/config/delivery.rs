// SPDX-License-Identifier: MIT
//! What every sink has, whatever it writes to: queue, spool, classes, reconnects, dead letters.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use crate::{
    config::{
        choice::choice,
        kind::{Millis, Word},
        params::Params,
        reference::{Parameter, sink},
    },
    event::{
        Class,
        names::{CUSTOM, EVENTS, SUBCLASSES},
        selection::{Coverage, Selection},
    },
};

choice! {
    /// Which event gives way when the queue is full.
    pub enum WhenFull {
        /// The one that arrives.
        DropNewest = "drop-newest",
        /// The one that has waited longest.
        DropOldest = "drop-oldest",
        /// None while the spool has room: the publisher empties the queue onto the disk. What
        /// comes faster than that is dropped as it arrives.
        Spool = "spool",
    }
}

choice! {
    /// When events go through the disk.
    pub enum SpoolMode {
        /// Never.
        Off = "off",
        /// When the sink doesn't keep up.
        Overflow = "overflow",
        /// Each, before it is sent.
        Always = "always",
    }
}

choice! {
    /// The words of a parameter `fsync`.
    pub enum FsyncWord {
        /// After each batch.
        Always = "always",
        /// On a timer.
        Interval = "interval",
        /// Left to the operating system.
        Never = "never",
    }
}

/// When written bytes are forced onto the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fsync {
    /// After each batch of writes.
    Always,
    /// As often as this, which is never zero. A power loss costs at most what came in one interval.
    Interval(Duration),
    /// When the operating system chooses.
    Never,
}

/// How many events may wait in memory, and which gives way when no more can.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueueConfig {
    /// Events held between FreeSWITCH's threads and the publisher.
    pub capacity: NonZeroUsize,
    /// Bytes that these events may take together; at least `Config::max_event_bytes`.
    pub max_bytes: usize,
    /// The event that is lost when either bound is reached. `Spool` only with a spool.
    pub when_full: WhenFull,
}

/// The disk behind the queue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SpoolSettings {
    /// When events go through the disk. In mode `Off` nothing else here counts.
    pub mode: SpoolMode,
    /// The folder of this sink's segments; `None` is `spool/<sink>` in `Config::storage_dir`.
    pub dir: Option<PathBuf>,
    /// Bytes after which a segment is sealed and the next one begun.
    pub segment_bytes: u64,
    /// Bytes that all segments may take together; at least one segment.
    pub max_bytes: u64,
    /// Bytes that stay free on the spool's disk, for the recordings that share it.
    pub min_free_bytes: u64,
    /// When appended records are forced onto the disk.
    pub fsync: Fsync,
}

/// Which events are worth more and which less, and how much of queue and spool each may fill.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClassConfig {
    /// Events of class `Critical`.
    pub critical: Selection,
    /// Events of class `Bulk`, unless they are critical.
    pub bulk: Selection,
    /// Critical events are taken while queue or spool are filled to less than this percentage.
    pub critical_percent: u8,
    /// The same for normal events; at most `critical_percent`.
    pub normal_percent: u8,
    /// The same for bulk events; at most `normal_percent`.
    pub bulk_percent: u8,
}

impl ClassConfig {
    /// Returns the class of an event. `critical` wins over `bulk`.
    ///
    /// Any thread; doesn't allocate.
    pub fn class_of(&self, event: &str, subclass: Option<&[u8]>) -> Class {
        if self.critical.wants(event, subclass) {
            Class::Critical
        } else if self.bulk.wants(event, subclass) {
            Class::Bulk
        } else {
            Class::Normal
        }
    }

    /// Returns the percentage of queue and spool up to which `class` is taken.
    pub fn percent(&self, class: Class) -> u8 {
        match class {
            Class::Critical => self.critical_percent,
            Class::Normal => self.normal_percent,
            Class::Bulk => self.bulk_percent,
        }
    }
}

/// How a lost connection is made again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReconnectConfig {
    /// Wait before the first attempt; doubled after each further one.
    pub min: Duration,
    /// Longest wait, jitter included; at least `min`.
    pub max: Duration,
    /// Wait after the broker refused the credentials, which more haste won't change.
    pub refused: Duration,
    /// How often a connection to another than the first broker looks for the first. Zero: never.
    pub return_to_primary: Duration,
}

/// What becomes of an event that the broker won't take.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeadLetterConfig {
    /// The folder of the records; `None` is `dead/<sink>` in `Config::storage_dir`.
    pub dir: Option<PathBuf>,
    /// Bytes that the records may take. Zero: none are kept, only counted.
    pub max_bytes: u64,
    /// Where the broker gets them too: an exchange for AMQP, a topic for Kafka, `None` for files.
    pub exchange_or_topic: Option<String>,
    /// Attempts before an event that is rejected again and again becomes a dead letter.
    pub max_attempts: u32,
}

impl Fsync {
    /// Reads the two parameters that say when to sync.
    pub(super) fn read(
        params: &mut Params<'_>,
        word: &Parameter<Word<FsyncWord>>,
        interval: &Parameter<Millis>,
    ) -> Self {
        let every = params.read(interval);
        match params.read(word) {
            FsyncWord::Always => Self::Always,
            FsyncWord::Never => Self::Never,
            FsyncWord::Interval => {
                if every.is_zero() {
                    let message = format!(
                        "is 0 while {} is interval: give a time, or make {} always or never",
                        word.name, word.name
                    );
                    params.clash(&[interval, word], message);
                }
                Self::Interval(every.max(Duration::from_millis(1)))
            }
        }
    }
}

/// Bytes of the queue's memory for each event that it can hold, also while it holds none: a pointer, a count, and the stamp that the
/// array of the ring keeps beside them.
pub(crate) const QUEUE_SLOT_BYTES: usize = 24;

impl QueueConfig {
    /// Reads the queue's parameters; the spool's mode decides what they may be.
    pub(super) fn read(
        params: &mut Params<'_>,
        spool: &SpoolSettings,
        max_event_bytes: usize,
    ) -> Self {
        let capacity = params.read(&sink::QUEUE_CAPACITY);
        let max_bytes = params.read(&sink::QUEUE_MAX_BYTES);
        let slots = capacity.get().saturating_mul(QUEUE_SLOT_BYTES);
        if max_bytes < max_event_bytes {
            let message = format!(
                "{max_bytes} bytes can't hold one event of max-event-bytes, which is {max_event_bytes}"
            );
            params.clash(&[&sink::QUEUE_MAX_BYTES], message);
        } else if max_bytes < slots {
            let message = format!(
                "is {capacity} while {} is {max_bytes}: the empty queue takes {slots} bytes; lower the one or raise the other",
                sink::QUEUE_MAX_BYTES.name
            );
            params.clash(&[&sink::QUEUE_CAPACITY, &sink::QUEUE_MAX_BYTES], message);
        }
        let when_full = params.read(&sink::QUEUE_WHEN_FULL);
        let has_spool = spool.mode != SpoolMode::Off;
        if when_full == Some(WhenFull::Spool) && !has_spool {
            let message = "is spool while spool-mode is off: choose another mode or policy";
            params.clash(&[&sink::QUEUE_WHEN_FULL, &sink::SPOOL_MODE], message);
        }
        let fitting = if has_spool { WhenFull::Spool } else { WhenFull::DropNewest };
        Self { capacity, max_bytes, when_full: when_full.unwrap_or(fitting) }
    }
}

/// The smallest segment that a spool may have.
const LEAST_SEGMENT: u64 = 64 << 10;

impl SpoolSettings {
    /// Reads the spool's parameters.
    pub(super) fn read(params: &mut Params<'_>, max_event_bytes: usize) -> Self {
        let mode = params.read(&sink::SPOOL_MODE);
        let mut segment_bytes = params.read(&sink::SPOOL_SEGMENT_BYTES);
        let max_bytes = params.read(&sink::SPOOL_MAX_BYTES);
        let mut clashes = false;
        if !params.is_given(&sink::SPOOL_SEGMENT_BYTES) {
            // Room is given back by whole segments, so a small spool has small ones.
            segment_bytes = segment_bytes.min(max_bytes / 8).max(LEAST_SEGMENT);
        } else if max_bytes < segment_bytes {
            let message = format!(
                "{max_bytes} bytes can't hold one segment of spool-segment-bytes, which is {segment_bytes}"
            );
            params.clash(&[&sink::SPOOL_MAX_BYTES, &sink::SPOOL_SEGMENT_BYTES], message);
            clashes = true;
        }
        let too_small = usize::try_from(max_bytes).is_ok_and(|max| max < max_event_bytes);
        if mode != SpoolMode::Off && too_small && !clashes {
            let message = format!(
                "{max_bytes} bytes can't hold one event of max-event-bytes, which is {max_event_bytes}"
            );
            params.clash(&[&sink::SPOOL_MAX_BYTES], message);
        }
        Self {
            mode,
            dir: params.read(&sink::SPOOL_DIR),
            segment_bytes,
            max_bytes,
            min_free_bytes: params.read(&sink::SPOOL_MIN_FREE_BYTES),
            fsync: Fsync::read(params, &sink::SPOOL_FSYNC, &sink::SPOOL_FSYNC_INTERVAL_MS),
        }
    }
}

impl ClassConfig {
    /// Reads the classes' parameters; `known` are the events that there are.
    pub(super) fn read(params: &mut Params<'_>, known: &[&str]) -> Self {
        let classes = Self {
            critical: params.events(&sink::CRITICAL_EVENTS, known),
            bulk: params.events(&sink::BULK_EVENTS, known),
            critical_percent: params.read(&sink::CRITICAL_PERCENT),
            normal_percent: params.read(&sink::NORMAL_PERCENT),
            bulk_percent: params.read(&sink::BULK_PERCENT),
        };
        let both_given =
            params.is_given(&sink::CRITICAL_EVENTS) && params.is_given(&sink::BULK_EVENTS);
        if let Some(event) = classes.in_both().filter(|_| both_given) {
            let message = format!("takes {event}, which bulk-events takes too: leave it in one");
            params.clash(&[&sink::CRITICAL_EVENTS, &sink::BULK_EVENTS], message);
        }
        if classes.normal_percent > classes.critical_percent {
            let message = format!(
                "is {} while critical-percent is {}: expected bulk <= normal <= critical",
                classes.normal_percent, classes.critical_percent
            );
            params.clash(&[&sink::NORMAL_PERCENT, &sink::CRITICAL_PERCENT], message);
        }
        if classes.bulk_percent > classes.normal_percent {
            let message = format!(
                "is {} while normal-percent is {}: expected bulk <= normal <= critical",
                classes.bulk_percent, classes.normal_percent
            );
            params.clash(&[&sink::BULK_PERCENT, &sink::NORMAL_PERCENT], message);
        }
        classes
    }

    fn in_both(&self) -> Option<String> {
        let whole = |event: &&&str| {
            self.critical.coverage(event) == Coverage::All
                && self.bulk.coverage(event) == Coverage::All
        };
        if let Some(event) = EVENTS.iter().find(whole) {
            return Some((*event).to_owned());
        }
        SUBCLASSES
            .iter()
            .find(|subclass| {
                let subclass = Some(subclass.as_bytes());
                self.critical.wants(CUSTOM, subclass) && self.bulk.wants(CUSTOM, subclass)
            })
            .map(|subclass| format!("{CUSTOM}^{subclass}"))
    }
}

impl ReconnectConfig {
    /// Reads the parameters about reconnecting.
    pub(super) fn read(params: &mut Params<'_>) -> Self {
        let min = params.read(&sink::RECONNECT_MIN_MS);
        let max = params.read(&sink::RECONNECT_MAX_MS);
        if max < min {
            let message = format!(
                "is {} while reconnect-min-ms is {}: expected at least as much",
                max.as_millis(),
                min.as_millis()
            );
            params.clash(&[&sink::RECONNECT_MAX_MS, &sink::RECONNECT_MIN_MS], message);
        }
        Self {
            min,
            max,
            refused: params.read(&sink::RECONNECT_REFUSED_MS),
            return_to_primary: params.read(&sink::RETURN_TO_PRIMARY_MS),
        }
    }
}

impl DeadLetterConfig {
    /// Reads the parameters about dead letters that all sinks share.
    pub(super) fn read(params: &mut Params<'_>, exchange_or_topic: Option<String>) -> Self {
        Self {
            dir: params.read(&sink::DEAD_LETTER_DIR),
            max_bytes: params.read(&sink::DEAD_LETTER_MAX_BYTES),
            exchange_or_topic,
            max_attempts: params.read(&sink::DEAD_LETTER_MAX_ATTEMPTS),
        }
    }
}
