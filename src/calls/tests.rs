// SPDX-License-Identifier: MIT

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use proptest::prelude::*;

use super::sink::apply;
use super::*;
use crate::codec::{Outgoing, Stamp};
use crate::event::{Class, EventNames, Index, Record};
use crate::lines::testing::{Faulty, Folder};

fn names() -> EventNames {
    EventNames::new([
        "CUSTOM",
        "CHANNEL_CREATE",
        "CHANNEL_ANSWER",
        "CHANNEL_UUID",
        "CHANNEL_HANGUP_COMPLETE",
        "CHANNEL_DESTROY",
    ])
}

/// Puts an event through the table, as the sink does.
fn event(table: &mut Table, name: &str, headers: &[(&str, &str)]) {
    let names = names();
    let mut record = Record::default();
    let subclass = (name == "CUSTOM").then_some(b"rustbridge::gap".as_slice());
    record.begin(names.kind(name).unwrap(), Class::Critical, subclass);
    for (header, value) in headers {
        record.header(header.as_bytes(), value.as_bytes());
    }
    let mut index = Index::default();
    index.read(&record);
    let stamp = Stamp { seq: 1, reuse: 0 };
    apply(
        table,
        &Outgoing { stamp, node: "n", boot: "b", record: &record, index: &index, names: &names },
    );
}

fn create(table: &mut Table, uuid: &str) {
    let headers = [
        ("Unique-ID", uuid),
        ("Channel-Call-UUID", "call-1"),
        ("Channel-Name", "loopback/park-a"),
        ("Caller-Caller-ID-Number", "1001"),
        ("Caller-Destination-Number", "park"),
        ("Caller-Channel-Created-Time", "1795195109805395"),
        ("Event-Sequence", "438"),
    ];
    event(table, "CHANNEL_CREATE", &headers);
}

fn destroy(table: &mut Table, uuid: &str) {
    event(table, "CHANNEL_DESTROY", &[("Unique-ID", uuid)]);
}

fn open(folder: &Folder, boot: &str) -> (Table, Report) {
    let (table, report) = Table::open(folder.path(), boot);
    assert_eq!(report.problem, None);
    (table, report)
}

fn file(folder: &Folder) -> PathBuf {
    folder.path().join("live.ndjson")
}

/// The headers of an orphan's event, and its id.
fn read(record: &Record) -> BTreeMap<String, String> {
    let mut index = Index::default();
    index.read(record);
    let names = names();
    let stamp = Stamp { seq: 9, reuse: 0 };
    let message = Outgoing { stamp, node: "n", boot: "B", record, index: &index, names: &names };
    let mut body = Vec::new();
    message.write_body(&mut body);
    let mut headers: BTreeMap<String, String> = serde_json::from_slice(&body).unwrap();
    let mut id = String::new();
    message.write_id(&mut id);
    headers.insert("id".into(), id);
    headers
}

fn orphans(table: &Table) -> Vec<String> {
    let records = table.orphan_records(&names());
    records.iter().map(|record| read(record)["Unique-ID"].clone()).collect()
}

