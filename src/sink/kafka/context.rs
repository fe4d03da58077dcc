// SPDX-License-Identifier: MIT
//! What librdkafka tells a producer: delivery reports, errors, log lines, statistics.
//!
//! All of it is called from inside `poll`, on the publisher's thread, because every one of
//! librdkafka's callbacks is an event in the queue that `poll` empties. The mutex is there for the
//! type system; nobody else ever holds it.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use log::Level;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{NoCustomPartitioner, ProducerContext};

use super::health::{Health, any_broker_up, lasting};
use super::log_lines::LogLines;
use super::verdict::{Verdict, is_missing, topic_advice, verdict};
use crate::sink::Outcome;

/// The receiving side of one producer.
#[derive(Debug)]
pub(super) struct Context {
    /// The topic of events: without it nothing works, without another one a message does not.
    topic: Box<str>,
    /// The largest batch in force. A message at least as large is alone in its batch.
    batch_bytes: usize,
    /// Lists of revoked certificates that the brokers' are looked up in.
    crl_file: Option<Box<Path>>,
    shared: Mutex<Shared>,
}

/// What came in and was not yet picked up.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Grows with everything that comes in, so that a `poll` can tell whether it found something.
    pub(super) seen: u64,
    /// What became of messages.
    pub(super) outcomes: Vec<Outcome>,
    /// What is known of the brokers.
    pub(super) health: Health,
    /// An error came that may have ended the producer: it has to be asked.
    pub(super) ask_producer: bool,
    /// Why the producer must be given up.
    pub(super) failure: Option<Failure>,
    lines: LogLines,
}

/// Why a producer is of no more use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    /// It says so itself.
    Fatal(String),
    /// Nothing will be delivered until an operator acts.
    Refused(String),
    /// The topic is not there, as far as librdkafka knows. It counts the time that it gives a
    /// topic to appear while no broker is there either, so it may just be in the making.
    TopicMissing,
    /// The topic takes only smaller batches than this producer makes.
    BatchTooLarge,
}

impl Context {
    /// Batches smaller than this are not halved any more.
    const SMALLEST_BATCH: usize = 1_024;

    pub(super) fn new(topic: &str, batch_bytes: usize, crl_file: Option<&Path>) -> Self {
        let crl_file = crl_file.map(Box::from);
        Self { topic: topic.into(), batch_bytes, crl_file, shared: Mutex::default() }
    }

    /// What came in. Not to be held while `poll` runs.
    pub(super) fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn undelivered(&self, code: Code, size: usize, topic: &str, tag: u64) {
        let mut shared = self.shared();
        let verdict = verdict(code);
        let is_ours = topic == &*self.topic;
        let failure = match verdict {
            Verdict::TakenBack => return,
            Verdict::Topic if is_ours && is_missing(code) => Failure::TopicMissing,
            Verdict::Topic if is_ours => Failure::Refused(topic_advice(code, topic)),
            Verdict::TooLarge if size < self.batch_bytes => {
                if self.batch_bytes > Self::SMALLEST_BATCH {
                    Failure::BatchTooLarge
                } else {
                    shared.outcomes.push(rejected(tag, code));
                    return;
                }
            }
            Verdict::TooLarge | Verdict::Rejected => {
                shared.outcomes.push(rejected(tag, code));
                return;
            }
            Verdict::Topic => {
                shared.outcomes.push(Outcome::Rejected { tag, reason: topic_advice(code, topic) });
                return;
            }
            Verdict::Retry => {
                // A producer that has failed lets go of what it still has, with any code.
                if shared.failure.is_none() {
                    shared.outcomes.push(Outcome::Nacked { tag, reason: code.to_string() });
                }
                return;
            }
            Verdict::Refused => Failure::Refused(code.to_string()),
            Verdict::Fatal => Failure::Fatal(code.to_string()),
        };
        shared.failure.get_or_insert(failure);
    }
}

fn rejected(tag: u64, code: Code) -> Outcome {
    Outcome::Rejected { tag, reason: code.to_string() }
}

