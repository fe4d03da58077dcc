// SPDX-License-Identifier: MIT
//! The spool itself: what it remembers, what it can tell, and how it ends.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::batch::Pending;
use super::cursor::Cursor;
use super::error::SpoolError;
use super::format::{FOOTER, HEADER, Mark, RECORD, decode_head, to_u64, to_usize};
use super::lend::{Floor, Move};
use super::reader::Reader;
use super::segment::Segment;
use super::storage::{Storage, StorageFile, Syncing, read_full};
use super::{Damage, Fsync, SpoolConfig, SpoolState, SpoolStats};

/// A bounded queue of records on disk. See the [module](super) for what it promises.
///
/// Owned by the publisher thread of one sink; every method may touch the disk, and none waits for
/// anything but it and, for a second at most, a thread that syncs ([`Syncer`](super::Syncer)). Dropping it without [`close`](Self::close) leaves on disk what a crash would.
#[derive(Debug)]
pub struct Spool {
    pub(super) config: SpoolConfig,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) lock: Box<dyn StorageFile>,
    /// Segments that hold unacknowledged records, oldest first, the active one last.
    pub(super) segments: VecDeque<Segment>,
    /// Acknowledged segments whose files go when a cursor past them is durable.
    pub(super) retired: VecDeque<Segment>,
    /// Of these, the ones whose files would not go: tried again with each cursor, and at the end.
    pub(super) stuck: Vec<Segment>,
    pub(super) next_ordinal: u64,
    /// No file has a lower ordinal.
    pub(super) lowest_ordinal: u64,
    /// Where to append: the last of `segments`.
    pub(super) active: Option<Active>,
    /// The records of the active segment that are not durable yet.
    pub(super) pending: Pending,
    /// A sync of the active segment on another thread.
    pub(super) underway: Option<Underway>,
    /// Set while `pending` has lost its segment to a failed fsync.
    pub(super) floor: Option<Floor>,
    /// Of records that were lent, and are in flight.
    pub(super) moves: Vec<Move>,
    /// Everything before it is acknowledged.
    pub(super) acked: Mark,
    pub(super) acked_id: u64,
    pub(super) acked_seq: Option<u64>,
    /// Everything before it has been read.
    pub(super) read: Mark,
    pub(super) reader: Reader,
    pub(super) cursor: Cursor,
    /// The cursor on disk is behind `acked`.
    pub(super) cursor_dirty: bool,
    /// The last write of the cursor failed, which has been said.
    pub(super) cursor_failing: bool,
    pub(super) clock: Clock,
    pub(super) counts: Counts,
    pub(super) damage: Vec<Damage>,
    pub(super) trouble: Option<Trouble>,
    /// Nothing is waited for beyond it.
    pub(super) deadline: Option<Instant>,
    pub(super) is_closing: bool,
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) file: Box<dyn StorageFile>,
    /// End of what an fsync has made durable.
    pub(super) durable_end: u64,
    /// Size up to which the segment may grow, footer included.
    pub(super) capacity: u64,
}

/// A sync of the active segment that goes on while more is appended.
#[derive(Debug)]
pub(super) struct Underway {
    pub(super) sync: Box<dyn Syncing>,
    pub(super) covers: Covered,
    /// It was waited for in vain.
    pub(super) is_overdue: bool,
}

/// What a sync makes durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Covered {
    /// The segment up to here.
    pub(super) end: u64,
    /// The first so many bytes and records of what is pending.
    pub(super) bytes: usize,
    pub(super) records: u64,
    pub(super) last_seq: Option<u64>,
}

/// When things were last done, by the caller's clock.
#[derive(Debug, Default)]
pub(super) struct Clock {
    pub(super) data_synced: Option<Instant>,
    pub(super) cursor_written: Option<Instant>,
    pub(super) folder_checked: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) appended: u64,
    pub(super) read: u64,
    pub(super) quarantined: u64,
    pub(super) fsync_errors: u64,
    pub(super) durable_seq: Option<u64>,
    pub(super) appended_seq: Option<u64>,
}

/// Why nothing can be written at the moment.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) reason: String,
    /// When to test again; at once if not set.
    pub(super) retry_at: Option<Instant>,
    pub(super) attempts: u32,
    /// What is wrong is that there is no room.
    pub(super) is_full: bool,
    /// Records have been given up for room since it began.
    pub(super) gave_way: bool,
}

