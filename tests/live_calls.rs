// SPDX-License-Identifier: MIT
//! Orphans through real pipelines: what a sink has for good is noted, and nothing before that.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails by panicking")]

#[path = "support/folder.rs"]
mod folder;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use folder::Folder;
use mod_rustbridge::calls::{Audience, LiveCallsSink, SUBCLASS, Table, Teller, Told, shared};
use mod_rustbridge::codec::Outgoing;
use mod_rustbridge::config::delivery::{ClassConfig, ReconnectConfig, WhenFull};
use mod_rustbridge::event::selection::Selection;
use mod_rustbridge::event::{Class, EventNames, Record};
use mod_rustbridge::pipeline::{LATENCY_BELIEVED, Pipeline, Settings, Target};
use mod_rustbridge::queue::{Limits, Pool, Ring};
use mod_rustbridge::sink::{Interrupt, Outcome, Sink, SinkError};

const EVENTS: [&str; 5] =
    ["CUSTOM", "CHANNEL_CREATE", "CHANNEL_DESTROY", "CHANNEL_ANSWER", "CHANNEL_UUID"];
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker that takes messages and acknowledges them only while it is willing.
struct Broker {
    willing: Arc<Mutex<bool>>,
    ids: Arc<Mutex<Vec<String>>>,
    unanswered: Vec<(u64, String)>,
    interrupt: Arc<Interrupt>,
}

impl Sink for Broker {
    fn open(&mut self, _: Instant) -> Result<(), SinkError> {
        self.unanswered.clear();
        Ok(())
    }

    fn window(&self) -> usize {
        64
    }

    fn send(&mut self, tag: u64, message: &Outgoing<'_>) -> Result<(), SinkError> {
        let mut id = String::new();
        message.write_id(&mut id);
        self.unanswered.push((tag, id));
        Ok(())
    }

    fn poll(&mut self, budget: Duration, outcomes: &mut Vec<Outcome>) -> Result<(), SinkError> {
        if *self.willing.lock().unwrap() && !self.unanswered.is_empty() {
            let mut ids = self.ids.lock().unwrap();
            for (tag, id) in self.unanswered.drain(..) {
                ids.push(id);
                outcomes.push(Outcome::Delivered(tag));
            }
        } else {
            self.interrupt.wait(budget);
        }
        Ok(())
    }

    fn close(&mut self, _: Instant) {}

    fn peer(&self) -> String {
        "broker".into()
    }
}

fn names() -> EventNames {
    EventNames::new(EVENTS)
}

