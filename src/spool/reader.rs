// SPDX-License-Identifier: MIT
//! The reading side: read, advance, rewind, and what is made of damage on the way.

use std::io;

use super::error::SpoolError;
use super::format::{HEADER, to_u64};
use super::queue::Spool;
use super::scan::{Scanner, Step};
use super::segment::Segment;
use super::storage::StorageFile;
use super::{Damage, DamageKind, Position, Stored};

/// How often a place may be unreadable before its blocks are given up. The caller's retries in
/// between are the pause that a passing fault needs.
const READ_ATTEMPTS: u32 = 3;

/// The open file and buffer of the segment that is being read.
#[derive(Debug, Default)]
pub(super) struct Reader {
    open: Option<Open>,
    /// Consecutive failures to read.
    failures: u32,
}

#[derive(Debug)]
struct Open {
    /// Which segment; the id changes when it is replaced.
    key: (u64, u64),
    file: Box<dyn StorageFile>,
    scanner: Scanner,
    /// Sequence number of the last good record before the reading place, in this segment.
    last_seq: Option<u64>,
}

impl Reader {
    /// Forgets the open file and buffer.
    pub(super) fn reset(&mut self) {
        self.open = None;
    }

    /// Notes the last record before the reading place, which was read otherwise.
    pub(super) fn passed(&mut self, key: (u64, u64), seq: u64) {
        if let Some(open) = self.open.as_mut().filter(|open| open.key == key) {
            open.last_seq = Some(seq);
        }
    }
}

