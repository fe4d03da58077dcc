// SPDX-License-Identifier: MIT
//! The spool against a plain file: `append` and `commit` against a plain write of as many bytes, alone and with the same
//! promise of durability; and what a start costs that finds much waiting, against plainly reading those files.
//!
//! A plain file that is never synced shows what the spool does above writing. It is no match for a spool that syncs, once
//! both write faster than the disk: then the one waits for it, and the other has promised nothing. So for `fsync=interval` there is a
//! second plain file, synced on another thread on the very same terms: every 100 ms or when 2 MiB wait, and waited
//! for at 8 MiB.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mod_rustbridge::pipeline::SyncThread;
use mod_rustbridge::spool::{
    Disk, Fsync, MAX_UNDURABLE_BYTES, Spool, SpoolConfig, Syncer, Syncing,
};
use rustix::time::{ClockId, clock_gettime};

use crate::Effort;
use crate::results::Results;
use crate::rounds::Series;
use crate::support::{Folder, target};

/// What an event of 85 headers takes, its names as numbers.
pub const RECORD: usize = 1_200;
pub const BATCH: usize = 64;
/// What the spool puts in front of a record.
pub const HEAD: usize = 32;
pub const INTERVAL: Duration = Duration::from_millis(100);
pub const LONG: Duration = Duration::from_secs(60);

/// What was spent on batches alone: making the records is no side's work.
#[derive(Clone, Copy, Default)]
pub struct Spent {
    time: Duration,
    /// On the processor, by this thread.
    pub processor: Duration,
}

impl Spent {
    fn on(&mut self, work: impl FnOnce()) {
        let (begun, used) = (Instant::now(), processor_time());
        work();
        self.time += begun.elapsed();
        self.processor += processor_time().saturating_sub(used);
    }
}

fn processor_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).expect("it is below 10⁹"))
}

pub fn config(folder: &Path, fsync: Fsync) -> SpoolConfig {
    SpoolConfig {
        dir: folder.to_owned(),
        segment_bytes: SpoolConfig::DEFAULT_SEGMENT_BYTES,
        max_bytes: 1 << 40,
        min_free_bytes: 0,
        fsync,
    }
}

pub fn syncing() -> SyncThread {
    SyncThread::start("bench", || {}).expect("a thread can be started")
}

/// Puts batch number `batch` into a spool.
pub fn put(spool: &mut Spool, payload: &[u8], batch: u64, spent: &mut Spent) {
    let first = batch * BATCH as u64 + 1;
    let mut records = spool.batch();
    for n in 0..BATCH as u64 {
        records.push(first + n, 1, |out| out.extend_from_slice(payload));
    }
    spent.on(|| {
        let appended = spool.append(records);
        assert!(appended.error.is_none() && appended.accepted == BATCH, "{appended:?}");
        spool.commit(Instant::now()).expect("it commits");
    });
}

/// So many batches into a new spool, as a publisher keeps it; with a pause after each when they are to come at a rate.
fn append(folder: &Path, fsync: Fsync, batches: u64, rate: Option<f64>) -> Spent {
    let thread = matches!(fsync, Fsync::Interval(_)).then(syncing);
    let disk = thread.as_ref().map_or_else(Disk::default, |thread| Disk::with(thread.syncer()));
    let (mut spool, _) =
        Spool::open(config(folder, fsync), Arc::new(disk)).expect("the spool opens");
    let payload = vec![b'x'; RECORD];
    let (started, mut spent) = (Instant::now(), Spent::default());
    for batch in 0..batches {
        put(&mut spool, &payload, batch, &mut spent);
        pace(started, batch, rate);
    }
    drop(spool.close());
    if let Some(thread) = thread {
        thread.end(Instant::now() + LONG).expect("the disk answers");
    }
    drop(fs::remove_dir_all(folder));
    spent
}

fn pace(started: Instant, batch: u64, rate: Option<f64>) {
    let Some(rate) = rate else { return };
    let due = started + Duration::from_secs_f64((batch + 1) as f64 * BATCH as f64 / rate);
    if let Some(early) = due.checked_duration_since(Instant::now()) {
        std::thread::sleep(early);
    }
}

/// What is done about durability on the plain side.
#[derive(Clone, Copy, PartialEq)]
pub enum Plain {
    Write,
    /// As `fsync=interval` does it.
    SyncedElsewhere,
    Fdatasync,
}

