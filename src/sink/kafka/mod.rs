// SPDX-License-Identifier: MIT
//! Kafka, through librdkafka.
//!
//! The producer is idempotent, asks for the acknowledgement of all replicas, and does its own
//! reconnecting, retrying and re-ordering; what is left to this module is to keep it fed, to turn
//! its delivery reports into [`Outcome`]s, and to give it up when it is of no more use. Three
//! things follow:
//!
//! * A broker that is away is no error: the producer keeps what it has and goes on trying, with
//!   the order kept and nothing repeated. [`degraded`](KafkaSink::degraded) says so meanwhile.
//! * [`SinkError::Fatal`] and [`SinkError::Refused`] throw the producer away with all it holds;
//!   what it had on the wire at that moment may arrive and be sent again.
//! * librdkafka has threads of its own. They are made in `open` and ended when the producer is
//!   dropped, on the publisher's thread.
//!
//! Nothing is repeated without a new producer as long as the brokers remember this one. They do
//! for a day (`producer.id.expiration.ms`), counted from the time of its last record, which is the
//! time of the event: a broker that crashes while events older than a day are sent from a spool
//! may take again what it had not acknowledged.
//!
//! What one message costs beyond librdkafka's own copy of key and body: `rdkafka` allocates the
//! topic's name as a C string, librdkafka one block for the headers and one for each, which are
//! freed with the delivery report, and looks the topic up by name.

mod context;
mod headers;
mod health;
mod log_lines;
mod outstanding;
mod properties;
mod settings;
mod verdict;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use properties::check_properties;

use context::{Context, Failure};
use outstanding::Outstanding;
use verdict::{Verdict, is_missing, topic_advice, topic_name_problem, verdict};

use crate::codec::{Form, Outgoing};
use crate::config::kafka::KafkaConfig;
use crate::config::template::{Purpose, Template};
use crate::sink::{Interrupt, Outcome, Sink, SinkError, revocation};

/// How long `open` waits for a first answer. Load never waits for this: it is the publisher's
/// time, and only a broker that neither answers nor refuses uses it up.
const FIRST_ANSWER: Duration = Duration::from_millis(500);
/// How long `open` waits for a topic that may be in the making.
const TOPIC_CREATION: Duration = Duration::from_secs(3);
/// The longest that a call of librdkafka may hold the publisher.
const SLICE: Duration = Duration::from_millis(100);
/// The pauses between looks at librdkafka's queue while reports are due, from a first to a
/// longest. It cannot wake us without `unsafe`, and `rdkafka`'s own wait does not end early.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(8);
/// The same while none are: log lines, errors and statistics have time.
const IDLE_PAUSE: Duration = Duration::from_millis(250);
/// Events of librdkafka served in one go, so that a flood of them does not hold the publisher.
const EVENTS_AT_ONCE: u32 = 256;
/// After so long without a report for the oldest message, and again after each such time, the
/// brokers are asked whether it can still be delivered.
const PATIENCE: Duration = Duration::from_secs(10);
/// A producer that has not delivered its oldest message for so long, while each partition has a
/// leader, has lost it.
const STALLED: Duration = Duration::from_secs(60);
/// A body buffer larger than this is not kept.
const BODY_KEPT: usize = 1 << 20;

/// A sink that produces to Kafka.
pub struct KafkaSink {
    config: KafkaConfig,
    client_id: String,
    interrupt: Arc<Interrupt>,
    producer: Option<BaseProducer<Context>>,
    /// The largest batch that the topic was seen to take, or librdkafka's default.
    batch_bytes: usize,
    pause: Duration,
    outstanding: Outstanding,
    /// Milliseconds since 1970, as of the last `open` or `poll`, where a message did not need it newer.
    now_ms: u64,
    /// When the brokers were last asked about the oldest message.
    asked: Instant,
    /// The record key and the topic, as they are configured.
    key_template: Template,
    topic_template: Template,
    /// Both, filled in for the message at hand.
    key: Vec<u8>,
    topic: Vec<u8>,
    body: Vec<u8>,
    id: String,
    /// What `close` still delivered.
    late: Vec<Outcome>,
}

