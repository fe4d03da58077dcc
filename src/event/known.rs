// SPDX-License-Identifier: MIT
//! Names of headers that events usually have, so that a record can hold a number instead.
//!
//! Two thirds of a call event's bytes are names that every other event has too. A name in here
//! takes four bytes of a record together with the length of its value, and its JSON is a copy of
//! what was written down beforehand. What is stored on disk has the numbers too: so a name keeps
//! the one it has from release to release, and a new one goes to the end of the list.

mod usual;

use usual::NAMES;

/// A usual name.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its number, less than `1 << ID_BITS`.
    pub id: u16,
    /// Bytes in it.
    pub len: usize,
    /// It, a zero, and whatever follows.
    pub padded: &'static [u8; PADDED],
}

/// Bytes that hold any of the names and a zero.
pub const PADDED: usize = 64;

impl Known {
    /// The name.
    #[inline]
    pub fn name(&self) -> &'static [u8] {
        self.padded.get(..self.len).unwrap_or_default()
    }
}

/// Bits of a number. As the heads of entries are on disk, more of them are a new format of stored records.
pub(super) const ID_BITS: u32 = 10;

/// The name with this number.
#[inline]
pub(super) fn get(id: u16) -> Option<Known> {
    PLACES.get(usize::from(id)).and_then(|place| place.known())
}

/// The name with this number as JSON has it between two members whose values are strings,
/// `,"Name":"`, with whatever follows it up to [`JSON_PADDED`] bytes; and its length.
#[inline]
pub(crate) fn json(id: u16) -> Option<(&'static [u8; JSON_PADDED], usize)> {
    let place = PLACES.get(usize::from(id))?;
    let at = usize::from(place.at) + usize::from(id) * (AROUND - 1);
    let padded = JSON.get(at..)?.first_chunk()?;
    Some((padded, usize::from(place.len_id >> ID_BITS) + AROUND))
}

/// Bytes that hold any of the names as JSON has it.
pub(crate) const JSON_PADDED: usize = 96;

/// The only name that can have this hash. Whether it is the one that was meant takes a
/// comparison: other names have the same hash, which ignores letters' case.
///
/// The hash is `switch_ci_hashfunc_default`, which the core keeps in every header it makes.
#[inline]
pub fn candidate(hash: u32) -> Option<Known> {
    let mut slot = slot_of(hash);
    while let Some(&(found, place)) = BY_CORE_HASH.get(slot) {
        let known = place.known()?;
        if found == hash {
            return Some(known);
        }
        slot = (slot + 1) % SLOTS;
    }
    None
}

/// The number of a name that is in the list.
///
/// # Panics
///
/// At compile time, for which it is: when the name is not in the list.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "runs at compile time"
)]
pub(super) const fn number_of(name: &[u8]) -> u16 {
    let mut id = 0;
    while id < COUNT {
        let known = NAMES[id].as_bytes();
        let mut at = 0;
        while at < name.len() && at < known.len() && name[at] == known[at] {
            at += 1;
        }
        if at == name.len() && at == known.len() {
            return id as u16;
        }
        id += 1;
    }
    panic!("not a usual name")
}

/// What is known of this very name, of which `hash` is the [`hash_of`].
#[inline]
pub(super) fn find(name: &[u8], hash: u64) -> Option<Known> {
    let hash = short(hash);
    let mut slot = slot_of(hash);
    while let Some(&(found, place)) = BY_NAME.get(slot) {
        let known = place.known()?;
        if found == hash && known.name() == name {
            return Some(known);
        }
        slot = (slot + 1) % SLOTS;
    }
    None
}

