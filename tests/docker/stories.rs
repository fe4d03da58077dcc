// SPDX-License-Identifier: MIT
//! The calls and filters of `tests/support/stories.rs`, whose telling is the same in every switch, here in containers: both
//! brokers get them, and clients in another container read them there.

use std::time::Duration;

use crate::account::{self, number};
use crate::engine::{ask, docker};
use crate::ground::{Broker, Ground, RABBITMQ_URL, ground, sink};
use crate::node::Node;
use crate::support::clients::Message;
use crate::support::oracle::holes;
use crate::support::stories::{self, FILTERS};
use crate::support::wait_for;

const LIMIT: Duration = Duration::from_secs(90);

/// Runs a story in every FreeSWITCH image and hands what each broker got to `check`, with the broker.
fn in_every_image(
    test: &str,
    make: impl Fn(&mut Node<'_>, &dyn Fn() -> Vec<Message>),
    check: impl Fn(&str, Broker, &[Message]),
) {
    let Some(ground) = ground(test) else { return };
    for (count, image) in ground.run.test.iter().enumerate() {
        let place = format!("{test}{count}");
        drop(ground.consume(Broker::RabbitMq, &place));
        let sinks = Broker::ALL.map(|broker| broker.sink(&place, "CHANNEL_* GENERAL", &[]));
        let mut node = Node::with(&ground, "fs1", &sinks, image, &[]);
        let readers = Broker::ALL.map(|broker| (broker, ground.consume(broker, &place)));
        make(&mut node, &|| readers[0].1.consumer.messages());
        for (broker, reader) in &readers {
            let status = account::settle(&mut node, broker.alias(), 1, LIMIT);
            assert_eq!(account::dropped(&status), 0, "{status}");
            let count = usize::try_from(number(&status, "delivered")).unwrap();
            let messages = wait_for(LIMIT, &format!("{count} messages in {broker:?}"), || {
                let messages = reader.consumer.messages();
                let seqs = messages.iter().map(Message::seq);
                (messages.len() >= count && holes(1, seqs).is_empty()).then_some(messages)
            });
            let what = format!("{} of {image}", broker.alias());
            check(&what, *broker, &messages);
            println!("{what}: {} messages, as they should be", messages.len());
        }
    }
}

#[test]
fn a_bridged_call_tells_both_legs_in_order_and_in_one_partition() {
    in_every_image(
        "a_bridged_call_tells_both_legs_in_order_and_in_one_partition",
        |node, so_far| stories::make_bridged_call(node, so_far),
        |what, broker, messages| {
            stories::check_bridged_call(what, messages);
            if broker == Broker::Kafka {
                stories::check_one_partition(messages);
            }
        },
    );
}

#[test]
fn calls_to_a_busy_line_tell_why_they_failed() {
    in_every_image(
        "calls_to_a_busy_line_tell_why_they_failed",
        |node, _| stories::make_failed_calls(node),
        |what, _, messages| stories::check_failed_calls(what, messages),
    );
}

#[test]
fn channel_variables_and_sdp_are_plain_texts_in_the_json() {
    in_every_image(
        "channel_variables_and_sdp_are_plain_texts_in_the_json",
        |node, _| stories::make_described_call(node),
        |what, _, messages| stories::check_described_call(what, messages),
    );
}

/// One exchange for each filter, all bound to one queue, whose messages say by which they came.
fn bind_filters(ground: &Ground) {
    for number in 0..FILTERS.len() {
        let exchange = format!("filter{number}");
        ground
            .client(&["python3", "/amqp.py", "bind", RABBITMQ_URL, &exchange, "#", "filter0"])
            .expect("a queue can be bound");
    }
}

#[test]
fn each_filter_lets_through_exactly_the_events_that_it_names() {
    let Some(ground) = ground("each_filter_lets_through_exactly_the_events_that_it_names") else {
        return;
    };
    bind_filters(&ground);
    let sinks: Vec<String> = (0..FILTERS.len())
        .map(|number| {
            let exchange = format!("filter{number}");
            let params = [("url", RABBITMQ_URL), ("exchange", exchange.as_str())];
            sink(&exchange, "amqp", FILTERS[number].0, &params)
        })
        .collect();
    let mut node = Node::start(&ground, "fs1", &sinks);
    let name = node.name.clone();
    let fired = stories::fire_every_event(&mut node, |lines| {
        let folder = crate::support::Folder::new("filters");
        let file = folder.write("every.events", lines);
        docker(&["cp", file.to_str().unwrap(), &format!("{name}:/test/every.events")]);
        "/test/every.events".into()
    });
    let mut expected = 0;
    for number in 0..FILTERS.len() {
        let status = account::settle(&mut node, &format!("filter{number}"), 1, LIMIT);
        expected += usize::try_from(account::number(&status, "delivered")).unwrap();
    }
    let reader = ground.consume(Broker::RabbitMq, "filter0");
    let messages = wait_for(LIMIT, &format!("{expected} messages of all filters"), || {
        let messages = reader.consumer.messages();
        (messages.len() >= expected).then_some(messages)
    });
    for number in 0..FILTERS.len() {
        let exchange = format!("filter{number}");
        let of: Vec<Message> =
            messages.iter().filter(|message| message.place == exchange).cloned().collect();
        stories::check_filter("FreeSWITCH in a container", number, &fired, &of);
    }
    println!("{} kinds of events, {} filters: the exact sets", fired.len(), FILTERS.len());
    drop(ask(&["exec", &name, "rm", "-f", "/test/every.events"]));
}
