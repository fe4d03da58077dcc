// SPDX-License-Identifier: MIT
//! The exchanges that senders of single messages ask for.
//!
//! Publishing to an exchange that does not exist closes the channel, and with it the confirms of
//! everything in flight; resent, the message would do the same again. So the first message for an
//! exchange other than the configured one waits until a passive declare on a second channel has
//! found it, and a broker's refusal is remembered for a while, over connections.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use amq_protocol::protocol::{AMQPClass, channel, exchange};
use amq_protocol::types::{FieldTable, ShortString};

/// How long a refusal stands before the broker is asked again.
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// More names than any configuration has. Beyond it, all are asked for anew.
const REMEMBERED: usize = 1024;

/// What is known of an exchange.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Known {
    /// It is there.
    Present,
    /// The broker said no, in these words.
    Refused(String),
    /// The broker has been asked.
    Asked,
    /// Nothing, and another is being asked for: later.
    Wait,
    /// Nothing: send these methods on the second channel.
    Ask(Vec<AMQPClass>),
}

/// The exchanges of one sink.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    known: HashMap<Box<[u8]>, Answer>,
    asked: Option<Box<[u8]>>,
    /// Whether the second channel is open.
    open: bool,
}

#[derive(Debug)]
enum Answer {
    Present,
    Refused(String, Instant),
}

impl Destinations {
    /// Forgets what held for the last connection. Refusals stand.
    pub(super) fn reconnected(&mut self) {
        self.asked = None;
        self.open = false;
        self.known.retain(|_, answer| matches!(answer, Answer::Refused(..)));
    }

    /// What is known of the exchange `name`, and what to send to know more.
    pub(super) fn look_up(&mut self, name: &[u8], now: Instant) -> Known {
        match self.known.get(name) {
            Some(Answer::Present) => return Known::Present,
            Some(Answer::Refused(words, until)) if now < *until => {
                return Known::Refused(words.clone());
            }
            _ => {}
        }
        if let Some(asked) = &self.asked {
            return if **asked == *name { Known::Asked } else { Known::Wait };
        }
        let text = str::from_utf8(name).ok().and_then(|name| ShortString::try_new(name).ok());
        let Some(exchange) = text else {
            return Known::Refused("no exchange can have such a name".to_owned());
        };
        let mut methods = Vec::new();
        if !self.open {
            self.open = true;
            methods.push(AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})));
        }
        methods.push(AMQPClass::Exchange(exchange::AMQPMethod::Declare(exchange::Declare {
            exchange,
            kind: "topic".into(),
            passive: true,
            durable: false,
            auto_delete: false,
            internal: false,
            nowait: false,
            arguments: FieldTable::default(),
        })));
        self.asked = Some(name.into());
        Known::Ask(methods)
    }

    /// The exchange that was asked for is there.
    pub(super) fn found(&mut self) {
        if let Some(name) = self.asked.take() {
            self.remember(name, Answer::Present);
        }
    }

    /// The second channel was closed over the exchange that was asked for.
    pub(super) fn not_found(&mut self, words: String, now: Instant) {
        self.open = false;
        if let Some(name) = self.asked.take() {
            self.remember(name, Answer::Refused(words, now + REFUSED_FOR));
        }
    }

    /// Publishing to `name` was refused.
    pub(super) fn refuse(&mut self, name: &[u8], words: String, now: Instant) {
        self.remember(name.into(), Answer::Refused(words, now + REFUSED_FOR));
    }

    fn remember(&mut self, name: Box<[u8]>, answer: Answer) {
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(name, answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_is_asked_for_once_and_its_answer_is_kept() {
        let now = Instant::now();
        let mut destinations = Destinations::default();
        let Known::Ask(methods) = destinations.look_up(b"orders", now) else { panic!("not asked") };
        assert_eq!(methods.len(), 2);
        assert_eq!(destinations.look_up(b"orders", now), Known::Asked);
        assert_eq!(destinations.look_up(b"other", now), Known::Wait);
        destinations.found();
        assert_eq!(destinations.look_up(b"orders", now), Known::Present);
        let Known::Ask(methods) = destinations.look_up(b"other", now) else { panic!("not asked") };
        assert_eq!(methods.len(), 1, "the channel is open already");
        destinations.not_found("404".into(), now);
        assert_eq!(destinations.look_up(b"other", now), Known::Refused("404".into()));
        destinations.reconnected();
        assert_eq!(destinations.look_up(b"other", now), Known::Refused("404".into()));
        assert!(matches!(destinations.look_up(b"other", now + REFUSED_FOR), Known::Ask(_)));
    }
}
