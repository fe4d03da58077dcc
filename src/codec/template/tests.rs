// SPDX-License-Identifier: MIT
//! Templates against any event.

use proptest::prelude::*;

use super::*;
use crate::codec::Stamp;
use crate::event::{Class, EventKind, EventNames, Index, Record};

const NODE: &str = "fs1.example";

/// An event, and what is made of it.
struct Event {
    record: Record,
    index: Index,
    names: EventNames,
}

impl Event {
    fn new(subclass: &[u8], headers: &[(&str, &[u8])]) -> Self {
        let mut record = Record::default();
        record.begin(EventKind::new(0), Class::Critical, Some(subclass));
        for (name, value) in headers {
            record.header(name.as_bytes(), value);
        }
        Self::of(record)
    }

    fn of(record: Record) -> Self {
        let mut index = Index::default();
        index.read(&record);
        Self { record, index, names: EventNames::new(["CUSTOM"]) }
    }

    fn message(&self) -> Outgoing<'_> {
        Outgoing {
            stamp: Stamp { seq: 1, reuse: 0 },
            node: NODE,
            boot: "boot",
            record: &self.record,
            index: &self.index,
            names: &self.names,
        }
    }

    fn routing_key(&self, text: &str) -> Vec<u8> {
        let (template, problems) = Template::parse(text, Purpose::RoutingKey);
        assert_eq!(problems, [], "{text}");
        // What is in the buffer before must neither be touched nor counted.
        let mut out = vec![b'.'; 300];
        self.message().write_routing_key_with(&template, &mut out);
        out.split_off(300)
    }

    fn key(&self, text: &str) -> String {
        String::from_utf8(self.routing_key(text)).unwrap()
    }

    fn record_key(&self, text: &str) -> Vec<u8> {
        let (template, problems) = Template::parse(text, Purpose::RecordKey);
        assert_eq!(problems, [], "{text}");
        let mut buffer = b"of the message before".to_vec();
        self.message().record_key(&template, &mut buffer).to_vec()
    }

    fn topic(&self, text: &str) -> String {
        let mut out = Vec::new();
        self.message().write_topic(&Template::new(text, Purpose::Topic), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn exchange(&self, text: &str) -> String {
        let mut out = Vec::new();
        self.message().write_exchange(&Template::new(text, Purpose::Exchange), &mut out);
        String::from_utf8(out).unwrap()
    }
}

fn registration() -> Event {
    Event::new(
        b"sofia::register",
        &[
            ("Unique-ID", b"u-1"),
            ("Channel-Call-UUID", b"c-1"),
            ("from-user", b"10.01"),
            ("E", b""),
        ],
    )
}

#[test]
fn every_field_is_filled_in_and_encoded() {
    let event = registration();
    assert_eq!(
        event.key("x.${node}.${event}.${subclass}.${uuid}.${call}.${class}.${from-user}"),
        "x.fs1%2Eexample.CUSTOM.sofia%3A%3Aregister.u-1.c-1.critical.10%2E01"
    );
    assert_eq!(event.key("${node}-${from-user}.fixed"), "fs1%2Eexample-10%2E01.fixed");
}

#[test]
fn the_first_alternative_with_a_value_counts_and_a_literal_always_has_one() {
    let event = registration();
    for (text, expected) in [
        ("${X-A|Unique-ID|from-user}", "u-1"),
        ("${X-A|X-B|#none:here}", "none:here"),
        ("${E|from-user}", "10%2E01"),
        ("${Unique-ID|#none}", "u-1"),
        ("${X-A|X-B}", "_"),
        ("a.${X-A}.b", "a._.b"),
        ("a${X-A}.b", "a.b"),
        ("a.${X-A}${E}.b", "a._.b"),
        ("${#}.b", "_.b"),
        ("a..b", "a._.b"),
    ] {
        assert_eq!(event.key(text), expected, "{text}");
    }
}

#[test]
fn a_value_of_one_wildcard_stays_as_the_encoder_of_words_leaves_it() {
    let event = Event::new(b"", &[("X-A", b"*"), ("X-B", b"#"), ("X-C", b"*.#")]);
    assert_eq!(event.key("${X-A}.${X-B}.${X-C}"), "*.#.%2A%2E%23");
}

#[test]
fn a_published_message_keeps_the_key_of_its_sender() {
    let mut record = Record::default();
    record.begin(EventKind::PUBLISH, Class::Normal, None);
    record.header(Outgoing::PUBLISH_KEY.as_bytes(), b"orders.eu");
    let event = Event::of(record);
    assert_eq!(event.key("x.${node}"), "orders.eu");
    assert_eq!(event.record_key("${node}"), b"orders.eu");
}

#[test]
fn a_record_key_is_not_encoded_and_never_empty() {
    let event = registration();
    assert_eq!(event.record_key("${call}"), b"c-1");
    assert_eq!(event.record_key("${from-user}/${node}"), b"10.01/fs1.example");
    assert_eq!(event.record_key("${X-A}"), b"c-1");
    assert_eq!(Event::new(b"", &[]).record_key("${X-A}"), NODE.as_bytes());
}

#[test]
fn names_of_destinations_hold_only_what_a_broker_takes() {
    let event = registration();
    assert_eq!(event.topic("fs.${subclass}"), "fs.sofia__register");
    assert_eq!(event.exchange("fs.${subclass}"), "fs.sofia::register");
    assert_eq!(event.topic("fs.${X-A}.${from-user}"), "fs._.10.01");
    assert_eq!(Event::new(b"..", &[]).topic("${subclass}"), "_");
    let long = Event::new(&[b'x'; 400], &[]);
    assert_eq!(long.topic("${subclass}").len(), 249);
    assert_eq!(long.exchange("${subclass}é"), "x".repeat(255));
    let nearly = Event::new(&[b'x'; 254], &[]);
    assert_eq!(nearly.exchange("${subclass}é"), "x".repeat(254), "no half of a letter");
}

/// A text made of these has no problem: at most four fields a word, and four words.
fn word() -> impl Strategy<Value = String> {
    let field = prop::sample::select(vec![
        "${node}",
        "${event}",
        "${subclass}",
        "${uuid}",
        "${call}",
        "${X-A}",
        "${X-B|X-A|#none}",
        "${X-B|uuid}",
    ]);
    let part = prop_oneof![field.prop_map(str::to_owned), "[a-z0-9é*#-]{0,12}"];
    prop::collection::vec(part, 0..4).prop_map(|parts| parts.concat())
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        // Nothing needs more room.
        prop::collection::vec(Just(b'.'), 0..300),
    ]
}

