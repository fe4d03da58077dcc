// SPDX-License-Identifier: MIT
//! A sink as its publisher uses it: numbered messages, a window, outcomes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mod_rustbridge::codec::{Outgoing, Stamp};
use mod_rustbridge::config::amqp::{AmqpConfig, AmqpUrl, Auth, Declare};
use mod_rustbridge::config::secret::Secret;
use mod_rustbridge::config::tls::TlsConfig;
use mod_rustbridge::event::{Class, EventKind, EventNames, Index, Record};
use mod_rustbridge::sink::amqp::AmqpSink;
use mod_rustbridge::sink::{self, Interrupt, Outcome, Sink, SinkError};

use crate::support::wait_until;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A broker of the list.
pub(crate) fn broker(port: u16) -> AmqpUrl {
    AmqpUrl {
        tls: false,
        host: "127.0.0.1".into(),
        port,
        vhost: "/".into(),
        username: "guest".into(),
        password: Secret::Literal("guest".into()),
    }
}

/// What a minimal configuration makes, with this exchange.
pub(crate) fn config(port: u16, exchange: &str) -> AmqpConfig {
    AmqpConfig {
        brokers: vec![broker(port)],
        auth: Auth::Plain,
        exchange: exchange.into(),
        exchange_type: "topic".into(),
        exchange_durable: true,
        exchange_auto_delete: false,
        declare: Declare::Active,
        routing_key: "event.${node}.${event}.${subclass}.${uuid}".into(),
        mandatory: false,
        persistent: true,
        confirm_window: 1024,
        confirm_timeout: Duration::from_secs(30),
        heartbeat: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(10),
        frame_max: 131_072,
        content_type: "application/json".into(),
        connection_name: None,
        tls: TlsConfig::default(),
    }
}

/// What a message carries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Payload {
    /// The `Unique-ID`, so the last word of the key.
    pub(crate) call: Option<String>,
    /// Bytes of one long header.
    pub(crate) filling: usize,
    /// Published to this exchange rather than an event.
    pub(crate) destination: Option<String>,
}

/// One thread's use of a sink.
pub(crate) struct Publisher {
    pub(crate) sink: AmqpSink,
    pub(crate) interrupt: Arc<Interrupt>,
    names: EventNames,
    index: Index,
    /// The number of the message behind each tag since the last open.
    tags: Vec<u64>,
    open: BTreeSet<u64>,
    pub(crate) delivered: BTreeSet<u64>,
    pub(crate) rejected: BTreeMap<u64, String>,
    pub(crate) nacked: BTreeMap<u64, String>,
    outcomes: Vec<Outcome>,
    /// The most messages that were ever in flight.
    pub(crate) most: usize,
}

impl Publisher {
    pub(crate) fn new(config: AmqpConfig) -> Self {
        let interrupt = Arc::new(Interrupt::new().unwrap());
        Self {
            sink: AmqpSink::new(config, "fs1", "rabbit", Arc::clone(&interrupt)),
            interrupt,
            names: EventNames::new(["CUSTOM", "CHANNEL_CREATE"]),
            index: Index::default(),
            tags: Vec::new(),
            open: BTreeSet::new(),
            delivered: BTreeSet::new(),
            rejected: BTreeMap::new(),
            nacked: BTreeMap::new(),
            outcomes: Vec::new(),
            most: 0,
        }
    }

    /// Connected, or the test ends.
    pub(crate) fn connected(config: AmqpConfig) -> Self {
        let mut publisher = Self::new(config);
        publisher.open().unwrap();
        publisher
    }

    pub(crate) fn open(&mut self) -> Result<(), SinkError> {
        self.tags.clear();
        self.open.clear();
        self.sink.open(Instant::now() + PATIENCE)
    }

    /// Opens again and again until it works, as the module does: a broker that has just begun may still close connections.
    pub(crate) fn reopen(&mut self) {
        wait_until(PATIENCE, "the broker to take a connection", || self.open().is_ok());
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.open.len()
    }

