// SPDX-License-Identifier: MIT
//! From a fresh connection to a channel in confirm mode (specification §2.2.4).

use std::io;
use std::time::{Duration, Instant};

use amq_protocol::protocol::{AMQPClass, channel, confirm, connection, exchange};
use amq_protocol::types::{AMQPValue, FieldTable, LongString, ShortString};

use super::closing;
use super::frame::{CloseWords, Incoming, PROTOCOL_HEADER, Start};
use super::wire::Wire;
use crate::config::amqp::{AmqpConfig, AmqpUrl, Auth, Declare};
use crate::sink::SinkError;

/// The channel that publishes.
pub(super) const PUBLISHING: u16 = 1;
/// The channel on which the exchanges of others are looked for.
pub(super) const LOOKING: u16 = 2;
/// No peer may ask for less (specification, `connection.tune`).
const FRAME_MIN: u32 = 4096;
/// The first that a broker says.
const GREETING: &str = "its greeting (connection.start)";
/// What is used when neither side has a limit.
const FRAME_MAX: u32 = 128 << 10;
/// How long a broker that refused us gets to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// What was agreed on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Agreed {
    /// Largest frame, head and end included.
    pub(super) frame_max: usize,
    /// Whether there may be a second channel.
    pub(super) can_look: bool,
    /// Whether its alarm was on already.
    pub(super) blocked: bool,
}

struct Handshake<'a> {
    wire: &'a mut Wire,
    config: &'a AmqpConfig,
    broker: &'a AmqpUrl,
    deadline: Instant,
    blocked: bool,
}

/// Logs in, opens the virtual host and a channel, sees to the exchange, asks for confirms.
///
/// # Errors
///
/// Names what the broker refused, in its words, and what to do.
pub(super) fn shake(
    wire: &mut Wire,
    config: &AmqpConfig,
    broker: &AmqpUrl,
    node: &str,
    deadline: Instant,
) -> Result<Agreed, SinkError> {
    let mut hands = Handshake { wire, config, broker, deadline, blocked: false };
    let (frame_max, can_look) = hands.log_in(node)?;
    hands.open_channel()?;
    hands.declare()?;
    let select = confirm::AMQPMethod::Select(confirm::Select { nowait: false });
    hands.wire.push(PUBLISHING, AMQPClass::Confirm(select))?;
    let answer = hands.answer("confirm.select-ok", "use a broker that confirms")?;
    match answer {
        AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(_)) => {
            Ok(Agreed { frame_max, can_look, blocked: hands.blocked })
        }
        other => Err(hands.unexpected("confirm.select-ok", &Incoming::Answer(other))),
    }
}

