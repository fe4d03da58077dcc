// SPDX-License-Identifier: MIT
//! What an error code of librdkafka means for a message and for the sink.

use rdkafka::error::RDKafkaErrorCode as Code;

/// What becomes of a message that librdkafka could not deliver.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// We took it back ourselves: nothing is reported.
    TakenBack,
    /// It would be refused again.
    Rejected,
    /// The batch that it was in is larger than the topic takes; perhaps it is itself.
    TooLarge,
    /// Worth another try, and not this sink's end.
    Retry,
    /// Its topic is not there, or not for us.
    Topic,
    /// An operator must act; until then no message gets through.
    Refused,
    /// The producer is of no more use.
    Fatal,
}

/// What `code` means. Whatever is not known to be final is worth another try: librdkafka itself
/// has then tried for the message's time, and the publisher does not try for ever.
pub(super) fn verdict(code: Code) -> Verdict {
    match code {
        Code::PurgeQueue | Code::PurgeInflight | Code::DestroyBroker | Code::BrokerDestroy => {
            Verdict::TakenBack
        }
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => Verdict::TooLarge,
        Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::InvalidArgument
        | Code::BadMessage => Verdict::Rejected,
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::UnknownTopicId
        | Code::InvalidTopic
        | Code::TopicAuthorizationFailed => Verdict::Topic,
        Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SecurityDisabled
        | Code::InvalidRequiredAcks
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature => Verdict::Refused,
        Code::Fatal
        | Code::GaplessGuarantee
        | Code::OutOfOrderSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerIdMapping
        | Code::InvalidProducerEpoch
        | Code::ProducerFenced
        | Code::Fenced
        | Code::Inconsistent => Verdict::Fatal,
        _ => Verdict::Retry,
    }
}

/// Whether a code of [`Verdict::Topic`] says that there is no such topic, as opposed to none for us.
pub(super) fn is_missing(code: Code) -> bool {
    !matches!(code, Code::TopicAuthorizationFailed | Code::InvalidTopic)
}

/// What an operator can do about a topic.
pub(super) fn topic_advice(code: Code, topic: &str) -> String {
    match code {
        Code::TopicAuthorizationFailed => {
            format!("no permission for topic {topic:?}: allow Write and Describe for this user")
        }
        Code::InvalidTopic => {
            format!("topic {topic:?} has a name that the broker does not take: change it")
        }
        _ => format!(
            "topic {topic:?} does not exist and is not created by itself: create it, or set \
             auto.create.topics.enable on the broker"
        ),
    }
}

/// Why Kafka cannot have a topic of this name.
pub(super) fn topic_name_problem(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" => Some("is empty"),
        b"." | b".." => Some("is not allowed"),
        _ if name.len() > 249 => Some("is longer than 249 bytes"),
        _ if !name.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b)) => {
            Some("may hold only letters, digits, \".\", \"_\" and \"-\"")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_librdkafka_and_the_brokers_retry_is_never_final() {
        for code in [
            Code::NotLeaderForPartition,
            Code::LeaderNotAvailable,
            Code::NotEnoughReplicas,
            Code::NotEnoughReplicasAfterAppend,
            Code::RequestTimedOut,
            Code::NetworkException,
            Code::MessageTimedOut,
            Code::BrokerTransportFailure,
            Code::KafkaStorageError,
            Code::ThrottlingQuotaExceeded,
            Code::Unknown,
        ] {
            assert_eq!(verdict(code), Verdict::Retry, "{code:?}");
        }
    }

    #[test]
    fn a_topic_name_is_checked_as_kafka_does() {
        for name in ["fs.events", "a", "A_b-9", &"x".repeat(249)] {
            assert_eq!(topic_name_problem(name.as_bytes()), None, "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "ä", "a\0b", &"x".repeat(250)] {
            assert!(topic_name_problem(name.as_bytes()).is_some(), "{name}");
        }
    }
}
