// SPDX-License-Identifier: MIT
//! `basic.publish` written straight into the output buffer.
//!
//! A message is a method frame, a header frame with its properties, and its body in frames of at
//! most what was agreed on. All are appended to the buffer that goes to the socket; lengths that
//! are known only afterwards are patched, and a body of several frames is spread out in place. In
//! the steady state nothing is allocated for a message.

use super::confirms::MessageId;
use super::fields::{close_short, long, number_entry, open_short, patch_u32, short, text_entry};
use super::frame::{BASIC_PUBLISH, BODY, CLASS_BASIC, END, HEAD, HEADER, METHOD, OVERHEAD};
use crate::codec::{Form, Outgoing};
use crate::config::template::Template;

/// Property flags (specification of the class `basic`), from the highest bit.
const CONTENT_TYPE: u16 = 1 << 15;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const TYPE: u16 = 1 << 5;
const APP_ID: u16 = 1 << 3;

/// Headers that are the module's own, whatever the sender of a message adds.
const OWN_HEADERS: [&[u8]; 3] = [b"node", b"boot", b"seq"];

/// Encodes the messages of one channel.
#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) channel: u16,
    pub(super) exchange: Template,
    pub(super) routing_key: Template,
    pub(super) content_type: String,
    pub(super) mandatory: bool,
    pub(super) persistent: bool,
    /// Largest frame, head and end included.
    pub(super) frame_max: usize,
    /// Largest body that the broker is known to take.
    pub(super) body_max: Option<(usize, String)>,
    /// The id of the message at hand; kept for its memory, as is what follows.
    pub(super) id: String,
    /// The exchange of the message at hand.
    pub(super) place: Vec<u8>,
}

impl Encoder {
    /// The exchange that `message` goes to: its sender's choice, or the configured one.
    pub(super) fn place(&mut self, message: &Outgoing<'_>) -> &[u8] {
        self.place.clear();
        match message.destination().filter(|_| message.form() == Form::Publish) {
            Some(own) => self.place.extend_from_slice(own),
            None => message.write_exchange(&self.exchange, &mut self.place),
        }
        &self.place
    }

    /// Appends the frames of `message`, which goes to its [`place`](Self::place): that has to be
    /// asked for first.
    ///
    /// # Errors
    ///
    /// In words, when the broker would close the connection over it. Nothing is appended then.
    pub(super) fn encode(
        &mut self,
        message: &Outgoing<'_>,
        out: &mut Vec<u8>,
    ) -> Result<MessageId, String> {
        let start = out.len();
        self.id.clear();
        message.write_id(&mut self.id);
        let written = self.frames(message, out);
        if written.is_err() {
            out.truncate(start);
        }
        written.map(|()| MessageId::of(id_as_sent(&self.id)))
    }

