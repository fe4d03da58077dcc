// SPDX-License-Identifier: MIT
//! Which events reach whom: what a sink selects, and what a consumer binds to.

use std::collections::{BTreeMap, BTreeSet};

use mod_rustbridge::event::names::EVENTS;

use crate::stage::{
    self, LIMIT, on_each_freeswitch, on_each_switch, wait_balanced, wait_connected,
};
use crate::support::clients::{self, Consumer};
use crate::support::switch::{Event, Switch as _};
use crate::support::wait_until;

/// What a sink asks for, and whether that is this event of this subclass: written out here a second time.
type Filter = (&'static str, fn(&str, &str) -> bool);

const FILTERS: [Filter; 12] = [
    ("ALL", |_, _| true),
    ("CHANNEL_*", |name, _| name.starts_with("CHANNEL_")),
    ("ALL !CHANNEL_* !heartbeat", |name, _| !name.starts_with("CHANNEL_") && name != "HEARTBEAT"),
    ("!RE_SCHEDULE", |name, _| name != "RE_SCHEDULE"),
    ("SWITCH_EVENT_CALL_DETAIL,CHANNEL_HANGUP_COMPLETE", |name, _| {
        ["CALL_DETAIL", "CHANNEL_HANGUP_COMPLETE"].contains(&name)
    }),
    ("CUSTOM", |name, _| name == "CUSTOM"),
    ("ALL !CUSTOM", |name, _| name != "CUSTOM"),
    ("CUSTOM sofia::register callcenter::* HEARTBEAT", |name, subclass| {
        subclass == "sofia::register" || subclass.starts_with("callcenter::") || name == "HEARTBEAT"
    }),
    ("CUSTOM^conference::maintenance", |_, subclass| subclass == "conference::maintenance"),
    ("SWITCH_EVENT_CUSTOM::sofia::register DTMF", |name, subclass| {
        subclass == "sofia::register" || name == "DTMF"
    }),
    ("CUSTOM !sofia::*", |name, subclass| name == "CUSTOM" && !subclass.starts_with("sofia::")),
    ("RECORD_ST??? *_STATE", |name, _| {
        ["RECORD_START"].contains(&name) || name.ends_with("_STATE")
    }),
];

const CUSTOMS: [&str; 6] = [
    "sofia::register",
    "sofia::unregister",
    "callcenter::info",
    "conference::maintenance",
    "conference::cdr",
    "x",
];

#[test]
fn twelve_filters_get_exactly_their_events_of_all_there_are() {
    on_each_switch("twelve_filters_get_exactly_their_events_of_all_there_are", |switch, stage| {
        let folder = |number: usize| stage.folder.join(&format!("filtered-{number}"));
        let sinks: String = FILTERS
            .iter()
            .enumerate()
            .map(|(number, (events, _))| {
                let path = format!("{}/events.ndjson", folder(number).display());
                stage::sink(&format!("filter{number}"), "file", events, &[("path", &path)], "")
            })
            .collect();
        switch.configure(&stage.document(&sinks));
        switch.load().expect("the module loads");
        wait_connected(switch);
        let known = switch.json("rustbridge events json");
        let names = EVENTS.iter().filter(|name| known.get(**name).is_some());
        let mut fired: Vec<(&str, &str)> = names
            // CLONE is the empty frame that the core copies events into: it has no name of its own to be told by.
            .filter(|name| !["CUSTOM", "CLONE"].contains(*name))
            .map(|name| (*name, ""))
            .chain(CUSTOMS.map(|subclass| ("CUSTOM", subclass)))
            .collect();
        assert!(fired.len() >= 96, "{}", fired.len());
        for (name, subclass) in &fired {
            let event =
                if subclass.is_empty() { Event::new(name) } else { Event::custom(subclass) };
            switch.fire(&event.header("Filter-Test", "1"));
        }
        fired.sort_unstable();
        switch.flush();
        wait_balanced(switch);
        for (number, (events, wants)) in FILTERS.iter().enumerate() {
            let expected: Vec<(String, String)> = fired
                .iter()
                .filter(|(name, subclass)| wants(name, subclass))
                .map(|(name, subclass)| ((*name).to_owned(), (*subclass).to_owned()))
                .collect();
            let mut found = Vec::new();
            for message in clients::read_ndjson(&folder(number)) {
                let event = message.json();
                let text = |name: &str| {
                    event.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
                };
                if text("Filter-Test") == "1" {
                    found.push((text("Event-Name"), text("Event-Subclass")));
                }
            }
            found.sort_unstable();
            assert_eq!(expected, found, "{events}");
        }
    });
}

/// A call's id is the last word of the routing key, encoded: who binds to it gets this call and nothing else, in order.
#[test]
fn a_binding_to_one_call_gets_exactly_its_events_in_order() {
    on_each_switch("a_binding_to_one_call_gets_exactly_its_events_in_order", |switch, stage| {
        let Some((rabbit, _)) = &stage.rabbit else { return };
        switch.load().expect("the module loads");
        wait_connected(switch);
        let key = "event.*.*.*.leg%2Eone+%2A%23";
        let one = Consumer::amqp(&rabbit.url(), &stage.exchange, key, None);
        let calls = ["leg.one *#", "leg.one", "leg", "leg.one *#.", "one *#"];
        for round in 0..40 {
            for call in calls {
                let event = Event::new("CHANNEL_STATE").header("Unique-ID", call);
                switch.fire(&event.header("Round", round.to_string()));
            }
        }
        stage.settle(switch);
        wait_until(LIMIT, "the events of the call", || one.count() >= 40);
        let rounds: Vec<String> = one
            .messages()
            .iter()
            .map(|message| {
                let event = message.json();
                assert_eq!(event["Unique-ID"], calls[0]);
                event["Round"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(rounds, (0..40).map(|round| round.to_string()).collect::<Vec<_>>());
    });
}

#[test]
fn a_binding_to_one_live_call_gets_what_the_core_tells_of_it() {
    let test = "a_binding_to_one_live_call_gets_what_the_core_tells_of_it";
    on_each_freeswitch(test, |switch, stage| {
        let Some((rabbit, _)) = &stage.rabbit else { return };
        switch.load().expect("the module loads");
        wait_connected(switch);
        let core = switch.core_events();
        let (mine, other) = ("call.one-1", "call.one-2");
        let key = "event.*.*.*.call%2Eone-1";
        let one = Consumer::amqp(&rabbit.url(), &stage.exchange, key, None);
        for call in [mine, other] {
            let line = format!("originate {{origination_uuid={call}}}null/{call} &park()");
            assert!(switch.api(&line).starts_with("+OK"), "{call}");
        }
        for call in [mine, other] {
            switch.api(&format!("uuid_kill {call}"));
        }
        let told = || {
            let numbers = core
                .so_far()
                .into_iter()
                .filter(|event| event.get("Unique-ID").is_some_and(|uuid| uuid == mine));
            numbers
                .map(|event| {
                    let number = event["Event-Sequence"].as_str().unwrap().to_owned();
                    (number, event["Event-Name"].as_str().unwrap().to_owned())
                })
                .collect::<Vec<_>>()
        };
        wait_until(LIMIT, "the end of the call", || {
            told().iter().any(|(_, name)| name == "CHANNEL_DESTROY")
        });
        stage.settle(switch);
        let told = told();
        wait_until(LIMIT, "all events of the call", || one.count() >= told.len());
        let got: Vec<(String, String)> = one
            .messages()
            .iter()
            .map(|message| {
                let event = message.json();
                let text = |name: &str| event[name].as_str().unwrap().to_owned();
                (text("Event-Sequence"), text("Event-Name"))
            })
            .collect();
        assert_eq!(told, got);
        let names: BTreeMap<&str, usize> =
            got.iter().fold(BTreeMap::new(), |mut names, (_, name)| {
                *names.entry(name.as_str()).or_default() += 1;
                names
            });
        let once: BTreeSet<&str> =
            names.iter().filter(|(_, count)| **count == 1).map(|(name, _)| *name).collect();
        for name in ["CHANNEL_CREATE", "CHANNEL_ANSWER", "CHANNEL_PARK", "CHANNEL_DESTROY"] {
            assert!(once.contains(name), "{name}: {names:?}");
        }
    });
}
