// SPDX-License-Identifier: MIT
//! A publisher before a broker of the test's making: what its spool takes of each class, in which order it sends again, and what a
//! fault in the sink costs.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a helper of a test fails by panicking, and one does so on purpose"
)]

#[path = "support/folder.rs"]
mod folder;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use folder::Folder;
use mod_rustbridge::codec::Outgoing;
use mod_rustbridge::config::delivery::{ReconnectConfig, SpoolMode, WhenFull};
use mod_rustbridge::dead::{DeadLetters, Which};
use mod_rustbridge::event::{Class, EventNames, Record};
use mod_rustbridge::pipeline::{Pipeline, Settings, SinkState, SinkStatus, StoreSettings};
use mod_rustbridge::queue::{DropReason, Limits, Pool, Ring};
use mod_rustbridge::sink::{Interrupt, Outcome, Sink, SinkError};
use mod_rustbridge::spool::{Disk, Fsync, Spool, SpoolConfig};

const PATIENCE: Duration = Duration::from_secs(60);

const AWAY: u8 = 0;
const REJECTS: u8 = 1;
const CRASHES: u8 = 2;
const TAKES: u8 = 3;
/// Refuses the first six together, then takes what comes.
const NACKS: u8 = 4;
/// Brings the thread that opens it down, once.
const CRASHES_OPENING: u8 = 5;
/// Takes messages and never answers, until it is away.
const HOLDS: u8 = 6;
/// Asks for a pause.
const BLOCKS: u8 = 8;
/// Acknowledges the last message alone, and is away.
const ANSWERS_ONE: u8 = 7;

/// A broker that does with messages what it is told to at the moment.
struct Broker {
    does: Arc<AtomicU8>,
    taken: Vec<u64>,
    last: u64,
    blocked: Option<Instant>,
    /// Numbers of the messages in the order they came.
    order: Arc<Mutex<Vec<u64>>>,
    interrupt: Arc<Interrupt>,
    /// Numbers of events it has acknowledged, and those that gap records told.
    seen: Arc<Mutex<[BTreeSet<u64>; 2]>>,
    /// What gap records say of the reasons.
    reasons: Arc<Mutex<Vec<String>>>,
    /// What and why, by the gap records.
    told: Arc<Mutex<Vec<String>>>,
}

