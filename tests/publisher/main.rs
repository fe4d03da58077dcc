// SPDX-License-Identifier: MIT
//! A publisher before a broker of the test's making: what its spool takes of each class, in which order it sends again, and what a
//! fault in the sink costs.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a helper of a test fails by panicking, and one does so on purpose"
)]

#[path = "../support/folder.rs"]
mod folder;
mod looking;
mod returning;
mod telling;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use folder::Folder;
use mod_rustbridge::codec::Outgoing;
use mod_rustbridge::config::delivery::{ReconnectConfig, SpoolMode, WhenFull};
use mod_rustbridge::dead::{DeadLetters, Which};
use mod_rustbridge::event::{Class, EventNames, Record};
use mod_rustbridge::pipeline::{
    LATENCY_BELIEVED, Pipeline, Settings, SinkState, SinkStatus, StoreSettings,
};
use mod_rustbridge::queue::{DropReason, Lane, Limits, Pool, Ring};
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
const BLOCKS: u8 = 10;
/// Acknowledges the last message alone, and is away.
const ANSWERS_ONE: u8 = 11;
/// Nacks the first message alone, then holds the others.
const NACKS_FIRST: u8 = 12;
/// Acknowledges the second and the third, then takes what comes.
const ANSWERS_TWO: u8 = 13;
/// Lets nobody in.
const REFUSES: u8 = 7;
/// Lets everybody in and refuses what is sent.
const REFUSES_MESSAGES: u8 = 8;
/// Acknowledges what came before the last message; that one when no other has come for a while.
const LAGS: u8 = 9;

/// How many messages the broker takes without an answer.
const WINDOW: usize = 64;

/// What the log was told.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LOG.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

/// How many lines of a sink in the log have these words.
fn lines(sink: &str, words: &str) -> usize {
    let log = LOG.lock().unwrap();
    let sink = format!("[{sink}] ");
    log.iter().filter(|line| line.starts_with(&sink) && line.contains(words)).count()
}

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
    /// What and why, by the gap records.
    told: Arc<Mutex<Vec<String>>>,
    opened: Arc<AtomicU64>,
    /// It is the one to be preferred.
    is_primary: Arc<AtomicBool>,
    /// How often nothing new had come.
    quiet: u32,
}

impl Broker {
    fn refused(&self, reason: &str) -> SinkError {
        SinkError::Refused { peer: self.peer(), reason: reason.into() }
    }
}

impl Sink for Broker {
    fn open(&mut self, _: Instant) -> Result<(), SinkError> {
        self.taken.clear();
        self.blocked = None;
        self.opened.fetch_add(1, Ordering::SeqCst);
        if self.does.load(Ordering::SeqCst) == REFUSES {
            return Err(self.refused("wrong password"));
        }
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
        WINDOW
    }

    fn reserve(&self) -> usize {
        WINDOW
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
                        let words = ["Rustbridge-Events", "Rustbridge-Reasons"].map(|name| {
                            String::from_utf8_lossy(message.header(name).unwrap()).into_owned()
                        });
                        self.told.lock().unwrap().push(words.join(": "));
                    }
                    None => seen[0].extend([message.stamp.seq]),
                }
                self.taken.push(tag);
                self.quiet = 0;
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
        self.blocked = None;
        if self.does.load(Ordering::SeqCst) == ANSWERS_ONE {
            outcomes.push(Outcome::Delivered(self.last));
            self.does.store(AWAY, Ordering::SeqCst);
            return Ok(());
        }
        let turns = |from, to| {
            self.does.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        };
        if turns(NACKS_FIRST, HOLDS) {
            outcomes.push(Outcome::Nacked { tag: 0, reason: "not now".into() });
            return Ok(());
        }
        if turns(ANSWERS_TWO, TAKES) {
            outcomes.extend([1, 2].map(Outcome::Delivered));
            return Ok(());
        }
        if self.taken.is_empty() {
            self.interrupt.wait(budget);
        }
        match self.does.load(Ordering::SeqCst) {
            REFUSES_MESSAGES if !self.taken.is_empty() => {
                return Err(self.refused("no permission to write"));
            }
            LAGS => {
                self.interrupt.wait(budget.max(Duration::from_millis(1)));
                self.quiet += 1;
                let kept = usize::from(self.quiet < 20);
                let told = self.taken.len().saturating_sub(kept);
                outcomes.extend(self.taken.drain(..told).map(Outcome::Delivered));
                return Ok(());
            }
            _ => {}
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

    fn is_on_primary(&self) -> bool {
        self.is_primary.load(Ordering::SeqCst)
    }

    fn return_to_primary(&mut self) {
        self.is_primary.store(true, Ordering::SeqCst);
    }
}