/// A hash for names of headers: eight bytes at a time, no protection against chosen names, which
/// could at worst make one event slow to encode, on our thread.
#[inline]
#[expect(clippy::as_conversions, clippy::indexing_slicing, reason = "also runs at compile time")]
pub(super) const fn hash_of(name: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = name.len() as u64;
    let mut rest = name;
    while let Some((word, more)) = rest.split_first_chunk() {
        state = (state ^ u64::from_le_bytes(*word)).wrapping_mul(ODD).rotate_left(29);
        rest = more;
    }
    // The last bytes once more, or all of them when there are few: no byte at a time.
    let tail = match name.last_chunk() {
        Some(word) if !rest.is_empty() => u64::from_le_bytes(*word),
        _ => {
            let mut tail = 0;
            let mut position = 0;
            while position < rest.len() {
                tail = (tail << 8) | rest[position] as u64;
                position += 1;
            }
            tail
        }
    };
    (state ^ tail).wrapping_mul(ODD).rotate_left(29)
}

/// How many there are.
pub(super) const COUNT: usize = NAMES.len();
/// Few enough to stay in the nearest cache, twice as many as names.
const SLOTS: usize = 1024;

/// Where a name is: with the hash, all that is read before the name itself.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: u16,
    /// The length in the upper six bits, zero for no name; the number in the lower ten.
    len_id: u16,
}

impl Place {
    const NONE: Self = Self { at: 0, len_id: 0 };

    #[inline]
    fn known(self) -> Option<Known> {
        let len = usize::from(self.len_id >> ID_BITS);
        let padded = TEXT.get(usize::from(self.at)..)?.first_chunk()?;
        (len > 0).then_some(Known { id: self.len_id & ((1 << ID_BITS) - 1), len, padded })
    }
}

const TEXT_LEN: usize = text_len();
/// Every name, a zero behind each, and room for the last to be [`PADDED`].
static TEXT: [u8; TEXT_LEN] = text();
/// Bytes around a name in [`JSON`].
const AROUND: usize = 5;
const JSON_LEN: usize = TEXT_LEN - PADDED + COUNT * (AROUND - 1) + JSON_PADDED;
/// Every name as [`json`] gives it, and room for the last.
static JSON: [u8; JSON_LEN] = json_text();
static PLACES: [Place; COUNT] = places();
/// Each name by the core's hash of it; of names with the same hash, the first.
static BY_CORE_HASH: [(u32, Place); SLOTS] = table(true);
/// Each name by [`hash_of`].
static BY_NAME: [(u32, Place); SLOTS] = table(false);

#[inline]
#[expect(clippy::as_conversions, reason = "also runs at compile time")]
const fn slot_of(hash: u32) -> usize {
    (hash.wrapping_mul(0x9e37_79b1) >> 22) as usize
}

#[inline]
#[expect(clippy::as_conversions, reason = "also runs at compile time, and is meant to cut")]
const fn short(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[expect(clippy::indexing_slicing, reason = "runs at compile time")]
const fn text_len() -> usize {
    let mut len = PADDED;
    let mut id = 0;
    while id < COUNT {
        len += NAMES[id].len() + 1;
        id += 1;
    }
    len
}

#[expect(clippy::indexing_slicing, reason = "runs at compile time")]
const fn text() -> [u8; TEXT_LEN] {
    let mut text = [0; TEXT_LEN];
    let mut to = 0;
    let mut id = 0;
    while id < COUNT {
        let name = NAMES[id].as_bytes();
        let mut at = 0;
        while at < name.len() {
            // JSON takes these as they are.
            assert!(name[at] > b' ' && name[at] < 0x7f && name[at] != b'"' && name[at] != b'\\');
            text[to] = name[at];
            to += 1;
            at += 1;
        }
        to += 1;
        id += 1;
    }
    text
}

#[expect(clippy::indexing_slicing, reason = "runs at compile time")]
const fn json_text() -> [u8; JSON_LEN] {
    const fn append(text: &mut [u8; JSON_LEN], mut to: usize, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            text[to] = bytes[at];
            to += 1;
            at += 1;
        }
        to
    }
    let mut text = [0; JSON_LEN];
    let mut to = 0;
    let mut id = 0;
    while id < COUNT {
        to = append(&mut text, to, b",\"");
        to = append(&mut text, to, NAMES[id].as_bytes());
        to = append(&mut text, to, b"\":\"");
        id += 1;
    }
    text
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "runs at compile time, where what does not fit does not compile"
)]
const fn places() -> [Place; COUNT] {
    const { assert!(COUNT < 1 << ID_BITS && COUNT * 2 <= SLOTS && TEXT_LEN < 1 << 16) };
    let mut places = [Place::NONE; COUNT];
    let mut at = 0;
    let mut id = 0;
    while id < COUNT {
        let len = NAMES[id].len();
        assert!(0 < len && len < PADDED);
        places[id] = Place { at: at as u16, len_id: ((len << ID_BITS) | id) as u16 };
        at += len + 1;
        id += 1;
    }
    places
}

