// SPDX-License-Identifier: MIT
//! Calls in a real FreeSWITCH, live: what arrives is held against what the core's own event socket says.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde_json::{Map, Value};

use crate::stage::{
    LIMIT, dropped, event_of, number, on_each_freeswitch, on_each_switch, sink, wait_balanced,
    wait_connected,
};
use crate::support::clients::{self, Message};
use crate::support::freeswitch::{CoreEvents, FreeSwitch};
use crate::support::stories::{self, FILTERS};
use crate::support::switch::Switch;
use crate::support::{free_port, in_path, skips, wait_for, wait_until};

fn text<'e>(event: &'e Map<String, Value>, name: &str) -> &'e str {
    event.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn sequence(event: &Map<String, Value>) -> u64 {
    text(event, "Event-Sequence").parse().unwrap_or_default()
}

fn load(switch: &mut FreeSwitch) -> CoreEvents {
    switch.load().expect("the module loads");
    wait_connected(switch);
    switch.core_events()
}

/// How many calls of each kind are made; two hundred in all.
const CALLS: [(&str, u32); 5] = [
    ("loopback/echo/test &playback(tone_stream://%(200,0,440))", 50),
    ("null/a m:^:sched_hangup:+1^bridge:null/b inline", 50),
    ("loopback/conf/test &sleep(700)", 30),
    ("loopback/queue/test &sleep(700)", 25),
    ("loopback/fifo/test &sleep(700)", 20),
];
const SIP_CALLS: u32 = 25;

fn make_calls(test: &str, switch: &mut FreeSwitch) -> u32 {
    let mut made = 0;
    for (what, count) in CALLS {
        for _ in 0..count {
            let answer = switch.api(&format!("bgapi originate {what}"));
            assert!(answer.starts_with("+OK"), "{what}: {answer}");
            made += 1;
        }
    }
    if in_path("sipp").is_none() {
        skips::note(test, "sipp is not installed", "apt-get install sip-tester, or make setup");
        return made;
    }
    let peer = format!("127.0.0.1:{}", switch.sip_port());
    let (count, port) = (SIP_CALLS.to_string(), free_port().to_string());
    let done = Command::new("sipp")
        .args(["-sn", "uac", &peer, "-s", "1000", "-i", "127.0.0.1", "-p", &port])
        .args(["-m", &count, "-r", "20", "-d", "300", "-nostdin", "-timeout", "60s"])
        .current_dir(switch.folder())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("sipp can be started");
    assert!(done.success(), "sipp made its calls: {done}");
    made + SIP_CALLS
}

#[test]
fn two_hundred_live_calls_arrive_everywhere_as_the_core_tells_them() {
    let test = "two_hundred_live_calls_arrive_everywhere_as_the_core_tells_them";
    on_each_freeswitch(test, |switch, stage| {
        let core = load(switch);
        let made = make_calls(test, switch);
        assert!(made >= 175, "{made}");
        // Background jobs begin when they like: each leaves an event when it is done.
        let jobs: u32 = CALLS.iter().map(|(_, count)| count).sum();
        wait_until(LIMIT * 2, "all calls to be made", || {
            let all = core.so_far();
            let done = all.iter().filter(|event| text(event, "Event-Name") == "BACKGROUND_JOB");
            u32::try_from(done.count()).unwrap() >= jobs
        });
        stories::wait_no_calls(switch);
        let last = marker(switch, &core);
        let all = core.so_far();
        let told: Vec<&Map<String, Value>> =
            all.iter().filter(|event| sequence(event) <= last).collect();
        let created = told.iter().filter(|event| text(event, "Event-Name") == "CHANNEL_CREATE");
        assert!(created.count() > 300, "each call has two legs, but those in a bridge of null");
        for (kind, account, messages) in stage.settle(switch) {
            assert_eq!((dropped(&account), number(&account, "dead")), (0, 0), "{account}");
            check_equal(kind, &told, &messages, last);
            check_calls(kind, &told, &messages);
        }
    });
}

/// Fires an event and waits until the event socket has it; gives its number. Everything before it has come by then.
fn marker(switch: &mut FreeSwitch, core: &CoreEvents) -> u64 {
    switch.generate("fire core CUSTOM test::marker");
    wait_for(LIMIT, "the event socket to have everything", || {
        let all = core.so_far();
        all.iter().find(|event| text(event, "Event-Subclass") == "test::marker").map(sequence)
    })
}

