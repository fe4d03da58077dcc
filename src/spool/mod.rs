// SPDX-License-Identifier: MIT
//! A bounded queue of opaque records on disk: what a sink accepted while its broker could not.
//!
//! One [`Spool`] serves one sink. The publisher thread of that sink is its only writer and its only
//! reader, so nothing here is shared, and every call may touch the disk. No thread is started; where
//! the owner has one for it ([`Syncer`]), `fsync=interval` syncs there and appending goes on.
//!
//! **What it promises.** A record is *accepted* when [`Spool::append`] counts it, *durable* when a
//! commit has succeeded, and *readable* when it is durable (with `fsync=never`: at once) or when the
//! disk is in trouble, so that it may never be. A durable
//! record is read until it is acknowledged, through any crash, power loss or failed call, at least
//! once and in order. Accepted records survive the death of the process too, and are lost only to
//! a power cut before the commit.
//!
//! **How.** A folder of segments, each a file of whole records (`format.rs` describes the
//! bytes), named by an ordinal that gives their order; a `cursor` file with the place up to which
//! everything is acknowledged; a `lock` file. There is no second source of truth: how much is
//! written follows from the segments alone, and the cursor may always be too old (records come
//! twice) but never too new, because a segment is removed only when a cursor past it is durable.
//!
//! * A full segment is sealed: a footer with its counts makes the next start trust it unread.
//!   Only what is not sealed is scanned, so that a start costs the same however much is waiting.
//! * Damage is skipped to the next whole record, counted and reported as [`Damage`]; the damaged
//!   file goes to `quarantine/`, which is bounded, once all that was whole in it has been acknowledged.
//! * After a failed `fsync` that descriptor is never synced again (the kernel may have dropped the
//!   pages and forgotten). What was not durable is still held in memory and written anew to a fresh
//!   segment, which says in its header what it stands in for, so that nothing is read twice.
//! * [`Spool::prepend`] and [`Spool::drop_oldest`] build a segment under a temporary name and rename
//!   it into place: it is there whole or not at all.
//!
//! **Rejected.** Memory maps (a full disk or a truncated file is a SIGBUS in the switch), a ledger
//! beside the log (the place where the bugs of other spools are), recycling files (stale records),
//! a key-value store (write amplification and background threads for a plain queue).

mod ahead;
mod batch;
mod checksum;
mod commit;
mod cursor;
mod error;
mod format;
mod heal;
mod lend;
mod quarantine;
mod queue;
mod reader;
mod recovery;
mod scan;
mod segment;
mod shed;
mod storage;
mod survey;
mod writer;

#[cfg(test)]
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "numbers in tests are small, and some are cut off on purpose"
)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use self::ahead::Wanted;
pub use self::batch::Batch;
pub use self::error::SpoolError;
#[cfg(test)]
pub(crate) use self::format::VERSION as SEGMENT_FORMAT;
pub use self::queue::Spool;
pub use self::storage::{Disk, Found, Lock, Storage, StorageFile, Syncer, Syncing};

/// When records become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// With each [`Spool::append`].
    Always,
    /// With the first [`Spool::commit`] this long after the last one, or sooner when much is
    /// waiting for it; never more than [`MAX_UNDURABLE_BYTES`].
    Interval(Duration),
    /// When the system sees fit. A power cut loses what it had not written.
    Never,
}

/// What may wait in memory for the next commit before appending waits for one, a second at most, after which nothing
/// more is taken: what a failed fsync has to write anew is held there.
pub const MAX_UNDURABLE_BYTES: usize = 8 * 1024 * 1024;

/// What waits before a commit is begun out of turn.
const MUCH_UNDURABLE_BYTES: usize = MAX_UNDURABLE_BYTES / 4;

/// Where a spool lives and how large it may get.
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// The folder; created (mode 0750) if it is missing, never shared.
    pub dir: PathBuf,
    /// Size of a segment file in bytes, 64 KiB to 1 GiB. A record that is larger gets a segment of
    /// its own size.
    pub segment_bytes: u64,
    /// Bound of all segment files together in bytes, preallocated ones at their full size. At least
    /// `segment_bytes`. Only [`Spool::prepend`] and the repair after a failed fsync may exceed it,
    /// by what was already accepted.
    pub max_bytes: u64,
    /// Bytes that stay free on the disk: no segment is started that would leave less.
    pub min_free_bytes: u64,
    /// When records become durable.
    pub fsync: Fsync,
}

