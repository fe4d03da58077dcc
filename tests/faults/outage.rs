// SPDX-License-Identifier: MIT
//! The broker goes: by `kill -9`, for a long time, without a word, or because it asks for a pause.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::bench::{Row, assert_balanced, dropped, generated, is_large, on_disk, size};
use crate::broker::Kind;
use crate::consumers;
use crate::support::proxy::{Mode, Proxy};
use crate::support::switch::{Delivered, Load};

/// F1. Events flow all the time, and the broker dies while they do.
pub(crate) fn killed_again_and_again(row: &mut Row<'_>) {
    killed(row, size(3, 10));
}

/// F1 in a real FreeSWITCH.
pub(crate) fn killed_in_freeswitch(row: &mut Row<'_>) {
    killed(row, size(1, 10));
}

/// Events flow until the last kill is over, and some are delivered before each. At the large size there are a million of them or more,
/// five thousand a second, and the broker is down for one to eight seconds and then as long as it takes to start.
fn killed(row: &mut Row<'_>, kills: u64) {
    consumers::prepare(row);
    // The bound that the row is held to; it is as much as a broker next door needs.
    let (fixed, window): (&[_], _) = match row.broker.kind() {
        Kind::RabbitMq => (&[("confirm-window", "1024")], 1024),
        Kind::Kafka => (&[], 0),
    };
    row.begin(fixed);
    let rate = u32::try_from(size(250, 5000)).unwrap();
    // Small ones, so that those of ten restarts are not more than this program has memory for.
    let headers = if is_large() { 4 } else { 20 };
    let load = Load { count: size(100_000, 50_000_000), rate, headers, ..Load::default() };
    let flow = row.flow(&load);
    // Any times will do, the same in each run.
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..kills {
        let before = row.sink()["delivered"].as_u64().unwrap();
        row.wait_sink("events to flow", |sink| {
            sink["delivered"].as_u64().is_some_and(|now| now > before + size(300, 20_000))
        });
        row.broker.kill();
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let down = size(0, 1000 + dice % 7001) * u64::from(rate) / 1000;
        let come = generated(&row.sink());
        row.wait_sink("the spool to be used, and events to come meanwhile", |sink| {
            sink["spool"]["records"].as_u64().is_some_and(|n| n > 50)
                && generated(sink) > come + down
        });
        row.broker.start_again();
    }
    row.wait_sink("the connection, and enough events", |sink| {
        sink["state"] == "connected" && generated(sink) >= size(0, 1_000_000)
    });
    let flowed = row.ended(flow);
    assert!(flowed.count < load.count, "events have flowed all the time: {flowed:?}");
    let sent = [first_ten(), flowed];
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    let (verdict, _) = row.judge(&sent, 0, window * usize::try_from(kills).unwrap());
    consumers::check(row, verdict.generated, 0);
}

/// F1 with a list of two brokers. The first goes while events flow; when it is back, the sink returns to it although they still
/// do, and that costs no duplicates.
///
/// Two addresses of one node, so that one queue has everything in the order it came.
pub(crate) fn first_returned_to(row: &mut Row<'_>) {
    let first = Proxy::to(row.broker.port());
    let second = row.broker.port();
    row.broker.keep(&row.place, "#");
    let url = |port: u16| format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
    let brokers = format!("{},{}", url(first.port()), url(second));
    row.configure_by(first.port(), &[("url", &brokers), ("return-to-primary-ms", "500")]);
    row.host.load().expect("the module loads");
    let is_at = |sink: &serde_json::Value, port: u16| {
        let peer = sink["peer"].as_str().unwrap_or_default();
        sink["state"] == "connected" && peer.ends_with(&format!(":{port}"))
    };
    row.wait_sink("the first broker", |sink| is_at(sink, first.port()));
    let flow = row.flow(&Load { count: 10_000_000, rate: 3000, ..Load::default() });
    for _ in 0..size(2, 20) {
        row.wait_sink("events to flow", |sink| sink["delivered"].as_u64().is_some_and(|n| n > 500));
        first.set(Mode::Refuse);
        let sink = row.wait_sink("the second broker", |sink| is_at(sink, second));
        let table = row.host.api("rustbridge sinks");
        assert!(table.contains(&format!("127.0.0.1:{second} ")), "the broker in use: {table}");
        let before = sink["delivered"].as_u64().unwrap();
        row.wait_sink("deliveries by the second", |sink| {
            sink["delivered"].as_u64().is_some_and(|now| now > before + 500)
        });
        first.set(Mode::Pass);
        row.wait_sink("the first broker again", |sink| is_at(sink, first.port()));
    }
    let sent = row.ended(flow);
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    // Only the losses are in this: going back counts as none.
    assert_eq!(sink["reconnects"], size(2, 20), "{sink:#}");
    let resent = row.resent_max();
    row.judge(&[sent], 0, resent);
}

