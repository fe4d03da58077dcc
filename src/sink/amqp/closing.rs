// SPDX-License-Identifier: MIT
//! What a broker's close means for the publisher.

use amq_protocol::protocol::{AMQPClass, channel, connection};

use super::frame::{BASIC_PUBLISH, CLASS_BASIC, CloseWords};
use crate::config::amqp::Declare;
use crate::sink::SinkError;

/// Reply codes (specification §1.2) that are told apart.
const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;
const NOT_IMPLEMENTED: u16 = 540;

/// While the connection is opened: nothing heals by itself what the broker forbids or misses.
///
/// `what_to_do` ends the message when an operator has to act.
pub(super) fn while_opening(peer: String, words: &CloseWords, what_to_do: &str) -> SinkError {
    match words.code {
        ACCESS_REFUSED | NOT_FOUND | RESOURCE_LOCKED | PRECONDITION_FAILED | NOT_ALLOWED
        | NOT_IMPLEMENTED => {
            SinkError::Refused { peer, reason: format!("{}; {what_to_do}", said(words)) }
        }
        _ => SinkError::Closed { peer, reason: said(words) },
    }
}

/// While messages flow. Opening the connection anew declares the exchange again, or finds that it
/// may not; where opening does neither, the same would happen again at once.
///
/// `exchange` is the configured one. Another that is to blame is the sender's of one message: the
/// sink refuses that from then on, so it may connect again soon.
pub(super) fn while_publishing(
    peer: String,
    words: &CloseWords,
    exchange: &str,
    declare: Declare,
) -> SinkError {
    let publishing = words.method == (CLASS_BASIC, BASIC_PUBLISH);
    if blamed_exchange(words).is_some_and(|blamed| blamed != exchange) {
        return SinkError::Closed { peer, reason: said(words) };
    }
    let what_to_do = match words.code {
        ACCESS_REFUSED if publishing => "give the user the permission to write to it",
        NOT_FOUND if publishing && declare == Declare::Off => {
            "create the exchange, or set declare to active"
        }
        NOT_ALLOWED => "ask the broker's operator",
        _ => return SinkError::Closed { peer, reason: said(words) },
    };
    SinkError::Refused { peer, reason: format!("{}; {what_to_do}", said(words)) }
}

/// The exchange that a close for a publish names.
pub(super) fn blamed_exchange(words: &CloseWords) -> Option<&str> {
    let publishing = words.method == (CLASS_BASIC, BASIC_PUBLISH);
    let blames = publishing && matches!(words.code, ACCESS_REFUSED | NOT_FOUND);
    let (_, rest) = words.text.split_once("exchange '").filter(|_| blames)?;
    rest.split_once('\'').map(|(name, _)| name)
}

/// The size that no message may exceed, when that is what the broker closes for.
///
/// RabbitMQ: "message size 200000000 is larger than configured max size 134217728".
pub(super) fn body_limit(words: &CloseWords) -> Option<usize> {
    let (_, rest) = words.text.split_once("larger than configured max size ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|_| words.code == PRECONDITION_FAILED)
}

/// The broker's words with its code. RabbitMQ's begin with the code's name.
pub(super) fn said(words: &CloseWords) -> String {
    format!("{} {}", words.code, words.text)
}

/// We are done.
pub(super) fn connection_close() -> AMQPClass {
    AMQPClass::Connection(connection::AMQPMethod::Close(connection::Close {
        reply_code: 200,
        reply_text: "done".into(),
        class_id: 0,
        method_id: 0,
    }))
}

/// The broker is done, with everything.
pub(super) fn connection_close_ok() -> AMQPClass {
    AMQPClass::Connection(connection::AMQPMethod::CloseOk(connection::CloseOk {}))
}

/// The broker is done with a channel.
pub(super) fn channel_close_ok() -> AMQPClass {
    AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Class;

    fn words(code: u16, text: &str) -> CloseWords {
        CloseWords { code, text: text.into(), method: (CLASS_BASIC, BASIC_PUBLISH) }
    }

    #[test]
    fn the_code_of_a_close_decides_what_the_publisher_does() {
        let missing = words(404, "NOT_FOUND - no exchange 'own' in vhost '/'");
        let denied =
            words(403, "ACCESS_REFUSED - write access to exchange 'own' in vhost '/' refused");
        let others = words(404, "NOT_FOUND - no exchange 'orders' in vhost '/'");
        let forced = words(320, "CONNECTION_FORCED - broker forced connection closure");
        for (words, declare, class) in [
            (&missing, Declare::Active, Class::Reconnect),
            (&missing, Declare::Passive, Class::Reconnect),
            (&missing, Declare::Off, Class::Refused),
            (&denied, Declare::Active, Class::Refused),
            (&others, Declare::Off, Class::Reconnect),
            (&forced, Declare::Off, Class::Reconnect),
        ] {
            let error = while_publishing("broker".into(), words, "own", declare);
            assert_eq!(error.class(), class, "{error}");
            assert!(error.to_string().contains(&words.text), "{error}");
        }
        assert_eq!(while_opening("b".into(), &missing, "x").class(), Class::Refused);
        assert_eq!(while_opening("b".into(), &forced, "x").class(), Class::Reconnect);
    }

    #[test]
    fn the_exchange_and_the_limit_are_read_from_the_words() {
        let others = words(404, "NOT_FOUND - no exchange 'orders' in vhost '/'");
        assert_eq!(blamed_exchange(&others), Some("orders"));
        let large = "PRECONDITION_FAILED - message size 200 is larger than configured max size 100";
        assert_eq!(body_limit(&words(406, large)), Some(100));
        assert_eq!(body_limit(&words(404, large)), None);
        assert_eq!(body_limit(&others), None);
    }
}
