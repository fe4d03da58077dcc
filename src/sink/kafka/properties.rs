// SPDX-License-Identifier: MIT
//! The check of librdkafka properties when the configuration is read.

use rdkafka::ClientConfig;
use rdkafka::config::NativeClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::settings;
use crate::config::kafka::{KafkaConfig, PropertyValue};
use crate::config::secret::Secret;

/// Says what is wrong with the librdkafka properties of a sink: one line for each problem, none
/// when all is well.
///
/// Builds librdkafka's configuration object and throws it away: no producer, no thread, no I/O,
/// so a secret that stands elsewhere is not read. What only a file or a broker can tell comes
/// with [`open`](crate::sink::Sink::open). Never shows the value of a secret. Any thread.
pub fn check_properties(config: &KafkaConfig) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, value) in &config.properties {
        problems.extend(check_one(name, value, config.allow_unsafe_delivery));
    }
    if problems.is_empty() {
        let mut client = settings::visible(config, "rustbridge");
        for (name, value) in &config.properties {
            if let PropertyValue::Plain(value) = value {
                client.set(canonical(name), value);
            }
        }
        // Each by itself is right, so that this can only fail for the sink's own settings.
        match client.create_native_config() {
            Ok(config) => check_together(&config, &mut problems),
            Err(error) => problems.push(describe(&error)),
        }
    }
    problems
}

fn check_one(name: &str, value: &PropertyValue, allow_unsafe: bool) -> Option<String> {
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Some(format!("librdkafka property {name:?} can't be set: {why}"));
    }
    let (given, is_hidden, is_here) = match value {
        PropertyValue::Plain(value) => (value.as_str(), is_secret(name), true),
        PropertyValue::Secret(Secret::Literal(value)) => (value.as_str(), true, true),
        PropertyValue::Secret(_) => ("?", true, false),
    };
    // Both would be read up to here and no further.
    if name.contains('\0') || given.contains('\0') {
        return Some(format!("librdkafka property {name:?} contains a NUL byte"));
    }
    if !allow_unsafe && let Some(why) = weakens(canonical(name), given) {
        return Some(format!("librdkafka property {name:?} is {given:?}: {why}"));
    }
    let error = ClientConfig::new().set(name, given).create_native_config().err()?;
    if let KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..) = error {
        let advice = match nearest(name) {
            Some(near) => format!("did you mean {near:?}"),
            None => "see CONFIGURATION.md of librdkafka".to_owned(),
        };
        return Some(format!("librdkafka property {name:?} is unknown: {advice}"));
    }
    match (is_here, is_hidden) {
        (false, _) => None,
        // librdkafka's words often hold the value.
        (true, true) => {
            Some(format!("librdkafka property {name:?} has a value that librdkafka does not take"))
        }
        (true, false) => {
            Some(format!("librdkafka property {name:?} is {given:?}: {}", describe(&error)))
        }
    }
}

/// What librdkafka would refuse only when the producer is made.
fn check_together(config: &NativeClientConfig, problems: &mut Vec<String>) {
    let text = |name: &str| config.get(name).unwrap_or_default();
    let number = |name: &str| text(name).parse::<f64>().unwrap_or_default();
    let mut demand = |holds: bool, what: &str| {
        if !holds {
            problems.push(format!("librdkafka properties contradict each other: {what}"));
        }
    };
    if text("enable.idempotence") == "true" {
        demand(
            number("acks") < 0.0,
            "\"acks\" must be \"all\" when \"enable.idempotence\" is true",
        );
        demand(
            // The default is a million, which librdkafka itself lowers to 5.
            number("max.in.flight") <= 5.0 || number("max.in.flight") >= 1e6,
            "\"max.in.flight\" must be at most 5 when \"enable.idempotence\" is true",
        );
        demand(
            number("retries") >= 1.0,
            "\"retries\" must be at least 1 when \"enable.idempotence\" is true",
        );
        demand(
            text("queuing.strategy") != "lifo",
            "\"queuing.strategy\" must be \"fifo\" when \"enable.idempotence\" is true",
        );
    } else {
        demand(
            text("enable.gapless.guarantee") != "true",
            "\"enable.gapless.guarantee\" needs \"enable.idempotence\"",
        );
    }
    demand(
        number("reconnect.backoff.max.ms") >= number("reconnect.backoff.ms"),
        "\"reconnect.backoff.max.ms\" must not be below \"reconnect.backoff.ms\"",
    );
    demand(
        number("message.timeout.ms") == 0.0 || number("message.timeout.ms") > number("linger.ms"),
        "the message timeout must be longer than \"linger.ms\"",
    );
}

/// librdkafka's words for an error of its configuration, without the value.
pub(super) fn describe(error: &KafkaError) -> String {
    let words = match error {
        KafkaError::ClientConfig(_, words, ..) | KafkaError::ClientCreation(words) => words.clone(),
        error => error.to_string(),
    };
    words.trim_matches(|c: char| c.is_whitespace() || c == '\0' || c == '.').to_owned()
}