#[test]
fn a_call_of_an_earlier_boot_is_an_orphan_with_all_that_was_known_of_it() {
    let folder = Folder::new();
    let (mut table, _) = open(&folder, "A");
    create(&mut table, "u-1");
    create(&mut table, "u-2");
    event(
        &mut table,
        "CHANNEL_ANSWER",
        &[
            ("Unique-ID", "u-1"),
            ("Caller-Channel-Answered-Time", "1795195110000000"),
            ("Caller-Channel-Created-Time", "1795195109805395"),
            ("Caller-Caller-ID-Number", "1001"),
            ("Event-Sequence", "440"),
        ],
    );
    destroy(&mut table, "u-2");
    // As a crash leaves it: what was handed to the system, and nothing closed.
    table.tick(Instant::now());
    drop(table);

    let (table, report) = open(&folder, "B");
    assert_eq!((report.orphans, report.live), (1, 0));
    let record = table.orphan_records(&names()).remove(0);
    assert_eq!(record.subclass(), Some(SUBCLASS.as_bytes()));
    assert_eq!(record.class(), Class::Critical);
    let headers = read(&record);
    for (name, value) in [
        ("Event-Name", "CUSTOM"),
        ("Event-Subclass", "rustbridge::orphan"),
        ("Core-UUID", "A"),
        ("Unique-ID", "u-1"),
        ("Caller-Caller-ID-Number", "1001"),
        ("Rustbridge-Created-us", "1795195109805395"),
        ("Rustbridge-Answered-us", "1795195110000000"),
        ("Rustbridge-Last-Event-Sequence", "440"),
        ("Rustbridge-Confirmed", "true"),
        ("Rustbridge-Old-Boot", "A"),
        ("Rustbridge-Boot", "B"),
        ("id", "A-orphan-u-1"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
}

#[test]
fn a_call_that_goes_by_another_uuid_is_one_call() {
    let folder = Folder::new();
    let (mut table, _) = open(&folder, "A");
    create(&mut table, "old");
    event(&mut table, "CHANNEL_UUID", &[("Unique-ID", "new"), ("Old-Unique-ID", "old")]);
    assert_eq!(table.stats().live, 1);
    table.flush();
    drop(table);
    assert_eq!(orphans(&open(&folder, "B").0), ["new"]);
}

#[test]
fn a_reload_of_the_module_keeps_the_calls_and_no_longer_vouches_for_them() {
    let folder = Folder::new();
    let (mut table, _) = open(&folder, "A");
    for uuid in ["u-1", "u-2"] {
        create(&mut table, uuid);
    }
    table.flush();
    drop(table);
    let (mut table, report) = open(&folder, "A");
    assert_eq!((report.live, report.orphans), (2, 0));
    event(&mut table, "CHANNEL_ANSWER", &[("Unique-ID", "u-2")]);
    table.flush();
    drop(table);
    let (table, _) = open(&folder, "B");
    let confirmed: BTreeMap<String, String> = table
        .orphan_records(&names())
        .iter()
        .map(read)
        .map(|headers| (headers["Unique-ID"].clone(), headers["Rustbridge-Confirmed"].clone()))
        .collect();
    assert_eq!(confirmed["u-1"], "false");
    assert_eq!(confirmed["u-2"], "true", "it was heard of since");
}

#[test]
fn after_lost_events_no_call_is_vouched_for() {
    let folder = Folder::new();
    let (mut table, _) = open(&folder, "A");
    create(&mut table, "u-1");
    event(&mut table, "CUSTOM", &[]);
    table.flush();
    drop(table);
    let (table, _) = open(&folder, "B");
    assert_eq!(read(&table.orphan_records(&names())[0])["Rustbridge-Confirmed"], "false");
}

#[test]
fn a_file_cut_at_any_byte_yields_the_calls_of_its_whole_lines() {
    let folder = Folder::new();
    let (mut table, _) = open(&folder, "A");
    for uuid in ["u-1", "u-2", "u-3"] {
        create(&mut table, uuid);
    }
    destroy(&mut table, "u-2");
    table.flush();
    drop(table);
    let bytes = fs::read(file(&folder)).unwrap();
    for cut in 0..=bytes.len() {
        fs::write(file(&folder), &bytes[..cut]).unwrap();
        let (mut table, report) = Table::open(folder.path(), "B");
        let expected: &[&str] = match bytes[..cut].split(|byte| *byte == b'\n').count() - 1 {
            0 => &[],
            1 => &["u-1"],
            2 => &["u-1", "u-2"],
            3 => &["u-1", "u-2", "u-3"],
            _ => &["u-1", "u-3"],
        };
        assert_eq!(orphans(&table), expected, "cut at {cut}");
        assert_eq!(report.damaged, 0);
        // And it goes on.
        create(&mut table, "n-1");
        table.flush();
        assert_eq!(table.stats().problem, None);
    }
}

#[test]
fn a_failing_disk_costs_nothing_once_it_works_again() {
    let run = |files: &Faulty, folder: &Folder| {
        let (mut table, _) = Table::open_with(Arc::new(files.clone()), folder.path(), "A");
        for n in 0..10 {
            create(&mut table, &format!("u-{n}"));
            table.flush();
        }
        destroy(&mut table, "u-3");
        table.flush();
        table
    };
    let counting = Faulty::new();
    run(&counting, &Folder::new());
    let calls = i64::try_from(counting.calls()).unwrap();
    assert!(calls > 20);
    for (nth, count) in (0..calls).flat_map(|nth| [(nth, 1), (nth, 3), (nth, i64::MAX)]) {
        let (files, folder) = (Faulty::new(), Folder::new());
        files.fail(nth, count);
        let mut table = run(&files, &folder);
        if count == i64::MAX {
            assert!(table.stats().problem.unwrap().contains("free some space"));
        }
        assert_eq!(table.stats().live, 9);
        files.fail(i64::MAX, 0);
        table.flush();
        assert_eq!(table.stats().problem, None, "call {nth} of {count}");
        drop(table);
        let (table, report) = open(&folder, "B");
        assert_eq!((orphans(&table).len(), report.damaged), (9, 0), "call {nth} of {count}");
    }
}

#[test]
fn a_folder_that_another_uses_is_said_and_left_alone() {
    let folder = Folder::new();
    let (mut first, _) = open(&folder, "A");
    create(&mut first, "u-1");
    first.flush();
    let (mut second, report) = Table::open(folder.path(), "B");
    assert_eq!(report.orphans, 0, "the calls of a switch that runs are no orphans");
    assert!(report.problem.unwrap().contains("storage-dir"));
    create(&mut second, "u-2");
    second.flush();
    drop((first, second));
    assert_eq!(orphans(&open(&folder, "C").0), ["u-1"]);
}

#[test]
fn a_folder_that_is_deleted_while_it_is_used_comes_back() {
    let folder = Folder::new();
    let (mut table, _) = open(&folder, "A");
    create(&mut table, "u-1");
    table.flush();
    fs::remove_dir_all(folder.path()).unwrap();
    create(&mut table, "u-2");
    table.flush();
    drop(table);
    assert_eq!(orphans(&open(&folder, "B").0).len(), 2);
}

#[test]
fn a_hundred_thousand_calls_leave_a_small_file_and_no_more_than_the_bound_is_held() {
    let folder = Folder::new();
    let (mut table, _) = open(&folder, "A");
    let mut largest = 0;
    for n in 0..100_000_u32 {
        create(&mut table, &format!("u-{n}"));
        if n >= 50 {
            destroy(&mut table, &format!("u-{}", n - 50));
        }
        if n % 100 == 0 {
            table.tick(Instant::now());
            largest = largest.max(fs::metadata(file(&folder)).unwrap().len());
        }
    }
    assert_eq!(table.stats().live, 50);
    assert!(largest < 2 << 20, "{largest} bytes for 50 calls");
    for n in 0..Table::CALLS_MAX {
        create(&mut table, &format!("v-{n}"));
    }
    let stats = table.stats();
    assert_eq!((stats.live, stats.missed), (Table::CALLS_MAX, 50));
    table.flush();
    assert!(table.stats().file_bytes < 40 << 20);
    drop(table);
    assert_eq!(open(&folder, "B").1.orphans, Table::CALLS_MAX);
}

/// Sinks that hold what they are offered until they are told to let go.
struct Sinks {
    wanting: RefCell<Vec<String>>,
    room: RefCell<BTreeMap<String, usize>>,
    held: RefCell<Vec<(String, Arc<Record>)>>,
    delivered: RefCell<Vec<(String, String)>>,
    clock: Cell<Instant>,
}

impl Sinks {
    fn new(names: &[&str]) -> Self {
        let sinks = Self {
            wanting: RefCell::default(),
            room: RefCell::default(),
            held: RefCell::default(),
            delivered: RefCell::default(),
            clock: Cell::new(Instant::now()),
        };
        for name in names {
            sinks.wanting.borrow_mut().push((*name).into());
            sinks.room.borrow_mut().insert((*name).into(), usize::MAX);
        }
        sinks
    }

    fn let_go(&self, name: &str) {
        self.held.borrow_mut().retain(|(sink, record)| {
            if sink == name {
                let id = read(record)["id"].clone();
                self.delivered.borrow_mut().push((sink.clone(), id));
            }
            sink != name
        });
    }

    fn delivered(&self, name: &str) -> Vec<String> {
        let delivered = self.delivered.borrow();
        delivered.iter().filter(|(sink, _)| sink == name).map(|(_, id)| id.clone()).collect()
    }
}

impl Audience for Sinks {
    fn wanting(&self) -> Vec<String> {
        self.wanting.borrow().clone()
    }

    fn offer(&self, sink: &str, record: &Arc<Record>) -> bool {
        let mut room = self.room.borrow_mut();
        let left = room.get_mut(sink).unwrap();
        if *left == 0 {
            return false;
        }
        *left -= 1;
        self.held.borrow_mut().push((sink.into(), Arc::clone(record)));
        true
    }
}

fn crashed(folder: &Folder, calls: usize) {
    let (mut table, _) = open(folder, "A");
    for n in 0..calls {
        create(&mut table, &format!("u-{n}"));
    }
    table.flush();
}

/// What the spools of the sinks take to make something durable.
const INTERVAL: std::time::Duration = std::time::Duration::from_secs(60);

/// A step of the teller, as long after the last one as it takes to note what was let go of.
fn step(teller: &mut Teller, sinks: &Sinks) -> bool {
    let past = sinks.clock.get();
    let moved = teller.step(sinks, past);
    let now = past + INTERVAL + Teller::DURABLE_AFTER;
    sinks.clock.set(now);
    teller.step(sinks, now) || moved
}

fn teller(folder: &Folder, boot: &str) -> (Arc<Mutex<Table>>, Teller) {
    let table = Arc::new(Mutex::new(open(folder, boot).0));
    let teller = Teller::new(Arc::clone(&table), Arc::new(names()), INTERVAL);
    (table, teller)
}

#[test]
fn every_orphan_is_told_once_to_every_sink_and_none_waits_for_another() {
    let folder = Folder::new();
    crashed(&folder, 600);
    let (table, mut told) = teller(&folder, "B");
    let sinks = Sinks::new(&["quick", "stuck"]);
    while step(&mut told, &sinks) {
        sinks.let_go("quick");
    }
    assert_eq!(sinks.delivered("quick").len(), 600);
    assert_eq!(shared(&table).stats().orphans, 600, "the other has none yet");
    loop {
        sinks.let_go("stuck");
        if !step(&mut told, &sinks) {
            break;
        }
    }
    assert!(told.is_done());
    assert_eq!(shared(&table).stats().told, 600);
    for name in ["quick", "stuck"] {
        let ids = sinks.delivered(name);
        assert_eq!((ids.len(), ids.iter().collect::<BTreeSet<_>>().len()), (600, 600));
    }
    drop((table, told));
    assert_eq!(open(&folder, "C").1.orphans, 0);
}

#[test]
fn a_crash_while_telling_repeats_only_what_no_sink_had_for_good() {
    let folder = Folder::new();
    crashed(&folder, 10);
    let (table, mut told) = teller(&folder, "B");
    let sinks = Sinks::new(&["a", "b"]);
    step(&mut told, &sinks);
    sinks.let_go("a");
    step(&mut told, &sinks);
    // The new boot has calls of its own, and crashes too.
    create(&mut shared(&table), "n-1");
    shared(&table).flush();
    drop((table, told));

    let (table, mut told) = teller(&folder, "C");
    assert_eq!(shared(&table).stats().orphans, 11);
    while step(&mut told, &sinks) {
        sinks.let_go("a");
        sinks.let_go("b");
    }
    assert!(told.is_done());
    let ids = sinks.delivered("a");
    assert_eq!(ids.len(), 11);
    assert_eq!(ids.last().unwrap(), "B-orphan-n-1");
    let unique: BTreeSet<String> = sinks.delivered("b").into_iter().collect();
    assert_eq!(unique.len(), 11, "what it had not for good came again, with the same id");
    drop((table, told));
    assert_eq!(open(&folder, "D").1.orphans, 0);
}

#[test]
fn what_a_pipeline_lets_go_of_is_noted_only_once_its_spool_is_durable() {
    let folder = Folder::new();
    crashed(&folder, 2);
    let (table, mut told) = teller(&folder, "B");
    let sinks = Sinks::new(&["a"]);
    let now = Instant::now();
    told.step(&sinks, now);
    sinks.let_go("a");
    told.step(&sinks, now);
    told.step(&sinks, now + INTERVAL + Teller::DURABLE_AFTER / 2);
    assert!(!told.is_done());
    assert_eq!(shared(&table).stats().told, 0);
    told.step(&sinks, now + INTERVAL + Teller::DURABLE_AFTER);
    assert!(told.is_done());
    assert_eq!(shared(&table).stats().told, 2);
}

#[test]
fn what_a_sink_had_to_drop_is_offered_to_it_again() {
    let folder = Folder::new();
    crashed(&folder, 3);
    let (table, mut told) = teller(&folder, "B");
    let sinks = Sinks::new(&["a"]);
    let now = Instant::now();
    told.step(&sinks, now);
    // The first and the last arrive, between them one gives way.
    sinks.held.borrow()[1].1.note_lost();
    let delivered = sinks.delivered("a");
    sinks.let_go("a");
    let settled = now + INTERVAL + 2 * Teller::DURABLE_AFTER;
    told.step(&sinks, now);
    told.step(&sinks, settled);
    assert!(!told.is_done());
    assert_eq!(shared(&table).stats().told, 2);
    assert_eq!(sinks.held.borrow().len(), 1);
    sinks.let_go("a");
    assert_eq!(sinks.delivered("a").len(), delivered.len() + 4, "the three, and the one again");
    step(&mut told, &sinks);
    assert!(told.is_done());
    assert_eq!(shared(&table).stats().told, 3);
}

#[test]
fn a_sink_without_room_gets_the_rest_later_and_one_that_leaves_is_not_waited_for() {
    let folder = Folder::new();
    crashed(&folder, 5);
    let (table, mut told) = teller(&folder, "B");
    let sinks = Sinks::new(&["a", "gone"]);
    sinks.room.borrow_mut().insert("a".into(), 2);
    sinks.room.borrow_mut().insert("gone".into(), 0);
    step(&mut told, &sinks);
    sinks.let_go("a");
    step(&mut told, &sinks);
    assert_eq!(sinks.delivered("a").len(), 2);
    sinks.room.borrow_mut().insert("a".into(), 9);
    sinks.wanting.borrow_mut().retain(|name| name != "gone");
    while step(&mut told, &sinks) {
        sinks.let_go("a");
    }
    assert!(told.is_done());
    assert_eq!((sinks.delivered("a").len(), shared(&table).stats().orphans), (5, 0));
}

#[test]
fn orphans_that_nobody_wants_are_done_at_once() {
    let folder = Folder::new();
    crashed(&folder, 5);
    let (_, mut told) = teller(&folder, "B");
    step(&mut told, &Sinks::new(&[]));
    assert!(told.is_done());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn after_any_events_and_restarts_the_orphans_are_the_calls_that_were_alive(
        steps in prop::collection::vec((0..4u8, 0..12u8), 0..200),
    ) {
        let folder = Folder::new();
        let mut boot = 0_u32;
        let (mut table, _) = open(&folder, "0");
        let mut alive: BTreeSet<(u32, String)> = BTreeSet::new();
        for (step, who) in steps {
            let uuid = format!("u-{who}");
            match step {
                0 | 1 => {
                    create(&mut table, &uuid);
                    alive.insert((boot, uuid));
                }
                2 => {
                    destroy(&mut table, &uuid);
                    alive.remove(&(boot, uuid));
                }
                _ if who == 0 => {
                    table.tick(Instant::now());
                    drop(table);
                    boot += 1;
                    table = open(&folder, &boot.to_string()).0;
                }
                _ => table.tick(Instant::now()),
            }
        }
        let mut expected: Vec<String> = alive
            .iter()
            .filter(|(lived, _)| *lived < boot)
            .map(|(lived, uuid)| format!("{lived}-orphan-{uuid}"))
            .collect();
        let mut found: Vec<String> =
            table.orphan_records(&names()).iter().map(|record| read(record)["id"].clone()).collect();
        expected.sort();
        found.sort();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_damage_loses_at_most_the_lines_it_hits_and_is_said(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let folder = Folder::new();
        crashed(&folder, 20);
        let mut bytes = fs::read(file(&folder)).unwrap();
        let whole = bytes.clone();
        for (place, byte) in damage {
            let len = bytes.len();
            bytes[place.index(len)] = byte;
        }
        fs::write(file(&folder), &bytes).unwrap();
        let lines = |bytes: &[u8]| -> Vec<Vec<u8>> {
            bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
        };
        let now = lines(&bytes);
        let untouched = lines(&whole).iter().filter(|line| now.contains(line)).count();
        let (table, report) = open(&folder, "B");
        prop_assert_eq!(report.orphans, untouched);
        prop_assert_eq!(orphans(&table).len(), untouched);
        let confirmed = if report.damaged > 0 { "false" } else { "true" };
        for record in table.orphan_records(&names()) {
            prop_assert_eq!(&read(&record)["Rustbridge-Confirmed"], confirmed);
        }
        prop_assert_eq!(report.damaged > 0, folder.path().join("live.ndjson.damaged").exists());
    }
}
