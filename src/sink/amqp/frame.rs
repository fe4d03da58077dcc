// SPDX-License-Identifier: MIT
//! From bytes to frames and methods, and back (specification §4.2.3).
//!
//! The peer chooses these bytes, so nothing is believed: a frame's size is checked before anything
//! waits for it, only the methods that a publisher can be sent are decoded at all, and whatever
//! holds a table or foreign text is read by [`fields`](super::fields).

use amq_protocol::frame::{AMQPFrame, gen_frame};
use amq_protocol::protocol::{AMQPClass, parse_class};

use super::confirms::MessageId;
use super::fields::{Reader, Value, lookup};

/// Type, channel and size before a frame's payload.
pub(super) const HEAD: usize = 7;
/// Those, and the byte after it.
pub(super) const OVERHEAD: usize = HEAD + 1;
pub(super) const END: u8 = 0xce;
pub(super) const METHOD: u8 = 1;
pub(super) const HEADER: u8 = 2;
pub(super) const BODY: u8 = 3;
pub(super) const HEARTBEAT: u8 = 8;
/// What a client says first.
pub(super) const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\0\0\x09\x01";
/// A whole heartbeat frame.
pub(super) const HEARTBEAT_FRAME: &[u8; OVERHEAD] = &[HEARTBEAT, 0, 0, 0, 0, 0, 0, END];
/// The class `basic`, whose content we publish.
pub(super) const CLASS_BASIC: u16 = 60;
/// `basic.publish`.
pub(super) const BASIC_PUBLISH: u16 = 40;

/// A frame whose payload is not looked into yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Raw<'b> {
    kind: u8,
    channel: u16,
    payload: &'b [u8],
}

/// The first frame in `bytes` and its length, or `None` while some of it is missing.
///
/// # Errors
///
/// In words, when these bytes can never become a frame of at most `max` bytes.
pub(super) fn split(bytes: &[u8], max: usize) -> Result<Option<(Raw<'_>, usize)>, String> {
    match bytes.first() {
        None => return Ok(None),
        Some(&(METHOD | HEADER | BODY | HEARTBEAT)) => {}
        Some(_) => return Err(stranger(bytes)),
    }
    let Some((&[kind, c0, c1, s0, s1, s2, s3], rest)) = bytes.split_first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let size = usize::try_from(u32::from_be_bytes([s0, s1, s2, s3])).unwrap_or(usize::MAX);
    if size > max.saturating_sub(OVERHEAD) {
        return Err(format!("it announces a frame of {size} bytes, and {max} is the limit"));
    }
    let Some((payload, rest)) = rest.split_at_checked(size) else { return Ok(None) };
    match rest.first() {
        None => Ok(None),
        Some(&END) => {
            let channel = u16::from_be_bytes([c0, c1]);
            Ok(Some((Raw { kind, channel, payload }, size + OVERHEAD)))
        }
        Some(other) => Err(format!("a frame ends with byte {other:#04x} instead of 0xce")),
    }
}

/// What speaks there when it isn't a broker.
fn stranger(bytes: &[u8]) -> String {
    if bytes.starts_with(b"AMQP") {
        let version: Vec<u8> = bytes.iter().skip(4).take(4).copied().collect();
        return format!(
            "it wants another version of AMQP ({version:?}) than 0-9-1: enable that in the broker"
        );
    }
    if bytes.starts_with(b"HTTP") {
        return "it answers like a web server: use the broker's AMQP port (5672), not its \
                management port"
            .to_owned();
    }
    if let [0x15 | 0x16, 3, ..] = bytes {
        return "it answers with TLS: use amqps:// or the broker's port without TLS".to_owned();
    }
    let start: Vec<u8> = bytes.iter().take(24).copied().collect();
    format!("it sends \"{}\" where a frame should begin", start.escape_ascii())
}

