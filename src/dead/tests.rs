// SPDX-License-Identifier: MIT

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::codec::{Outgoing, Stamp};
use crate::event::{Class, EventKind, EventNames, Index, Record};
use crate::lines::testing::{Faulty, Folder};

const MIB: u64 = 1 << 20;

fn letter(seq: u64) -> Letter {
    Letter {
        time_ms: 1000 + seq,
        reason: "too \"large\"\n".into(),
        attempts: 2,
        message_id: format!("core-{seq}"),
        seq,
        event: "CUSTOM".into(),
        subclass: "a::b".into(),
        key: "event.fs1".into(),
        stored: vec![u8::try_from(seq % 251).unwrap(); 300],
        ..Letter::default()
    }
}

fn open(folder: &Folder, max_bytes: u64) -> DeadLetters {
    let (dead, report) = DeadLetters::open(folder.path(), max_bytes);
    assert_eq!(report.problem, None);
    dead
}

fn fill(dead: &DeadLetters, count: u64) {
    for seq in 1..=count {
        dead.put(letter(seq));
    }
    dead.flush();
}

fn ids(dead: &DeadLetters) -> Vec<u64> {
    dead.list(0, usize::MAX).iter().map(|letter| letter.id).collect()
}

fn files(folder: &Folder) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "ndjson"))
        .collect();
    files.sort();
    files
}

#[test]
fn letters_come_back_as_they_were_put_also_after_a_restart() {
    let folder = Folder::new();
    let dead = open(&folder, MIB);
    fill(&dead, 3);
    for _ in 0..2 {
        let expected = Letter { id: 2, ..letter(2) };
        assert_eq!(dead.get(2), Some(expected));
        assert_eq!(ids(&dead), [1, 2, 3]);
        assert_eq!(dead.list(2, 1).len(), 1);
        assert_eq!(dead.get(4), None);
        assert_eq!(dead.stats().oldest_ms, Some(1001));
    }
    drop(dead);
    let dead = open(&folder, MIB);
    assert_eq!(ids(&dead), [1, 2, 3]);
    dead.put(letter(4));
    dead.flush();
    assert_eq!(ids(&dead), [1, 2, 3, 4]);
    assert_eq!(dead.stats().letters, 4);
}

#[test]
fn a_line_is_json_that_others_read() {
    let folder = Folder::new();
    fill(&open(&folder, MIB), 1);
    let text = fs::read_to_string(&files(&folder)[0]).unwrap();
    let value: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!(value["reason"], "too \"large\"\n");
    assert_eq!(value["id"], 1);
    assert_eq!(value["key"], "event.fs1");
}

#[test]
fn a_file_cut_at_any_byte_keeps_every_whole_letter_and_takes_more() {
    let folder = Folder::new();
    fill(&open(&folder, MIB), 3);
    let path = files(&folder)[0].clone();
    let bytes = fs::read(&path).unwrap();
    for cut in 0..bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        let (dead, report) = DeadLetters::open(folder.path(), MIB);
        let whole = u64::try_from(bytes[..cut].split(|b| *b == b'\n').count() - 1).unwrap();
        assert_eq!((report.letters, report.damaged), (whole, 0), "cut at {cut}");
        assert_eq!(report.torn_bytes > 0, cut > 0 && bytes[cut - 1] != b'\n');
        dead.put(letter(9));
        dead.flush();
        assert_eq!(ids(&dead).len(), usize::try_from(whole).unwrap() + 1);
        assert_eq!(dead.stats().letters, whole + 1);
    }
}

#[test]
fn the_oldest_files_give_way_and_the_bound_holds() {
    let folder = Folder::new();
    let max = 300_000;
    let dead = open(&folder, max);
    for round in 0..100 {
        fill(&dead, 40);
        let used: u64 = files(&folder).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        let stats = dead.stats();
        assert_eq!(used, stats.bytes);
        assert!(used <= max);
        assert_eq!(stats.letters + stats.evicted, 40 * (round + 1));
        assert_eq!(u64::try_from(ids(&dead).len()).unwrap(), stats.letters);
        assert_eq!(ids(&dead).last(), Some(&(40 * (round + 1))));
    }
    assert!(dead.stats().letters > 200);
}

#[test]
fn a_letter_larger_than_the_bound_and_any_with_a_bound_of_zero_are_only_counted() {
    let folder = Folder::new();
    let dead = open(&folder, 100);
    fill(&dead, 2);
    assert_eq!((dead.stats().letters, dead.stats().not_kept), (0, 2));
    drop(dead);
    let none = open(&folder, 0);
    fill(&none, 2);
    assert_eq!((none.stats().not_kept, files(&folder).len()), (2, 0));
}

