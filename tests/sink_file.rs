// SPDX-License-Identifier: MIT
//! The file sink on a real disk: rotation, compression, what is kept, and what it leaves alone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::case_sensitive_file_extension_comparisons,
    clippy::mem_forget,
    reason = "a helper of a test fails by panicking, and the sink's own names are in small letters"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mod_rustbridge::codec::{Outgoing, Stamp};
use mod_rustbridge::config::delivery::Fsync;
use mod_rustbridge::config::file::{Compress, FileConfig};
use mod_rustbridge::event::{Class, EventKind, EventNames, Index, Record};
use mod_rustbridge::sink::file::FileSink;
use mod_rustbridge::sink::{Interrupt, Outcome, Sink};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    folder: PathBuf,
    sink: FileSink,
    sent: u64,
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn folder(name: &str) -> PathBuf {
    let folder =
        std::env::temp_dir().join(format!("rustbridge-file-{name}-{}", std::process::id()));
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A sink that writes `events-<date>.ndjson`, opened.
fn start(folder: PathBuf, change: impl FnOnce(&mut FileConfig)) -> Bench {
    let mut config = FileConfig {
        path: format!("{}/events-${{date}}.ndjson", folder.display()),
        rotate_bytes: None,
        rotate_interval: None,
        compress: Compress::None,
        fsync: Fsync::Never,
        identity: true,
        keep_files: None,
        mode: 0o640,
    };
    change(&mut config);
    let interrupt = Arc::new(Interrupt::new().unwrap());
    let mut sink = FileSink::new(config, "journal".into(), "fs1".into(), interrupt);
    sink.open(Instant::now() + PATIENCE).unwrap();
    Bench { folder, sink, sent: 0 }
}

fn event(number: u64) -> Record {
    let mut record = Record::default();
    record.begin(EventKind::new(1), Class::Normal, None);
    record.header(b"Event-Name", b"DTMF");
    record.header(b"Core-UUID", b"core");
    record.header(b"Event-Sequence", number.to_string().as_bytes());
    record
}

impl Bench {
    fn send(&mut self, record: &Record) {
        let mut index = Index::default();
        index.read(record);
        self.sent += 1;
        let message = Outgoing {
            stamp: Stamp { seq: self.sent, reuse: 0 },
            node: "fs1",
            boot: "boot",
            record,
            index: &index,
            names: &EventNames::new(["CUSTOM", "DTMF"]),
        };
        self.sink.send(self.sent, &message).unwrap();
    }

    /// Sends events one at a time, so that each may be the one to rotate at.
    fn send_events(&mut self, count: u64) {
        for _ in 0..count {
            let number = self.sent + 1;
            self.send(&event(number));
            let mut outcomes = Vec::new();
            self.sink.poll(Duration::ZERO, &mut outcomes).unwrap();
            assert!(matches!(outcomes[..], [Outcome::DeliveredThrough(tag)] if tag == number));
        }
    }

    /// Rounds with nothing to send until `is_done`: compression happens in them.
    fn idle_until(&mut self, is_done: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_done(&self.names()) {
            assert!(Instant::now() < deadline, "{:?}", self.names());
            self.sink.poll(Duration::from_millis(1), &mut Vec::new()).unwrap();
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).unwrap().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Every line of every file, by its number in the stream.
    fn lines(&self) -> BTreeMap<u64, Value> {
        let mut lines = BTreeMap::new();
        let own = |name: &&String| name.starts_with("events-2") && !name.ends_with(".bak");
        for name in self.names().iter().filter(own) {
            let mut text = String::new();
            let file = fs::File::open(self.folder.join(name)).unwrap();
            if name.ends_with(".gz") {
                flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
            } else {
                std::io::BufReader::new(file).read_to_string(&mut text).unwrap();
            }
            for line in text.lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                let seq = line["rb-seq"].as_str().unwrap().parse().unwrap();
                assert!(lines.insert(seq, line).is_none(), "{seq} twice");
            }
        }
        lines
    }

    fn assert_whole(&self) {
        assert!(self.lines().into_keys().eq(1..=self.sent), "{:?}", self.lines().keys());
    }
}

#[test]
fn a_file_is_rotated_by_its_size_and_nothing_is_missing() {
    let mut bench = start(folder("size"), |config| config.rotate_bytes = Some(500));
    bench.send_events(50);
    assert!(bench.names().len() > 5, "{:?}", bench.names());
    bench.assert_whole();
}

#[test]
fn a_file_is_rotated_by_its_age_and_an_empty_one_is_not() {
    let age = Duration::from_nanos(1);
    let mut bench = start(folder("age"), |config| config.rotate_interval = Some(age));
    bench.send_events(5);
    bench.idle_until(|names| names.len() == 6);
    for _ in 0..10 {
        bench.sink.poll(Duration::ZERO, &mut Vec::new()).unwrap();
    }
    assert_eq!(bench.names().len(), 6, "five rotated and one that waits for its first line");
    bench.assert_whole();
}

#[test]
fn rotated_files_are_compressed_while_nothing_is_to_be_written() {
    let mut bench = start(folder("gzip"), |config| {
        config.rotate_bytes = Some(500);
        config.compress = Compress::Gzip;
    });
    bench.send_events(50);
    let rotated = bench.names().len() - 1;
    bench.idle_until(|names| names.iter().filter(|name| name.ends_with(".gz")).count() == rotated);
    assert_eq!(bench.names().len(), rotated + 1);
    bench.assert_whole();
}

#[test]
fn what_a_crash_left_of_compressing_is_done_anew() {
    let folder = folder("partial");
    let mut bench = start(folder.clone(), |config| config.rotate_bytes = Some(500));
    bench.send_events(20);
    let rotated = bench.names().len() - 1;
    let first = bench.names().into_iter().find(|name| name.ends_with('Z')).unwrap();
    fs::write(folder.join(format!("{first}.gz.partial")), "half").unwrap();
    fs::write(folder.join("events-notes.gz.partial"), "of somebody else").unwrap();
    let sent = bench.sent;
    std::mem::forget(bench);

    let mut bench = start(folder, |config| config.compress = Compress::Gzip);
    bench.sent = sent;
    bench.idle_until(|names| names.iter().filter(|name| name.ends_with("gz")).count() == rotated);
    assert!(bench.names().contains(&"events-notes.gz.partial".to_owned()));
    assert_eq!(bench.names().len(), rotated + 2, "{:?}", bench.names());
    bench.assert_whole();
}

#[test]
fn only_the_newest_of_its_own_files_are_kept() {
    let folder = folder("keep");
    let others =
        ["events-notes.txt", "events-calls-2026-11-21.ndjson", "events-2026-11-21.ndjson.bak"];
    for name in others {
        fs::write(folder.join(name), "of somebody else").unwrap();
    }
    fs::write(folder.join("events-2020-01-01.ndjson"), "{\"rb-seq\":\"0\"}\n").unwrap();
    let mut bench = start(folder, |config| {
        config.rotate_bytes = Some(500);
        config.keep_files = Some(2);
    });
    bench.send_events(60);
    let names = bench.names();
    assert_eq!(names.len(), others.len() + 3, "{names:?}");
    assert!(others.iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
    let kept = bench.lines();
    assert!(
        kept.keys().copied().eq(kept.keys().next().copied().unwrap()..=60),
        "{:?}",
        kept.keys()
    );
}

#[test]
fn a_name_that_begins_with_a_field_is_kept_to_as_well() {
    let folder = folder("field");
    let path = format!("{}/${{date}}.ndjson", folder.display());
    let mut bench = start(folder, |config| {
        config.path = path;
        config.rotate_bytes = Some(300);
        config.keep_files = Some(1);
    });
    bench.send_events(30);
    assert_eq!(bench.names().len(), 2, "{:?}", bench.names());
}

#[test]
fn a_file_that_somebody_moved_away_is_made_anew() {
    let mut bench = start(folder("moved"), |_| {});
    bench.send_events(3);
    let name = bench.names().remove(0);
    fs::rename(bench.folder.join(&name), bench.folder.join(format!("{name}.1"))).unwrap();
    bench.idle_until(|names| names.contains(&name));
    bench.send_events(3);
    bench.assert_whole();
}

#[test]
fn half_a_line_that_a_crash_left_is_cut_off() {
    let folder = folder("half");
    let mut bench = start(folder.clone(), |config| config.fsync = Fsync::Always);
    bench.send_events(3);
    let name = bench.names().remove(0);
    let sent = bench.sent;
    std::mem::forget(bench);
    let path = folder.join(name);
    let mut text = fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"Event-Name\":\"DT");
    fs::write(&path, text).unwrap();
    let mut bench = start(folder, |_| {});
    bench.sent = sent;
    bench.send_events(2);
    bench.assert_whole();
}

#[test]
fn a_published_message_has_its_identity_and_all_that_a_broker_would_carry() {
    let mut record = Record::default();
    record.begin(EventKind::PUBLISH, Class::Normal, None);
    record.header(Outgoing::PUBLISH_DESTINATION.as_bytes(), b"orders");
    record.header(Outgoing::PUBLISH_KEY.as_bytes(), b"call.new");
    record.header(b"x", b"1");
    record.body(b"{\"a\":\n1}");
    let mut bench = start(folder("published"), |_| {});
    bench.send(&record);
    bench.sink.poll(Duration::ZERO, &mut Vec::new()).unwrap();
    let line = bench.lines().remove(&1).unwrap();
    let expected = serde_json::json!({
        "Rustbridge-Destination": "orders", "Rustbridge-Key": "call.new", "x": "1", "_body": "{\"a\":\n1}",
        "rb-node": "fs1", "rb-boot": "boot", "rb-seq": "1", "rb-id": "boot-rb-1",
    });
    assert_eq!(line, expected);

    let mut bare = start(folder("bare"), |config| config.identity = false);
    bare.send(&record);
    bare.send(&event(2));
    bare.sink.poll(Duration::ZERO, &mut Vec::new()).unwrap();
    let text = fs::read_to_string(bare.folder.join(&bare.names()[0])).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0], "{\"a\":\n1}");
    assert_eq!(lines[1]["Event-Name"], "DTMF");
    assert_eq!(lines[1].get("rb-seq"), None);
}
