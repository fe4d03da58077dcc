// SPDX-License-Identifier: MIT
//! Parameters about TLS, which AMQP and Kafka share. Their groups list them, not one of their own.

use crate::config::{
    kind::{AbsolutePath, Flag, Optional, SecretText, Text, plain},
    reference::parameters,
};

parameters! {
    /// What both have.
    SHARED:

    CA_FILE: Optional<AbsolutePath> = "tls-ca-file",
        Optional(AbsolutePath, "/etc/freeswitch/tls/ca.pem"),
        "Certificates that the broker's must descend from, as PEM; without it those of the system.";

    CRL_FILE: Optional<AbsolutePath> = "tls-crl-file",
        Optional(AbsolutePath, "/etc/freeswitch/tls/crl.pem"),
        "Lists of revoked certificates (CRL), as PEM; the broker's own must not be on one, and the list of who signed it \
         must be there and not have expired.";

    CERT_FILE: Optional<AbsolutePath> = "tls-cert-file",
        Optional(AbsolutePath, "/etc/freeswitch/tls/client.pem"),
        "Our certificate and its chain, as PEM.";

    KEY_FILE: Optional<AbsolutePath> = "tls-key-file",
        Optional(AbsolutePath, "/etc/freeswitch/tls/client.key"),
        "Key of our certificate, as PEM.";

    KEY_PASSWORD: Optional<SecretText> = "tls-key-password",
        Optional(SecretText, "env:RUSTBRIDGE_KEY_PASSWORD"),
        "Password of the key.";

    VERIFY: Flag = "tls-verify",
        Flag(true),
        "Checks the broker's certificate; turned off, anyone can pass for the broker.";
}

parameters! {
    /// What only AMQP has: librdkafka checks for the names that brokers have for themselves.
    AMQP_ONLY:

    SERVER_NAME: Optional<Text> = "tls-server-name",
        Optional(
            Text {
                default: "",
                expected: "a host name",
                accepts: |text| plain(text, 253) && !text.contains(char::is_whitespace),
            },
            "rabbit.example.com",
        ),
        "Name that the broker's certificate must carry; without it the host of the URL.";
}