impl Sink for Broker {
    fn open(&mut self, _: Instant) -> Result<(), SinkError> {
        self.taken.clear();
        self.blocked = None;
        if self
            .does
            .compare_exchange(CRASHES_OPENING, TAKES, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
        {
            std::panic::panic_any("a fault on purpose");
        }
        if self.does.load(Ordering::SeqCst) == AWAY {
            let source = Error::from(ErrorKind::ConnectionRefused);
            return Err(SinkError::Disconnected { peer: self.peer(), source });
        }
        Ok(())
    }

    fn window(&self) -> usize {
        64
    }

    fn send(&mut self, tag: u64, message: &Outgoing<'_>) -> Result<(), SinkError> {
        let is_event = message.subclass().is_none();
        self.last = tag;
        match self.does.load(Ordering::SeqCst) {
            REJECTS if is_event => {
                Err(SinkError::Rejected { peer: self.peer(), reason: "not this one".into() })
            }
            CRASHES if is_event => std::panic::panic_any("a fault on purpose"),
            HOLDS => Ok(()),
            _ => {
                let mut seen = self.seen.lock().unwrap();
                let number = |name| {
                    let text = message.header(name).and_then(|text| str::from_utf8(text).ok());
                    text.and_then(|text| text.parse::<u64>().ok())
                };
                match number("Rustbridge-First-Seq").zip(number("Rustbridge-Last-Seq")) {
                    Some((first, last)) => {
                        seen[1].extend(first..=last);
                        let reasons = message.header("Rustbridge-Reasons").unwrap_or_default();
                        let reasons = String::from_utf8_lossy(reasons).into_owned();
                        self.reasons.lock().unwrap().push(reasons);
                        let words = ["Rustbridge-Events", "Rustbridge-Reasons"].map(|name| {
                            String::from_utf8_lossy(message.header(name).unwrap()).into_owned()
                        });
                        self.told.lock().unwrap().push(words.join(": "));
                    }
                    None => seen[0].extend([message.stamp.seq]),
                }
                self.taken.push(tag);
                self.order.lock().unwrap().push(message.stamp.seq);
                Ok(())
            }
        }
    }

    fn poll(&mut self, budget: Duration, outcomes: &mut Vec<Outcome>) -> Result<(), SinkError> {
        if self.does.load(Ordering::SeqCst) == AWAY {
            let source = Error::from(ErrorKind::ConnectionReset);
            return Err(SinkError::Disconnected { peer: self.peer(), source });
        }
        if self.does.load(Ordering::SeqCst) == BLOCKS {
            self.blocked.get_or_insert_with(Instant::now);
            self.interrupt.wait(budget);
            return Ok(());
        }
        if self.does.load(Ordering::SeqCst) == ANSWERS_ONE {
            outcomes.push(Outcome::Delivered(self.last));
            self.does.store(AWAY, Ordering::SeqCst);
            return Ok(());
        }
        if self.taken.is_empty() {
            self.interrupt.wait(budget);
        }
        if self.does.load(Ordering::SeqCst) == NACKS {
            if self.taken.len() < 6 {
                self.interrupt.wait(budget);
                return Ok(());
            }
            self.does.store(TAKES, Ordering::SeqCst);
            let nacked = self.taken.drain(..);
            outcomes.extend(nacked.map(|tag| Outcome::Nacked { tag, reason: "not now".into() }));
            return Ok(());
        }
        outcomes.extend(self.taken.drain(..).map(Outcome::Delivered));
        Ok(())
    }

    fn blocked_since(&self) -> Option<Instant> {
        self.blocked
    }

    fn close(&mut self, _: Instant) {}

    fn peer(&self) -> String {
        "broker".into()
    }

    fn write_key(&self, _: &Outgoing<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"a key of this sink");
    }
}

struct Bench {
    pipeline: Pipeline,
    ring: Arc<Ring>,
    does: Arc<AtomicU8>,
    order: Arc<Mutex<Vec<u64>>>,
    seen: Arc<Mutex<[BTreeSet<u64>; 2]>>,
    reasons: Arc<Mutex<Vec<String>>>,
    told: Arc<Mutex<Vec<String>>>,
}

/// Percent of queue and spool, by class.
const SHARES: [u8; 3] = [100, 80, 40];

fn start(does: u8, store: Option<StoreSettings>, dead_letters: Option<Arc<DeadLetters>>) -> Bench {
    let limits = Limits { events: 1024, bytes: 1 << 24, percent: SHARES, slack_percent: 0 };
    start_with(does, limits, store, dead_letters)
}

fn start_with(
    does: u8,
    limits: Limits,
    store: Option<StoreSettings>,
    dead_letters: Option<Arc<DeadLetters>>,
) -> Bench {
    start_in("B", None, does, limits, store, dead_letters)
}

