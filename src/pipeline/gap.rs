// SPDX-License-Identifier: MIT
//! Loss, told in the stream.
//!
//! Every message that passed the filter has a number, also one that was lost. So a hole in the
//! numbers of what is sent is a loss, whatever caused it: a full queue, a full or damaged spool, an
//! older event that gave way. Before the message behind a hole goes out, a gap record does: it
//! carries the last missing number as its own and names the first, so that numbers stay contiguous
//! and a consumer sees exactly what is missing, and where.

use std::collections::{BTreeMap, VecDeque};
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

    /// Adds so many messages of which nothing is left to tell what they were.
    pub(super) fn note_unknown(&mut self, count: u64, reason: DropReason) {
        if count > 0 {
            *self.kinds.entry(EventKind::UNKNOWN).or_default() += count;
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

    /// Messages that were in memory alone, perhaps, when the switch died.
    pub(super) fn of_crash(count: u64) -> Self {
        Self { reasons: BTreeMap::from([("crash", count)]), ..Self::default() }
    }

    /// Which events, and why: what a gap record says, and a note of it.
    pub(super) fn words(&self, names: &EventNames) -> [String; 2] {
        let kinds = self.kinds.iter().map(|(kind, count)| {
            let name = match *kind {
                EventKind::PUBLISH => "PUBLISH",
                kind => names.name(kind).unwrap_or("UNKNOWN"),
            };
            (name, *count)
        });
        [list(kinds), list(self.reasons.iter().map(|(reason, count)| (*reason, *count)))]
    }

    /// Reads one of these again, whichever it is. What is not understood is left out.
    pub(super) fn read_word(&mut self, word: &str, names: &EventNames) {
        let Some((name, count)) = word.split_once('=') else { return };
        let Ok(count) = count.parse::<u64>() else { return };
        let reasons = DropReason::ALL.iter().map(|reason| reason.name()).chain(OTHER_REASONS);
        if let Some(reason) = reasons.into_iter().find(|reason| *reason == name) {
            *self.reasons.entry(reason).or_default() += count;
            return;
        }
        let kind = match name {
            "PUBLISH" => EventKind::PUBLISH,
            name => names.kind(name).unwrap_or(EventKind::UNKNOWN),
        };
        *self.kinds.entry(kind).or_default() += count;
    }
}

/// Reasons that no counter of drops has.
const OTHER_REASONS: [&str; 2] = ["dead-letter", "crash"];

/// A run of missing messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Gap {
    /// The Core-UUID of the stream that has it.
    pub(super) boot: Arc<str>,
    /// The first missing number.
    pub(super) first: u64,
    /// The last.
    pub(super) last: u64,
    /// What they were and why they are missing, as far as it is known.
    pub(super) losses: Losses,
}

impl Gap {
    /// Of one message that became a dead letter.
    pub(super) fn dead(boot: Arc<str>, seq: u64, kind: EventKind) -> Self {
        let mut losses = Losses::default();
        losses.kinds.insert(kind, 1);
        losses.reasons.insert("dead-letter", 1);
        Self { boot, first: seq, last: seq, losses }
    }

    /// Where in `late` it belongs: behind those of earlier boots and those of lower numbers. The last boot is `present`.
    fn place(&self, late: &VecDeque<Self>, present: &str) -> usize {
        let is_before = |other: &Self| {
            if other.boot == self.boot { other.first < self.first } else { *other.boot != *present }
        };
        late.iter().rposition(is_before).map_or(0, |place| place + 1)
    }

    /// Puts it to those that are yet to be told.
    pub(super) fn owe(self, late: &mut VecDeque<Self>, present: &str) {
        late.insert(self.place(late, present), self);
    }

    /// Adds one message of the boot `present` that was lost after it had been sent once.
    pub(super) fn note_late(
        late: &mut VecDeque<Self>,
        present: &Arc<str>,
        seq: u64,
        kind: EventKind,
        reason: DropReason,
    ) {
        let mut losses = Losses::default();
        losses.note(kind, reason);
        let gap = Self { boot: Arc::clone(present), first: seq, last: seq, losses };
        let place = gap.place(late, present);
        let before = place.checked_sub(1).and_then(|before| late.get_mut(before));
        match before.filter(|before| before.boot == *present && before.last + 1 == seq) {
            Some(run) => {
                run.last = seq;
                run.losses.note(kind, reason);
            }
            None => late.insert(place, gap),
        }
    }

    /// The record that tells it, as a message of the stream.
    pub(super) fn into_item(self, names: &EventNames, sink: &str) -> Item {
        let boot = Arc::clone(&self.boot);
        let custom = names.kind("CUSTOM").unwrap_or(EventKind::UNKNOWN);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut record = Record::with_capacity(512);
        record.begin(custom, Class::Critical, Some(SUBCLASS.as_bytes()));
        let [kinds, reasons] = self.losses.words(names);
        for (name, value) in [
            ("Event-Name", "CUSTOM"),
            ("Event-Subclass", SUBCLASS),
            ("Core-UUID", &*boot),
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
            boot: Some(boot),
            attempts: 0,
            origin: Origin::Gap(Box::new(self)),
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
        let item = Gap { boot: "boot".into(), first: 4, last: 5, losses }.into_item(&names, "cdr");
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

    #[test]
    fn what_is_yet_to_be_told_is_in_the_order_of_boots_and_numbers() {
        let present: Arc<str> = "now".into();
        let mut late = VecDeque::new();
        for seq in [7, 8, 3, 4, 9] {
            let kind = EventKind::new(1);
            Gap::note_late(&mut late, &present, seq, kind, DropReason::Outdated);
        }
        Gap::dead("old".into(), 50, EventKind::new(1)).owe(&mut late, &present);
        Gap::dead("old".into(), 40, EventKind::new(1)).owe(&mut late, &present);
        let runs: Vec<_> = late.iter().map(|gap| (&*gap.boot, gap.first, gap.last)).collect();
        assert_eq!(runs, [("old", 40, 40), ("old", 50, 50), ("now", 3, 4), ("now", 7, 9)]);
    }
}
