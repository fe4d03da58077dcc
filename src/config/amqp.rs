// SPDX-License-Identifier: MIT
//! A sink of type `amqp`.

use std::{fmt, time::Duration};

use crate::config::{
    amqp_url::{self, ParsedUrl},
    choice::choice,
    params::Params,
    reference::{amqp, tls},
    secret::Secret,
    template::Purpose,
    tls::TlsConfig,
};

choice! {
    /// How we prove who we are.
    pub enum Auth {
        /// By user name and password.
        Plain = "plain",
        /// By our TLS certificate.
        External = "external",
    }
}

choice! {
    /// What is done about the exchange when a connection is opened.
    pub enum Declare {
        /// It is made if it isn't there, and must agree with our parameters if it is.
        Active = "active",
        /// It must be there.
        Passive = "passive",
        /// Nothing.
        Off = "off",
    }
}

/// One broker of the failover list.
#[derive(Clone, Eq, PartialEq)]
pub struct AmqpUrl {
    /// `amqps://` rather than `amqp://`. The same in the whole list.
    pub tls: bool,
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Virtual host, decoded.
    pub vhost: String,
    /// User, from the URL, else the parameter, else `guest`. Unused with [`Auth::External`].
    pub username: String,
    /// Password, from the URL, else the parameter, else `guest`. Unused with [`Auth::External`].
    pub password: Secret,
}

impl AmqpUrl {
    /// Returns `host:port`, as it is named in logs.
    pub fn peer(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        write!(f, "{scheme}://{}:***@{} vhost {:?}", self.username, self.peer(), self.vhost)
    }
}

/// A RabbitMQ, or another broker for AMQP 0-9-1, and what is published to it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the protocol, by its name")]
pub struct AmqpConfig {
    /// At least one; the first is the primary.
    pub brokers: Vec<AmqpUrl>,
    /// How we prove who we are. `External` only with TLS and a certificate of ours.
    pub auth: Auth,
    /// Template of the exchange, as written; empty is the broker's default exchange. That one is
    /// never declared, and one with fields isn't either.
    pub exchange: String,
    /// `topic`, `direct`, `fanout`, `headers` or `x-…`.
    pub exchange_type: String,
    /// Whether a declared exchange survives a restart of the broker.
    pub exchange_durable: bool,
    /// Whether a declared exchange goes with its last binding.
    pub exchange_auto_delete: bool,
    /// What is done about the exchange when a connection is opened.
    pub declare: Declare,
    /// Template of the routing key, as written.
    pub routing_key: String,
    /// Whether a message that no queue takes comes back, to become a dead letter.
    pub mandatory: bool,
    /// Delivery mode 2 rather than 1: whether a durable queue keeps messages over a restart.
    pub persistent: bool,
    /// Messages that may wait for the broker's confirm.
    pub confirm_window: u32,
    /// How long a confirm may take until the connection counts as dead.
    pub confirm_timeout: Duration,
    /// Heartbeat that we ask for, whole seconds; zero turns it off.
    pub heartbeat: Duration,
    /// How long TCP, TLS and the AMQP handshake may take together.
    pub connect_timeout: Duration,
    /// Largest frame that we ask for.
    pub frame_max: u32,
    /// Property `content_type`.
    pub content_type: String,
    /// Name of the connection in the broker's management page; `None`: node and sink.
    pub connection_name: Option<String>,
    /// Used if the brokers are `amqps://`.
    pub tls: TlsConfig,
}