/// In this boot, with a file for the note of the stream.
fn start_in(
    boot: &str,
    stream_file: Option<PathBuf>,
    does: u8,
    limits: Limits,
    store: Option<StoreSettings>,
    dead_letters: Option<Arc<DeadLetters>>,
) -> Bench {
    let when_full =
        if limits.slack_percent > 0 { WhenFull::DropOldest } else { WhenFull::DropNewest };
    let ring = Arc::new(Ring::new(limits, Arc::default()));
    let wait = Duration::from_millis(10);
    let settings = Settings {
        name: "out".into(),
        kind: "file",
        node: "fs1".into(),
        boot: boot.into(),
        names: Arc::new(EventNames::new(["CUSTOM", "DTMF"])),
        linger: Duration::from_millis(2),
        reconnect: ReconnectConfig {
            min: wait,
            max: wait,
            refused: wait,
            return_to_primary: Duration::ZERO,
        },
        open_timeout: PATIENCE,
        when_full,
        max_attempts: 3,
        store,
        dead_letters,
        dead_letter_destination: None,
        stream_file,
        prepare: || {},
    };
    let does = Arc::new(AtomicU8::new(does));
    let doing = Arc::clone(&does);
    let told = Arc::new(Mutex::default());
    let telling = Arc::clone(&told);
    let seen = Arc::new(Mutex::new([BTreeSet::new(), BTreeSet::new()]));
    let kept = Arc::clone(&seen);
    let pool = Arc::new(Pool::new(64, 8, 8192));
    let order = Arc::new(Mutex::default());
    let noted = Arc::clone(&order);
    let reasons = Arc::new(Mutex::default());
    let why = Arc::clone(&reasons);
    let make = move |interrupt| -> Box<dyn Sink> {
        Box::new(Broker {
            does: doing,
            taken: Vec::new(),
            last: 0,
            blocked: None,
            order: noted,
            interrupt,
            seen: kept,
            reasons: why,
            told: telling,
        })
    };
    let pipeline = Pipeline::start(settings, Arc::clone(&ring), pool, None, make).unwrap();
    Bench { pipeline, ring, does, order, seen, reasons, told }
}

impl Bench {
    fn offer(&self, class: Class, number: u64, size: usize) {
        let names = EventNames::new(["CUSTOM", "DTMF"]);
        let mut record = Record::default();
        record.begin(names.kind("DTMF").unwrap(), class, None);
        record.header(b"Event-Sequence", number.to_string().as_bytes());
        record.header(b"Filling", "x".repeat(size).as_bytes());
        self.ring.account().offered();
        // What has no room is counted by the ring.
        drop(self.ring.offer(Arc::new(record), class));
    }

