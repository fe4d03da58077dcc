// SPDX-License-Identifier: MIT
//! What RabbitMQ itself takes: a plain socket with one of the module's messages ready, in every way that a client could choose.
//!
//! It tells how much of the module's rate is the broker's, and which of its choices cost: the bar that no client passes.

use std::time::{Duration, Instant};

use crate::Effort;
use crate::load::Stand;
use crate::plain_amqp::{PlainAmqp, Taken};
use crate::results::Results;
use crate::rounds::Series;
use crate::support::proxy::{Mode, Proxy};
use crate::support::rabbitmq::RabbitMq;
use crate::support::skips;
use crate::throughput::{amqp_sink, connected, count, drain, until};

/// Messages unconfirmed at most.
const WINDOWS: [u64; 6] = [64, 256, 1_024, 2_048, 4_096, 16_384];
/// From the switch to a broker in another country, and back again as long.
const WAY: Duration = Duration::from_millis(50);
/// What the module is allowed there: what keeps a broker next door busy, and what it comes with.
const FAR: [u64; 2] = [1_024, 4_096];
/// RabbitMQ keeps smaller messages in the queue's index, and larger ones in its store.
const INDEXED: usize = 4_000;

/// A way to send.
struct Way {
    name: &'static str,
    /// None: without confirms.
    window: Option<u64>,
    /// Connections at a time.
    connections: u64,
    like: fn(&Taken) -> Taken,
}

const WAYS: [Way; 7] = [
    Way { name: "persistent, confirmed", window: Some(1_024), connections: 1, like: Clone::clone },
    Way { name: "persistent, unconfirmed", window: None, connections: 1, like: Clone::clone },
    Way {
        name: "transient, confirmed",
        window: Some(1_024),
        connections: 1,
        like: Taken::transient,
    },
    Way { name: "transient, unconfirmed", window: None, connections: 1, like: Taken::transient },
    Way {
        name: "persistent, confirmed, on two connections",
        window: Some(512),
        connections: 2,
        like: Clone::clone,
    },
    Way {
        name: "persistent, confirmed, a key of one word",
        window: Some(1_024),
        connections: 1,
        like: |like| like.with_key("event"),
    },
    Way {
        name: "persistent, confirmed, 4 000 bytes",
        window: Some(1_024),
        connections: 1,
        like: |like| like.cut(INDEXED),
    },
];

/// Messages a second until the queue has all of them.
fn rate(way: &Way, client: &mut PlainAmqp, port: u16, like: &Taken, count: u64) -> f64 {
    client.purge("classic");
    let like = (way.like)(like);
    let each = count / way.connections;
    let mut connections: Vec<PlainAmqp> =
        (0..way.connections).map(|_| PlainAmqp::connect(port)).collect();
    let started = Instant::now();
    let took = std::thread::scope(|scope| {
        for connection in &mut connections {
            let like = &like;
            scope.spawn(move || match way.window {
                Some(window) => {
                    connection.confirms();
                    connection.publish("bench", like, each, window);
                }
                None => connection.publish_blindly("bench", like, each),
            });
        }
        until(started, each * way.connections, || client.count("classic"))
    });
    count as f64 / took
}

pub fn run(effort: Effort, results: &mut Results) {
    let Some(broker) = skips::unless("bench limits", RabbitMq::start()) else { return };
    results.fact("rabbitmq", broker.version());
    let Some(mut stand) = skips::unless("bench limits", Stand::start(None)) else { return };
    results.fact("switch", stand.version());
    let (count, port) = (count(effort), broker.port());
    let mut client = PlainAmqp::connect(port);
    client.bound_queue("classic", "bench", &[]);
    let mut ways: Vec<Series> = WAYS.iter().map(|_| Series::default()).collect();
    let mut ours: Vec<Series> = WINDOWS.iter().map(|_| Series::default()).collect();
    let mut theirs = ours.clone();
    let far = Proxy::to(port);
    far.set(Mode::Way(WAY));
    let mut fars = FAR.map(|_| Series::default());
    for _ in 0..effort.rounds {
        let mut like = Taken::default();
        for ((window, ours), theirs) in WINDOWS.iter().zip(&mut ours).zip(&mut theirs) {
            stand.with_module(&amqp_sink(port, *window), |stand| {
                connected(stand);
                let (took, _) = drain(stand, count);
                ours.push(count as f64 / took);
            });
            like = client.take("classic");
            client.purge("classic");
            let mut plain = PlainAmqp::connect(port);
            plain.confirms();
            let took = plain.publish("bench", &like, count, *window);
            theirs.push(count as f64 / took.as_secs_f64());
            client.purge("classic");
        }
        for (window, series) in FAR.iter().zip(&mut fars) {
            stand.with_module(&amqp_sink(far.port(), *window), |stand| {
                connected(stand);
                series.push(drain(stand, count).0);
            });
            client.purge("classic");
        }
        for (way, series) in WAYS.iter().zip(&mut ways) {
            series.push(rate(way, &mut client, port, &like, count));
        }
        client.purge("classic");
    }
    for ((window, ours), theirs) in WINDOWS.iter().zip(&ours).zip(&theirs) {
        let case = format!("window {window}");
        // Above what keeps a broker next door busy it is the most, and the way decides.
        let allowed = if *window > 1_024 { format!("{window} allowed") } else { case.clone() };
        results.figure("mod_rustbridge, from its queue", &allowed, "events/s", ours);
        results.figure("plain socket, the same messages", &case, "events/s", theirs);
    }
    for (window, series) in FAR.iter().zip(&fars) {
        let case = format!("100 ms away, at most {window} unconfirmed");
        results.figure(
            "mod_rustbridge, from its queue",
            &case,
            "events/s",
            &series.map(|took| count as f64 / took),
        );
    }
    let [fixed, following] = &fars;
    results.ratio("time, 4096 allowed / 1024", "100 ms away", following, fixed);
    for (way, series) in WAYS.iter().zip(&ways) {
        results.figure("plain socket", way.name, "messages/s", series);
    }
}