/// What a peer can tell a publisher.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Incoming {
    /// The peer lives.
    Heartbeat,
    /// `connection.start`.
    Start(Start),
    /// `basic.ack`: the delivery tag, and whether it stands for all before it.
    Ack(u64, bool),
    /// `basic.nack`, likewise.
    Nack(u64, bool),
    /// `basic.return`; a header and bodies follow.
    Return(Returned),
    /// The header of a returned message.
    Header(MessageId),
    /// A part of a returned message.
    Body,
    /// `connection.blocked`, or `channel.flow` with `active` false.
    Blocked(String),
    /// `connection.unblocked`.
    Unblocked,
    /// `channel.flow`: whether messages may be sent. To be answered.
    Flow(bool),
    /// `connection.close` or `channel.close`. To be answered.
    Close(CloseWords),
    /// Our own close is done.
    CloseOk,
    /// An answer of the handshake.
    Answer(AMQPClass),
}

impl Incoming {
    /// What it is called in the specification.
    pub(super) fn name(&self) -> String {
        let name = match self {
            Self::Heartbeat => "a heartbeat",
            Self::Start(_) => "connection.start",
            Self::Ack(..) => "basic.ack",
            Self::Nack(..) => "basic.nack",
            Self::Return(_) => "basic.return",
            Self::Header(_) => "a content header",
            Self::Body => "a content body",
            Self::Blocked(_) => "connection.blocked",
            Self::Unblocked => "connection.unblocked",
            Self::Flow(_) => "channel.flow",
            Self::Close(words) => return format!("a close ({} {})", words.code, words.text),
            Self::CloseOk => "a close-ok",
            Self::Answer(answer) => {
                let id = (answer.get_amqp_class_id(), answer.get_amqp_method_id());
                return format!("the method {}.{}", id.0, id.1);
            }
        };
        name.to_owned()
    }
}

/// What a broker says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Start {
    pub(super) product: String,
    pub(super) mechanisms: String,
    pub(super) publisher_confirms: bool,
}

/// Why a message came back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Returned {
    pub(super) code: u16,
    pub(super) text: String,
    pub(super) exchange: String,
    pub(super) key: String,
}

/// Why a channel or connection ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct CloseWords {
    pub(super) code: u16,
    pub(super) text: String,
    /// Class and method that are to blame; zeros when none is.
    pub(super) method: (u16, u16),
}

impl Raw<'_> {
    /// The channel, and what the frame says.
    ///
    /// # Errors
    ///
    /// In words, when a publisher is never sent that.
    pub(super) fn decode(self) -> Result<(u16, Incoming), String> {
        let incoming = match self.kind {
            METHOD => self.method()?,
            HEADER => Incoming::Header(self.returned_id().ok_or("a content header ends early")?),
            BODY => Incoming::Body,
            _ => Incoming::Heartbeat,
        };
        Ok((self.channel, incoming))
    }

    fn method(self) -> Result<Incoming, String> {
        let mut fields = Reader(self.payload);
        let id = fields.u16().zip(fields.u16()).ok_or("a method frame ends early")?;
        let early = || format!("the method {}.{} ends early", id.0, id.1);
        let mut read = || -> Option<Incoming> {
            Some(match id {
                (10, 10) => Incoming::Start(start(&mut fields)?),
                (10, 60) => Incoming::Blocked(fields.words()?),
                (10, 61) => Incoming::Unblocked,
                (10 | 20, 50 | 40) => Incoming::Close(CloseWords {
                    code: fields.u16()?,
                    text: fields.words()?,
                    method: (fields.u16()?, fields.u16()?),
                }),
                (10, 51) | (20, 41) => Incoming::CloseOk,
                (20, 20) => Incoming::Flow(fields.u8()? & 1 != 0),
                (CLASS_BASIC, 50) => Incoming::Return(Returned {
                    code: fields.u16()?,
                    text: fields.words()?,
                    exchange: fields.words()?,
                    key: fields.words()?,
                }),
                (CLASS_BASIC, 80) => Incoming::Ack(fields.u64()?, fields.u8()? & 1 != 0),
                (CLASS_BASIC, 120) => Incoming::Nack(fields.u64()?, fields.u8()? & 1 != 0),
                // Tune, the open-oks, exchange.declare-ok, confirm.select-ok: no tables, no text.
                _ => Incoming::Answer(parse_class(self.payload).ok()?.1),
            })
        };
        match id {
            (10, 10 | 30 | 41 | 50 | 51 | 60 | 61)
            | (20, 11 | 20 | 40 | 41)
            | (40 | 85, 11)
            | (CLASS_BASIC, 50 | 80 | 120) => read().ok_or_else(early),
            _ => Err(format!("it sends the method {}.{}, which no publisher expects", id.0, id.1)),
        }
    }

    /// The `message-id` in a content header: the properties before it are skipped.
    fn returned_id(self) -> Option<MessageId> {
        let mut fields = Reader(self.payload);
        let _class_and_weight = fields.u32()?;
        let _body_size = fields.u64()?;
        let flags = fields.u16()?;
        // From the highest bit: content-type, content-encoding, headers, delivery-mode, priority,
        // correlation-id, reply-to, expiration, message-id.
        for bit in (8..16).rev().filter(|bit| flags & (1 << bit) != 0) {
            match bit {
                13 => fields.long().map(drop),
                12 | 11 => fields.u8().map(drop),
                _ => fields.short().map(drop),
            }?;
        }
        let id = if flags & (1 << 7) == 0 { b"".as_slice() } else { fields.short()? };
        Some(MessageId::of(id))
    }
}

