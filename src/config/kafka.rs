// SPDX-License-Identifier: MIT
//! A sink of type `kafka`.

use std::{fmt, net::Ipv6Addr, time::Duration};

use crate::config::{
    choice::choice,
    delivery::SpoolMode,
    librdkafka,
    params::Params,
    reference::{kafka, sink},
    secret::{Exposed, Secret, SecretError},
    section::Section,
    template::{Purpose, is_topic_byte},
    tls::TlsConfig,
};

/// Without a spool an event can't wait for ever: librdkafka's own default.
const NO_SPOOL_TIMEOUT: Duration = Duration::from_secs(300);

choice! {
    /// What protects the connection. librdkafka's `security.protocol`, in its words.
    pub enum SecurityProtocol {
        /// Nothing.
        Plaintext = "plaintext",
        /// TLS.
        Ssl = "ssl",
        /// A login over a connection that anyone can read.
        SaslPlaintext = "sasl_plaintext",
        /// A login over TLS.
        SaslSsl = "sasl_ssl",
    }
}

impl SecurityProtocol {
    /// Returns whether the connection is encrypted.
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Returns whether there is a login.
    pub fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

choice! {
    /// How a login proves who we are.
    pub enum SaslMechanism {
        /// The password itself.
        Plain = "PLAIN",
        /// A proof of the password, over SHA-256.
        ScramSha256 = "SCRAM-SHA-256",
        /// A proof of the password, over SHA-512.
        ScramSha512 = "SCRAM-SHA-512",
    }
}

choice! {
    /// How batches are compressed.
    pub enum Compression {
        /// Not at all.
        None = "none",
        /// Slow and small.
        Gzip = "gzip",
        /// Fast.
        Snappy = "snappy",
        /// Fast, and smaller for JSON.
        Lz4 = "lz4",
    }
}

/// A login.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sasl {
    /// How it proves who we are.
    pub mechanism: SaslMechanism,
    /// User.
    pub username: String,
    /// Password.
    pub password: Secret,
}

/// Value of a librdkafka property.
#[derive(Clone, Eq, PartialEq)]
pub enum PropertyValue {
    /// As written.
    Plain(String),
    /// Of a property whose name says that it is not for everyone's eyes.
    Secret(Secret),
}

impl PropertyValue {
    /// Returns the value itself. Called when a producer is made, so that a changed file counts.
    ///
    /// # Errors
    ///
    /// As [`Secret::resolve`].
    pub fn resolve(&self) -> Result<Exposed, SecretError> {
        match self {
            Self::Plain(text) => Ok(Exposed::new(text.clone())),
            Self::Secret(secret) => secret.resolve(),
        }
    }
}

impl fmt::Debug for PropertyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => fmt::Debug::fmt(text, f),
            Self::Secret(secret) => fmt::Debug::fmt(secret, f),
        }
    }
}

/// A Kafka cluster, and what is produced to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KafkaConfig {
    /// `host:port` of brokers to ask for the others, separated by commas.
    pub bootstrap_servers: String,
    /// Template of the topic, as written.
    pub topic: String,
    /// Template of the record key, as written.
    pub key: String,
    /// Name of the producer in the brokers' logs; `None`: node and sink.
    pub client_id: Option<String>,
    /// How batches are compressed.
    pub compression: Compression,
    /// After which time an event that the cluster doesn't take is given up; `None`: never.
    ///
    /// Already fits the spool: `None` behind one, else 300 s unless configured.
    pub message_timeout: Option<Duration>,
    /// Events that may wait inside librdkafka, unsent or unacknowledged.
    pub in_flight_max: u32,
    /// What protects the connection.
    pub security_protocol: SecurityProtocol,
    /// The login; there exactly when `security_protocol` has one.
    pub sasl: Option<Sasl>,
    /// Used if `security_protocol` has TLS.
    pub tls: TlsConfig,
    /// Further librdkafka properties, as written, each once and none that a parameter sets.
    pub properties: Vec<(String, PropertyValue)>,
    /// Whether properties may weaken order or delivery. If so, `properties` may hold `acks` and
    /// the like, and must be applied after what the sink sets itself.
    pub allow_unsafe_delivery: bool,
}