/// `switch_ci_hashfunc_default` (`switch_utils.c`).
#[expect(clippy::as_conversions, clippy::indexing_slicing, reason = "runs at compile time")]
const fn core_hash(name: &[u8]) -> u32 {
    let mut hash: u32 = 0;
    let mut at = 0;
    while at < name.len() {
        hash = hash.wrapping_mul(33).wrapping_add(name[at].to_ascii_lowercase() as u32);
        at += 1;
    }
    hash
}

#[expect(clippy::indexing_slicing, reason = "runs at compile time")]
const fn table(by_core_hash: bool) -> [(u32, Place); SLOTS] {
    let places = places();
    let mut slots = [(0, Place::NONE); SLOTS];
    let mut id = 0;
    while id < COUNT {
        let name = NAMES[id].as_bytes();
        let hash = if by_core_hash { core_hash(name) } else { short(hash_of(name)) };
        let mut slot = slot_of(hash);
        let mut same = false;
        while slots[slot].1.len_id != 0 && !same {
            same = by_core_hash && slots[slot].0 == hash;
            slot = (slot + 1) % SLOTS;
        }
        if !same {
            slots[slot] = (hash, places[id]);
        }
        id += 1;
    }
    slots
}

/// One line for each release that added names or changed a format: how many names there were with it, their checksum, the format of
/// stored records, and that of segments, which is raised with each, as it is what an earlier release goes by.
#[cfg(test)]
pub(crate) const RELEASES: &[(usize, u64, u8, u16)] = &[(466, 612_464_033, 2, 2)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_by_itself_and_no_other() {
        for (id, name) in NAMES.iter().enumerate() {
            let id = u16::try_from(id).unwrap();
            let found = find(name.as_bytes(), hash_of(name.as_bytes()));
            assert_eq!(found.map(|known| known.id), Some(id), "{name}");
            assert_eq!(get(id).unwrap().name(), name.as_bytes());
            let other = format!("{name}_");
            assert!(find(other.as_bytes(), hash_of(other.as_bytes())).is_none());
        }
    }

    #[test]
    fn the_cores_hash_leads_to_a_name_that_differs_in_case_at_most() {
        for name in NAMES {
            let known = candidate(core_hash(name.as_bytes())).unwrap();
            assert!(known.name().eq_ignore_ascii_case(name.as_bytes()), "{name}");
        }
        assert!(candidate(core_hash(b"variable_of_a_customer")).is_none());
    }

    #[test]
    fn names_are_listed_once() {
        let listed: std::collections::BTreeSet<_> = NAMES.iter().collect();
        assert_eq!(listed.len(), NAMES.len());
    }

    /// Spools and dead letters of earlier releases have these numbers.
    #[test]
    fn names_of_earlier_releases_keep_their_numbers() {
        for (count, checksum, ..) in RELEASES {
            let text = NAMES[..*count].join("\n");
            let found = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, text.as_bytes());
            assert_eq!(found, *checksum, "the first {count} are fixed; new ones go behind them");
        }
        assert!(RELEASES.is_sorted_by(|a, b| a.0 <= b.0 && a.2 <= b.2 && a.3 < b.3));
    }
}