impl Handshake<'_> {
    /// Returns the largest frame, and whether there may be a second channel.
    fn log_in(&mut self, node: &str) -> Result<(usize, bool), SinkError> {
        self.wire.out().extend_from_slice(PROTOCOL_HEADER);
        let start = match self.next(GREETING)? {
            (0, Incoming::Start(start)) => start,
            (_, other) => return Err(self.unexpected("connection.start", &other)),
        };
        if !start.publisher_confirms {
            return Err(self.refused(format!(
                "{:?} does not confirm what is published to it: use RabbitMQ, or another broker \
                 with publisher confirms",
                start.product
            )));
        }
        let start_ok = self.start_ok(&start, node)?;
        let start_ok = connection::AMQPMethod::StartOk(start_ok);
        self.wire.push(0, AMQPClass::Connection(start_ok))?;
        let (vhost, user) = (&self.broker.vhost, &self.broker.username);
        let credentials = match self.config.auth {
            Auth::Plain => format!("check username and password of {user:?}"),
            Auth::External => {
                "check the certificate that is shown, and the user it is mapped to".to_owned()
            }
        };
        let tune = match self.answer("the answer to the login (connection.tune)", &credentials) {
            Ok(AMQPClass::Connection(connection::AMQPMethod::Tune(tune))) => tune,
            Ok(other) => return Err(self.unexpected("connection.tune", &Incoming::Answer(other))),
            Err(error) => return Err(error),
        };
        self.wire.wipe();
        let frame_max = match tuned(self.config.frame_max, tune.frame_max) {
            0 => FRAME_MAX,
            limit => limit,
        };
        if frame_max < FRAME_MIN {
            return Err(self
                .wire
                .protocol(format!("it wants frames of at most {frame_max} bytes")));
        }
        let channel_max = tuned(u32::from(LOOKING), u32::from(tune.channel_max));
        let heartbeat = heartbeat(self.config.heartbeat, tune.heartbeat);
        let tune_ok = connection::TuneOk {
            channel_max: u16::try_from(channel_max).unwrap_or(LOOKING),
            frame_max,
            heartbeat,
        };
        self.wire.push(0, AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune_ok)))?;
        let frame_max = usize::try_from(frame_max).unwrap_or(usize::MAX);
        self.wire.agree(frame_max, Duration::from_secs(heartbeat.into()));
        let open = connection::Open { virtual_host: self.short("the virtual host", vhost)? };
        self.wire.push(0, AMQPClass::Connection(connection::AMQPMethod::Open(open)))?;
        let what_to_do = format!("check the virtual host {vhost:?}, and that {user:?} may use it");
        match self.answer("connection.open-ok", &what_to_do)? {
            AMQPClass::Connection(connection::AMQPMethod::OpenOk(_)) => {}
            other => return Err(self.unexpected("connection.open-ok", &Incoming::Answer(other))),
        }
        Ok((frame_max, channel_max >= u32::from(LOOKING)))
    }

    fn start_ok(&self, start: &Start, node: &str) -> Result<connection::StartOk, SinkError> {
        let mechanism = match self.config.auth {
            Auth::Plain => "PLAIN",
            Auth::External => "EXTERNAL",
        };
        if !start.mechanisms.split_ascii_whitespace().any(|offered| offered == mechanism) {
            let hint = match self.config.auth {
                Auth::Plain => "enable PLAIN in the broker, or set auth to external",
                Auth::External => {
                    "enable the plugin rabbitmq_auth_mechanism_ssl and the mechanism EXTERNAL in \
                     the broker"
                }
            };
            return Err(self.refused(format!(
                "it does not offer the login {mechanism}, only {:?}: {hint}",
                start.mechanisms
            )));
        }
        let response = match self.config.auth {
            Auth::Plain => {
                let user = &self.broker.username;
                let password = self.broker.password.resolve();
                let password = password.map_err(|error| self.refused(error.to_string()))?;
                LongString::from(format!("\0{user}\0{}", &*password))
            }
            Auth::External => LongString::default(),
        };
        Ok(connection::StartOk {
            client_properties: self.client_properties(node),
            mechanism: mechanism.into(),
            response,
            locale: "en_US".into(),
        })
    }

    /// What the broker's management page shows of us.
    fn client_properties(&self, node: &str) -> FieldTable {
        let text = |text: &str| AMQPValue::LongString(text.into());
        let mut capabilities = FieldTable::default();
        for name in [
            "publisher_confirms",
            "basic.nack",
            "connection.blocked",
            "authentication_failure_close",
            "consumer_cancel_notify",
        ] {
            capabilities.insert(name.into(), AMQPValue::Boolean(true));
        }
        let mut properties = FieldTable::default();
        let platform = format!("FreeSWITCH, {} {}", std::env::consts::OS, std::env::consts::ARCH);
        properties.insert("product".into(), text("mod_rustbridge"));
        properties.insert("version".into(), text(env!("CARGO_PKG_VERSION")));
        properties.insert("platform".into(), text(&platform));
        properties.insert("node".into(), text(node));
        let name = self.config.connection_name.as_deref().unwrap_or(node);
        properties.insert("connection_name".into(), text(name));
        properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
        properties
    }

    fn open_channel(&mut self) -> Result<(), SinkError> {
        let open = channel::AMQPMethod::Open(channel::Open {});
        self.wire.push(PUBLISHING, AMQPClass::Channel(open))?;
        match self.answer("channel.open-ok", "raise the broker's limit of channels")? {
            AMQPClass::Channel(channel::AMQPMethod::OpenOk(_)) => Ok(()),
            other => Err(self.unexpected("channel.open-ok", &Incoming::Answer(other))),
        }
    }

    fn declare(&mut self) -> Result<(), SinkError> {
        let config = self.config;
        if config.declare == Declare::Off || config.exchange.is_empty() {
            return Ok(());
        }
        let passive = config.declare == Declare::Passive;
        let declare = exchange::Declare {
            exchange: self.short("the exchange", &config.exchange)?,
            kind: self.short("exchange-type", &config.exchange_type)?,
            passive,
            durable: config.exchange_durable,
            auto_delete: config.exchange_auto_delete,
            internal: false,
            nowait: false,
            arguments: FieldTable::default(),
        };
        let declare = exchange::AMQPMethod::Declare(declare);
        self.wire.push(PUBLISHING, AMQPClass::Exchange(declare))?;
        let what_to_do = if passive {
            "create the exchange, or set declare to active"
        } else {
            "set type, durable and auto-delete of the exchange as it is in the broker, or set \
             declare to passive; to create one the user needs the permission to configure it"
        };
        match self.answer("exchange.declare-ok", what_to_do)? {
            AMQPClass::Exchange(exchange::AMQPMethod::DeclareOk(_)) => Ok(()),
            other => Err(self.unexpected("exchange.declare-ok", &Incoming::Answer(other))),
        }
    }

    /// The next answer; a close becomes an error that ends with `what_to_do`.
    fn answer(
        &mut self,
        waiting_for: &'static str,
        what_to_do: &str,
    ) -> Result<AMQPClass, SinkError> {
        loop {
            match self.next(waiting_for)? {
                (_, Incoming::Answer(answer)) => return Ok(answer),
                (_, Incoming::Blocked(_)) => self.blocked = true,
                (_, Incoming::Unblocked) => self.blocked = false,
                (channel, Incoming::Close(words)) => {
                    return Err(self.closed(channel, &words, what_to_do));
                }
                (_, other) => return Err(self.unexpected(waiting_for, &other)),
            }
        }
    }

    fn closed(&mut self, channel: u16, words: &CloseWords, what_to_do: &str) -> SinkError {
        let error = closing::while_opening(self.broker.peer(), words, what_to_do);
        // An abrupt end would be an error in the broker's log too.
        let goodbye = if channel == 0 {
            self.wire.push(0, closing::connection_close_ok())
        } else {
            self.wire
                .push(channel, closing::channel_close_ok())
                .and_then(|()| self.wire.push(0, closing::connection_close()))
        };
        if channel == 0 {
            self.wire.part();
        } else if goodbye.is_ok() {
            let deadline = self.deadline.min(Instant::now() + GOODBYE);
            self.wire.finish(deadline, |incoming| *incoming == Incoming::CloseOk);
        }
        error
    }

    /// The next frame. Where the connection just ends, the error says at which step.
    fn next(&mut self, waiting_for: &'static str) -> Result<(u16, Incoming), SinkError> {
        match self.wire.expect(self.deadline, waiting_for) {
            Ok(next) => Ok(next),
            Err(SinkError::Disconnected { peer, source }) => {
                // In TLS 1.3 a refused certificate shows only now.
                if source.kind() == io::ErrorKind::InvalidData {
                    return Err(SinkError::Refused { peer, reason: source.to_string() });
                }
                let hint = if self.broker.tls && waiting_for == GREETING {
                    "; it may ask for a client certificate"
                } else {
                    ""
                };
                let words = format!("{source}, instead of {waiting_for}{hint}");
                Err(SinkError::Disconnected { peer, source: io::Error::new(source.kind(), words) })
            }
            Err(error) => Err(error),
        }
    }

    fn short(&self, what: &str, text: &str) -> Result<ShortString, SinkError> {
        ShortString::try_new(text).map_err(|_| {
            self.refused(format!(
                "{what} has {} bytes, and AMQP allows 255: shorten it",
                text.len()
            ))
        })
    }

    fn refused(&self, reason: String) -> SinkError {
        SinkError::Refused { peer: self.broker.peer(), reason }
    }

    fn unexpected(&self, expected: &str, incoming: &Incoming) -> SinkError {
        self.wire.protocol(format!("{} came instead of {expected}", incoming.name()))
    }
}