impl Spool {
    /// The folder.
    pub fn dir(&self) -> &std::path::Path {
        &self.config.dir
    }

    /// True when nothing unacknowledged is left: the next event need not go through the spool.
    pub fn is_empty(&self) -> bool {
        self.undurable().1 == 0
            && self.segments.iter().all(|segment| {
                segment.ordinal() < self.acked.ordinal
                    || segment.end <= self.begin_of(segment).offset
            })
    }

    /// Whether writing has failed, so that nothing is taken until [`try_heal`](Self::try_heal) succeeds. A spool that is merely full
    /// is not suspended.
    pub fn is_suspended(&self) -> bool {
        self.trouble.is_some()
    }

    /// Damage found since the last call, for gap records and the log: nothing else reports it. [`Recovery`](super::Recovery) has what
    /// opening found.
    pub fn take_damage(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.damage)
    }

    /// Size of the unacknowledged records on disk, as [`stats`](Self::stats) has it, without touching the disk.
    pub fn bytes(&self) -> u64 {
        let lost = if self.floor.is_some() { to_u64(self.pending.bytes()) } else { 0 };
        let size = |segment: &Segment| segment.end.saturating_sub(self.begin_of(segment).offset);
        self.segments.iter().map(size).sum::<u64>() + lost
    }

    /// Counts and gauges. Reads the head of the oldest record from disk if it must.
    pub fn stats(&mut self) -> SpoolStats {
        let (undurable_bytes, undurable_records) = self.undurable();
        let mut stats = SpoolStats {
            records: 0,
            bytes: self.bytes(),
            disk_bytes: self.disk_bytes(),
            oldest_seq: None,
            oldest_appended_unix_ms: None,
            newest_seq: None,
            appended_total: self.counts.appended,
            read_total: self.counts.read,
            in_flight: 0,
            durable_seq: self.counts.durable_seq,
            syncs: self.syncs(),
            undurable_records,
            undurable_bytes,
            segments: to_u64(self.segments.len() + self.retired.len() + self.stuck.len()),
            quarantined: self.counts.quarantined,
            fsync_errors: self.counts.fsync_errors,
            state: match &self.trouble {
                None => SpoolState::Ok,
                Some(trouble) => SpoolState::Degraded(trouble.reason.clone()),
            },
        };
        for segment in &self.segments {
            let begin = self.begin_of(segment);
            let records = segment.records.saturating_sub(begin.index);
            stats.records += records;
            if records > 0 {
                stats.newest_seq = Some(segment.last_seq);
            }
            stats.in_flight += match segment.ordinal().cmp(&self.read.ordinal) {
                std::cmp::Ordering::Less => records,
                std::cmp::Ordering::Equal => self.read.index.saturating_sub(begin.index),
                std::cmp::Ordering::Greater => 0,
            };
        }
        if self.floor.is_some() && self.pending.records() > 0 {
            stats.records += self.pending.records();
            stats.newest_seq = self.counts.appended_seq;
        }
        if let Some((seq, unix_ms)) = self.oldest() {
            stats.oldest_seq = Some(seq);
            stats.oldest_appended_unix_ms = unix_ms;
        }
        stats
    }

    /// Commits what is not durable, writes the cursor, removes what is acknowledged, gives up the
    /// lock. A disk that does not answer is waited for until the deadline that [`hurry`](Self::hurry) set.
    ///
    /// # Errors
    /// What could not be made durable or removed. The records concerned are still on disk if the
    /// machine keeps running; whether they survive a power cut is unknown.
    pub fn close(mut self) -> Result<(), SpoolError> {
        self.is_closing = true;
        if self.floor.is_some() {
            self.recover_writing()?;
        }
        let data = match self.active {
            Some(_) => self.seal_active(),
            None => Ok(()),
        };
        self.retire();
        if self.is_silent() {
            // To wait for the cursor as well would have no end.
            return data;
        }
        let cursor = self.write_cursor();
        data.and(cursor)
    }

    /// Where unacknowledged records begin in a segment.
    pub(super) fn begin_of(&self, segment: &Segment) -> Mark {
        if segment.ordinal() == self.acked.ordinal {
            self.acked.max(segment.start)
        } else {
            segment.start
        }
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        let all = self.segments.iter().chain(&self.retired).chain(&self.stuck);
        all.map(|segment| segment.disk).sum()
    }

    /// The same place, seen from the segment that continues after it.
    pub(super) fn settle(&self, mut mark: Mark) -> Mark {
        let first = self.segments.partition_point(|segment| segment.ordinal() < mark.ordinal);
        let mut rest = self.segments.iter().skip(first).peekable();
        while let Some(segment) = rest.next() {
            // Also when the ordinals are equal: reading begins behind what a link skips.
            mark = mark.max(segment.start);
            if mark.offset < segment.end || rest.peek().is_none() {
                break;
            }
            if let Some(next) = rest.peek() {
                mark = next.start;
            }
        }
        mark
    }

    /// Takes out the segments that are acknowledged to the end. Their files stay until the cursor
    /// is written.
    pub(super) fn retire(&mut self) {
        self.acked = self.settle(self.acked);
        self.read = self.settle(self.read.max(self.acked));
        // What a failed fsync left is kept until it has been written anew.
        let keep = self.floor.map_or(u64::MAX, |floor| floor.mark.ordinal);
        while let Some(front) = self.segments.front() {
            let done = front.ordinal() < self.acked.ordinal
                || (self.active.is_none()
                    && self.segments.len() == 1
                    && self.begin_of(front).offset >= front.end);
            if !done || front.ordinal() >= keep {
                break;
            }
            if front.ordinal() == self.acked.ordinal {
                self.acked_id = front.identity.id;
            }
            self.retired.extend(self.segments.pop_front());
            self.cursor_dirty = true;
        }
        if let Some(front) = self.segments.front().filter(|s| s.ordinal() == self.acked.ordinal) {
            self.acked_id = front.identity.id;
        }
        let acked = self.acked;
        self.moves.retain(|step| step.is_in_flight(acked));
    }

    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.config.dir.join(name)
    }

    pub(super) fn syncs(&self) -> bool {
        self.config.fsync != Fsync::Never
    }

    /// The largest payload that fits into an empty spool.
    pub(super) fn payload_limit(&self) -> u64 {
        let overhead = HEADER + RECORD + FOOTER;
        self.config.max_bytes.min(super::format::MAX_SEGMENT).saturating_sub(overhead)
    }

    pub(super) fn degrade(&mut self, error: &SpoolError) {
        if self.trouble.is_none() {
            log::error!("{error}; nothing more is spooled until this works again");
            self.trouble = Some(Trouble {
                reason: error.to_string(),
                retry_at: None,
                attempts: 0,
                is_full: error.is_full(),
                gave_way: false,
            });
        }
    }

    /// Sequence number and, if it is known, time of the oldest unacknowledged record.
    fn oldest(&self) -> Option<(u64, Option<u64>)> {
        let segment = self.segments.iter().find(|segment| {
            segment.ordinal() >= self.acked.ordinal && self.begin_of(segment).offset < segment.end
        });
        let Some(segment) = segment else {
            let (first, age_ms) = self.pending.aged().next()?;
            return self.floor.map(|floor| (first.seq, time_of(floor.created_ms, age_ms)));
        };
        let begin = self.begin_of(segment);
        let mut bytes = [0; 32];
        let read = match &self.active {
            Some(active) if self.segments.back()?.ordinal() == segment.ordinal() => {
                read_full(active.file.as_ref(), &mut bytes, begin.offset)
            }
            _ => match self.storage.open(&self.path_of(&segment.name())) {
                Ok(file) => read_full(file.as_ref(), &mut bytes, begin.offset),
                Err(error) => Err(error),
            },
        };
        let head = decode_head(&bytes).filter(|head| head.id == segment.identity.id);
        match (read, head) {
            (Ok(n), Some(head)) if n == to_usize(RECORD) => {
                Some((head.seq, time_of(segment.created_ms, head.age_ms)))
            }
            // Damaged or unreadable: the segment's own beginning is the best guess.
            _ => Some((segment.first_seq, time_of(segment.created_ms, 0))),
        }
    }
}

/// When a record was appended; unknown where the header that says when its segment was made is destroyed.
fn time_of(created_ms: u64, age_ms: u32) -> Option<u64> {
    (created_ms > 0).then(|| created_ms.saturating_add(u64::from(age_ms)))
}

#[cfg(test)]
impl Spool {
    /// Ends the active segment, so that the next append needs a new one.
    pub(super) fn close_active_for_test(&mut self) {
        self.seal_active().unwrap();
    }
}
