// SPDX-License-Identifier: MIT
//! Every order in which dispatch threads and a publisher can meet at the ring and the pool, tried
//! by loom.
//!
//! `make races` builds and runs it.

#![cfg(loom)]
#![allow(dead_code, unreachable_pub, reason = "the sources of a module, of which this uses a part")]

mod queue;

use std::sync::Mutex;

use loom::sync::Arc;
use loom::thread;
use mod_rustbridge::event;

use event::{Class, EventKind, Record};
use queue::{Account, Admission, DropReason, Lane, Limits, Pool, Ring};

/// Tries every order in which no thread is interrupted more than three times: by experience of
/// loom's authors that finds what is to be found, in seconds rather than hours.
fn model(body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(body);
}

fn ring(events: usize) -> Arc<Ring> {
    let limits = Limits { events, bytes: 1 << 20, percent: [100; 3], slack_percent: 0 };
    Arc::new(Ring::new(limits, Arc::new(Account::default())))
}

/// An event that tells itself by its number.
fn event(number: u16) -> Arc<Record> {
    let mut record = Record::default();
    record.begin(EventKind::new(number), Class::Normal, Some(b"x"));
    Arc::new(record)
}

/// What a publisher sees: events by number, and gaps by how many are missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Seen {
    Gap(u32),
    Event(u16),
}

/// One look of a publisher at the ring, as `pipeline` takes it.
fn look(ring: &Ring, seen: &mut Vec<Seen>) {
    if let Some(slot) = ring.take() {
        if slot.missed > 0 {
            seen.push(Seen::Gap(slot.missed));
        }
        seen.push(Seen::Event(slot.record.kind().number()));
        ring.release(slot.record.size());
    } else {
        match ring.take_missed() {
            0 => {}
            missed => seen.push(Seen::Gap(missed)),
        }
    }
}

fn rest(ring: &Ring, seen: &mut Vec<Seen>) {
    loop {
        let before = seen.len();
        look(ring, seen);
        if seen.len() == before {
            return;
        }
    }
}

fn told(seen: &[Seen]) -> (u32, u32) {
    seen.iter().fold((0, 0), |(events, missed), seen| match seen {
        Seen::Gap(count) => (events, missed + count),
        Seen::Event(_) => (events + 1, missed),
    })
}

fn dropped(ring: &Ring) -> u32 {
    u32::try_from(ring.account().view().dropped_total()).unwrap()
}

#[test]
fn every_offer_ends_in_the_ring_or_in_a_counter_and_is_told_once() {
    model(|| {
        let ring = ring(1);
        let producers = [1, 2].map(|number| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.offer(event(number), Class::Normal).is_ok())
        });
        let mut seen = Vec::new();
        look(&ring, &mut seen);
        let accepted = producers.map(|producer| u32::from(producer.join().unwrap()));
        rest(&ring, &mut seen);
        let accepted: u32 = accepted.iter().sum();
        assert!(accepted >= 1, "two who meet must not both find it full");
        assert_eq!(told(&seen), (accepted, 2 - accepted));
        assert_eq!(dropped(&ring), 2 - accepted);
        assert_eq!(ring.held(), (0, 0));
        let detail = ring.take_missed_detail();
        let count = |counts: Vec<u32>| counts.iter().sum::<u32>();
        assert_eq!(count(detail.kinds.into_iter().map(|(_, n)| n).collect()), 2 - accepted);
        assert_eq!(count(detail.reasons.into_iter().map(|(_, n)| n).collect()), 2 - accepted);
    });
}

#[test]
fn a_loss_is_told_where_it_was() {
    model(|| {
        let ring = ring(1);
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || [1, 2, 3, 4].map(|n| ring.offer(event(n), Class::Normal).is_ok()))
        };
        let mut seen = Vec::new();
        for _ in 0..3 {
            look(&ring, &mut seen);
        }
        let accepted = producer.join().unwrap();
        rest(&ring, &mut seen);
        // One thread offers, so there is one right order, but for how losses are added up.
        let mut expected = Vec::new();
        for (number, accepted) in (1..).zip(accepted) {
            expected.push(if accepted { Seen::Event(number) } else { Seen::Gap(1) });
        }
        let seen: Vec<Seen> = seen
            .into_iter()
            .flat_map(|seen| match seen {
                Seen::Gap(count) => vec![Seen::Gap(1); usize::try_from(count).unwrap()],
                event @ Seen::Event(_) => vec![event],
            })
            .collect();
        assert_eq!(seen, expected);
        assert_eq!(ring.held(), (0, 0));
    });
}

#[test]
fn what_was_admitted_before_the_ring_closed_still_counts() {
    model(|| {
        let ring = ring(2);
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || match ring.admit(EventKind::new(1), Class::Normal) {
                Admission::Open => ring.offer(event(1), Class::Normal).is_ok(),
                Admission::Full => false,
            })
        };
        ring.close();
        let mut seen = Vec::new();
        look(&ring, &mut seen);
        let accepted = u32::from(producer.join().unwrap());
        rest(&ring, &mut seen);
        assert_eq!(told(&seen), (accepted, 1 - accepted));
        let closed = ring.account().view().dropped[DropReason::Closed.index()];
        assert_eq!(closed, u64::from(1 - accepted));
    });
}

#[test]
fn a_record_that_is_taken_is_nobody_elses() {
    model(|| {
        // Two sinks release their shares of one event while a dispatch thread takes a record.
        let pool = Arc::new(Pool::new(2, 1, 16));
        let mut record = pool.take(Lane::ANY).expect("there is memory");
        Arc::get_mut(&mut record).unwrap().begin(EventKind::new(7), Class::Normal, None);
        let shares = [Arc::clone(&record), record];
        let told = Arc::new(Mutex::new(Vec::new()));
        let sinks = shares.map(|record| {
            let (pool, told) = (Arc::clone(&pool), Arc::clone(&told));
            thread::spawn(move || {
                told.lock().unwrap().push(record.kind().number());
                pool.release(record);
            })
        });
        let mut taken = pool.take(Lane::ANY).expect("there is memory");
        let own = Arc::get_mut(&mut taken).expect("nobody else holds it");
        own.begin(EventKind::new(9), Class::Normal, None);
        for sink in sinks {
            sink.join().unwrap();
        }
        assert_eq!(*told.lock().unwrap(), [7, 7], "no sink saw another event in its record");
        assert_eq!(taken.kind().number(), 9);
        pool.release(taken);
        assert!(pool.ready() <= 2);
    });
}

#[test]
fn what_is_ready_becomes_large_enough_whoever_comes_between() {
    model(|| {
        let pool = Arc::new(Pool::new(4, 2, 16));
        let (small, mut grown) = (pool.take(Lane::ANY).unwrap(), pool.take(Lane::ANY).unwrap());
        Arc::get_mut(&mut grown).unwrap().header(b"name", &[b'x'; 100]);
        let size = grown.capacity();
        let others = [small, grown].map(|record| {
            let pool = Arc::clone(&pool);
            thread::spawn(move || {
                pool.release(record);
                pool.top_up();
            })
        });
        drop(pool.take(Lane::ANY));
        for other in others {
            other.join().unwrap();
        }
        pool.top_up();
        let ready: Vec<_> = (0..pool.ready()).map(|_| pool.take(Lane::ANY).unwrap()).collect();
        assert!(!ready.is_empty(), "there is a reserve");
        assert!(ready.iter().all(|record| record.capacity() >= size), "none has to grow");
    });
}
