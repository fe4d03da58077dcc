// SPDX-License-Identifier: MIT
//! One open connection: messages out, confirms in, and everything a broker may say meanwhile.

use std::time::{Duration, Instant};

use amq_protocol::protocol::{AMQPClass, channel, exchange};

use super::closing;
use super::confirms::{Confirms, MessageId, Unknown};
use super::destination::{Destinations, Known};
use super::frame::{CloseWords, Incoming, Returned};
use super::handshake::{Agreed, LOOKING, PUBLISHING};
use super::publish::Encoder;
use super::wire::Wire;
use crate::codec::Outgoing;
use crate::config::amqp::{AmqpConfig, Declare};
use crate::config::template::{Purpose, Template};
use crate::sink::{Outcome, SinkError};

/// Bytes that make a write worth its system call.
const WRITE_AT: usize = 1 << 20;
/// Bytes beyond which nothing more is taken: the peer does not read.
const TAKE_UP_TO: usize = 8 << 20;
/// Slots per message of the window: one confirm that stays away must not cost unbounded memory.
const SPAN: usize = 64;
/// Buffers read in one go, so that a peer that never stops talking stops nothing here.
const READS: usize = 64;
/// How long a broker that has stopped reading gets for its goodbye.
const GOODBYE_BLOCKED: Duration = Duration::from_millis(200);

/// What an end of the connection taught about single messages.
#[derive(Debug, Default)]
pub(super) struct Lessons {
    /// The largest body that the broker takes, and its words.
    pub(super) body_max: Option<(usize, String)>,
    /// The exchanges that senders asked for.
    pub(super) destinations: Destinations,
}

/// The state of an open connection.
#[derive(Debug)]
pub(super) struct Session {
    wire: Wire,
    /// The configured exchange, seen to when the connection was opened. Empty when each message
    /// has another.
    declared: String,
    encoder: Encoder,
    confirms: Confirms,
    window: usize,
    confirm_timeout: Duration,
    declare: Declare,
    can_look: bool,
    blocked_since: Option<Instant>,
    /// A returned message, whose header is still to come.
    returning: Option<Returned>,
    /// Something changed that the publisher may act upon.
    stirred: bool,
}

impl Session {
    pub(super) fn new(
        wire: Wire,
        agreed: &Agreed,
        config: &AmqpConfig,
        body_max: Option<(usize, String)>,
    ) -> Self {
        let window = usize::try_from(config.confirm_window).unwrap_or(usize::MAX).max(1);
        let now = Instant::now();
        let exchange = Template::new(&config.exchange, Purpose::Exchange);
        let declared = if exchange.has_fields() { String::new() } else { config.exchange.clone() };
        Self {
            wire,
            declared,
            encoder: Encoder {
                channel: PUBLISHING,
                routing_key: Template::new(&config.routing_key, Purpose::RoutingKey),
                content_type: config.content_type.clone(),
                mandatory: config.mandatory,
                persistent: config.persistent,
                frame_max: agreed.frame_max,
                body_max,
                id: String::new(),
                place: Vec::new(),
                exchange,
            },
            confirms: Confirms::new(window),
            window,
            confirm_timeout: config.confirm_timeout,
            declare: config.declare,
            can_look: agreed.can_look,
            blocked_since: agreed.blocked.then_some(now),
            returning: None,
            stirred: false,
        }
    }

