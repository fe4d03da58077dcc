// SPDX-License-Identifier: MIT
//! Parameters of a `<sink type="kafka">`.

use crate::config::{
    kafka::{Compression, SaslMechanism, SecurityProtocol, is_servers, is_topic},
    kind::{Flag, Millis, Number, Optional, Required, SecretText, Text, Unit, Word, plain},
    reference::parameters,
    template,
};

parameters! {
    /// The parameters that only Kafka has, without those about TLS.
    ENTRIES:

    BOOTSTRAP_SERVERS: Required<Text> = "bootstrap-servers",
        Required(
            Text {
                default: "",
                expected: "host:port, several separated by commas",
                accepts: is_servers,
            },
            "127.0.0.1:9092",
        ),
        "Brokers to ask for the others, separated by commas.";

    TOPIC: Text = "topic",
        Text {
            default: "fs.events",
            expected: "1 to 249 letters, digits, dots, _ or -, with closed fields like ${event}",
            accepts: |text| is_topic(text) || (text.contains("${") && template::is_sound(text)),
        },
        "Topic that events are produced to, which fields like ${event} may vary.";

    KEY: Text = "key",
        Text {
            default: template::STANDARD_RECORD_KEY,
            expected: "a text of at most 1024 bytes with closed fields like ${call}",
            accepts: template::is_sound,
        },
        "Key of each record, whose events stay in order; ${call} is the same for both legs of a call, and takes the place of an empty key; the fields are those of a routing key.";

    CLIENT_ID: Optional<Text> = "client-id",
        Optional(
            Text {
                default: "",
                expected: "1 to 255 bytes without control characters",
                accepts: |text| plain(text, 255),
            },
            "rustbridge-fs1",
        ),
        "Name of the producer in the brokers' logs and quotas; without it node and sink.";

    COMPRESSION: Word<Compression> = "compression",
        Word(Compression::Lz4),
        "How batches are compressed.";

    MESSAGE_TIMEOUT_MS: Optional<Millis> = "message-timeout-ms",
        Optional(Millis { min: 0, max: 2_147_483_647, default: 0 }, "0"),
        "Time after which an event is given up, 0 for never; without it never behind a spool, else 300000.";

    IN_FLIGHT_MAX: Number<u32> = "in-flight-max",
        Number { unit: Unit::Things("events"), min: 1, max: 10_000_000, default: 10_000 },
        "Events that may wait inside the client library, unsent or unacknowledged.";

    SECURITY_PROTOCOL: Word<SecurityProtocol> = "security-protocol",
        Word(SecurityProtocol::Plaintext),
        "Whether the connection has TLS, a login, both or neither.";

    SASL_MECHANISM: Word<SaslMechanism> = "sasl-mechanism",
        Word(SaslMechanism::Plain),
        "How the login proves who we are.";

    SASL_USERNAME: Optional<Text> = "sasl-username",
        Optional(
            Text {
                default: "",
                expected: "1 to 255 bytes without control characters",
                accepts: |text| plain(text, 255),
            },
            "fs1",
        ),
        "User of the login.";

    SASL_PASSWORD: Optional<SecretText> = "sasl-password",
        Optional(SecretText, "env:KAFKA_PASSWORD"),
        "Password of the login: env:NAME, file:/PATH or the password itself.";

    DEAD_LETTER_TOPIC: Optional<Text> = "dead-letter-topic",
        Optional(
            Text {
                default: "",
                expected: "1 to 249 letters, digits, dots, _ or -",
                accepts: is_topic,
            },
            "fs.events.dead",
        ),
        "Topic that dead letters are produced to as well.";

    ALLOW_UNSAFE_DELIVERY: Flag = "allow-unsafe-delivery",
        Flag(false),
        "Lets <librdkafka> weaken what keeps events complete and in order, such as acks.";
}