/// What [`Row::begin`] has sent.
pub(crate) fn first_ten() -> Delivered {
    Delivered { count: 10, first: 1, last: 10, ..Delivered::default() }
}

/// F2. The broker is away for long; everything waits on disk, and new events come in behind it in order.
pub(crate) fn away_with_spool(row: &mut Row<'_>) {
    // Room for all that are made at once: a publisher that the machine keeps waiting is not what is tried here.
    row.begin(&[("queue-capacity", &size(8192, 32_768).to_string())]);
    row.broker.kill();
    row.wait_loss();
    let rate = u32::try_from(size(4000, 5000)).unwrap();
    let outage = row.host.deliver(&Load { count: size(4000, 200_000), rate, ..Load::default() });
    let sink = row.wait_sink("everything to be on disk", |sink| on_disk(sink, outage.count));
    assert_eq!(dropped(&sink), 0, "{sink:#}");
    assert!(sink["spool"]["durable_seq"].as_u64().is_some(), "{sink:#}");
    row.broker.start_again();
    let behind = row.deliver(size(1000, 20_000));
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    let window = row.broker.kind().window();
    row.judge(&[first_ten(), outage, behind], 0, window);
}

/// F3. No disk, a small queue, and more events than it holds: what is dropped is counted, and told number by number.
pub(crate) fn away_without_spool(row: &mut Row<'_>) {
    consumers::prepare(row);
    row.begin(&[("spool-mode", "off"), ("queue-capacity", "1000")]);
    row.broker.kill();
    row.wait_loss();
    let lines = row.host.log().lines().count();
    let flood = row.deliver(size(5000, 500_000));
    let said = row.host.log().lines().count() - lines;
    assert!(said < 20, "{said} lines in the log about {} drops", flood.count);
    row.broker.start_again();
    row.wait_sink("the connection", |sink| sink["state"] == "connected");
    row.wait_all_delivered();
    let behind = row.deliver(200);
    let sink = row.wait_all_delivered();
    assert_balanced(&sink);
    let lost = dropped(&sink);
    assert_eq!(sink["dropped"]["queue-full"], lost, "{sink:#}");
    assert!(lost > flood.count / 2 && lost < flood.count, "{sink:#}");
    // The drops came behind what was sent last, so the gap may still be on its way.
    row.wait_sink("the gap record", |sink| sink["gaps"].as_u64().is_some_and(|gaps| gaps > 0));
    let window = row.broker.kind().window();
    let (verdict, stream) = row.judge(&[first_ten(), flood, behind], lost, window);
    // One thread has generated everything there is, so the number in the stream is the event's own.
    assert_eq!(stream.told, verdict.lost.iter().copied().collect::<BTreeSet<u64>>());
    assert_eq!(stream.reasons.get("queue-full"), Some(&lost), "{:?}", stream.reasons);
    consumers::check(row, verdict.received, lost);
}

