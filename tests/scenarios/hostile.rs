// SPDX-License-Identifier: MIT
//! Events that no one would fire, and configurations that cannot work.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use crate::stage::{
    LIMIT, dropped, event_of, number, on_each_switch, sink, wait_balanced, wait_connected,
};
use crate::support::clients::Message;
use crate::support::oracle;
use crate::support::switch::{Event, Load};
use crate::support::{wait_for, wait_until};

fn raw(messages: &[Message]) -> BTreeMap<String, Map<String, Value>> {
    let events = messages.iter().map(event_of);
    let named =
        events.filter_map(|event| Some((event.get("Gen-Raw")?.as_str()?.to_owned(), event)));
    named.collect()
}

#[test]
fn hostile_events_become_sound_json_or_are_counted() {
    on_each_switch("hostile_events_become_sound_json_or_are_counted", |switch, stage| {
        switch.load().expect("the module loads");
        wait_connected(switch);
        let answer = switch.generate("raw all");
        assert!(answer.trim_end().ends_with("+OK n=24"), "{answer}");
        let sent = switch.deliver(&Load { count: 100, headers: 5, ..Load::default() });
        for (kind, account, messages) in stage.settle(switch) {
            let found = raw(&messages);
            let lost = dropped(&account) + number(&account, "dead");
            // Ten megabytes are more than max-event-bytes; Kafka takes no record of one megabyte.
            assert_eq!(account["dropped"]["oversize"], 1, "{kind}: {account}");
            assert_eq!(lost, if kind == "kafka" { 2 } else { 1 }, "{kind}: {account}");
            assert!(!found.contains_key("huge-body") && found.len() >= 21, "{:?}", found.keys());
            check_hostile(kind, &found);
            oracle::judge(std::slice::from_ref(&sent), &messages).assert_exact();
        }
        assert_eq!(switch.json("rustbridge status json")["module"]["faults"], 0);
    });
}

fn check_hostile(kind: &str, found: &BTreeMap<String, Map<String, Value>>) {
    let value = |raw: &str, name: &str| found[raw].get(name).and_then(Value::as_str);
    if kind != "kafka" {
        assert_eq!(value("huge-value", "X-Huge").map(str::len), Some(1 << 20), "{kind}");
    }
    assert!(found["many-headers"].len() > 5000, "{kind}");
    assert_eq!(value("many-headers", "X-Many-4999"), Some("X-Many-4999"));
    assert_eq!(value("bracket", "X-List[3]"), Some("three"));
    let bytes = value("not-utf8", "X-Bytes").expect("it is there");
    assert!(bytes.starts_with("before ") && bytes.ends_with(" after"), "{bytes:?}");
    assert!(bytes.contains('\u{fffd}'), "{bytes:?}");
    assert_eq!(value("utf8", "X-Utf8"), Some("äöü € 📞"));
    let control = "\u{1}\u{2}\u{8}\t\n\u{b}\u{c}\r\u{1f}\u{7f}\"\\/";
    assert_eq!(value("control", "X-Control"), Some(control));
    assert_eq!(value("empty-value", "X-Empty"), Some(""));
    assert_eq!(value("duplicate", "X-Twice"), Some("second"), "the last one counts");
    assert_eq!(value("duplicate", "X-Other"), Some("between"));
    let array = found["array"]["X-Array"].as_array().expect("several values are an array");
    assert_eq!((array.len(), &array[0], &array[2]), (4, &Value::from("one"), &Value::from("")));
    assert_eq!(found["array-large"]["X-Array"].as_array().map(Vec::len), Some(4000));
    assert_eq!(value("null-value", "X-After-Null"), Some("after"));
}

/// Numbers that look like chance and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    /// Bytes without NUL, with much that means something in a key.
    fn bytes(&mut self, longest: u64) -> Vec<u8> {
        let length = self.roll(longest + 1);
        let mut byte = || match self.roll(4) {
            0 => b".*#+ %"[usize::try_from(self.roll(6)).unwrap()],
            1 => u8::try_from(1 + self.roll(255)).unwrap(),
            _ => b'a' + u8::try_from(self.roll(26)).unwrap(),
        };
        (0..length).map(|_| byte()).collect()
    }
}

/// What a consumer does to get the value of a key's word back.
fn decoded(word: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = word.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                assert_eq!(digits, digits.to_uppercase());
                u8::from_str_radix(&digits, 16).expect("two digits, never cut")
            }
            other => other,
        });
    }
    out
}

