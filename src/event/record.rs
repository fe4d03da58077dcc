// SPDX-License-Identifier: MIT
//! One event as one run of bytes.
//!
//! A dispatch thread fills a record in a single pass over the header list; that copy is all the
//! work it does for us. So the format is what is cheapest to append, not what is nicest to read:
//!
//! ```text
//! subclass bytes, then per header one of
//!     u32 KNOWN | value length << 10 | number of the name,  value
//!     u32 flags | name length,  u32 value length,  name,  value
//! and at the end, when there is one, the body as an entry with the BODY flag and no name
//! ```
//!
//! Names that are usual have numbers (`known`); one and the same name may stand in
//! both forms. An array's value is its elements, each behind its `u32` length. Integers are
//! little-endian. The buffer keeps its capacity from one use to the next, which is why the steady
//! state needs no allocation.
//!
//! What a spool stores is this, behind a short prefix. Numbers of names are the same in every release (`known`); the prefix
//! says how many the writer had, so that an older release tells what it cannot read.

use std::sync::atomic::{AtomicBool, Ordering};

use super::kind::{Class, EventKind};
use super::known;

mod stored;

pub use stored::DecodeError;
#[cfg(test)]
pub(crate) use stored::{KNOWN_NAMES, STORED_VERSION};

/// The longest header name kept; a longer one is cut. No name that FreeSWITCH makes comes near.
pub(super) const NAME_MAX: usize = 0x00ff_ffff;
pub(super) const FLAG_ARRAY: u32 = 1 << 24;
pub(super) const FLAG_BODY: u32 = 2 << 24;
pub(super) const FLAG_KNOWN: u32 = 0x80 << 24;
/// Bytes in front of a name.
pub(super) const ENTRY_HEAD: usize = 8;

/// The longest value of a header whose name is a number: what is left of 32 bits.
const KNOWN_VALUE_MAX: u32 = (1 << (24 - known::ID_BITS)) - 1;

/// One entry of a record, read.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawEntry {
    pub(super) flags: u32,
    /// The name's number; else it is at `name`.
    pub(super) id: Option<u16>,
    pub(super) name: usize,
    pub(super) name_len: usize,
    pub(super) value: usize,
    pub(super) value_len: usize,
}

impl RawEntry {
    /// The entry at `at`, and where the next one is. None at the end, and at what is no entry.
    #[inline]
    pub(super) fn read(bytes: &[u8], at: usize) -> Option<(Self, usize)> {
        let (head, rest) = bytes.get(at..)?.split_first_chunk()?;
        let head = u32::from_le_bytes(*head);
        let entry = if head & FLAG_KNOWN == 0 {
            let (value, _) = rest.split_first_chunk()?;
            let name_len = usize::try_from(head).ok()? & NAME_MAX;
            let name = at + ENTRY_HEAD;
            let value_len = usize::try_from(u32::from_le_bytes(*value)).ok()?;
            Self { flags: head, id: None, name, name_len, value: name + name_len, value_len }
        } else {
            let id = u16::try_from(head & ((1 << known::ID_BITS) - 1)).ok()?;
            let value_len = usize::try_from((head >> known::ID_BITS) & KNOWN_VALUE_MAX).ok()?;
            Self { flags: 0, id: Some(id), name: at, name_len: 0, value: at + 4, value_len }
        };
        let end = entry.value + entry.value_len;
        (end <= bytes.len()).then_some((entry, end))
    }
}

/// An event that was copied out of FreeSWITCH, or a message of the module's own.
///
/// Written by one thread, then only read: by every sink that wants it.
#[derive(Clone, Debug)]
pub struct Record {
    kind: EventKind,
    class: Class,
    subclass_len: usize,
    headers: usize,
    /// Initialized to its end, of which the first `used` bytes are the record: so appending is
    /// nothing but a copy, and whoever copies may write a little beyond what he counts.
    bytes: Vec<u8>,
    used: usize,
    /// Where there is no memory, something is left out instead of ending the process.
    may_be_cut: bool,
    /// Something was left out.
    cut: bool,
    /// Somebody waits to see what becomes of it.
    watched: bool,
    /// Which of the pool's shelves it goes back to.
    home: u8,
    lost: Lost,
}

/// Whether a record was given up by somebody who had it.
#[derive(Debug, Default)]
struct Lost(AtomicBool);

impl Clone for Lost {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Why an event could not be copied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Uncopied {
    /// It is larger than it may be.
    TooLarge,
    /// The system has no memory for it.
    NoMemory,
}

impl Default for Record {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl Record {
    /// An empty record whose buffer holds `capacity` bytes before it grows.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            kind: EventKind::UNKNOWN,
            class: Class::Normal,
            subclass_len: 0,
            headers: 0,
            bytes: vec![0; capacity],
            used: 0,
            may_be_cut: false,
            cut: false,
            watched: false,
            home: 0,
            lost: Lost::default(),
        }
    }

