// SPDX-License-Identifier: MIT
//! Finding one's way in a [`Record`] without copying it.

use super::known;
use super::record::{FLAG_ARRAY, FLAG_BODY, RawEntry, Record};

/// Where the headers of one record are, with repeated names settled.
///
/// A header list may hold a name twice (`Hangup-Cause` in `CHANNEL_HANGUP_COMPLETE` does). A JSON
/// object may not, and what its readers see of one that does is the last: so the last wins here.
///
/// Belongs to a publisher thread and is filled anew for each event, keeping its memory.
#[derive(Debug, Default)]
pub struct Index {
    entries: Vec<Entry>,
    body: Option<Span>,
    /// Added to the numbers of entries that the two tables hold. What is not above it is of an
    /// earlier record, so that nothing has to be cleared for each.
    base: u32,
    /// The newest entry of each name that has a number, counted from one.
    known: Vec<u32>,
    /// The same for other names, beside another part of the hash: open addressing from a name's
    /// hash.
    table: Vec<(u32, u32)>,
    /// How many are in `table`.
    others: usize,
    /// Asked for several times for each message.
    sequence: Option<u64>,
    timestamp_us: Option<u64>,
}

const SEQUENCE: u16 = known::number_of(b"Event-Sequence");
const TIMESTAMP: u16 = known::number_of(b"Event-Date-Timestamp");

/// A header's value that is a number.
pub(crate) fn number(value: &[u8]) -> Option<u64> {
    let (first, rest) = value.split_first()?;
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    rest.iter()
        .try_fold(digit(first)?, |number, byte| number.checked_mul(10)?.checked_add(digit(byte)?))
}

/// Numbers above this begin anew: the entries of one more record of any size fit behind it.
const BASE_MAX: u32 = u32::MAX / 2;

/// A table that is larger than a record needs by this factor is made anew: one with thousands of
/// names would else have all that come later look in memory that no cache holds.
const TABLE_EXCESS: usize = 32;

/// A part of a record's bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl MemberName {
    fn text(self, bytes: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Known(id) => known::get(id).map(|known| known.name()),
            Self::At(span) => slice(bytes, span),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name: MemberName,
    value: Span,
    array: bool,
    /// A later header has the same name.
    shadowed: bool,
}

impl Entry {
    #[inline]
    fn read_value<'r>(&self, bytes: &'r [u8]) -> Option<Value<'r>> {
        let value = slice(bytes, self.value)?;
        Some(if self.array { Value::Many(Elements(value)) } else { Value::One(value) })
    }
}

/// A header as a writer needs it that goes through the record's bytes itself.
#[derive(Clone, Debug)]
pub(crate) struct Member<'r> {
    pub(crate) name: MemberName,
    pub(crate) value: MemberValue<'r>,
}

/// What a [`Member`] is called.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MemberName {
    /// A usual name, by its number.
    Known(u16),
    /// Where it is written out.
    At(Span),
}

/// What a [`Member`] holds.
#[derive(Clone, Debug)]
pub(crate) enum MemberValue<'r> {
    /// Where its one string is.
    At(Span),
    /// Several, in order.
    Many(Elements<'r>),
}

/// A header's value.
#[derive(Clone, Debug)]
pub enum Value<'r> {
    /// One string of bytes; rarely, but legally, not UTF-8.
    One(&'r [u8]),
    /// Several, in order.
    Many(Elements<'r>),
}

/// The elements of an array header.
#[derive(Clone, Debug)]
pub struct Elements<'r>(&'r [u8]);

impl<'r> Iterator for Elements<'r> {
    type Item = &'r [u8];

    fn next(&mut self) -> Option<&'r [u8]> {
        let (len, rest) = self.0.split_first_chunk()?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        let (element, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some(element)
    }
}

