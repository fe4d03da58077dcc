// SPDX-License-Identifier: MIT
//! The way back after a full disk, a read-only one, a deleted folder.

use std::collections::HashSet;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use super::Heal;
use super::error::SpoolError;
use super::queue::{Spool, Trouble};

/// How often to look whether the folder is still there.
const FOLDER_CHECK: Duration = Duration::from_secs(1);
/// First and last pause between attempts to write again; it doubles in between.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

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
                let attempts =
                    self.trouble.as_ref().map_or(1, |trouble| trouble.attempts.saturating_add(1));
                let pause = FIRST_PAUSE
                    .saturating_mul(1 << attempts.saturating_sub(1).min(8))
                    .min(LONGEST_PAUSE);
                let retry_at = now.checked_add(pause).unwrap_or(now);
                self.trouble =
                    Some(Trouble { reason: error.to_string(), retry_at: Some(retry_at), attempts });
                Heal::NotYet(retry_at)
            }
        }
    }

    /// Brings folder, lock and a writable segment back, and what was not durable into it.
    pub(super) fn recover_writing(&mut self) -> Result<(), SpoolError> {
        // A folder that cannot be looked at is no proof that it is gone.
        if !self.lock.is_linked().unwrap_or(true) {
            self.lock = super::recovery::take_lock(self.storage.as_ref(), &self.config.dir)?;
            self.cursor.forget();
            self.cursor_dirty = true;
            self.forget_deleted()?;
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
            let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
            self.degrade(&SpoolError::io("find the folder again", &self.config.dir, gone));
        }
    }

    /// Drops the segments whose files went with the folder. What is not durable is still in memory
    /// and goes on.
    fn forget_deleted(&mut self) -> Result<(), SpoolError> {
        let dir = self.config.dir.clone();
        let found = self.storage.list(&dir);
        let found = found.map_err(|error| SpoolError::io("list the folder", &dir, error))?;
        let names: HashSet<OsString> = found.into_iter().map(|found| found.name).collect();
        let is_there = |name: String| names.contains(&OsString::from(name));
        self.retired.retain(|segment| is_there(segment.name()));
        let active = self.active.as_ref().and_then(|active| {
            let segment = self.segments.back()?;
            (!is_there(segment.name())).then_some((active.durable_end, segment.ordinal()))
        });
        if let Some((durable_end, ordinal)) = active {
            self.active = None;
            // Of a file that is gone; all that it covers is still in memory.
            self.underway = None;
            if let Some(segment) = self.segments.back_mut() {
                segment.records = segment.records.saturating_sub(self.pending.records());
                if self.pending.records() > 0 {
                    segment.end = durable_end;
                    let kept = self.pending.entries().next().map(|entry| entry.seq);
                    segment.last_seq = kept.map_or(segment.last_seq, |seq| seq.saturating_sub(1));
                    let index = segment.records;
                    self.floor = Some(super::format::Mark { ordinal, index, offset: durable_end });
                }
            }
        }
        let missing: Vec<u64> = self
            .segments
            .iter()
            .filter(|segment| !is_there(segment.name()))
            .map(super::segment::Segment::ordinal)
            .collect();
        for ordinal in missing {
            if let Some(place) = self.segments.iter().position(|s| s.ordinal() == ordinal) {
                self.forget_missing(place);
            }
        }
        Ok(())
    }
}
