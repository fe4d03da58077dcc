// SPDX-License-Identifier: MIT
//! The librdkafka properties that come of a sink's configuration.

use rdkafka::ClientConfig;

use super::properties;
use crate::config::choice::Choice as _;
use crate::config::kafka::KafkaConfig;
use crate::config::secret::SecretError;

/// Bytes of messages in one request before they are compressed: librdkafka's own default.
pub(super) const BATCH_BYTES: usize = 1_000_000;

/// What the sink sets and a property may change.
///
/// * An event has waited for others already (`linger-ms`, and longer under load), so that the client
///   library is handed whole batches: it waits for the rest of one only.
/// * A connection that broke is tried again so soon that a broker that is back has its first
///   message within half a second: librdkafka adds up to half to a backoff, hence 250.
/// * A broker that is gone without a word (no RST) is noticed in ten seconds and not in sixty.
/// * `murmur2_random` puts a key where the Java client puts it.
/// * The statistics tell when a broker is back while nothing is sent.
const DEFAULTS: [(&str, &str); 14] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    ("partitioner", "murmur2_random"),
    ("linger.ms", "1"),
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "250"),
    ("retry.backoff.ms", "50"),
    ("retry.backoff.max.ms", "250"),
    ("request.timeout.ms", "10000"),
    ("socket.timeout.ms", "10000"),
    ("socket.connection.setup.timeout.ms", "5000"),
    ("socket.keepalive.enable", "true"),
    ("topic.metadata.propagation.max.ms", "5000"),
    ("statistics.interval.ms", "1000"),
];

/// Everything that librdkafka is told, secrets included: for its eyes alone. `batch_bytes` is
/// lower than [`BATCH_BYTES`] for a topic that was seen to take only smaller batches.
///
/// Secrets are read anew each time, from files too.
///
/// # Errors
///
/// When a secret cannot be had.
pub(super) fn client_config(
    config: &KafkaConfig,
    client_id: &str,
    batch_bytes: usize,
) -> Result<ClientConfig, SecretError> {
    let mut client = visible(config, client_id);
    if let Some(sasl) = &config.sasl {
        client.set("sasl.password", &*sasl.password.resolve()?);
    }
    if let Some(certificate) = &config.tls.client
        && let Some(password) = &certificate.key_password
    {
        client.set("ssl.key.password", &*password.resolve()?);
    }
    for (name, value) in &config.properties {
        // One name for each thing: librdkafka is given the properties in no certain order.
        client.set(properties::canonical(name), &*value.resolve()?);
    }
    if batch_bytes < BATCH_BYTES {
        client.set("batch.size", batch_bytes.to_string());
    }
    Ok(client)
}

/// What the parameters say, without secrets and without the properties of `<librdkafka>`.
pub(super) fn visible(config: &KafkaConfig, client_id: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    for (name, value) in DEFAULTS {
        client.set(name, value);
    }
    let timeout = config.message_timeout.map_or(0, |timeout| timeout.as_millis());
    let in_flight = u64::from(config.in_flight_max);
    client
        .set("bootstrap.servers", config.bootstrap_servers.as_str())
        .set("client.id", client_id)
        .set("compression.type", config.compression.word())
        .set("message.timeout.ms", timeout.to_string())
        // A little more than the publisher hands over, so that its own window is the bound.
        .set("queue.buffering.max.messages", (in_flight + 1_000).to_string())
        .set("queue.buffering.max.kbytes", queue_kbytes(in_flight).to_string())
        .set("security.protocol", config.security_protocol.word());
    if let Some(sasl) = &config.sasl {
        client
            .set("sasl.mechanisms", sasl.mechanism.word())
            .set("sasl.username", sasl.username.as_str());
    }
    if config.security_protocol.has_tls() {
        let tls = &config.tls;
        client.set("enable.ssl.certificate.verification", tls.verify.to_string());
        if let Some(file) = &tls.ca_file {
            client.set("ssl.ca.location", file.to_string_lossy());
        }
        if let Some(file) = &tls.crl_file {
            client.set("ssl.crl.location", file.to_string_lossy());
        }
        if let Some(certificate) = &tls.client {
            client
                .set("ssl.certificate.location", certificate.cert_file.to_string_lossy())
                .set("ssl.key.location", certificate.key_file.to_string_lossy());
        }
    }
    client
}

