// SPDX-License-Identifier: MIT
//! What a spool takes as it fills, up to 10 GiB: an append, a start, and the first records of what waits.
//!
//! Beside each append a plain write of as many bytes: what the system takes for a file when so much of its memory holds
//! others is in both.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use mod_rustbridge::spool::{Disk, Fsync, Spool};

use crate::Effort;
use crate::curve::Curve;
use crate::results::Results;
use crate::spool::{
    BATCH, HEAD, INTERVAL, LONG, Plain, RECORD, Spent, config, plain, put, syncing,
};
use crate::support::{Folder, target};

const BATCH_BYTES: u64 = (BATCH * (HEAD + RECORD)) as u64;
/// How many batches make one point of the curve.
const MEASURED: u64 = 128;

/// Fills the spool up to `bytes`, then measures. Returns microseconds on the processor for one batch more.
fn append(folder: &Path, batches: &mut u64, bytes: u64) -> f64 {
    let thread = syncing();
    let disk = Disk::with(thread.syncer());
    let (mut spool, found) =
        Spool::open(config(folder, Fsync::Interval(INTERVAL)), Arc::new(disk)).expect("it opens");
    assert_eq!(found.records, *batches * BATCH as u64);
    let payload = vec![b'x'; RECORD];
    while (*batches + MEASURED) * BATCH_BYTES < bytes {
        put(&mut spool, &payload, *batches, &mut Spent::default());
        *batches += 1;
    }
    let mut spent = Spent::default();
    for _ in 0..MEASURED {
        put(&mut spool, &payload, *batches, &mut spent);
        *batches += 1;
    }
    drop(spool.close());
    thread.end(Instant::now() + LONG).expect("the disk answers");
    spent.processor.as_secs_f64() * 1e6 / MEASURED as f64
}

/// Milliseconds to open it, and microseconds to read the first batch of what waits.
fn open(folder: &Path) -> (f64, f64) {
    let started = Instant::now();
    let (mut spool, _) =
        Spool::open(config(folder, Fsync::Interval(INTERVAL)), Arc::new(Disk::default()))
            .expect("it opens");
    let opened = started.elapsed().as_secs_f64() * 1e3;
    let (started, mut read) = (Instant::now(), 0);
    spool.read(BATCH, 1 << 20, &mut |_| read += 1).expect("it can be read");
    assert_eq!(read, BATCH);
    (opened, started.elapsed().as_secs_f64() * 1e6)
}

pub fn run(effort: Effort, results: &mut Results) {
    let sizes: &[u32] =
        if effort.short { &[64, 256, 1_024] } else { &[64, 256, 1_024, 2_560, 5_120, 10_240] };
    let mut appends = Curve::new("append of 64 events", "MiB in the spool", "us", sizes);
    let mut writes = Curve::new("plain write of 64 events", "MiB in the spool", "us", sizes);
    let mut opens = Curve::new("start", "MiB in the spool", "ms", sizes);
    let mut reads = Curve::new("first 64 events read", "MiB in the spool", "us", sizes);
    // Below the target folder: /tmp may be memory.
    fs::create_dir_all(target().join("tmp")).expect("the target folder can be written");
    let ground = Folder::new("bench-filling");
    let folder = target().join("tmp").join(ground.path().file_name().expect("a name"));
    // Each round writes all of it.
    for _ in 0..effort.rounds.min(4) {
        let mut batches = 0;
        for (at, size) in sizes.iter().enumerate() {
            let took = append(&folder, &mut batches, u64::from(*size) << 20);
            appends.points[at].1.push(took);
            let beside = plain(&folder.with_extension("plain"), Plain::Write, MEASURED, None);
            writes.points[at].1.push(beside.processor.as_secs_f64() * 1e6 / MEASURED as f64);
            let (opened, read) = open(&folder);
            opens.points[at].1.push(opened);
            reads.points[at].1.push(read);
        }
        drop(fs::remove_dir_all(&folder));
    }
    for curve in [&appends, &writes, &opens, &reads] {
        curve.report(results);
    }
}
