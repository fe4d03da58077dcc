// SPDX-License-Identifier: MIT
//! Parameters of a `<sink type="amqp">`.

use crate::config::{
    amqp::{Auth, Declare, is_exchange_type},
    kind::{Flag, Millis, Number, Optional, Required, SecretText, Text, Unit, Word, plain},
    reference::parameters,
    template,
};

parameters! {
    /// The parameters that only AMQP has, without those about TLS.
    ENTRIES:

    URL: Required<Text> = "url",
        Required(
            Text {
                default: "",
                expected: "amqp://host:port/vhost or amqps://…, several separated by commas",
                accepts: |text| plain(text, 8_192),
            },
            "amqp://127.0.0.1:5672/%2f",
        ),
        "Brokers, separated by commas and tried in this order; each may be amqp://user:password@host:port/vhost.";

    USERNAME: Optional<Text> = "username",
        Optional(
            Text {
                default: "",
                expected: "1 to 255 bytes without control characters",
                accepts: |text| plain(text, 255),
            },
            "fs1",
        ),
        "User for every broker; without it, and without one in the URL, guest.";

    PASSWORD: Optional<SecretText> = "password",
        Optional(SecretText, "env:RABBIT_PASSWORD"),
        "Password of the user: env:NAME, file:/PATH or the password itself.";

    AUTH: Word<Auth> = "auth",
        Word(Auth::Plain),
        "How we prove who we are: by user and password, or by our TLS certificate.";

    EXCHANGE: Text = "exchange",
        Text {
            default: "rustbridge.events",
            expected: "at most 255 bytes without control characters, with closed fields like ${event}",
            accepts: |text| text.is_empty() || template::is_sound(text),
        },
        "Exchange that events are published to, which fields like ${event} may vary; empty is the default exchange.";

    EXCHANGE_TYPE: Text = "exchange-type",
        Text {
            default: "topic",
            expected: "topic, direct, fanout, headers or x-…",
            accepts: is_exchange_type,
        },
        "Type of the exchange, where we declare it.";

    EXCHANGE_DURABLE: Flag = "exchange-durable",
        Flag(true),
        "Declares the exchange so that it survives a restart of the broker.";

    EXCHANGE_AUTO_DELETE: Flag = "exchange-auto-delete",
        Flag(false),
        "Declares the exchange so that it goes with its last binding.";

    DECLARE: Word<Declare> = "declare",
        Word(Declare::Active),
        "Whether the exchange is made if need be, must be there, or isn't looked at.";

    ROUTING_KEY: Text = "routing-key",
        Text {
            default: template::STANDARD_ROUTING_KEY,
            expected: "a text of at most 1024 bytes with closed fields like ${node}",
            accepts: template::is_sound,
        },
        "Routing key; ${node}, ${event}, ${subclass}, ${uuid}, ${call}, ${class}, ${Some-Header} and ${one|other|#text} are replaced, each encoded to be part of one word, and an empty word is _.";

    MANDATORY: Flag = "mandatory",
        Flag(false),
        "Has the broker return what no queue takes, which makes it a dead letter.";

    PERSISTENT: Flag = "persistent",
        Flag(true),
        "Has durable queues keep events over a restart of the broker.";

    CONFIRM_WINDOW: Number<u32> = "confirm-window",
        Number { unit: Unit::Things("messages"), min: 1, max: 65_535, default: 4_096 },
        "Messages that may wait for the broker's confirm; above 1024 as many as the way to it takes.";

    CONFIRM_TIMEOUT_MS: Millis = "confirm-timeout-ms",
        Millis { min: 1_000, max: 3_600_000, default: 30_000 },
        "Time without a confirm after which a connection counts as dead.";

    HEARTBEAT_MS: Millis = "heartbeat-ms",
        Millis { min: 0, max: 600_000, default: 10_000 },
        "Interval of heartbeats, in whole seconds; 0 is none.";

    CONNECT_TIMEOUT_MS: Millis = "connect-timeout-ms",
        Millis { min: 100, max: 60_000, default: 5_000 },
        "Time that making a connection may take, TLS and login included.";

    FRAME_MAX_BYTES: Number<u32> = "frame-max-bytes",
        Number { unit: Unit::Bytes, min: 4_096, max: 16 << 20, default: 131_072 },
        "Largest frame that we agree to.";

    CONTENT_TYPE: Text = "content-type",
        Text {
            default: "application/json",
            expected: "1 to 255 bytes without control characters",
            accepts: |text| plain(text, 255),
        },
        "Property content_type of every message.";

    CONNECTION_NAME: Optional<Text> = "connection-name",
        Optional(
            Text {
                default: "",
                expected: "1 to 255 bytes without control characters",
                accepts: |text| plain(text, 255),
            },
            "fs1 rabbit",
        ),
        "Name of the connection in the broker's management page; without it node and sink.";

    DEAD_LETTER_EXCHANGE: Optional<Text> = "dead-letter-exchange",
        Optional(
            Text {
                default: "",
                expected: "1 to 255 bytes without control characters",
                accepts: |text| plain(text, 255),
            },
            "rustbridge.dead",
        ),
        "Exchange, which must be there, that dead letters are published to as well.";
}
