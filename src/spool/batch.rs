// SPDX-License-Identifier: MIT
//! Records on their way to disk: encoded once by whoever has them, written from there, and kept as
//! they are until they are durable. The spool copies no payload.

use std::collections::VecDeque;

use super::format::{self, FOOTER, Identity, RECORD, RecordHead, to_usize};
use super::segment::split_records;
use super::{Entry, MAX_UNDURABLE_BYTES};

/// Records for one [`Spool::append`](super::Spool::append), in order. Best taken from
/// [`Spool::batch`](super::Spool::batch), which uses the memory of earlier ones again.
#[derive(Debug, Default)]
pub struct Batch {
    /// The records as they will be written, their heads without what only a segment can say.
    bytes: Vec<u8>,
    records: usize,
}

impl Batch {
    /// Adds a record whose payload is what `write` appends.
    pub fn push(&mut self, seq: u64, class: u8, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        let begin = start + to_usize(RECORD);
        self.bytes.resize(begin, 0);
        write(&mut self.bytes);
        let len = self.bytes.len().saturating_sub(begin);
        if let Some(head) = self.bytes.get_mut(start..begin) {
            head.copy_from_slice(&format::open_head(len, seq, class.min(2)));
        }
        self.records += 1;
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes it takes on disk.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl<'e, T: AsRef<[Entry<'e>]> + ?Sized> From<&T> for Batch {
    fn from(entries: &T) -> Self {
        let mut batch = Self::default();
        for entry in entries.as_ref() {
            batch.push(entry.seq, entry.class, |out| out.extend_from_slice(entry.payload));
        }
        batch
    }
}

/// What has been appended and is not durable yet, oldest first, in the batches that it came in. Held
/// because after a failed fsync the file cannot be trusted to still have it.
#[derive(Debug, Default)]
pub(super) struct Pending {
    held: VecDeque<Held>,
    /// Memory of batches that are durable, for those to come.
    spare: Vec<Vec<u8>>,
    bytes: usize,
    records: u64,
}

/// A batch, of which `from..to` is written and not durable; what follows is not written yet.
#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Pending {
    /// Bytes that are written and not durable.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records that are written and not durable.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Those records, as they were encoded.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.aged().map(|(entry, _)| entry)
    }

    /// The same, and how many milliseconds after their segment was made they were appended.
    pub(super) fn aged(&self) -> impl Iterator<Item = (Entry<'_>, u32)> {
        let written = |held: &Held| held.from..held.to;
        self.held
            .iter()
            .flat_map(move |held| split_records(held.bytes.get(written(held)).unwrap_or_default()))
    }

    /// An empty batch.
    pub(super) fn batch(&mut self) -> Batch {
        Batch { bytes: self.spare.pop().unwrap_or_default(), records: 0 }
    }

    /// Takes in a batch that is to be written.
    pub(super) fn take_in(&mut self, batch: Batch) {
        self.held.push_back(Held { bytes: batch.bytes, from: 0, to: 0 });
    }

    /// The first record that is not written yet.
    pub(super) fn next(&self) -> Option<RecordHead> {
        self.held.back().and_then(|held| format::peek_head(held.bytes.get(held.to..)?))
    }

    /// Completes unwritten records as they will stand at `start` of a segment: as many as end at
    /// `limit` of it at the latest, the last being the one with which too much waits. Returns
    /// their bytes.
    pub(super) fn complete(
        &mut self,
        identity: &Identity,
        start: u64,
        limit: u64,
        age_ms: u32,
    ) -> &[u8] {
        let waiting = self.bytes;
        let Some(held) = self.held.back_mut() else { return &[] };
        let begin = held.to;
        let (mut at, mut offset) = (begin, start);
        while let Some(rest) = held.bytes.get_mut(at..) {
            let Some(next) = format::peek_head(rest) else { break };
            let size = RECORD + u64::from(next.len);
            let is_enough = at > begin && waiting + (at - begin) >= MAX_UNDURABLE_BYTES;
            let Some(record) = rest.get_mut(..to_usize(size)) else { break };
            if is_enough || offset + size + FOOTER > limit {
                break;
            }
            format::complete_record(record, identity, offset, age_ms);
            at += to_usize(size);
            offset += size;
        }
        held.bytes.get(begin..at).unwrap_or_default()
    }

    /// Notes that the next record has been written whole.
    pub(super) fn wrote(&mut self, head: &RecordHead) {
        let size = to_usize(RECORD + u64::from(head.len));
        if let Some(held) = self.held.back_mut() {
            held.to += size;
            self.bytes += size;
            self.records += 1;
        }
    }

    /// Gives up what has not been written of the last batch.
    pub(super) fn give_up_rest(&mut self) {
        if let Some(held) = self.held.back_mut() {
            held.bytes.truncate(held.to);
            if held.from == held.to {
                let done = self.held.pop_back();
                self.recycle(done);
            }
        }
    }

    /// Puts encoded records in front, which were durable and are not any more.
    pub(super) fn put_back(&mut self, bytes: Vec<u8>, records: u64) {
        let size = bytes.len();
        self.held.push_front(Held { bytes, from: 0, to: size });
        self.bytes += size;
        self.records += records;
    }

    /// Notes that the first so many bytes and records are durable.
    pub(super) fn durable(&mut self, bytes: usize, records: u64) {
        let mut rest = bytes.min(self.bytes);
        self.bytes -= rest;
        self.records = self.records.saturating_sub(records);
        while let Some(held) = self.held.front_mut() {
            let here = rest.min(held.to - held.from);
            held.from += here;
            rest -= here;
            // One that is still being written has more to come.
            if held.from < held.bytes.len() {
                break;
            }
            let done = self.held.pop_front();
            self.recycle(done);
        }
    }

    /// Notes that all of it is durable.
    pub(super) fn all_durable(&mut self) {
        self.durable(self.bytes, self.records);
    }

    /// Keeps the memory of a batch that is done with, within the bound of what may wait.
    fn recycle(&mut self, done: Option<Held>) {
        let spare: usize = self.spare.iter().map(Vec::capacity).sum();
        if let Some(Held { mut bytes, .. }) = done
            && spare + bytes.capacity() <= MAX_UNDURABLE_BYTES
        {
            bytes.clear();
            self.spare.push(bytes);
        }
    }
}

