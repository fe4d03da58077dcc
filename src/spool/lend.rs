// SPDX-License-Identifier: MIT
//! Lending: what is not durable is read from memory while the disk is in trouble.
//!
//! As a rule a record is read when it is durable, which is a matter of milliseconds. On a disk that is broken, read-only or silent
//! it may take for ever, and a broker that is well would get nothing meanwhile. So what waits for such a disk is *lent* from
//! [`Pending`](super::batch::Pending), behind everything durable.
//!
//! A record that is lent has the place which it was written to. What is acknowledged of it is given up, and not written anew; no
//! cursor says so before the place is durable. When the records are written anew to another segment, those in flight have a new
//! place there, and positions handed out before are translated to it ([`Move`]).

use super::format::{HEADER, Mark, RECORD};
use super::queue::Spool;
use super::segment::Segment;
use super::{Position, Stored};

/// What a failed sync has left: files are void from `mark` on, and what they had is in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floor {
    pub(super) mark: Mark,
    /// Id of the segment that the mark is in.
    pub(super) id: u64,
    /// The place of the first pending record, had all gone well.
    pub(super) base: Mark,
    /// When that segment was made.
    pub(super) created_ms: u64,
}

/// Records in flight that have got another place: those behind `base`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move {
    base: Mark,
    id: u64,
    /// The segment that they are in now, from its beginning.
    to: u64,
    to_id: u64,
    /// The last of them.
    until: Mark,
}

impl Move {
    /// Whether not all of them are acknowledged.
    pub(super) fn is_in_flight(&self, acked: Mark) -> bool {
        self.until > acked
    }

    fn apply(&self, mark: Mark) -> Option<Mark> {
        (mark.ordinal == self.base.ordinal && mark > self.base).then(|| Mark {
            ordinal: self.to,
            index: mark.index.saturating_sub(self.base.index),
            offset: HEADER + mark.offset.saturating_sub(self.base.offset),
        })
    }
}

impl Spool {
    /// Where the first pending record is, and the id of the segment.
    fn pending_base(&self) -> Option<(Mark, u64)> {
        if let Some(floor) = &self.floor {
            return Some((floor.base, floor.id));
        }
        let (active, segment) = (self.active.as_ref()?, self.segments.back()?);
        let index = segment.records.saturating_sub(self.pending.records());
        let base = Mark { ordinal: segment.ordinal(), index, offset: active.durable_end };
        Some((base, segment.identity.id))
    }

    /// Bytes and records of what is pending that a power cut would take: all but what is acknowledged.
    pub(super) fn undurable(&self) -> (u64, u64) {
        let all = (super::format::to_u64(self.pending.bytes()), self.pending.records());
        match self.pending_base() {
            Some((base, _)) if base.ordinal == self.acked.ordinal => (
                all.0.saturating_sub(self.acked.offset.saturating_sub(base.offset)),
                all.1.saturating_sub(self.acked.index.saturating_sub(base.index)),
            ),
            _ => all,
        }
    }

    /// What is acknowledged and durable: the cursor may say no more, or a power cut would leave it pointing into nothing.
    pub(super) fn durably_acked(&self) -> Mark {
        let limit = match &self.floor {
            Some(floor) => Some(floor.mark),
            None => self.pending_base().map(|(base, _)| base).filter(|_| self.syncs()),
        };
        match limit {
            Some(limit) if limit.ordinal == self.acked.ordinal => self.acked.min(limit),
            _ => self.acked,
        }
    }

    /// Notes that files are void from `mark` on, in a segment of this id.
    pub(super) fn make_void(&mut self, mark: Mark, id: u64, created_ms: u64) {
        self.floor = Some(Floor { mark, id, base: mark, created_ms });
        self.give_up_acked();
    }

    /// What is acknowledged is not written anew.
    pub(super) fn give_up_acked(&mut self) {
        let acked = self.acked;
        if let Some(floor) = self.floor.as_mut()
            && acked.ordinal == floor.base.ordinal
            && acked > floor.base
        {
            let bytes = super::format::to_usize(acked.offset.saturating_sub(floor.base.offset));
            self.pending.durable(bytes, acked.index.saturating_sub(floor.base.index));
            floor.base = acked;
        }
    }

    /// Notes that what was pending is now in `segment`, from its beginning.
    pub(super) fn moved(&mut self, floor: &Floor, segment: &Segment) {
        let (to, to_id) = (segment.ordinal(), segment.identity.id);
        let mut step = Move { base: floor.base, id: floor.id, to, to_id, until: floor.base };
        for earlier in &mut self.moves {
            earlier.until = step.apply(earlier.until).unwrap_or(earlier.until);
        }
        if let Some(read) = step.apply(self.read) {
            self.read = read;
            step.until = read;
            self.moves.push(step);
        }
    }

    /// Where a position is now, and the id of the segment there.
    pub(super) fn whereabouts(&self, position: &Position) -> (Mark, u64) {
        let Position { segment: ordinal, index, offset, .. } = *position;
        let start = (Mark { ordinal, index, offset }, position.id);
        self.moves.iter().fold(start, |(mark, id), step| match step.apply(mark) {
            Some(moved) if id == step.id => (moved, step.to_id),
            _ => (mark, id),
        })
    }

    /// Reads on from memory what the disk in its trouble does not make durable, when all that is durable has been read. Returns how
    /// many those were.
    pub(super) fn lend(
        &mut self,
        max_records: usize,
        max_bytes: usize,
        each: &mut dyn FnMut(Stored<'_>),
    ) -> usize {
        if self.trouble.is_none() || self.pending.records() == 0 || !self.is_read_to_durable_end() {
            return 0;
        }
        let Some((base, id)) = self.pending_base() else { return 0 };
        let is_behind = self.read.ordinal == base.ordinal && self.read > base;
        let mut mark = if is_behind { self.read } else { base };
        let skip = super::format::to_usize(mark.index.saturating_sub(base.index));
        let mut bytes = 0usize;
        let mut last_seq = None;
        let mut records = 0;
        for entry in self.pending.entries().skip(skip).take(max_records) {
            bytes = bytes.saturating_add(entry.payload.len());
            if records > 0 && bytes > max_bytes {
                break;
            }
            records += 1;
            mark.index += 1;
            mark.offset += RECORD + super::format::to_u64(entry.payload.len());
            last_seq = Some(entry.seq);
            each(Stored {
                position: Position {
                    segment: mark.ordinal,
                    index: mark.index,
                    offset: mark.offset,
                    id,
                    seq: entry.seq,
                },
                seq: entry.seq,
                class: entry.class,
                payload: entry.payload,
            });
        }
        if let Some(seq) = last_seq {
            self.read = mark;
            self.reader.passed((mark.ordinal, id), seq);
        }
        records
    }

    fn is_read_to_durable_end(&mut self) -> bool {
        self.read = self.settle(self.read);
        match self.segments.binary_search_by_key(&self.read.ordinal, Segment::ordinal) {
            Ok(place) => {
                place + 1 == self.segments.len() && self.read.offset >= self.readable_end(place)
            }
            // There is none, or they are all before it.
            Err(place) => place == self.segments.len(),
        }
    }
}