impl KafkaSink {
    /// A sink that is not open yet. Does no I/O. `client_id` is for a configuration that has
    /// none: node and sink.
    pub fn new(config: KafkaConfig, client_id: &str, interrupt: Arc<Interrupt>) -> Self {
        let batch_bytes = settings::batch_bytes(&config);
        let client_id = config.client_id.clone().unwrap_or_else(|| client_id.to_owned());
        Self {
            key_template: Template::new(&config.key, Purpose::RecordKey),
            topic_template: Template::new(&config.topic, Purpose::Topic),
            key: Vec::new(),
            topic: Vec::new(),
            config,
            client_id,
            interrupt,
            producer: None,
            batch_bytes,
            pause: FIRST_PAUSE,
            outstanding: Outstanding::new(Instant::now()),
            now_ms: 0,
            asked: Instant::now(),
            body: Vec::new(),
            id: String::new(),
            late: Vec::new(),
        }
    }

    /// Waits a moment for a first answer, so that what is wrong for good shows at once.
    fn probe(&mut self, deadline: Instant) -> Result<(), SinkError> {
        let start = Instant::now();
        let answer_by = deadline.min(start + FIRST_ANSWER);
        let topic_by = deadline.min(start + TOPIC_CREATION);
        let mut missing = None;
        loop {
            let now = Instant::now();
            let until = if missing.is_some() { topic_by } else { answer_by };
            if now >= until || self.interrupt.is_raised() {
                break;
            }
            let Some(producer) = &self.producer else { break };
            let slice = SLICE.min(until - now);
            // A topic that depends on the event is looked for when there is one.
            let varies = self.topic_template.has_fields();
            let topic = (!varies).then_some(self.config.topic.as_str());
            let Ok(metadata) = producer.client().fetch_metadata(topic, slice) else {
                let _events = serve(producer);
                if let Some(error) = self.failure() {
                    return Err(self.give_up(error));
                }
                if self.health_is_down() {
                    // It keeps trying, and that is not worth waiting for.
                    break;
                }
                continue;
            };
            producer.context().shared().health.up();
            if varies {
                return Ok(());
            }
            match metadata.topics().first().and_then(MetadataTopic::error).map(Code::from) {
                Some(code) if verdict(code) == Verdict::Topic => {
                    missing = Some(code);
                    if !is_missing(code) {
                        break;
                    }
                    // The question itself makes a broker create it, if it does that.
                    self.wait(SLICE.min(until - now));
                }
                // No leader yet is for librdkafka to wait for.
                _ => return Ok(()),
            }
        }
        match missing {
            Some(code) => {
                let reason = topic_advice(code, &self.config.topic);
                Err(self.give_up(self.refused(reason)))
            }
            None => Ok(()),
        }
    }

    fn health_is_down(&self) -> bool {
        let producer = self.producer.as_ref();
        producer.is_some_and(|producer| producer.context().shared().health.is_down())
    }

    /// Why the producer must be given up, if it must.
    fn failure(&mut self) -> Option<SinkError> {
        let producer = self.producer.as_ref()?;
        let (failure, refusal, ask) = {
            let mut shared = producer.context().shared();
            let ask = std::mem::take(&mut shared.ask_producer);
            let refusal = shared.health.refusal().map(str::to_owned);
            (shared.failure.clone(), refusal, ask || shared.failure.is_some())
        };
        let fatal = if ask { producer.client().fatal_error() } else { None };
        Some(match (fatal, failure, refusal) {
            (Some((code, words)), ..) if verdict(code) == Verdict::Refused => self.refused(words),
            (Some((_, words)), ..) => self.fatal(words),
            (None, Some(Failure::BatchTooLarge), _) => {
                self.batch_bytes /= 2;
                self.fatal(format!(
                    "the topic takes no batch of {} bytes (max.message.bytes): trying {}",
                    self.batch_bytes * 2,
                    self.batch_bytes
                ))
            }
            (None, Some(Failure::TopicMissing), _) => self.topic_missing(),
            (None, Some(Failure::Fatal(reason)), _) => self.fatal(reason),
            (None, Some(Failure::Refused(reason)), _) | (None, None, Some(reason)) => {
                self.refused(reason)
            }
            (None, None, None) => return None,
        })
    }

