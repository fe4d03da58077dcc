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
use crate::support::skips;
use crate::support::stories::{self, FILTERS};
use crate::support::switch::Switch;
use crate::support::{Folder, wait_for};

const LIMIT: Duration = Duration::from_secs(90);

/// Runs a story in every FreeSWITCH image.
fn in_every_image(
    test: &str,
    make: impl Fn(&mut Node<'_>, &dyn Fn() -> Vec<Message>),
    check: impl Fn(&str, Broker, &[Message]),
) {
    let Some(ground) = ground(test) else { return };
    in_images(&ground, &ground.run.test, test, make, check);
}

/// Runs a story in these images and hands what each broker got to `check`, with the broker.
fn in_images(
    ground: &Ground,
    images: &[String],
    test: &str,
    make: impl Fn(&mut Node<'_>, &dyn Fn() -> Vec<Message>),
    check: impl Fn(&str, Broker, &[Message]),
) {
    for (count, image) in images.iter().enumerate() {
        let place = format!("{test}{count}");
        drop(ground.consume(Broker::RabbitMq, &place));
        let sinks = Broker::ALL.map(|broker| broker.sink(&place, "CHANNEL_* GENERAL", &[]));
        let mut node = Node::with(ground, "fs1", &sinks, image, &[]);
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

/// A library built on one Debian is what runs on the next one: only what it needs of the C library decides.
#[test]
fn the_same_library_loads_on_the_next_debian_and_forwards_there() {
    let test = "the_same_library_loads_on_the_next_debian_and_forwards_there";
    let Some(ground) = ground(test) else { return };
    let [module, image] = ground.run.next.as_slice() else {
        skips::note(
            &format!("docker::{test}"),
            "no image of a newer Debian could be made here",
            "a mirror or registry that has Debian 13; where FREESWITCH_IMAGE is set, name such an image there too",
        );
        return;
    };
    let libraries = [&ground.run.module[0], module].map(|image| {
        let program = ground.path_of(image, "FREESWITCH");
        let prefix = program.trim_end_matches("/bin/freeswitch");
        ground.file_of(image, &format!("{prefix}/lib/freeswitch/mod/mod_rustbridge.so"))
    });
    assert!(libraries[0] == libraries[1], "another library");
    in_images(
        &ground,
        std::slice::from_ref(image),
        "next_debian",
        |node, so_far| {
            let system = docker(&["exec", &node.name, "cat", "/etc/os-release"]);
            let name = system.lines().find(|line| line.starts_with("PRETTY_NAME")).unwrap_or("");
            println!("{name}: {}", node.api("rustbridge version").trim());
            assert!(!system.contains("bookworm"), "{system}");
            stories::make_bridged_call(node, so_far);
        },
        |what, _, messages| stories::check_bridged_call(what, messages),
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
        let folder = Folder::new("filters");
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