fn start(fields: &mut Reader<'_>) -> Option<Start> {
    let _version = fields.u16()?;
    let properties = fields.long()?;
    let mechanisms = String::from_utf8_lossy(fields.long()?).into_owned();
    let text = |name| match lookup(properties, name) {
        Some(Value::Text(text)) => String::from_utf8_lossy(text).into_owned(),
        _ => String::new(),
    };
    let publisher_confirms = match lookup(properties, "capabilities") {
        Some(Value::Table(table)) => lookup(table, "publisher_confirms") == Some(Value::Bool(true)),
        _ => false,
    };
    let product = format!("{} {}", text("product"), text("version")).trim().to_owned();
    Some(Start { product, mechanisms, publisher_confirms })
}

/// The frame of a method. Not for the ones sent per message.
///
/// # Errors
///
/// In words, when the codec refuses it: a short string over 255 bytes.
pub(super) fn encode(channel: u16, method: AMQPClass) -> Result<Vec<u8>, String> {
    gen_frame(&AMQPFrame::Method(channel, method))(Vec::new().into())
        .map(|written| written.into_inner().0)
        .map_err(|error| format!("a method cannot be encoded: {error:?}"))
}

#[cfg(test)]
mod tests {
    use amq_protocol::frame::AMQPContentHeader;
    use amq_protocol::protocol::{basic, channel, connection};
    use amq_protocol::types::{AMQPValue, FieldTable};
    use proptest::prelude::*;

    use super::*;

    fn encoded(frame: &AMQPFrame) -> Vec<u8> {
        gen_frame(frame)(Vec::new().into()).unwrap().into_inner().0
    }

    fn decoded(bytes: &[u8]) -> (u16, Incoming) {
        let (raw, len) = split(bytes, 131_072).unwrap().unwrap();
        assert_eq!(len, bytes.len());
        raw.decode().unwrap()
    }

    #[test]
    fn what_the_codec_writes_is_read_back() {
        let ack = basic::AMQPMethod::Ack(basic::Ack { delivery_tag: 7, multiple: true });
        let ack = encode(1, AMQPClass::Basic(ack)).unwrap();
        assert_eq!(decoded(&ack), (1, Incoming::Ack(7, true)));
        assert_eq!(decoded(HEARTBEAT_FRAME), (0, Incoming::Heartbeat));
        assert_eq!(encoded(&AMQPFrame::Heartbeat), HEARTBEAT_FRAME);
        let close = channel::Close {
            reply_code: 404,
            reply_text: "NOT_FOUND".into(),
            class_id: 60,
            method_id: 40,
        };
        let close = encode(1, AMQPClass::Channel(channel::AMQPMethod::Close(close))).unwrap();
        let words = CloseWords { code: 404, text: "NOT_FOUND".into(), method: (60, 40) };
        assert_eq!(decoded(&close), (1, Incoming::Close(words)));
    }

