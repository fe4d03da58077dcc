// SPDX-License-Identifier: MIT
//! The Kafka sink against a real Apache Kafka, read back with `kcat`, and against librdkafka's
//! mock cluster for the errors that a real broker cannot be made to give.
#![cfg(feature = "kafka")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::as_conversions,
    reason = "a test that cannot go on stops with a panic that says why"
)]

mod broker;
mod driver;
mod mock;
mod refusals;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mod_rustbridge::config::kafka::Compression;
use mod_rustbridge::event::Record;
use mod_rustbridge::sink::{Class, Outcome, Sink, SinkError};

use broker::{Broker, Received, available};
use driver::{Driver, config, event, published};

/// `n` events of `calls` calls.
fn events(n: usize, calls: usize) -> Vec<Record> {
    (0..n).map(|at| event(at, &format!("call-{}", at % calls), 300)).collect()
}

/// The event numbers of each key, in the order in which a consumer sees them.
fn by_key(received: &[Received]) -> BTreeMap<&str, Vec<u64>> {
    let mut keys: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for message in received {
        let seq = message.header("seq").unwrap().parse().unwrap();
        keys.entry(&message.key).or_default().push(seq);
    }
    keys
}

/// Each of the `n` messages once, and those of a key in order.
fn assert_exactly_once_in_order(received: &[Received], n: usize) {
    let unique: HashSet<&str> = received.iter().filter_map(|m| m.header("message-id")).collect();
    assert_eq!(received.len(), n, "{} of them unique", unique.len());
    assert_eq!(unique.len(), n);
    for (key, numbers) in by_key(received) {
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
    }
}

#[test]
fn every_message_arrives_once_and_in_order_with_key_time_headers_and_body() {
    if !available() {
        return;
    }
    let broker = Broker::start("stream", "");
    let mut driver = Driver::opened(config(&broker.plaintext(), "fs.events"));
    assert_eq!(driver.sink.degraded(), None);
    let report = driver.publish(&events(20_000, 500), |_| {});
    driver.close();

    assert_eq!((report.delivered.len(), report.reopened.len(), report.nacked), (20_000, 0, 0));
    let received = broker.read("fs.events");
    assert_exactly_once_in_order(&received, 20_000);
    let mut partition_of = HashMap::new();
    for message in &received {
        let n: usize = message.header("seq").unwrap().parse().unwrap();
        let partition = partition_of.entry(&message.key).or_insert(message.partition);
        assert_eq!(*partition, message.partition, "{} is in two partitions", message.key);
        let body: serde_json::Value = serde_json::from_str(&message.payload).unwrap();
        let micros: i64 = body["Event-Date-Timestamp"].as_str().unwrap().parse().unwrap();
        assert_eq!(message.timestamp_ms, micros / 1_000);
        let headers = [
            ("content-type", "application/json".to_owned()),
            ("message-id", format!("core-1-{n}")),
            ("event-name", "CHANNEL_CREATE".to_owned()),
            ("unique-id", format!("leg-{n}")),
            ("node", "fs1".to_owned()),
            ("boot", "core-1".to_owned()),
            ("seq", n.to_string()),
            ("core-uuid", "core-1".to_owned()),
            ("event-sequence", n.to_string()),
            ("timestamp-us", micros.to_string()),
        ];
        assert_eq!(message.headers, headers.map(|(name, value)| (name.to_owned(), value)));
        assert_eq!(body["Unique-ID"], format!("leg-{n}"));
        assert_eq!(body["Channel-Call-UUID"], message.key);
    }
    assert!(partition_of.values().collect::<HashSet<_>>().len() > 1);
}

