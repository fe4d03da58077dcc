// SPDX-License-Identifier: MIT
//! A small publisher: what the trait asks of one, and nothing more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mod_rustbridge::codec::{Outgoing, Stamp};
use mod_rustbridge::config::kafka::{Compression, KafkaConfig, SecurityProtocol};
use mod_rustbridge::config::tls::TlsConfig;
use mod_rustbridge::event::{Class, EventKind, EventNames, Index, Record};
use mod_rustbridge::sink::kafka::KafkaSink;
use mod_rustbridge::sink::{self, Interrupt, Outcome, Sink, SinkError};

use crate::broker::PATIENCE;

pub(crate) fn config(servers: &str, topic: &str) -> KafkaConfig {
    KafkaConfig {
        bootstrap_servers: servers.to_owned(),
        topic: topic.to_owned(),
        key: "${call}".to_owned(),
        client_id: None,
        compression: Compression::Lz4,
        message_timeout: None,
        in_flight_max: 2_000,
        security_protocol: SecurityProtocol::Plaintext,
        sasl: None,
        tls: TlsConfig::default(),
        properties: Vec::new(),
        allow_unsafe_delivery: false,
    }
}

/// The time as the core writes it.
fn now_us() -> String {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros().to_string()
}

/// The event number `n` of the call `call`, with `size` bytes in one of its headers.
///
/// It happens now: a broker that restarts forgets producers whose last record is older than a
/// day (`producer.id.expiration.ms`, by the record's own time), and then takes a repetition.
pub(crate) fn event(n: usize, call: &str, size: usize) -> Record {
    let mut record = Record::default();
    record.begin(EventKind::new(1), Class::Normal, None);
    record.header(b"Event-Name", b"CHANNEL_CREATE");
    record.header(b"Core-UUID", b"core-1");
    record.header(b"Event-Sequence", n.to_string().as_bytes());
    record.header(b"Event-Date-Timestamp", now_us().as_bytes());
    record.header(b"Unique-ID", format!("leg-{n}").as_bytes());
    record.header(b"Channel-Call-UUID", call.as_bytes());
    record.header(b"variable_filler", "x".repeat(size).as_bytes());
    record
}

/// A message from `rustbridge_publish`.
pub(crate) fn published(topic: &str, key: &str, headers: &[(&str, &str)], body: &str) -> Record {
    let mut record = Record::default();
    record.begin(EventKind::PUBLISH, Class::Normal, None);
    record.header(Outgoing::PUBLISH_DESTINATION.as_bytes(), topic.as_bytes());
    record.header(Outgoing::PUBLISH_KEY.as_bytes(), key.as_bytes());
    for (name, value) in headers {
        record.header(name.as_bytes(), value.as_bytes());
    }
    record.body(body.as_bytes());
    record
}

pub(crate) struct Driver {
    pub(crate) sink: KafkaSink,
    pub(crate) interrupt: Arc<Interrupt>,
    names: EventNames,
    index: Index,
}

/// What became of messages, by their place in the list.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) delivered: Vec<usize>,
    pub(crate) rejected: Vec<(usize, String)>,
    pub(crate) nacked: usize,
    /// Errors for which the sink was opened again.
    pub(crate) reopened: Vec<String>,
}

impl Driver {
    pub(crate) fn new(config: KafkaConfig) -> Self {
        let interrupt = Arc::new(Interrupt::new().unwrap());
        let sink = KafkaSink::new(config, "test", Arc::clone(&interrupt));
        let names = EventNames::new(["CUSTOM", "CHANNEL_CREATE"]);
        Self { sink, interrupt, names, index: Index::default() }
    }

    /// One that is open.
    pub(crate) fn opened(config: KafkaConfig) -> Self {
        let mut driver = Self::new(config);
        driver.open().unwrap();
        driver
    }

    pub(crate) fn open(&mut self) -> Result<(), SinkError> {
        self.sink.open(Instant::now() + Duration::from_secs(10))
    }

    pub(crate) fn send(&mut self, tag: u64, record: &Record, seq: usize) -> Result<(), SinkError> {
        self.index.read(record);
        let message = Outgoing {
            stamp: Stamp { seq: seq as u64, reuse: 0 },
            node: "fs1",
            boot: "core-1",
            record,
            index: &self.index,
            names: &self.names,
        };
        self.sink.send(tag, &message)
    }

    /// Sends all records and waits for what becomes of each, opening again after an error.
    /// `delivered` is told how many were delivered so far.
    pub(crate) fn publish(
        &mut self,
        records: &[Record],
        mut delivered: impl FnMut(usize),
    ) -> Report {
        let mut report = Report::default();
        let mut waiting: VecDeque<usize> = (0..records.len()).collect();
        let mut in_flight = BTreeMap::new();
        let mut next_tag = 0;
        let mut outcomes = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while !(waiting.is_empty() && in_flight.is_empty()) {
            assert!(
                Instant::now() < deadline,
                "{} waiting, {} in flight, {:?}, {report:?}",
                waiting.len(),
                in_flight.len(),
                self.sink.degraded()
            );
            let mut failed = None;
            while in_flight.len() < self.sink.window() {
                let Some(&at) = waiting.front() else { break };
                let sent = self.send(next_tag, &records[at], at);
                match sent.as_ref().map_err(SinkError::class) {
                    Ok(()) => {
                        in_flight.insert(next_tag, at);
                        next_tag += 1;
                    }
                    Err(sink::Class::Busy) => break,
                    Err(sink::Class::Reject) => {
                        report.rejected.push((at, sent.unwrap_err().to_string()));
                    }
                    Err(_) => {
                        failed = sent.err();
                        break;
                    }
                }
                waiting.pop_front();
            }
            if failed.is_none() {
                failed = self.sink.poll(Duration::from_millis(100), &mut outcomes).err();
            }
            for outcome in outcomes.drain(..) {
                match outcome {
                    Outcome::Delivered(tag) => {
                        report.delivered.push(in_flight.remove(&tag).expect("reported once"));
                        delivered(report.delivered.len());
                    }
                    Outcome::Rejected { tag, reason } => {
                        report.rejected.push((in_flight.remove(&tag).unwrap(), reason));
                    }
                    Outcome::Nacked { tag, .. } => {
                        report.nacked += 1;
                        waiting.push_front(in_flight.remove(&tag).unwrap());
                    }
                    Outcome::DeliveredThrough(_) => panic!("Kafka reports one by one"),
                }
            }
            if let Some(error) = failed {
                report.reopened.push(error.to_string());
                for (_, at) in std::mem::take(&mut in_flight).into_iter().rev() {
                    waiting.push_front(at);
                }
                next_tag = 0;
                while let Err(error) = self.open() {
                    report.reopened.push(error.to_string());
                    assert!(Instant::now() < deadline, "{report:?}");
                }
            }
        }
        report
    }

    /// Polls until `condition` holds of what came.
    pub(crate) fn poll_until(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&[Outcome], &KafkaSink) -> bool,
    ) -> Result<Vec<Outcome>, SinkError> {
        let deadline = Instant::now() + PATIENCE;
        let mut outcomes = Vec::new();
        while !condition(&outcomes, &self.sink) {
            assert!(Instant::now() < deadline, "waited in vain for {what}: {outcomes:?}");
            self.sink.poll(Duration::from_millis(100), &mut outcomes)?;
        }
        Ok(outcomes)
    }

    pub(crate) fn close(&mut self) {
        self.sink.close(Instant::now() + Duration::from_secs(10));
    }
}