impl ProducerContext<NoCustomPartitioner> for Context {
    /// The publisher's tag.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        let tag = u64::try_from(tag).unwrap_or(u64::MAX);
        match result {
            Ok(_) => {
                let mut shared = self.shared();
                shared.seen += 1;
                shared.health.up();
                shared.outcomes.push(Outcome::Delivered(tag));
            }
            Err((error, message)) => {
                self.shared().seen += 1;
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                let size = message.payload_len() + message.key_len();
                self.undelivered(code, size, message.topic(), tag);
            }
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let admitted = {
            let mut shared = self.shared();
            shared.seen += 1;
            shared.lines.admit(line, Instant::now())
        };
        let level = match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            // Lines about a connection are of this level. What it means for the events, the
            // publisher knows and says.
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => Level::Warn,
            RDKafkaLogLevel::Notice => Level::Info,
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => Level::Debug,
        };
        match admitted {
            None => {}
            Some(0) => log::log!(target: "kafka", level, "librdkafka: {facility}: {line}"),
            Some(held_back) => log::log!(
                target: "kafka", level,
                "librdkafka: {facility}: {line} (and {held_back} more like it)"
            ),
        }
    }

    /// Comes twice for each error, so it only sets things. A fatal error comes with the code of
    /// its cause, so any error may be one.
    fn error(&self, error: KafkaError, reason: &str) {
        let mut shared = self.shared();
        shared.seen += 1;
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) => shared.health.all_down(),
            Some(Code::Authentication) => shared.health.refused(reason),
            // A handshake also breaks when a broker restarts. A certificate that does not fit
            // stays so, on either side: OpenSSL's words and the alerts of the peer.
            Some(Code::SSL) if is_about_a_certificate(reason) => {
                shared.health.refused(&explained(reason, self.crl_file.as_deref()));
            }
            _ => shared.health.failed(reason),
        }
        shared.ask_producer = true;
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let up = any_broker_up(statistics);
        let mut shared = self.shared();
        shared.seen += 1;
        if up {
            shared.health.up();
        } else {
            shared.health.none_up();
        }
    }
}

fn is_about_a_certificate(reason: &str) -> bool {
    reason.contains("certificate") || reason.contains("unknown ca")
}

/// What librdkafka says of a certificate that is not accepted, which is the same whatever is wrong with it, and what it leaves out.
fn explained(reason: &str, crl_file: Option<&Path>) -> String {
    let reason = lasting(reason);
    match crl_file.filter(|_| reason.contains("certificate verify failed")) {
        Some(file) => format!(
            "{reason}; by tls-crl-file {} it may also be revoked (give the broker a new one), or the \
             list of who signed it missing or expired (put the newest one there)",
            file.display()
        ),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context::new("fs.events", 100_000, None)
    }

    #[test]
    fn a_certificate_that_is_not_accepted_may_be_a_revoked_one_where_there_are_lists() {
        let file = Some(Path::new("/crl.pem"));
        let words = "SSL handshake failed: certificate verify failed";
        let reason = format!("{words} (after 3ms in state SSL_HANDSHAKE)");
        let told = explained(&reason, file);
        assert!(
            told.starts_with(words)
                && told.contains("by tls-crl-file /crl.pem it may also be revoked")
        );
        assert!(!told.contains("(after"), "{told}");
        assert_eq!(explained(&reason, None), words);
        let theirs = "SSL handshake failed: ssl/tls alert bad certificate";
        assert_eq!(explained(theirs, file), theirs);
    }

    #[test]
    fn a_message_that_was_alone_in_a_batch_is_rejected_and_any_other_halves_the_batch() {
        let context = context();
        context.undelivered(Code::MessageSizeTooLarge, 100_000, "fs.events", 3);
        assert_eq!(context.shared().failure, None);
        assert!(matches!(context.shared().outcomes[..], [Outcome::Rejected { tag: 3, .. }]));
        context.undelivered(Code::MessageSizeTooLarge, 99_999, "fs.events", 4);
        assert_eq!(context.shared().failure, Some(Failure::BatchTooLarge));
    }

    #[test]
    fn a_missing_topic_stops_the_sink_only_when_it_is_the_sinks_own() {
        let context = context();
        context.undelivered(Code::UnknownTopic, 1, "another", 3);
        assert!(matches!(context.shared().outcomes[..], [Outcome::Rejected { tag: 3, .. }]));
        assert_eq!(context.shared().failure, None);
        context.undelivered(Code::UnknownTopic, 1, "fs.events", 4);
        assert_eq!(context.shared().failure, Some(Failure::TopicMissing));
    }

    #[test]
    fn what_a_failed_producer_lets_go_of_is_not_reported() {
        let context = context();
        context.undelivered(Code::Fatal, 1, "fs.events", 3);
        context.undelivered(Code::BrokerTransportFailure, 1, "fs.events", 4);
        context.undelivered(Code::PurgeQueue, 1, "fs.events", 5);
        assert_eq!(context.shared().outcomes, []);
        assert!(matches!(context.shared().failure, Some(Failure::Fatal(_))));
    }
}
