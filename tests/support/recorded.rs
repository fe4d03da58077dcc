// SPDX-License-Identifier: MIT
//! The recorded events: 1 103 of them, from SIP, loopback, conference, queue and fifo calls in a FreeSWITCH 1.11.2, as its
//! own `switch_event_serialize_json` wrote them.

use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::path::PathBuf;

use flate2::read::GzDecoder;
use serde_json::{Map, Value};

use super::switch::{Event, Field};
use super::{Folder, root};

/// One recorded event: as JSON, and as what has to be fired for a core to write that JSON.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub json: Value,
    pub event: Event,
    /// Microseconds since the first event.
    pub offset_us: u64,
}

/// All recorded events in their order.
pub fn all() -> Vec<Recorded> {
    let file =
        fs::File::open(root().join("tests/data/calls.ndjson.gz")).expect("the recording is there");
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).expect("the recording is gzip and UTF-8");
    let mut first = None;
    let events = text.lines().map(|line| {
        let fields = in_order(line);
        let json: Value = serde_json::from_str(line).expect("the recording is JSON");
        let stamp: u64 =
            json["Event-Date-Timestamp"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
        let offset_us = stamp.saturating_sub(*first.get_or_insert(stamp));
        Recorded { event: to_event(&fields), json, offset_us }
    });
    events.collect()
}

/// The members of a JSON object in the order they stand: a map would sort them, and headers have an order.
fn in_order(line: &str) -> Vec<(String, Value)> {
    struct Members(Vec<(String, Value)>);
    impl<'de> serde::Deserialize<'de> for Members {
        fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
            struct Visit;
            impl<'de> serde::de::Visitor<'de> for Visit {
                type Value = Members;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(
                    self,
                    mut map: A,
                ) -> Result<Members, A::Error> {
                    let mut members = Vec::new();
                    while let Some(member) = map.next_entry()? {
                        members.push(member);
                    }
                    Ok(Members(members))
                }
            }
            input.deserialize_map(Visit)
        }
    }
    serde_json::from_str::<Members>(line).expect("the recording is JSON").0
}

/// The core writes a body as two members more, Content-Length and _body: they are no headers.
fn to_event(members: &[(String, Value)]) -> Event {
    let text = |name: &str| members.iter().find(|(n, _)| n == name).and_then(|(_, v)| v.as_str());
    let mut event =
        Event { bare: true, ..Event::new(text("Event-Name").expect("every event has a name")) };
    if event.name == "CUSTOM" {
        event.subclass = text("Event-Subclass").map(Into::into);
    }
    let body = members.iter().position(|(name, _)| name == "_body");
    for (at, (name, value)) in members.iter().enumerate() {
        if body == Some(at + 1) && name == "Content-Length" {
            continue;
        }
        match value {
            Value::String(text) if body == Some(at) => {
                event.fields.push(Field::Body(text.as_str().into()));
            }
            Value::String(text) => {
                event.fields.push(Field::Header(name.as_str().into(), text.as_str().into()));
            }
            Value::Array(items) => {
                let texts = items.iter().filter_map(Value::as_str);
                event
                    .fields
                    .extend(texts.map(|item| Field::Item(name.as_str().into(), item.into())));
            }
            other => panic!("{name} is {other}"),
        }
    }
    event
}

/// Writes the recording as the generator's `play` reads it.
pub fn write_play_file(folder: &Folder, events: &[Recorded]) -> PathBuf {
    let mut text = String::new();
    for recorded in events {
        writeln!(text, "{} {}", recorded.offset_us, recorded.event.line()).unwrap();
    }
    folder.write("recorded.events", text)
}

/// A JSON text parsed as consumers do it: of a repeated member the last counts.
pub fn parse(text: &[u8]) -> Map<String, Value> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(map)) => map,
        other => panic!("no JSON object ({other:?}): {}", String::from_utf8_lossy(text)),
    }
}
