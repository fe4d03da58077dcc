// SPDX-License-Identifier: MIT
//! Brokers that die, stall and raise alarms under way.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mod_rustbridge::sink::{Class, Sink, SinkError};

use crate::own;
use crate::publisher::{PATIENCE, Payload, Publisher, config};
use crate::support::clients::Consumer;
use crate::support::rabbitmq::RabbitMqOptions;
use crate::support::wait_until;

fn plain(_: u64) -> Payload {
    Payload { filling: 500, ..Payload::default() }
}

/// Sends without end until the connection fails.
fn stream(
    publisher: &mut Publisher,
    next: &mut u64,
    mut enough: impl FnMut(&Publisher) -> bool,
) -> Option<SinkError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "nothing happens");
        if enough(publisher) {
            return None;
        }
        while publisher.in_flight() < publisher.sink.window() {
            match publisher.send(*next, &plain(*next)) {
                Ok(()) => *next += 1,
                Err(error) if error.class() == Class::Busy => break,
                Err(error) => return Some(error),
            }
        }
        if let Err(error) = publisher.poll(Duration::from_millis(20)) {
            return Some(error);
        }
    }
}

#[test]
fn nothing_confirmed_is_lost_when_the_broker_is_killed() {
    let test = "nothing_confirmed_is_lost_when_the_broker_is_killed";
    let Some(mut node) = own(test, &RabbitMqOptions::default()) else { return };
    // A durable queue that holds everything until the end.
    drop(Consumer::amqp(&node.url(), "killed", "#", Some("kept")));
    let mut publisher = Publisher::connected(config(node.port(), "killed"));
    let mut next = 0;
    assert!(
        stream(&mut publisher, &mut next, |publisher| publisher.delivered.len() > 2000).is_none()
    );
    node.kill();
    let error = stream(&mut publisher, &mut next, |_| false).unwrap();
    assert_eq!(error.class(), Class::Reconnect, "{error}");
    let error = publisher.open().unwrap_err();
    assert_eq!(error.class(), Class::Reconnect, "{error}");
    assert!(error.to_string().contains("connection refused"), "{error}");
    node.start_again();
    publisher.reopen();
    let unconfirmed: Vec<u64> =
        (0..next).filter(|number| !publisher.delivered.contains(number)).collect();
    assert!(!unconfirmed.is_empty() && unconfirmed.len() <= 1024);
    publisher.publish(unconfirmed, plain).unwrap();
    assert_eq!(publisher.delivered.len(), usize::try_from(next).unwrap());
    publisher.close();
    let consumer = Consumer::amqp(&node.url(), "killed", "#", Some("kept"));
    // Counted without what came twice: with it, the number is reached too soon.
    let mut missing: BTreeSet<u64> = (0..next).collect();
    let mut seen = 0;
    wait_until(PATIENCE, "every message", || {
        let messages = consumer.messages();
        for message in &messages[seen..] {
            missing.remove(&message.number("seq").unwrap());
        }
        seen = messages.len();
        missing.is_empty()
    });
    let twice = consumer.count() - usize::try_from(next).unwrap();
    assert!(twice <= 1024, "{twice} came twice, more than were in flight");
}

#[test]
fn an_alarm_of_the_broker_pauses_and_its_end_resumes() {
    let test = "an_alarm_of_the_broker_pauses_and_its_end_resumes";
    let Some(node) = own(test, &RabbitMqOptions::default()) else { return };
    let mut config = config(node.port(), "alarm");
    config.heartbeat = Duration::from_secs(5);
    let mut publisher = Publisher::connected(config);
    let mut next = 0;
    assert!(
        stream(&mut publisher, &mut next, |publisher| publisher.delivered.len() > 500).is_none()
    );
    node.set_memory_alarm(true);
    let blocked = stream(&mut publisher, &mut next, |publisher| publisher.sink.window() == 0);
    assert!(blocked.is_none(), "{blocked:?}");
    assert!(publisher.sink.blocked_since().is_some());
    assert_eq!(publisher.send(next, &plain(next)).unwrap_err().class(), Class::Busy);
    // Heartbeats go on meanwhile: the broker reads nothing, but writes.
    let until = Instant::now() + Duration::from_secs(11);
    while Instant::now() < until {
        publisher.poll(Duration::from_millis(500)).unwrap();
    }
    assert!(publisher.sink.blocked_since().is_some());
    node.set_memory_alarm(false);
    publisher.poll_until("the end of the alarm", |publisher| publisher.sink.window() > 0);
    assert!(publisher.sink.blocked_since().is_none());
    publisher.poll_until("every confirm", |publisher| publisher.in_flight() == 0);
    assert_eq!(publisher.delivered.len(), usize::try_from(next).unwrap());
    publisher.close();
}

#[test]
fn a_broker_that_stands_still_is_found_by_its_missing_heartbeats() {
    let test = "a_broker_that_stands_still_is_found_by_its_missing_heartbeats";
    let Some(mut node) = own(test, &RabbitMqOptions::default()) else { return };
    let mut config = config(node.port(), "still");
    config.heartbeat = Duration::from_secs(2);
    let mut publisher = Publisher::connected(config);
    publisher.publish(0..10, plain).unwrap();
    node.pause();
    // More than the socket takes: a write that cannot go on must not hide the silence.
    let mut next = 10;
    let error = stream(&mut publisher, &mut next, |_| false).unwrap();
    assert_eq!(error.class(), Class::Reconnect);
    assert!(error.to_string().contains("heartbeats"), "{error}");
    node.resume();
    publisher.reopen();
    publisher.publish(10..next, plain).unwrap();
    publisher.close();
}

#[test]
fn a_broker_that_confirms_nothing_is_given_up() {
    let test = "a_broker_that_confirms_nothing_is_given_up";
    let Some(mut node) = own(test, &RabbitMqOptions::default()) else { return };
    let mut config = config(node.port(), "silent");
    config.heartbeat = Duration::ZERO;
    config.confirm_timeout = Duration::from_secs(5);
    let mut publisher = Publisher::connected(config);
    publisher.publish(0..10, plain).unwrap();
    node.pause();
    publisher.send(10, &plain(10)).unwrap();
    let error = publisher.poll_until_error();
    assert!(matches!(error, SinkError::Timeout { .. }), "{error}");
    assert_eq!(error.class(), Class::Reconnect);
    node.resume();
}

#[test]
fn a_broker_that_ends_connections_is_heard() {
    let test = "a_broker_that_ends_connections_is_heard";
    let Some(mut node) = own(test, &RabbitMqOptions::default()) else { return };
    let mut publisher = Publisher::connected(config(node.port(), "ended"));
    publisher.publish(0..10, plain).unwrap();
    node.close_connections("maintenance at nine");
    let error = publisher.poll_until_error();
    assert_eq!(error.class(), Class::Reconnect);
    assert!(error.to_string().contains("320"), "{error}");
    assert!(error.to_string().contains("maintenance at nine"), "{error}");
    // Also while the node stops as a whole.
    publisher.reopen();
    publisher.publish(10..20, plain).unwrap();
    node.stop();
    let error = publisher.poll_until_error();
    assert_eq!(error.class(), Class::Reconnect, "{error}");
}
