// SPDX-License-Identifier: MIT
//! Making durable: when it is due, on which thread, and what a disk that does not answer comes to.
//!
//! A sync has no deadline of its own. Where there is a thread for it, it is that thread which waits for the disk, and the
//! publisher waits for the thread, for [`PATIENCE`] at most. A sync that has not come to its end by then makes the spool
//! *silent*: nothing more is taken, so that no more than was waiting already depends on it, until it ends, well or badly.

use std::io;
use std::time::{Duration, Instant};

use super::Fsync;
use super::error::SpoolError;
use super::queue::{Covered, Spool, Underway};
use super::segment::Segment;

/// The cursor is written at most this often, except when a segment is done.
const CURSOR_INTERVAL: Duration = Duration::from_millis(100);
/// How long after a failed write of the cursor the next is tried.
const CURSOR_RETRY: Duration = Duration::from_secs(1);
/// How long a sync on the other thread is waited for. A disk that writes back less than [`MAX_UNDURABLE_BYTES`](super::MAX_UNDURABLE_BYTES) in
/// this time keeps up with no load that makes anyone wait for it.
const PATIENCE: Duration = Duration::from_secs(1);

impl Spool {
    /// Makes appended records durable and the cursor too, each when it is due at `now`. The
    /// publisher calls it in each turn of its loop.
    ///
    /// # Errors
    /// What failed. Nothing is lost by it; [`stats`](Self::stats) tells the state.
    pub fn commit(&mut self, now: Instant) -> Result<(), SpoolError> {
        self.check_folder(now);
        let settled = self.settle_sync();
        let data = if settled.is_err() {
            settled
        } else if self.floor.is_some() {
            Err(self.suspended())
        } else if self.pending.records() > 0 && is_due(self.data_deadline(), now) {
            self.clock.data_synced = Some(now);
            self.begin_commit()
        } else {
            Ok(())
        };
        self.retire();
        // It is synced here, so not on a disk of which it is known that it does not answer.
        let is_due = self.cursor_dirty && is_due(self.cursor_deadline(), now);
        let cursor = if is_due && !self.is_silent() {
            self.clock.cursor_written = Some(now);
            let written = self.write_cursor();
            if written.is_err() {
                self.clock.cursor_written = now.checked_add(CURSOR_RETRY);
            }
            written
        } else {
            Ok(())
        };
        data.and(cursor)
    }

    /// When [`commit`](Self::commit) will have something to do; `None` if nothing waits for it.
    pub fn next_commit(&self) -> Option<Instant> {
        let data = (self.pending.records() > 0 && self.floor.is_none())
            .then(|| self.data_deadline().unwrap_or_else(Instant::now));
        let cursor = self.cursor_dirty.then(|| self.cursor_deadline().unwrap_or_else(Instant::now));
        match (data, cursor) {
            (Some(data), Some(cursor)) => Some(data.min(cursor)),
            (one, other) => one.or(other),
        }
    }