impl KafkaConfig {
    /// Reads the parameters that only Kafka has, but for the dead letters' topic, and the
    /// properties in `block`.
    pub(super) fn read(params: &mut Params<'_>, block: Option<&Section>, spool: SpoolMode) -> Self {
        let security_protocol = params.read(&kafka::SECURITY_PROTOCOL);
        let allow_unsafe_delivery = params.read(&kafka::ALLOW_UNSAFE_DELIVERY);
        let without =
            (!security_protocol.has_tls()).then_some("set security-protocol to ssl or sasl_ssl");
        Self {
            bootstrap_servers: params.read(&kafka::BOOTSTRAP_SERVERS).unwrap_or_default(),
            topic: params.template(&kafka::TOPIC, Purpose::Topic).0,
            key: params.template(&kafka::KEY, Purpose::RecordKey).0,
            client_id: params.read(&kafka::CLIENT_ID),
            compression: params.read(&kafka::COMPRESSION),
            message_timeout: message_timeout(params, spool),
            in_flight_max: params.read(&kafka::IN_FLIGHT_MAX),
            security_protocol,
            sasl: Sasl::read(params, security_protocol),
            tls: TlsConfig::read(params, without),
            properties: librdkafka::read(params, block, allow_unsafe_delivery),
            allow_unsafe_delivery,
        }
    }
}

impl Sasl {
    fn read(params: &mut Params<'_>, protocol: SecurityProtocol) -> Option<Self> {
        let mechanism = params.read(&kafka::SASL_MECHANISM);
        let username = params.read(&kafka::SASL_USERNAME);
        let password = params.read(&kafka::SASL_PASSWORD);
        if !protocol.has_sasl() {
            for (given, name) in [
                (mechanism != SaslMechanism::Plain, kafka::SASL_MECHANISM.name),
                (username.is_some(), kafka::SASL_USERNAME.name),
                (password.is_some(), kafka::SASL_PASSWORD.name),
            ] {
                if given {
                    let message = "has no effect without a login: \
                                   set security-protocol to sasl_ssl or sasl_plaintext";
                    params.clash_named(name, message);
                }
            }
            return None;
        }
        if username.is_none() {
            let message = "needs sasl-username: a login has a user";
            params.clash(&[&kafka::SECURITY_PROTOCOL, &kafka::SASL_USERNAME], message);
        }
        if password.is_none() {
            let message = "needs sasl-password: a login has a password";
            params.clash(&[&kafka::SECURITY_PROTOCOL, &kafka::SASL_PASSWORD], message);
        }
        Some(Self { mechanism, username: username?, password: password? })
    }
}

/// Returns the timeout that fits the spool: behind one there must be a single buffer and not two.
fn message_timeout(params: &mut Params<'_>, spool: SpoolMode) -> Option<Duration> {
    let given = params.read(&kafka::MESSAGE_TIMEOUT_MS);
    if spool == SpoolMode::Off {
        return given.map_or(Some(NO_SPOOL_TIMEOUT), |time| (!time.is_zero()).then_some(time));
    }
    if given.is_some_and(|time| !time.is_zero()) {
        let message =
            "would give up events that the spool keeps: leave it out, or set spool-mode to off";
        params.clash(&[&kafka::MESSAGE_TIMEOUT_MS, &sink::SPOOL_MODE], message);
    }
    None
}

/// Returns whether `text` can name a topic; by the rule of Kafka's `Topic.validate`.
pub(super) fn is_topic(text: &str) -> bool {
    (1..=249).contains(&text.len())
        && !matches!(text, "." | "..")
        && text.bytes().all(is_topic_byte)
}

/// Returns whether `text` is a list of `host:port`.
pub(super) fn is_servers(text: &str) -> bool {
    text.len() <= 8_192
        && text.split(',').all(|server| {
            let Some((host, port)) = server.trim().rsplit_once(':') else { return false };
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            let host_is_sound = match bare {
                Some(address) => address.parse::<Ipv6Addr>().is_ok(),
                None => {
                    (1..=253).contains(&host.len())
                        && host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
                }
            };
            host_is_sound
                && port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
}
