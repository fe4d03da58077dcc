// SPDX-License-Identifier: MIT
//! The ring and the pool under real threads, four that offer and one that takes: afterwards every
//! event is accounted for. What loom can't try, the real queue underneath, is tried here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of a test stop it with a panic that says why"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use mod_rustbridge::event::{Class, EventKind, Index, Record};
use mod_rustbridge::queue::{Account, Admission, DropReason, Lane, Limits, Pool, Ring};

const PRODUCERS: u16 = 4;
const EVENTS: u64 = 50_000;

/// What the publisher saw.
#[derive(Debug, Default)]
struct Seen {
    /// Events of each producer.
    events: [u64; 4],
    missed: u64,
    kinds: [u64; 4],
    reasons: u64,
}

/// Says that a producer is done, by a panic too: the consumer must not wait for it then.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Offers as a dispatch thread does. Returns how many got in.
fn produce(number: u16, ring: &Ring, pool: &Pool) -> u64 {
    let mut accepted = 0;
    for event in 0..EVENTS {
        let kind = EventKind::new(number);
        let class = Class::ALL[usize::try_from(event % 3).unwrap()];
        if ring.admit(kind, class) == Admission::Full {
            continue;
        }
        let mut record = pool.take(Lane::ANY).expect("there is memory");
        let own = Arc::get_mut(&mut record).expect("a record from the pool is nobody else's");
        own.begin(kind, class, None);
        own.header(b"Event-Sequence", &event.to_le_bytes());
        match ring.offer(record, class) {
            Ok(()) => accepted += 1,
            Err(record) => pool.release(record),
        }
    }
    accepted
}

/// Takes as a publisher does, until the producers are done and the ring is empty.
fn consume(ring: &Ring, pool: &Pool, working: &AtomicUsize) -> Seen {
    let mut seen = Seen::default();
    let mut next = [0; 4];
    let mut index = Index::default();
    loop {
        // Looked at before the ring: what was put in by then is found.
        let is_last = working.load(Ordering::Acquire) == 0;
        while let Some(slot) = ring.take() {
            seen.missed += u64::from(slot.missed);
            let record: &Record = &slot.record;
            let producer = usize::from(record.kind().number());
            index.read(record);
            let event = index.get(record, b"Event-Sequence").unwrap();
            let event = u64::from_le_bytes(event.try_into().unwrap());
            assert!(event >= next[producer], "{event} of {producer} came late or twice");
            next[producer] = event + 1;
            seen.events[producer] += 1;
            let size = record.size();
            pool.release(slot.record);
            ring.release(size);
        }
        seen.missed += u64::from(ring.take_missed());
        let detail = ring.take_missed_detail();
        for (kind, count) in detail.kinds {
            seen.kinds[usize::from(kind.number())] += u64::from(count);
        }
        seen.reasons += detail.reasons.iter().map(|(_, count)| u64::from(*count)).sum::<u64>();
        pool.top_up();
        if is_last {
            return seen;
        }
        thread::yield_now();
    }
}

#[test]
fn four_threads_offer_and_every_event_is_delivered_or_counted() {
    let limits = Limits { events: 64, bytes: 1 << 20, percent: [100, 90, 50], slack_percent: 0 };
    let account = Arc::new(Account::default());
    let ring = Ring::new(limits, Arc::clone(&account));
    let pool = Pool::new(128, 32, 64);
    let working = AtomicUsize::new(usize::from(PRODUCERS));
    let (accepted, seen) = thread::scope(|scope| {
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|number| {
                let (ring, pool, working) = (&ring, &pool, &working);
                scope.spawn(move || {
                    let _done = Done(working);
                    produce(number, ring, pool)
                })
            })
            .collect();
        let seen = consume(&ring, &pool, &working);
        let accepted: Vec<u64> = producers.into_iter().map(|one| one.join().unwrap()).collect();
        (accepted, seen)
    });

    assert_eq!(seen.events.as_slice(), accepted, "what got in came out");
    let lost = accepted.iter().map(|accepted| EVENTS - accepted).collect::<Vec<_>>();
    let view = account.view();
    assert_eq!(view.dropped_total(), lost.iter().sum::<u64>());
    assert_eq!(view.dropped[DropReason::QueueFull.index()], view.dropped_total());
    assert_eq!(seen.missed, view.dropped_total(), "every loss was told once");
    assert_eq!(seen.kinds.as_slice(), lost, "under its kind");
    assert_eq!(seen.reasons, view.dropped_total(), "and with its reason");
    assert_eq!(ring.held(), (0, 0));
    assert!(ring.take().is_none());
    assert!(pool.ready() <= 128);
}