    fn until(&self, what: &str, condition: impl Fn(&SinkStatus) -> bool) -> SinkStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.pipeline.status();
            if condition(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{what}: {status:#?}");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// An event that the callback has no room for.
    fn lose(&self) {
        self.ring.account().offered();
        let kind = EventNames::new(["CUSTOM", "DTMF"]).kind("DTMF").unwrap();
        self.ring.refuse(kind, DropReason::QueueFull);
    }

    fn stop(self) {
        self.stop_by(Instant::now() + PATIENCE);
    }

    fn stop_by(self, deadline: Instant) {
        self.pipeline.stop(deadline);
        self.pipeline.finish(Instant::now() + PATIENCE).unwrap();
    }

    /// Events that arrived and those that were told as missing, without repetitions.
    fn seen(&self) -> [Vec<u64>; 2] {
        self.seen.lock().unwrap().clone().map(|numbers| numbers.into_iter().collect())
    }
}

fn assert_balanced(status: &SinkStatus) {
    let account = &status.account;
    assert_eq!(
        account.offered + account.recovered,
        account.delivered + account.dropped_total() + account.dead + status.waiting,
        "{status:#?}"
    );
}

fn spool(dir: &Path) -> SpoolConfig {
    SpoolConfig {
        dir: dir.into(),
        segment_bytes: 64 * 1024,
        max_bytes: 4 << 20,
        min_free_bytes: 0,
        fsync: Fsync::Never,
    }
}

#[test]
fn a_spool_that_fills_takes_bulk_to_its_share_then_normal_to_its_and_critical_to_the_end() {
    let folder = Folder::new("shares");
    let config = spool(folder.path());
    let store = StoreSettings { config: config.clone(), mode: SpoolMode::Always };
    let bench = start(AWAY, Some(store), None);
    // A thousand times 4 KB would fill it; each class in turn, a few at a time.
    let mut offered = 0;
    let is_full =
        |status: &SinkStatus| status.spool.as_ref().is_some_and(|spool| spool.trouble.is_some());
    loop {
        for class in Class::ALL {
            bench.offer(class, offered, 4000);
            offered += 1;
        }
        let status = bench.until("the publisher to put them away", |status| {
            status.memory_bytes == 0 || is_full(status)
        });
        if is_full(&status) {
            break;
        }
        assert!(offered < 20_000, "it never fills");
    }
    let status = bench.pipeline.status();
    assert_balanced(&status);
    let dropped = status.account.dropped[DropReason::SpoolFull.index()];
    assert_eq!(dropped, status.account.dropped_total(), "{status:#?}");
    bench.stop();

    let (mut spool, _) = Spool::open(config, Arc::new(Disk::default())).unwrap();
    let mut stored = Vec::new();
    spool.read(usize::MAX, usize::MAX, &mut stored).unwrap();
    let mut count = [0_usize; 3];
    for record in &stored {
        count[usize::from(record.class)] += 1;
    }
    let all = stored.len();
    let [critical, normal, bulk] = count;
    // Three in turn to 40 %, two in turn to 80 %, one to the end; the batch in which a share runs out goes a little beyond.
    let near = |count: usize, percent: usize| count.abs_diff(all * percent / 100) * 100 < all * 6;
    assert!(near(bulk, 13), "bulk: {count:?}");
    assert!(near(normal, 33), "normal: {count:?}");
    assert!(near(critical, 53), "critical: {count:?}");
    // Not one of the last fifth is anything but critical.
    let cheap = stored.iter().rposition(|record| record.class != Class::Critical.number());
    assert!(cheap.is_some_and(|last| last * 100 < all * 86), "{cheap:?} of {all}");
}

#[test]
fn a_dead_letter_that_brings_the_sink_down_stays_a_dead_letter() {
    let folder = Folder::new("letters");
    let dead = Arc::new(DeadLetters::open(folder.path(), 1 << 20).0);
    let bench = start(REJECTS, None, Some(Arc::clone(&dead)));
    bench.offer(Class::Normal, 1, 10);
    let status = bench.until("the dead letter", |status| status.dead_letters == 1);
    assert_balanced(&status);
    assert_eq!(dead.list(0, 9)[0].key, "a key of this sink");

    bench.does.store(CRASHES, Ordering::SeqCst);
    assert_eq!(dead.ask_retry(Which::All).unwrap(), 1);
    let status = bench.until("three faults", |status| status.panics >= 3);
    assert_balanced(&status);
    bench.until("the letter to be given back", |_| dead.stats().retrying == 0);
    dead.flush();
    assert_eq!(dead.kept(), 1, "it is still there");

    bench.does.store(TAKES, Ordering::SeqCst);
    assert_eq!(dead.ask_retry(Which::All).unwrap(), 1);
    let status = bench.until("its delivery", |status| status.account.delivered == 1);
    assert_balanced(&status);
    bench.until("the letter to be taken out", |status| status.dead_letters == 0);
    bench.stop();
}

#[test]
fn what_was_refused_together_is_sent_again_in_order() {
    let bench = start(NACKS, None, None);
    (1..=6).for_each(|number| bench.offer(Class::Normal, number, 10));
    let status = bench.until("all to be delivered", |status| status.account.delivered == 6);
    assert_balanced(&status);
    assert_eq!(*bench.order.lock().unwrap(), [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6]);
    bench.stop();
}

#[test]
fn a_fault_while_connecting_is_one_more_failed_attempt() {
    let bench = start(CRASHES_OPENING, None, None);
    bench.offer(Class::Normal, 1, 10);
    let status = bench.until("the event to be delivered", |status| status.account.delivered == 1);
    assert_balanced(&status);
    bench.stop();
}

#[test]
fn what_was_sent_once_and_then_gives_way_is_told_as_missing() {
    let limits = Limits { events: 200, bytes: 1 << 24, percent: [100; 3], slack_percent: 10 };
    let bench = start_with(HOLDS, limits, None, None);
    for number in 1..=64 {
        bench.offer(Class::Normal, number, 10);
    }
    bench.until("a window full of messages without an answer", |status| status.in_flight == 64);
    bench.does.store(AWAY, Ordering::SeqCst);
    bench.until("the loss of the connection", |status| status.reconnects == 1);
    for number in 65..=300 {
        bench.offer(Class::Normal, number, 10);
        bench.until("room", |status| status.waiting <= 205);
    }
    bench.does.store(TAKES, Ordering::SeqCst);
    let status = bench.until("the rest to arrive", |status| {
        status.waiting == 0 && status.in_flight == 0 && status.account.gaps > 0
    });
    let lost = status.account.dropped_total();
    assert!(lost > 64, "{status:#?}");
    let [arrived, told] = bench.seen.lock().unwrap().clone();
    assert_eq!(told, (1..=lost).collect::<BTreeSet<u64>>());
    assert_eq!(arrived, (lost + 1..=300).collect::<BTreeSet<u64>>());
    bench.stop();
}

const WIDE: Limits = Limits { events: 1024, bytes: 1 << 24, percent: [100; 3], slack_percent: 0 };

fn overflow(dir: &Path) -> StoreSettings {
    let config = SpoolConfig { fsync: Fsync::Always, ..spool(dir) };
    StoreSettings { config, mode: SpoolMode::Overflow }
}

/// Leaves 1, 2, a gap record for 3, and 4 in flight when the connection breaks.
fn break_with_a_gap_in_flight(bench: &Bench) {
    (1..=2).for_each(|number| bench.offer(Class::Normal, number, 10));
    bench.lose();
    bench.offer(Class::Normal, 4, 10);
    bench.until("all of it to be in flight", |status| status.in_flight == 4);
    bench.does.store(AWAY, Ordering::SeqCst);
    bench.until("the loss of the connection", |status| status.reconnects == 1);
}

fn on_disk(status: &SinkStatus, records: u64) -> bool {
    status.memory_bytes == 0 && status.spool.as_ref().is_some_and(|it| it.records == records)
}

fn is_done(status: &SinkStatus, delivered: u64) -> bool {
    status.account.delivered == delivered && status.in_flight == 0 && status.waiting == 0
}

#[test]
fn a_gap_record_in_flight_when_the_connection_breaks_is_told_in_its_place() {
    let folder = Folder::new("gap-parked");
    let bench = start_with(HOLDS, WIDE, Some(overflow(folder.path())), None);
    break_with_a_gap_in_flight(&bench);
    bench.until("the events to be on disk", |status| on_disk(status, 3));
    bench.does.store(TAKES, Ordering::SeqCst);
    let status = bench.until("all to be delivered", |status| is_done(status, 3));
    assert_balanced(&status);
    assert_eq!(*bench.order.lock().unwrap(), [1, 2, 3, 4]);
    assert_eq!(bench.seen(), [vec![1, 2, 4], vec![3]]);
    assert_eq!(*bench.reasons.lock().unwrap(), ["queue-full=1"]);
    bench.stop();
}

#[test]
fn a_gap_record_in_flight_at_an_unload_is_told_after_the_next_load_in_this_boot_and_another() {
    for (spooled, boot) in [(true, "B"), (true, "C"), (false, "B"), (false, "C")] {
        let folder = Folder::new(&format!("gap-unloaded-{spooled}-{boot}"));
        let note = folder.join("streams").join("out");
        let store = || spooled.then(|| overflow(&folder.join("spool")));
        let bench = start_in("B", Some(note.clone()), HOLDS, WIDE, store(), None);
        break_with_a_gap_in_flight(&bench);
        // And one more at the end, with nothing behind it.
        bench.lose();
        bench.stop_by(Instant::now() + Duration::from_millis(100));
        let bench = start_in(boot, Some(note), TAKES, WIDE, store(), None);
        let told = if spooled { vec![3, 5] } else { vec![1, 2, 3, 4, 5] };
        bench.until("all that is missing to be told", |status| {
            bench.seen()[1] == told && status.in_flight == 0
        });
        assert_eq!(bench.seen()[0], if spooled { vec![1, 2, 4] } else { vec![] });
        let order = bench.order.lock().unwrap().clone();
        assert!(order.is_sorted(), "{order:?}");
        let reasons = bench.reasons.lock().unwrap().join(" ");
        assert_eq!(reasons.matches("queue-full=1").count(), 2, "{reasons}");
        bench.stop();
    }
}

#[test]
fn what_a_crash_takes_from_in_front_of_the_spool_is_told_in_the_next_boot() {
    let folder = Folder::new("hole");
    let note = folder.join("streams").join("out");
    let store = overflow(&folder.join("spool"));
    let bench = start_in("B", Some(note.clone()), HOLDS, WIDE, Some(store), None);
    (1..=3).for_each(|number| bench.offer(Class::Normal, number, 10));
    bench.until("these to be in flight", |status| status.in_flight == 3);
    bench.pipeline.pause();
    (4..=6).for_each(|number| bench.offer(Class::Normal, number, 10));
    bench.until("those to be on disk", |status| {
        status.spool.as_ref().is_some_and(|it| it.records == 3 && it.undurable_records == 0)
    });
    // What a crash at this moment leaves.
    let left = folder.join("left");
    std::fs::create_dir_all(&left).unwrap();
    for file in std::fs::read_dir(folder.join("spool")).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), left.join(file.file_name())).unwrap();
    }
    let noted = folder.join("note");
    std::fs::copy(&note, &noted).unwrap();

    // When they are acknowledged after all the note is taken back.
    bench.does.store(AWAY, Ordering::SeqCst);
    bench.until("the loss of the connection", |status| status.reconnects == 1);
    bench.does.store(TAKES, Ordering::SeqCst);
    bench.pipeline.resume();
    bench.until("all to be delivered", |status| status.account.delivered == 6);
    bench.until("the note to be taken back", |_| {
        !std::fs::read_to_string(&note).unwrap().contains("hole")
    });
    assert_eq!(bench.seen(), [vec![1, 2, 3, 4, 5, 6], vec![]]);
    bench.stop();

    let again = start_in("C", Some(noted), TAKES, WIDE, Some(overflow(&left)), None);
    let status = again.until("the rest to be delivered", |status| is_done(status, 3));
    assert_balanced(&status);
    assert_eq!(*again.order.lock().unwrap(), [3, 4, 5, 6]);
    assert_eq!(again.seen(), [vec![4, 5, 6], vec![1, 2, 3]]);
    assert_eq!(*again.reasons.lock().unwrap(), ["crash=3"]);
    again.stop();
}

