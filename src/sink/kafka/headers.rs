// SPDX-License-Identifier: MIT
//! The headers of a Kafka record. All values are text.

use rdkafka::message::{Header, OwnedHeaders, ToBytes};

use crate::codec::{Form, Outgoing};

/// The most headers that a message of [`Form::Event`] has.
const EVENT_HEADERS: usize = 11;

/// The headers of `message`. `id` is a buffer to write the message id in.
///
/// librdkafka allocates one block for the list and one for each header; they become the
/// producer's and are freed with the delivery report.
pub(super) fn headers(message: &Outgoing<'_>, id: &mut String) -> OwnedHeaders {
    id.clear();
    message.write_id(id);
    match message.form() {
        Form::Event => event_headers(message, id),
        Form::Publish => publish_headers(message, id),
    }
}

fn event_headers(message: &Outgoing<'_>, id: &str) -> OwnedHeaders {
    let mut number = itoa::Buffer::new();
    let mut headers = OwnedHeaders::new_with_capacity(EVENT_HEADERS);
    headers = add(headers, "content-type", "application/json");
    headers = add(headers, "message-id", id);
    headers = add(headers, "event-name", message.name());
    if let Some(subclass) = message.subclass() {
        headers = add(headers, "event-subclass", subclass);
    }
    if let Some(uuid) = message.unique_id() {
        headers = add(headers, "unique-id", uuid);
    }
    headers = add_stream(headers, message);
    if let Some(core) = message.header("Core-UUID") {
        headers = add(headers, "core-uuid", core);
    }
    if let Some(sequence) = message.event_sequence() {
        headers = add(headers, "event-sequence", number.format(sequence));
    }
    if let Some(timestamp) = message.timestamp_us() {
        headers = add(headers, "timestamp-us", number.format(timestamp));
    }
    headers
}

fn publish_headers(message: &Outgoing<'_>, id: &str) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(EVENT_HEADERS);
    let mut typed = false;
    for (name, value) in message.publish_headers() {
        // A header's name is text in Kafka. What is not would come out as something else.
        let Ok(name) = str::from_utf8(name) else { continue };
        typed |= name.eq_ignore_ascii_case("content-type");
        headers = add(headers, name, value);
    }
    if !typed {
        headers = add(headers, "content-type", "application/json");
    }
    // Behind the sender's: a consumer takes the last of a name.
    headers = add(headers, "message-id", id);
    add_stream(headers, message)
}

/// Where the message stands in the sink's stream.
fn add_stream(mut headers: OwnedHeaders, message: &Outgoing<'_>) -> OwnedHeaders {
    headers = add(headers, "node", message.node);
    headers = add(headers, "boot", message.boot);
    add(headers, "seq", itoa::Buffer::new().format(message.stamp.seq))
}

fn add<V: ToBytes + ?Sized>(headers: OwnedHeaders, key: &str, value: &V) -> OwnedHeaders {
    headers.insert(Header { key, value: Some(value) })
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;

    use super::*;
    use crate::codec::Stamp;
    use crate::event::{Class, EventKind, EventNames, Index, Record};

    fn of(record: &Record) -> Vec<(String, String)> {
        let names = EventNames::new(["CUSTOM"]);
        let mut index = Index::default();
        index.read(record);
        let message = Outgoing {
            stamp: Stamp { seq: 9911, reuse: 0 },
            node: "fs1",
            boot: "boot-1",
            record,
            index: &index,
            names: &names,
        };
        let headers = headers(&message, &mut String::new());
        headers
            .iter()
            .map(|header| {
                let value = String::from_utf8_lossy(header.value.unwrap());
                (header.key.to_owned(), value.into_owned())
            })
            .collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_event_has_all_headers_of_the_protocol_as_text() {
        let mut record = Record::default();
        record.begin(EventKind::new(0), Class::Normal, Some(b"sofia::register"));
        record.header(b"Core-UUID", b"core-1");
        record.header(b"Event-Sequence", b"44497");
        record.header(b"Event-Date-Timestamp", b"1633261501757401");
        record.header(b"Unique-ID", b"uuid-1");
        assert_eq!(
            of(&record),
            pairs(&[
                ("content-type", "application/json"),
                ("message-id", "core-1-44497"),
                ("event-name", "CUSTOM"),
                ("event-subclass", "sofia::register"),
                ("unique-id", "uuid-1"),
                ("node", "fs1"),
                ("boot", "boot-1"),
                ("seq", "9911"),
                ("core-uuid", "core-1"),
                ("event-sequence", "44497"),
                ("timestamp-us", "1633261501757401"),
            ])
        );
    }

    #[test]
    fn what_an_event_does_not_have_is_no_header() {
        let mut record = Record::default();
        record.begin(EventKind::new(0), Class::Normal, None);
        let names: Vec<String> = of(&record).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["content-type", "message-id", "event-name", "node", "boot", "seq"]);
    }

    #[test]
    fn a_published_message_keeps_its_senders_headers_and_cannot_fake_ours() {
        let mut record = Record::default();
        record.begin(EventKind::PUBLISH, Class::Normal, None);
        record.header(Outgoing::PUBLISH_KEY.as_bytes(), b"k");
        record.header(b"Content-Type", b"text/plain");
        record.header(b"seq", b"1");
        record.header(b"\xff", b"x");
        assert_eq!(
            of(&record),
            pairs(&[
                ("Content-Type", "text/plain"),
                ("seq", "1"),
                ("message-id", "boot-1-rb-9911"),
                ("node", "fs1"),
                ("boot", "boot-1"),
                ("seq", "9911"),
            ])
        );
    }
}
