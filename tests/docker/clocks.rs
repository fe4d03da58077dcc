// SPDX-License-Identifier: MIT
//! Containers whose clocks differ, by libfaketime: a kernel's time namespaces leave the time of day alone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::account;
use crate::engine::ask;
use crate::ground::{Broker, GENERATED, Ground, ground};
use crate::node::Node;
use crate::support::clients::Message;
use crate::support::switch::{Delivered, Load, Switch};
use crate::support::{Folder, skips};

const LIMIT: Duration = Duration::from_secs(90);
/// Where Debian's package keeps it, and where a container gets it.
const IN_CLIENT: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const IN_NODE: &str = "/test/libfaketime.so";

fn seconds_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(since.as_secs()).unwrap()
}

/// A node whose time of day is `skew` away from everybody else's; intervals are as long as ever.
fn node<'a>(ground: &'a Ground, library: &str, skew: &str, sinks: &[String]) -> Node<'a> {
    let mount = format!("{library}:{IN_NODE}:ro");
    let (preload, skew) = (format!("LD_PRELOAD={IN_NODE}"), format!("FAKETIME={skew}"));
    let options = [
        "-v",
        &mount,
        "-e",
        &preload,
        "-e",
        &skew,
        "-e",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        "-e",
        "FAKETIME_DONT_RESET=1",
    ];
    Node::with(ground, "fs1", sinks, &ground.run.test[0], &options)
}

/// Events of a switch whose clock is `skew` off arrive, all of them, dated by the switch.
fn arrives_with_its_own_dates(test: &str, skew: &str, seconds: i64) {
    let Some(ground) = ground(test) else { return };
    let bytes = ground.file_of_if_any(&ground.run.client, IN_CLIENT);
    let Some(bytes) = bytes else {
        skips::note(
            &format!("docker::{test}"),
            "the image of clients has no libfaketime for this architecture",
            "a Debian mirror that has the package libfaketime, for amd64",
        );
        return;
    };
    let folder = Folder::new("clock");
    let library = folder.write("libfaketime.so", bytes);
    drop(ground.consume(Broker::RabbitMq, test));
    let sinks = Broker::ALL.map(|broker| broker.sink(test, GENERATED, &[]));
    let mut node = node(&ground, library.to_str().unwrap(), skew, &sinks);
    let told = ask(&["exec", &node.name, "date", "+%s"]).expect("the container tells its time");
    let off = told.trim().parse::<i64>().expect("seconds") - seconds_now();
    assert!((off - seconds).abs() < 120, "the container's clock is {off} s off, not {seconds}");
    let load = Load { count: 2000, rate: 1000, kind: "custom", ..Load::default() };
    let generated: [Delivered; 1] = [node.deliver(&load)];
    for broker in Broker::ALL {
        let status = account::settle(&mut node, broker.alias(), 2000, LIMIT);
        let received = ground.read(broker, test, 2000, LIMIT);
        let what = format!("{}, clock {skew}", broker.alias());
        account::complete(&what, &generated, &received);
        assert_eq!(account::number(&status, "dead"), 0, "{status}");
        for message in &received {
            let date = dated(message);
            let away = date - seconds_now();
            assert!((away - seconds).abs() < 300, "{what}: dated {away} s from now: {message:?}");
        }
    }
}

/// Seconds since 1970, as the message's own header has it.
fn dated(message: &Message) -> i64 {
    let name =
        if message.headers.contains_key("timestamp-us") { "timestamp-us" } else { "timestamp_us" };
    let us: i64 = message.headers[name].parse().expect("microseconds");
    us / 1_000_000
}

#[test]
fn a_switch_whose_clock_is_two_days_behind_loses_nothing() {
    arrives_with_its_own_dates("clock_behind", "-2d", -2 * 24 * 3600);
}

/// Kafka takes no record that is dated more than an hour ahead of its own clock; less than that is no matter.
#[test]
fn a_switch_whose_clock_is_fifty_minutes_ahead_loses_nothing() {
    arrives_with_its_own_dates("clock_ahead", "+50m", 50 * 60);
}