    /// Whether the oldest message will never be reported.
    ///
    /// A topic that is deleted while a message for it is being retried can make librdkafka lose
    /// sight of that message (seen with 2.12.1). With a message timeout it would come back by
    /// that; without one only this notices.
    fn stalled(&mut self, now: Instant) -> Option<SinkError> {
        let waiting = self.outstanding.waiting(now).filter(|waiting| *waiting >= PATIENCE)?;
        if now.saturating_duration_since(self.asked) < PATIENCE || self.health_is_down() {
            return None;
        }
        self.asked = now;
        let producer = self.producer.as_ref()?;
        if self.topic_template.has_fields() {
            let words = format!("no report for a message for {} s", waiting.as_secs());
            return (waiting >= STALLED).then(|| self.fatal(words));
        }
        let asked = producer.client().fetch_metadata(Some(&self.config.topic), SLICE);
        let metadata = asked.ok()?;
        let topic = metadata.topics().first()?;
        match topic.error().map(Code::from) {
            Some(code) if verdict(code) == Verdict::Topic => Some(self.topic_missing()),
            Some(_) => None,
            None => {
                let led = topic.partitions().iter().all(|partition| partition.leader() >= 0);
                (led && waiting >= STALLED).then(|| {
                    self.fatal(format!("no report for a message for {} s", waiting.as_secs()))
                })
            }
        }
    }

    /// Ends the producer with all it holds. Dropping it purges its queues, waits up to 500 ms for
    /// librdkafka to let go of the messages and then joins librdkafka's threads.
    fn give_up(&mut self, error: SinkError) -> SinkError {
        self.producer = None;
        error
    }