    /// The same, or none when there is no memory for it.
    pub fn try_with_capacity(capacity: usize) -> Option<Self> {
        let mut record = Self::default();
        (capacity == 0 || record.extend_to(capacity)).then_some(record)
    }

    /// Writes to every page of the buffer, so that the first event in it finds them there: a page
    /// fault is a visit to the kernel, which a dispatch thread must not make for us.
    pub fn touch(&mut self) {
        self.bytes.fill(1);
        self.used = 0;
    }

    /// Which of the pool's shelves the record goes back to: that of the thread that fills it.
    #[inline]
    pub fn set_home(&mut self, home: u8) {
        self.home = home;
    }

    /// What [`set_home`](Self::set_home) said last.
    pub fn home(&self) -> u8 {
        self.home
    }

    /// Empties the record and starts it anew. `subclass` is the name a CUSTOM event goes by.
    #[inline]
    pub fn begin(&mut self, kind: EventKind, class: Class, subclass: Option<&[u8]>) {
        self.start(kind, class, subclass, false);
    }

    /// The same for whoever must not end the process for want of memory: what there is none for is left out, and the record then
    /// [is cut](Self::is_cut).
    #[inline]
    pub fn begin_or_cut(&mut self, kind: EventKind, class: Class, subclass: Option<&[u8]>) {
        self.start(kind, class, subclass, true);
    }

    #[inline]
    fn start(&mut self, kind: EventKind, class: Class, subclass: Option<&[u8]>, may_be_cut: bool) {
        self.used = 0;
        self.may_be_cut = may_be_cut;
        self.cut = false;
        self.watched = false;
        self.lost = Lost::default();
        self.kind = kind;
        self.class = class;
        self.headers = 0;
        let subclass = subclass.unwrap_or_default();
        self.subclass_len = subclass.len();
        self.put(subclass);
    }

    /// Appends a header with one value.
    pub fn header(&mut self, name: &[u8], value: &[u8]) {
        self.entry(0, name, value);
        self.headers += 1;
    }

