// SPDX-License-Identifier: MIT
//! What a sink's lists say of the subclasses of `CUSTOM`, remembered: a list of many patterns is gone through once for each subclass,
//! not once for each event.

use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::event::Class;

/// Subclasses remembered at a time. A switch has some dozens; those that share a place take turns.
const PLACES: usize = 128;
/// The bits of an entry that hold the answer; the others are the subclass's hash.
const ANSWER: u64 = 0b111;
const WANTED: u64 = 0b100;

/// Answers by subclass. Each is one word, so that threads need no more than to load and store it.
#[derive(Debug)]
pub(super) struct Remembered(Box<[AtomicU64]>);

impl Default for Remembered {
    fn default() -> Self {
        Self(std::iter::repeat_with(AtomicU64::default).take(PLACES).collect())
    }
}

/// By what a subclass is remembered. Two that share all 61 bits would be taken for one; of as many subclasses as the core has
/// room for, none do.
pub(super) fn hash(subclass: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(subclass);
    hasher.finish() & !ANSWER
}

impl Remembered {
    /// Whether events of the subclass are wanted and what they are worth: as remembered, or as `ask` says.
    ///
    /// For dispatch threads.
    pub(super) fn answer(&self, hash: u64, ask: impl FnOnce() -> (bool, Class)) -> (bool, Class) {
        let place = usize::try_from(hash >> 57).ok().and_then(|place| self.0.get(place));
        let known = place.map_or(0, |place| place.load(Ordering::Relaxed));
        // A hash of nothing but zeros looks like an empty place: it is never found, and asked for each time.
        if known & !ANSWER == hash && known != 0 && hash != 0 {
            let class = Class::from_number(u8::try_from(known & 0b11).unwrap_or_default());
            return (known & WANTED != 0, class);
        }
        let (wanted, class) = ask();
        if let Some(place) = place {
            let answer = u64::from(class.number()) | if wanted { WANTED } else { 0 };
            place.store(hash | answer, Ordering::Relaxed);
        }
        (wanted, class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subclass_is_asked_for_once_and_keeps_its_own_answer() {
        let remembered = Remembered::default();
        let names: Vec<String> = (0..40).map(|n| format!("subclass::{n}")).collect();
        let answer = |n: usize| (n.is_multiple_of(2), Class::ALL[n % 3]);
        let mut asked = 0;
        for _ in 0..3 {
            for (n, name) in names.iter().enumerate() {
                let said = remembered.answer(hash(name.as_bytes()), || {
                    asked += 1;
                    answer(n)
                });
                assert_eq!(said, answer(n), "{name}");
            }
        }
        // Those that share a place are asked for more often; they are few.
        assert!((40..80).contains(&asked), "{asked} questions");
    }
}