impl Index {
    /// Reads where everything in `record` is.
    pub fn read(&mut self, record: &Record) {
        self.forget();
        // Room for the case that all names are others. A record from disk carries no count.
        let slots = (record.header_count() * 2).next_power_of_two().max(16);
        if self.table.len() < slots || self.table.len() > slots * TABLE_EXCESS {
            self.table.clear();
            self.table.resize(slots, (0, 0));
        }
        let bytes = record.bytes();
        let mut at = record.entries_at();
        // What is not an entry is damage; what was whole before it stands.
        while let Some((entry, next)) = RawEntry::read(bytes, at) {
            at = next;
            let value = Span { start: entry.value, len: entry.value_len };
            let array = entry.flags & FLAG_ARRAY != 0;
            if let Some(id) = entry.id {
                if !self.settle_known(id, value, array) {
                    break;
                }
            } else if entry.flags & FLAG_BODY != 0 {
                self.body = Some(value);
            } else {
                let name = Span { start: entry.name, len: entry.name_len };
                let Some(text) = slice(bytes, name) else { break };
                let hash = known::hash_of(text);
                match known::find(text, hash) {
                    Some(known) => {
                        self.settle_known(known.id, value, array);
                    }
                    None => self.settle_other(bytes, name, hash, value, array),
                }
            }
        }
        if self.body.is_some() {
            // The core appends these two for an event with a body, whatever the headers say.
            for name in [b"Content-Length".as_slice(), b"_body"] {
                if let Some(entry) = self.find(bytes, name)
                    && let Some(entry) = self.entries.get_mut(entry)
                {
                    entry.shadowed = true;
                }
            }
        }
        self.sequence = self.number(bytes, SEQUENCE);
        self.timestamp_us = self.number(bytes, TIMESTAMP);
    }

    fn number(&self, bytes: &[u8], id: u16) -> Option<u64> {
        let entry = self.entry_number(*self.known.get(usize::from(id))?)?;
        let entry = self.entries.get(entry).filter(|entry| !entry.array)?;
        number(slice(bytes, entry.value)?)
    }

    /// `Event-Sequence`, when the record has it and it is a number.
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// `Event-Date-Timestamp`, likewise.
    pub fn timestamp_us(&self) -> Option<u64> {
        self.timestamp_us
    }

    /// Lets go of the record before.
    fn forget(&mut self) {
        let told =
            u32::try_from(self.entries.len()).ok().and_then(|told| self.base.checked_add(told));
        self.entries.clear();
        self.body = None;
        self.others = 0;
        match told.filter(|base| *base <= BASE_MAX) {
            Some(base) => self.base = base,
            None => self.clear_tables(),
        }
        if self.known.len() < known::COUNT {
            self.known.resize(known::COUNT, 0);
        }
    }

    /// So that numbers can begin anew.
    #[cold]
    fn clear_tables(&mut self) {
        self.base = 0;
        self.known.fill(0);
        self.table.clear();
    }

    /// What stands for the entry that was added last.
    #[inline]
    fn newest(&self) -> u32 {
        // No record has so many entries: none is as large.
        self.base + u32::try_from(self.entries.len()).unwrap_or(0)
    }

    /// Which entry of this record this stands for, if it does.
    #[inline]
    fn entry_number(&self, place: u32) -> Option<usize> {
        usize::try_from(place.checked_sub(self.base)?).ok()?.checked_sub(1)
    }

    /// Adds an entry under the known name of this number, in the place of an older one. False when
    /// no name has it.
    #[inline]
    fn settle_known(&mut self, id: u16, value: Span, array: bool) -> bool {
        let Some(newest) = self.known.get(usize::from(id)) else { return false };
        if let Some(older) = self.entry_number(*newest)
            && let Some(older) = self.entries.get_mut(older)
        {
            older.shadowed = true;
        }
        self.entries.push(Entry { name: MemberName::Known(id), value, array, shadowed: false });
        let place = self.newest();
        if let Some(newest) = self.known.get_mut(usize::from(id)) {
            *newest = place;
        }
        true
    }