#[test]
fn letters_that_are_sent_again_stay_until_they_are_settled() {
    let folder = Folder::new();
    let dead = open(&folder, MIB);
    fill(&dead, 5);
    assert_eq!(dead.ask_retry(Which::All), Ok(5));
    let first = dead.take_retries(2);
    assert_eq!(first.iter().map(|letter| letter.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(dead.ask_retry(Which::All), Ok(3), "those on their way do not count");
    let rest = dead.take_retries(10);
    assert_eq!(rest.iter().map(|letter| letter.id).collect::<Vec<_>>(), [3, 4, 5]);
    assert!(dead.take_retries(10).is_empty());
    assert_eq!((ids(&dead).len(), dead.stats().retrying), (5, 5));
    // One is refused again, one is not sent after all.
    dead.put(letter(3));
    dead.settle(3);
    dead.give_back(5);
    for id in [1, 2, 4] {
        dead.settle(id);
    }
    dead.flush();
    assert_eq!(ids(&dead), [5, 6]);
    assert_eq!(dead.ask_retry(Which::One(5)), Ok(1));
    assert_eq!(dead.take_retries(1).len(), 1);
    assert_eq!(dead.ask_retry(Which::One(1)), Err(NoLetter(1)));
}

#[test]
fn no_more_letters_than_asked_for_are_on_their_way_and_their_file_is_read_once() {
    let folder = Folder::new();
    let dead = open(&folder, MIB);
    fill(&dead, 5);
    assert_eq!(dead.ask_retry(Which::All), Ok(5));
    assert_eq!(dead.take_retries(2).len(), 2);
    assert!(dead.take_retries(2).is_empty(), "none of the two is answered for");
    for file in files(&folder) {
        fs::remove_file(file).unwrap();
    }
    dead.settle(1);
    assert_eq!(dead.take_retries(2)[0].id, 3);
    assert_eq!(dead.take_retries(9).len(), 2);
}

#[test]
fn a_purge_takes_one_or_all_and_ids_are_never_given_twice() {
    let folder = Folder::new();
    let dead = open(&folder, 600_000);
    fill(&dead, 500);
    assert!(files(&folder).len() > 2);
    assert_eq!(dead.purge(Which::One(250)).unwrap(), 1);
    assert!(dead.purge(Which::One(250)).is_err());
    assert_eq!((dead.get(250), dead.stats().letters), (None, 499));
    assert_eq!(dead.purge(Which::All).unwrap(), 499);
    assert_eq!((ids(&dead), dead.stats().bytes), (vec![], 0));
    drop(dead);
    let dead = open(&folder, 600_000);
    fill(&dead, 1);
    assert_eq!(ids(&dead), [501]);
    dead.ask_retry(Which::All).unwrap();
    dead.take_retries(1);
    dead.settle(501);
    dead.flush();
    drop(dead);
    let dead = open(&folder, 600_000);
    fill(&dead, 1);
    assert_eq!(ids(&dead), [502]);
}

#[test]
fn a_purge_leaves_what_is_on_its_way_to_the_broker() {
    let folder = Folder::new();
    let dead = open(&folder, MIB);
    fill(&dead, 4);
    assert_eq!(dead.kept(), 4);
    dead.ask_retry(Which::One(2)).unwrap();
    assert_eq!(dead.take_retries(9).len(), 1);
    assert_eq!(dead.purge(Which::One(2)).unwrap(), 0);
    assert_eq!(dead.purge(Which::All).unwrap(), 3);
    assert_eq!((ids(&dead), dead.kept()), (vec![2], 1));
    dead.give_back(2);
    assert_eq!(dead.purge(Which::All).unwrap(), 1);
    assert_eq!(dead.kept(), 0);
}

#[test]
fn a_folder_that_another_uses_is_said_and_letters_are_counted() {
    let folder = Folder::new();
    let first = open(&folder, MIB);
    let (second, report) = DeadLetters::open(folder.path(), MIB);
    assert!(report.problem.unwrap().contains("dead-letter-dir"));
    fill(&second, 1);
    assert_eq!(second.stats().not_kept, 1);
    fill(&first, 1);
    assert_eq!(first.stats().letters, 1);
}

#[test]
fn a_call_that_fails_costs_no_letter_and_a_disk_that_fails_costs_only_counted_ones() {
    // One failing call, whichever: a second try in another file saves the letters.
    let counting = Faulty::new();
    let run = |files: &Faulty, folder: &Folder| {
        let (dead, _) = DeadLetters::open_with(Arc::new(files.clone()), folder.path(), 70_000);
        for _ in 0..30 {
            fill(&dead, 5);
        }
        dead
    };
    run(&counting, &Folder::new());
    let calls = i64::try_from(counting.calls()).unwrap();
    assert!(calls > 60);
    for (nth, count) in (0..calls).flat_map(|nth| [(nth, 1), (nth, 2), (nth, 9)]) {
        let (files, folder) = (Faulty::new(), Folder::new());
        files.fail(nth, count);
        let dead = run(&files, &folder);
        let stats = dead.stats();
        assert_eq!(stats.letters + stats.not_kept + stats.evicted, 150, "call {nth} of {count}");
        drop(dead);
        // What is on the disk is whole, and is as many as were said to be there.
        let (again, report) = DeadLetters::open(folder.path(), 70_000);
        assert_eq!((report.damaged, report.problem), (0, None));
        if stats.problem.is_none() {
            assert_eq!(report.letters, stats.letters, "call {nth} of {count}");
            assert!(count > 1 || stats.not_kept == 0 || nth < 2, "call {nth}");
        }
        let mut seen = ids(&again);
        seen.dedup();
        assert_eq!(u64::try_from(seen.len()).unwrap(), report.letters);
    }
}

#[test]
fn after_a_full_disk_the_next_letters_are_kept_again() {
    let (files, folder) = (Faulty::new(), Folder::new());
    let (dead, _) = DeadLetters::open_with(Arc::new(files.clone()), folder.path(), MIB);
    fill(&dead, 3);
    files.fail(0, i64::MAX);
    fill(&dead, 3);
    assert_eq!(dead.stats().not_kept, 3);
    assert!(dead.stats().problem.unwrap().contains("free some space"));
    files.fail(i64::MAX, 0);
    fill(&dead, 3);
    assert_eq!((dead.stats().letters, dead.stats().problem), (6, None));
}

#[test]
fn a_folder_that_is_deleted_while_it_is_used_comes_back() {
    let folder = Folder::new();
    let dead = open(&folder, MIB);
    fill(&dead, 3);
    fs::remove_dir_all(folder.path()).unwrap();
    fill(&dead, 2);
    assert_eq!(ids(&dead), [4, 5]);
    assert_eq!(dead.stats().letters, 2);
}

#[test]
fn a_folder_that_cannot_be_made_is_said_and_letters_are_counted() {
    let folder = Folder::new();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let (dead, report) = DeadLetters::open(&file.join("dead"), MIB);
    assert!(report.problem.unwrap().contains("must be able to create"));
    fill(&dead, 2);
    assert_eq!(dead.stats().not_kept, 2);
}

fn event() -> (EventNames, Record, Index) {
    let names = EventNames::new(["CUSTOM", "CHANNEL_CREATE"]);
    let mut record = Record::default();
    record.begin(EventKind::new(1), Class::Critical, None);
    record.header(b"Core-UUID", b"core");
    record.header(b"Event-Sequence", b"77");
    record.header(b"Unique-ID", b"u-1");
    let mut index = Index::default();
    index.read(&record);
    (names, record, index)
}

#[test]
fn a_message_is_revived_with_its_own_id_and_copied_with_the_reason() {
    let (names, record, index) = event();
    let stamp = Stamp { seq: 5, reuse: 1 };
    let message = Outgoing {
        stamp,
        node: "fs1",
        boot: "core",
        record: &record,
        index: &index,
        names: &names,
    };
    let letter = Letter::of(&message, b"calls.u-1", 3, "unroutable");
    assert_eq!(letter.message_id, "core-77-1");
    assert_eq!(letter.key, "calls.u-1");

    let revived = letter.revive(&names).unwrap();
    let mut index = Index::default();
    index.read(&revived.record);
    let again = revived.message("fs1", &names, &index);
    let (mut id, mut body) = (String::new(), Vec::new());
    again.write_id(&mut id);
    message.write_body(&mut body);
    assert_eq!((id.as_str(), again.stamp, again.boot), ("core-77-1", stamp, "core"));

    let copy = letter.to_publish_record("dead", "fs1", &names).unwrap();
    index.read(&copy);
    let get = |name: &str| String::from_utf8_lossy(index.get(&copy, name.as_bytes()).unwrap());
    assert_eq!(get("x-death-reason"), "unroutable");
    assert_eq!(get("x-original-id"), "core-77-1");
    assert_eq!(get(Outgoing::PUBLISH_DESTINATION), "dead");
    assert_eq!(get(Outgoing::PUBLISH_KEY), letter.key);
    assert_eq!(index.body(&copy), Some(body.as_slice()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_damage_costs_only_the_lines_it_hits(
        damage in prop::collection::vec((0.0..1.0f64, any::<u8>()), 1..12),
    ) {
        let folder = Folder::new();
        fill(&open(&folder, MIB), 20);
        let path = files(&folder)[0].clone();
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        for (place, byte) in damage {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss,
                clippy::cast_precision_loss, clippy::as_conversions, reason = "a place in a file")]
            let at = (place * bytes.len() as f64) as usize;
            bytes[at] = byte;
        }
        fs::write(&path, &bytes).unwrap();
        let untouched = whole
            .split_inclusive(|b| *b == b'\n')
            .filter(|line| bytes.split_inclusive(|b| *b == b'\n').any(|found| found == *line))
            .count();
        let (dead, report) = DeadLetters::open(folder.path(), MIB);
        prop_assert_eq!(report.problem, None);
        prop_assert_eq!(ids(&dead).len(), untouched);
        dead.put(letter(1));
        dead.flush();
        prop_assert_eq!(ids(&dead).len(), untouched + 1);
    }
}
