// SPDX-License-Identifier: MIT
//! The least that a producer over librdkafka can be: one record again and again, and a count of delivery reports.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use crate::support::clients;

#[derive(Debug, Default)]
struct Count(AtomicU64);

impl ClientContext for Count {}

impl ProducerContext for Count {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        assert!(result.is_ok(), "the broker takes it");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The body of a record of this topic.
pub fn one(bootstrap: &str, topic: &str) -> Vec<u8> {
    let all = clients::kafka_read(bootstrap, topic);
    all.first().map(|message| message.body.clone()).expect("the topic has a record")
}

fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc is there");
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after.split_whitespace().skip(11).take(2);
    ticks.filter_map(|text| text.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Seconds, and seconds of processor time, to produce `count` records of this body, with the sink's properties and as many
/// and as long headers as the sink sends.
pub fn produce(bootstrap: &str, topic: &str, body: &[u8], count: u64) -> (f64, f64) {
    let producer: BaseProducer<Count> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("compression.type", "lz4")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "51000")
        .create_with_context(Count::default())
        .expect("a producer can be made");
    let headers = [
        ("content-type", "application/json"),
        ("message-id", "0f3a5b7c-1d2e-4f60-8a9b-0c1d2e3f4a5b:1234567"),
        ("event-name", "CHANNEL_HANGUP_COMPLETE"),
        ("unique-id", "0f3a5b7c-1d2e-4f60-8a9b-0c1d2e3f4a5b"),
        ("node", "fs1.example"),
        ("seq", "1234567"),
        ("core-uuid", "0f3a5b7c-1d2e-4f60-8a9b-0c1d2e3f4a5b"),
        ("event-sequence", "1234567"),
        ("timestamp-us", "1763728000000000"),
    ];
    // The connection is made before the time runs.
    producer
        .client()
        .fetch_metadata(Some(topic), Duration::from_secs(30))
        .expect("the broker answers");
    let (used, started) = (cpu(), Instant::now());
    for _ in 0..count {
        let mut list = OwnedHeaders::new_with_capacity(headers.len());
        for (key, value) in headers {
            list = list.insert(Header { key, value: Some(value) });
        }
        let mut record = BaseRecord::to(topic)
            .key("0f3a5b7c-1d2e-4f60-8a9b-0c1d2e3f4a5b")
            .payload(body)
            .headers(list);
        while let Err((error, back)) = producer.send(record) {
            let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            assert_eq!(error, full, "the producer takes it");
            producer.poll(Duration::from_millis(5));
            record = back;
        }
        producer.poll(Duration::ZERO);
    }
    while producer.context().0.load(Ordering::Relaxed) < count {
        producer.poll(Duration::from_millis(5));
    }
    (started.elapsed().as_secs_f64(), cpu() - used)
}
