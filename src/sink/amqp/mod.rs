// SPDX-License-Identifier: MIT
//! RabbitMQ, and other brokers for AMQP 0-9-1.
//!
//! A connection of our own that does nothing but publish: one socket, one thread, no runtime.
//! Messages are encoded straight into the buffer that goes to the socket (`publish`), many to a
//! write; the broker confirms them (`confirms`); and the one place that waits watches the socket,
//! the interrupt and the clocks at once (`stream`).

mod closing;
mod confirms;
mod destination;
mod fields;
mod frame;
mod handshake;
mod heartbeat;
mod publish;
mod session;
mod stream;
mod tls;
mod wire;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::session::{Lessons, Session};

use self::stream::Stream;
use self::wire::Wire;
use crate::codec::Outgoing;
use crate::config::amqp::{AmqpConfig, AmqpUrl};
use crate::config::template::{Purpose, Template};
use crate::sink::{Class, Interrupt, Outcome, Sink, SinkError};

/// Unconfirmed messages that keep a RabbitMQ next door busy: with a quarter of them it is slower by
/// a sixteenth, with more it is hardly faster.
const RESERVE: usize = 1024;

/// A sink that publishes to an exchange and counts what the broker confirms.
#[derive(Debug)]
pub struct AmqpSink {
    config: AmqpConfig,
    node: String,
    interrupt: Arc<Interrupt>,
    /// Which broker of the list is in use or comes next.
    current: usize,
    session: Option<Session>,
    lessons: Lessons,
    routing_key: Template,
}

impl AmqpSink {
    /// The sink `name` of this `node`, not connected yet; the broker's management page shows both.
    /// `interrupt` ends every wait but that of [`close`](Sink::close).
    pub fn new(mut config: AmqpConfig, node: &str, name: &str, interrupt: Arc<Interrupt>) -> Self {
        config.connection_name.get_or_insert_with(|| format!("{node} {name}"));
        Self {
            routing_key: Template::new(&config.routing_key, Purpose::RoutingKey),
            config,
            node: node.to_owned(),
            interrupt,
            current: 0,
            session: None,
            lessons: Lessons::default(),
        }
    }

    fn broker(&self) -> Option<&AmqpUrl> {
        self.config.brokers.get(self.current).or_else(|| self.config.brokers.first())
    }

    fn connect(&mut self, broker: &AmqpUrl, deadline: Instant) -> Result<Session, SinkError> {
        let stream = Stream::connect(broker, &self.config.tls, &self.interrupt, deadline)?;
        let mut wire = Wire::new(broker.peer(), stream, Arc::clone(&self.interrupt));
        let agreed = handshake::shake(&mut wire, &self.config, broker, &self.node, deadline)?;
        // A limit holds until a connection ends for another reason: it may have been raised.
        let body_max = self.lessons.body_max.take();
        self.lessons.destinations.reconnected();
        Ok(Session::new(wire, &agreed, &self.config, body_max))
    }

    fn not_open(&self) -> SinkError {
        let source = io::Error::new(io::ErrorKind::NotConnected, "not opened yet");
        SinkError::Disconnected { peer: self.peer(), source }
    }
}

impl Sink for AmqpSink {
    /// Tries the brokers in the order of the list, from the one in use on, each for its
    /// `connect-timeout-ms` at most. The next call goes on where this one ended.
    fn open(&mut self, deadline: Instant) -> Result<(), SinkError> {
        self.session = None;
        let mut failures: Vec<SinkError> = Vec::new();
        for _ in 0..self.config.brokers.len() {
            let Some(broker) = self.broker().cloned() else { break };
            let now = Instant::now();
            if now >= deadline && !failures.is_empty() {
                break;
            }
            let patience = now.checked_add(self.config.connect_timeout).unwrap_or(deadline);
            match self.connect(&broker, deadline.min(patience)) {
                Ok(session) => {
                    self.session = Some(session);
                    return Ok(());
                }
                Err(SinkError::Interrupted) => return Err(SinkError::Interrupted),
                Err(error) => failures.push(error),
            }
            self.current = (self.current + 1) % self.config.brokers.len();
        }
        Err(summary(failures).unwrap_or_else(|| self.not_open()))
    }

    fn write_key(&self, message: &Outgoing<'_>, out: &mut Vec<u8>) {
        message.write_routing_key_with(&self.routing_key, out);
    }

    fn window(&self) -> usize {
        self.session.as_ref().map_or(0, Session::window)
    }

    fn reserve(&self) -> usize {
        let window = usize::try_from(self.config.confirm_window).unwrap_or(usize::MAX);
        if window > RESERVE { RESERVE } else { usize::MAX }
    }

    fn send(&mut self, tag: u64, message: &Outgoing<'_>) -> Result<(), SinkError> {
        let Some(session) = &mut self.session else { return Err(self.not_open()) };
        let sent = session.send(tag, message, &mut self.lessons);
        if let Err(error) = &sent
            && matches!(error.class(), Class::Reconnect | Class::Refused)
        {
            self.session = None;
        }
        sent
    }

    fn poll(&mut self, budget: Duration, outcomes: &mut Vec<Outcome>) -> Result<(), SinkError> {
        let Some(session) = &mut self.session else { return Err(self.not_open()) };
        let polled = session.poll(budget, outcomes, &mut self.lessons);
        if polled.is_err() {
            self.session = None;
        }
        polled
    }

    fn rest(&mut self, pause: Duration) -> bool {
        let Some(session) = &mut self.session else { return false };
        session.rest(pause);
        true
    }

    /// Not ended early by the interrupt, only by `deadline`: a shutdown raises the one for the
    /// sake of the other.
    fn close(&mut self, deadline: Instant) {
        if let Some(session) = self.session.take() {
            session.close(deadline);
        }
    }

    fn peer(&self) -> String {
        self.broker().map(AmqpUrl::peer).unwrap_or_default()
    }

    fn is_on_primary(&self) -> bool {
        self.current == 0
    }

    fn return_to_primary(&mut self) {
        self.current = 0;
    }

    fn blocked_since(&self) -> Option<Instant> {
        self.session.as_ref().and_then(Session::blocked_since)
    }
}

/// One error for a list of brokers. Only when every one of them refuses must an operator act.
fn summary(mut failures: Vec<SinkError>) -> Option<SinkError> {
    if failures.len() <= 1 {
        return failures.pop();
    }
    let all: Vec<String> = failures.iter().map(ToString::to_string).collect();
    let (peer, words) = ("any broker of the list".to_owned(), all.join("; "));
    if failures.iter().all(|error| error.class() == Class::Refused) {
        return Some(SinkError::Refused { peer, reason: words });
    }
    Some(SinkError::Disconnected { peer, source: io::Error::other(words) })
}
