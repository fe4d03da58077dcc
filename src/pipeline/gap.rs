// SPDX-License-Identifier: MIT
//! Loss, told in the stream.
//!
//! Every message that passed the filter has a number, also one that was lost. So a hole in the
//! numbers of what is sent is a loss, whatever caused it: a full queue, a full or damaged spool, an
//! older event that gave way. Before the message behind a hole goes out, a gap record does: it
//! carries the last missing number as its own and names the first, so that numbers stay contiguous
//! and a consumer sees exactly what is missing, and where.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::codec::{Outgoing, Stamp};
use crate::event::{Class, EventKind, EventNames, Record};
use crate::pipeline::item::{Item, Origin};
use crate::queue::{DropReason, Missed};

/// The subclass of gap records; the event is CUSTOM.
pub(super) const SUBCLASS: &str = "rustbridge::gap";

/// What is known of losses that no gap record has told yet.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Losses {
    kinds: BTreeMap<EventKind, u64>,
    reasons: BTreeMap<&'static str, u64>,
}

impl Losses {
    /// Adds one message that a publisher lost.
    pub(super) fn note(&mut self, kind: EventKind, reason: DropReason) {
        *self.kinds.entry(kind).or_default() += 1;
        *self.reasons.entry(reason.name()).or_default() += 1;
    }

    /// Adds so many that were lost before anyone saw what they are.
    pub(super) fn note_unseen(&mut self, count: u64, reason: DropReason) {
        if count > 0 {
            *self.reasons.entry(reason.name()).or_default() += count;
        }
    }

    /// Adds what dispatch threads noted.
    pub(super) fn note_missed(&mut self, missed: &Missed) {
        for (kind, count) in &missed.kinds {
            *self.kinds.entry(*kind).or_default() += u64::from(*count);
        }
        for (reason, count) in &missed.reasons {
            *self.reasons.entry(reason.name()).or_default() += u64::from(*count);
        }
    }
}

/// A run of missing messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Gap {
    /// The first missing number.
    pub(super) first: u64,
    /// The last.
    pub(super) last: u64,
    /// What they were and why they are missing, as far as it is known.
    pub(super) losses: Losses,
}

impl Gap {
    /// Of one message that became a dead letter.
    pub(super) fn dead(seq: u64, kind: EventKind) -> Self {
        let mut losses = Losses::default();
        losses.kinds.insert(kind, 1);
        losses.reasons.insert("dead-letter", 1);
        Self { first: seq, last: seq, losses }
    }

    /// Adds one message that was lost after it had been sent once, in the order of numbers.
    pub(super) fn note_late(late: &mut Vec<Self>, seq: u64, kind: EventKind, reason: DropReason) {
        if late.last().is_none_or(|last| last.last + 1 != seq) {
            late.push(Self { first: seq, last: seq, losses: Losses::default() });
        }
        if let Some(run) = late.last_mut() {
            run.last = seq;
            run.losses.note(kind, reason);
        }
    }

    /// The record that tells it, as a message of the stream.
    ///
    /// `boot` is the Core-UUID of the stream that has the gap.
    pub(super) fn into_item(self, names: &EventNames, boot: &Arc<str>, sink: &str) -> Item {
        let custom = names.kind("CUSTOM").unwrap_or(EventKind::UNKNOWN);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut record = Record::with_capacity(512);
        record.begin(custom, Class::Critical, Some(SUBCLASS.as_bytes()));
        let kinds = list(self.losses.kinds.iter().map(|(kind, count)| {
            let name = match *kind {
                EventKind::PUBLISH => "PUBLISH",
                kind => names.name(kind).unwrap_or("UNKNOWN"),
            };
            (name, *count)
        }));
        let reasons = list(self.losses.reasons.iter().map(|(reason, count)| (*reason, *count)));
        for (name, value) in [
            ("Event-Name", "CUSTOM"),
            ("Event-Subclass", SUBCLASS),
            ("Core-UUID", boot),
            ("Event-Date-Timestamp", &now.as_micros().to_string()),
            ("Rustbridge-Sink", sink),
            ("Rustbridge-First-Seq", &self.first.to_string()),
            ("Rustbridge-Last-Seq", &self.last.to_string()),
            ("Rustbridge-Missing", &(self.last - self.first + 1).to_string()),
            ("Rustbridge-Events", &kinds),
            ("Rustbridge-Reasons", &reasons),
            // Of its own: a message that was told as missing and comes after all, sent again from
            // the dead letters, must not be taken for this.
            (Outgoing::ID, &format!("{boot}-gap-{}-{}", self.first, self.last)),
        ] {
            record.header(name.as_bytes(), value.as_bytes());
        }
        Item {
            stamp: Stamp { seq: self.last, reuse: 0 },
            is_stamped: true,
            record: Arc::new(record),
            boot: Some(Arc::clone(boot)),
            attempts: 0,
            origin: Origin::Own,
        }
    }
}

/// `name=count` pairs.
fn list<'n>(pairs: impl Iterator<Item = (&'n str, u64)>) -> String {
    let mut out = String::new();
    for (name, count) in pairs {
        if !out.is_empty() {
            out.push(' ');
        }
        // Writing to a String cannot fail.
        let _infallible = write!(out, "{name}={count}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Index;

    #[test]
    fn a_gap_record_tells_numbers_kinds_and_reasons() {
        let mut losses = Losses::default();
        losses.note(EventKind::new(1), DropReason::QueueFull);
        losses.note(EventKind::new(2), DropReason::Outdated);
        let names = EventNames::new(["CUSTOM", "DTMF", "CODEC"]);
        let item = Gap { first: 4, last: 5, losses }.into_item(&names, &"boot".into(), "cdr");
        let mut index = Index::default();
        index.read(&item.record);
        let header = |name: &str| {
            String::from_utf8(index.get(&item.record, name.as_bytes()).unwrap().to_vec()).unwrap()
        };
        assert_eq!(item.stamp.seq, 5);
        assert_eq!(header("Rustbridge-First-Seq"), "4");
        assert_eq!(header(Outgoing::ID), "boot-gap-4-5");
        assert_eq!(header("Rustbridge-Missing"), "2");
        assert_eq!(header("Rustbridge-Events"), "DTMF=1 CODEC=1");
        assert_eq!(header("Rustbridge-Reasons"), "outdated=1 queue-full=1");
    }
}
