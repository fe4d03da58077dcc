// SPDX-License-Identifier: MIT
//! Telling a second event that carries the id of an earlier one.

/// Remembers the `Event-Sequence` numbers of the last events of one stream.
///
/// FreeSWITCH fires some events again under another type without preparing them anew
/// (`RECV_MESSAGE`, the `event` application): two messages then have the same `Core-UUID` and
/// `Event-Sequence`. A consumer that de-duplicates by id would throw the second away, so its id
/// gets a suffix. Numbers come nearly in order, so a table indexed by their low bits suffices.
#[derive(Debug)]
pub struct RecentIds {
    seen: Vec<Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    sequence: u64,
    times: u8,
}

impl Default for RecentIds {
    fn default() -> Self {
        Self::new()
    }
}

impl RecentIds {
    /// How many numbers are remembered: some seconds at the highest rates, 256 KiB.
    const REMEMBERED: usize = 1 << 14;

    /// Nothing seen yet.
    pub fn new() -> Self {
        Self { seen: vec![Seen::default(); Self::REMEMBERED] }
    }

    /// How often `sequence` was noted before, as far as is remembered.
    pub fn note(&mut self, sequence: u64) -> u8 {
        let slot = usize::try_from(sequence).unwrap_or(0) & (Self::REMEMBERED - 1);
        let Some(seen) = self.seen.get_mut(slot) else { return 0 };
        if seen.times > 0 && seen.sequence == sequence {
            let before = seen.times;
            seen.times = before.saturating_add(1);
            return before;
        }
        *seen = Seen { sequence, times: 1 };
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_seen_again_says_how_often() {
        let mut ids = RecentIds::new();
        assert_eq!([ids.note(7), ids.note(8), ids.note(7), ids.note(7)], [0, 0, 1, 2]);
        assert_eq!(ids.note(0), 0);
        assert_eq!(ids.note(0), 1);
    }
}
