// SPDX-License-Identifier: MIT
//! The spool's `append` against a plain write of as many bytes, and with `fsync=always` against a plain loop of
//! `write` and `fdatasync`; and what a start costs that finds much waiting, against plainly reading those files.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mod_rustbridge::pipeline::SyncThread;
use mod_rustbridge::spool::{Disk, Fsync, Spool, SpoolConfig};

use crate::Effort;
use crate::results::Results;
use crate::rounds::Series;
use crate::support::{Folder, target};

const RECORD: usize = 4_400;
const BATCH: usize = 64;
/// What the spool puts in front of a record.
const HEAD: usize = 32;

fn config(folder: &Path, fsync: Fsync) -> SpoolConfig {
    SpoolConfig {
        dir: folder.to_owned(),
        segment_bytes: SpoolConfig::DEFAULT_SEGMENT_BYTES,
        max_bytes: 1 << 40,
        min_free_bytes: 0,
        fsync,
    }
}

/// Puts batch number `batch` into a spool, and returns how long the spool had to do with it: making the records is not
/// its work, and is not measured on the plain side either.
fn put(spool: &mut Spool, payload: &[u8], batch: u64) -> Duration {
    let first = batch * BATCH as u64 + 1;
    let mut records = spool.batch();
    for n in 0..BATCH as u64 {
        records.push(first + n, 1, |out| out.extend_from_slice(payload));
    }
    let begun = Instant::now();
    let appended = spool.append(records);
    assert!(appended.error.is_none() && appended.accepted == BATCH, "{appended:?}");
    spool.commit(Instant::now()).expect("it commits");
    begun.elapsed()
}

/// Seconds for so many batches into a new spool, as a publisher keeps it; with a pause after each when they are to come at
/// a rate.
fn append(folder: &Path, fsync: Fsync, batches: u64, rate: Option<f64>) -> f64 {
    let syncing = matches!(fsync, Fsync::Interval(_))
        .then(|| SyncThread::start("bench", || {}).expect("a thread can be started"));
    let disk = syncing.as_ref().map_or_else(Disk::default, |thread| Disk::with(thread.syncer()));
    let (mut spool, _) =
        Spool::open(config(folder, fsync), Arc::new(disk)).expect("the spool opens");
    let payload = vec![b'x'; RECORD];
    let started = Instant::now();
    let mut busy = Duration::ZERO;
    for batch in 0..batches {
        busy += put(&mut spool, &payload, batch);
        pace(started, batch, rate);
    }
    drop(spool.close());
    if let Some(thread) = syncing {
        thread.end(Instant::now() + Duration::from_secs(60)).expect("the disk answers");
    }
    drop(std::fs::remove_dir_all(folder));
    busy.as_secs_f64()
}

fn pace(started: Instant, batch: u64, rate: Option<f64>) {
    let Some(rate) = rate else { return };
    let due = started + Duration::from_secs_f64((batch + 1) as f64 * BATCH as f64 / rate);
    if let Some(early) = due.checked_duration_since(Instant::now()) {
        std::thread::sleep(early);
    }
}

/// The same with a file and nothing else.
fn plain(folder: &Path, sync: bool, batches: u64, rate: Option<f64>) -> f64 {
    std::fs::create_dir_all(folder).expect("a folder can be made");
    let mut file = File::create(folder.join("plain")).expect("a file can be made");
    let record = vec![b'x'; HEAD + RECORD];
    let mut bytes = Vec::new();
    let started = Instant::now();
    let mut busy = Duration::ZERO;
    for batch in 0..batches {
        bytes.clear();
        for _ in 0..BATCH {
            bytes.extend_from_slice(&record);
        }
        let begun = Instant::now();
        file.write_all(&bytes).expect("it can be written");
        if sync {
            file.sync_data().expect("it can be synced");
        }
        busy += begun.elapsed();
        pace(started, batch, rate);
    }
    drop(std::fs::remove_dir_all(folder));
    busy.as_secs_f64()
}

/// Fills a spool with so many batches, for [`recover`].
fn fill(folder: &Path, batches: u64) {
    let config = config(folder, Fsync::Never);
    let (mut spool, _) = Spool::open(config, Arc::new(Disk::default())).expect("the spool opens");
    let payload = vec![b'x'; RECORD];
    for batch in 0..batches {
        put(&mut spool, &payload, batch);
    }
    // Dropped and not closed, as a crash leaves it: the last segment is scanned.
}

/// Seconds to open what is there and to read all of it.
fn recover(folder: &Path, batches: u64) -> f64 {
    let started = Instant::now();
    let config = config(folder, Fsync::Never);
    let (mut spool, found) =
        Spool::open(config, Arc::new(Disk::default())).expect("the spool opens");
    assert_eq!(found.records, batches * BATCH as u64);
    let (mut read, mut records) = (Vec::new(), 0);
    loop {
        spool.read(1_000, 1 << 20, &mut read).expect("it can be read");
        if read.is_empty() {
            break;
        }
        records += read.len() as u64;
        read.clear();
    }
    assert_eq!(records, found.records);
    started.elapsed().as_secs_f64()
}

/// Seconds to read the same files plainly.
fn read_plainly(folder: &Path) -> f64 {
    let started = Instant::now();
    let mut bytes = vec![0; 1 << 20];
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let mut file = File::open(entry.expect("it has files").path()).expect("they can be read");
        while file.read(&mut bytes).expect("they can be read") > 0 {}
    }
    started.elapsed().as_secs_f64()
}

pub fn run(effort: Effort, results: &mut Results) {
    // Below the target folder: /tmp may be memory.
    std::fs::create_dir_all(target().join("tmp")).expect("the target folder can be written");
    let ground = Folder::new("bench-spool");
    let folder = target().join("tmp").join(ground.path().file_name().expect("a name"));
    let interval = Fsync::Interval(Duration::from_millis(100));
    let flat_out = [
        ("fsync=never, flat out", Fsync::Never, false, 400, None),
        ("fsync=interval, flat out", interval, false, 400, None),
        ("fsync=interval, 5 000 events/s", interval, false, 300, Some(5_000.0)),
        ("fsync=interval, 20 000 events/s", interval, false, 600, Some(20_000.0)),
        ("fsync=always", Fsync::Always, true, 100, None),
    ];
    let mut measured: Vec<(Series, Series)> = flat_out.iter().map(|_| Default::default()).collect();
    for _ in 0..effort.rounds {
        for ((_, fsync, sync, batches, rate), (ours, theirs)) in flat_out.iter().zip(&mut measured)
        {
            ours.push(append(&folder, *fsync, *batches, *rate));
            theirs.push(plain(&folder, *sync, *batches, *rate));
        }
    }
    for ((name, _, sync, _, _), (ours, theirs)) in flat_out.iter().zip(&measured) {
        let baseline = if *sync { "write + fdatasync" } else { "write" };
        results.ratio(&format!("time in append and commit / plain {baseline}"), name, ours, theirs);
    }
    recovery(effort, &folder, results);
}

fn recovery(effort: Effort, folder: &Path, results: &mut Results) {
    let bytes: u64 = if effort.short { 128 << 20 } else { 1 << 30 };
    let batches = bytes / (BATCH * (HEAD + RECORD)) as u64;
    fill(folder, batches);
    let (mut ours, mut theirs) = (Series::default(), Series::default());
    for _ in 0..effort.rounds {
        ours.push(recover(folder, batches));
        theirs.push(read_plainly(folder));
    }
    drop(std::fs::remove_dir_all(folder));
    let name = format!("{} MiB waiting", bytes >> 20);
    results.ratio("time to open and read all / plain read", &name, &ours, &theirs);
}
