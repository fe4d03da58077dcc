// SPDX-License-Identifier: MIT
//! Calls in a real FreeSWITCH, live: what arrives is held against what the core's own event socket says.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde_json::{Map, Value};

use crate::stage::{
    LIMIT, Stage, dropped, event_of, number, on_each_freeswitch, seq, wait_connected,
};
use crate::support::clients::Message;
use crate::support::freeswitch::{CoreEvents, FreeSwitch};
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

fn wait_no_calls(switch: &mut FreeSwitch) {
    wait_until(LIMIT * 2, "all calls to end", || {
        switch.api("show channels count").contains("0 total")
    });
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
        wait_no_calls(switch);
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
    let as_arrived = calls(in_order(kind, messages).into_iter());
    for (uuid, events) in as_told {
        assert_eq!(as_arrived[&uuid], events, "{kind}: {uuid}");
        for name in ["CHANNEL_CREATE ", "CHANNEL_HANGUP ", "CHANNEL_DESTROY "] {
            let times = events.iter().filter(|event| event.starts_with(name)).count();
            assert_eq!(times, 1, "{kind}: {name}of {uuid}: {events:?}");
        }
    }
}

/// Events by their number in the stream.
fn in_order(kind: &str, messages: &[Message]) -> Vec<Map<String, Value>> {
    let by_number: BTreeMap<u64, &Message> =
        messages.iter().map(|message| (seq(kind, message), message)).collect();
    by_number.into_values().map(event_of).collect()
}

/// The names of events, with a letter for the leg; only those asked for.
fn story(kind: &str, messages: &[Message], legs: &[(&str, &str)], names: &[&str]) -> Vec<String> {
    let events = in_order(kind, messages).into_iter();
    let told = events.filter_map(|event| {
        let name = text(&event, "Event-Name").strip_prefix("CHANNEL_")?;
        let (_, leg) = legs.iter().find(|(uuid, _)| *uuid == text(&event, "Unique-ID"))?;
        names.contains(&name).then(|| format!("{name} {leg}"))
    });
    told.collect()
}

const LIFE: [&str; 6] = ["CREATE", "ANSWER", "BRIDGE", "UNBRIDGE", "HANGUP", "DESTROY"];

fn position(story: &[String], what: &str) -> usize {
    let found: Vec<usize> = (0..story.len()).filter(|at| story[*at] == what).collect();
    assert_eq!(found.len(), 1, "{what} once in {story:?}");
    found[0]
}

fn wait_created(stage: &Stage, uuid: &str, name: &str) {
    wait_until(LIMIT, &format!("{name} of {uuid}"), || {
        stage.arrived("file").iter().any(|message| {
            let event = message.json();
            text(&event, "Unique-ID") == uuid && text(&event, "Event-Name") == name
        })
    });
}

#[test]
fn a_bridged_call_tells_both_legs_in_order_and_in_one_partition() {
    let test = "a_bridged_call_tells_both_legs_in_order_and_in_one_partition";
    on_each_freeswitch(test, |switch, stage| {
        let _core = load(switch);
        let (a, b) =
            ("aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000001");
        let line = format!(
            "originate {{origination_uuid={a}}}null/a &bridge([origination_uuid={b}]null/b)"
        );
        assert!(switch.api(&line).starts_with("+OK"));
        wait_created(stage, a, "CHANNEL_BRIDGE");
        switch.api(&format!("uuid_kill {a}"));
        wait_no_calls(switch);
        for (kind, _, messages) in stage.settle(switch) {
            let told = story(kind, &messages, &[(a, "A"), (b, "B")], &LIFE);
            let beginning = ["CREATE A", "ANSWER A", "CREATE B", "ANSWER B", "BRIDGE A"];
            let places = beginning.map(|what| position(&told, what));
            assert!(places.is_sorted(), "{kind}: {told:?}");
            for what in ["UNBRIDGE A", "HANGUP A", "HANGUP B", "DESTROY B", "DESTROY A"] {
                assert!(position(&told, what) > places[4], "{kind}: {told:?}");
            }
            if kind == "kafka" {
                let of_call = messages.iter().filter(|message| {
                    let event = message.json();
                    [a, b].contains(&text(&event, "Unique-ID"))
                });
                let partitions: BTreeMap<i64, Vec<String>> =
                    of_call.fold(BTreeMap::new(), |mut partitions, message| {
                        let event = message.json();
                        let what = format!(
                            "{} {} key {:?}",
                            text(&event, "Event-Name"),
                            text(&event, "Unique-ID").get(..1).unwrap_or_default(),
                            message.key
                        );
                        partitions.entry(message.partition).or_default().push(what);
                        partitions
                    });
                assert_eq!(partitions.len(), 1, "{partitions:#?}");
            }
        }
    });
}