    /// Waits for the pause to end or the interrupt to be raised.
    fn wait(&self, pause: Duration) {
        let mut interrupt = [PollFd::new(&*self.interrupt, PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: i64::try_from(pause.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(pause.subsec_nanos()),
        };
        // Interrupted by a signal or not: whoever waits looks at the clock again.
        let _ready = poll(&mut interrupt, Some(&timeout));
    }

    fn peer_name(&self) -> String {
        self.config.bootstrap_servers.clone()
    }

    fn refused(&self, reason: String) -> SinkError {
        SinkError::Refused { peer: self.peer_name(), reason }
    }

    fn rejected(&self, reason: String) -> SinkError {
        SinkError::Rejected { peer: self.peer_name(), reason }
    }

    /// Leaves it to `open`, which asks more than once, whether the topic is missing for good.
    fn topic_missing(&self) -> SinkError {
        self.fatal(format!("it cannot find the topic {:?}", self.config.topic))
    }

    fn fatal(&self, reason: String) -> SinkError {
        SinkError::Fatal { peer: self.peer_name(), reason }
    }

    fn not_open(&self) -> SinkError {
        let source = io::Error::from(io::ErrorKind::NotConnected);
        SinkError::Disconnected { peer: self.peer_name(), source }
    }

    /// What it means that librdkafka did not take a message.
    fn not_taken(&mut self, code: Code, topic: &str, size: usize) -> SinkError {
        match (code, verdict(code)) {
            (Code::QueueFull, _) => SinkError::Busy { peer: self.peer_name() },
            (_, Verdict::Topic) if topic == self.config.topic => {
                let error = if is_missing(code) {
                    self.topic_missing()
                } else {
                    self.refused(topic_advice(code, topic))
                };
                self.give_up(error)
            }
            (_, Verdict::Topic) => self.rejected(topic_advice(code, topic)),
            (_, Verdict::TooLarge) => self.rejected(format!(
                "{size} bytes are more than the librdkafka property message.max.bytes allows"
            )),
            (_, Verdict::Fatal | Verdict::Refused) => {
                if let Some(producer) = &self.producer {
                    let reason = code.to_string();
                    producer.context().shared().failure.get_or_insert(Failure::Fatal(reason));
                }
                let error = self.failure().unwrap_or_else(|| self.not_open());
                self.give_up(error)
            }
            (_, Verdict::Retry | Verdict::Rejected | Verdict::TakenBack) => {
                self.rejected(format!("librdkafka does not take it: {code}"))
            }
        }
    }
}

/// Serves what is in librdkafka's queue without waiting. Returns how many events that were.
fn serve(producer: &BaseProducer<Context>) -> u32 {
    let mut served = 0;
    let mut before = producer.context().shared().seen;
    while served < EVENTS_AT_ONCE {
        // With no time to wait it serves one event.
        producer.poll(Duration::ZERO);
        let seen = producer.context().shared().seen;
        if seen == before {
            break;
        }
        before = seen;
        served += 1;
    }
    served
}

impl Sink for KafkaSink {
    /// Makes a producer. A broker that is away is no error: the producer is there, takes
    /// messages, and tries until it reaches one.
    fn open(&mut self, deadline: Instant) -> Result<(), SinkError> {
        self.producer = None;
        self.late.clear();
        self.pause = FIRST_PAUSE;
        self.outstanding = Outstanding::new(Instant::now());
        self.now_ms = now_ms();
        let lists = self.config.tls.crl_file.as_deref();
        lists.map_or(Ok(()), revocation::check).map_err(|reason| self.refused(reason))?;
        let context = Context::new(&self.config.topic, self.batch_bytes, lists);
        // Secrets and the files of certificates and keys are read here, so that new ones count.
        let client = settings::client_config(&self.config, &self.client_id, self.batch_bytes)
            .map_err(|error| self.refused(error.to_string()))?;
        match client.create_with_context(context) {
            Ok(producer) => self.producer = Some(producer),
            Err(error) => {
                let words = properties::explain(&error, &client);
                return Err(self.refused(format!("no connection can be set up: {words}")));
            }
        }
        self.probe(deadline)
    }

    fn write_key(&self, message: &Outgoing<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(message.record_key(&self.key_template, &mut Vec::new()));
    }

    fn window(&self) -> usize {
        usize::try_from(self.config.in_flight_max).unwrap_or(usize::MAX)
    }

    fn send(&mut self, tag: u64, message: &Outgoing<'_>) -> Result<(), SinkError> {
        let mut own = std::mem::take(&mut self.topic);
        own.clear();
        if self.topic_template.has_fields() {
            message.write_topic(&self.topic_template, &mut own);
        } else {
            own.extend_from_slice(self.config.topic.as_bytes());
        }
        self.topic = own;
        let own = str::from_utf8(&self.topic).unwrap_or_default();
        let topic = match message.form() {
            Form::Event => own,
            Form::Publish => match message.destination() {
                None => own,
                Some(name) => {
                    if let Some(problem) = topic_name_problem(name) {
                        let name = String::from_utf8_lossy(name);
                        return Err(self.rejected(format!("the topic name {name:?} {problem}")));
                    }
                    str::from_utf8(name).unwrap_or_default()
                }
            },
        };
        let Some(producer) = &self.producer else { return Err(self.not_open()) };
        self.body.clear();
        self.body.shrink_to(BODY_KEPT);
        message.write_body(&mut self.body);
        let key = message.record_key(&self.key_template, &mut self.key);
        let opaque = usize::try_from(tag).unwrap_or(usize::MAX);
        let mut record = BaseRecord::with_opaque_to(topic, opaque)
            .key(key)
            .payload(self.body.as_slice())
            .headers(headers::headers(message, &mut self.id));
        record.timestamp = message.timestamp_us().and_then(|us| record_time(us, &mut self.now_ms));
        let refused = match producer.send(record) {
            Ok(()) => {
                self.outstanding.sent();
                return Ok(());
            }
            Err((KafkaError::MessageProduction(code), _)) => code,
            Err(_) => Code::InvalidArgument,
        };
        let size = self.body.len() + key.len();
        let topic = topic.to_owned();
        Err(self.not_taken(refused, &topic, size))
    }

    fn poll(&mut self, budget: Duration, outcomes: &mut Vec<Outcome>) -> Result<(), SinkError> {
        if !self.late.is_empty() {
            outcomes.append(&mut self.late);
            return Ok(());
        }
        let before = outcomes.len();
        let start = Instant::now();
        self.now_ms = now_ms();
        loop {
            let Some(producer) = &self.producer else { return Err(self.not_open()) };
            let _events = serve(producer);
            outcomes.append(&mut producer.context().shared().outcomes);
            let idle = producer.in_flight_count() == 0;
            if let Some(error) = self.failure() {
                return Err(self.give_up(error));
            }
            let now = Instant::now();
            if outcomes.len() > before {
                self.pause = FIRST_PAUSE;
                self.outstanding.reported(outcomes.get(before..).unwrap_or_default(), now);
                return Ok(());
            }
            if let Some(error) = self.stalled(now) {
                return Err(self.give_up(error));
            }
            let left = budget.saturating_sub(start.elapsed());
            if left.is_zero() || self.interrupt.is_raised() {
                return Ok(());
            }
            if idle {
                self.pause = FIRST_PAUSE;
                self.wait(IDLE_PAUSE.min(left));
            } else {
                self.wait(self.pause.min(left));
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// librdkafka sends what it has been given by itself, and its reports gather in its queue.
    fn rest(&mut self, pause: Duration) -> bool {
        if self.producer.is_none() || !self.late.is_empty() {
            return false;
        }
        self.wait(pause);
        true
    }

    /// Flushes, then ends the producer and its threads. What the flush still delivered is
    /// reported by the next [`poll`](Self::poll), so that it is not counted as lost.
    ///
    /// The flush ends with the deadline or the interrupt. Ending the producer takes up to 500 ms
    /// more for what is still in it, and the time of a name lookup when one is under way: that
    /// cannot be broken off, and the resolver's own timeout bounds it.
    fn close(&mut self, deadline: Instant) {
        if let Some(producer) = self.producer.take() {
            let mut pause = FIRST_PAUSE;
            while producer.in_flight_count() > 0
                && Instant::now() < deadline
                && !self.interrupt.is_raised()
            {
                // Without time to wait it only tells the producer not to linger.
                let _unfinished = producer.flush(Duration::ZERO);
                if serve(&producer) == 0 {
                    self.wait(pause.min(deadline.saturating_duration_since(Instant::now())));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            let _events = serve(&producer);
            self.late.append(&mut producer.context().shared().outcomes);
        }
    }

    /// What is wrong at the moment, in one line with the last error: no broker answered yet, or
    /// all are down. `None` while messages flow. Nothing needs to be done about it: the
    /// producer keeps trying.
    fn degraded(&self) -> Option<String> {
        let peer = &self.config.bootstrap_servers;
        match &self.producer {
            Some(producer) => producer.context().shared().health.degraded(peer),
            None => Some(format!("not connected to {peer}")),
        }
    }

    fn peer(&self) -> String {
        self.peer_name()
    }
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSink")
            .field("config", &self.config)
            .field("open", &self.producer.is_some())
            .field("batch_bytes", &self.batch_bytes)
            .finish_non_exhaustive()
    }
}

/// The time of a record in milliseconds. Brokers refuse a batch in which one record is too far
/// in the future, so none is: a clock may have been set back since. The clock is read only for an
/// event that is newer than `now`, which is a moment old.
fn record_time(event_us: u64, now: &mut u64) -> Option<i64> {
    let event = event_us / 1_000;
    if event > *now {
        *now = now_ms();
    }
    i64::try_from(event.min(*now)).ok().filter(|time| *time > 0)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_record_is_the_events_and_never_in_the_future() {
        let begun = now_ms();
        let mut now = begun;
        assert_eq!(record_time(1_633_261_501_757_401, &mut now), Some(1_633_261_501_757));
        assert_eq!(record_time(0, &mut now), None);
        assert_eq!(now, begun, "no look at the clock");
        // What is remembered is older than the event: the clock is asked.
        let mut now = 5;
        assert_eq!(record_time(begun * 1_000, &mut now), i64::try_from(begun).ok());
        assert!(now >= begun);
        let far = record_time(u64::MAX, &mut now).unwrap();
        assert!(u64::try_from(far).unwrap() == now && now < begun + 60_000, "{far}");
    }
}
