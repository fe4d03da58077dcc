// SPDX-License-Identifier: MIT
//! Records that wait to be filled, so that a dispatch thread does not allocate.

use super::lane::Lane;
use super::shelf::Shelf;
use super::sync::{Arc, AtomicU64, AtomicUsize, CachePadded, Ordering};
use crate::event::Record;

/// Empty records with room for a typical event. Shared by all dispatch and publisher threads, none of which ever waits for
/// another here.
#[derive(Debug)]
pub struct Pool {
    /// These are small and go round while nothing is in the way: the same memory is used over and over, so a dispatch thread finds its
    /// pages and lines where it left them. One for each lane: threads that deliver at once have nothing to do with each other here.
    near: [CachePadded<Shelf>; Lane::COUNT],
    /// The rest, for everybody. There are several for who meets another at one.
    far: [CachePadded<Shelf>; FAR_SHELVES],
    reserve: usize,
    /// What a record holds without growing: as much as any that came back, up to a limit.
    record_bytes: AtomicUsize,
    /// What every ready record holds.
    all_hold: AtomicUsize,
    misses: AtomicU64,
}

const FAR_SHELVES: usize = 4;
/// Records of a lane that go round while nothing is in the way: what some milliseconds of events need.
const NEAR: usize = 64;
/// A record that grew beyond this is freed rather than kept: one huge event must not stay.
const KEEP_BYTES: usize = 64 * 1024;
/// What must be left when a record is made: more than its `Arc` takes.
const TRIAL_BYTES: usize = 1024;
/// Records up to this size are what all shall hold once one of them was needed.
const LEARN_BYTES: usize = 32 * 1024;
/// Ready records that are made larger in one round, so that a round stays short.
const ENLARGE: usize = 128;

impl Pool {
    /// A pool that keeps about `capacity` records, has `reserve` ready from the start and is topped up to that by
    /// [`top_up`](Self::top_up). Each holds `record_bytes` without growing; when events turn out to need more, fewer are kept.
    pub fn new(capacity: usize, reserve: usize, record_bytes: usize) -> Self {
        let capacity = capacity.max(1);
        let shelf = |room: usize| {
            CachePadded::new(Shelf::new(room, room.saturating_mul(record_bytes.max(1))))
        };
        // What goes round is a small part of the whole.
        let near = (capacity / (4 * Lane::COUNT)).clamp(1, NEAR);
        let pool = Self {
            near: std::array::from_fn(|_| shelf(near)),
            far: std::array::from_fn(|_| shelf(capacity.div_ceil(FAR_SHELVES))),
            reserve: reserve.min(capacity),
            record_bytes: AtomicUsize::new(record_bytes),
            all_hold: AtomicUsize::new(record_bytes),
            misses: AtomicU64::new(0),
        };
        pool.top_up();
        pool
    }

    /// A record nobody else holds, emptied or not. None when the pool has run dry and the system has no memory.
    ///
    /// Called by dispatch threads: allocates only when the pool has run dry, and counts that.
    #[inline]
    pub fn take(&self, lane: Lane) -> Option<Arc<Record>> {
        lane.pick(&self.near).take().or_else(|| self.take_from_others(lane))
    }