#[test]
fn a_call_to_a_busy_line_tells_why_it_failed() {
    on_each_freeswitch("a_call_to_a_busy_line_tells_why_it_failed", |switch, stage| {
        let _core = load(switch);
        let a = "aaaaaaaa-0000-4000-8000-000000000002";
        switch.api(&format!(
            "originate {{origination_uuid={a}}}null/a &bridge(null/cause-USER_BUSY)"
        ));
        wait_no_calls(switch);
        // The far end rings, then rejects: a leg that is created and ends.
        let c = "cccccccc-0000-4000-8000-000000000003";
        switch
            .api(&format!("originate {{origination_uuid={c}}}null/c &bridge(loopback/busy/test)"));
        wait_no_calls(switch);
        for (kind, _, messages) in stage.settle(switch) {
            let events = in_order(kind, &messages);
            let created: Vec<&str> = events
                .iter()
                .filter(|event| text(event, "Event-Name") == "CHANNEL_CREATE")
                .map(|event| text(event, "Channel-Name"))
                .collect();
            assert_eq!(created[0], "null/a");
            assert_eq!(created.iter().filter(|name| name.starts_with("null/")).count(), 2);
            assert!(created.contains(&"loopback/busy-a"), "{created:?}");
            for uuid in [a, c] {
                let failed = events.iter().find(|event| {
                    text(event, "Event-Name") == "CHANNEL_EXECUTE_COMPLETE"
                        && text(event, "Unique-ID") == uuid
                        && text(event, "Application") == "bridge"
                });
                let failed = failed.unwrap_or_else(|| panic!("{kind}: the bridge of {uuid}"));
                assert_eq!(text(failed, "variable_originate_disposition"), "USER_BUSY", "{kind}");
                let told = story(kind, &messages, &[(uuid, "X")], &LIFE);
                position(&told, "DESTROY X");
            }
            let rejected = events.iter().find(|event| {
                text(event, "Event-Name") == "CHANNEL_HANGUP"
                    && text(event, "Channel-Name") == "loopback/busy-a"
            });
            let rejected = rejected.unwrap_or_else(|| panic!("{kind}: the far leg's end"));
            assert_eq!(text(rejected, "Hangup-Cause"), "USER_BUSY");
        }
    });
}

#[test]
fn channel_variables_and_sdp_are_plain_texts_in_the_json() {
    on_each_freeswitch("channel_variables_and_sdp_are_plain_texts_in_the_json", |switch, stage| {
        let _core = load(switch);
        let a = "aaaaaaaa-0000-4000-8000-000000000004";
        let variables = "crm_uuid=123,product_code=C68,dialed_user=1001,dialed_domain=d";
        let line = format!("originate {{origination_uuid={a},{variables}}}null/1001 &park()");
        assert!(switch.api(&line).starts_with("+OK"));
        let sdp = "v=0\r\no=FreeSWITCH 1 2 IN IP4 192.0.2.1\r\n";
        switch.fire(
            &crate::support::switch::Event::new("GENERAL")
                .header("variable_rtp_local_sdp_str", sdp),
        );
        switch.api(&format!("uuid_kill {a}"));
        wait_no_calls(switch);
        for (kind, _, messages) in stage.settle(switch) {
            let is_created = |message: &&Message| {
                let event = message.json();
                text(&event, "Event-Name") == "CHANNEL_CREATE" && text(&event, "Unique-ID") == a
            };
            let message = messages.iter().find(is_created).expect("the call is created");
            let event = event_of(message);
            for name in [
                "Event-Name",
                "Core-UUID",
                "FreeSWITCH-Hostname",
                "FreeSWITCH-Switchname",
                "FreeSWITCH-IPv4",
                "FreeSWITCH-IPv6",
                "Event-Date-Local",
                "Event-Date-GMT",
                "Event-Date-Timestamp",
                "Event-Calling-File",
                "Event-Calling-Function",
                "Event-Calling-Line-Number",
                "Event-Sequence",
                "Channel-State",
                "Channel-Call-State",
                "Channel-State-Number",
                "Channel-Name",
                "Unique-ID",
                "Call-Direction",
                "Presence-Call-Direction",
                "Channel-HIT-Dialplan",
                "Channel-Call-UUID",
                "Answer-State",
                "Caller-Direction",
                "Caller-Logical-Direction",
                "Caller-Caller-ID-Number",
                "Caller-Destination-Number",
                "Caller-Unique-ID",
                "Caller-Source",
                "Caller-Context",
                "Caller-Channel-Name",
                "Caller-Profile-Index",
                "Caller-Profile-Created-Time",
                "Caller-Channel-Created-Time",
                "Caller-Screen-Bit",
                "Caller-Privacy-Hide-Name",
                "Caller-Privacy-Hide-Number",
                "variable_direction",
                "variable_uuid",
                "variable_channel_name",
                "variable_origination_uuid",
            ] {
                assert!(
                    event.get(name).is_some_and(Value::is_string),
                    "{kind}: {name} of {event:#?}"
                );
            }
            for (name, value) in variables.split(',').filter_map(|pair| pair.split_once('=')) {
                assert_eq!(text(&event, &format!("variable_{name}")), value, "{kind}");
            }
            assert!(event.values().all(Value::is_string), "no nesting: {event:#?}");
            let with_sdp =
                messages.iter().find(|m| m.json().contains_key("variable_rtp_local_sdp_str"));
            let with_sdp = with_sdp.expect("the event with an SDP");
            assert_eq!(text(&with_sdp.json(), "variable_rtp_local_sdp_str"), sdp);
            let raw = String::from_utf8_lossy(&with_sdp.body).into_owned();
            assert!(raw.contains("v=0\\r\\no=FreeSWITCH 1 2"), "escaped as JSON does it: {raw}");
        }
    });
}