fn is_word(word: &[u8]) -> bool {
    let mut rest = word;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%' {
            let Some((digits, after)) = rest.split_at_checked(2) else { return false };
            let upper = |b: &u8| b.is_ascii_digit() || (b'A'..=b'F').contains(b);
            if !digits.iter().all(upper) {
                return false;
            }
            rest = after;
        }
    }
    !word.is_empty() && std::str::from_utf8(word).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_routing_key_is_short_and_whole_for_any_template_and_any_event(
        words in prop::collection::vec(word(), 1..5),
        subclass in any_bytes(),
        values in [any_bytes(), any_bytes(), any_bytes()],
    ) {
        let [uuid, a, b] = &values;
        let event = Event::new(&subclass, &[("Unique-ID", uuid), ("X-A", a), ("X-B", b)]);
        let key = event.routing_key(&words.join("."));
        prop_assert!(key.len() <= KEY_MAX, "{} bytes", key.len());
        let found: Vec<&[u8]> = key.split(|byte| *byte == b'.').collect();
        prop_assert_eq!(found.len(), words.len());
        for word in found {
            prop_assert!(is_word(word), "{:?}", word);
        }
    }

    #[test]
    fn the_standard_template_written_otherwise_makes_the_standard_key(
        subclass in any_bytes(),
        uuid in any_bytes(),
    ) {
        let event = Event::new(&subclass, &[("Unique-ID", &uuid)]);
        let mut expected = Vec::new();
        event.message().write_routing_key(&mut expected);
        prop_assert_eq!(&event.routing_key(crate::config::template::STANDARD_ROUTING_KEY), &expected);
        let otherwise = "event.${node}.${event}.${subclass}.${Unique-ID}";
        prop_assert_eq!(&event.routing_key(otherwise), &expected);
    }

    #[test]
    fn a_topic_is_a_legal_name_for_any_event(subclass in any_bytes(), a in any_bytes()) {
        let event = Event::new(&subclass, &[("X-A", &a)]);
        for text in ["${subclass}", "fs.${subclass}.${X-A|#none}", "${X-A}"] {
            let topic = event.topic(text);
            prop_assert!((1..=249).contains(&topic.len()) && topic.bytes().all(is_topic_byte));
            prop_assert!(!matches!(topic.as_str(), "." | ".."));
        }
    }
}
