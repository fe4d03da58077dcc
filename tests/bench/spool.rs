// SPDX-License-Identifier: MIT
//! The spool's `append` against a plain write of as many bytes, and with `fsync=always` against a plain loop of
//! `write` and `fdatasync`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mod_rustbridge::spool::{Disk, Entry, Fsync, Spool, SpoolConfig};

use crate::Effort;
use crate::results::Results;
use crate::rounds::Series;
use crate::support::{Folder, target};

const RECORD: usize = 4_400;
const BATCH: usize = 64;

/// Seconds for so many batches into a new spool; with a pause after each when they are to come at a rate.
fn append(folder: &Path, fsync: Fsync, batches: u64, rate: Option<f64>) -> f64 {
    let config = SpoolConfig {
        dir: folder.to_owned(),
        segment_bytes: SpoolConfig::DEFAULT_SEGMENT_BYTES,
        max_bytes: 1 << 40,
        min_free_bytes: 0,
        fsync,
    };
    let (mut spool, _) = Spool::open(config, Arc::new(Disk::default())).expect("the spool opens");
    let payload = vec![b'x'; RECORD];
    let started = Instant::now();
    let mut busy = Duration::ZERO;
    for batch in 0..batches {
        let begun = Instant::now();
        let first = batch * BATCH as u64 + 1;
        let entries: Vec<Entry<'_>> = (0..BATCH as u64)
            .map(|n| Entry { seq: first + n, class: 1, payload: &payload })
            .collect();
        let appended = spool.append(&entries);
        assert!(appended.error.is_none() && appended.accepted == BATCH, "{appended:?}");
        spool.commit(Instant::now()).expect("it commits");
        busy += begun.elapsed();
        pace(started, batch, rate);
    }
    drop(spool.close());
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
    let bytes = vec![b'x'; BATCH * (RECORD + 40)];
    let started = Instant::now();
    let mut busy = Duration::ZERO;
    for batch in 0..batches {
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
}
