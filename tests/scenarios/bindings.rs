// SPDX-License-Identifier: MIT
//! Which events reach a consumer that binds to one call alone. What a sink's own filter lets through is in `calls`.

use std::collections::{BTreeMap, BTreeSet};

use crate::stage::{LIMIT, on_each_freeswitch, on_each_switch, wait_connected};
use crate::support::clients::Consumer;
use crate::support::switch::{Event, Switch as _};
use crate::support::wait_until;

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
                let member = |name: &str| event[name].as_str().unwrap().to_owned();
                (member("Event-Sequence"), member("Event-Name"))
            })
            .collect();
        assert_eq!(told, got);
        let names: BTreeMap<&str, usize> =
            got.iter().fold(BTreeMap::new(), |mut names, (_, name)| {
                *names.entry(name.as_str()).or_default() += 1;
                names
            });
        let single: BTreeSet<&str> =
            names.iter().filter(|(_, count)| **count == 1).map(|(name, _)| *name).collect();
        for name in ["CHANNEL_CREATE", "CHANNEL_ANSWER", "CHANNEL_PARK", "CHANNEL_DESTROY"] {
            assert!(single.contains(name), "{name}: {names:?}");
        }
    });
}