    #[test]
    fn the_id_of_a_returned_message_is_found_behind_every_property() {
        let mut headers = FieldTable::default();
        headers.insert("node".into(), AMQPValue::LongString("fs1".into()));
        let properties = basic::AMQPProperties::default()
            .with_content_type("application/json".into())
            .with_content_encoding("gzip".into())
            .with_headers(headers)
            .with_delivery_mode(2)
            .with_priority(1)
            .with_correlation_id("c".into())
            .with_reply_to("r".into())
            .with_expiration("e".into())
            .with_message_id("core-7".into())
            .with_timestamp(1);
        let header = AMQPContentHeader { class_id: 60, body_size: 9, properties };
        let header = encoded(&AMQPFrame::Header(1, header));
        assert_eq!(decoded(&header), (1, Incoming::Header(MessageId::of(b"core-7"))));
    }

    #[test]
    fn what_is_no_broker_is_named() {
        for (bytes, expected) in [
            (b"AMQP\x03\x01\0\0".as_slice(), "another version"),
            (b"HTTP/1.1 400 Bad Request", "web server"),
            (b"\x15\x03\x03\0\x02\x02F", "amqps"),
            (b"SSH-2.0-OpenSSH_9.2", "SSH-2.0"),
        ] {
            let words = split(bytes, 131_072).unwrap_err();
            assert!(words.contains(expected), "{words}");
        }
    }

    #[test]
    fn a_frame_beyond_the_limit_is_refused_by_its_head_alone() {
        let words = split(&[BODY, 0, 1, 0xff, 0xff, 0xff, 0xff], 131_072).unwrap_err();
        assert!(words.contains("4294967295"), "{words}");
        assert_eq!(split(&[BODY, 0, 1, 0, 1, 0xff, 0xf8], 131_072), Ok(None));
    }

    #[test]
    fn tables_nested_without_end_do_not_exhaust_the_stack() {
        let mut nested = Vec::new();
        for below in (0..20_000_u32).rev() {
            nested.extend_from_slice(b"\x01aF");
            nested.extend_from_slice(&(below * 7).to_be_bytes());
        }
        let mut payload = vec![0, 10, 0, 10, 0, 9];
        payload.extend_from_slice(&u32::try_from(nested.len()).unwrap().to_be_bytes());
        payload.extend_from_slice(&nested);
        payload.extend_from_slice(b"\0\0\0\x05PLAIN\0\0\0\x05en_US");
        let raw = Raw { kind: METHOD, channel: 0, payload: &payload };
        let Ok((0, Incoming::Start(start))) = raw.decode() else { panic!("not a start") };
        assert_eq!(start.mechanisms, "PLAIN");
        // The same in a method that only a client sends is not looked into.
        let declare = [&[0, 50, 0, 10, 0, 0, 0, 0][..], &payload[6..]].concat();
        let raw = Raw { kind: METHOD, channel: 1, payload: &declare };
        assert!(raw.decode().unwrap_err().contains("50.10"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn any_bytes_are_a_frame_or_words(
            kind in prop_oneof![Just(METHOD), Just(HEADER), any::<u8>()],
            ids in prop::option::of((prop_oneof![Just(10_u16), Just(20), Just(60)], 0_u16..121)),
            payload in prop::collection::vec(any::<u8>(), 0..120),
        ) {
            let mut content = Vec::new();
            if let Some((class, method)) = ids {
                content.extend_from_slice(&class.to_be_bytes());
                content.extend_from_slice(&method.to_be_bytes());
            }
            content.extend_from_slice(&payload);
            let mut bytes = vec![kind, 0, 1];
            bytes.extend_from_slice(&u32::try_from(content.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(&content);
            bytes.push(END);
            if let Ok(Some((raw, len))) = split(&bytes, 4096) {
                prop_assert_eq!(len, bytes.len());
                let _either = raw.decode();
            }
        }

        #[test]
        fn a_frame_cut_anywhere_waits_for_the_rest(cut in 0_usize..29) {
            let open = connection::AMQPMethod::Blocked(connection::Blocked { reason: "low on memory".into() });
            let bytes = encode(0, AMQPClass::Connection(open)).unwrap();
            let cut = cut.min(bytes.len() - 1);
            prop_assert_eq!(split(&bytes[..cut], 4096), Ok(None));
        }
    }
}