/// librdkafka's words for why no producer can be made, with the file that they are about.
pub(super) fn explain(error: &KafkaError, client: &ClientConfig) -> String {
    const FILES: [&str; 4] =
        ["ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.crl.location"];
    let words = describe(error);
    let named = FILES.iter().find(|name| words.contains(**name));
    match named.and_then(|name| client.get(name)) {
        Some(file) if !words.contains(file) => format!("{words} (the file is {file:?})"),
        _ => words,
    }
}

/// Why a value would break a promise of the sink.
fn weakens(name: &str, value: &str) -> Option<&'static str> {
    match (name, value) {
        ("acks", "all" | "-1") | ("enable.idempotence", "true") => None,
        ("acks", _) => Some("an event is delivered when all replicas have it"),
        ("enable.idempotence", "false") => {
            Some("without it a retry may repeat events and change their order")
        }
        _ => None,
    }
}

/// Whether a property's value must never be shown. Covers what librdkafka itself calls sensitive.
pub(super) fn is_secret(name: &str) -> bool {
    const PARTS: [&str; 6] = ["password", "secret", "passphrase", "private.key", ".pem", "token"];
    name.starts_with("ssl.key")
        || matches!(name, "sasl.username" | "sasl.oauthbearer.config" | "ssl_key")
        || PARTS.iter().any(|part| name.contains(part))
}

/// The one name that this module uses for a property with several.
pub(super) fn canonical(name: &str) -> &str {
    match name {
        "queue.buffering.max.ms" => "linger.ms",
        "request.required.acks" => "acks",
        "delivery.timeout.ms" => "message.timeout.ms",
        "max.in.flight.requests.per.connection" => "max.in.flight",
        "compression.codec" => "compression.type",
        "metadata.broker.list" => "bootstrap.servers",
        "message.send.max.retries" => "retries",
        "sasl.mechanism" => "sasl.mechanisms",
        name => name,
    }
}

fn nearest(name: &str) -> Option<&'static str> {
    KNOWN
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, name), *known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3)
        .map(|(_, known)| known)
}

/// Properties under which this sink could not keep what it promises.
const REFUSED: [(&str, &str); 8] = [
    ("bootstrap.servers", "use the parameter \"bootstrap-servers\""),
    ("metadata.broker.list", "use the parameter \"bootstrap-servers\""),
    ("client.id", "use the parameter \"client-id\""),
    ("transactional.id", "the sink has no transactions, so no consumer would see a message"),
    ("delivery.report.only.error", "the sink lives on delivery reports"),
    ("plugin.library.paths", "it would load foreign code into the switch"),
    ("enabled_events", "the sink enables the events that it needs"),
    ("log.queue", "librdkafka's lines always go through the publisher into the switch's log"),
];

/// The properties of a producer in librdkafka 2.12, to find the one that a misspelling means.
const KNOWN: [&str; 124] = [
    "acks",
    "allow.auto.create.topics",
    "api.version.fallback.ms",
    "api.version.request",
    "api.version.request.timeout.ms",
    "batch.num.messages",
    "batch.size",
    "broker.address.family",
    "broker.address.ttl",
    "broker.version.fallback",
    "client.dns.lookup",
    "client.rack",
    "compression.codec",
    "compression.level",
    "compression.type",
    "connections.max.idle.ms",
    "debug",
    "delivery.timeout.ms",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.metrics.push",
    "enable.random.seed",
    "enable.sasl.oauthbearer.unsecure.jwt",
    "enable.ssl.certificate.verification",
    "https.ca.location",
    "https.ca.pem",
    "internal.termination.signal",
    "linger.ms",
    "log.connection.close",
    "log.thread.name",
    "log_level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.copy.max.bytes",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.max.age.ms",
    "metadata.recovery.rebootstrap.trigger.ms",
    "metadata.recovery.strategy",
    "partitioner",
    "produce.offset.report",
    "queue.buffering.backpressure.threshold",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queuing.strategy",
    "receive.message.max.bytes",
    "reconnect.backoff.jitter.ms",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.required.acks",
    "request.timeout.ms",
    "retries",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.kerberos.keytab",
    "sasl.kerberos.kinit.cmd",
    "sasl.kerberos.min.time.before.relogin",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.assertion.algorithm",
    "sasl.oauthbearer.assertion.claim.aud",
    "sasl.oauthbearer.assertion.claim.exp.seconds",
    "sasl.oauthbearer.assertion.claim.iss",
    "sasl.oauthbearer.assertion.claim.jti.include",
    "sasl.oauthbearer.assertion.claim.nbf.seconds",
    "sasl.oauthbearer.assertion.claim.sub",
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
    "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.client.credentials.client.id",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.grant.type",
    "sasl.oauthbearer.metadata.authentication.type",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "socket.blocking.max.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.max.fails",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.ca.certificate.stores",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.curves.list",
    "ssl.endpoint.identification.algorithm",
    "ssl.engine.id",
    "ssl.engine.location",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.providers",
    "ssl.sigalgs.list",
    "statistics.interval.ms",
    "sticky.partitioning.linger.ms",
    "topic.blacklist",
    "topic.metadata.propagation.max.ms",
    "topic.metadata.refresh.fast.cnt",
    "topic.metadata.refresh.fast.interval.ms",
    "topic.metadata.refresh.interval.ms",
    "topic.metadata.refresh.sparse",
    "transaction.timeout.ms",
];