#[cfg(test)]
impl Pending {
    /// Bytes of memory that it holds.
    pub(super) fn footprint(&self) -> usize {
        let held = self.held.iter().map(|held| &held.bytes);
        held.chain(&self.spare).map(Vec::capacity).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::to_u64;
    use super::*;

    /// Writes what there is of a batch to a segment that has room for `limit` bytes.
    fn write(pending: &mut Pending, limit: u64) -> Vec<u8> {
        let written = pending.complete(&Identity::new(5, 6), 64, limit, 7).to_vec();
        for (entry, age) in split_records(&written) {
            let head = pending.next().unwrap();
            assert_eq!((head.seq, age), (entry.seq, 7));
            pending.wrote(&head);
        }
        written
    }

    #[test]
    fn records_are_completed_in_place_as_if_encoded_one_by_one() {
        let payloads = [vec![1_u8; 5], vec![], vec![9; 300]];
        let entries: Vec<Entry<'_>> =
            (1..).zip(&payloads).map(|(seq, payload)| Entry { seq, class: 1, payload }).collect();
        let mut pending = Pending::default();
        pending.take_in(Batch::from(&entries));
        let mut expected = Vec::new();
        for entry in &entries {
            let offset = 64 + to_u64(expected.len());
            format::encode_record(&mut expected, &Identity::new(5, 6), offset, entry, 7);
        }
        assert_eq!(write(&mut pending, 1 << 20), expected);
        assert_eq!((pending.bytes(), pending.records()), (expected.len(), 3));
        assert!(pending.next().is_none());
    }

    #[test]
    fn a_batch_is_cut_where_the_segment_ends_and_goes_on_in_the_next() {
        let entries = [1, 2, 3].map(|seq| Entry { seq, class: 0, payload: &[4; 68] });
        let mut pending = Pending::default();
        pending.take_in(Batch::from(&entries));
        assert_eq!(write(&mut pending, 64 + 250 + FOOTER).len(), 200, "two whole ones fit");
        // What is written of it may become durable meanwhile, and the rest is still there.
        pending.all_durable();
        assert_eq!((pending.bytes(), pending.records()), (0, 0));
        assert_eq!(pending.next().unwrap().seq, 3);
        assert_eq!(write(&mut pending, 1 << 20).len(), 100);
        let seqs: Vec<u64> = pending.entries().map(|entry| entry.seq).collect();
        assert_eq!(seqs, [3]);
    }

    #[test]
    fn what_is_durable_goes_from_the_front_and_its_memory_is_used_again() {
        let mut pending = Pending::default();
        for seq in 1..=3 {
            let mut batch = pending.batch();
            batch.push(seq, 1, |out| out.extend_from_slice(&[5; 68]));
            batch.push(seq + 10, 1, |out| out.extend_from_slice(&[5; 68]));
            pending.take_in(batch);
            write(&mut pending, 1 << 20);
        }
        let footprint = pending.footprint();
        pending.durable(300, 3);
        let seqs = |pending: &Pending| pending.entries().map(|entry| entry.seq).collect::<Vec<_>>();
        assert_eq!(seqs(&pending), [12, 3, 13]);
        assert_eq!(pending.footprint(), footprint);
        let mut batch = pending.batch();
        batch.push(4, 1, |out| out.extend_from_slice(&[5; 68]));
        pending.take_in(batch);
        assert_eq!(pending.footprint(), footprint);
        pending.give_up_rest();
        assert_eq!(seqs(&pending), [12, 3, 13], "what was not written is not there");
        assert_eq!(pending.footprint(), footprint);
        pending.all_durable();
        assert_eq!((seqs(&pending), pending.bytes(), pending.records()), (vec![], 0, 0));
    }
}
