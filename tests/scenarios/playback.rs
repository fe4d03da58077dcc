// SPDX-License-Identifier: MIT
//! The recorded events of real calls, played into three sinks at once.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::stage::{LIMIT, Stage, event_of, is_balanced, number, on_each_switch, seq};
use crate::support::clients::Message;
use crate::support::recorded::{self, Recorded};
use crate::support::switch::Switch;
use crate::support::wait_for;

#[test]
fn recorded_calls_arrive_everywhere_once_in_order_and_equal() {
    on_each_switch("recorded_calls_arrive_everywhere_once_in_order_and_equal", |switch, stage| {
        switch.load().expect("the module loads");
        let boot = switch.json("rustbridge status json")["module"]["boot"].clone();
        let boot = boot.as_str().expect("a boot is text");
        let events = recorded::all();
        play(switch, stage, &events);
        for (kind, account, messages) in stage.settle(switch) {
            assert!(is_balanced(&account), "{account}");
            assert_eq!((number(&account, "dead"), number(&account, "gaps")), (0, 0), "{account}");
            assert_eq!(account["dropped"], Value::Object(Map::new()));
            assert_eq!(number(&account, "offered"), number(&account, "delivered"), "all is wanted");
            check_numbers(kind, &messages);
            let ids = ids(kind, &messages);
            let mine = of_the_recording(&events, messages);
            check_order(kind, &events, &mine);
            for (recorded, message) in pairs(&events, &mine) {
                assert_eq!(event_of(message), *recorded.json.as_object().unwrap(), "{kind}");
                let id = &ids[&seq(kind, message)];
                check_identity(kind, stage, (boot, id), recorded, message);
            }
        }
        switch.unload().expect("the module unloads");
        check_final_account(switch, stage);
    });
}

fn play(switch: &mut dyn Switch, stage: &Stage, events: &[Recorded]) {
    let file = recorded::write_play_file(&stage.folder, events);
    let answer = switch.generate(&format!("play {} 0", file.display()));
    assert!(answer.contains(&format!("+OK n={} ", events.len())), "{answer}");
}

/// No number came twice, and within a partition they grow; that none is missing has been waited for.
fn check_numbers(kind: &str, messages: &[Message]) {
    let different: BTreeSet<u64> = messages.iter().map(|message| seq(kind, message)).collect();
    assert_eq!(different.len(), messages.len(), "{kind}: a number came twice");
    assert_eq!(different.first(), Some(&1), "{kind}");
    let mut last = BTreeMap::new();
    for message in messages {
        let number = seq(kind, message);
        let before = last.insert(message.partition, number).unwrap_or(0);
        assert!(before < number, "{kind}: {number} came after {before}");
    }
}

/// The messages that are of the recording: a real switch has events of its own.
fn of_the_recording(events: &[Recorded], messages: Vec<Message>) -> Vec<Message> {
    let core = &events[0].json["Core-UUID"];
    messages.into_iter().filter(|message| message.json().get("Core-UUID") == Some(core)).collect()
}

fn sequence(event: &Map<String, Value>) -> u64 {
    let text = event["Event-Sequence"].as_str().expect("the core numbers its events");
    text.parse().expect("a number")
}

/// Each recorded event with its message. Fails when one is missing or came twice.
fn pairs<'a>(
    events: &'a [Recorded],
    messages: &'a [Message],
) -> impl Iterator<Item = (&'a Recorded, &'a Message)> {
    let by_number: BTreeMap<u64, &Message> =
        messages.iter().map(|message| (sequence(&message.json()), message)).collect();
    assert_eq!((by_number.len(), messages.len()), (events.len(), events.len()));
    events.iter().map(move |event| {
        let number = sequence(event.json.as_object().unwrap());
        (event, by_number[&number])
    })
}

/// In a file and a queue all events are in the order they were fired; in a topic those of a call are.
fn check_order(kind: &str, events: &[Recorded], messages: &[Message]) {
    let group = |event: &Map<String, Value>| {
        if kind == "kafka" { partition_key(event).to_owned() } else { String::new() }
    };
    let mut fired: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for recorded in events {
        let event = recorded.json.as_object().unwrap();
        fired.entry(group(event)).or_default().push(sequence(event));
    }
    let mut arrived: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for message in messages {
        let event = message.json();
        arrived.entry(group(&event)).or_default().push(sequence(&event));
    }
    assert_eq!(fired, arrived, "{kind}");
}

fn text<'e>(event: &'e Map<String, Value>, name: &str) -> &'e str {
    event.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Both legs of a call share it.
fn partition_key(event: &Map<String, Value>) -> &str {
    let names = ["Channel-Call-UUID", "Unique-ID", "Job-UUID"];
    names.iter().map(|name| text(event, name)).find(|value| !value.is_empty()).unwrap_or("fs1")
}