    /// Appends a header with several values (`switch_event_header_t::array`).
    pub fn array<'v>(&mut self, name: &[u8], values: impl Iterator<Item = &'v [u8]>) {
        let head = self.used;
        self.entry(FLAG_ARRAY, name, &[]);
        let start = self.used;
        for value in values {
            self.put(&length(value.len()).to_le_bytes());
            self.put(value);
        }
        // The value's length is known only now.
        let written = length(self.used - start).to_le_bytes();
        if let Some(field) = self.bytes.get_mut(head + 4..head + ENTRY_HEAD) {
            field.copy_from_slice(&written);
        }
        self.headers += 1;
    }

    /// Appends the body. Called once, after the headers.
    pub fn body(&mut self, body: &[u8]) {
        self.entry(FLAG_BODY, &[], body);
    }

    fn entry(&mut self, flags: u32, name: &[u8], value: &[u8]) {
        let name = name.get(..NAME_MAX).unwrap_or(name);
        self.put(&entry_head(flags, name.len(), value.len()));
        self.put(name);
        self.put(value);
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        if end > self.bytes.len() {
            self.grow(bytes.len());
        }
        match self.bytes.get_mut(self.used..end) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.used = end;
            }
            None => self.cut = true,
        }
    }

    /// Makes room for `more` bytes, and for some beyond: less, or none, where the system has no memory and the record was
    /// [begun](Self::begin_or_cut) for that.
    #[cold]
    pub fn grow(&mut self, more: usize) {
        let least = self.used + more;
        let wanted = least.max(self.bytes.len() * 2).max(64);
        if !self.may_be_cut {
            self.bytes.resize(wanted, 0);
        } else if !self.extend_to(wanted) {
            self.extend_to(least);
        }
    }

    /// An allocation that fails ends the process: here it is tried first.
    fn extend_to(&mut self, len: usize) -> bool {
        let more = len.saturating_sub(self.bytes.len());
        let has_room = self.bytes.try_reserve_exact(more).is_ok();
        if has_room {
            self.bytes.resize(len, 0);
        }
        has_room
    }

    /// Whether something was left out for want of memory. Such a record is no event.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// The unused rest of the buffer, for [`filled`](Self::filled).
    #[inline]
    pub fn room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.used..).unwrap_or_default()
    }

    /// Takes in headers that the caller has written to the start of [`room`](Self::room): each a
    /// head and what it announces, together `len` bytes.
    #[inline]
    pub fn filled(&mut self, len: usize, headers: usize) {
        self.used = (self.used + len).min(self.bytes.len());
        self.headers += headers;
    }

    /// Bytes of the head of a header whose name is written out.
    pub const HEAD: usize = ENTRY_HEAD;

    /// The head of a header with one value, before its name and its value. None for a name that
    /// is too long.
    #[inline]
    pub fn head(name: usize, value: usize) -> Option<[u8; 8]> {
        (name <= NAME_MAX).then(|| entry_head(0, name, value))
    }

    /// The head of a header whose name has a number, before its value. None for a value that is
    /// too long for it.
    #[inline]
    pub fn known_head(id: u16, value: usize) -> Option<[u8; 4]> {
        let value = u32::try_from(value).ok().filter(|len| *len <= KNOWN_VALUE_MAX)?;
        Some((FLAG_KNOWN | (value << known::ID_BITS) | u32::from(id)).to_le_bytes())
    }

    /// Has whoever gives it up [say so](Self::is_lost), and keep this record itself until then, not a copy.
    pub fn watch(&mut self) {
        self.watched = true;
    }

    /// Whether somebody waits to see what becomes of it.
    pub fn is_watched(&self) -> bool {
        self.watched
    }

    /// Notes that a sink gives it up undelivered. To be called before it is let go of.
    pub fn note_lost(&self) {
        if self.watched {
            self.lost.0.store(true, Ordering::Release);
        }
    }

    /// Whether a sink has given it up.
    pub fn is_lost(&self) -> bool {
        self.lost.0.load(Ordering::Acquire)
    }

    /// Which event this is.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// How much it matters.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The subclass of a CUSTOM event, as bytes: applications choose it freely.
    pub fn subclass(&self) -> Option<&[u8]> {
        self.bytes().get(..self.subclass_len).filter(|bytes| !bytes.is_empty())
    }

    /// How many headers it has, repeated ones included.
    pub fn header_count(&self) -> usize {
        self.headers
    }

    /// The last value of this name, without an [`Index`](super::Index): for one name of a record
    /// that nothing else is asked of. None for an array.
    pub fn last_value(&self, name: &[u8]) -> Option<&[u8]> {
        let bytes = self.bytes();
        let id = known::find(name, known::hash_of(name)).map(|known| known.id);
        let mut at = self.subclass_len;
        let mut last = None;
        while let Some((entry, next)) = RawEntry::read(bytes, at) {
            at = next;
            let is_it = match entry.id {
                Some(_) => entry.id == id,
                None => {
                    entry.flags & FLAG_BODY == 0
                        && entry.name_len == name.len()
                        && bytes.get(entry.name..entry.value) == Some(name)
                }
            };
            if is_it {
                last = Some(entry);
            }
        }
        let entry = last.filter(|entry| entry.flags & FLAG_ARRAY == 0)?;
        bytes.get(entry.value..entry.value + entry.value_len)
    }

    /// Bytes in use. What queues and memory bounds count.
    pub fn size(&self) -> usize {
        self.used
    }

    /// The same in no more memory than it needs, or none when that would not be much less, or there is none.
    pub fn packed(&self) -> Option<Self> {
        if self.used + self.used / 4 >= self.bytes.len() {
            return None;
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(self.used).ok()?;
        bytes.extend_from_slice(self.bytes());
        Some(Self { bytes, lost: Lost::default(), ..*self })
    }

    /// Bytes the buffer holds, used or not. What the pool counts.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// All bytes, subclass included: the offsets in an [`Index`](super::Index) count from here.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    /// Where the entries begin.
    pub(super) fn entries_at(&self) -> usize {
        self.subclass_len
    }
}

#[inline]
fn entry_head(flags: u32, name: usize, value: usize) -> [u8; ENTRY_HEAD] {
    // Both lengths in one go: two short appends cost more than the bytes they copy.
    (u64::from(length(name) | flags) | (u64::from(length(value)) << 32)).to_le_bytes()
}

/// A length as the format holds it. A C string cannot reach 4 GiB within any bound we accept.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_record_is_the_same_in_less_memory() {
        let mut record = Record::with_capacity(8192);
        record.begin(EventKind::new(3), Class::Critical, Some(b"a::b"));
        record.header(b"Name", b"value");
        let packed = record.packed().unwrap();
        assert_eq!((packed.bytes(), packed.capacity()), (record.bytes(), record.size()));
        assert_eq!((packed.kind(), packed.class()), (record.kind(), record.class()));
        assert_eq!((packed.subclass(), packed.header_count()), (record.subclass(), 1));
        assert!(packed.packed().is_none());
    }
}