/// The bound of librdkafka's queue in KiB: 8 for each message, but room for the largest message
/// many times over and no more than 128 MiB.
fn queue_kbytes(in_flight: u64) -> u64 {
    (in_flight * 8).clamp(16 * 1024, 128 * 1024)
}

/// The batch size that the configuration asks for.
pub(super) fn batch_bytes(config: &KafkaConfig) -> usize {
    let given = config.properties.iter().find(|(name, _)| name == "batch.size");
    let given = given.and_then(|(_, value)| value.resolve().ok()?.parse().ok());
    given.unwrap_or(BATCH_BYTES)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::kafka::{Compression, PropertyValue, Sasl, SaslMechanism, SecurityProtocol};
    use crate::config::secret::Secret;
    use crate::config::tls::{ClientCertificate, TlsConfig};

    pub(in super::super) fn config(properties: &[(&str, &str)]) -> KafkaConfig {
        let plain = |(name, value): &(&str, &str)| {
            ((*name).to_owned(), PropertyValue::Plain((*value).to_owned()))
        };
        KafkaConfig {
            bootstrap_servers: "127.0.0.1:9".to_owned(),
            topic: "fs.events".to_owned(),
            key: "${call}".to_owned(),
            client_id: None,
            compression: Compression::Lz4,
            message_timeout: None,
            in_flight_max: 1_000,
            security_protocol: SecurityProtocol::Plaintext,
            sasl: None,
            tls: TlsConfig::default(),
            properties: properties.iter().map(plain).collect(),
            allow_unsafe_delivery: false,
        }
    }

    fn told(config: &KafkaConfig) -> ClientConfig {
        let client = client_config(config, "fs1-stream", 10_000).unwrap();
        client.create_native_config().unwrap();
        client
    }

    #[test]
    fn a_property_under_its_other_name_replaces_the_default() {
        let client = told(&config(&[("queue.buffering.max.ms", "77")]));
        assert_eq!(client.get("linger.ms"), Some("77"));
        assert_eq!(client.get("queue.buffering.max.ms"), None);
    }

    #[test]
    fn without_a_timeout_librdkafka_never_gives_up() {
        assert_eq!(told(&config(&[])).get("message.timeout.ms"), Some("0"));
    }

    #[test]
    fn login_and_tls_become_librdkafkas_properties() {
        let mut config = config(&[]);
        config.security_protocol = SecurityProtocol::SaslSsl;
        config.sasl = Some(Sasl {
            mechanism: SaslMechanism::ScramSha512,
            username: "fs1".to_owned(),
            password: Secret::Literal("hunter2".to_owned()),
        });
        config.tls.ca_file = Some("/etc/ca.pem".into());
        config.tls.crl_file = Some("/etc/crl.pem".into());
        config.tls.client = Some(ClientCertificate {
            cert_file: "/etc/own.pem".into(),
            key_file: "/etc/own.key".into(),
            key_password: Some(Secret::Literal("hunter3".to_owned())),
        });
        config.tls.verify = false;
        let client = told(&config);
        for (name, value) in [
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanisms", "SCRAM-SHA-512"),
            ("sasl.username", "fs1"),
            ("sasl.password", "hunter2"),
            ("ssl.ca.location", "/etc/ca.pem"),
            ("ssl.crl.location", "/etc/crl.pem"),
            ("ssl.certificate.location", "/etc/own.pem"),
            ("ssl.key.location", "/etc/own.key"),
            ("ssl.key.password", "hunter3"),
            ("enable.ssl.certificate.verification", "false"),
        ] {
            assert_eq!(client.get(name), Some(value), "{name}");
        }
    }

    #[test]
    fn a_secret_that_cannot_be_had_is_an_error_that_names_its_place() {
        let mut config = config(&[]);
        let missing = Secret::File("/nonexistent/password".into());
        config.properties.push(("ssl.key.password".to_owned(), PropertyValue::Secret(missing)));
        let error = client_config(&config, "x", BATCH_BYTES).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/password"), "{error}");
    }
}