/// A plain file's syncs on another thread.
struct Elsewhere {
    syncer: Arc<dyn Syncer>,
    underway: Option<(Box<dyn Syncing>, usize)>,
    undurable: usize,
    begun: Instant,
}

impl Elsewhere {
    fn wrote(&mut self, file: &File, bytes: usize) {
        self.undurable += bytes;
        let patience = if self.undurable >= MAX_UNDURABLE_BYTES { LONG } else { Duration::ZERO };
        if let Some((sync, covered)) = &mut self.underway
            && let Some(result) = sync.wait(patience)
        {
            result.expect("it can be synced");
            self.undurable -= *covered;
            self.underway = None;
        }
        let is_due = self.undurable >= MAX_UNDURABLE_BYTES / 4 || self.begun.elapsed() >= INTERVAL;
        if self.underway.is_none() && is_due {
            self.begun = Instant::now();
            let sync = self.syncer.begin(file.try_clone().expect("a descriptor is left"));
            self.underway = sync.map(|sync| (sync, self.undurable));
        }
    }
}

/// The same with a file and nothing else.
pub fn plain(folder: &Path, how: Plain, batches: u64, rate: Option<f64>) -> Spent {
    fs::create_dir_all(folder).expect("a folder can be made");
    let mut file = File::create(folder.join("plain")).expect("a file can be made");
    let thread = (how == Plain::SyncedElsewhere).then(syncing);
    let mut elsewhere = thread.as_ref().map(|thread| Elsewhere {
        syncer: thread.syncer(),
        underway: None,
        undurable: 0,
        begun: Instant::now(),
    });
    let record = vec![b'x'; HEAD + RECORD];
    let mut bytes = Vec::new();
    let (started, mut spent) = (Instant::now(), Spent::default());
    for batch in 0..batches {
        bytes.clear();
        for _ in 0..BATCH {
            bytes.extend_from_slice(&record);
        }
        spent.on(|| {
            file.write_all(&bytes).expect("it can be written");
            if how == Plain::Fdatasync {
                file.sync_data().expect("it can be synced");
            }
            if let Some(elsewhere) = &mut elsewhere {
                elsewhere.wrote(&file, bytes.len());
            }
        });
        pace(started, batch, rate);
    }
    drop(elsewhere);
    if let Some(thread) = thread {
        thread.end(Instant::now() + LONG).expect("the disk answers");
    }
    drop(fs::remove_dir_all(folder));
    spent
}

/// One comparison.
struct Case {
    name: &'static str,
    fsync: Fsync,
    against: &'static [Plain],
    batches: u64,
    rate: Option<f64>,
}

const WRITE: &[Plain] = &[Plain::Write];
const BOTH: &[Plain] = &[Plain::Write, Plain::SyncedElsewhere];

const CASES: [Case; 5] = [
    Case {
        name: "fsync=never, flat out",
        fsync: Fsync::Never,
        against: WRITE,
        batches: 400,
        rate: None,
    },
    Case {
        name: "fsync=interval, 5 000 events/s",
        fsync: Fsync::Interval(INTERVAL),
        against: BOTH,
        batches: 150,
        rate: Some(5_000.0),
    },
    Case {
        name: "fsync=interval, 20 000 events/s",
        fsync: Fsync::Interval(INTERVAL),
        against: BOTH,
        batches: 400,
        rate: Some(20_000.0),
    },
    // Faster than the disk: what is compared is who waits for it, so there is one baseline only.
    Case {
        name: "fsync=interval, flat out",
        fsync: Fsync::Interval(INTERVAL),
        against: &[Plain::SyncedElsewhere],
        batches: 400,
        rate: None,
    },
    Case {
        name: "fsync=always",
        fsync: Fsync::Always,
        against: &[Plain::Fdatasync],
        batches: 100,
        rate: None,
    },
];