impl Spool {
    /// Gives the next unread records to `each`: up to `max_records`, and up to `max_bytes` of
    /// payload, but at least one if there is one. Never one that is not readable yet; while the disk is in
    /// trouble, everything is. A payload is there for the time of the call alone, in the buffer that it was read into.
    ///
    /// # Errors
    /// The disk could not be read. Nothing is skipped for that; the next call tries again, and only
    /// where the disk fails repeatedly on the same place are its blocks given up as damaged.
    pub fn read(
        &mut self,
        max_records: usize,
        max_bytes: usize,
        each: &mut dyn FnMut(Stored<'_>),
    ) -> Result<(), SpoolError> {
        let (mut records, mut bytes) = (0usize, 0usize);
        while records < max_records && (records == 0 || bytes < max_bytes) {
            let used = (records > 0).then_some(bytes);
            let Some(len) = self.read_one(max_bytes, used, each)? else {
                break;
            };
            records += 1;
            self.counts.read += 1;
            bytes = bytes.saturating_add(len);
        }
        if records < max_records && (records == 0 || bytes < max_bytes) {
            let lent = self.lend(max_records - records, max_bytes.saturating_sub(bytes), each);
            self.counts.read += to_u64(lent);
        }
        Ok(())
    }

    /// Acknowledges every record up to and including the one at `through`. The files follow with a
    /// later [`commit`](Self::commit), when the cursor is durable. A position that was not read
    /// since the last rewind, or is older than the last one given here, changes nothing.
    pub fn advance(&mut self, through: Position) {
        let (mark, id) = self.whereabouts(&through);
        let is_lent =
            self.floor.is_some_and(|floor| floor.base.ordinal == mark.ordinal && floor.id == id);
        let is_there = || {
            let place = self.segments.binary_search_by_key(&mark.ordinal, Segment::ordinal);
            let segment = place.ok().and_then(|place| self.segments.get(place));
            segment.is_some_and(|segment| segment.identity.id == id)
        };
        // The end of a segment counts as read when reading has settled on the next one.
        let was_read = mark <= self.read || self.settle(mark) <= self.read;
        if mark <= self.acked || !was_read || !(is_lent || is_there()) {
            return;
        }
        self.acked_id = id;
        self.acked_seq = Some(through.seq);
        self.acked = mark;
        self.cursor_dirty = true;
        self.give_up_acked();
        self.retire();
    }

    /// Lets the next [`read`](Self::read) begin again behind the last acknowledged record.
    pub fn rewind(&mut self) {
        self.read = self.acked;
        self.moves.clear();
        self.retire();
        self.reader.reset();
    }

    /// Gives the next one, and returns the length of its payload. None when there is none, or it would be too much.
    fn read_one(
        &mut self,
        max_bytes: usize,
        used: Option<usize>,
        each: &mut dyn FnMut(Stored<'_>),
    ) -> Result<Option<usize>, SpoolError> {
        loop {
            self.read = self.settle(self.read);
            let Ok(place) =
                self.segments.binary_search_by_key(&self.read.ordinal, Segment::ordinal)
            else {
                return Ok(None);
            };
            let is_last = place + 1 == self.segments.len();
            let limit = self.readable_end(place);
            if self.read.offset >= limit {
                return Ok(None);
            }
            if !self.open_reader(place)? {
                continue;
            }
            let (Some(segment), Some(open)) = (self.segments.get(place), self.reader.open.as_mut())
            else {
                return Ok(None);
            };
            open.scanner.salvage = self.reader.failures >= READ_ATTEMPTS;
            let at = self.read.offset;
            let step = open.scanner.step(open.file.as_ref(), &segment.identity, at, limit);
            match step {
                Err(error) => {
                    let path = self.config.dir.join(segment.name());
                    self.reader.failures += 1;
                    return Err(SpoolError::io("read a segment", &path, error));
                }
                Ok(Step::Record { head, payload, end }) => {
                    let payload = open.scanner.bytes(payload);
                    if used.is_some_and(|used| used.saturating_add(payload.len()) > max_bytes) {
                        return Ok(None);
                    }
                    self.reader.failures = 0;
                    open.last_seq = Some(head.seq);
                    self.read.index += 1;
                    self.read.offset = end;
                    let position = segment.position(self.read, head.seq);
                    each(Stored { position, seq: head.seq, class: head.class, payload });
                    return Ok(Some(payload.len()));
                }
                Ok(Step::Damage { to }) => {
                    let next = open.scanner.step(open.file.as_ref(), &segment.identity, to, limit);
                    let next_seq = match next {
                        Ok(Step::Record { head, .. }) => Some(head.seq),
                        Ok(_) | Err(_) => None,
                    };
                    let last_seq = open.last_seq;
                    // In damage there is nothing to acknowledge.
                    if self.acked == self.read {
                        self.acked.offset = to;
                    }
                    self.read.offset = to;
                    self.report(place, at, to, last_seq, next_seq);
                }
                Ok(Step::Tail | Step::End) => {
                    let last_seq = open.last_seq;
                    let next_seq = segment.last_seq.saturating_add(1);
                    if is_last && self.active.is_some() {
                        // Nothing is appended behind damage; and what is not durable yet comes
                        // into sight by this.
                        self.seal_active()?;
                        continue;
                    }
                    self.report(place, at, limit, last_seq, Some(next_seq));
                    self.finish_damaged(place, at);
                }
            }
        }
    }

    /// Everything before it in the segment may be read.
    pub(super) fn readable_end(&self, place: usize) -> u64 {
        let is_last = place + 1 == self.segments.len();
        match (&self.active, self.segments.get(place)) {
            (Some(active), Some(_)) if is_last && self.syncs() => active.durable_end,
            (_, Some(segment)) => segment.end,
            (_, None) => 0,
        }
    }

    /// Opens the segment's file unless it is open. `false` if it turned out to be gone.
    fn open_reader(&mut self, place: usize) -> Result<bool, SpoolError> {
        let Some(segment) = self.segments.get(place) else { return Ok(false) };
        let key = (segment.ordinal(), segment.identity.id);
        if self.reader.open.as_ref().is_some_and(|open| open.key == key) {
            return Ok(true);
        }
        let path = self.path_of(&segment.name());
        let begins = self.begin_of(segment) == self.read && self.read.offset > HEADER;
        let last_seq = if begins { self.acked_seq } else { None };
        match self.storage.open(&path) {
            Ok(file) => {
                let scanner = Scanner::default();
                self.reader.open = Some(Open { key, file, scanner, last_seq });
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_active = self.active.is_some() && place + 1 == self.segments.len();
                let error = SpoolError::io("open a segment", &path, error);
                // The folder itself may be gone: healing looks at that, and at the active segment.
                if is_active || !self.lock.is_linked().unwrap_or(true) {
                    self.degrade(&error);
                    return Err(error);
                }
                self.forget_missing(place);
                Ok(false)
            }
            Err(error) => Err(SpoolError::io("open a segment", &path, error)),
        }
    }

    /// Reports damage from `at` to `to`, unless recovery or an earlier pass has.
    fn report(
        &mut self,
        place: usize,
        at: u64,
        to: u64,
        last_seq: Option<u64>,
        next_seq: Option<u64>,
    ) {
        let Some(segment) = self.segments.get_mut(place) else { return };
        segment.damaged = true;
        if at < segment.reported {
            return;
        }
        segment.reported = to;
        let records = self.recount(place, to);
        let Some(segment) = self.segments.get(place) else { return };
        let damage = Damage {
            kind: DamageKind::Corrupt,
            segment: segment.ordinal(),
            offset: at,
            bytes: to.saturating_sub(at),
            from_seq: Some(last_seq.map_or(segment.first_seq, |seq| seq.saturating_add(1))),
            to_seq: next_seq.map(|seq| seq.saturating_sub(1)),
            records,
        };
        self.damage.push(damage);
    }

    /// Counts what is whole in a segment from `at`, the reading place, on, and corrects what its
    /// footer said. Returns how many records are lost, `None` if the disk does not tell.
    fn recount(&mut self, place: usize, mut at: u64) -> Option<u64> {
        let limit = self.readable_end(place);
        let is_active = self.active.is_some() && place + 1 == self.segments.len();
        let open = self.reader.open.as_ref()?;
        let segment = self.segments.get_mut(place)?;
        let mut scanner = Scanner::default();
        scanner.salvage = open.scanner.salvage;
        let mut whole = self.read.index;
        loop {
            match scanner.step(open.file.as_ref(), &segment.identity, at, limit).ok()? {
                Step::Record { end, .. } => {
                    whole += 1;
                    at = end;
                }
                Step::Damage { to } => at = to,
                Step::Tail | Step::End => break,
            }
        }
        if is_active {
            whole += self.pending.records();
        }
        let lost = segment.records.saturating_sub(whole);
        segment.records = segment.records.min(whole);
        Some(lost)
    }

    /// Ends a segment at the last whole record before the damage at its end.
    fn finish_damaged(&mut self, place: usize, last_end: u64) {
        let index = self.read.index;
        if let Some(segment) = self.segments.get_mut(place) {
            segment.records = index;
            segment.end = last_end;
            segment.class_bytes = None;
        }
        self.retire();
    }

    /// Drops a segment whose file is gone, and reports its records.
    pub(super) fn forget_missing(&mut self, place: usize) {
        let Some(segment) = self.segments.remove(place) else { return };
        let begin = self.begin_of(&segment);
        let records = segment.records.saturating_sub(begin.index);
        if records > 0 {
            let first = if begin.index == 0 { Some(segment.first_seq) } else { None };
            let damage = Damage {
                kind: DamageKind::Missing,
                segment: segment.ordinal(),
                offset: begin.offset,
                bytes: segment.end.saturating_sub(begin.offset),
                from_seq: first.or(self.acked_seq.map(|seq| seq.saturating_add(1))),
                to_seq: Some(segment.last_seq),
                records: Some(records),
            };
            self.damage.push(damage);
        }
        self.reader.reset();
        self.retire();
    }
}