impl SpoolConfig {
    /// Default of [`segment_bytes`](Self::segment_bytes).
    pub const DEFAULT_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
    /// Least [`segment_bytes`](Self::segment_bytes).
    pub const MIN_SEGMENT_BYTES: u64 = 64 * 1024;
    /// Largest [`segment_bytes`](Self::segment_bytes).
    pub const MAX_SEGMENT_BYTES: u64 = 1024 * 1024 * 1024;
}

/// A record to store.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its number in the sink's stream; rising, not necessarily without holes.
    pub seq: u64,
    /// 0 critical, 1 normal, 2 bulk. Anything above counts as bulk.
    pub class: u8,
    /// The bytes to give back.
    pub payload: &'a [u8],
}

/// A record read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored<'p> {
    /// What to give to [`Spool::advance`] when it is acknowledged.
    pub position: Position,
    /// Its number in the sink's stream.
    pub seq: u64,
    /// 0 critical, 1 normal, 2 bulk.
    pub class: u8,
    /// The bytes that were appended.
    pub payload: &'p [u8],
}

/// The place just behind a record. Ordered as the records are read. Void once [`Spool::prepend`] or
/// [`Spool::drop_oldest`] has been called; [`Spool::advance`] ignores those it cannot place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Ordinal of the segment.
    segment: u64,
    /// Whole records of the segment up to here.
    index: u64,
    /// Offset in the segment.
    offset: u64,
    /// Id of the segment, to tell a replaced one.
    id: u64,
    /// Sequence number of the record.
    seq: u64,
}

impl Position {
    /// Ordinal of the segment that the record is in.
    pub fn segment(&self) -> u64 {
        self.segment
    }
}

/// How many entries [`Spool::append`] took, and why not all.
#[derive(Debug)]
#[must_use = "what was not accepted is still the caller's"]
pub struct Appended {
    /// Entries taken, from the front. They are the spool's responsibility now.
    pub accepted: usize,
    /// Why it stopped, or (with all accepted) why they are not durable yet.
    pub error: Option<SpoolError>,
}

/// What kind of loss a [`Damage`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// Bytes between whole records, or a header, that do not check.
    Corrupt,
    /// An unfinished write at the end of a segment that was never sealed: what a crash leaves.
    Torn,
    /// The file is gone.
    Missing,
}

/// Records that are or may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What happened.
    pub kind: DamageKind,
    /// Ordinal of the segment, which is its file's name in hexadecimal.
    pub segment: u64,
    /// Offset of the first damaged byte.
    pub offset: u64,
    /// How many bytes are damaged.
    pub bytes: u64,
    /// First sequence number that may be lost: the one behind the last good neighbor. `None` if
    /// there is no neighbor to tell.
    pub from_seq: Option<u64>,
    /// Last sequence number that may be lost: the one before the next good neighbor. `None` if
    /// nothing follows. Less than `from_seq` when the neighbors are adjacent: nothing is lost.
    pub to_seq: Option<u64>,
    /// By how many records this makes [`SpoolStats::records`] less. All that a segment has lost is
    /// counted with the first damage in it. `None` for what [`Recovery`] reports, as its count
    /// does not include what is not there, and where the disk failed.
    pub records: Option<u64>,
}

impl Damage {
    /// How many records are lost, as far as anything tells: by count, or else by the numbers that are missing between the neighbors,
    /// which may be of two streams: no more than there is room for.
    pub fn estimate(&self) -> u64 {
        self.records.unwrap_or_else(|| match (self.from_seq, self.to_seq) {
            (Some(from), Some(to)) => {
                to.saturating_add(1).saturating_sub(from).min(self.bytes / format::RECORD)
            }
            _ => 0,
        })
    }

    /// True when the neighbors' numbers are adjacent, so that no record can be missing.
    pub fn is_harmless(&self) -> bool {
        matches!((self.from_seq, self.to_seq), (Some(from), Some(to)) if from > to)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, offset, bytes, .. } = self;
        let name = format::segment_name(*segment);
        match self.kind {
            DamageKind::Corrupt => write!(f, "{name}: {bytes} bytes damaged at offset {offset}")?,
            DamageKind::Torn => write!(f, "{name}: unfinished write of {bytes} bytes at the end")?,
            DamageKind::Missing => write!(f, "{name}: the file is gone")?,
        }
        if self.is_harmless() {
            return write!(f, ", no record lost");
        }
        if let Some(records) = self.records {
            write!(f, ", {records} records lost")?;
        }
        match (self.from_seq, self.to_seq) {
            (Some(from), Some(to)) => write!(f, ", sequence numbers within {from} to {to}"),
            (Some(from), None) => write!(f, ", sequence numbers from {from}"),
            (None, Some(to)) => write!(f, ", sequence numbers up to {to}"),
            (None, None) => Ok(()),
        }
    }
}

