// SPDX-License-Identifier: MIT
//! The thread on which a spool's files are forced onto the disk, and read ahead from it, while its publisher goes on.
//!
//! No call that syncs has a deadline, nor one that makes room for what is read. So it is this thread that may hang on a disk
//! that does not answer: the publisher waits for it as long as it likes, and who wants to end leaves it behind.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use crate::pipeline::thread::{Owned, Prepare, SpawnError, ThreadError, spawn};
use crate::spool::{Syncer, Syncing, Wanted};

/// Such a thread, owned by the store whose spool it serves.
#[derive(Debug)]
pub struct SyncThread {
    jobs: Jobs,
    thread: Owned,
}

#[derive(Debug)]
enum Job {
    Sync { file: File, done: Sender<io::Result<()>> },
    ReadAhead(Wanted),
}

/// How long after its deadline the end of a thread is looked for that has nothing left to do.
const GRACE: Duration = Duration::from_millis(50);

impl SyncThread {
    /// Starts it for the sink `name`.
    ///
    /// # Errors
    ///
    /// When the process can start no thread.
    pub fn start(name: &str, prepare: Prepare) -> Result<Self, SpawnError> {
        Self::running(name, prepare, File::sync_data)
    }

    /// One that makes files durable by this call.
    fn running(
        name: &str,
        prepare: Prepare,
        sync: impl Fn(&File) -> io::Result<()> + Send + 'static,
    ) -> Result<Self, SpawnError> {
        // A spool has one sync under way, and leaves another behind only with a folder that somebody has deleted.
        let (jobs, inbox) = unbounded::<Job>();
        let jobs = Jobs { jobs, unfinished: Arc::default() };
        let unfinished = Arc::clone(&jobs.unfinished);
        let thread = spawn(&format!("rs-{name}"), prepare, move || {
            for job in inbox {
                match job {
                    // Nobody may want to know any more.
                    Job::Sync { file, done } => drop(done.send(sync(&file))),
                    Job::ReadAhead(wanted) => wanted.fetch(),
                }
                unfinished.fetch_sub(1, Ordering::Relaxed);
            }
        })?;
        Ok(Self { jobs, thread })
    }

    /// What a spool asks it by.
    pub fn syncer(&self) -> Arc<dyn Syncer> {
        Arc::new(self.jobs.clone())
    }

    /// Ends it, once the spool is gone. What it is at is waited for until `deadline`; then it stays behind, and ends when the
    /// disk has answered.
    ///
    /// # Errors
    ///
    /// When it still runs: with its name.
    pub fn end(self, deadline: Instant) -> Result<(), ThreadError> {
        drop(self.jobs);
        self.thread.join_by(deadline.max(Instant::now() + GRACE))
    }
}

#[derive(Clone, Debug)]
struct Jobs {
    jobs: Sender<Job>,
    /// How many are not done. While any is, nothing is read ahead: it would wait behind a disk that does not answer, and syncs behind it.
    unfinished: Arc<AtomicUsize>,
}

impl Syncer for Jobs {
    fn begin(&self, file: File) -> Option<Box<dyn Syncing>> {
        let (done, result) = bounded(1);
        self.unfinished.fetch_add(1, Ordering::Relaxed);
        self.jobs.send(Job::Sync { file, done }).ok()?;
        Some(Box::new(Begun(result)))
    }

    fn read_ahead(&self, wanted: Wanted) -> bool {
        if self.unfinished.load(Ordering::Relaxed) > 0 {
            return false;
        }
        self.unfinished.fetch_add(1, Ordering::Relaxed);
        // Without the thread nothing is read ahead: it ends after the spool.
        self.jobs.send(Job::ReadAhead(wanted)).is_ok()
    }
}

#[derive(Debug)]
struct Begun(Receiver<io::Result<()>>);