#[test]
fn letters_are_not_taken_up_while_the_sink_is_paused() {
    let folder = Folder::new("paused-letters");
    let dead = Arc::new(DeadLetters::open(folder.path(), 1 << 20).0);
    let bench = start(REJECTS, None, Some(Arc::clone(&dead)));
    bench.offer(Class::Normal, 1, 10);
    bench.until("the dead letter", |status| status.dead_letters == 1);
    bench.pipeline.pause();
    bench.until("the pause", |status| status.state == SinkState::Paused);
    bench.does.store(TAKES, Ordering::SeqCst);
    assert_eq!(dead.ask_retry(Which::All).unwrap(), 1);
    // When the second is taken in, the round of the first is over, in which it could have.
    for number in [2, 3] {
        bench.offer(Class::Normal, number, 10);
        bench.until("it to be taken in", |_| !bench.ring.has_events());
    }
    assert_eq!(dead.stats().retrying, 0);
    bench.pipeline.resume();
    bench.until("all to be delivered", |status| status.account.delivered == 3);
    bench.stop();
}

#[test]
fn what_was_acknowledged_out_of_order_and_is_read_again_is_counted_again() {
    let folder = Folder::new("out-of-order");
    let bench = start_with(HOLDS, WIDE, Some(overflow(folder.path())), None);
    bench.offer(Class::Normal, 1, 10);
    bench.until("one in flight from memory", |status| status.in_flight == 1);
    bench.pipeline.pause();
    (2..=3).for_each(|number| bench.offer(Class::Normal, number, 10));
    bench.until("two on disk", |status| status.spool.as_ref().is_some_and(|it| it.records == 2));
    bench.pipeline.resume();
    bench.until("those in flight as well", |status| status.in_flight == 3);
    bench.does.store(ANSWERS_ONE, Ordering::SeqCst);
    bench.until("the loss of the connection", |status| status.reconnects == 1);
    let status = bench.until("all three to be on disk", |status| on_disk(status, 3));
    assert_eq!(status.account.delivered, 1);
    assert_balanced(&status);
    bench.does.store(TAKES, Ordering::SeqCst);
    let status = bench.until("all to be delivered", |status| is_done(status, 4));
    assert_balanced(&status);
    bench.stop();
}