#[test]
fn any_header_value_makes_a_key_of_five_words() {
    on_each_switch("any_header_value_makes_a_key_of_five_words", |switch, stage| {
        if stage.rabbit.is_none() {
            return;
        }
        stage.parameters.clear();
        let (amqp, kafka) = stage.ports();
        switch.configure(&stage.document(&stage.sink_at("amqp", amqp, kafka)));
        switch.load().expect("the module loads");
        wait_connected(switch);
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let mut values = Vec::new();
        let mut lines = String::new();
        for number in 0..2000 {
            let uuid = dice.bytes(if number % 10 == 0 { 400 } else { 60 });
            let event = Event { bare: true, ..Event::new("GENERAL") };
            let event = event.header("Fuzz-Number", number.to_string()).header("Unique-ID", &uuid);
            lines.extend(["0 ", &event.line(), "\n"]);
            values.push(uuid);
        }
        let file = stage.folder.write("fuzz.events", lines);
        let answer = switch.generate(&format!("play {} 0", file.display()));
        assert!(answer.contains("+OK n=2000 "), "{answer}");
        let account = wait_balanced(switch).remove(0);
        assert_eq!((dropped(&account), number(&account, "dead")), (0, 0), "{account}");
        let mut seen = BTreeSet::new();
        let fuzzed = wait_for(LIMIT, "2000 messages", || {
            let all = stage.arrived("amqp").into_iter();
            let all: Vec<Message> = all.filter(|m| m.json().contains_key("Fuzz-Number")).collect();
            (all.len() >= 2000).then_some(all)
        });
        for message in fuzzed {
            let event = message.json();
            let number: usize = event["Fuzz-Number"].as_str().unwrap().parse().unwrap();
            assert!(seen.insert(number), "{number} came twice");
            let key = message.key.expect("a message has a key");
            assert!(key.len() <= 255 && key.is_ascii(), "{key}");
            let words: Vec<&str> = key.split('.').collect();
            assert_eq!((words.len(), words[2]), (5, "GENERAL"), "{key}");
            let (word, value) = (decoded(words[4]), &values[number]);
            let is_whole = word == *value || (value.is_empty() && word == b"_");
            let is_cut = key.len() > 250 && value.starts_with(&word);
            assert!(is_whole || is_cut, "{number}: {key} of {value:?}");
        }
    });
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_a_line_each() {
    on_each_switch(
        "a_configuration_that_cannot_work_is_refused_with_a_line_each",
        |switch, stage| {
            let file =
                |more: &str| sink("journal", "file", "ALL", &[("path", "/tmp/never.ndjson")], more);
            let twice = file("") + &file("");
            let contradictory = file(
                "<param name=\"queue-when-full\" value=\"spool\"/><param name=\"spool-mode\" value=\"off\"/>",
            );
            let library = |inside: &str| {
                let more = format!("<librdkafka><param {inside}/></librdkafka>");
                sink("stream", "kafka", "ALL", &[("bootstrap-servers", "127.0.0.1:1")], &more)
            };
            let weak = library("name=\"acks\" value=\"0\"");
            let unknown = library("name=\"lingr.ms\" value=\"1\"");
            let secret = sink(
                "rabbit",
                "amqp",
                "ALL",
                &[("url", "amqp://u:hidden@127.0.0.1:port/"), ("password", "hidden")],
                "",
            );
            let cases: Vec<(String, Vec<&str>)> = vec![
                ("<configuration name=\"another.conf\"/>".into(), vec!["rustbridge.conf"]),
                ("<configuration name=\"rustbridge.conf\"/>".into(), vec!["sink"]),
                (stage.document(&twice), vec!["journal", "name"]),
                (stage.document(&contradictory), vec!["journal", "queue-when-full", "spool-mode"]),
                (stage.document(&weak), vec!["stream", "acks"]),
                (stage.document(&unknown), vec!["stream", "lingr.ms"]),
                (stage.document(&secret), vec!["rabbit", "url"]),
                (stage.document(&file("<parm/>")), vec!["journal", "parm"]),
            ];
            for (text, expected) in cases {
                let before = switch.log().len();
                switch.configure(&text);
                assert!(switch.load().is_err(), "{text}");
                for words in expected {
                    wait_until(LIMIT, &format!("the log to name {words} for {text}"), || {
                        let log = switch.log();
                        log.get(before..).is_some_and(|fresh| {
                            fresh.lines().any(|line| line.contains("[ERR]") && line.contains(words))
                                || fresh.contains("mod_rustbridge is not loaded")
                                    && fresh.contains(words)
                        })
                    });
                }
                assert!(!switch.log().contains("hidden"), "a secret in the log");
            }
            assert!(!Path::new("/tmp/never.ndjson").exists());
            switch.configure(&stage.configuration());
            switch.load().expect("a sound configuration loads after all these");
        },
    );
}
