// SPDX-License-Identifier: MIT
//! The real file system: what the one in memory cannot vouch for.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::rig::{INTERVAL, Rec, drain};
use crate::spool::format::{self, Footer, Header, Identity, Link};
use crate::spool::{Disk, Entry, Fsync, Heal, Spool, SpoolConfig, SpoolError, SpoolState};

struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("spool-test-{}-{n}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn settings(dir: &Path, fsync: Fsync) -> SpoolConfig {
    SpoolConfig {
        dir: dir.to_path_buf(),
        segment_bytes: 1 << 20,
        max_bytes: 64 << 20,
        min_free_bytes: 0,
        fsync,
    }
}

fn append(spool: &mut Spool, seqs: std::ops::Range<u64>, size: usize) {
    let recs: Vec<Rec> = seqs.map(|seq| Rec::new(seq, 1, size)).collect();
    let entries: Vec<Entry<'_>> = recs.iter().map(Rec::entry).collect();
    let appended = spool.append(&entries);
    assert!(appended.error.is_none(), "{:?}", appended.error);
}

#[test]
fn records_survive_closing_and_dying_on_a_real_disk() {
    let dir = Dir::new();
    let home = dir.0.join("deep/er");
    let (mut spool, _) = Spool::open(settings(&home, INTERVAL), Arc::new(Disk::default())).unwrap();
    assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o750);
    append(&mut spool, 0..2000, 1500);
    spool.commit(Instant::now()).unwrap();
    let stored = drain(&mut spool);
    assert_eq!(stored.len(), 2000);
    spool.advance(stored[499].position);
    drop(spool);
    let (mut spool, recovery) =
        Spool::open(settings(&home, INTERVAL), Arc::new(Disk::default())).unwrap();
    assert!(recovery.lines().is_empty(), "{:?}", recovery.lines());
    let stored = drain(&mut spool);
    assert!(stored.len() >= 1500);
    assert!(stored.iter().all(|s| s.payload == Rec::new(s.seq, 1, 1500).payload));
    spool.advance(stored.last().unwrap().position);
    spool.close().unwrap();
    let left: Vec<_> = fs::read_dir(&home).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "lock and cursor: {left:?}");
}

#[test]
fn another_process_is_named_by_its_number() {
    let dir = Dir::new();
    let lock = dir.0.join("lock");
    let mut other = Command::new("flock")
        .arg(&lock)
        .args(["sh", "-c", "echo $$ > \"$0\"; echo locked; read line"])
        .arg(&lock)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("flock, of util-linux");
    let mut line = String::new();
    BufReader::new(other.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let pid = fs::read_to_string(&lock).unwrap().trim().to_owned();
    let error = Spool::open(settings(&dir.0, INTERVAL), Arc::new(Disk::default())).unwrap_err();
    assert!(matches!(&error, SpoolError::Locked { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("process {pid}")) && text.contains("lock"), "{text}");
    drop(other.stdin.take());
    other.wait().unwrap();
    assert!(Spool::open(settings(&dir.0, INTERVAL), Arc::new(Disk::default())).is_ok());
}

#[test]
fn two_spools_of_one_process_do_not_share_a_folder() {
    let dir = Dir::new();
    let first = Spool::open(settings(&dir.0, INTERVAL), Arc::new(Disk::default())).unwrap();
    let error =
        Spool::open(settings(&dir.0, INTERVAL), Arc::new(Disk::default())).unwrap_err().to_string();
    assert!(error.contains("another sink of this process"), "{error}");
    drop(first);
    assert!(Spool::open(settings(&dir.0, INTERVAL), Arc::new(Disk::default())).is_ok());
}

#[test]
fn a_path_through_a_file_is_refused_by_name() {
    let dir = Dir::new();
    let file = dir.0.join("file");
    fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = Spool::open(settings(&path, INTERVAL), Arc::new(Disk::default()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("not a folder") && error.contains("file"), "{error}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "x");
}

#[test]
fn foreign_files_are_named_and_left_alone() {
    let dir = Dir::new();
    fs::write(dir.0.join("notes.txt"), "keep").unwrap();
    fs::write(dir.0.join("12.seg"), "keep").unwrap();
    fs::create_dir(dir.0.join("0000000100000001.seg")).unwrap();
    fs::write(dir.0.join("0000000100000002.tmp"), "an unfinished one of ours").unwrap();
    let (spool, recovery) =
        Spool::open(settings(&dir.0, INTERVAL), Arc::new(Disk::default())).unwrap();
    assert_eq!(recovery.foreign.len(), 3, "{:?}", recovery.foreign);
    assert_eq!(recovery.lines().len(), 1);
    spool.close().unwrap();
    assert_eq!(fs::read_to_string(dir.0.join("notes.txt")).unwrap(), "keep");
    assert_eq!(fs::read_to_string(dir.0.join("12.seg")).unwrap(), "keep");
    assert!(!dir.0.join("0000000100000002.tmp").exists());
}

#[test]
fn a_folder_deleted_under_a_running_spool_comes_back() {
    let dir = Dir::new();
    let home = dir.0.join("spool");
    let (mut spool, _) = Spool::open(settings(&home, INTERVAL), Arc::new(Disk::default())).unwrap();
    append(&mut spool, 0..10, 100);
    let mut now = Instant::now();
    spool.commit(now).unwrap();
    append(&mut spool, 10..15, 100);
    fs::remove_dir_all(&home).unwrap();
    now += Duration::from_secs(5);
    drop(spool.commit(now));
    assert!(matches!(spool.stats().state, SpoolState::Degraded(_)));
    assert_eq!(spool.try_heal(now), Heal::Healed);
    let lost: u64 = spool.take_damage().iter().filter_map(|damage| damage.records).sum();
    append(&mut spool, 15..20, 100);
    now += Duration::from_secs(5);
    spool.commit(now).unwrap();
    let stored = drain(&mut spool);
    assert_eq!(stored.len() as u64 + lost, 20);
    assert!(home.join("lock").exists());
}

#[test]
fn a_gigabyte_of_sealed_segments_opens_by_reading_a_few_kilobytes() {
    let dir = Dir::new();
    let segment: u64 = 32 << 20;
    for ordinal in 0..32 {
        // Files with holes for the records: were they read, they would be damage.
        let identity = Identity::new((1 << 32) + ordinal, 77 + ordinal);
        let header = Header { identity, first_seq: ordinal, created_ms: 0, link: Link::None };
        let data_end = segment - 64;
        let footer = Footer { identity, records: 7000, data_end, last_seq: ordinal };
        let file = fs::File::create(dir.0.join(format::segment_name(identity.ordinal))).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &format::encode_header(&header), 0)
            .unwrap();
        let footer = format::encode_footer(&footer);
        std::os::unix::fs::FileExt::write_all_at(&file, &footer, data_end).unwrap();
    }
    let mut settings = settings(&dir.0, INTERVAL);
    settings.segment_bytes = segment;
    settings.max_bytes = 2 << 30;
    let (mut spool, recovery) = Spool::open(settings, Arc::new(Disk::default())).unwrap();
    assert_eq!(recovery.records, 32 * 7000);
    assert_eq!(recovery.damage, []);
    assert_eq!(recovery.bytes_read, 32 * 128);
    assert_eq!(spool.stats().disk_bytes, 1 << 30);
}
