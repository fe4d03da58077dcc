// SPDX-License-Identifier: MIT
//! Which of several copies of a thing a thread uses, so that threads that deliver at once do not pull one cache line to and fro.

use super::sync::{AtomicUsize, Ordering, address_of_stack};

/// One of [`COUNT`](Self::COUNT) copies. Nothing depends on it but how fast it goes: a thread may come by any of them, and several
/// by the same one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lane(u8);

/// Who drives in which lane. A thread is known by where its stack is, which takes no system call and nothing that would have to be
/// kept for a thread. What a thread had that is gone, the next one on that stack has.
#[derive(Debug)]
pub struct Lanes([AtomicUsize; Lane::COUNT]);

/// As many bits of a number.
const BITS: u32 = 4;
/// What frames of one thread have in common of their addresses, mostly. Stacks are apart by more: the least that FreeSWITCH gives a
/// thread is 240 KiB (`SWITCH_THREAD_STACKSIZE`).
const NEAR_BITS: u32 = 16;
/// 2^64 divided by the golden ratio: neighbours come far apart.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Lane {
    /// How many there are.
    pub const COUNT: usize = 1 << BITS;

    /// The one for threads that come now and then.
    pub const ANY: Self = Self(0);

    /// The one of this number, whatever the number.
    #[inline]
    pub fn numbered(number: u8) -> Self {
        Self(number % (1 << BITS))
    }

    /// Its number, below [`COUNT`](Self::COUNT).
    #[inline]
    pub fn number(self) -> u8 {
        self.0
    }

    /// Its own of these.
    #[inline]
    pub fn pick<T>(self, copies: &[T; Self::COUNT]) -> &T {
        let [first, ..] = copies;
        copies.get(usize::from(self.0)).unwrap_or(first)
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicUsize::new(0)))
    }
}

impl Lanes {
    /// That of the calling thread: one that nobody else has, as long as there are any. For dispatch threads.
    #[inline]
    pub fn here(&self) -> Lane {
        self.of(address_of_stack() >> NEAR_BITS)
    }

    #[inline]
    fn of(&self, area: usize) -> Lane {
        let hash = u64::try_from(area).unwrap_or(0).wrapping_mul(SPREAD) >> (u64::BITS - BITS);
        let first = Lane::numbered(u8::try_from(hash).unwrap_or(0));
        if first.pick(&self.0).load(Ordering::Relaxed) == area {
            first
        } else {
            self.find(area, first)
        }
    }

    /// The lane that this one has or takes, from `first` on; `first` when others have all of them.
    fn find(&self, area: usize, first: Lane) -> Lane {
        let all = (0..1_u8 << BITS).map(|n| Lane::numbered(first.number().wrapping_add(n)));
        let mut found = all.filter(|lane| {
            let owner = lane.pick(&self.0);
            let none = owner.load(Ordering::Relaxed) == 0;
            let took = none
                && owner.compare_exchange(0, area, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            took || owner.load(Ordering::Relaxed) == area
        });
        found.next().unwrap_or(first)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn as_many_threads_as_there_are_lanes_have_one_each() {
        for size in [240 * 1024, 512 * 1024, 2 << 20, 8 << 20] {
            let lanes = Lanes::default();
            let area = |n: usize| (0x7f3a_1000_0000 + n * (size + 4096)) >> NEAR_BITS;
            let all: Vec<u8> = (0..Lane::COUNT).map(|n| lanes.of(area(n)).number()).collect();
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), Lane::COUNT, "{all:?}");
            let again: Vec<u8> = (0..Lane::COUNT).map(|n| lanes.of(area(n)).number()).collect();
            assert_eq!(all, again, "each stays in its own");
            lanes.of(area(Lane::COUNT));
        }
    }

    #[test]
    fn a_thread_stays_in_its_lane() {
        let lanes = Lanes::default();
        let first = lanes.here();
        assert_eq!(lanes.here(), first);
        assert_ne!(first.pick(&lanes.0).load(Ordering::Relaxed), 0, "nobody else takes it");
    }
}
