// SPDX-License-Identifier: MIT
//! Says what became of generated events: which are lost, which came twice, whether the order within a key held and whether
//! the content is what was sent. It knows only what was generated and what an independent consumer got.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::clients::Message;
use super::switch::Delivered;

/// What was found, in the order of messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub generated: usize,
    /// Different generated events that arrived.
    pub received: usize,
    /// Gen-Seq of what never came.
    pub lost: Vec<u64>,
    /// How many messages more than one an event had, all events together.
    pub duplicates: usize,
    /// Keys whose first arrivals are not in the order they were fired.
    pub disordered: Vec<String>,
    /// Gen-Seq of what came with another content than it was sent with.
    pub damaged: Vec<u64>,
    /// Gen-Seq that nobody generated.
    pub unknown: Vec<u64>,
}

impl Verdict {
    /// Everything exactly once, in order, intact.
    pub fn assert_exact(&self) {
        self.assert_at_least_once();
        assert_eq!(self.duplicates, 0, "duplicates");
    }

    /// Everything, first arrivals in order, intact; repetitions allowed.
    pub fn assert_at_least_once(&self) {
        assert!(
            self.lost.is_empty(),
            "{} of {} lost: {}",
            self.lost.len(),
            self.generated,
            ranges(&self.lost)
        );
        self.assert_sound();
    }

    /// What came is in order and intact, whatever is missing.
    pub fn assert_sound(&self) {
        assert!(self.unknown.is_empty(), "never generated: {}", ranges(&self.unknown));
        assert!(self.damaged.is_empty(), "another content: {}", ranges(&self.damaged));
        assert!(self.disordered.is_empty(), "out of order within: {:?}", self.disordered);
    }
}

/// Compares what was generated with what arrived. Messages without Gen-Seq, which are the switch's own events, are left
/// out; the messages of one key must be given in the order they arrived.
pub fn judge<'a>(
    generated: &[Delivered],
    received: impl IntoIterator<Item = &'a Message>,
) -> Verdict {
    let sent: BTreeSet<u64> = generated.iter().flat_map(Delivered::sequences).collect();
    let mut verdict = Verdict { generated: sent.len(), ..Verdict::default() };
    let mut seen: BTreeSet<u64> = BTreeSet::new();
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut disordered: BTreeSet<String> = BTreeSet::new();
    for message in received {
        let event = message.json();
        let Some(sequence) = number(&event, "Gen-Seq") else { continue };
        if !sent.contains(&sequence) {
            verdict.unknown.push(sequence);
            continue;
        }
        if event.get("Gen-Hash").and_then(Value::as_str) != Some(&format!("{:016x}", hash(&event)))
        {
            verdict.damaged.push(sequence);
        }
        if !seen.insert(sequence) {
            verdict.duplicates += 1;
            continue;
        }
        let key = event.get("Gen-Key").and_then(Value::as_str).unwrap_or_default();
        let place = number(&event, "Gen-Key-Seq").unwrap_or_default();
        match last.get_mut(key) {
            Some(before) if *before >= place => {
                disordered.insert(key.into());
            }
            Some(before) => *before = place,
            None => {
                last.insert(key.into(), place);
            }
        }
    }
    verdict.received = seen.len();
    verdict.lost = sent.difference(&seen).copied().collect();
    verdict.disordered = disordered.into_iter().collect();
    verdict
}

fn number(event: &Map<String, Value>, name: &str) -> Option<u64> {
    event.get(name)?.as_str()?.parse().ok()
}

/// The same sum that `tests/host/generate.c` makes.
fn hash(event: &Map<String, Value>) -> u64 {
    let counted = |name: &str| {
        matches!(name, "Unique-ID" | "Gen-Seq" | "Gen-Key" | "Gen-Key-Seq")
            || name.starts_with("variable_")
    };
    let pairs = event.iter().filter(|(name, _)| counted(name));
    pairs.fold(0, |sum: u64, (name, value)| {
        let value = value.as_str().unwrap_or_default();
        let bytes = name.bytes().chain([0xff]).chain(value.bytes()).chain([0xff]);
        let one = bytes.fold(14_695_981_039_346_656_037, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(1_099_511_628_211)
        });
        sum.wrapping_add(one)
    })
}

/// Holes in a sequence that should be contiguous from `first`: what is missing between its first and its last, each number
/// once. Repetitions are allowed.
pub fn holes(first: u64, numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let seen: BTreeSet<u64> = numbers.into_iter().collect();
    let Some(&last) = seen.last() else { return Vec::new() };
    (first..=last).filter(|number| !seen.contains(number)).collect()
}

/// `1-4, 9, 12-13`, cut after the first twenty ranges.
pub fn ranges(numbers: &[u64]) -> String {
    let mut found: Vec<(u64, u64)> = Vec::new();
    for &number in numbers {
        match found.last_mut() {
            Some((_, to)) if *to + 1 == number => *to = number,
            _ => found.push((number, number)),
        }
    }
    let more = found.len().saturating_sub(20);
    let shown = found
        .iter()
        .take(20)
        .map(|(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") });
    let shown: Vec<String> = shown.collect();
    if more == 0 {
        shown.join(", ")
    } else {
        format!("{} and {more} ranges more", shown.join(", "))
    }
}