    pub(super) fn window(&self) -> usize {
        if self.blocked_since.is_some() { 0 } else { self.window }
    }

    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }

    /// Encodes a message into the buffer, and writes when that is worth it.
    pub(super) fn send(
        &mut self,
        tag: u64,
        message: &Outgoing<'_>,
        lessons: &mut Lessons,
    ) -> Result<(), SinkError> {
        if tag != self.confirms.next() {
            let reason = format!("message {tag} came as number {}", self.confirms.next());
            return Err(SinkError::Fatal { peer: self.wire.peer(), reason });
        }
        let full = self.confirms.waiting() >= self.window
            || self.confirms.span() >= self.window.saturating_mul(SPAN);
        if full || self.blocked_since.is_some() || self.wire.is_broken() {
            return Err(self.busy());
        }
        if self.wire.pending() >= TAKE_UP_TO {
            return Err(self.busy());
        }
        self.look_for_exchange(message, lessons)?;
        let id = self
            .encoder
            .encode(message, self.wire.out())
            .map_err(|reason| self.rejected(reason))?;
        self.confirms.push(id);
        if self.wire.pending() >= WRITE_AT && !self.wire.is_stuck() {
            self.write();
        }
        Ok(())
    }

    /// Makes sure that an exchange other than the declared one is there before anything is
    /// published to it.
    fn look_for_exchange(
        &mut self,
        message: &Outgoing<'_>,
        lessons: &mut Lessons,
    ) -> Result<(), SinkError> {
        let place = self.encoder.place(message);
        if place.is_empty() || place == self.declared.as_bytes() {
            return Ok(());
        }
        match lessons.destinations.look_up(place, Instant::now()) {
            Known::Present => Ok(()),
            Known::Refused(words) => Err(self.rejected(words)),
            Known::Ask(_) if !self.can_look => Ok(()),
            Known::Ask(methods) => {
                for method in methods {
                    self.wire.push(LOOKING, method)?;
                }
                Err(self.busy())
            }
            Known::Asked | Known::Wait => Err(self.busy()),
        }
    }

    fn busy(&self) -> SinkError {
        SinkError::Busy { peer: self.wire.peer() }
    }

    fn rejected(&self, reason: String) -> SinkError {
        SinkError::Rejected { peer: self.wire.peer(), reason }
    }

    fn write(&mut self) {
        self.wire.write();
        self.confirms.mark(Instant::now());
    }

    fn write_if_possible(&mut self) {
        if self.wire.pending() > 0 && !self.wire.is_stuck() {
            self.write();
        }
    }

    /// Sends what is there, then leaves what comes lying for `pause`, or until the interrupt. What
    /// the socket had no room for still goes out.
    pub(super) fn rest(&mut self, pause: Duration) {
        self.write_if_possible();
        let until = self.wake_at(Instant::now() + pause);
        loop {
            // What is wrong with the connection, the next poll will tell.
            let Ok(ready) = self.wire.wait_deaf(until) else { return };
            if ready.writable {
                self.write();
            }
            let is_over = ready.readable;
            if ready.interrupted || is_over || Instant::now() >= until {
                return;
            }
        }
    }

    /// One turn of the connection's life, of at most `budget`.
    pub(super) fn poll(
        &mut self,
        budget: Duration,
        outcomes: &mut Vec<Outcome>,
        lessons: &mut Lessons,
    ) -> Result<(), SinkError> {
        let before = outcomes.len();
        let start = Instant::now();
        let until = start.checked_add(budget).unwrap_or(start + Duration::from_secs(3600));
        self.stirred = false;
        self.confirms.mark(start);
        self.write_if_possible();
        if budget.is_zero() && self.wire.is_stuck() && self.wire.wait(start)?.writable {
            self.write();
        }
        // A budget of nothing is for a look at what is there. And who was held up for long must not take the broker's heartbeats,
        // which lie there unread, for its silence.
        let mut readable = budget.is_zero() || self.wire.seems_silent(start);
        loop {
            if readable {
                self.receive(outcomes, lessons)?;
            }
            let now = Instant::now();
            self.watch(now)?;
            self.write_if_possible();
            let done = outcomes.len() > before || self.stirred;
            if done || now >= until || self.wire.is_interrupted() {
                return Ok(());
            }
            let ready = self.wire.wait(self.wake_at(until))?;
            readable = ready.readable;
            if ready.writable {
                self.write();
            }
        }
    }

    /// The first moment at which something has to be done.
    fn wake_at(&self, until: Instant) -> Instant {
        let confirm = self.confirm_deadline();
        [self.wire.next_beat(), confirm].into_iter().flatten().fold(until, Instant::min)
    }

    fn confirm_deadline(&self) -> Option<Instant> {
        // A broker that asked for a pause owes nothing meanwhile.
        let oldest = self.confirms.oldest().filter(|_| self.blocked_since.is_none())?;
        oldest.checked_add(self.confirm_timeout)
    }

    fn watch(&mut self, now: Instant) -> Result<(), SinkError> {
        if self.confirm_deadline().is_some_and(|deadline| now >= deadline) {
            let waiting_for = "the confirm of a message (confirm-timeout-ms)";
            return Err(SinkError::Timeout { peer: self.wire.peer(), waiting_for });
        }
        self.wire.beat(now)
    }

    /// Takes in whatever has arrived.
    fn receive(
        &mut self,
        outcomes: &mut Vec<Outcome>,
        lessons: &mut Lessons,
    ) -> Result<(), SinkError> {
        for _ in 0..READS {
            let more = self.wire.read();
            while let Some((channel, incoming)) = self.wire.next()? {
                self.take(channel, incoming, outcomes, lessons)?;
            }
            if !more {
                break;
            }
        }
        self.wire.failure().map_or(Ok(()), Err)
    }

    fn take(
        &mut self,
        channel: u16,
        incoming: Incoming,
        outcomes: &mut Vec<Outcome>,
        lessons: &mut Lessons,
    ) -> Result<(), SinkError> {
        match (channel, incoming) {
            (_, Incoming::Heartbeat) | (PUBLISHING, Incoming::Body) => Ok(()),
            (PUBLISHING, Incoming::Ack(tag, multiple)) => {
                let known = self.confirms.ack(tag, multiple, outcomes);
                known.map_err(|Unknown| self.unknown_tag(tag))
            }
            (PUBLISHING, Incoming::Nack(tag, multiple)) => {
                let known = self.confirms.nack(tag, multiple, outcomes);
                known.map_err(|Unknown| self.unknown_tag(tag))
            }
            (PUBLISHING, Incoming::Return(returned)) => {
                self.returning = Some(returned);
                Ok(())
            }
            (PUBLISHING, Incoming::Header(id)) => self.returned(id, outcomes),
            (0, Incoming::Blocked(_)) => {
                self.pause();
                Ok(())
            }
            (0, Incoming::Unblocked) => {
                self.resume();
                Ok(())
            }
            (PUBLISHING, Incoming::Flow(active)) => {
                if active {
                    self.resume();
                } else {
                    self.pause();
                }
                let flow_ok = channel::AMQPMethod::FlowOk(channel::FlowOk { active });
                self.wire.push(PUBLISHING, AMQPClass::Channel(flow_ok))
            }
            (channel, Incoming::Close(words)) => self.closed(channel, &words, lessons),
            (LOOKING, Incoming::Answer(AMQPClass::Channel(channel::AMQPMethod::OpenOk(_)))) => {
                Ok(())
            }
            (
                LOOKING,
                Incoming::Answer(AMQPClass::Exchange(exchange::AMQPMethod::DeclareOk(_))),
            ) => {
                lessons.destinations.found();
                self.stirred = true;
                Ok(())
            }
            (channel, other) => {
                Err(self.wire.protocol(format!("{} came on channel {channel}", other.name())))
            }
        }
    }

    fn unknown_tag(&self, tag: u64) -> SinkError {
        self.wire.protocol(format!("it confirms message {tag}, which was never published"))
    }

    fn returned(&mut self, id: MessageId, outcomes: &mut Vec<Outcome>) -> Result<(), SinkError> {
        let Some(returned) = self.returning.take() else {
            return Err(self.wire.protocol("a content header came without a method".to_owned()));
        };
        let reason = format!(
            "no queue takes it: exchange {:?} has no binding for key {:?} ({} {})",
            returned.exchange, returned.key, returned.code, returned.text
        );
        let known = self.confirms.returned(id, reason, outcomes);
        known.map_err(|Unknown| {
            self.wire.protocol("it returns a message that is not in flight".to_owned())
        })
    }

    fn pause(&mut self) {
        self.blocked_since = self.blocked_since.or_else(|| Some(Instant::now()));
        self.stirred = true;
    }

    fn resume(&mut self) {
        self.blocked_since = None;
        self.stirred = true;
        self.confirms.restart(Instant::now());
    }

    /// Answers a close. Only one of the second channel leaves the connection standing.
    fn closed(
        &mut self,
        channel: u16,
        words: &CloseWords,
        lessons: &mut Lessons,
    ) -> Result<(), SinkError> {
        let now = Instant::now();
        if channel == LOOKING {
            self.stirred = true;
            lessons.destinations.not_found(closing::said(words), now);
            return self.wire.push(LOOKING, closing::channel_close_ok());
        }
        if let Some(limit) = closing::body_limit(words) {
            lessons.body_max = Some((limit, closing::said(words)));
        }
        let exchange = &self.declared;
        if let Some(blamed) = closing::blamed_exchange(words).filter(|blamed| blamed != exchange) {
            lessons.destinations.refuse(blamed.as_bytes(), closing::said(words), now);
        }
        let error = closing::while_publishing(self.wire.peer(), words, exchange, self.declare);
        if channel == 0 {
            self.wire.push(0, closing::connection_close_ok())?;
        } else {
            self.wire.push(channel, closing::channel_close_ok())?;
            self.wire.push(0, closing::connection_close())?;
        }
        self.wire.part();
        Err(error)
    }

    /// Sends what is left and says goodbye.
    pub(super) fn close(mut self, deadline: Instant) {
        if self.wire.push(0, closing::connection_close()).is_ok() {
            let blocked = self.blocked_since.map(|_| Instant::now() + GOODBYE_BLOCKED);
            let deadline = blocked.map_or(deadline, |blocked| deadline.min(blocked));
            self.wire.finish(deadline, |incoming| {
                matches!(incoming, Incoming::CloseOk | Incoming::Close(_))
            });
        }
    }
}
