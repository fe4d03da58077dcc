// SPDX-License-Identifier: MIT
//! One dead letter, and its line.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::base64;
use crate::codec::{Form, Outgoing};
use crate::event::{Class, DecodeError, EventKind, EventNames, Index, Record};
use crate::lines::{self, number, push_number, push_text, text};

/// A message that the broker would not have, with the reason.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Letter {
    /// Its number in the dead letters of its sink, given when it is put there.
    pub id: u64,
    /// When it was given up, in milliseconds since 1970.
    pub time_ms: u64,
    /// Why, in the broker's words.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The id that consumers de-duplicate by.
    pub message_id: String,
    /// Its number in the sink's stream.
    pub seq: u64,
    /// The event's name; `PUBLISH` for a message of an application's.
    pub event: String,
    /// The subclass of a CUSTOM event.
    pub subclass: String,
    /// The routing or partition key.
    pub key: String,
    /// The bytes of [`Record::store`].
    pub stored: Vec<u8>,
}

/// A dead letter's message, ready to be sent again.
#[derive(Debug)]
pub struct Revived {
    /// The number of the letter.
    pub letter: u64,
    /// The message's number in its stream.
    pub seq: u64,
    /// See [`Stamp::reuse`](crate::codec::Stamp).
    pub reuse: u8,
    /// The Core-UUID of its stream.
    pub boot: String,
    /// The message.
    pub record: Record,
}

impl Letter {
    /// Names of the headers that a copy for the broker carries, beside the key and the body.
    pub const DEATH_HEADERS: [&'static str; 6] = [
        "x-death-reason",
        "x-death-attempts",
        "x-death-time",
        "x-original-id",
        "x-original-seq",
        "x-original-event",
    ];

    /// The letter for a message that is given up now after `attempts`. `key` is the one that it
    /// was sent by.
    pub fn of(message: &Outgoing<'_>, key: &[u8], attempts: u32, reason: &str) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut letter = Self {
            time_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            reason: reason.to_owned(),
            attempts,
            seq: message.stamp.seq,
            event: message.name().to_owned(),
            subclass: lossy(message.subclass().unwrap_or_default()),
            ..Self::default()
        };
        message.write_id(&mut letter.message_id);
        letter.key = lossy(key);
        let stamp = message.stamp;
        message.record.store(message.names, message.boot, stamp.reuse, &mut letter.stored);
        letter
    }

    /// Appends the letter's line.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        // The id stands first: it is found without parsing the rest.
        out.extend_from_slice(ID.as_bytes());
        out.extend_from_slice(itoa::Buffer::new().format(self.id).as_bytes());
        push_number(out, "time_ms", self.time_ms);
        push_text(out, "reason", self.reason.as_bytes());
        push_number(out, "attempts", u64::from(self.attempts));
        push_text(out, "message_id", self.message_id.as_bytes());
        push_number(out, "seq", self.seq);
        push_text(out, "event", self.event.as_bytes());
        push_text(out, "subclass", self.subclass.as_bytes());
        push_text(out, "key", self.key.as_bytes());
        out.extend_from_slice(b",\"record\":\"");
        base64::encode(&self.stored, out);
        out.push(b'"');
        lines::seal(out, start);
    }

    /// Reads a whole line. None when it is another's, or of a newer format.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(line).ok()?;
        let member = |name| text(&value, name).to_owned();
        Some(Self {
            id: value.get("id")?.as_u64()?,
            time_ms: number(&value, "time_ms"),
            reason: member("reason"),
            attempts: u32::try_from(number(&value, "attempts")).unwrap_or(u32::MAX),
            message_id: member("message_id"),
            seq: number(&value, "seq"),
            event: member("event"),
            subclass: member("subclass"),
            key: member("key"),
            stored: base64::decode(text(&value, "record").as_bytes())?,
        })
    }

    /// The message, as it was sent the first time.
    ///
    /// # Errors
    ///
    /// When a newer module wrote it.
    pub fn revive(&self, names: &EventNames) -> Result<Revived, DecodeError> {
        let mut record = Record::default();
        let (boot, reuse) = record.restore(names, &self.stored)?;
        let boot = boot.to_owned();
        Ok(Revived { letter: self.id, seq: self.seq, reuse, boot, record })
    }

    /// A copy for the broker: a message to `destination` (an exchange or topic) with the original
    /// key and body, and the reason in its headers.
    ///
    /// # Errors
    ///
    /// When a newer module wrote the letter.
    pub fn to_publish_record(
        &self,
        destination: &str,
        node: &str,
        names: &EventNames,
    ) -> Result<Record, DecodeError> {
        let revived = self.revive(names)?;
        let mut index = Index::default();
        index.read(&revived.record);
        let message = revived.message(node, names, &index);
        let mut body = Vec::new();
        message.write_body(&mut body);
        let mut record = Record::with_capacity(body.len() + 512);
        record.begin(EventKind::PUBLISH, Class::Normal, None);
        record.header(Outgoing::PUBLISH_DESTINATION.as_bytes(), destination.as_bytes());
        record.header(Outgoing::PUBLISH_KEY.as_bytes(), self.key.as_bytes());
        let [attempts, time, seq] =
            [u64::from(self.attempts), self.time_ms, self.seq].map(|number| number.to_string());
        let values = [&self.reason, &attempts, &time, &self.message_id, &seq, &self.event];
        for (name, value) in Self::DEATH_HEADERS.iter().zip(values) {
            record.header(name.as_bytes(), value.as_bytes());
        }
        if message.form() == Form::Publish {
            for (name, value) in message.publish_headers() {
                record.header(name, value);
            }
        }
        record.body(&body);
        Ok(record)
    }
}

impl Revived {
    /// The message as a sink would get it. `index` has read its record.
    pub fn message<'a>(
        &'a self,
        node: &'a str,
        names: &'a EventNames,
        index: &'a Index,
    ) -> Outgoing<'a> {
        Outgoing {
            stamp: crate::codec::Stamp { seq: self.seq, reuse: self.reuse },
            node,
            boot: &self.boot,
            record: &self.record,
            index,
            names,
        }
    }
}

const ID: &str = "{\"id\":";
const TIME: &[u8] = b",\"time_ms\":";

/// Id and time of a whole line, without parsing the rest of it.
pub(super) fn id_and_time(line: &[u8]) -> Option<(u64, u64)> {
    let digits = |text: &[u8]| {
        let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
        let (digits, rest) = text.split_at_checked(end)?;
        Some((str::from_utf8(digits).ok()?.parse().ok()?, rest.len()))
    };
    let after = line.strip_prefix(ID.as_bytes())?;
    let (id, left): (u64, usize) = digits(after)?;
    let rest = after.get(after.len() - left..)?.strip_prefix(TIME)?;
    let (time, _): (u64, usize) = digits(rest)?;
    Some((id, time))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
