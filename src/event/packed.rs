// SPDX-License-Identifier: MIT
//! Many records in one block of memory of just their size.
//!
//! A pooled record has room for a larger event. Where many events wait, that room would be most of the memory; a block for each
//! would be asked for and given back one by one, which costs more than the copy.

use std::sync::Arc;

use super::record::Record;

/// What a record's bytes lie in.
#[derive(Clone, Debug)]
pub(super) enum Bytes {
    /// A buffer of its own, initialized to its end.
    Own(Vec<u8>),
    /// A part of what several records share, of which none changes it any more.
    Part { shared: Arc<Vec<u8>>, start: u32, len: u32 },
}

impl Bytes {
    /// How many there are, used or not.
    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            Self::Part { len, .. } => index(*len),
        }
    }

    /// All of them.
    #[inline]
    pub(super) fn all(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Part { shared, start, len } => {
                let start = index(*start);
                shared.get(start..start + index(*len)).unwrap_or_default()
            }
        }
    }

    /// The same to write to: a part becomes a buffer of its own first.
    #[inline]
    pub(super) fn own(&mut self) -> &mut Vec<u8> {
        if let Self::Part { .. } = self {
            *self = Self::Own(self.all().to_vec());
        }
        match self {
            Self::Own(bytes) => bytes,
            Self::Part { .. } => unreachable!("it was made one's own"),
        }
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(0)
}

impl Record {
    /// Whether much of its memory is unused.
    pub fn is_roomy(&self) -> bool {
        self.size() + self.size() / 4 < self.capacity()
    }

    /// Copies these into one block of memory that is as large as what they use, and gives what they were to `release`. Returns the
    /// size of the block; none, and nothing is changed, when the system has no memory for it.
    pub fn pack(
        records: &mut [&mut Arc<Self>],
        mut release: impl FnMut(Arc<Self>),
    ) -> Option<usize> {
        let size: usize = records.iter().map(|record| record.size()).sum();
        u32::try_from(size).ok()?;
        let mut block = Vec::new();
        block.try_reserve_exact(size).ok()?;
        for record in records.iter() {
            block.extend_from_slice(record.bytes());
        }
        let block = Arc::new(block);
        let mut start = 0;
        for record in records {
            let len = u32::try_from(record.size()).ok()?;
            let bytes = Bytes::Part { shared: Arc::clone(&block), start, len };
            start += len;
            let packed = Arc::new(record.with_bytes(bytes));
            release(std::mem::replace(&mut **record, packed));
        }
        Some(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Class, EventKind};

    fn record(name: &[u8]) -> Arc<Record> {
        let mut record = Record::with_capacity(8192);
        record.begin(EventKind::new(3), Class::Critical, Some(b"a::b"));
        record.header(name, b"value");
        Arc::new(record)
    }

    #[test]
    fn packed_records_are_the_same_in_less_memory() {
        let before = [record(b"One"), record(b"Another")];
        let mut after = before.clone();
        let mut released = Vec::new();
        let [one, another] = &mut after;
        let size = Record::pack(&mut [one, another], |record| released.push(record));
        assert_eq!(size, Some(before.iter().map(|record| record.size()).sum()));
        for ((before, after), released) in before.iter().zip(&after).zip(&released) {
            assert!(Arc::ptr_eq(before, released), "it can be used again");
            assert_eq!((after.bytes(), after.capacity()), (before.bytes(), before.size()));
            assert_eq!((after.kind(), after.class()), (before.kind(), before.class()));
            assert_eq!((after.subclass(), after.header_count()), (before.subclass(), 1));
            assert!(!after.is_roomy());
        }
    }

    #[test]
    fn a_packed_record_that_is_written_to_has_a_buffer_of_its_own() {
        let mut records = [record(b"One"), record(b"Another")];
        let [one, another] = &mut records;
        Record::pack(&mut [one, another], drop).unwrap();
        let [one, another] = records;
        let kept = one.bytes().to_vec();
        let mut another = Arc::try_unwrap(another).unwrap();
        another.header(b"Third", b"x");
        assert_eq!(another.header_count(), 2);
        assert!(another.bytes().ends_with(b"Thirdx"));
        another.begin(EventKind::new(4), Class::Bulk, None);
        another.header(b"Anew", b"y");
        assert!(another.bytes().ends_with(b"Anewy"));
        assert_eq!(one.bytes(), kept, "its neighbour is as it was");
    }
}
