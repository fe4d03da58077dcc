// SPDX-License-Identifier: MIT
//! What a publisher holds of one message.

use std::sync::Arc;

use crate::codec::{RecentIds, Stamp};
use crate::event::Record;
use crate::pipeline::gap::Gap;
use crate::spool::Position;

/// A message between the ring and its acknowledgement.
#[derive(Debug)]
pub(super) struct Item {
    /// Its number and id in the stream.
    pub(super) stamp: Stamp,
    /// Whether the id is looked up among recent ones: done where the event is read anyway.
    pub(super) is_stamped: bool,
    /// The event.
    pub(super) record: Arc<Record>,
    /// The Core-UUID of its stream, when that is not the present boot's.
    pub(super) boot: Option<Arc<str>>,
    /// How often the broker would not have it.
    pub(super) attempts: u32,
    /// Where it came from, and so where its end has to be told.
    pub(super) origin: Origin,
}

/// Where a message came from.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Origin {
    /// From the ring, where its room in memory is accounted.
    Memory,
    /// From the spool, which keeps it until this is acknowledged.
    Spool(Position),
    /// From the dead letters, where it stays until this is settled.
    Retry(u64),
    /// From us: the record of this gap. Outside of the account. When the record is lost it is made again.
    Gap(Box<Gap>),
    /// From us: the copy of a dead letter. Outside of the account, and not worth keeping.
    Own,
}

impl Item {
    /// Looks its id up, once: `sequence` is the event's `Event-Sequence`.
    pub(super) fn stamp_by(&mut self, recent: &mut RecentIds, sequence: Option<u64>) {
        if !self.is_stamped {
            self.is_stamped = true;
            self.stamp.reuse = sequence.map_or(0, |sequence| recent.note(sequence));
        }
    }

    /// Bytes of the record, as the ring accounts them.
    pub(super) fn size(&self) -> usize {
        self.record.size()
    }

    /// Whether it is in memory alone.
    pub(super) fn is_in_memory(&self) -> bool {
        self.origin == Origin::Memory
    }

    /// Whether its number says nothing of those before it: it is ours, or was told as missing long
    /// ago and comes from the dead letters.
    pub(super) fn is_beside_stream(&self) -> bool {
        matches!(self.origin, Origin::Own | Origin::Gap(_) | Origin::Retry(_))
    }

    /// Whether it is a message of the module's own.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.origin, Origin::Own | Origin::Gap(_))
    }
}
