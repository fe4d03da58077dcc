// SPDX-License-Identifier: MIT
//! With little to do: how long an event takes from the core's making it to the broker's acknowledgement, against one round trip
//! of a plain client at the same pace and the time that an event may wait for others.

use std::time::Duration;

use crate::Effort;
use crate::load::Stand;
use crate::plain_amqp::PlainAmqp;
use crate::plain_kafka;
use crate::results::Results;
use crate::rounds::Series;
use crate::support::kafka::Kafka;
use crate::support::rabbitmq::RabbitMq;
use crate::support::skips;
use crate::support::switch::Switch;
use crate::throughput::{amqp_sink, connected, kafka_sink};

/// Events a second.
const RATE: u32 = 100;
/// What an event may wait for others, as configured by default.
const LINGER: f64 = 0.005;

/// Seconds of one round's percentiles: the module's, and the plain client's.
#[derive(Default)]
struct Found {
    p50: Series,
    p99: Series,
    plain_p50: Series,
    plain_p99: Series,
}

impl Found {
    fn ours(&mut self, stand: &mut Stand, count: u64) {
        connected(stand);
        // What a client does before its first message, as asking Kafka for a producer number, holds up one event, not all that come
        // in that time: the plain client has one under way at a time, and so just its first is late.
        stand.paced(1, RATE);
        stand.wait_for("waiting", 0);
        stand.paced(count, RATE);
        stand.wait_for("waiting", 0);
        let status = stand.switch().json("rustbridge status json");
        let latency = &status["sinks"][0]["latency_us"];
        assert_eq!(latency["count"], count + 1, "{status:#}");
        let seconds = |name: &str| latency[name].as_f64().expect("a number") / 1e6;
        self.p50.push(seconds("p50"));
        self.p99.push(seconds("p99"));
    }

    fn theirs(&mut self, mut trips: Vec<f64>) {
        trips.sort_by(f64::total_cmp);
        self.plain_p50.push(trips[trips.len() / 2]);
        self.plain_p99.push(trips[trips.len() * 99 / 100]);
    }

    /// `lingers`: how many waits for others lie one behind the other.
    fn report(&self, broker: &str, lingers: f64, results: &mut Results) {
        let case = format!("{broker}, {RATE} events/s");
        let ms = |series: &Series| series.map(|seconds| seconds * 1e3);
        results.figure("round trip of a plain client, p50", &case, "ms", &ms(&self.plain_p50));
        results.figure("round trip of a plain client, p99", &case, "ms", &ms(&self.plain_p99));
        results.figure("event to acknowledgement, p50", &case, "ms", &ms(&self.p50));
        results.figure("event to acknowledgement, p99", &case, "ms", &ms(&self.p99));
        let bound = self.plain_p99.map(|seconds| seconds + lingers * LINGER);
        results.ratio(
            "event to acknowledgement, p99 / round trip p99 + linger",
            &case,
            &self.p99,
            &bound,
        );
    }
}

pub fn run(effort: Effort, results: &mut Results) {
    let Some(mut stand) = skips::unless("bench latency", Stand::start(None)) else { return };
    results.fact("switch", stand.version());
    let count = if effort.short { 500 } else { 2_000 };
    let pace = Duration::from_secs(1) / RATE;
    let rounds = effort.rounds.min(6);
    if let Some(broker) = skips::unless("bench latency, rabbitmq", RabbitMq::start()) {
        results.fact("rabbitmq", broker.version());
        let mut client = PlainAmqp::connect(broker.port());
        client.bound_queue("classic", "bench", &[]);
        let mut found = Found::default();
        for _ in 0..rounds {
            stand.with_module(&amqp_sink(broker.port(), 1_024), |stand| found.ours(stand, count));
            let like = client.take("classic");
            let mut plain = PlainAmqp::connect(broker.port());
            plain.confirms();
            found.theirs(plain.round_trips("bench", &like, count, pace));
            client.purge("classic");
        }
        found.report("RabbitMQ", 1.0, results);
    }
    if let Some(broker) = skips::unless("bench latency, kafka", Kafka::start()) {
        results.fact("kafka", Kafka::version());
        broker.create_topic("ours", 1, &[]);
        let bootstrap = broker.bootstrap();
        let mut found = Found::default();
        for _ in 0..rounds {
            stand.with_module(&kafka_sink(&bootstrap), |stand| found.ours(stand, count));
            let like = &plain_kafka::some(&bootstrap, "ours")[0];
            found.theirs(plain_kafka::round_trips(&bootstrap, "ours", like, count, pace));
        }
        // The module waits for 5 ms, and the client library for one more.
        found.report("Kafka", 1.2, results);
    }
}