#[test]
fn a_pause_that_the_broker_asks_for_counts_while_it_lasts_and_ends_with_the_connection() {
    let folder = Folder::new("blocked");
    let bench = start_with(BLOCKS, WIDE, Some(overflow(folder.path())), None);
    bench.until("the pause", |status| status.state == SinkState::Blocked);
    bench.until("its time to count", |status| !status.blocked.is_zero());
    bench.does.store(AWAY, Ordering::SeqCst);
    let before = bench.until("the loss of the connection", |status| status.reconnects == 1);
    bench.offer(Class::Normal, 1, 10);
    let status = bench.until("some time to pass", |status| on_disk(status, 1));
    assert_eq!(status.blocked, before.blocked);
    bench.stop();
}

/// Offers so many events and waits until they are out of memory.
fn put_away(bench: &Bench, numbers: std::ops::RangeInclusive<u64>, size: usize) {
    for number in numbers {
        bench.offer(Class::Normal, number, size);
        bench.until("the event to be put away", |status| status.memory_bytes == 0);
    }
}

#[test]
fn an_event_larger_than_the_spool_is_lost_alone() {
    let folder = Folder::new("oversize");
    let config = SpoolConfig { max_bytes: 128 << 10, ..spool(folder.path()) };
    let bench = start(AWAY, Some(StoreSettings { config, mode: SpoolMode::Always }), None);
    for (number, size) in [(1, 100), (2, 200_000), (3, 100)] {
        bench.offer(Class::Critical, number, size);
    }
    let status = bench.until("the others to be on disk", |status| status.memory_bytes == 0);
    assert_balanced(&status);
    assert_eq!(status.account.dropped[DropReason::Oversize.index()], 1, "{status:#?}");
    bench.does.store(TAKES, Ordering::SeqCst);
    bench.until("them to be delivered", |status| {
        status.account.delivered == 2 && status.account.gaps == 1
    });
    assert_eq!(*bench.order.lock().unwrap(), [1, 2, 3]);
    assert_eq!(*bench.told.lock().unwrap(), ["DTMF=1: oversize=1"]);
    bench.stop();
}