/// What the core tells and what a sink delivered is the same: the same numbers, each as often, each the same JSON.
fn check_equal(kind: &str, told: &[&Map<String, Value>], messages: &[Message], last: u64) {
    let first = told.iter().map(|event| sequence(event)).min().expect("some events");
    let mut wanted: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for event in told {
        wanted
            .entry(sequence(event))
            .or_default()
            .push(Value::Object((*event).clone()).to_string());
    }
    let mut found: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for event in messages.iter().map(event_of) {
        let number = sequence(&event);
        if (first..=last).contains(&number) {
            found.entry(number).or_default().push(Value::Object(event).to_string());
        }
    }
    let of = |all: &BTreeMap<u64, Vec<String>>| all.keys().copied().collect::<Vec<u64>>();
    assert_eq!(of(&wanted), of(&found), "{kind}: other numbers");
    for (number, mut expected) in wanted {
        let mut got = found.remove(&number).expect("the same numbers");
        expected.sort();
        got.sort();
        assert_eq!(expected, got, "{kind}: {number}");
    }
}

/// The events of each call, by what names it.
fn calls(events: impl Iterator<Item = Map<String, Value>>) -> BTreeMap<String, Vec<String>> {
    let mut calls: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in events.filter(|event| text(event, "Event-Name").starts_with("CHANNEL_")) {
        let line = format!("{} {}", text(&event, "Event-Name"), sequence(&event));
        calls.entry(text(&event, "Unique-ID").to_owned()).or_default().push(line);
    }
    calls
}

/// Each call is created and destroyed once, and told in the order in which the core told it.
fn check_calls(kind: &str, told: &[&Map<String, Value>], messages: &[Message]) {
    let as_told = calls(told.iter().map(|event| (*event).clone()));
    let as_arrived = calls(stories::in_order(messages).into_iter());
    for (uuid, events) in as_told {
        assert_eq!(as_arrived[&uuid], events, "{kind}: {uuid}");
        for name in ["CHANNEL_CREATE ", "CHANNEL_HANGUP ", "CHANNEL_DESTROY "] {
            let times = events.iter().filter(|event| event.starts_with(name)).count();
            assert_eq!(times, 1, "{kind}: {name}of {uuid}: {events:?}");
        }
    }
}

#[test]
fn a_bridged_call_tells_both_legs_in_order_and_in_one_partition() {
    let test = "a_bridged_call_tells_both_legs_in_order_and_in_one_partition";
    on_each_freeswitch(test, |switch, stage| {
        let _core = load(switch);
        stories::make_bridged_call(switch, || stage.arrived("file"));
        for (kind, _, messages) in stage.settle(switch) {
            stories::check_bridged_call(kind, &messages);
            if kind == "kafka" {
                stories::check_one_partition(&messages);
            }
        }
    });
}

#[test]
fn a_call_to_a_busy_line_tells_why_it_failed() {
    on_each_freeswitch("a_call_to_a_busy_line_tells_why_it_failed", |switch, stage| {
        let _core = load(switch);
        stories::make_failed_calls(switch);
        for (kind, _, messages) in stage.settle(switch) {
            stories::check_failed_calls(kind, &messages);
        }
    });
}

#[test]
fn channel_variables_and_sdp_are_plain_texts_in_the_json() {
    on_each_freeswitch("channel_variables_and_sdp_are_plain_texts_in_the_json", |switch, stage| {
        let _core = load(switch);
        stories::make_described_call(switch);
        for (kind, _, messages) in stage.settle(switch) {
            stories::check_described_call(kind, &messages);
        }
    });
}

#[test]
fn each_filter_lets_through_exactly_the_events_that_it_names() {
    on_each_switch("each_filter_lets_through_exactly_the_events_that_it_names", |switch, stage| {
        let path = |number: usize| stage.folder.join(format!("filter{number}/events.ndjson"));
        let sinks: String = (0..FILTERS.len())
            .map(|number| {
                let path = path(number).display().to_string();
                let name = format!("filter{number}");
                sink(&name, "file", FILTERS[number].0, &[("path", &path)], "")
            })
            .collect();
        switch.configure(&stage.document(&sinks));
        switch.load().expect("the module loads");
        let fired = stories::fire_every_event(switch, |lines| {
            stage.folder.write("every.events", lines).display().to_string()
        });
        wait_balanced(switch);
        for number in 0..FILTERS.len() {
            let folder = stage.folder.join(format!("filter{number}"));
            let messages = clients::read_ndjson(&folder);
            stories::check_filter(&switch.name(), number, &fired, &messages);
        }
    });
}