    /// The same under any other name.
    fn settle_other(&mut self, bytes: &[u8], name: Span, hash: u64, value: Span, array: bool) {
        if self.table.len() < (self.others + 1) * 2 {
            self.grow(bytes);
        }
        self.others += 1;
        self.entries.push(Entry { name: MemberName::At(name), value, array, shadowed: false });
        let newest = self.newest();
        let text = slice(bytes, name);
        let mask = self.table.len() - 1;
        let (mut slot, tag) = slot_of(hash, mask);
        while let Some(&(found, place)) = self.table.get(slot) {
            let older = self.entry_number(place);
            if let Some(older) = older {
                let is_same = found == tag
                    && self.entries.get(older).is_some_and(|entry| entry.name.text(bytes) == text);
                if !is_same {
                    slot = (slot + 1) & mask;
                    continue;
                }
                if let Some(entry) = self.entries.get_mut(older) {
                    entry.shadowed = true;
                }
            }
            if let Some(free) = self.table.get_mut(slot) {
                *free = (tag, newest);
            }
            return;
        }
    }

    #[cold]
    fn grow(&mut self, bytes: &[u8]) {
        let slots = (self.table.len() * 4).max(32);
        self.table.clear();
        self.table.resize(slots, (0, 0));
        let mask = slots - 1;
        for (position, entry) in self.entries.iter().enumerate().filter(|(_, e)| !e.shadowed) {
            let MemberName::At(name) = entry.name else { continue };
            let Some(text) = slice(bytes, name) else { continue };
            let (mut slot, tag) = slot_of(known::hash_of(text), mask);
            while let Some((found, place)) = self.table.get_mut(slot) {
                if *place == 0 {
                    (*found, *place) = (tag, self.base + u32::try_from(position + 1).unwrap_or(0));
                    break;
                }
                slot = (slot + 1) & mask;
            }
        }
    }

    fn find(&self, bytes: &[u8], name: &[u8]) -> Option<usize> {
        let hash = known::hash_of(name);
        if let Some(known) = known::find(name, hash) {
            return self.entry_number(*self.known.get(usize::from(known.id))?);
        }
        let mask = self.table.len().checked_sub(1)?;
        let (mut slot, tag) = slot_of(hash, mask);
        for _ in 0..self.table.len() {
            let (found, place) = *self.table.get(slot)?;
            let entry = self.entry_number(place)?;
            if found == tag && self.entries.get(entry)?.name.text(bytes) == Some(name) {
                return Some(entry);
            }
            slot = (slot + 1) & mask;
        }
        None
    }

    /// The value that `name` ends up with, in the record this index was read from.
    pub fn get<'r>(&self, record: &'r Record, name: &[u8]) -> Option<&'r [u8]> {
        let bytes = record.bytes();
        let entry = self.entries.get(self.find(bytes, name)?)?;
        if entry.array { None } else { slice(bytes, entry.value) }
    }

    /// Every header, names once, in the order of the event.
    pub fn headers<'i, 'r: 'i>(
        &'i self,
        record: &'r Record,
    ) -> impl Iterator<Item = (&'r [u8], Value<'r>)> + 'i {
        let bytes = record.bytes();
        self.last_entries()
            .filter_map(move |entry| Some((entry.name.text(bytes)?, entry.read_value(bytes)?)))
    }

    /// The same, as places in the record's bytes.
    pub(crate) fn members<'i, 'r: 'i>(
        &'i self,
        record: &'r Record,
    ) -> impl Iterator<Item = Member<'r>> + 'i {
        let bytes = record.bytes();
        self.last_entries().filter_map(move |entry| {
            let value = if entry.array {
                MemberValue::Many(Elements(slice(bytes, entry.value)?))
            } else {
                MemberValue::At(entry.value)
            };
            Some(Member { name: entry.name, value })
        })
    }

    /// Of each name the entry that counts.
    fn last_entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !entry.shadowed)
    }

    /// The body, when the event has one.
    pub fn body<'r>(&self, record: &'r Record) -> Option<&'r [u8]> {
        slice(record.bytes(), self.body?)
    }
}