#[test]
fn what_gives_way_in_a_full_spool_is_told_by_its_kind() {
    let folder = Folder::new("oldest");
    let config = SpoolConfig { max_bytes: 2 << 20, ..spool(folder.path()) };
    let store = StoreSettings { config, mode: SpoolMode::Always };
    let limits = Limits { events: 1024, bytes: 1 << 24, percent: [100; 3], slack_percent: 10 };
    let bench = start_with(AWAY, limits, Some(store), None);
    put_away(&bench, 1..=800, 4000);
    let status = bench.pipeline.status();
    let lost = status.account.dropped[DropReason::SpoolFull.index()];
    assert_eq!(lost, status.account.dropped_total(), "{status:#?}");
    assert!((200..=700).contains(&lost), "{lost}");
    bench.does.store(TAKES, Ordering::SeqCst);
    bench.until("the rest to arrive", |status| status.waiting == 0 && status.account.gaps > 0);
    let [arrived, told] = bench.seen.lock().unwrap().clone();
    assert_eq!(told, (1..=lost).collect::<BTreeSet<u64>>());
    assert_eq!(arrived, (lost + 1..=800).collect::<BTreeSet<u64>>());
    assert_eq!(*bench.told.lock().unwrap(), [format!("DTMF={lost}: spool-full={lost}")]);
    bench.stop();
}

