// SPDX-License-Identifier: MIT
//! One message on its way to a broker, as a sink sees it.

use crate::codec::{json, key};
use crate::event::{EventKind, EventNames, Index, Record};

/// What makes a message of a sink's stream the one it is. Given once, kept through every retry,
/// failover and restart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stamp {
    /// Its number in the sink's stream of this boot: contiguous, so that a hole means loss.
    pub seq: u64,
    /// How many earlier messages of the stream carry the same event id; part of the id then.
    pub reuse: u8,
}

/// What kind of thing the message is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// An event of the switch: the body is its JSON, the key is made from its headers.
    Event,
    /// Handed to `rustbridge_publish`: destination, key, headers and body are the sender's.
    Publish,
}

/// A message for a sink to encode. Borrowed from the publisher for one call.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Its place in the stream.
    pub stamp: Stamp,
    /// The configured name of this switch.
    pub node: &'a str,
    /// The Core-UUID of the boot whose stream this is; an earlier one for a spooled message.
    pub boot: &'a str,
    /// The copied event.
    pub record: &'a Record,
    /// The way into it.
    pub index: &'a Index,
    /// The core's names of its events.
    pub names: &'a EventNames,
}

impl<'a> Outgoing<'a> {
    /// Header names under which a `rustbridge_publish` message keeps what is not a header.
    pub const PUBLISH_DESTINATION: &'static str = "\u{1}destination";
    /// See [`PUBLISH_DESTINATION`](Self::PUBLISH_DESTINATION).
    pub const PUBLISH_KEY: &'static str = "\u{1}key";

    /// The header in which an event of the module's own brings its id, so that it has the same one
    /// when another boot sends it again.
    pub const ID: &'static str = "Rustbridge-Id";

    /// What kind of message it is.
    pub fn form(&self) -> Form {
        if self.record.kind() == EventKind::PUBLISH { Form::Publish } else { Form::Event }
    }

    /// The event's name, from its number in the core and not from the `Event-Name` header, which
    /// a re-fired event keeps from its earlier life.
    pub fn name(&self) -> &'a str {
        match self.record.kind() {
            EventKind::PUBLISH => "PUBLISH",
            kind => self
                .names
                .name(kind)
                .or_else(|| str::from_utf8(self.header("Event-Name")?).ok())
                .unwrap_or("UNKNOWN"),
        }
    }

    /// The subclass of a CUSTOM event.
    pub fn subclass(&self) -> Option<&'a [u8]> {
        self.record.subclass()
    }

    /// A header's value: the last one of that name, and none for an array.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.index.get(self.record, name.as_bytes())
    }

    /// The first of these headers that is there and not empty.
    pub fn first_of(&self, names: &[&str]) -> Option<&'a [u8]> {
        names.iter().find_map(|name| self.header(name).filter(|value| !value.is_empty()))
    }

    /// The call's `Unique-ID`.
    pub fn unique_id(&self) -> Option<&'a [u8]> {
        self.first_of(&["Unique-ID"])
    }

    /// What keeps the events of a call together and in order: both legs of a call share the
    /// `Channel-Call-UUID`. Never empty.
    pub fn partition_key(&self) -> &'a [u8] {
        let own = match self.form() {
            Form::Publish => self.first_of(&[Self::PUBLISH_KEY]),
            Form::Event => self.first_of(&["Channel-Call-UUID", "Unique-ID", "Job-UUID"]),
        };
        own.unwrap_or(self.node.as_bytes())
    }

    /// `Event-Date-Timestamp`: microseconds since 1970 at which the core made the event.
    pub fn timestamp_us(&self) -> Option<u64> {
        self.index.timestamp_us()
    }

    /// `Event-Sequence`: the core's own number of the event.
    pub fn event_sequence(&self) -> Option<u64> {
        self.index.sequence()
    }

    /// Appends the id to de-duplicate by: `<Core-UUID>-<Event-Sequence>`, with `-n` behind it
    /// for the n-th re-use. A message that is no event of a core gets one of the same kind from
    /// its stream: `<boot>-rb-<seq>`, unless it brings its own.
    pub fn write_id(&self, out: &mut String) {
        // Only of ours: an application could name any header so.
        if self.subclass().is_some_and(|name| name.starts_with(b"rustbridge::"))
            && self.event_sequence().is_none()
            && let Some(id) = self.header(Self::ID).and_then(|id| str::from_utf8(id).ok())
        {
            out.push_str(id);
            return;
        }
        let core = self.header("Core-UUID").and_then(|uuid| str::from_utf8(uuid).ok());
        let mut number = itoa::Buffer::new();
        if let (Some(core), Some(sequence)) = (core, self.event_sequence()) {
            out.push_str(core);
            out.push('-');
            out.push_str(number.format(sequence));
            if self.stamp.reuse > 0 {
                out.push('-');
                out.push_str(number.format(self.stamp.reuse));
            }
        } else {
            out.push_str(self.boot);
            out.push_str("-rb-");
            out.push_str(number.format(self.stamp.seq));
        }
    }

    /// Appends the routing key `event.<node>.<name>.<subclass or _>.<Unique-ID or _>`, always
    /// five words, or the one that the sender of a published message asked for.
    pub fn write_routing_key(&self, out: &mut Vec<u8>) {
        match self.form() {
            Form::Publish => {
                let key = self.header(Self::PUBLISH_KEY).unwrap_or_default();
                out.extend_from_slice(key.get(..key::KEY_MAX).unwrap_or(key));
            }
            Form::Event => key::write_key(
                &[
                    b"event",
                    self.node.as_bytes(),
                    self.name().as_bytes(),
                    self.subclass().unwrap_or_default(),
                    self.unique_id().unwrap_or_default(),
                ],
                out,
            ),
        }
    }

    /// The destination (exchange or topic) that the sender of a published message asked for.
    pub fn destination(&self) -> Option<&'a [u8]> {
        self.first_of(&[Self::PUBLISH_DESTINATION])
    }

    /// The headers that the sender of a published message added.
    pub fn publish_headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.index.headers(self.record).filter_map(|(name, value)| match value {
            crate::event::Value::One(value) if name.first() != Some(&1) => Some((name, value)),
            _ => None,
        })
    }

    /// Appends the message body: the event's JSON, or the published payload as it is.
    pub fn write_body(&self, out: &mut Vec<u8>) {
        match self.form() {
            Form::Event => json::write_event(self.record, self.index, out),
            Form::Publish => {
                out.extend_from_slice(self.index.body(self.record).unwrap_or_default());
            }
        }
    }
}
