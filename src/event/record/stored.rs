// SPDX-License-Identifier: MIT
//! The form in which a record is kept on disk, by spools and dead letters, for the same module or another release of it.
//!
//! ```text
//! 2 class reuse names:u16  length:u8 name of the event  length:u8 Core-UUID  length:u32 subclass  subclass and entries
//! ```
//!
//! The entries are those of the record in memory, so the bits of an entry's head and the numbers of names are fixed by this. A record
//! of format 1 has no `names`, and every name written out.

use super::{Record, length};
use crate::event::kind::{Class, EventKind, EventNames};
use crate::event::known;

/// The first byte of a stored record, so that a later format can be told from this one. With it goes the format of segments, which is
/// what an older release goes by.
pub(crate) const STORED_VERSION: u8 = 2;
/// The same of a record that has every name written out, and does not say how many have numbers.
const STORED_WITHOUT_NUMBERS: u8 = 1;

/// Why stored bytes are not a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer module, or not by one at all.
    #[error("a stored record has the unknown format {0}")]
    Version(u8),
    /// Written by a newer module, which has numbers for more names.
    #[error(
        "a stored record counts on {0} names that have numbers, which is more than this release knows"
    )]
    Names(u16),
    /// Shorter than its own lengths say.
    #[error("a stored record ends early")]
    Truncated,
}

impl Record {
    /// Appends the stored form: everything needed to publish this event after a restart, by the
    /// same module or a later one, under the same or another FreeSWITCH.
    ///
    /// `boot` is the Core-UUID of the stream that the event belongs to, `reuse` what
    /// [`Stamp`](crate::codec::Stamp) says of its id.
    pub fn store(&self, names: &EventNames, boot: &str, reuse: u8, out: &mut Vec<u8>) {
        let name = match self.kind {
            EventKind::PUBLISH => "\u{1}publish",
            kind => names.name(kind).unwrap_or(""),
        };
        out.reserve(self.used + 2 * TEXT_MAX + 16);
        out.push(STORED_VERSION);
        out.push(self.class.number());
        out.push(reuse);
        out.extend_from_slice(&KNOWN_NAMES.to_le_bytes());
        for text in [name, boot] {
            // Names and Core-UUIDs are short; what is not would be cut, not misread.
            let text = text.as_bytes().get(..TEXT_MAX).unwrap_or(text.as_bytes());
            out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(text);
        }
        out.extend_from_slice(&length(self.subclass_len).to_le_bytes());
        out.extend_from_slice(self.bytes());
    }

    /// Reads the stored form into this record. Returns the stream's Core-UUID and the `reuse`.
    ///
    /// # Errors
    ///
    /// When the bytes are not what [`store`](Self::store) wrote; the record is then empty.
    pub fn restore<'b>(
        &mut self,
        names: &EventNames,
        stored: &'b [u8],
    ) -> Result<(&'b str, u8), DecodeError> {
        self.begin(EventKind::UNKNOWN, Class::Normal, None);
        let Head { class, reuse, name, rest } = Head::read(stored)?;
        let (boot, rest) = short_text(rest)?;
        let (subclass_len, bytes) = rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        let subclass_len = usize::try_from(u32::from_le_bytes(*subclass_len))
            .ok()
            .filter(|len| *len <= bytes.len())
            .ok_or(DecodeError::Truncated)?;
        self.kind = stored_kind(names, name);
        self.class = Class::from_number(class);
        self.put(bytes);
        self.subclass_len = subclass_len;
        Ok((boot, reuse))
    }

    /// The kind of a record by its stored form, without reading the rest.
    pub fn kind_of_stored(names: &EventNames, stored: &[u8]) -> EventKind {
        Head::read(stored).map_or(EventKind::UNKNOWN, |head| stored_kind(names, head.name))
    }
}

/// The longest text that a length of one byte can announce.
const TEXT_MAX: usize = 255;

/// Written with each record: whoever knows fewer must not guess what the others are.
#[expect(clippy::as_conversions, clippy::cast_possible_truncation, reason = "ten bits hold it")]
pub(crate) const KNOWN_NAMES: u16 = known::COUNT as u16;

/// A stored record as far as it has to be read to know its event.
struct Head<'b> {
    class: u8,
    reuse: u8,
    /// Of the event.
    name: &'b str,
    /// From the Core-UUID on.
    rest: &'b [u8],
}

impl<'b> Head<'b> {
    fn read(stored: &'b [u8]) -> Result<Self, DecodeError> {
        let (&[version, class, reuse], rest) =
            stored.split_first_chunk().ok_or(DecodeError::Truncated)?;
        let rest = match version {
            STORED_VERSION => {
                let (known, rest) = rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
                let known = u16::from_le_bytes(*known);
                if known > KNOWN_NAMES {
                    return Err(DecodeError::Names(known));
                }
                rest
            }
            STORED_WITHOUT_NUMBERS => rest,
            _ => return Err(DecodeError::Version(version)),
        };
        let (name, rest) = short_text(rest)?;
        Ok(Self { class, reuse, name, rest })
    }
}

fn stored_kind(names: &EventNames, name: &str) -> EventKind {
    match name {
        "\u{1}publish" => EventKind::PUBLISH,
        name => names.kind(name).unwrap_or(EventKind::UNKNOWN),
    }
}