#[test]
fn what_is_damaged_on_disk_is_told_as_such() {
    let folder = Folder::new("damaged");
    let config = spool(folder.path());
    let store = StoreSettings { config, mode: SpoolMode::Always };
    let bench = start(AWAY, Some(store), None);
    put_away(&bench, 1..=10, 1000);
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "seg");
    let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let path = files.into_iter().find(is_segment).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[b'!'; 100], 5500).unwrap();
    bench.does.store(TAKES, Ordering::SeqCst);
    let status = bench.until("the rest to arrive", |status| {
        status.waiting == 0 && status.in_flight == 0 && status.account.gaps > 0
    });
    assert_balanced(&status);
    assert_eq!(status.account.dropped[DropReason::SpoolDamaged.index()], 1, "{status:#?}");
    assert_eq!(bench.seen.lock().unwrap()[0].len(), 9);
    assert_eq!(*bench.order.lock().unwrap(), (1..=10).collect::<Vec<u64>>());
    assert_eq!(*bench.told.lock().unwrap(), ["UNKNOWN=1: spool-damaged=1"]);
    bench.stop();
}

#[test]
fn a_spool_that_breaks_while_it_is_used_stops_no_event() {
    let folder = Folder::new("breaks");
    let dir = folder.path().join("spool");
    let has_trouble =
        |status: &SinkStatus| status.spool.as_ref().is_some_and(|spool| spool.trouble.is_some());
    let fsyncs = [Fsync::Never, Fsync::Always, Fsync::Interval(Duration::from_millis(10))];
    for fsync in fsyncs {
        let config = SpoolConfig { fsync, ..spool(&dir) };
        let bench = start(AWAY, Some(StoreSettings { config, mode: SpoolMode::Always }), None);
        put_away(&bench, 1..=10, 100);
        bench.until("them to be durable", |status| {
            status
                .spool
                .as_ref()
                .is_some_and(|spool| spool.records == 10 && spool.undurable_records == 0)
        });
        // There can be no folder again.
        fs::remove_dir_all(&dir).unwrap();
        fs::write(&dir, "an obstacle").unwrap();
        bench.until("the trouble", has_trouble);
        bench.does.store(TAKES, Ordering::SeqCst);
        bench.until("what is in the deleted file", |status| status.account.delivered == 10);
        for number in 11..=20 {
            bench.offer(Class::Normal, number, 100);
        }
        bench.until("events to go past the spool", |status| {
            let bypassed = status.spool.as_ref().map_or(0, |spool| spool.bypassed);
            status.account.delivered == 20 && bypassed == 10
        });
        fs::remove_file(&dir).unwrap();
        bench.until("the spool to work again", |status| !has_trouble(status));
        for number in 21..=30 {
            bench.offer(Class::Normal, number, 100);
        }
        let status = bench.until("the last", |status| status.account.delivered == 30);
        assert_balanced(&status);
        assert_eq!(status.account.dropped_total(), 0, "{status:#?}");
        assert_eq!(*bench.order.lock().unwrap(), (1..=30).collect::<Vec<u64>>(), "{fsync:?}");
        bench.stop();
        fs::remove_dir_all(&dir).unwrap();
    }
}
