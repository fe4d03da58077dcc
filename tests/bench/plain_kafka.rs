// SPDX-License-Identifier: MIT
//! The least that a producer over librdkafka can be: one record again and again, and a count of delivery reports. And
//! librdkafka's own program for that.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use crate::support::{clients, target};

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

const KEY: &str = "0f3a5b7c-1d2e-4f60-8a9b-0c1d2e3f4a5b";
/// As many and as long headers as the sink sends.
const HEADERS: [(&str, &str); 10] = [
    ("content-type", "application/json"),
    ("message-id", "0f3a5b7c-1d2e-4f60-8a9b-0c1d2e3f4a5b:1234567"),
    ("event-name", "CHANNEL_HANGUP_COMPLETE"),
    ("unique-id", "0f3a5b7c-1d2e-4f60-8a9b-0c1d2e3f4a5b"),
    ("node", "fs1.example"),
    ("boot", "0f3a5b7c-1d2e-4f60-8a9b-0c1d2e3f4a5b"),
    ("seq", "1234567"),
    ("core-uuid", "0f3a5b7c-1d2e-4f60-8a9b-0c1d2e3f4a5b"),
    ("event-sequence", "1234567"),
    ("timestamp-us", "1763728000000000"),
];

/// The bodies of records of this topic, some hundreds: compression finds in neighbours what it finds in the module's.
pub fn some(bootstrap: &str, topic: &str) -> Vec<Vec<u8>> {
    const SOME: usize = 500;
    let all = clients::kafka_read(bootstrap, topic);
    let bodies: Vec<Vec<u8>> = all.into_iter().take(SOME).map(|message| message.body).collect();
    assert!(!bodies.is_empty(), "the topic has records");
    bodies
}

/// Produces a record so often at this pace, one at a time, and gives what each took until its report, in seconds.
pub fn round_trips(
    bootstrap: &str,
    topic: &str,
    body: &[u8],
    count: u64,
    pace: Duration,
) -> Vec<f64> {
    let producer: BaseProducer<Count> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("compression.type", "lz4")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .create_with_context(Count::default())
        .expect("a producer can be made");
    let found = producer.client().fetch_metadata(Some(topic), Duration::from_secs(30));
    found.expect("the broker answers");
    let begun = Instant::now();
    (0..count)
        .map(|number| {
            std::thread::sleep((pace * number as u32).saturating_sub(begun.elapsed()));
            let started = Instant::now();
            let record = BaseRecord::<str, [u8]>::to(topic).key(KEY).payload(body);
            producer.send(record).map_err(|(error, _)| error).expect("the producer takes it");
            while producer.context().0.load(Ordering::Relaxed) <= number {
                // The library's own wait goes on after the report came; the loop must not take the processor either.
                producer.poll(Duration::ZERO);
                std::thread::sleep(Duration::from_micros(50));
            }
            started.elapsed().as_secs_f64()
        })
        .collect()
}

fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc is there");
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after.split_whitespace().skip(11).take(2);
    ticks.filter_map(|text| text.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Seconds, and seconds of processor time, to produce `count` records of these bodies in turn, with the sink's properties.
pub fn produce(bootstrap: &str, topic: &str, bodies: &[Vec<u8>], count: u64) -> (f64, f64) {
    let producer: BaseProducer<Count> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("compression.type", "lz4")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .set("queue.buffering.max.messages", "11000")
        .create_with_context(Count::default())
        .expect("a producer can be made");
    // The connection is made before the time runs.
    producer
        .client()
        .fetch_metadata(Some(topic), Duration::from_secs(30))
        .expect("the broker answers");
    let (used, started) = (cpu(), Instant::now());
    for (_, body) in (0..count).zip(bodies.iter().cycle()) {
        let mut list = OwnedHeaders::new_with_capacity(HEADERS.len());
        for (key, value) in HEADERS {
            list = list.insert(Header { key, value: Some(value) });
        }
        let mut record = BaseRecord::to(topic).key(KEY).payload(body.as_slice()).headers(list);
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

fn program() -> PathBuf {
    target().join("bench/rdkafka_performance")
}

/// Whether `bench.mk` could build librdkafka's own program.
pub fn is_there() -> bool {
    program().is_file()
}

/// Seconds that librdkafka's `rdkafka_performance` takes for `count` records like these, by its own account: from its start,
/// before it is connected, to its last report.
pub fn performance(bootstrap: &str, topic: &str, body: &[u8], count: u64) -> f64 {
    let mut command = Command::new(program());
    command.args(["-P", "-D", "-q", "-t", topic, "-b", bootstrap, "-k", KEY, "-z", "lz4"]);
    command.args(["-c", &count.to_string(), "-s", &body.len().to_string()]);
    command.arg("-m").arg(std::str::from_utf8(body).expect("JSON is text"));
    for property in
        ["acks=all", "enable.idempotence=true", "linger.ms=1", "queue.buffering.max.messages=11000"]
    {
        command.args(["-X", property]);
    }
    for (name, value) in HEADERS {
        command.args(["-H", &format!("{name}={value}")]);
    }
    let done = command.output().expect("it can be started");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    // "% 60000 messages produced (…), 60000 delivered (offset 59999, 0 failed) in 2345ms: …"
    let last =
        said.lines().rev().find(|line| line.contains(" delivered ") && line.contains("ms: "));
    let last = last
        .unwrap_or_else(|| panic!("no account: {said}{}", String::from_utf8_lossy(&done.stderr)));
    assert!(last.contains(&format!(" {count} delivered ")), "{last}");
    let words = last.split(" in ").nth(1).and_then(|rest| rest.split("ms").next());
    let milliseconds = words.and_then(|number| number.parse::<f64>().ok());
    milliseconds.unwrap_or_else(|| panic!("no time: {last}")) / 1e3
}