/// What [`Spool::open`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Records waiting. In sealed segments as their footers say.
    pub records: u64,
    /// Their size on disk.
    pub bytes: u64,
    /// Damaged ranges found; those in sealed segments turn up when they are read.
    pub corrupt_ranges: u64,
    /// Bytes of unfinished writes.
    pub torn_bytes: u64,
    /// Each range and unfinished write.
    pub damage: Vec<Damage>,
    /// Files moved to `quarantine/`, under their new names: nothing whole was left in them.
    pub quarantined: Vec<PathBuf>,
    /// Segments of a newer format and its version, left where they are.
    pub newer: Vec<(PathBuf, u16)>,
    /// Names in the folder that are not ours, left alone.
    pub foreign: Vec<PathBuf>,
    /// Why the cursor could not be used; reading then starts at the oldest record.
    pub cursor_lost: Option<String>,
    /// What could not be repaired; none of it keeps the spool from working.
    pub problems: Vec<String>,
    /// Bytes read from segments to find all this.
    pub bytes_read: u64,
}

impl Recovery {
    /// One line for each thing an operator should know; empty after an ordinary start.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.damage.iter().map(ToString::to_string).collect();
        for path in &self.quarantined {
            lines.push(format!("{}: moved here, nothing whole was left in it", path.display()));
        }
        for (path, version) in &self.newer {
            lines.push(format!(
                "{}: written by a newer release (format {version}, this one reads up to {}), left \
                 alone; run that release to deliver it",
                path.display(),
                format::VERSION
            ));
        }
        if !self.foreign.is_empty() {
            let names: Vec<String> =
                self.foreign.iter().map(|path| path.display().to_string()).collect();
            lines.push(format!("not ours, left alone: {}", names.join(", ")));
        }
        if let Some(why) = &self.cursor_lost {
            lines.push(format!("{why}; starting at the oldest record, some may come twice"));
        }
        lines.extend(self.problems.iter().cloned());
        lines
    }
}

/// Whether the spool takes records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpoolState {
    /// It does, as far as there is room.
    Ok,
    /// Writing failed, and why; [`Spool::try_heal`] tests whether it works again.
    Degraded(String),
}

/// What [`Spool::try_heal`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heal {
    /// Nothing was wrong.
    Healthy,
    /// Writing works again.
    Healed,
    /// It does not; the next attempt is due then.
    NotYet(Instant),
}

/// Counts and gauges, as of the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolStats {
    /// Unacknowledged records.
    pub records: u64,
    /// Their size on disk, overhead included.
    pub bytes: u64,
    /// Size of all segment files, preallocated ones at their full size.
    pub disk_bytes: u64,
    /// Sequence number of the oldest unacknowledged record.
    pub oldest_seq: Option<u64>,
    /// When it was appended, in milliseconds since 1970. `None` also where the header of its segment is destroyed, which says so.
    pub oldest_appended_unix_ms: Option<u64>,
    /// Sequence number of the newest record.
    pub newest_seq: Option<u64>,
    /// Records appended since the spool was opened.
    pub appended_total: u64,
    /// Records read since the spool was opened, those read again included.
    pub read_total: u64,
    /// Records read and not acknowledged.
    pub in_flight: u64,
    /// Sequence number of the newest durable record that this process appended; none while what was durable has gone with a deleted
    /// folder and is not written anew yet. With [`Fsync::Never`] the newest that is written.
    pub durable_seq: Option<u64>,
    /// Whether the two below, and `durable_seq`, say what a power cut would take: nobody knows with [`Fsync::Never`].
    pub syncs: bool,
    /// Records that a power cut would take: the loss window.
    pub undurable_records: u64,
    /// Their size.
    pub undurable_bytes: u64,
    /// Segment files, those that wait for removal included.
    pub segments: u64,
    /// Damaged files moved to `quarantine/` since the spool was opened, and by opening it.
    pub quarantined: u64,
    /// Failed fsyncs since the spool was opened.
    pub fsync_errors: u64,
    /// Whether it takes records.
    pub state: SpoolState,
}