impl AmqpConfig {
    /// Reads the parameters that only AMQP has, but for the dead letters' exchange.
    pub(super) fn read(params: &mut Params<'_>) -> Self {
        let auth = params.read(&amqp::AUTH);
        let brokers = brokers(params, auth);
        let has_tls = brokers.iter().any(|broker| broker.tls);
        let without = (!has_tls && !brokers.is_empty()).then_some("write amqps:// in the URL");
        let mut tls = TlsConfig::read(params, without);
        tls.server_name = params.read(&tls::SERVER_NAME);
        if tls.server_name.is_some() {
            if let Some(why) = without {
                params.clash(&[&tls::SERVER_NAME], format!("has no effect without TLS: {why}"));
            } else if !tls.verify {
                let message = "has no effect while tls-verify is false: leave one of them out";
                params.clash(&[&tls::SERVER_NAME, &tls::VERIFY], message);
            }
        }
        if auth == Auth::External && (without.is_some() || tls.client.is_none()) {
            let message = "external needs amqps:// with tls-cert-file and tls-key-file";
            params.clash(&[&amqp::AUTH, &tls::CERT_FILE, &tls::KEY_FILE], message);
        }
        let (exchange, template) = params.template(&amqp::EXCHANGE, Purpose::Exchange);
        let declare = params.read(&amqp::DECLARE);
        if template.has_fields() && declare != Declare::Off {
            let message = "names another exchange for each event, and those can't all be \
                           declared: set declare to off";
            params.clash(&[&amqp::EXCHANGE, &amqp::DECLARE], message);
        }
        if exchange.is_empty() && declare != Declare::Off {
            let message =
                "is empty, the default exchange, which can't be declared: set declare to off";
            params.clash(&[&amqp::EXCHANGE, &amqp::DECLARE], message);
        }
        let heartbeat = params.read(&amqp::HEARTBEAT_MS);
        if heartbeat.subsec_millis() != 0 {
            let message = "expected whole seconds, as in 10000: AMQP knows nothing finer";
            params.clash(&[&amqp::HEARTBEAT_MS], message);
        }
        Self {
            brokers,
            auth,
            exchange,
            exchange_type: params.read(&amqp::EXCHANGE_TYPE),
            exchange_durable: params.read(&amqp::EXCHANGE_DURABLE),
            exchange_auto_delete: params.read(&amqp::EXCHANGE_AUTO_DELETE),
            declare,
            routing_key: params.template(&amqp::ROUTING_KEY, Purpose::RoutingKey).0,
            mandatory: params.read(&amqp::MANDATORY),
            persistent: params.read(&amqp::PERSISTENT),
            confirm_window: params.read(&amqp::CONFIRM_WINDOW),
            confirm_timeout: params.read(&amqp::CONFIRM_TIMEOUT_MS),
            heartbeat,
            connect_timeout: params.read(&amqp::CONNECT_TIMEOUT_MS),
            frame_max: params.read(&amqp::FRAME_MAX_BYTES),
            content_type: params.read(&amqp::CONTENT_TYPE),
            connection_name: params.read(&amqp::CONNECTION_NAME),
            tls,
        }
    }
}

/// Reads the URLs, and gives each the user that it or the parameters name.
fn brokers(params: &mut Params<'_>, auth: Auth) -> Vec<AmqpUrl> {
    let username = params.read(&amqp::USERNAME);
    let password = params.read(&amqp::PASSWORD);
    let urls = params.read(&amqp::URL).unwrap_or_default();
    let parsed = match amqp_url::parse_list(&urls) {
        Ok(parsed) => parsed,
        Err(problems) => {
            for problem in problems.into_iter().filter(|_| !urls.is_empty()) {
                params.wrong(&amqp::URL, problem);
            }
            return Vec::new();
        }
    };
    let url_has_user = parsed.iter().any(|url| url.username.is_some());
    let url_has_password = parsed.iter().any(|url| url.password.is_some());
    let any = username.is_some() || password.is_some() || url_has_user;
    if auth == Auth::External && any {
        let message = "external takes the user from our certificate: leave user and password out";
        params.clash(&[&amqp::AUTH], message);
    }
    if username.is_some() && url_has_user {
        let message = "is given here and in the URL: leave one of them out";
        params.clash(&[&amqp::USERNAME, &amqp::URL], message);
    }
    if password.is_some() && url_has_password {
        let message = "is given here and in the URL: leave one of them out";
        params.clash(&[&amqp::PASSWORD, &amqp::URL], message);
    }
    if password.is_some() && username.is_none() && !url_has_user {
        let message = "is given without a user: add username";
        params.clash(&[&amqp::PASSWORD, &amqp::USERNAME, &amqp::URL], message);
    }
    if username.is_some() && password.is_none() {
        let message = "is given without a password: add password";
        params.clash(&[&amqp::USERNAME, &amqp::PASSWORD], message);
    }
    if password.is_none() && parsed.iter().any(|u| u.username.is_some() && u.password.is_none()) {
        let message = "names a user without a password: add password";
        params.clash(&[&amqp::URL, &amqp::PASSWORD], message);
    }
    let guest = || Secret::Literal("guest".to_owned());
    let whole = |url: ParsedUrl| AmqpUrl {
        tls: url.tls,
        host: url.host,
        port: url.port,
        vhost: url.vhost,
        username: url.username.or_else(|| username.clone()).unwrap_or_else(|| "guest".to_owned()),
        password: url
            .password
            .map(Secret::Literal)
            .or_else(|| password.clone())
            .unwrap_or_else(guest),
    };
    parsed.into_iter().map(whole).collect()
}

/// Returns whether a broker could know `text` as the type of an exchange.
pub(super) fn is_exchange_type(text: &str) -> bool {
    let own = |rest: &str| {
        (1..=250).contains(&rest.len())
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    matches!(text, "topic" | "direct" | "fanout" | "headers")
        || text.strip_prefix("x-").is_some_and(own)
}