    /// Hands over message `number`.
    pub(crate) fn send(&mut self, number: u64, payload: &Payload) -> Result<(), SinkError> {
        let mut record = Record::default();
        if let Some(destination) = &payload.destination {
            record.begin(EventKind::PUBLISH, Class::Normal, None);
            record.header(Outgoing::PUBLISH_DESTINATION.as_bytes(), destination.as_bytes());
            record.header(Outgoing::PUBLISH_KEY.as_bytes(), b"by.hand");
            record.header(b"number", number.to_string().as_bytes());
            record.body(format!("{{\"number\":{number}}}").as_bytes());
        } else {
            record.begin(EventKind::new(1), Class::Normal, None);
            record.header(b"Event-Name", b"CHANNEL_CREATE");
            record.header(b"Core-UUID", b"core-1");
            record.header(b"Event-Sequence", number.to_string().as_bytes());
            record.header(b"Event-Date-Timestamp", b"1633261501757401");
            if let Some(call) = &payload.call {
                record.header(b"Unique-ID", call.as_bytes());
            }
            for header in 0..20 {
                let name = format!("variable_header_{header}");
                record.header(name.as_bytes(), b"a value with \"quotes\" and more");
            }
            if payload.filling > 0 {
                record.header(b"filling", &vec![b'x'; payload.filling]);
            }
        }
        self.index.read(&record);
        let message = Outgoing {
            stamp: Stamp { seq: number, reuse: 0 },
            node: "fs1",
            boot: "core-1",
            record: &record,
            index: &self.index,
            names: &self.names,
        };
        let tag = u64::try_from(self.tags.len()).unwrap();
        self.sink.send(tag, &message)?;
        self.tags.push(number);
        assert!(self.open.insert(tag));
        self.most = self.most.max(self.open.len());
        Ok(())
    }

    /// One poll; what it tells is noted. Each message must be told of once.
    pub(crate) fn poll(&mut self, budget: Duration) -> Result<(), SinkError> {
        let polled = self.sink.poll(budget, &mut self.outcomes);
        for outcome in std::mem::take(&mut self.outcomes) {
            match outcome {
                Outcome::Delivered(tag) => self.deliver(tag),
                Outcome::DeliveredThrough(last) => {
                    let told: Vec<u64> = self.open.range(..=last).copied().collect();
                    for tag in told {
                        self.deliver(tag);
                    }
                }
                Outcome::Rejected { tag, reason } => {
                    let number = self.settle(tag);
                    self.rejected.insert(number, reason);
                }
                Outcome::Nacked { tag, reason } => {
                    let number = self.settle(tag);
                    self.nacked.insert(number, reason);
                }
            }
        }
        polled
    }

    fn settle(&mut self, tag: u64) -> u64 {
        assert!(self.open.remove(&tag), "tag {tag} is told of twice, or was never given");
        self.tags[usize::try_from(tag).unwrap()]
    }

    fn deliver(&mut self, tag: u64) {
        let number = self.settle(tag);
        self.delivered.insert(number);
    }

    /// Hands all of them over and waits for every outcome.
    pub(crate) fn publish(
        &mut self,
        numbers: impl IntoIterator<Item = u64>,
        payload: impl Fn(u64) -> Payload,
    ) -> Result<(), SinkError> {
        let deadline = Instant::now() + PATIENCE;
        let mut numbers = numbers.into_iter().peekable();
        while numbers.peek().is_some() || !self.open.is_empty() {
            assert!(Instant::now() < deadline, "{} messages stay unconfirmed", self.open.len());
            while self.open.len() < self.sink.window()
                && let Some(number) = numbers.peek().copied()
            {
                match self.send(number, &payload(number)) {
                    Ok(()) => {}
                    Err(SinkError::Rejected { reason, .. }) => {
                        self.rejected.insert(number, reason);
                    }
                    Err(error) if error.class() == sink::Class::Busy => break,
                    Err(error) => return Err(error),
                }
                numbers.next();
            }
            self.poll(Duration::from_millis(20))?;
        }
        Ok(())
    }

    /// Polls until `done`, or the test ends.
    pub(crate) fn poll_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            self.poll(Duration::from_millis(50)).unwrap();
        }
    }

    /// Polls until the connection fails, or the test ends.
    pub(crate) fn poll_until_error(&mut self) -> SinkError {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "the connection does not fail");
            if let Err(error) = self.poll(Duration::from_millis(50)) {
                return error;
            }
        }
    }

    pub(crate) fn close(mut self) {
        self.sink.close(Instant::now() + PATIENCE);
    }
}
