// SPDX-License-Identifier: MIT
//! The event as JSON, equal to what the core's own `switch_event_serialize_json` makes of it.
//!
//! A flat object whose values are strings, arrays where a header has several, `Content-Length` and
//! `_body` last. Two things differ, both so that any reader can parse the result: a repeated name
//! is written once, with its last value, and bytes that are not UTF-8 become U+FFFD.

use crate::event::{Index, MemberName, Record, Value};

/// Appends the event as one JSON object.
pub fn write_event(record: &Record, index: &Index, out: &mut Vec<u8>) {
    write_event_with(record, index, &[], out);
}

/// As [`write_event`], with `extra` members of the module's own at the end.
// By its symbol `tests/bench_gate.rs` counts what it costs.
#[inline(never)]
pub fn write_event_with(record: &Record, index: &Index, extra: &[(&str, &str)], out: &mut Vec<u8>) {
    // Names that the record has as numbers take some 25 bytes each here, punctuation included.
    out.reserve(record.size() + record.size() / 4 + record.header_count() * 28 + 64);
    let start = out.len();
    for (name, value) in index.members(record) {
        match (name, value) {
            (MemberName::Ready(name), Value::One(value)) => {
                out.extend_from_slice(name);
                write_rest(value, out);
            }
            (MemberName::Text(name), Value::One(value)) => {
                write_name(name, out);
                write_string(value, out);
            }
            (name, Value::Many(elements)) => {
                match name {
                    // Without the quote of a string.
                    MemberName::Ready(name) => {
                        out.extend_from_slice(name.strip_suffix(b"\"").unwrap_or(name));
                    }
                    MemberName::Text(name) => write_name(name, out),
                }
                out.push(b'[');
                for (position, element) in elements.enumerate() {
                    if position > 0 {
                        out.push(b',');
                    }
                    write_string(element, out);
                }
                out.push(b']');
            }
        }
    }
    if let Some(body) = index.body(record) {
        out.extend_from_slice(b",\"Content-Length\":\"");
        out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
        out.extend_from_slice(b"\",\"_body\":");
        write_string(body, out);
    }
    for (header, value) in extra {
        write_name(header.as_bytes(), out);
        write_string(value.as_bytes(), out);
    }
    // Each member has a comma in front; where the first has it, the brace belongs.
    match out.get_mut(start) {
        Some(first) => *first = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
}

fn write_name(name: &[u8], out: &mut Vec<u8>) {
    out.push(b',');
    write_string(name, out);
    out.push(b':');
}

/// Appends `text` as a JSON string, quotes included.
pub fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    write_rest(text, out);
}

/// The same behind a quote that is there already.
#[inline]
fn write_rest(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    loop {
        let clean = clean_prefix(rest);
        let (plain, tail) = rest.split_at_checked(clean).unwrap_or((rest, &[]));
        out.extend_from_slice(plain);
        let Some((&byte, after)) = tail.split_first() else { break };
        if byte < 0x80 {
            write_escaped(byte, out);
            rest = after;
        } else {
            rest = write_wide(tail, out);
        }
    }
    out.push(b'"');
}

/// How many leading bytes are ASCII that JSON takes as it is.
#[inline]
fn clean_prefix(text: &[u8]) -> usize {
    let mut rest = text;
    let mut clean = 0;
    while let Some((word, after)) = rest.split_first_chunk() {
        let dirty = dirty_bytes(u64::from_le_bytes(*word));
        if dirty != 0 {
            return clean + usize::try_from(dirty.trailing_zeros() / 8).unwrap_or(0);
        }
        clean += 8;
        rest = after;
    }
    // The last word overlaps with what is known to be clean.
    if let Some(word) = text.last_chunk().filter(|_| !rest.is_empty()) {
        let dirty = dirty_bytes(u64::from_le_bytes(*word));
        let skipped = 8 - rest.len();
        let first = usize::try_from(dirty.trailing_zeros() / 8).unwrap_or(8);
        return clean + (first.max(skipped) - skipped).min(rest.len());
    }
    clean + rest.iter().position(|byte| !is_clean(*byte)).unwrap_or(rest.len())
}

/// A bit for each byte that JSON does not take as it is; exact up to and including the first.
#[inline]
fn dirty_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // A byte's high bit is set where it is zero; exact up to and including the first such byte.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    control
        | zeros(word ^ (ONES * u64::from(b'"')))
        | zeros(word ^ (ONES * u64::from(b'\\')))
        | (word & HIGHS)
}

#[inline]
fn is_clean(byte: u8) -> bool {
    (0x20..0x80).contains(&byte) && byte != b'"' && byte != b'\\'
}

fn write_escaped(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x0c => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            let low = HEX.get(usize::from(byte & 15)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', b'0' + (byte >> 4), low]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends the run of non-ASCII bytes that `text` begins with, repaired; returns what follows.
fn write_wide<'t>(text: &'t [u8], out: &mut Vec<u8>) -> &'t [u8] {
    let run = text.iter().position(u8::is_ascii).unwrap_or(text.len());
    let (wide, rest) = text.split_at_checked(run).unwrap_or((text, &[]));
    for chunk in wide.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Class, EventKind};

    fn string(text: &[u8]) -> String {
        let mut out = Vec::new();
        write_string(text, &mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn control_characters_quotes_and_backslashes_are_escaped() {
        assert_eq!(string(b"a\"b\\c\r\n\t\x08\x0c\x01\x1f"), r#""a\"b\\c\r\n\t\b\f\u0001\u001f""#);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced_and_the_rest_stays() {
        assert_eq!(string(b"a\xff\xfeb"), "\"a\u{fffd}\u{fffd}b\"");
        assert_eq!(string("中\u{1f600}".as_bytes()), "\"中\u{1f600}\"");
        assert_eq!(string(b"\xe4\xb8"), "\"\u{fffd}\"");
    }

    proptest! {
        #[test]
        fn any_bytes_parse_back_to_their_lossy_text(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let parsed: String = serde_json::from_str(&string(&text)).unwrap();
            prop_assert_eq!(parsed, String::from_utf8_lossy(&text));
        }

        #[test]
        fn any_event_parses_to_the_map_in_which_the_last_header_wins(
            headers in prop::collection::vec(("[A-C_\\[\"é]{0,3}", "\\PC{0,40}"), 0..30),
            body in prop::option::of("\\PC{0,60}"),
        ) {
            let mut record = Record::default();
            record.begin(EventKind::new(0), Class::Normal, None);
            let mut oracle = serde_json::Map::new();
            for (name, value) in &headers {
                record.header(name.as_bytes(), value.as_bytes());
                oracle.insert(name.clone(), value.clone().into());
            }
            if let Some(body) = &body {
                record.body(body.as_bytes());
                oracle.insert("Content-Length".into(), body.len().to_string().into());
                oracle.insert("_body".into(), body.clone().into());
            }
            let mut index = Index::default();
            index.read(&record);
            let mut out = Vec::new();
            write_event(&record, &index, &mut out);
            let parsed: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(parsed, oracle);
        }
    }
}
