// SPDX-License-Identifier: MIT
//! What is published arrives as it should.

use std::time::{Duration, Instant};

use mod_rustbridge::config::amqp::Declare;
use mod_rustbridge::sink::{Class, Sink};

use crate::publisher::{PATIENCE, Payload, Publisher, broker, config};
use crate::support::clients::Consumer;
use crate::support::free_port;
use crate::{MESSAGE_MAX, pika_does, shared};

fn plain(_: u64) -> Payload {
    Payload::default()
}

fn filled(bytes: usize) -> Payload {
    Payload { filling: bytes, ..Payload::default() }
}

fn to(destination: &str) -> Payload {
    Payload { destination: Some(destination.into()), ..Payload::default() }
}

#[test]
fn twenty_thousand_messages_are_confirmed_and_arrive_once_and_in_order() {
    let Some(node) = shared("twenty_thousand_messages_are_confirmed_and_arrive_once_and_in_order")
    else {
        return;
    };
    let mut consumer = Consumer::amqp(&node.url(), "stream", "event.#", None);
    let mut config = config(node.port(), "stream");
    config.confirm_window = 500;
    let mut publisher = Publisher::connected(config);
    let call = |number: u64| Payload { call: Some(format!("call-{}", number % 7)), ..filled(100) };
    publisher.publish(0..20_000, call).unwrap();
    assert_eq!(publisher.delivered.len(), 20_000);
    assert_eq!(publisher.most, 500, "the window was not used");
    let messages = consumer.wait_count(20_000, PATIENCE);
    assert_eq!(messages.len(), 20_000);
    for (number, message) in (0_u64..).zip(&messages) {
        assert_eq!(message.number("seq"), Some(number));
        assert_eq!(message.number("event_sequence"), Some(number));
        let key = format!("event.fs1.CHANNEL_CREATE._.call-{}", number % 7);
        assert_eq!(message.key.as_deref(), Some(key.as_str()));
        assert_eq!(message.properties["message_id"], format!("core-1-{number}"));
        assert_eq!(message.json()["Event-Sequence"], number.to_string());
    }
    let first = &messages[0];
    assert_eq!(first.place, "stream");
    for (name, value) in [
        ("content_type", "application/json"),
        ("type", "CHANNEL_CREATE"),
        ("app_id", "mod_rustbridge"),
    ] {
        assert_eq!(first.properties[name], value);
    }
    assert_eq!(first.properties["delivery_mode"], 2);
    assert_eq!(first.properties["timestamp"], 1_633_261_501);
    assert_eq!(first.headers["timestamp_us"], "1633261501757401");
    assert_eq!(first.headers["format"], "raw");
    publisher.close();
}

#[test]
fn no_more_than_the_window_is_taken() {
    let Some(node) = shared("no_more_than_the_window_is_taken") else { return };
    let mut config = config(node.port(), "window");
    config.confirm_window = 3;
    let mut publisher = Publisher::connected(config);
    assert_eq!(publisher.sink.window(), 3);
    for number in 0..3 {
        publisher.send(number, &Payload::default()).unwrap();
    }
    let error = publisher.send(3, &Payload::default()).unwrap_err();
    assert_eq!(error.class(), Class::Busy);
    publisher.poll_until("a confirm", |publisher| publisher.in_flight() < 3);
    publisher.send(3, &Payload::default()).unwrap();
    publisher.poll_until("every confirm", |publisher| publisher.delivered.len() == 4);
    publisher.close();
}

#[test]
fn a_message_of_many_frames_arrives_whole() {
    let Some(node) = shared("a_message_of_many_frames_arrives_whole") else { return };
    let mut consumer = Consumer::amqp(&node.url(), "large", "#", None);
    let mut config = config(node.port(), "large");
    config.frame_max = 4096;
    let mut publisher = Publisher::connected(config);
    let sizes = [1, 3000, 4088, 4089, 8176, 300_000];
    publisher.publish(0..6, |number| filled(sizes[usize::try_from(number).unwrap()])).unwrap();
    for (message, size) in consumer.wait_count(6, PATIENCE).iter().zip(sizes) {
        assert_eq!(message.json()["filling"].as_str().map(str::len), Some(size));
    }
    publisher.close();
}

