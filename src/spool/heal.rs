// SPDX-License-Identifier: MIT
//! The way back after a full disk, a read-only one, a deleted folder.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::error::SpoolError;
use super::format::{self, Identity, Mark};
use super::queue::{Active, Spool, Trouble};
use super::scan::{Scanner, Step};
use super::{Entry, Heal};

/// How often to look whether the folder is still there.
const FOLDER_CHECK: Duration = Duration::from_secs(1);
/// First and last pause between attempts to write again; it doubles in between.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// What is rescued of a file that has been deleted while it was written, at most: a segment of the default size. It is held in memory.
const RESCUE_BYTES: u64 = super::SpoolConfig::DEFAULT_SEGMENT_BYTES;

impl Spool {
    /// Tests whether writing works again, if it did not and the next attempt is due at `now`. The
    /// publisher calls it in each turn of its loop; it costs nothing while all is well. A folder
    /// that was deleted is created again; its records are reported as [`Damage`](super::Damage).
    pub fn try_heal(&mut self, now: Instant) -> Heal {
        let Some(trouble) = &self.trouble else { return Heal::Healthy };
        if let Some(retry_at) = trouble.retry_at.filter(|retry_at| now < *retry_at) {
            return Heal::NotYet(retry_at);
        }
        match self.recover_writing() {
            Ok(()) => {
                log::warn!("spool {}: writing works again", self.config.dir.display());
                Heal::Healed
            }
            Err(error) => {
                let before = self.trouble.as_ref();
                let attempts = before.map_or(1, |trouble| trouble.attempts.saturating_add(1));
                let gave_way = before.is_some_and(|trouble| trouble.gave_way);
                let pause = FIRST_PAUSE
                    .saturating_mul(1 << attempts.saturating_sub(1).min(8))
                    .min(LONGEST_PAUSE);
                let retry_at = now.checked_add(pause).unwrap_or(now);
                self.trouble = Some(Trouble {
                    reason: error.to_string(),
                    retry_at: Some(retry_at),
                    attempts,
                    is_full: error.is_full(),
                    gave_way,
                });
                Heal::NotYet(retry_at)
            }
        }
    }

    /// Brings folder, lock and a writable segment back, and what was not durable into it.
    pub(super) fn recover_writing(&mut self) -> Result<(), SpoolError> {
        // A folder that cannot be looked at is no proof that it is gone.
        if !self.lock.is_linked().unwrap_or(true) {
            // First, and so also when there can be no folder again: what is gone must not be waited for.
            self.forget_deleted()?;
            self.lock = super::recovery::take_lock(self.storage.as_ref(), &self.config.dir)?;
            self.cursor.forget();
            self.cursor_dirty = true;
        }
        self.settle_sync()?;
        if self.is_silent() {
            return Err(self.silence());
        }
        if self.floor.is_some() {
            self.rewrite_pending()?;
        } else {
            let first_seq = self.counts.appended_seq.map_or(0, |seq| seq.saturating_add(1));
            match self.roll(0, first_seq) {
                // No room is no fault: the next append says so itself.
                Ok(()) | Err(SpoolError::Full { .. } | SpoolError::LowDisk { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.trouble = None;
        Ok(())
    }

    /// Notices a deleted folder, at most once a second.
    pub(super) fn check_folder(&mut self, now: Instant) {
        let checked = self.clock.folder_checked;
        if checked.is_some_and(|then| now.saturating_duration_since(then) < FOLDER_CHECK) {
            return;
        }
        self.clock.folder_checked = Some(now);
        if self.trouble.is_none() && !self.lock.is_linked().unwrap_or(true) {
            let gone = std::io::Error::from(ErrorKind::NotFound);
            self.degrade(&SpoolError::io("find the folder again", &self.config.dir, gone));
        }
    }

    /// Drops the segments whose files went with the folder. What is not durable is still in memory and goes on, and so does what
    /// the segment had that was being written: its file has no name any more, but is open.
    fn forget_deleted(&mut self) -> Result<(), SpoolError> {
        let dir = self.config.dir.clone();
        let names: HashSet<OsString> = match self.storage.list(&dir) {
            Ok(found) => found.into_iter().map(|found| found.name).collect(),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                HashSet::new()
            }
            Err(error) => return Err(SpoolError::io("list the folder", &dir, error)),
        };
        let is_there = |name: String| names.contains(&OsString::from(name));
        self.retired.retain(|segment| is_there(segment.name()));
        self.stuck.retain(|segment| is_there(segment.name()));
        let is_active_gone = self.segments.back().is_some_and(|segment| !is_there(segment.name()));
        if is_active_gone && let Some(active) = self.active.take() {
            // Of a file that is gone; all that it covers is still in memory.
            self.underway = None;
            self.rescue(&active);
        }
        let missing: Vec<u64> = self
            .segments
            .iter()
            .filter(|segment| !is_there(segment.name()))
            .map(super::segment::Segment::ordinal)
            .collect();
        if is_active_gone || !missing.is_empty() {
            // What was durable is not, or not before it is written anew.
            self.counts.durable_seq = None;
        }
        for ordinal in missing {
            if let Some(place) = self.segments.iter().position(|s| s.ordinal() == ordinal) {
                self.forget_missing(place);
            }
        }
        Ok(())
    }

    /// Takes into memory, to be written anew, what is unacknowledged of the active segment, whose file has no name any more.
    fn rescue(&mut self, active: &Active) {
        let Some(segment) = self.segments.back() else { return };
        let pending = self.pending.records();
        let durable = Mark {
            ordinal: segment.ordinal(),
            index: segment.records.saturating_sub(pending),
            offset: if self.syncs() { active.durable_end } else { segment.end },
        };
        let begin = self.begin_of(segment);
        let rescued = (begin < durable)
            .then(|| read_back(active, &segment.identity, begin, durable))
            .flatten();
        if pending == 0 && rescued.is_none() {
            return;
        }
        let (id, created_ms) = (segment.identity.id, segment.created_ms);
        let mark = if rescued.is_some() { begin } else { durable };
        if let Some(bytes) = rescued {
            self.pending.put_back(bytes, durable.index.saturating_sub(begin.index));
        }
        let first = self.pending.entries().next().map(|entry| entry.seq);
        if let Some(segment) = self.segments.back_mut() {
            segment.records = mark.index;
            segment.end = mark.offset;
            segment.last_seq = first.map_or(segment.last_seq, |seq| seq.saturating_sub(1));
        }
        self.make_void(mark, id, created_ms);
    }
}

/// The records of a segment between two marks, encoded. None if not all of them are whole, or they are too much to hold.
fn read_back(active: &Active, identity: &Identity, from: Mark, to: Mark) -> Option<Vec<u8>> {
    if to.offset.saturating_sub(from.offset) > RESCUE_BYTES {
        return None;
    }
    let mut scanner = Scanner::default();
    let (mut at, mut records, mut bytes) = (from.offset, from.index, Vec::new());
    while let Step::Record { head, payload, end } =
        scanner.step(active.file.as_ref(), identity, at, to.offset).ok()?
    {
        let entry = Entry { seq: head.seq, class: head.class, payload: scanner.bytes(payload) };
        format::encode_record(&mut bytes, identity, at, &entry, head.age_ms);
        (at, records) = (end, records + 1);
    }
    ((at, records) == (to.offset, to.index)).then_some(bytes)
}
