// SPDX-License-Identifier: MIT
//! One call (a channel, in FreeSWITCH's words), its line, and the event that tells of its end.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::SUBCLASS;
use crate::codec::Outgoing;
use crate::event::{Class, EventKind, EventNames, Record};
use crate::lines::{number, push_number, push_text, text};

/// What is kept of a call.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Call {
    /// In the order of [`TEXTS`].
    texts: [Box<str>; TEXTS.len()],
    /// When it was created, in microseconds since 1970.
    pub created_us: u64,
    /// When it was answered; zero before that.
    pub answered_us: u64,
    /// `Event-Sequence` of the last event that was seen of it.
    pub seq: u64,
    /// Whether everything about it was seen since it was created.
    pub confirmed: bool,
}

/// Members of the line, and the headers that they come from and go to.
const TEXTS: [(&str, &str); 9] = [
    ("call", "Channel-Call-UUID"),
    ("name", "Channel-Name"),
    ("direction", "Call-Direction"),
    ("caller_name", "Caller-Caller-ID-Name"),
    ("caller", "Caller-Caller-ID-Number"),
    ("callee", "Caller-Callee-ID-Number"),
    ("destination", "Caller-Destination-Number"),
    ("context", "Caller-Context"),
    ("address", "Caller-Network-Addr"),
];

/// The longest text kept of a header: a name that someone chose must not fill the disk.
const TEXT_MAX: usize = 255;

impl Call {
    /// What an event says of its call.
    pub(super) fn of(message: &Outgoing<'_>) -> Self {
        let number = |name: &str| {
            let value = str::from_utf8(message.header(name).unwrap_or_default()).ok();
            value.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        let created = match number("Caller-Channel-Created-Time") {
            0 => message.timestamp_us().unwrap_or(0),
            created => created,
        };
        Self {
            texts: TEXTS.map(|(_, header)| {
                let value = message.header(header).unwrap_or_default();
                let value = value.get(..TEXT_MAX).unwrap_or(value);
                String::from_utf8_lossy(value).into()
            }),
            created_us: created,
            answered_us: number("Caller-Channel-Answered-Time"),
            seq: message.event_sequence().unwrap_or(0),
            confirmed: true,
        }
    }

    /// Appends the members of its line.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for ((name, _), value) in TEXTS.iter().zip(&self.texts) {
            if !value.is_empty() {
                push_text(out, name, value.as_bytes());
            }
        }
        for (name, value) in
            [("created", self.created_us), ("answered", self.answered_us), ("seq", self.seq)]
        {
            if value > 0 {
                push_number(out, name, value);
            }
        }
        if !self.confirmed {
            out.extend_from_slice(b",\"confirmed\":false");
        }
    }

    pub(super) fn read(line: &Value) -> Self {
        Self {
            texts: TEXTS.map(|(name, _)| text(line, name).into()),
            created_us: number(line, "created"),
            answered_us: number(line, "answered"),
            seq: number(line, "seq"),
            confirmed: line.get("confirmed") != Some(&Value::Bool(false)),
        }
    }

    /// Fills `record` with the event that tells of the end of this call, `uuid` of the boot `old`, in the
    /// boot `now`.
    pub(super) fn tell(
        &self,
        uuid: &str,
        old: &str,
        now: &str,
        names: &EventNames,
        record: &mut Record,
    ) {
        let kind = names.kind("CUSTOM").unwrap_or(EventKind::UNKNOWN);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        record.begin(kind, Class::Critical, Some(SUBCLASS.as_bytes()));
        let mut header = |name: &str, value: &str| {
            if !value.is_empty() {
                record.header(name.as_bytes(), value.as_bytes());
            }
        };
        header("Event-Name", "CUSTOM");
        header("Event-Subclass", SUBCLASS);
        header("Core-UUID", old);
        header("Event-Date-Timestamp", &time.as_micros().to_string());
        header("Unique-ID", uuid);
        for ((_, name), value) in TEXTS.iter().zip(&self.texts) {
            header(name, value);
        }
        header("Caller-Unique-ID", uuid);
        header("Rustbridge-Created-us", &self.created_us.to_string());
        header("Rustbridge-Answered-us", &self.answered_us.to_string());
        header("Rustbridge-Last-Event-Sequence", &self.seq.to_string());
        header("Rustbridge-Confirmed", if self.confirmed { "true" } else { "false" });
        header("Rustbridge-Old-Boot", old);
        header("Rustbridge-Boot", now);
        header(Outgoing::ID, &format!("{old}-orphan-{uuid}"));
    }
}