#[test]
fn the_broker_shows_who_is_connected() {
    let Some(node) = shared("the_broker_shows_who_is_connected") else { return };
    let publisher = Publisher::connected(config(node.port(), "shown"));
    let listed = node.ctl(&["list_connections", "client_properties"]);
    for expected in [
        "{\"product\",\"mod_rustbridge\"}",
        &format!("{{\"version\",\"{}\"}}", env!("CARGO_PKG_VERSION")),
        "{\"node\",\"fs1\"}",
        "{\"connection_name\",\"fs1 rabbit\"}",
    ] {
        assert!(listed.contains(expected), "{expected} is missing in {listed}");
    }
    publisher.close();
}

#[test]
fn what_no_queue_takes_comes_back_and_the_rest_is_delivered() {
    let Some(node) = shared("what_no_queue_takes_comes_back_and_the_rest_is_delivered") else {
        return;
    };
    let mut consumer = Consumer::amqp(&node.url(), "returns", "event.*.*.*.bound", None);
    let mut config = config(node.port(), "returns");
    config.mandatory = true;
    let mut publisher = Publisher::connected(config);
    let call = |number: u64| {
        let call = if number.is_multiple_of(3) { "unbound" } else { "bound" };
        Payload { call: Some(call.into()), filling: 5000, ..Payload::default() }
    };
    publisher.publish(0..3000, call).unwrap();
    assert_eq!(publisher.rejected.len(), 1000);
    assert_eq!(publisher.delivered.len(), 2000);
    for (number, reason) in &publisher.rejected {
        assert!(number.is_multiple_of(3));
        assert!(reason.contains("312 NO_ROUTE") && reason.contains("unbound"), "{reason}");
    }
    assert_eq!(consumer.wait_count(2000, PATIENCE).len(), 2000);
    publisher.close();
}

#[test]
fn a_full_queue_that_rejects_nacks() {
    let Some(node) = shared("a_full_queue_that_rejects_nacks") else { return };
    pika_does(
        &node,
        "channel.exchange_declare('nacks', 'topic', durable=True)\n\
         channel.queue_declare('full', arguments={'x-max-length': 5, 'x-overflow': 'reject-publish'})\n\
         channel.queue_bind('full', 'nacks', '#')",
    );
    let mut publisher = Publisher::connected(config(node.port(), "nacks"));
    publisher.publish(0..50, plain).unwrap();
    assert_eq!(publisher.nacked.len() + publisher.delivered.len(), 50);
    assert!(publisher.nacked.len() >= 40, "{} are nacked", publisher.nacked.len());
    assert!(publisher.nacked[&49].contains("queue"), "{}", publisher.nacked[&49]);
    assert!(publisher.delivered.contains(&0));
    pika_does(&node, "channel.queue_delete('full')");
    publisher.close();
}

#[test]
fn an_exchange_of_a_sender_is_looked_for_before_it_is_used() {
    let Some(node) = shared("an_exchange_of_a_sender_is_looked_for_before_it_is_used") else {
        return;
    };
    let mut consumer = Consumer::amqp(&node.url(), "orders", "by.hand", None);
    let mut publisher = Publisher::connected(config(node.port(), "own"));
    let payload = |number: u64| match number % 3 {
        0 => Payload::default(),
        1 => to("orders"),
        _ => to("nowhere"),
    };
    publisher.publish(0..300, payload).unwrap();
    assert_eq!(publisher.delivered.len(), 200);
    assert_eq!(publisher.rejected.len(), 100);
    for reason in publisher.rejected.values() {
        assert!(reason.contains("404 NOT_FOUND") && reason.contains("nowhere"), "{reason}");
    }
    let messages = consumer.wait_count(100, PATIENCE);
    assert_eq!(messages[0].headers["number"], "1");
    assert_eq!(messages[0].number("seq"), Some(1));
    assert_eq!(messages[0].json()["number"], 1);
    publisher.close();
}

#[test]
fn an_exchange_made_from_the_event_is_looked_for_too() {
    let Some(node) = shared("an_exchange_made_from_the_event_is_looked_for_too") else { return };
    let mut consumer = Consumer::amqp(&node.url(), "for-call-1", "#", None);
    let mut config = config(node.port(), "for-${uuid}");
    config.declare = Declare::Off;
    config.routing_key = "${event}.${node}".into();
    let mut publisher = Publisher::connected(config);
    let call = |number: u64| Payload { call: Some(format!("call-{}", number % 2)), ..filled(0) };
    publisher.publish(0..100, call).unwrap();
    assert_eq!((publisher.delivered.len(), publisher.rejected.len()), (50, 50));
    assert!(publisher.rejected[&0].contains("for-call-0"), "{}", publisher.rejected[&0]);
    let messages = consumer.wait_count(50, PATIENCE);
    assert_eq!(messages[0].key.as_deref(), Some("CHANNEL_CREATE.fs1"));
    publisher.close();
}