#[test]
fn a_published_message_goes_to_its_own_topic_with_its_own_key_and_headers() {
    if !available() {
        return;
    }
    let broker = Broker::start("publish", "");
    let mut driver = Driver::opened(config(&broker.plaintext(), "fs.events"));
    let records = [
        published("other.topic", "k1", &[("Content-Type", "text/plain"), ("x", "y")], "hello"),
        published("not/a/topic", "k2", &[], "lost?"),
        published("", "", &[], "to the sink's topic"),
    ];
    let report = driver.publish(&records, |_| {});
    driver.close();

    assert_eq!(report.delivered.len(), 2, "{report:?}");
    let (at, reason) = &report.rejected[0];
    assert_eq!(*at, 1);
    assert!(reason.contains("not/a/topic") && reason.contains("may hold only"), "{reason}");
    let other = broker.read("other.topic");
    assert_eq!((other[0].key.as_str(), other[0].payload.as_str()), ("k1", "hello"));
    assert_eq!(other[0].header("Content-Type"), Some("text/plain"));
    assert_eq!(other[0].header("x"), Some("y"));
    assert_eq!(other[0].header("message-id"), Some("core-1-rb-0"));
    let own = broker.read("fs.events");
    assert_eq!((own[0].key.as_str(), own[0].payload.as_str()), ("fs1", "to the sink's topic"));
}

#[test]
fn a_killed_broker_costs_no_message_and_repeats_none() {
    if !available() {
        return;
    }
    let mut broker = Broker::start("killed", "");
    let mut driver = Driver::opened(config(&broker.plaintext(), "fs.events"));
    let mut kills = 0;
    let report = driver.publish(&events(20_000, 500), |delivered| {
        if delivered >= [4_000, 12_000, usize::MAX][kills] {
            kills += 1;
            broker.kill();
            broker.run();
        }
    });
    driver.close();

    assert_eq!(kills, 2);
    assert_eq!(report.reopened, [""; 0], "the producer lived through it");
    assert_eq!((report.delivered.len(), report.nacked), (20_000, 0));
    assert_exactly_once_in_order(&broker.read("fs.events"), 20_000);
}

#[test]
fn a_broker_that_is_away_at_open_is_no_error_and_gets_everything_later() {
    if !available() {
        return;
    }
    let mut broker = Broker::start("away", "");
    broker.create_topic("fs.events", &[]);
    broker.kill();
    let mut driver = Driver::opened(config(&broker.plaintext(), "fs.events"));
    for (at, record) in events(1_000, 10).iter().enumerate() {
        driver.send(at as u64, record, at).unwrap();
    }
    let nothing = driver
        .poll_until("the state to be told", |_, sink| {
            sink.degraded().is_some_and(|state| state.contains("are down"))
        })
        .unwrap();
    assert_eq!(nothing, []);
    let state = driver.sink.degraded().unwrap();
    assert!(state.contains(&broker.plaintext()) && state.contains("Connection refused"), "{state}");

    broker.run();
    let outcomes = driver.poll_until("all reports", |outcomes, _| outcomes.len() == 1_000).unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Delivered(_))));
    assert_eq!(driver.sink.degraded(), None);
    driver.close();
    assert_exactly_once_in_order(&broker.read("fs.events"), 1_000);
}

#[test]
fn a_broker_that_goes_away_while_nothing_is_sent_is_noticed_and_so_is_its_return() {
    if !available() {
        return;
    }
    let mut broker = Broker::start("idle", "");
    broker.create_topic("fs.events", &[]);
    let mut driver = Driver::opened(config(&broker.plaintext(), "fs.events"));
    driver.send(0, &events(1, 1)[0], 0).unwrap();
    driver.poll_until("the report", |outcomes, _| outcomes.len() == 1).unwrap();
    assert_eq!(driver.sink.degraded(), None);
    broker.kill();
    driver.poll_until("its end to be noticed", |_, sink| sink.degraded().is_some()).unwrap();
    broker.run();
    driver.poll_until("its return to be noticed", |_, sink| sink.degraded().is_none()).unwrap();
    driver.close();
}

#[test]
fn a_topic_that_a_broker_creates_after_a_long_absence_costs_a_new_producer_at_most() {
    if !available() {
        return;
    }
    let mut broker = Broker::prepare("fresh", "");
    let mut driver = Driver::opened(config(&broker.plaintext(), "fs.events"));
    driver.send(0, &event(0, "call", 10), 0).unwrap();
    broker.run();
    let delivered = driver.poll_until("a report", |outcomes, _| !outcomes.is_empty());
    if let Err(error) = delivered {
        assert_eq!(error.class(), Class::Reconnect, "{error}");
        driver.open().unwrap();
        let report = driver.publish(&[event(0, "call", 10)], |_| {});
        assert_eq!(report.delivered, [0], "{report:?}");
    }
    driver.close();
    assert_exactly_once_in_order(&broker.read("fs.events"), 1);
}