/// One word of a routing key, by the rule of the documentation.
fn word(value: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'~' | b'_' => char::from(byte).into(),
        b' ' => "+".into(),
        _ => format!("%{byte:02X}"),
    };
    if value.is_empty() { "_".into() } else { value.bytes().map(byte).collect() }
}

/// The id that each message should have, by its number: the core's, and how often it was used before in this stream. A real
/// switch's own events may have numbers that recorded ones have too.
fn ids(kind: &str, messages: &[Message]) -> BTreeMap<u64, String> {
    let in_order: BTreeMap<u64, &Message> =
        messages.iter().map(|message| (seq(kind, message), message)).collect();
    let mut used: BTreeMap<u64, u32> = BTreeMap::new();
    let ids = in_order.into_iter().map(|(seq, message)| {
        let event = message.json();
        let number = sequence(&event);
        let before = used.entry(number).or_default();
        let again = if *before > 0 { format!("-{before}") } else { String::new() };
        *before += 1;
        (seq, format!("{}-{number}{again}", text(&event, "Core-UUID")))
    });
    ids.collect()
}

fn check_identity(
    kind: &str,
    stage: &Stage,
    (boot, id): (&str, &str),
    recorded: &Recorded,
    message: &Message,
) {
    let event = recorded.json.as_object().unwrap();
    if kind == "file" {
        let line = message.json();
        let own = ["rb-id", "rb-node", "rb-boot"].map(|name| text(&line, name));
        assert_eq!(own, [id, "fs1", boot]);
        return;
    }
    let header = |name: &str| message.headers.get(name).map_or("", String::as_str);
    assert_eq!((header("node"), header("boot")), ("fs1", boot));
    let (name, subclass) = (text(event, "Event-Name"), text(event, "Event-Subclass"));
    let (uuid, stamp) = (text(event, "Unique-ID"), text(event, "Event-Date-Timestamp"));
    if kind == "kafka" {
        assert_eq!(message.place, stage.topic);
        assert_eq!(message.key.as_deref(), Some(partition_key(event)));
        let expected = [
            ("content-type", "application/json"),
            ("message-id", id),
            ("event-name", name),
            ("event-subclass", subclass),
            ("unique-id", uuid),
            ("core-uuid", text(event, "Core-UUID")),
            ("event-sequence", text(event, "Event-Sequence")),
            ("timestamp-us", stamp),
        ];
        for (name, value) in expected {
            assert_eq!(header(name), value, "{name} of {event:?}");
        }
        return;
    }
    assert_eq!(message.place, stage.exchange);
    let key = ["event", "fs1", name, subclass, uuid].map(word).join(".");
    assert_eq!(message.key.as_deref(), Some(key.as_str()));
    let kind_of = if subclass.is_empty() { name.to_owned() } else { format!("{name} {subclass}") };
    let property = |name: &str| &message.properties[name];
    assert_eq!(property("content_type"), "application/json");
    assert_eq!(property("delivery_mode"), 2);
    assert_eq!(property("message_id"), id);
    assert_eq!(property("type"), kind_of.as_str());
    assert_eq!(property("app_id"), "mod_rustbridge");
    let seconds = stamp.parse::<u64>().expect("microseconds") / 1_000_000;
    assert_eq!(property("timestamp").as_u64(), Some(seconds));
    for (name, value) in [
        ("core_uuid", text(event, "Core-UUID")),
        ("unique_id", uuid),
        ("event_sequence", text(event, "Event-Sequence")),
        ("timestamp_us", stamp),
        ("format", "raw"),
    ] {
        assert_eq!(header(name), value, "{name} of {event:?}");
    }
}

/// The log's last word about each sink adds up.
fn check_final_account(switch: &mut dyn Switch, stage: &Stage) {
    for (name, _) in stage.sinks() {
        let start = format!("[{name}] Final account: ");
        // A real switch writes its log a little later.
        let account = wait_for(LIMIT, &start, || {
            let log = switch.log();
            let mut lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            lines.find_map(|line| Some(line.split_once(&start)?.1.to_owned()))
        });
        let n = |name: &str| -> u64 {
            let found =
                account.split(", ").find_map(|pair| pair.strip_prefix(name)?.strip_prefix(' '));
            found
                .and_then(|n| n.trim().parse().ok())
                .unwrap_or_else(|| panic!("no {name}: {account}"))
        };
        let ended = n("filtered") + n("delivered") + n("dropped") + n("dead") + n("waiting");
        assert_eq!(
            (n("offered"), n("dropped") + n("dead") + n("waiting")),
            (ended, 0),
            "{account}"
        );
    }
}