fn slice(bytes: &[u8], span: Span) -> Option<&[u8]> {
    bytes.get(span.start..span.start + span.len)
}

/// Where a search begins, and the part of the hash that is kept there.
fn slot_of(hash: u64, mask: usize) -> (usize, u32) {
    let tag = u32::try_from(hash & u64::from(u32::MAX)).unwrap_or(0);
    (usize::try_from(hash >> 32).unwrap_or(0) & mask, tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Class, EventKind};

    fn record(headers: &[(&str, &str)]) -> Record {
        let mut record = Record::default();
        record.begin(EventKind::new(1), Class::Normal, None);
        for (name, value) in headers {
            record.header(name.as_bytes(), value.as_bytes());
        }
        record
    }

    fn names(index: &Index, record: &Record) -> Vec<String> {
        index.headers(record).map(|(name, _)| String::from_utf8_lossy(name).into()).collect()
    }

    #[test]
    fn a_repeated_name_is_told_once_with_its_last_value() {
        let record = record(&[("A", "1"), ("B", "2"), ("A", "3"), ("A", "4")]);
        let mut index = Index::default();
        index.read(&record);
        assert_eq!(names(&index, &record), ["B", "A"]);
        assert_eq!(index.get(&record, b"A"), Some(b"4".as_slice()));
        assert_eq!(index.get(&record, b"C"), None);
        assert_eq!(record.last_value(b"A"), Some(b"4".as_slice()));
    }

    #[test]
    fn a_name_is_one_name_whether_it_stands_as_a_number_or_written_out() {
        let mut record = record(&[("Hangup-Cause", "NONE"), ("Caller-ANI", "1001")]);
        let known = known::find(b"Hangup-Cause", known::hash_of(b"Hangup-Cause")).unwrap();
        let head = Record::known_head(known.id, 4).unwrap();
        record.grow(64);
        record.room()[..8].copy_from_slice(&[&head[..], b"BUSY"].concat());
        record.filled(8, 1);
        let mut index = Index::default();
        index.read(&record);
        assert_eq!(names(&index, &record), ["Caller-ANI", "Hangup-Cause"]);
        assert_eq!(index.get(&record, b"Hangup-Cause"), Some(b"BUSY".as_slice()));
        for name in [b"Hangup-Cause".as_slice(), b"Caller-ANI", b"Unique-ID"] {
            assert_eq!(record.last_value(name), index.get(&record, name));
        }

        // On disk it is as it is in memory.
        let event_names = crate::event::EventNames::new(["ALL", "X"]);
        let mut stored = Vec::new();
        record.store(&event_names, "b", 0, &mut stored);
        assert_eq!(memchr::memmem::find_iter(&stored, b"Hangup-Cause").count(), 1);
        let mut back = Record::default();
        back.restore(&event_names, &stored).unwrap();
        index.read(&back);
        assert_eq!(names(&index, &back), ["Caller-ANI", "Hangup-Cause"]);
        assert_eq!(index.get(&back, b"Hangup-Cause"), Some(b"BUSY".as_slice()));
    }

    #[test]
    fn what_an_earlier_record_left_in_the_tables_is_not_seen_also_when_numbers_begin_anew() {
        let wide: Vec<(String, String)> =
            (0..100).map(|n| (format!("name-{n}"), format!("{n}"))).collect();
        let wide: Vec<(&str, &str)> = wide.iter().map(|(n, v)| (&**n, &**v)).collect();
        let first = record(&[&wide[..], &[("Unique-ID", "first"), ("A", "1")]].concat());
        let second = record(&[("B", "1"), ("name-7", "again"), ("B", "2")]);
        let mut index = Index::default();
        let mut begun_anew = 0;
        for base in [0, 1, BASE_MAX - 101, BASE_MAX - 1, BASE_MAX, u32::MAX - 102] {
            index.base = base;
            index.clear_tables();
            index.base = base;
            for _ in 0..3 {
                let before = index.base;
                index.read(&first);
                begun_anew += u32::from(index.base < before);
                assert_eq!(names(&index, &first).len(), 102);
                assert_eq!(index.get(&first, b"name-7"), Some(b"7".as_slice()));
                index.read(&second);
                assert_eq!(names(&index, &second), ["name-7", "B"]);
                assert_eq!(index.get(&second, b"B"), Some(b"2".as_slice()));
                assert_eq!(index.get(&second, b"name-8"), None);
                assert_eq!(index.get(&second, b"Unique-ID"), None);
            }
        }
        assert!(begun_anew >= 3, "{begun_anew}");
        // A place of before that a later record's numbers reach.
        index.base = BASE_MAX;
        index.read(&first);
        let stale = index.base + 101;
        index.base = BASE_MAX;
        index.read(&second);
        index.base = stale - 1;
        index.entries.clear();
        index.read(&second);
        assert_eq!(index.get(&second, b"Unique-ID"), None);
    }

    #[test]
    fn a_table_that_one_record_made_large_is_made_anew_for_the_next() {
        let wide: Vec<(String, String)> =
            (0..5_000).map(|n| (format!("name-{n}"), format!("{n}"))).collect();
        let wide: Vec<(&str, &str)> = wide.iter().map(|(n, v)| (&**n, &**v)).collect();
        let mut index = Index::default();
        index.read(&record(&wide));
        let large = index.table.len();
        let small = record(&[("name-7", "again")]);
        index.read(&small);
        assert!(index.table.len() * 32 <= large, "{} {large}", index.table.len());
        assert_eq!(index.get(&small, b"name-7"), Some(b"again".as_slice()));
        assert_eq!(index.get(&small, b"name-8"), None);
    }

    #[test]
    fn numbers_are_digits_that_fit() {
        assert_eq!(number(b"0"), Some(0));
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for value in [&b""[..], b"18446744073709551616", b"-1", b"1 ", b"0x10", b"1.5"] {
            assert_eq!(number(value), None);
        }
        let mut index = Index::default();
        let found = record(&[("Event-Sequence", "1"), ("Event-Sequence", "23")]);
        index.read(&found);
        assert_eq!((index.sequence(), index.timestamp_us()), (Some(23), None));
        let mut array = record(&[("Event-Date-Timestamp", "7")]);
        index.read(&array);
        assert_eq!((index.sequence(), index.timestamp_us()), (None, Some(7)));
        array.array(b"Event-Date-Timestamp", [b"8".as_slice()].into_iter());
        index.read(&array);
        assert_eq!(index.timestamp_us(), None);
    }

    #[test]
    fn a_body_takes_the_place_of_headers_of_its_names() {
        let mut record = record(&[("Content-Length", "9"), ("_body", "x"), ("A", "1")]);
        record.body(b"text");
        let mut index = Index::default();
        index.read(&record);
        assert_eq!(names(&index, &record), ["A"]);
        assert_eq!(index.body(&record), Some(b"text".as_slice()));
    }

    #[test]
    fn thousands_of_headers_in_a_restored_record_are_all_found() {
        let wide: Vec<(String, String)> =
            (0..5000).map(|n| (format!("name-{n}"), format!("value-{n}"))).collect();
        let wide: Vec<(&str, &str)> = wide.iter().map(|(n, v)| (&**n, &**v)).collect();
        let record = record(&wide);
        let event_names = crate::event::EventNames::new(["ALL", "X"]);
        let mut stored = Vec::new();
        record.store(&event_names, "b", 0, &mut stored);
        let mut back = Record::default();
        back.restore(&event_names, &stored).unwrap();
        let mut index = Index::default();
        index.read(&back);
        assert_eq!(names(&index, &back).len(), 5000);
        for (name, value) in wide {
            assert_eq!(index.get(&back, name.as_bytes()), Some(value.as_bytes()));
        }
    }
}
