// SPDX-License-Identifier: MIT
//! Calls and filters whose telling is the same wherever a FreeSWITCH runs: what is done to it, and what must then have
//! arrived. Who brought the messages is the caller's affair: an installed FreeSWITCH's files and brokers, or those of a
//! network of containers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value};

use super::clients::Message;
use super::switch::{Event, Switch};
use super::wait_until;

/// Nothing takes that long unless it hangs.
const LIMIT: Duration = Duration::from_secs(120);

fn text<'e>(event: &'e Map<String, Value>, name: &str) -> &'e str {
    event.get(name).and_then(Value::as_str).unwrap_or_default()
}

pub fn wait_no_calls(switch: &mut dyn Switch) {
    wait_until(LIMIT, "all calls to end", || switch.api("show channels count").contains("0 total"));
}

/// Events by their number in the stream.
pub fn in_order(messages: &[Message]) -> Vec<Map<String, Value>> {
    let by_number: BTreeMap<u64, &Message> =
        messages.iter().map(|message| (message.seq(), message)).collect();
    by_number.into_values().map(Message::event).collect()
}

// ---- two legs, bridged ----

const BRIDGED: [(&str, &str); 2] =
    [("aaaaaaaa-0000-4000-8000-000000000001", "A"), ("bbbbbbbb-0000-4000-8000-000000000001", "B")];
const LIFE: [&str; 6] = ["CREATE", "ANSWER", "BRIDGE", "UNBRIDGE", "HANGUP", "DESTROY"];

/// One call to another, ended once both are bridged. `so_far` are the messages of any sink.
pub fn make_bridged_call(switch: &mut dyn Switch, so_far: impl Fn() -> Vec<Message>) {
    let [(a, _), (b, _)] = BRIDGED;
    let line =
        format!("originate {{origination_uuid={a}}}null/a &bridge([origination_uuid={b}]null/b)");
    let answer = switch.api(&line);
    assert!(answer.starts_with("+OK"), "{answer}");
    wait_until(LIMIT, "the bridge", || {
        so_far().iter().any(|message| {
            let event = message.json();
            text(&event, "Unique-ID") == a && text(&event, "Event-Name") == "CHANNEL_BRIDGE"
        })
    });
    switch.api(&format!("uuid_kill {a}"));
    wait_no_calls(switch);
}

/// Each step of both legs once, and in the order in which calls go.
pub fn check_bridged_call(what: &str, messages: &[Message]) {
    let told = life(messages, &BRIDGED);
    let beginning = ["CREATE A", "ANSWER A", "CREATE B", "ANSWER B", "BRIDGE A"];
    let places = beginning.map(|step| position(&told, step));
    assert!(places.is_sorted(), "{what}: {told:?}");
    for step in ["UNBRIDGE A", "HANGUP A", "HANGUP B", "DESTROY B", "DESTROY A"] {
        assert!(position(&told, step) > places[4], "{what}: {told:?}");
    }
}

