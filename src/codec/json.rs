// SPDX-License-Identifier: MIT
//! The event as JSON, equal to what the core's own `switch_event_serialize_json` makes of it.
//!
//! A flat object whose values are strings, arrays where a header has several, `Content-Length` and
//! `_body` last. Two things differ, both so that any reader can parse the result: a repeated name
//! is written once, with its last value, and bytes that are not UTF-8 become U+FFFD.

mod writer;

use writer::Writer;

use crate::event::{Index, Member, MemberName, MemberValue, Record};

/// Appends the event as one JSON object.
pub fn write_event(record: &Record, index: &Index, out: &mut Vec<u8>) {
    write_event_with(record, index, &[], out);
}

/// As [`write_event`], with `extra` members of the module's own at the end.
// By its symbol `tests/bench_gate.rs` counts what it costs.
#[inline(never)]
pub fn write_event_with(record: &Record, index: &Index, extra: &[(&str, &str)], out: &mut Vec<u8>) {
    let bytes = record.bytes();
    // Names that the record has as numbers take some 25 bytes each here, punctuation included.
    let about = record.size() + record.size() / 4 + record.header_count() * 28 + 64;
    let start = out.len();
    let mut json = Writer::new(out, about);
    for Member { name, value } in index.members(record) {
        if let (MemberName::Known(id), MemberValue::At(span)) = (&name, &value)
            && json.short_member(*id, bytes, *span)
        {
            continue;
        }
        // With the quote that a string begins with.
        match name {
            MemberName::Known(id) => json.known_name(id),
            MemberName::At(span) => json.name_in(bytes, span),
        }
        match value {
            MemberValue::At(span) => json.string_in(bytes, span),
            MemberValue::Many(elements) => {
                json.back(1);
                json.put(b"[");
                for (position, element) in elements.enumerate() {
                    json.put(if position > 0 { b",\"" } else { b"\"" });
                    json.string(element);
                }
                json.put(b"]");
            }
        }
    }
    if let Some(body) = index.body(record) {
        json.put(b",\"Content-Length\":\"");
        json.put(itoa::Buffer::new().format(body.len()).as_bytes());
        json.put(b"\",\"_body\":\"");
        json.string(body);
    }
    for (header, value) in extra {
        json.name(header.as_bytes());
        json.string(value.as_bytes());
    }
    json.put(b"}");
    json.end();
    // Each member has a comma in front; where the first has it, the brace belongs.
    match out.get_mut(start) {
        Some(first) if *first == b',' => *first = b'{',
        _ => out.insert(start, b'{'),
    }
}

/// Appends `text` as a JSON string, quotes included.
pub fn write_string(text: &[u8], out: &mut Vec<u8>) {
    let mut json = Writer::new(out, text.len() + 2);
    json.put(b"\"");
    json.string(text);
    json.end();
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

    /// Mostly clean text of every length around a step, and anything.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => "[ -~]{0,70}".prop_map(String::into_bytes),
            1 => "\\PC{0,40}".prop_map(String::into_bytes),
            1 => prop::collection::vec(any::<u8>(), 0..100),
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_parse_back_to_their_lossy_text(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let parsed: String = serde_json::from_str(&string(&text)).unwrap();
            prop_assert_eq!(parsed, String::from_utf8_lossy(&text));
        }

        #[test]
        fn any_event_parses_to_the_map_in_which_the_last_header_wins(
            headers in prop::collection::vec(("[A-C_\\[\"é]{0,3}|[a-z]{20,80}|Unique-ID|Caller-ANI", text()), 0..30),
            body in prop::option::of("\\PC{0,60}"),
        ) {
            let mut record = Record::default();
            record.begin(EventKind::new(0), Class::Normal, None);
            let mut oracle = serde_json::Map::new();
            for (name, value) in &headers {
                record.header(name.as_bytes(), value);
                oracle.insert(name.clone(), String::from_utf8_lossy(value).into());
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