pub fn run(effort: Effort, results: &mut Results) {
    // Below the target folder: /tmp may be memory.
    fs::create_dir_all(target().join("tmp")).expect("the target folder can be written");
    let ground = Folder::new("bench-spool");
    let folder = target().join("tmp").join(ground.path().file_name().expect("a name"));
    let mut measured: Vec<Vec<[Series; 2]>> =
        CASES.iter().map(|case| vec![Default::default(); 1 + case.against.len()]).collect();
    for _ in 0..effort.rounds {
        for (Case { fsync, against, batches, rate, .. }, series) in CASES.iter().zip(&mut measured)
        {
            let ours = append(&folder, *fsync, *batches, *rate);
            let theirs = against.iter().map(|how| plain(&folder, *how, *batches, *rate));
            let spent = std::iter::once(ours).chain(theirs);
            for ([time, processor], spent) in series.iter_mut().zip(spent) {
                time.push(spent.time.as_secs_f64() * 1e3);
                processor.push(spent.processor.as_secs_f64() * 1e3);
            }
        }
    }
    for (case, series) in CASES.iter().zip(&measured) {
        let [time, processor] = &series[0];
        for (how, [their_time, their_processor]) in case.against.iter().zip(&series[1..]) {
            let baseline = match how {
                Plain::Write => "plain write",
                Plain::SyncedElsewhere => "plain write, synced on the same terms",
                Plain::Fdatasync => "plain write and fdatasync",
            };
            results.ratio(&format!("time / {baseline}"), case.name, time, their_time);
            // Where there is a sync in it, that is what the processor is spent on.
            if *how == Plain::Write {
                let what = format!("processor time / {baseline}");
                results.ratio(&what, case.name, processor, their_processor);
            }
        }
    }
    recovery(effort, &folder, results);
}

/// Fills a spool with so many batches and leaves it as a crash does. Returns the file of the segment that was not sealed.
fn fill(folder: &Path, batches: u64) -> PathBuf {
    let config = config(folder, Fsync::Interval(INTERVAL));
    let thread = syncing();
    let disk = Disk::with(thread.syncer());
    let (mut spool, _) = Spool::open(config, Arc::new(disk)).expect("the spool opens");
    let payload = vec![b'x'; RECORD];
    for batch in 0..batches {
        put(&mut spool, &payload, batch, &mut Spent::default());
    }
    drop(spool);
    thread.end(Instant::now() + LONG).expect("the disk answers");
    let files = fs::read_dir(folder).expect("the folder is there");
    let files = files.map(|entry| entry.expect("it has files").path());
    files.filter(|path| path.extension().is_some()).max().expect("there are segments")
}

/// Milliseconds to open what is there, and to read all of it after that.
fn recover(folder: &Path, batches: u64) -> (f64, f64) {
    let started = Instant::now();
    let config = config(folder, Fsync::Interval(INTERVAL));
    let (mut spool, found) =
        Spool::open(config, Arc::new(Disk::default())).expect("the spool opens");
    let opened = started.elapsed().as_secs_f64() * 1e3;
    assert_eq!(found.records, batches * BATCH as u64);
    let mut records = 0;
    loop {
        let before = records;
        spool.read(1_000, 1 << 20, &mut |_| records += 1).expect("it can be read");
        if records == before {
            break;
        }
    }
    assert_eq!(records, found.records);
    (opened, started.elapsed().as_secs_f64() * 1e3)
}

/// Milliseconds to read the same files plainly.
fn read_plainly(folder: &Path) -> f64 {
    let started = Instant::now();
    let mut bytes = vec![0; 1 << 20];
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let mut file = File::open(entry.expect("it has files").path()).expect("they can be read");
        while file.read(&mut bytes).expect("they can be read") > 0 {}
    }
    started.elapsed().as_secs_f64() * 1e3
}

fn recovery(effort: Effort, folder: &Path, results: &mut Results) {
    let bytes: u64 = if effort.short { 128 << 20 } else { 1 << 30 };
    let batches = bytes / (BATCH * (HEAD + RECORD)) as u64;
    let last = fill(folder, batches);
    let unsealed = fs::read(&last).expect("it can be read");
    let (mut opened, mut all, mut plain) =
        (Series::default(), Series::default(), Series::default());
    for _ in 0..effort.rounds {
        // The start before has sealed it.
        fs::write(&last, &unsealed).expect("it can be written");
        File::open(&last).and_then(|file| file.sync_all()).expect("it can be synced");
        let (to_open, to_read) = recover(folder, batches);
        opened.push(to_open);
        all.push(to_read);
        plain.push(read_plainly(folder));
    }
    drop(fs::remove_dir_all(folder));
    let name = format!("{} MiB waiting, after a crash", bytes >> 20);
    results.figure("time to open", &name, "ms", &opened);
    results.ratio("time to open / plain read", &name, &opened, &plain);
    results.figure("time to open and read all", &name, "ms", &all);
    results.ratio("time to open and read all / plain read", &name, &all, &plain);
}