    fn take_from_others(&self, lane: Lane) -> Option<Arc<Record>> {
        let (front, back) = self.far.split_at(usize::from(lane.number()) % FAR_SHELVES);
        // What goes round for other lanes last of all: before the heap, though.
        let mut shelves = back.iter().chain(front).chain(&self.near);
        let ready = shelves.find_map(|shelf| shelf.take());
        if ready.is_some() {
            return ready;
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        self.another()
    }

    /// A new record. An allocation that fails ends the process, and that of an `Arc` cannot be tried: so its few bytes, and some
    /// more, are tried for on this thread just before, and given back for it.
    #[cold]
    fn another(&self) -> Option<Arc<Record>> {
        let record = Record::try_with_capacity(self.record_bytes.load(Ordering::Relaxed))?;
        let mut trial: Vec<u8> = Vec::new();
        trial.try_reserve_exact(TRIAL_BYTES).ok()?;
        drop(std::hint::black_box(trial));
        Some(Arc::new(record))
    }

    /// Gives a record back. Of several holders the last one's goes to the pool.
    pub fn release(&self, mut record: Arc<Record>) {
        // One that is cut says nothing of what events need, and its memory is needed elsewhere.
        let whole = Arc::get_mut(&mut record).filter(|record| !record.is_cut());
        let Some(capacity) = whole.map(|record| record.capacity()) else { return };
        let usual = self.record_bytes.load(Ordering::Relaxed);
        // Packed, or from before larger ones were needed: `top_up` makes what is missing.
        if capacity < usual {
            return;
        }
        if capacity > usual {
            // It had to grow.
            self.misses.fetch_add(1, Ordering::Relaxed);
            if capacity <= LEARN_BYTES {
                self.record_bytes.fetch_max(capacity, Ordering::Relaxed);
            }
        }
        if capacity <= KEEP_BYTES
            && let Err(record) = Lane::numbered(record.home()).pick(&self.near).give(record)
        {
            self.give(record);
        }
    }

    /// An empty record of so many bytes whose memory is there; none when the system has none left.
    pub fn fresh(record_bytes: usize) -> Option<Record> {
        let mut record = Record::try_with_capacity(record_bytes)?;
        record.touch();
        Some(record)
    }

    /// Puts a record down for everybody. Whether there was room: the surplus is freed here, by a publisher.
    fn give(&self, record: Arc<Record>) -> bool {
        let mut rest = Some(record);
        for shelf in &self.far {
            let Some(record) = rest.take() else { break };
            rest = shelf.give(record).err();
        }
        rest.is_none()
    }

    /// Allocates what is missing to the reserve, and makes ready records larger when events have
    /// become so: else each would have to grow once, in a callback. For publisher threads, once
    /// per round.
    pub fn top_up(&self) {
        self.top_up_by(Self::fresh);
    }

    /// The same with records from `fresh`, which is told how many bytes each is to hold.
    pub fn top_up_by(&self, fresh: impl Fn(usize) -> Option<Record>) {
        let record_bytes = self.record_bytes.load(Ordering::Relaxed);
        let fresh = || fresh(record_bytes);
        if self.all_hold.load(Ordering::Relaxed) < record_bytes {
            let mut count = ENLARGE;
            let mut is_done = true;
            for shelf in self.near.iter().chain(&self.far) {
                is_done &= shelf.enlarge(record_bytes, &mut count, fresh);
            }
            if is_done {
                self.all_hold.fetch_max(record_bytes, Ordering::Relaxed);
            }
        }
        for _ in self.ready()..self.reserve {
            // Without memory the reserve stays smaller.
            let Some(record) = fresh() else { break };
            if !self.give(Arc::new(record)) {
                break;
            }
        }
    }

    /// How many times a record had to be allocated or to grow because none that is large enough was ready.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// How many records are ready.
    pub fn ready(&self) -> usize {
        self.near.iter().chain(&self.far).map(|shelf| shelf.ready()).sum()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_only_when_its_last_holder_lets_go() {
        let pool = Pool::new(4, 1, 64);
        let record = pool.take(Lane::ANY).unwrap();
        let other = Arc::clone(&record);
        pool.release(record);
        assert_eq!(pool.ready(), 0);
        pool.release(other);
        assert_eq!(pool.ready(), 1);
        assert_eq!(pool.misses(), 0);
    }

    #[test]
    fn a_dry_pool_allocates_and_counts_it() {
        let pool = Pool::new(4, 1, 64);
        let held = [pool.take(Lane::ANY).unwrap(), pool.take(Lane::ANY).unwrap()];
        assert_eq!(pool.misses(), 1);
        for record in held {
            pool.release(record);
        }
        assert_eq!(pool.ready(), 2);
    }

    #[test]
    fn ready_records_become_as_large_as_those_that_had_to_grow() {
        let pool = Pool::new(400, 300, 64);
        let mut record = pool.take(Lane::ANY).unwrap();
        Arc::get_mut(&mut record).unwrap().header(b"name", &[b'x'; 1000]);
        let size = record.capacity();
        pool.release(record);
        for _ in 0..10 {
            pool.top_up();
        }
        let all: Vec<_> = (0..300).map(|_| pool.take(Lane::ANY).unwrap()).collect();
        assert!(all.iter().all(|record| record.capacity() >= size));
        assert_eq!(pool.misses(), 1, "the one that grew");
    }

    #[test]
    fn a_record_that_was_in_use_meanwhile_does_not_come_back_small() {
        let pool = Pool::new(40, 20, 64);
        let (mut record, in_use) = (pool.take(Lane::ANY).unwrap(), pool.take(Lane::ANY).unwrap());
        Arc::get_mut(&mut record).unwrap().header(b"name", &[b'x'; 1000]);
        let size = record.capacity();
        pool.release(record);
        pool.top_up();
        pool.release(in_use);
        pool.top_up();
        let all: Vec<_> = (0..20).map(|_| pool.take(Lane::ANY).unwrap()).collect();
        assert!(all.iter().all(|record| record.capacity() >= size));
    }

    #[test]
    fn a_record_that_grew_huge_is_not_kept() {
        let pool = Pool::new(4, 1, 64);
        let mut record = pool.take(Lane::ANY).unwrap();
        Arc::get_mut(&mut record).unwrap().header(b"name", &vec![b'x'; KEEP_BYTES + 1]);
        pool.release(record);
        assert_eq!(pool.ready(), 0);
    }

    #[test]
    fn all_ready_records_together_hold_no_more_than_they_did_at_first() {
        let pool = Pool::new(100, 0, 64);
        let held: Vec<_> = (0..100)
            .map(|_| {
                let mut record = pool.take(Lane::ANY).unwrap();
                Arc::get_mut(&mut record).unwrap().header(b"name", &[b'x'; 1000]);
                record
            })
            .collect();
        for record in held {
            pool.release(record);
        }
        assert!(pool.ready() > 0, "some are kept");
        let all: Vec<_> = (0..pool.ready()).map(|_| pool.take(Lane::ANY).unwrap()).collect();
        let bytes: usize = all.iter().map(|record| record.capacity()).sum();
        assert!(bytes <= 100 * 64 + 2000, "{bytes} bytes");
    }
}
