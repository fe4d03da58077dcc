// SPDX-License-Identifier: MIT
//! The fields of AMQP 0-9-1: short and long strings, tables (specification §4.2.5).
//!
//! Written here rather than by the codec where nothing may be allocated per message, and read here
//! where a peer chooses the content: nested tables are skipped by their length, so no nesting is
//! deep enough to exhaust a stack, and bytes that are not UTF-8 are repaired rather than refused.

/// The longest short string.
const SHORT_MAX: usize = 255;

/// Appends a short string, cut and repaired to be valid.
pub(super) fn short(text: &[u8], out: &mut Vec<u8>) {
    let at = open_short(out);
    out.extend_from_slice(text);
    close_short(out, at);
}

/// Begins a short string; whatever is appended until [`close_short`] is its text.
pub(super) fn open_short(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len() - 1
}

/// Ends the short string that began at `at`. A text that is too long is cut between characters
/// and not inside a `%XX`; bytes that are not UTF-8 become U+FFFD, since consumers decode them.
pub(super) fn close_short(out: &mut Vec<u8>, at: usize) {
    let text = out.get(at + 1..).unwrap_or_default();
    let valid = str::from_utf8(text);
    if valid.is_err() || text.len() > SHORT_MAX {
        let repaired = String::from_utf8_lossy(text).into_owned();
        let cut = cut_at(&repaired, SHORT_MAX);
        out.truncate(at + 1);
        out.extend_from_slice(repaired.as_bytes().get(..cut).unwrap_or_default());
    }
    let len = out.len() - at - 1;
    if let Some(field) = out.get_mut(at) {
        *field = u8::try_from(len).unwrap_or(u8::MAX);
    }
}

/// Where to cut `text` so that at most `limit` bytes remain and nothing is torn.
fn cut_at(text: &str, limit: usize) -> usize {
    if text.len() <= limit {
        return text.len();
    }
    let mut cut = limit;
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    let kept = text.as_bytes().get(..cut).unwrap_or_default();
    match kept.iter().rev().take(2).position(|byte| *byte == b'%') {
        Some(torn) => cut - torn - 1,
        None => cut,
    }
}

/// Appends a long string.
pub(super) fn long(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(text);
}

/// Appends a table's entry with a text.
pub(super) fn text_entry(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    short(name, out);
    out.push(b'S');
    long(value, out);
}

/// Appends a table's entry with a number. Signed in the protocol as brokers speak it (`l`).
pub(super) fn number_entry(name: &[u8], value: u64, out: &mut Vec<u8>) {
    short(name, out);
    out.push(b'l');
    out.extend_from_slice(&i64::try_from(value).unwrap_or(i64::MAX).to_be_bytes());
}

/// Writes a length into the four bytes kept free for it at `at`.
pub(super) fn patch_u32(out: &mut [u8], at: usize, value: usize) {
    if let Some(field) = out.get_mut(at..at + 4) {
        field.copy_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes());
    }
}

/// Takes fields off the front of a peer's bytes. `None` where they end early.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'b>(pub(super) &'b [u8]);

impl<'b> Reader<'b> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn bytes(&mut self, len: usize) -> Option<&'b [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    /// A short string.
    pub(super) fn short(&mut self) -> Option<&'b [u8]> {
        let len = self.u8()?;
        self.bytes(usize::from(len))
    }

    /// A short string as text for people.
    pub(super) fn words(&mut self) -> Option<String> {
        self.short().map(|text| String::from_utf8_lossy(text).into_owned())
    }

    /// A long string, a table, an array: whatever has its length in front.
    pub(super) fn long(&mut self) -> Option<&'b [u8]> {
        let len = self.u32()?;
        self.bytes(usize::try_from(len).ok()?)
    }

    fn value(&mut self) -> Option<Value<'b>> {
        let skipped = match self.u8()? {
            b't' => return self.u8().map(|byte| Value::Bool(byte != 0)),
            b'S' => return self.long().map(Value::Text),
            b'F' => return self.long().map(Value::Table),
            b'A' | b'x' => return self.long().map(|_| Value::Other),
            b'V' => 0,
            b'b' | b'B' => 1,
            b's' | b'u' | b'U' => 2,
            b'i' | b'I' | b'f' => 4,
            b'D' => 5,
            b'l' | b'L' | b'd' | b'T' => 8,
            _ => return None,
        };
        self.bytes(skipped).map(|_| Value::Other)
    }
}

/// A value in a table, as far as anyone asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Value<'b> {
    /// A truth value.
    Bool(bool),
    /// A long string.
    Text(&'b [u8]),
    /// The bytes of a table within.
    Table(&'b [u8]),
    /// Anything else.
    Other,
}

/// The value of `name` in a table's bytes.
pub(super) fn lookup<'b>(table: &'b [u8], name: &str) -> Option<Value<'b>> {
    let mut entries = Reader(table);
    loop {
        let found = entries.short()? == name.as_bytes();
        let value = entries.value()?;
        if found {
            return Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use amq_protocol::types::generation::gen_field_table;
    use amq_protocol::types::{AMQPValue, FieldTable};
    use proptest::prelude::*;

    use super::*;

    fn shortened(text: &[u8]) -> Vec<u8> {
        let mut out = vec![7];
        short(text, &mut out);
        assert_eq!(usize::from(out[1]), out.len() - 2);
        out.split_off(2)
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_not_inside_an_escape() {
        assert_eq!(shortened(&[b'a'; 300]).len(), 255);
        assert_eq!(shortened("é".repeat(200).as_bytes()).len(), 254);
        let torn = [&[b'a'; 254][..], b"%2E%2E"].concat();
        assert_eq!(shortened(&torn), [b'a'; 254]);
        let torn = [&[b'a'; 253][..], b"%2E%2E"].concat();
        assert_eq!(shortened(&torn), [b'a'; 253]);
        let whole = [&[b'a'; 252][..], b"%2E%2E"].concat();
        assert_eq!(shortened(&whole), whole[..255]);
    }

    #[test]
    fn a_value_is_found_beside_values_of_every_other_kind() {
        let mut inner = FieldTable::default();
        inner.insert("basic.nack".into(), AMQPValue::Boolean(true));
        let mut table = FieldTable::default();
        table.insert("a".into(), AMQPValue::LongLongInt(1));
        table.insert("b".into(), AMQPValue::FieldArray(vec![AMQPValue::Void].into()));
        table.insert("c".into(), AMQPValue::Double(1.0));
        table.insert("d".into(), AMQPValue::Timestamp(1));
        table.insert("e".into(), AMQPValue::Void);
        table.insert("f".into(), AMQPValue::FieldTable(inner));
        table.insert("product".into(), AMQPValue::LongString("RabbitMQ".into()));
        let (bytes, _) = gen_field_table(&table)(Vec::new().into()).unwrap().into_inner();
        let table = Reader(&bytes).long().unwrap();
        assert_eq!(lookup(table, "product"), Some(Value::Text(b"RabbitMQ")));
        let Some(Value::Table(inner)) = lookup(table, "f") else { panic!("no table") };
        assert_eq!(lookup(inner, "basic.nack"), Some(Value::Bool(true)));
        assert_eq!(lookup(table, "missing"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_become_a_short_string_of_valid_text(text in prop::collection::vec(any::<u8>(), 0..600)) {
            let written = shortened(&text);
            prop_assert!(written.len() <= 255);
            prop_assert!(str::from_utf8(&written).is_ok());
        }

        #[test]
        fn looking_into_any_bytes_ends(table in prop::collection::vec(any::<u8>(), 0..600)) {
            lookup(&table, "product");
        }
    }
}