/// The smaller of two limits, where zero means none (specification, `connection.tune`).
fn tuned(ours: u32, theirs: u32) -> u32 {
    match (ours, theirs) {
        (0, limit) | (limit, 0) => limit,
        (ours, theirs) => ours.min(theirs),
    }
}

/// Seconds. The client decides in `tune-ok`; zero in the configuration turns heartbeats off, and a
/// broker that asks for none still answers them.
fn heartbeat(ours: Duration, theirs: u16) -> u16 {
    let ours = u16::try_from(ours.as_secs()).unwrap_or(u16::MAX);
    if ours == 0 || theirs == 0 { ours } else { ours.min(theirs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_limit_when_limits_are_agreed_on() {
        assert_eq!(tuned(131_072, 0), 131_072);
        assert_eq!(tuned(0, 65_536), 65_536);
        assert_eq!(tuned(131_072, 65_536), 65_536);
    }

    #[test]
    fn the_shorter_heartbeat_counts_and_zero_of_ours_turns_it_off() {
        assert_eq!(heartbeat(Duration::from_secs(10), 60), 10);
        assert_eq!(heartbeat(Duration::from_secs(90), 60), 60);
        assert_eq!(heartbeat(Duration::from_secs(10), 0), 10);
        assert_eq!(heartbeat(Duration::ZERO, 60), 0);
    }
}