    fn frames(&self, message: &Outgoing<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let method = self.open_frame(METHOD, out);
        out.extend_from_slice(&CLASS_BASIC.to_be_bytes());
        out.extend_from_slice(&BASIC_PUBLISH.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        short(&self.place, out);
        let key = open_short(out);
        message.write_routing_key_with(&self.routing_key, out);
        close_short(out, key);
        out.push(u8::from(self.mandatory));
        close_frame(out, method);

        let header = self.open_frame(HEADER, out);
        out.extend_from_slice(&CLASS_BASIC.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        let body_size = out.len();
        out.extend_from_slice(&[0; 8]);
        self.properties(message, out);
        let size = out.len() - header - HEAD;
        if size + OVERHEAD > self.frame_max {
            return Err(format!(
                "its headers take {size} bytes, more than fits into a frame of {}: send fewer, or \
                 raise frame-max-bytes here and frame_max in the broker",
                self.frame_max
            ));
        }
        close_frame(out, header);

        let body = self.open_frame(BODY, out);
        message.write_body(out);
        let len = out.len() - body - HEAD;
        if let Some((max, words)) = &self.body_max
            && len > *max
        {
            return Err(format!("its body has {len} bytes: {words}"));
        }
        if let Some(field) = out.get_mut(body_size..body_size + 8) {
            field.copy_from_slice(&u64::try_from(len).unwrap_or(u64::MAX).to_be_bytes());
        }
        let chunk = self.frame_max.saturating_sub(OVERHEAD).max(1);
        if len == 0 {
            // A content without a body has no body frame.
            out.truncate(body);
        } else if len <= chunk {
            close_frame(out, body);
        } else {
            self.spread(out, body, len, chunk);
        }
        Ok(())
    }

    fn properties(&self, message: &Outgoing<'_>, out: &mut Vec<u8>) {
        let form = message.form();
        let timestamp = message.timestamp_us();
        let mut flags = CONTENT_TYPE | HEADERS | DELIVERY_MODE | MESSAGE_ID | TYPE | APP_ID;
        if timestamp.is_some() {
            flags |= TIMESTAMP;
        }
        out.extend_from_slice(&flags.to_be_bytes());
        match form {
            Form::Event => short(self.content_type.as_bytes(), out),
            Form::Publish => short(b"application/json", out),
        }
        let table = out.len();
        out.extend_from_slice(&[0; 4]);
        text_entry(b"node", message.node.as_bytes(), out);
        text_entry(b"boot", message.boot.as_bytes(), out);
        number_entry(b"seq", message.stamp.seq, out);
        match form {
            Form::Event => event_headers(message, out),
            Form::Publish => {
                let senders = message.publish_headers();
                for (name, value) in senders.filter(|(name, _)| !OWN_HEADERS.contains(name)) {
                    text_entry(name, value, out);
                }
            }
        }
        let len = out.len() - table - 4;
        patch_u32(out, table, len);
        out.push(if self.persistent { 2 } else { 1 });
        short(id_as_sent(&self.id), out);
        if let Some(timestamp) = timestamp {
            out.extend_from_slice(&(timestamp / 1_000_000).to_be_bytes());
        }
        let kind = open_short(out);
        out.extend_from_slice(message.name().as_bytes());
        if let Some(subclass) = message.subclass() {
            out.push(b' ');
            out.extend_from_slice(subclass);
        }
        close_short(out, kind);
        short(b"mod_rustbridge", out);
    }

    /// Turns the body of `len` bytes behind one frame head at `at` into frames of `chunk` bytes.
    fn spread(&self, out: &mut Vec<u8>, at: usize, len: usize, chunk: usize) {
        let frames = len.div_ceil(chunk);
        out.resize(at + len + frames * OVERHEAD, 0);
        // From the last to the first: each goes to where nothing unmoved is.
        for frame in (0..frames).rev() {
            let size = chunk.min(len - frame * chunk);
            let source = at + HEAD + frame * chunk;
            let head = at + frame * (chunk + OVERHEAD);
            out.copy_within(source..source + size, head + HEAD);
            if let Some(bytes) = out.get_mut(head..head + 3) {
                bytes.copy_from_slice(&frame_start(BODY, self.channel));
            }
            patch_u32(out, head + 3, size);
            if let Some(end) = out.get_mut(head + HEAD + size) {
                *end = END;
            }
        }
    }

    /// Begins a frame whose size is patched by [`close_frame`].
    fn open_frame(&self, kind: u8, out: &mut Vec<u8>) -> usize {
        let at = out.len();
        out.extend_from_slice(&frame_start(kind, self.channel));
        out.extend_from_slice(&[0; 4]);
        at
    }
}

fn event_headers(message: &Outgoing<'_>, out: &mut Vec<u8>) {
    if let Some(core) = message.header("Core-UUID") {
        text_entry(b"core_uuid", core, out);
    }
    if let Some(call) = message.unique_id() {
        text_entry(b"unique_id", call, out);
    }
    if let Some(sequence) = message.event_sequence() {
        number_entry(b"event_sequence", sequence, out);
    }
    if let Some(timestamp) = message.timestamp_us() {
        number_entry(b"timestamp_us", timestamp, out);
    }
    short(b"format", out);
    out.push(b'S');
    long(b"raw", out);
}

/// The message-id as it fits into its property.
fn id_as_sent(id: &str) -> &[u8] {
    // A Core-UUID is a header, so it may be anything. It is cut here and not by the writer of short
    // strings, because a returned message is known again by what was sent.
    let cut = (0..=id.len().min(255)).rev().find(|cut| id.is_char_boundary(*cut));
    id.as_bytes().get(..cut.unwrap_or(0)).unwrap_or_default()
}

fn frame_start(kind: u8, channel: u16) -> [u8; 3] {
    let [high, low] = channel.to_be_bytes();
    [kind, high, low]
}

fn close_frame(out: &mut Vec<u8>, at: usize) {
    let size = out.len() - at - HEAD;
    patch_u32(out, at + 3, size);
    out.push(END);
}

#[cfg(test)]
mod tests {
    use amq_protocol::frame::{AMQPFrame, parse_frame};
    use amq_protocol::protocol::{AMQPClass, basic};
    use amq_protocol::types::AMQPValue;
    use proptest::prelude::*;

    use super::*;
    use crate::codec::Stamp;
    use crate::config::template::Purpose;
    use crate::event::{Class, EventKind, EventNames, Index, Record};

    fn encoder(frame_max: usize) -> Encoder {
        Encoder {
            channel: 1,
            exchange: Template::new("rustbridge.events", Purpose::Exchange),
            routing_key: Template::new(
                "event.${node}.${event}.${subclass}.${uuid}",
                Purpose::RoutingKey,
            ),
            content_type: "application/json".into(),
            mandatory: true,
            persistent: true,
            frame_max,
            body_max: None,
            id: String::new(),
            place: Vec::new(),
        }
    }

    fn event(headers: &[(&str, &str)], subclass: Option<&[u8]>) -> Record {
        let mut record = Record::default();
        record.begin(EventKind::new(0), Class::Normal, subclass);
        for (name, value) in headers {
            record.header(name.as_bytes(), value.as_bytes());
        }
        record
    }

    fn encode(
        encoder: &mut Encoder,
        record: &Record,
        out: &mut Vec<u8>,
    ) -> Result<MessageId, String> {
        let mut index = Index::default();
        index.read(record);
        let names = EventNames::new(["CUSTOM"]);
        let message = Outgoing {
            stamp: Stamp { seq: 9, reuse: 0 },
            node: "fs1",
            boot: "boot-1",
            record,
            index: &index,
            names: &names,
        };
        encoder.place(&message);
        encoder.encode(&message, out)
    }

    struct Parsed {
        publish: basic::Publish,
        properties: basic::AMQPProperties,
        body: Vec<u8>,
        body_frames: usize,
    }

    fn parse(mut bytes: &[u8], frame_max: usize) -> Parsed {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let (rest, frame) = parse_frame(bytes).unwrap();
            assert!(bytes.len() - rest.len() <= frame_max);
            bytes = rest;
            frames.push(frame);
        }
        let mut frames = frames.into_iter();
        let Some(AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Publish(publish)))) =
            frames.next()
        else {
            panic!("no basic.publish")
        };
        let Some(AMQPFrame::Header(1, header)) = frames.next() else { panic!("no header") };
        assert_eq!(header.class_id, 60);
        let mut body = Vec::new();
        let mut body_frames = 0;
        for frame in frames {
            let AMQPFrame::Body(1, part) = frame else { panic!("no body: {frame}") };
            assert!(!part.is_empty());
            body.extend(part);
            body_frames += 1;
        }
        assert_eq!(header.body_size, u64::try_from(body.len()).unwrap());
        Parsed { publish, properties: header.properties, body, body_frames }
    }

    fn headers(parsed: &Parsed) -> Vec<(String, AMQPValue)> {
        let table = parsed.properties.headers().as_ref().unwrap();
        table.inner().iter().map(|(name, value)| (name.to_string(), value.clone())).collect()
    }

    fn text(value: &str) -> AMQPValue {
        AMQPValue::LongString(value.into())
    }

    #[test]
    fn an_event_carries_its_identity_in_properties_and_headers() {
        let record = event(
            &[
                ("Event-Name", "CUSTOM"),
                ("Core-UUID", "core-1"),
                ("Unique-ID", "call-1"),
                ("Event-Sequence", "77"),
                ("Event-Date-Timestamp", "1633261501757401"),
            ],
            Some(b"sofia::register"),
        );
        let mut out = Vec::new();
        let id = encode(&mut encoder(131_072), &record, &mut out).unwrap();
        assert_eq!(id, MessageId::of(b"core-1-77"));
        let parsed = parse(&out, 131_072);
        assert_eq!(parsed.publish.exchange.as_str(), "rustbridge.events");
        assert_eq!(
            parsed.publish.routing_key.as_str(),
            "event.fs1.CUSTOM.sofia%3A%3Aregister.call-1"
        );
        assert!(parsed.publish.mandatory && !parsed.publish.immediate);
        let properties = &parsed.properties;
        assert_eq!(properties.content_type(), &Some("application/json".into()));
        assert_eq!(properties.delivery_mode(), &Some(2));
        assert_eq!(properties.message_id(), &Some("core-1-77".into()));
        assert_eq!(properties.timestamp(), &Some(1_633_261_501));
        assert_eq!(properties.kind(), &Some("CUSTOM sofia::register".into()));
        assert_eq!(properties.app_id(), &Some("mod_rustbridge".into()));
        let expected = [
            ("boot", text("boot-1")),
            ("core_uuid", text("core-1")),
            ("event_sequence", AMQPValue::LongLongInt(77)),
            ("format", text("raw")),
            ("node", text("fs1")),
            ("seq", AMQPValue::LongLongInt(9)),
            ("timestamp_us", AMQPValue::LongLongInt(1_633_261_501_757_401)),
            ("unique_id", text("call-1")),
        ];
        assert_eq!(headers(&parsed), expected.map(|(name, value)| (name.to_owned(), value)));
        let body: serde_json::Value = serde_json::from_slice(&parsed.body).unwrap();
        assert_eq!(body["Unique-ID"], "call-1");
    }

    #[test]
    fn exchange_and_key_are_made_as_configured() {
        let mut encoder = encoder(131_072);
        encoder.exchange = Template::new("events.${event}", Purpose::Exchange);
        encoder.routing_key = Template::new("${uuid}.${node}", Purpose::RoutingKey);
        let record = event(&[("Unique-ID", "call.1")], None);
        let mut out = Vec::new();
        encode(&mut encoder, &record, &mut out).unwrap();
        let parsed = parse(&out, 131_072);
        assert_eq!(parsed.publish.exchange.as_str(), "events.CUSTOM");
        assert_eq!(parsed.publish.routing_key.as_str(), "call%2E1.fs1");
    }

    #[test]
    fn what_an_event_does_not_have_is_left_out() {
        let mut out = Vec::new();
        encode(&mut encoder(131_072), &event(&[], None), &mut out).unwrap();
        let parsed = parse(&out, 131_072);
        assert_eq!(parsed.properties.timestamp(), &None);
        assert_eq!(parsed.properties.message_id(), &Some("boot-1-rb-9".into()));
        let names: Vec<String> = headers(&parsed).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["boot", "format", "node", "seq"]);
        assert_eq!(parsed.body, b"{}");
    }

    #[test]
    fn a_published_message_goes_where_its_sender_says() {
        let mut record = Record::default();
        record.begin(EventKind::PUBLISH, Class::Normal, None);
        record.header(Outgoing::PUBLISH_DESTINATION.as_bytes(), b"orders");
        record.header(Outgoing::PUBLISH_KEY.as_bytes(), b"a.b\xff");
        record.header(b"tenant", b"t1");
        record.header(b"node", b"forged");
        let mut out = Vec::new();
        encode(&mut encoder(131_072), &record, &mut out).unwrap();
        let parsed = parse(&out, 131_072);
        assert_eq!(parsed.publish.exchange.as_str(), "orders");
        assert_eq!(parsed.publish.routing_key.as_str(), "a.b\u{fffd}");
        assert!(headers(&parsed).contains(&("tenant".to_owned(), text("t1"))));
        assert!(headers(&parsed).contains(&("node".to_owned(), text("fs1"))));
        // No payload: no body frame either.
        assert_eq!((parsed.body.len(), parsed.body_frames), (0, 0));
    }

    #[test]
    fn headers_beyond_a_frame_reject_the_message_and_leave_the_buffer_as_it_was() {
        let mut record = Record::default();
        record.begin(EventKind::PUBLISH, Class::Normal, None);
        record.header(b"long", &[b'x'; 5000]);
        let mut out = b"before".to_vec();
        let words = encode(&mut encoder(4096), &record, &mut out).unwrap_err();
        assert!(words.contains("frame-max"), "{words}");
        assert_eq!(out, b"before");
        assert!(encode(&mut encoder(8192), &record, &mut out).is_ok());
    }

    #[test]
    fn a_body_beyond_what_the_broker_takes_rejects_the_message() {
        let mut encoder = encoder(4096);
        encoder.body_max = Some((100, "larger than configured max size 100".into()));
        let record = event(&[("Long", &"x".repeat(101))], None);
        let mut out = Vec::new();
        let words = encode(&mut encoder, &record, &mut out).unwrap_err();
        assert!(words.contains("configured max size 100"), "{words}");
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn a_body_of_any_size_is_spread_over_frames_and_comes_back_whole(
            len in prop_oneof![0_usize..60, 4000_usize..4200, 8100_usize..8300, 0_usize..40_000],
            before in 0_usize..50,
        ) {
            let mut record = Record::default();
            record.begin(EventKind::PUBLISH, Class::Normal, None);
            let payload: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
            record.body(&payload);
            let mut out = vec![0; before];
            encode(&mut encoder(4096), &record, &mut out).unwrap();
            let parsed = parse(&out[before..], 4096);
            prop_assert_eq!(parsed.body_frames, len.div_ceil(4088));
            prop_assert_eq!(parsed.body, payload);
        }

        #[test]
        fn properties_of_any_text_stay_within_their_bounds(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 5),
        ) {
            let mut record = Record::default();
            record.begin(EventKind::new(0), Class::Normal, Some(&values[0]));
            let names = ["Core-UUID", "Event-Sequence", "Unique-ID", "Event-Date-Timestamp"];
            for (name, value) in names.iter().zip(values.iter().skip(1)) {
                record.header(name.as_bytes(), value);
            }
            record.header(b"Event-Sequence", b"5");
            let mut out = Vec::new();
            let id = encode(&mut encoder(131_072), &record, &mut out).unwrap();
            let parsed = parse(&out, 131_072);
            let sent = parsed.properties.message_id().clone().unwrap();
            prop_assert_eq!(id, MessageId::of(sent.as_str().as_bytes()));
        }
    }
}