    /// Nothing is waited for beyond `deadline` any more: the owner is about to end.
    pub fn hurry(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    /// Data is due from this instant on; at once if `None`.
    fn data_deadline(&self) -> Option<Instant> {
        match self.config.fsync {
            Fsync::Interval(interval) => {
                self.clock.data_synced.and_then(|then| then.checked_add(interval))
            }
            Fsync::Always | Fsync::Never => None,
        }
    }

    fn cursor_deadline(&self) -> Option<Instant> {
        let written = self.clock.cursor_written?;
        // A finished segment's file is freed without waiting, but not after a failure.
        let pause = if self.retired.is_empty() { CURSOR_INTERVAL } else { Duration::ZERO };
        written.checked_add(pause)
    }

    /// Makes everything appended durable.
    pub(super) fn commit_data(&mut self) -> Result<(), SpoolError> {
        if self.floor.is_some() {
            return Err(self.suspended());
        }
        self.sync_active()
    }

    /// Makes what is appended so far durable while more is appended, if there is a thread for it.
    pub(super) fn begin_commit(&mut self) -> Result<(), SpoolError> {
        if self.begin_sync() { Ok(()) } else { self.commit_data() }
    }

    /// Begins a sync on the other thread, or finds one that goes on: one at a time. False when
    /// there is no such thread.
    pub(super) fn begin_sync(&mut self) -> bool {
        self.underway.is_some()
            || matches!(self.config.fsync, Fsync::Interval(_))
                && self.floor.is_none()
                && (self.pending.records() == 0 || self.hand_over())
    }

    /// Has the other thread sync the active segment as it is.
    fn hand_over(&mut self) -> bool {
        let (Some(active), Some(segment)) = (&self.active, self.segments.back()) else {
            return false;
        };
        let covers = Covered {
            end: segment.end,
            bytes: self.pending.bytes(),
            records: self.pending.records(),
            last_seq: self.counts.appended_seq,
        };
        let sync = active.file.begin_sync();
        self.underway = sync.map(|sync| Underway { sync, covers, is_overdue: false });
        self.underway.is_some()
    }

    /// Takes note of a sync on the other thread that is over.
    pub(super) fn settle_sync(&mut self) -> Result<(), SpoolError> {
        self.look_for_end(Duration::ZERO).map(drop)
    }

    /// Waits for one that goes on.
    pub(super) fn await_sync(&mut self) -> Result<(), SpoolError> {
        if self.look_for_end(self.patience())? {
            return Ok(());
        }
        if let Some(underway) = self.underway.as_mut() {
            underway.is_overdue = true;
        }
        let error = self.silence();
        self.degrade(&error);
        Err(error)
    }

    /// How long to wait for the disk.
    fn patience(&self) -> Duration {
        let left = self.deadline.map(|end| end.saturating_duration_since(Instant::now()));
        if self.is_closing {
            // There is nothing else left to do.
            left.unwrap_or(PATIENCE)
        } else if self.is_silent() {
            Duration::ZERO
        } else {
            left.map_or(PATIENCE, |left| left.min(PATIENCE))
        }
    }

    /// Whether no sync goes on, or the one that does ends within `patience`.
    fn look_for_end(&mut self, patience: Duration) -> Result<bool, SpoolError> {
        let Some(underway) = &mut self.underway else { return Ok(true) };
        let Some(result) = underway.sync.wait(patience) else { return Ok(false) };
        let (covers, was_overdue) = (underway.covers, underway.is_overdue);
        self.underway = None;
        if let Some(trouble) = self.trouble.as_mut().filter(|_| was_overdue) {
            // The disk has answered: whether it works again is to be seen now.
            trouble.retry_at = None;
        }
        self.end_sync(covers, result).map(|()| true)
    }

    fn end_sync(&mut self, covers: Covered, result: io::Result<()>) -> Result<(), SpoolError> {
        if let Err(error) = result {
            return self.abandon_active(error);
        }
        if let Some(active) = self.active.as_mut() {
            active.durable_end = covers.end;
            self.pending.durable(covers.bytes, covers.records);
            self.counts.durable_seq = covers.last_seq;
        }
        Ok(())
    }

    /// Makes the active segment durable as it is, and waits for that.
    pub(super) fn sync_active(&mut self) -> Result<(), SpoolError> {
        let before = self.segments.back().map(Segment::ordinal);
        self.await_sync()?;
        // A failure has ended in a fresh segment, which is durable.
        if self.segments.back().map(Segment::ordinal) != before || self.pending.records() == 0 {
            return Ok(());
        }
        // Where there is a thread for it the wait has an end.
        if matches!(self.config.fsync, Fsync::Interval(_)) && self.hand_over() {
            return self.await_sync();
        }
        let (Some(active), Some(segment)) = (self.active.as_mut(), self.segments.back_mut()) else {
            return Ok(());
        };
        let Err(error) = active.file.sync_data() else {
            active.durable_end = segment.end;
            self.pending.all_durable();
            self.counts.durable_seq = self.counts.appended_seq;
            return Ok(());
        };
        self.abandon_active(error)
    }

    /// Whether a sync was waited for in vain and has not ended since.
    pub(super) fn is_silent(&self) -> bool {
        self.underway.as_ref().is_some_and(|underway| underway.is_overdue)
    }

    /// What is said of a disk that does not answer.
    pub(super) fn silence(&self) -> SpoolError {
        let path = self.path_of(&self.segments.back().map(Segment::name).unwrap_or_default());
        SpoolError::Silent { path, records: self.pending.records() }
    }
}

fn is_due(deadline: Option<Instant>, now: Instant) -> bool {
    deadline.is_none_or(|deadline| now >= deadline)
}