fn short_text(bytes: &[u8]) -> Result<(&str, &[u8]), DecodeError> {
    let (&len, rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
    let (text, rest) = rest.split_at_checked(usize::from(len)).ok_or(DecodeError::Truncated)?;
    Ok((str::from_utf8(text).map_err(|_| DecodeError::Truncated)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Index, Value};

    #[test]
    fn a_stored_record_comes_back_whole() {
        let names = EventNames::new(["CUSTOM", "CHANNEL_CREATE"]);
        let mut record = Record::default();
        record.begin(EventKind::new(0), Class::Bulk, Some(b"sofia::register"));
        record.header(b"A", b"1");
        record.array(b"B", [b"x".as_slice(), b""].into_iter());
        record.body(b"text");
        let mut stored = Vec::new();
        record.store(&names, "boot-1", 3, &mut stored);

        let mut back = Record::default();
        assert_eq!(back.restore(&names, &stored), Ok(("boot-1", 3)));
        assert_eq!(back.kind(), record.kind());
        assert_eq!(back.class(), Class::Bulk);
        assert_eq!(back.subclass(), Some(b"sofia::register".as_slice()));
        assert_eq!(back.bytes(), record.bytes());
    }

    #[test]
    fn an_event_that_this_core_does_not_know_is_kept_as_unknown() {
        let mut record = Record::default();
        record.begin(EventKind::new(0), Class::Normal, None);
        let mut stored = Vec::new();
        record.store(&EventNames::new(["CERT_RELOAD"]), "b", 0, &mut stored);
        let mut back = Record::default();
        back.restore(&EventNames::new(["CUSTOM"]), &stored).unwrap();
        assert_eq!(back.kind(), EventKind::UNKNOWN);
    }

    #[test]
    fn a_record_of_the_format_without_numbers_is_read() {
        let names = EventNames::new(["CUSTOM", "CHANNEL_CREATE"]);
        let mut record = Record::default();
        record.begin(EventKind::new(1), Class::Critical, None);
        record.header(b"Unique-ID", b"7");
        let mut stored = vec![1, Class::Critical.number(), 2, 14];
        stored.extend_from_slice(b"CHANNEL_CREATE\x01b\0\0\0\0");
        stored.extend_from_slice(record.bytes());
        let mut back = Record::default();
        assert_eq!(back.restore(&names, &stored), Ok(("b", 2)));
        assert_eq!(back.last_value(b"Unique-ID"), Some(b"7".as_slice()));
        assert_eq!(Record::kind_of_stored(&names, &stored), EventKind::new(1));
    }

    #[test]
    fn a_record_of_a_release_with_more_names_is_refused_whole() {
        let names = EventNames::new(["CUSTOM"]);
        let mut record = Record::default();
        record.begin(EventKind::new(0), Class::Normal, None);
        let mut stored = Vec::new();
        record.store(&names, "b", 0, &mut stored);
        let more = KNOWN_NAMES + 1;
        stored[3..5].copy_from_slice(&more.to_le_bytes());
        let mut back = Record::default();
        assert_eq!(back.restore(&names, &stored), Err(DecodeError::Names(more)));
        assert_eq!(Record::kind_of_stored(&names, &stored), EventKind::UNKNOWN);
    }

    #[test]
    fn stored_bytes_cut_anywhere_are_an_error_and_never_a_panic() {
        let names = EventNames::new(["CUSTOM"]);
        let mut record = Record::default();
        record.begin(EventKind::new(0), Class::Normal, Some(b"a::b"));
        record.header(b"Name", b"value");
        let mut stored = Vec::new();
        record.store(&names, "boot", 0, &mut stored);
        let head = 5 + 1 + 6 + 1 + 4 + 4 + 4;
        for cut in 0..head {
            let mut back = Record::default();
            assert!(back.restore(&names, &stored[..cut]).is_err(), "cut at {cut}");
        }
    }

    /// What an earlier build wrote, byte by byte: a change of any of it is a new format.
    #[test]
    fn the_form_on_disk_is_what_it_has_always_been() {
        let mut stored = vec![2, 0, 3];
        stored.extend_from_slice(&466_u16.to_le_bytes());
        stored.extend_from_slice(b"\x06CUSTOM\x01b\x04\0\0\0a::b");
        // A usual name: its number, and three bytes of value.
        let head = 0x8000_0000_u32 + (3 << 10) + 186;
        stored.extend_from_slice(&head.to_le_bytes());
        stored.extend_from_slice(b"u-1");
        // One written out; one with two values; the body.
        stored.extend_from_slice(b"\x02\0\0\0\x01\0\0\0myv");
        stored.extend_from_slice(b"\x02\0\0\x01\x09\0\0\0ar\x01\0\0\0x\0\0\0\0");
        stored.extend_from_slice(b"\0\0\0\x02\x04\0\0\0text");
        let names = EventNames::new(["CUSTOM"]);
        let mut record = Record::default();
        assert_eq!(record.restore(&names, &stored), Ok(("b", 3)));
        assert_eq!((record.kind(), record.class()), (EventKind::new(0), Class::Critical));
        assert_eq!(record.subclass(), Some(b"a::b".as_slice()));
        assert_eq!(record.last_value(b"Unique-ID"), Some(b"u-1".as_slice()));
        assert_eq!(record.last_value(b"my"), Some(b"v".as_slice()));
        let mut index = Index::default();
        index.read(&record);
        assert_eq!(index.body(&record), Some(b"text".as_slice()));
        let many = index.headers(&record).find(|(name, _)| *name == b"ar");
        let Some((_, Value::Many(elements))) = many else { panic!("an array") };
        assert_eq!(elements.collect::<Vec<&[u8]>>(), [b"x".as_slice(), b""]);
        // And it is what this build writes.
        let mut again = Vec::new();
        record.store(&names, "b", 3, &mut again);
        assert_eq!(again, stored);
    }
}
