// SPDX-License-Identifier: MIT
//! Filling in a [`Template`] for one message.
//!
//! Runs on a publisher's thread for each message. Nothing is allocated but by the buffer that is
//! written to, when it grows.

use crate::codec::key::{KEY_MAX, encode_word};
use crate::codec::{Form, Outgoing};
use crate::config::template::{FIELDS_MAX, Piece, Purpose, Source, Template, is_topic_byte};

/// What a field stands for in one message.
#[derive(Clone, Copy, Debug, Default)]
struct Value<'v> {
    bytes: &'v [u8],
    /// Written in the configuration, and therefore as it is.
    literal: bool,
}

impl Value<'_> {
    /// The bytes that are kept free for it, which is at least the `_` of an empty word.
    fn reserve(&self, room: usize) -> usize {
        if self.literal { self.bytes.len().max(1) } else { self.bytes.len().clamp(1, room) }
    }
}

impl Outgoing<'_> {
    /// Appends the routing key that `template` makes of the message, or the one that the sender
    /// of a published message asked for.
    ///
    /// It is never longer than [`KEY_MAX`] bytes, has as many words as the template, none of them
    /// empty (`_` stands for what the event doesn't have), and is never cut inside a `%XX`.
    pub fn write_routing_key_with(&self, template: &Template, out: &mut Vec<u8>) {
        if template.is_standard() || self.form() == Form::Publish {
            self.write_routing_key(out);
            return;
        }
        let end = out.len() + KEY_MAX;
        let mut values = [Value::default(); FIELDS_MAX];
        // What is still to come needs this much at the least.
        let mut ahead = template.fixed();
        let fields = template.pieces().iter().filter_map(|piece| match piece {
            Piece::Field(sources) => Some(sources),
            Piece::Text(_) | Piece::Dot => None,
        });
        for (value, sources) in values.iter_mut().zip(fields) {
            *value = self.value(sources);
            ahead += value.reserve(template.room());
        }
        let mut values = values.iter();
        let mut word = out.len();
        for piece in template.pieces() {
            match piece {
                Piece::Text(text) => {
                    ahead = ahead.saturating_sub(text.len());
                    out.extend_from_slice(text.as_bytes());
                }
                Piece::Dot => {
                    ahead = ahead.saturating_sub(1);
                    if out.len() == word {
                        out.push(b'_');
                    }
                    out.push(b'.');
                    word = out.len();
                }
                Piece::Field(_) => {
                    let Some(value) = values.next() else { continue };
                    ahead = ahead.saturating_sub(value.reserve(template.room()));
                    if value.literal {
                        out.extend_from_slice(value.bytes);
                    } else {
                        encode_word(value.bytes, end.saturating_sub(ahead), out);
                    }
                }
            }
        }
        if out.len() == word {
            out.push(b'_');
        }
    }

    /// The key of a Kafka record that `template` makes of the message, or the one that the sender
    /// of a published message asked for. It lies in the message or in `buffer`, and is never
    /// empty: without any value it is the [`partition_key`](Self::partition_key).
    pub fn record_key<'k>(&'k self, template: &Template, buffer: &'k mut Vec<u8>) -> &'k [u8] {
        if template.is_standard() || self.form() == Form::Publish {
            return self.partition_key();
        }
        buffer.clear();
        self.write_plain(template, buffer, |value, buffer| buffer.extend_from_slice(value.bytes));
        if buffer.is_empty() { self.partition_key() } else { buffer }
    }

    /// Appends the name of the Kafka topic that `template` makes of the message.
    ///
    /// What a topic can't be named with becomes `_`, as does a field without a value, and what is
    /// too long is cut. For a message whose sender asked for no other
    /// [`destination`](Self::destination).
    pub fn write_topic(&self, template: &Template, out: &mut Vec<u8>) {
        let start = out.len();
        self.write_name(template, Purpose::Topic, is_topic_byte, out);
        // By Kafka's `Topic.validate` these two are no names.
        if matches!(out.get(start..), Some(b"." | b"..")) {
            out.truncate(start);
            out.push(b'_');
        }
    }

    /// Appends the name of the AMQP exchange that `template` makes of the message, as
    /// [`write_topic`](Self::write_topic) does that of a topic.
    pub fn write_exchange(&self, template: &Template, out: &mut Vec<u8>) {
        // What the specification of AMQP 0-9-1 allows; RabbitMQ takes more, other brokers may not.
        let legal = |byte| is_topic_byte(byte) || byte == b':';
        self.write_name(template, Purpose::Exchange, legal, out);
    }

    fn write_name(
        &self,
        template: &Template,
        purpose: Purpose,
        legal: impl Fn(u8) -> bool,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        self.write_plain(template, out, |value, out| {
            if value.bytes.is_empty() {
                out.push(b'_');
            } else if value.literal {
                out.extend_from_slice(value.bytes);
            } else {
                let repaired = |byte: &u8| if legal(*byte) { *byte } else { b'_' };
                out.extend(value.bytes.iter().map(repaired));
            }
        });
        if let Some(max) = purpose.max().filter(|max| out.len() - start > *max) {
            out.truncate(start + max);
            // Only text of the configuration is wider than a byte, and what is cut may lie in it.
            let name = str::from_utf8(out.get(start..).unwrap_or_default());
            let whole = name.map_or_else(|error| error.valid_up_to(), str::len);
            out.truncate(start + whole);
        }
    }

    fn write_plain(
        &self,
        template: &Template,
        out: &mut Vec<u8>,
        write: impl Fn(Value<'_>, &mut Vec<u8>),
    ) {
        for piece in template.pieces() {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Dot => out.push(b'.'),
                Piece::Field(sources) => write(self.value(sources), out),
            }
        }
    }

    fn value<'v>(&'v self, sources: &'v [Source]) -> Value<'v> {
        for source in sources {
            let bytes = match source {
                Source::Node => self.node.as_bytes(),
                Source::Event => self.name().as_bytes(),
                Source::Subclass => self.subclass().unwrap_or_default(),
                Source::Uuid => self.unique_id().unwrap_or_default(),
                Source::Call => self.partition_key(),
                Source::Class => self.record.class().name().as_bytes(),
                Source::Header(name) => self.header(name).unwrap_or_default(),
                Source::Literal(text) => return Value { bytes: text.as_bytes(), literal: true },
            };
            if !bytes.is_empty() {
                return Value { bytes, literal: false };
            }
        }
        Value::default()
    }
}

#[cfg(test)]
mod tests;