impl Syncing for Begun {
    fn wait(&mut self, patience: Duration) -> Option<io::Result<()>> {
        match self.0.recv_timeout(patience) {
            Ok(result) => Some(result),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                Some(Err(io::Error::other("the thread that syncs has ended")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::spool::{Disk, Fsync, Heal, Spool, SpoolConfig, SpoolState, Storage};

    /// How long anything may take that is waited for.
    const LIMIT: Duration = Duration::from_secs(60);

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("syncer-{name}-{}", std::process::id())))
        }

        fn open(&self, thread: &SyncThread) -> (Spool, u64) {
            let config = SpoolConfig {
                dir: self.0.clone(),
                segment_bytes: 1 << 20,
                max_bytes: 64 << 20,
                min_free_bytes: 0,
                fsync: Fsync::Interval(Duration::from_millis(1)),
            };
            let disk = Disk::with(thread.syncer());
            let (spool, recovery) = Spool::open(config, Arc::new(disk)).unwrap();
            (spool, recovery.records)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    /// A thread on which each sync hangs until it is told what becomes of it; without the sender all is well again.
    fn hanging() -> (SyncThread, Sender<io::Result<()>>) {
        let (answer, answers) = unbounded::<io::Result<()>>();
        let sync = move |file: &File| answers.recv().unwrap_or_else(|_| file.sync_data());
        (SyncThread::running("disk", || {}, sync).unwrap(), answer)
    }

    fn put(spool: &mut Spool, seq: u64) -> bool {
        let mut batch = spool.batch();
        batch.push(seq, 1, |out| out.resize(out.len() + 10_000, 7));
        spool.append(batch).accepted == 1
    }

    /// Appends until nothing more is taken, and returns how many were.
    fn fill(spool: &mut Spool) -> u64 {
        let taken = (1..1000).take_while(|seq| put(spool, *seq)).count();
        u64::try_from(taken).unwrap()
    }

    fn heal(spool: &mut Spool) {
        let end = Instant::now() + LIMIT;
        while spool.commit(Instant::now()).is_err()
            || !matches!(spool.try_heal(Instant::now()), Heal::Healed)
        {
            assert!(Instant::now() < end, "it heals: {:?}", spool.stats());
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_disk_that_does_not_answer_is_left_alone_until_it_does() {
        for answer in [Ok(()), Err(io::Error::other("it is broken"))] {
            let dir = Dir::new("answers");
            let (thread, answers) = hanging();
            let (mut spool, _) = dir.open(&thread);
            let taken = fill(&mut spool);
            assert!(taken > 90, "as many as a segment holds: {taken}");
            let SpoolState::Degraded(why) = spool.stats().state else { panic!("it hangs") };
            assert!(why.contains("its disk does not answer"), "{why}");
            assert!(matches!(spool.try_heal(Instant::now()), Heal::NotYet(_)));
            answers.send(answer).unwrap();
            drop(answers);
            heal(&mut spool);
            assert!(put(&mut spool, 1000));
            spool.close().unwrap();
            thread.end(Instant::now() + LIMIT).unwrap();
            let (again, _) = hanging();
            assert_eq!(dir.open(&again).1, taken + 1);
        }
    }

    #[test]
    fn nothing_is_read_ahead_while_the_disk_is_silent() {
        let dir = Dir::new("ahead");
        std::fs::create_dir_all(&dir.0).unwrap();
        let path = dir.0.join("file");
        std::fs::write(&path, [7; 8192]).unwrap();
        let (thread, answers) = hanging();
        let disk = Disk::with(thread.syncer());
        let file = disk.open(&path).unwrap();
        let mut sync = file.begin_sync().unwrap();
        let ask = || file.will_read(0, 4096);
        assert!((0..100).all(|_| !ask()), "the sync is not over");
        assert!(sync.wait(Duration::ZERO).is_none());
        drop(answers);
        assert!(sync.wait(LIMIT).unwrap().is_ok());
        // Once that is over one part is read, and the next when that is.
        for _ in 0..2 {
            let end = Instant::now() + LIMIT;
            while !ask() {
                assert!(Instant::now() < end, "it reads ahead");
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
        drop((file, disk));
        thread.end(Instant::now() + LIMIT).unwrap();
    }

    #[test]
    fn a_disk_that_does_not_answer_is_left_behind_at_the_end() {
        let dir = Dir::new("behind");
        let (thread, answers) = hanging();
        let (mut spool, _) = dir.open(&thread);
        let taken = fill(&mut spool);
        spool.hurry(Instant::now());
        let error = spool.close().unwrap_err().to_string();
        assert!(error.contains(&format!("{taken} records are written and not known")), "{error}");
        let name = thread.thread.name().to_owned();
        assert_eq!(thread.end(Instant::now()), Err(ThreadError::Late(name)));
        // Nobody but the kernel has lost anything, and it has not either.
        let (another, _) = hanging();
        assert_eq!(dir.open(&another).1, taken);
        drop(answers);
    }
}