/// Both legs of the call went through one partition of the topic.
pub fn check_one_partition(messages: &[Message]) {
    let of_call = messages.iter().filter(|message| {
        let event = message.json();
        BRIDGED.iter().any(|(uuid, _)| *uuid == text(&event, "Unique-ID"))
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

/// The steps of these legs' lives, with a letter for the leg.
fn life(messages: &[Message], legs: &[(&str, &str)]) -> Vec<String> {
    let told = in_order(messages).into_iter().filter_map(|event| {
        let name = text(&event, "Event-Name").strip_prefix("CHANNEL_")?;
        let (_, leg) = legs.iter().find(|(uuid, _)| *uuid == text(&event, "Unique-ID"))?;
        LIFE.contains(&name).then(|| format!("{name} {leg}"))
    });
    told.collect()
}

fn position(story: &[String], what: &str) -> usize {
    let found: Vec<usize> = (0..story.len()).filter(|at| story[*at] == what).collect();
    assert_eq!(found.len(), 1, "{what} once in {story:?}");
    found[0]
}

// ---- calls that fail ----

/// Of the call whose far end is busy at once, and of the one whose far end rings and then rejects.
const FAILED: [&str; 2] =
    ["aaaaaaaa-0000-4000-8000-000000000002", "cccccccc-0000-4000-8000-000000000003"];

/// Two calls that fail; `loopback/busy/<context>` has to ring and reject.
pub fn make_failed_calls(switch: &mut dyn Switch) {
    let [a, c] = FAILED;
    for (uuid, name, to) in
        [(a, "null/a", "null/cause-USER_BUSY"), (c, "null/c", "loopback/busy/test")]
    {
        switch.api(&format!("originate {{origination_uuid={uuid}}}{name} &bridge({to})"));
        wait_no_calls(switch);
    }
}

/// Why they failed is told; a far leg is only where one rang, and it says its cause too.
pub fn check_failed_calls(what: &str, messages: &[Message]) {
    let events = in_order(messages);
    let created: Vec<&str> = events
        .iter()
        .filter(|event| text(event, "Event-Name") == "CHANNEL_CREATE")
        .map(|event| text(event, "Channel-Name"))
        .collect();
    assert_eq!(created[0], "null/a", "{what}");
    let near = created.iter().filter(|name| name.starts_with("null/"));
    assert_eq!(near.count(), 2, "{what}: {created:?}");
    assert!(created.contains(&"loopback/busy-a"), "{what}: {created:?}");
    for uuid in FAILED {
        let failed = events.iter().find(|event| {
            text(event, "Event-Name") == "CHANNEL_EXECUTE_COMPLETE"
                && text(event, "Unique-ID") == uuid
                && text(event, "Application") == "bridge"
        });
        let failed = failed.unwrap_or_else(|| panic!("{what}: the bridge of {uuid}"));
        assert_eq!(text(failed, "variable_originate_disposition"), "USER_BUSY", "{what}");
        position(&life(messages, &[(uuid, "X")]), "DESTROY X");
    }
    let rejected = events.iter().find(|event| {
        text(event, "Event-Name") == "CHANNEL_HANGUP"
            && text(event, "Channel-Name") == "loopback/busy-a"
    });
    let rejected = rejected.unwrap_or_else(|| panic!("{what}: the far leg's end"));
    assert_eq!(text(rejected, "Hangup-Cause"), "USER_BUSY", "{what}");
}

// ---- what stands in the JSON ----

const DESCRIBED: &str = "aaaaaaaa-0000-4000-8000-000000000004";
const VARIABLES: &str = "crm_uuid=123,product_code=C68,dialed_user=1001,dialed_domain=d";
const SDP: &str = "v=0\r\no=FreeSWITCH 1 2 IN IP4 192.0.2.1\r\n";

/// Every call has these.
const ALWAYS: [&str; 40] = [
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
];

/// A call with variables, and an event with a text of several lines.
pub fn make_described_call(switch: &mut dyn Switch) {
    let line = format!("originate {{origination_uuid={DESCRIBED},{VARIABLES}}}null/1001 &park()");
    let answer = switch.api(&line);
    assert!(answer.starts_with("+OK"), "{answer}");
    switch.fire(&Event::new("GENERAL").header("variable_rtp_local_sdp_str", SDP));
    switch.api(&format!("uuid_kill {DESCRIBED}"));
    wait_no_calls(switch);
}

/// Every member is a text, none is nested, variables are there by their names, and line ends are escaped as JSON does it.
pub fn check_described_call(what: &str, messages: &[Message]) {
    let is_created = |message: &&Message| {
        let event = message.json();
        text(&event, "Event-Name") == "CHANNEL_CREATE" && text(&event, "Unique-ID") == DESCRIBED
    };
    let event = messages.iter().find(is_created).expect("the call is created").event();
    for name in ALWAYS.iter().chain(["variable_origination_uuid"].iter()) {
        assert!(event.get(*name).is_some_and(Value::is_string), "{what}: {name} of {event:#?}");
    }
    for (name, value) in VARIABLES.split(',').filter_map(|pair| pair.split_once('=')) {
        assert_eq!(text(&event, &format!("variable_{name}")), value, "{what}");
    }
    assert!(event.values().all(Value::is_string), "{what}: no nesting: {event:#?}");
    let with_sdp = messages.iter().find(|m| m.json().contains_key("variable_rtp_local_sdp_str"));
    let with_sdp = with_sdp.expect("the event with an SDP");
    assert_eq!(text(&with_sdp.json(), "variable_rtp_local_sdp_str"), SDP, "{what}");
    let raw = String::from_utf8_lossy(&with_sdp.body).into_owned();
    assert!(raw.contains("v=0\\r\\no=FreeSWITCH 1 2"), "{what}: escaped as JSON does it: {raw}");
}

// ---- which events a sink wants ----

/// An event's name and, for a custom one, its subclass.
type Kind<'k> = (&'k str, &'k str);

/// A text of `events`, and which events it asks for.
type Filter = (&'static str, fn(Kind<'_>) -> bool);

pub const FILTERS: [Filter; 10] = [
    ("ALL", |_| true),
    ("CHANNEL_CREATE SWITCH_EVENT_CHANNEL_ANSWER heartbeat", |(name, _)| {
        ["CHANNEL_CREATE", "CHANNEL_ANSWER", "HEARTBEAT"].contains(&name)
    }),
    ("CHANNEL_*", |(name, _)| name.starts_with("CHANNEL_")),
    ("RECORD_ST???", |(name, _)| name == "RECORD_START"),
    ("CUSTOM", |(name, _)| name == "CUSTOM"),
    ("CUSTOM story::one other::three CHANNEL_DESTROY", |(name, subclass)| {
        name == "CHANNEL_DESTROY" || ["story::one", "other::three"].contains(&subclass)
    }),
    ("CUSTOM^story::two,SWITCH_EVENT_CUSTOM::other::three", |(_, subclass)| {
        ["story::two", "other::three"].contains(&subclass)
    }),
    ("story::* API", |(name, subclass)| name == "API" || subclass.starts_with("story::")),
    ("ALL !CHANNEL_* -CUSTOM", |(name, _)| !name.starts_with("CHANNEL_") && name != "CUSTOM"),
    ("!CUSTOM^story::one -HEARTBEAT", |(name, subclass)| {
        subclass != "story::one" && name != "HEARTBEAT"
    }),
];

const SUBCLASSES: [&str; 3] = ["story::one", "story::two", "other::three"];
/// What the fired events are known by among the switch's own.
const MARK: &str = "Story-Filter";

/// Fires one event of every name that the switch has, and custom ones of three subclasses; says which. `put` keeps a text
/// where the switch can read it, and gives the path.
pub fn fire_every_event(
    switch: &mut dyn Switch,
    put: impl FnOnce(&str) -> String,
) -> Vec<(String, String)> {
    let known = switch.json("rustbridge events json");
    let names = known.as_object().expect("events by name").keys();
    // The core gives copies the name CLONE while it makes them, and no name to an event that is fired as one.
    let names = names.filter(|name| !["CUSTOM", "CLONE"].contains(&name.as_str()));
    let events: Vec<Event> = names
        .map(|name| Event::new(name))
        .chain(SUBCLASSES.map(Event::custom))
        .map(|event| event.header(MARK, "fired"))
        .collect();
    assert!(events.len() > 85, "{events:?}");
    let lines: String = events.iter().map(|event| format!("0 {}\n", event.line())).collect();
    let answer = switch.generate(&format!("play {} 0", put(&lines)));
    assert!(answer.contains(&format!("+OK n={} ", events.len())), "{answer}");
    events.into_iter().map(|event| (event.name, event.subclass.unwrap_or_default())).collect()
}

/// A sink with the filter of this number has got exactly those of the fired events that the filter asks for, each once.
pub fn check_filter(what: &str, number: usize, fired: &[(String, String)], messages: &[Message]) {
    let (filter, wants) = FILTERS[number];
    let marked = messages.iter().map(Message::json).filter(|event| text(event, MARK) == "fired");
    let mut got: Vec<(String, String)> = marked
        .map(|event| (text(&event, "Event-Name").into(), text(&event, "Event-Subclass").into()))
        .collect();
    got.sort();
    let asked = fired.iter().filter(|(name, subclass)| wants((name, subclass)));
    let asked: BTreeSet<(String, String)> = asked.cloned().collect();
    assert_eq!(got, asked.into_iter().collect::<Vec<_>>(), "{what}: events=\"{filter}\"");
}