#[test]
fn a_message_beyond_the_brokers_limit_costs_one_connection_and_is_rejected() {
    let Some(node) =
        shared("a_message_beyond_the_brokers_limit_costs_one_connection_and_is_rejected")
    else {
        return;
    };
    let mut publisher = Publisher::connected(config(node.port(), "limit"));
    let payload = |number: u64| filled(if number == 5 { MESSAGE_MAX + 1 } else { 10 });
    let error = publisher.publish(0..10, payload).unwrap_err();
    assert_eq!(error.class(), Class::Reconnect);
    assert!(error.to_string().contains("larger than configured max size"), "{error}");
    publisher.open().unwrap();
    publisher.publish(0..10, payload).unwrap();
    assert_eq!(publisher.rejected.keys().copied().collect::<Vec<_>>(), [5]);
    assert!(publisher.rejected[&5].contains("max size 1000000"), "{}", publisher.rejected[&5]);
    assert_eq!(publisher.delivered.len(), 9);
    publisher.close();
}

#[test]
fn the_next_broker_of_the_list_is_used_and_the_first_can_be_returned_to() {
    let Some(node) = shared("the_next_broker_of_the_list_is_used_and_the_first_can_be_returned_to")
    else {
        return;
    };
    let dead = free_port();
    let mut config = config(node.port(), "failover");
    config.brokers.insert(0, broker(dead));
    let mut publisher = Publisher::connected(config);
    assert_eq!(publisher.sink.peer(), format!("127.0.0.1:{}", node.port()));
    assert!(!publisher.sink.is_on_primary());
    publisher.publish(0..10, plain).unwrap();
    // The one that works stays in use, until the first is asked for.
    publisher.open().unwrap();
    assert!(!publisher.sink.is_on_primary());
    publisher.sink.return_to_primary();
    assert_eq!(publisher.sink.peer(), format!("127.0.0.1:{dead}"));
    publisher.open().unwrap();
    assert!(!publisher.sink.is_on_primary());
    publisher.close();
}

#[test]
fn closing_says_goodbye_and_leaves_nothing_unsent() {
    let Some(node) = shared("closing_says_goodbye_and_leaves_nothing_unsent") else { return };
    let mut consumer = Consumer::amqp(&node.url(), "goodbye", "#", None);
    let mut config = config(node.port(), "goodbye");
    config.connection_name = Some("the polite one".into());
    let mut publisher = Publisher::connected(config);
    for number in 0..100 {
        publisher.send(number, &filled(1000)).unwrap();
    }
    publisher.close();
    assert_eq!(consumer.wait_count(100, PATIENCE).len(), 100);
    crate::support::wait_until(PATIENCE, "the broker's word of the end", || {
        let log = node.log();
        log.lines()
            .any(|line| line.contains("closing AMQP connection") && line.contains("the polite one"))
    });
    let log = node.log();
    assert!(
        !log.lines().any(|l| l.contains("unexpectedly") && l.contains("the polite one")),
        "{log}"
    );
}

/// As when the machine was suspended, or so busy that the publisher was not run: the broker has spoken meanwhile, and that counts.
#[test]
fn a_publisher_that_was_held_up_does_not_take_that_for_the_brokers_silence() {
    let test = "a_publisher_that_was_held_up_does_not_take_that_for_the_brokers_silence";
    let Some(node) = shared(test) else { return };
    let mut config = config(node.port(), "held up");
    config.heartbeat = Duration::from_secs(2);
    let mut publisher = Publisher::connected(config);
    publisher.publish(0..1, plain).unwrap();
    // More than the two heartbeats after which a broker is silent, and less than the broker grants us.
    let until = Instant::now() + Duration::from_millis(4_200);
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
    if let Err(error) = publisher.poll(Duration::from_millis(100)) {
        assert!(!error.to_string().contains("without a byte"), "{error}");
    }
}

#[test]
fn an_idle_connection_is_kept_alive_by_heartbeats() {
    let Some(node) = shared("an_idle_connection_is_kept_alive_by_heartbeats") else { return };
    let mut config = config(node.port(), "idle");
    config.heartbeat = Duration::from_secs(5);
    let mut publisher = Publisher::connected(config);
    publisher.publish(0..1, plain).unwrap();
    // More than two heartbeats: without ours the broker would end the connection, without its own we would.
    publisher.poll(Duration::from_secs(12)).unwrap();
    publisher.publish(1..2, plain).unwrap();
    assert_eq!(publisher.delivered.len(), 2);
    publisher.close();
}