/// What F4 has agreed on with RabbitMQ.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// F4. Everything is swallowed: no answer, no end. Found by the heartbeat, and nothing is lost.
///
/// A Kafka client goes to the address that the broker names, so there the broker itself falls silent.
pub(crate) fn silent(row: &mut Row<'_>) {
    let count = size(2000, 60_000);
    let sent = match row.broker.kind() {
        Kind::RabbitMq => {
            let proxy = Proxy::to(row.broker.port());
            row.broker.keep(&row.place, "#");
            let heartbeat = HEARTBEAT.as_millis().to_string();
            row.configure_by(
                proxy.port(),
                // A confirm is waited for longer than this row waits for anything.
                &[("heartbeat-ms", &heartbeat), ("confirm-timeout-ms", "3600000")],
            );
            row.host.load().expect("the module loads");
            row.wait_sink("the connection", |sink| sink["state"] == "connected");
            let before = row.deliver(500);
            row.wait_all_delivered();
            let flow = row.flow(&Load { count, rate: 2000, ..Load::default() });
            row.wait_sink("events to flow", |sink| {
                sink["delivered"].as_u64().is_some_and(|now| now > before.count + 100)
            });
            proxy.set(Mode::Blackhole);
            let silent = Instant::now();
            row.wait_sink("the heartbeat to miss", |sink| sink["state"] != "connected");
            let silent = silent.elapsed();
            // It is seen after two. A slow machine may take a while to say so, but not until a third.
            let bound = HEARTBEAT * 2 + HEARTBEAT * 3 / 4;
            assert!(
                !is_large() || silent < bound,
                "two heartbeats of {HEARTBEAT:?} took {silent:?}"
            );
            let within = Delivered::parse(&flow.finish());
            proxy.set(Mode::Pass);
            let sink = row.wait_all_delivered();
            assert!(sink["reconnects"].as_u64().is_some_and(|n| n > 0), "{sink:#}");
            assert_eq!(row.lines_with("two heartbeats passed"), 1, "{}", row.host.log());
            vec![before, within]
        }
        Kind::Kafka => {
            row.begin(&[]);
            row.broker.pause();
            let within = row.deliver(count);
            let waiting = row.sink()["waiting"].as_u64().unwrap();
            assert_eq!(waiting, within.count, "nothing is acknowledged");
            row.broker.resume();
            row.wait_all_delivered();
            vec![first_ten(), within]
        }
    };
    let sink = row.sink();
    assert_balanced(&sink);
    let resent = row.resent_max();
    row.judge(&sent, 0, resent);
}

/// F7. A memory alarm: the broker asks for a pause, and events wait on disk until it is over.
pub(crate) fn alarm(row: &mut Row<'_>) {
    row.begin(&[("queue-capacity", &size(4096, 32_768).to_string())]);
    row.broker.rabbitmq().set_memory_alarm(true);
    // The broker says so to the connection that publishes next.
    let first = row.deliver(10);
    row.wait_sink("the request for a pause", |sink| sink["state"] == "blocked");
    let rate = u32::try_from(size(4000, 2000)).unwrap();
    let within = row.host.deliver(&Load { count: size(8000, 120_000), rate, ..Load::default() });
    let sink = row.sink();
    assert_eq!((sink["state"].as_str(), dropped(&sink)), (Some("blocked"), 0), "{sink:#}");
    let (before, mut states) = (sink["delivered"].clone(), Vec::new());
    row.broker.rabbitmq().set_memory_alarm(false);
    // The broker has said so by now: `rabbitmqctl` waits for that, and then takes a moment to end.
    let over = Instant::now();
    row.wait_sink("deliveries to go on", |sink| {
        states.push(sink["state"].as_str().unwrap_or_default().to_owned());
        sink["state"] == "connected" && sink["delivered"].as_u64() > before.as_u64()
    });
    let resumed = over.elapsed();
    states.dedup();
    assert!(matches!(states.join(" ").as_str(), "connected" | "blocked connected"), "{states:?}");
    eprintln!("{}: deliveries went on {resumed:?} after the alarm", row.name);
    // It takes a look at the socket. Where other rows run beside it, how long is not for this row to say.
    assert!(!is_large() || resumed < Duration::from_secs(3), "{resumed:?}");
    let sink = row.wait_all_delivered();
    let blocked = sink["blocked_ms"].clone();
    assert!(blocked.as_u64().is_some_and(|ms| ms > 0), "{sink:#}");
    // It is over: what comes now waits for nothing, and the time counts no further.
    let behind = row.deliver(100);
    let sink = row.wait_all_delivered();
    assert_eq!((&sink["state"], &sink["blocked_ms"]), (&"connected".into(), &blocked), "{sink:#}");
    assert_eq!(sink["reconnects"], 0, "{sink:#}");
    assert_balanced(&sink);
    for words in ["asks for a pause", "takes messages again"] {
        assert_eq!(row.lines_with(words), 1, "{words}: {}", row.host.log());
    }
    row.judge(&[first_ten(), first, within, behind], 0, 0);
}