#[cfg(test)]
mod tests {
    use super::super::settings::tests::config;
    use super::*;

    fn problems(properties: &[(&str, &str)]) -> Vec<String> {
        check_properties(&config(properties))
    }

    #[test]
    fn right_properties_have_no_problem() {
        let login = [
            ("ssl.cipher.suites", "ECDHE-RSA-AES256-GCM-SHA384"),
            ("ssl.key.pem", "x"),
            ("linger.ms", "0.5"),
            ("max.in.flight", "1"),
        ];
        assert_eq!(problems(&login), [""; 0]);
        assert_eq!(problems(&[]), [""; 0]);
    }

    #[test]
    fn a_misspelled_property_is_named_with_the_nearest_one() {
        assert_eq!(
            problems(&[("lingr.ms", "5"), ("nothing.like.this.at.all", "1")]),
            [
                "librdkafka property \"lingr.ms\" is unknown: did you mean \"linger.ms\"",
                "librdkafka property \"nothing.like.this.at.all\" is unknown: see \
                 CONFIGURATION.md of librdkafka",
            ]
        );
    }

    #[test]
    fn a_bad_value_is_reported_in_librdkafkas_words() {
        let [number, choice] =
            problems(&[("batch.size", "many"), ("compression.type", "rar")]).try_into().unwrap();
        assert!(number.contains("\"batch.size\"") && number.contains("many"), "{number}");
        assert!(choice.contains("\"compression.type\"") && choice.contains("rar"), "{choice}");
        for line in [number, choice] {
            assert!(!line.contains('\n') && !line.contains('\0'), "{line:?}");
        }
    }

    #[test]
    fn no_secret_is_ever_in_a_line() {
        for name in KNOWN.iter().filter(|name| is_secret(name)) {
            for value in ["hunter2", "hunter2\0", "-----BEGIN hunter2"] {
                for line in problems(&[(name, value)]) {
                    assert!(!line.contains("hunter2"), "{line}");
                }
            }
        }
        // A value that was configured as a secret, under a name that is none and does not take it.
        let mut config = config(&[]);
        let secret = PropertyValue::Secret(Secret::Literal("hunter2".to_owned()));
        config.properties.push(("batch.size".to_owned(), secret));
        let lines = check_properties(&config);
        assert_eq!(lines.len(), 1);
        assert!(!lines[0].contains("hunter2"), "{lines:?}");
    }

    #[test]
    fn a_secret_that_stands_elsewhere_is_not_read_but_its_name_is_checked() {
        for (name, problems) in [("ssl.key.password", 0), ("ssl.kee.password", 1)] {
            let mut config = config(&[]);
            let secret = PropertyValue::Secret(Secret::File("/nonexistent".into()));
            config.properties.push((name.to_owned(), secret));
            assert_eq!(check_properties(&config).len(), problems, "{name}");
        }
    }

    #[test]
    fn what_would_break_delivery_is_refused() {
        for (name, value) in [
            ("acks", "0"),
            ("request.required.acks", "1"),
            ("enable.idempotence", "false"),
            ("transactional.id", "x"),
            ("delivery.report.only.error", "true"),
            ("plugin.library.paths", "/tmp/x.so"),
            ("bootstrap.servers", "x"),
        ] {
            let lines = problems(&[(name, value)]);
            assert_eq!(lines.len(), 1, "{name}: {lines:?}");
            assert!(lines[0].contains(name), "{lines:?}");
        }
        let mut weak = config(&[("acks", "1"), ("enable.idempotence", "false")]);
        weak.allow_unsafe_delivery = true;
        assert_eq!(check_properties(&weak), [""; 0]);
    }

    #[test]
    fn contradictions_are_found_before_a_producer_is_made() {
        for (name, value, word) in [
            ("max.in.flight", "6", "at most 5"),
            ("retries", "0", "at least 1"),
            ("queuing.strategy", "lifo", "fifo"),
            ("reconnect.backoff.ms", "3000", "reconnect.backoff.max.ms"),
        ] {
            let lines = problems(&[(name, value)]);
            assert_eq!(lines.len(), 1, "{name}: {lines:?}");
            assert!(lines[0].contains(word), "{lines:?}");
        }
    }

    #[test]
    fn every_property_in_the_list_is_known_to_librdkafka() {
        let unknown = |name: &&str| {
            let taken = ClientConfig::new().set(*name, "?").create_native_config();
            let unknown = RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN;
            matches!(taken, Err(KafkaError::ClientConfig(reason, ..)) if reason == unknown)
        };
        assert_eq!(KNOWN.into_iter().filter(unknown).collect::<Vec<_>>(), [""; 0]);
    }
}
