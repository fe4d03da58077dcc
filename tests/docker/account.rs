// SPDX-License-Identifier: MIT
//! The account of a scenario: generated = received unique + counted drops, printed and required.

use std::time::Duration;

use serde_json::Value;

use crate::support::clients::Message;
use crate::support::oracle::{self, Verdict};
use crate::support::switch::{Delivered, Switch};
use crate::support::wait_for;

/// One sink's part of `rustbridge status json`.
pub fn status(node: &mut dyn Switch, sink: &str) -> Value {
    let all = node.json("rustbridge status json");
    let sinks = all["sinks"].as_array().expect("the status has sinks");
    let found = sinks.iter().find(|one| one["name"] == sink);
    found.unwrap_or_else(|| panic!("no sink {sink} in {all}")).clone()
}

pub fn number(status: &Value, name: &str) -> u64 {
    status[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {status}"))
}

/// What was dropped, for whatever reason.
pub fn dropped(status: &Value) -> u64 {
    status["dropped"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, count)| count.as_u64())
        .sum()
}

/// How many events a sink was offered that it wants.
pub fn wanted(status: &Value) -> u64 {
    number(status, "offered") - number(status, "filtered")
}

/// Waits until a sink has settled at least `count` events that it wants: delivered, dropped or dead, and none waits.
pub fn settle(node: &mut dyn Switch, sink: &str, count: u64, limit: Duration) -> Value {
    wait_for(limit, &format!("{sink} to settle {count} events"), || {
        let found = status(node, sink);
        (wanted(&found) >= count && number(&found, "waiting") == 0).then_some(found)
    })
}

/// Waits until at least so many events of a sink wait.
pub fn wait_waiting(node: &mut dyn Switch, sink: &str, count: u64, limit: Duration) {
    wait_for(limit, &format!("{count} events to wait for {sink}"), || {
        (number(&status(node, sink), "waiting") >= count).then_some(())
    });
}

/// Compares what was generated with what arrived and what was counted as dropped; prints the account and requires that it
/// balances, and that what arrived is intact and in order.
pub fn balance(what: &str, generated: &[Delivered], received: &[Message], dropped: u64) -> Verdict {
    let verdict = oracle::judge(generated, received);
    println!(
        "account of {what}: generated {} = received unique {} + dropped {dropped} ({} duplicates)",
        verdict.generated, verdict.received, verdict.duplicates
    );
    verdict.assert_sound();
    assert_eq!(
        u64::try_from(verdict.lost.len()).unwrap(),
        dropped,
        "{what}: missing are {}",
        oracle::ranges(&verdict.lost)
    );
    verdict
}

/// The same where nothing may be dropped.
pub fn complete(what: &str, generated: &[Delivered], received: &[Message]) -> Verdict {
    balance(what, generated, received, 0)
}