struct Bench {
    pipeline: Pipeline,
    ring: Arc<Ring>,
    does: Arc<AtomicU8>,
    order: Arc<Mutex<Vec<u64>>>,
    seen: Arc<Mutex<[BTreeSet<u64>; 2]>>,
    told: Arc<Mutex<Vec<String>>>,
    opened: Arc<AtomicU64>,
    is_primary: Arc<AtomicBool>,
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
    start_as(does, limits, store, dead_letters, |_| {})
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
    start_as(does, limits, store, dead_letters, |settings| {
        settings.boot = boot.into();
        settings.stream_file = stream_file;
    })
}

fn start_as(
    does: u8,
    limits: Limits,
    store: Option<StoreSettings>,
    dead_letters: Option<Arc<DeadLetters>>,
    change: impl FnOnce(&mut Settings),
) -> Bench {
    // The first test of the process sets it.
    if log::set_logger(&Log).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
    let when_full =
        if limits.slack_percent > 0 { WhenFull::DropOldest } else { WhenFull::DropNewest };
    let ring = Arc::new(Ring::new(limits, Arc::default()));
    let wait = Duration::from_millis(10);
    let mut settings = Settings {
        name: "out".into(),
        kind: "file",
        node: "fs1".into(),
        boot: "B".into(),
        names: Arc::new(EventNames::new(["CUSTOM", "DTMF"])),
        linger: Duration::from_millis(2),
        reconnect: ReconnectConfig {
            min: wait,
            max: wait,
            refused: wait,
            return_to_primary: Duration::ZERO,
        },
        open_timeout: PATIENCE,
        latency_believed: LATENCY_BELIEVED,
        when_full,
        max_attempts: 3,
        store,
        dead_letters,
        dead_letter_destination: None,
        stream_file: None,
        prepare: || {},
        set_patience: |_| false,
    };
    change(&mut settings);
    let does = Arc::new(AtomicU8::new(does));
    let doing = Arc::clone(&does);
    let told = Arc::new(Mutex::default());
    let telling = Arc::clone(&told);
    let seen = Arc::new(Mutex::new([BTreeSet::new(), BTreeSet::new()]));
    let kept = Arc::clone(&seen);
    let pool = Arc::new(Pool::new(64, 8, 8192));
    let order = Arc::new(Mutex::default());
    let noted = Arc::clone(&order);
    let (opened, is_primary) = (Arc::default(), Arc::new(AtomicBool::new(true)));
    let (count, primary) = (Arc::clone(&opened), Arc::clone(&is_primary));
    let make = move |interrupt| -> Box<dyn Sink> {
        Box::new(Broker {
            does: doing,
            taken: Vec::new(),
            last: 0,
            blocked: None,
            order: noted,
            interrupt,
            seen: kept,
            told: telling,
            opened: count,
            is_primary: primary,
            quiet: 0,
        })
    };
    let pipeline = Pipeline::start(settings, Arc::clone(&ring), pool, None, make).unwrap();
    Bench { pipeline, ring, does, order, seen, told, opened, is_primary }
}

impl Bench {
    fn offer(&self, class: Class, number: u64, size: usize) {
        let names = EventNames::new(["CUSTOM", "DTMF"]);
        let mut record = Record::default();
        record.begin(names.kind("DTMF").unwrap(), class, None);
        record.header(b"Event-Sequence", number.to_string().as_bytes());
        record.header(b"Filling", "x".repeat(size).as_bytes());
        self.ring.account().offered(Lane::ANY);
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
        self.ring.account().offered(Lane::ANY);
        let kind = EventNames::new(["CUSTOM", "DTMF"]).kind("DTMF").unwrap();
        self.ring.refuse(kind, DropReason::QueueFull);
    }

    /// Why, by the gap records.
    fn reasons(&self) -> Vec<String> {
        let told = self.told.lock().unwrap();
        told.iter().filter_map(|told| Some(told.split_once(": ")?.1.to_owned())).collect()
    }

    /// Waits for so many more attempts to connect.
    fn attempts(&self, more: u64) {
        let before = self.opened.load(Ordering::SeqCst);
        self.until("more attempts to connect", |_| {
            self.opened.load(Ordering::SeqCst) >= before + more
        });
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
    spool.read(usize::MAX, usize::MAX, &mut |record| stored.push(record.class)).unwrap();
    let mut count = [0_usize; 3];
    for class in &stored {
        count[usize::from(*class)] += 1;
    }
    let all = stored.len();
    let [critical, normal, bulk] = count;
    // Three in turn to 40 %, two in turn to 80 %, one to the end; the batch in which a share runs out goes a little beyond.
    let near = |count: usize, percent: usize| count.abs_diff(all * percent / 100) * 100 < all * 6;
    assert!(near(bulk, 13), "bulk: {count:?}");
    assert!(near(normal, 33), "normal: {count:?}");
    assert!(near(critical, 53), "critical: {count:?}");
    // Not one of the last fifth is anything but critical.
    let cheap = stored.iter().rposition(|class| *class != Class::Critical.number());
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