fn start(name: &str, make: impl FnOnce(Arc<Interrupt>) -> Box<dyn Sink>) -> (Pipeline, Target) {
    let limits = Limits { events: 1024, bytes: 1 << 24, percent: [100; 3], slack_percent: 0 };
    let ring = Arc::new(Ring::new(limits, Arc::default()));
    let wait = Duration::from_millis(100);
    let settings = Settings {
        name: name.into(),
        kind: "file",
        node: "fs1".into(),
        boot: "B".into(),
        names: Arc::new(names()),
        linger: Duration::from_millis(2),
        reconnect: ReconnectConfig {
            min: wait,
            max: wait,
            refused: wait,
            return_to_primary: Duration::ZERO,
        },
        open_timeout: PATIENCE,
        latency_believed: LATENCY_BELIEVED,
        when_full: WhenFull::DropNewest,
        max_attempts: 3,
        store: None,
        dead_letters: None,
        dead_letter_destination: None,
        stream_file: None,
        prepare: || {},
        set_patience: |_| false,
    };
    let pool = Arc::new(Pool::new(64, 8, 4096));
    let pipeline = Pipeline::start(settings, Arc::clone(&ring), pool, None, make).unwrap();
    let all = || Selection::parse("ALL", &EVENTS).0;
    let target = Target {
        name: name.into(),
        kind: "file",
        ring,
        events: all(),
        classes: ClassConfig {
            critical: all(),
            bulk: Selection::default(),
            critical_percent: 100,
            normal_percent: 90,
            bulk_percent: 50,
        },
    };
    (pipeline, target)
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Runs the events of `calls` calls through the table's own pipeline, and ends as a crash does.
fn crash_with(calls: usize, dir: &Path) {
    let table = Arc::new(Mutex::new(Table::open(dir, "A").0));
    let kept = Arc::clone(&table);
    let (pipeline, target) =
        start("table", |interrupt| Box::new(LiveCallsSink::new(kept, interrupt)));
    for number in 0..=calls {
        for event in ["CHANNEL_CREATE", "CHANNEL_ANSWER"] {
            let mut record = Record::default();
            record.begin(names().kind(event).unwrap(), Class::Normal, None);
            record.header(b"Unique-ID", format!("u-{number}").as_bytes());
            record.header(b"Event-Sequence", number.to_string().as_bytes());
            assert!(target.offer(&Arc::new(record), Class::Normal));
        }
    }
    let mut record = Record::default();
    record.begin(names().kind("CHANNEL_DESTROY").unwrap(), Class::Normal, None);
    record.header(b"Unique-ID", format!("u-{calls}").as_bytes());
    assert!(target.offer(&Arc::new(record), Class::Normal));
    until("the table takes everything in", || target.ring.held().0 == 0);
    assert_eq!(shared(&table).stats().live, calls);
    // Nothing more is written than a crash would leave.
    let copy = dir.with_extension("copy");
    fs::create_dir_all(&copy).unwrap();
    fs::copy(dir.join("live.ndjson"), copy.join("live.ndjson")).unwrap();
    let deadline = Instant::now() + PATIENCE;
    pipeline.stop(deadline);
    pipeline.finish(deadline).unwrap();
    drop(table);
    fs::remove_dir_all(dir).unwrap();
    fs::rename(copy, dir).unwrap();
}

struct One(Target);

impl Audience for One {
    fn wanting(&self) -> Vec<String> {
        assert!(self.0.events.wants("CUSTOM", Some(SUBCLASS.as_bytes())));
        vec![self.0.name.clone()]
    }

    fn offer(&self, _: &str, record: &Arc<Record>) -> bool {
        self.0.offer(record, Class::Critical)
    }
}

#[test]
fn an_orphan_is_noted_as_told_when_the_broker_has_acknowledged_it_and_not_before() {
    let folder = Folder::new("orphans");
    let dir = folder.join("calls");
    crash_with(300, &dir);

    let (table, report) = Table::open(&dir, "B");
    assert_eq!(report.orphans, 300);
    let table = Arc::new(Mutex::new(table));
    let (willing, ids) = (Arc::new(Mutex::new(false)), Arc::new(Mutex::new(Vec::new())));
    let broker = (Arc::clone(&willing), Arc::clone(&ids));
    let (pipeline, target) = start("broker", |interrupt| {
        let (willing, ids) = broker;
        Box::new(Broker { willing, ids, unanswered: Vec::new(), interrupt })
    });
    let account = Arc::clone(target.ring.account());
    let stop = Interrupt::new().unwrap();
    let teller = Teller::new(Arc::clone(&table), Arc::new(names()), Duration::ZERO);
    std::thread::scope(|scope| {
        let telling = std::thread::Builder::new()
            .spawn_scoped(scope, || teller.run(&One(target.clone()), &stop))
            .unwrap();
        until("the window is full", || pipeline.status().in_flight == 64);
        let stats = shared(&table).stats();
        assert_eq!((stats.told, stats.orphans), (0, 300), "nothing is acknowledged yet");
        *willing.lock().unwrap() = true;
        assert_eq!(telling.join().unwrap(), Told::All);
    });
    let mut told = ids.lock().unwrap().clone();
    told.sort();
    told.dedup();
    assert_eq!((told.len(), ids.lock().unwrap().len()), (300, 300));
    assert!(told.iter().all(|id| id.starts_with("A-orphan-u-")));
    let view = account.view();
    assert_eq!((view.offered, view.delivered, view.dropped_total()), (300, 300, 0));
    let deadline = Instant::now() + PATIENCE;
    pipeline.stop(deadline);
    pipeline.finish(deadline).unwrap();
    drop(table);
    assert_eq!(Table::open(&dir, "C").1.orphans, 0);
}

#[test]
fn what_a_stopping_sink_gives_up_is_told_at_the_next_start() {
    let folder = Folder::new("orphans-stop");
    let dir = folder.join("calls");
    crash_with(5, &dir);
    let table = Arc::new(Mutex::new(Table::open(&dir, "B").0));
    let (pipeline, target) = start("broker", |interrupt| {
        let (willing, ids) = (Arc::default(), Arc::default());
        Box::new(Broker { willing, ids, unanswered: Vec::new(), interrupt })
    });
    let stop = Interrupt::new().unwrap();
    let teller = Teller::new(Arc::clone(&table), Arc::new(names()), Duration::ZERO);
    std::thread::scope(|scope| {
        let telling = std::thread::Builder::new()
            .spawn_scoped(scope, || teller.run(&One(target.clone()), &stop))
            .unwrap();
        until("all are in flight", || pipeline.status().in_flight == 5);
        // The order of a shutdown: first the teller, then the sinks.
        stop.raise();
        assert_eq!(telling.join().unwrap(), Told::Interrupted);
    });
    let deadline = Instant::now() + Duration::from_millis(100);
    pipeline.stop(deadline);
    assert!(pipeline.finish(Instant::now() + PATIENCE).is_ok());
    drop(table);
    assert_eq!(Table::open(&dir, "C").1.orphans, 5);
}