#[test]
fn an_oversize_message_is_rejected_and_those_around_it_arrive() {
    if !available() {
        return;
    }
    let broker = Broker::start("oversize", "");
    broker.create_topic("small", &["max.message.bytes=20000", "compression.type=uncompressed"]);
    // Uncompressed, or a filler of one letter would fit anywhere.
    let mut config = config(&broker.plaintext(), "small");
    config.compression = Compression::None;
    let mut driver = Driver::opened(config);
    let mut records = events(600, 10);
    records[100] = event(100, "call-0", 2_000_000);
    records[300] = event(300, "call-0", 60_000);
    let report = driver.publish(&records, |_| {});
    driver.close();

    let mut rejected: Vec<usize> = report.rejected.iter().map(|(at, _)| *at).collect();
    rejected.sort_unstable();
    assert_eq!(rejected, [100, 300], "{:?}", report.rejected);
    let reasons: Vec<&str> = report.rejected.iter().map(|(_, reason)| reason.as_str()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("message.max.bytes")), "{reasons:?}");
    let received = broker.read("small");
    let unique: HashSet<&str> = received.iter().filter_map(|m| m.header("message-id")).collect();
    assert_eq!(unique.len(), 598, "{:?}", report.reopened);
    assert_eq!(report.delivered.len(), 598);
}

/// A broker that takes connections and says nothing: its system has it, its process hangs.
fn silent_broker() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[test]
fn an_interrupt_ends_a_poll_and_an_open_long_before_their_time() {
    let (_listener, address) = silent_broker();
    let mut driver = Driver::opened(config(&address, "fs.events"));
    driver.send(0, &event(0, "call", 10), 0).unwrap();
    let interrupt = Arc::clone(&driver.interrupt);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || interrupt.raise());
        driver.sink.poll(Duration::from_secs(60), &mut Vec::new()).unwrap();
    });
    driver.open().unwrap();
    driver.close();
    assert!(start.elapsed() < Duration::from_secs(30), "took {:?}", start.elapsed());
}

#[test]
fn closing_with_a_dead_broker_and_a_full_queue_keeps_its_deadline() {
    let dead = {
        let (_listener, address) = silent_broker();
        address
    };
    let (_listener, silent) = silent_broker();
    for address in [dead, silent, "192.0.2.1:9092".to_owned()] {
        let mut config = config(&address, "fs.events");
        config.in_flight_max = 10_000;
        let mut driver = Driver::opened(config);
        for (at, record) in events(10_000, 10).iter().enumerate() {
            driver.send(at as u64, record, at).unwrap();
        }
        let start = Instant::now();
        driver.sink.close(start + Duration::from_secs(1));
        assert!(start.elapsed() < Duration::from_secs(5), "{address}: {:?}", start.elapsed());
        // Nothing was delivered, so nothing is reported.
        let error = driver.sink.poll(Duration::ZERO, &mut Vec::new()).unwrap_err();
        assert_eq!(error.class(), Class::Reconnect);
    }
}

#[test]
fn a_full_queue_is_busy_and_drops_nothing() {
    let (_listener, address) = silent_broker();
    let mut config = config(&address, "fs.events");
    config.in_flight_max = 100;
    let mut driver = Driver::opened(config);
    let record = event(0, "call", 10);
    let mut taken = 0;
    let busy = loop {
        match driver.send(taken, &record, 0) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(busy, SinkError::Busy { .. }), "{busy}");
    assert!(taken >= 100, "the queue is smaller than the window: {taken}");
    assert_eq!(driver.sink.poll(Duration::ZERO, &mut Vec::new()).ok(), Some(()));
    driver.close();
}

#[test]
fn what_the_flush_at_close_delivers_is_reported_afterwards() {
    if !available() {
        return;
    }
    let broker = Broker::start("flush", "");
    let mut driver = Driver::opened(config(&broker.plaintext(), "fs.events"));
    for (at, record) in events(500, 10).iter().enumerate() {
        driver.send(at as u64, record, at).unwrap();
    }
    driver.close();
    let mut outcomes = Vec::new();
    driver.sink.poll(Duration::ZERO, &mut outcomes).unwrap();
    assert_eq!(outcomes.len(), 500);
    assert_eq!(broker.read("fs.events").len(), 500);
}
