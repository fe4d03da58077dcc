// SPDX-License-Identifier: MIT
//! The thread on which a spool's files are forced onto the disk while its publisher goes on.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::pipeline::thread::{Owned, Prepare, SpawnError, spawn};
use crate::spool::{Syncer, Syncing};

/// Such a thread, owned by the store whose spool it serves.
#[derive(Debug)]
pub struct SyncThread {
    jobs: Sender<Job>,
    thread: Owned,
}

#[derive(Debug)]
struct Job {
    file: File,
    done: Sender<io::Result<()>>,
}

/// A spool has one sync under way at a time.
const JOBS: usize = 1;

impl SyncThread {
    /// Starts it for the sink `name`.
    ///
    /// # Errors
    ///
    /// When the process can start no thread.
    pub fn start(name: &str, prepare: Prepare) -> Result<Self, SpawnError> {
        let (jobs, inbox) = bounded::<Job>(JOBS);
        let thread = spawn(&format!("rs-{name}"), prepare, move || {
            for Job { file, done } in inbox {
                // Nobody may want to know any more.
                drop(done.send(file.sync_data()));
            }
        })?;
        Ok(Self { jobs, thread })
    }

    /// What a spool asks it by.
    pub fn syncer(&self) -> Arc<dyn Syncer> {
        Arc::new(Jobs(self.jobs.clone()))
    }

    /// Ends it, once the spool is gone. What it is at is waited for, as if it were done here.
    pub fn end(self) {
        drop(self.jobs);
        self.thread.join();
    }
}

#[derive(Debug)]
struct Jobs(Sender<Job>);

impl Syncer for Jobs {
    fn begin(&self, file: File) -> Option<Box<dyn Syncing>> {
        let (done, result) = bounded(1);
        self.0.try_send(Job { file, done }).ok()?;
        Some(Box::new(Begun(result)))
    }
}

#[derive(Debug)]
struct Begun(Receiver<io::Result<()>>);

impl Syncing for Begun {
    fn poll(&mut self) -> Option<io::Result<()>> {
        match self.0.try_recv() {
            Ok(result) => Some(result),
            Err(error) if error.is_empty() => None,
            Err(_) => Some(Err(ended())),
        }
    }

    fn wait(self: Box<Self>) -> io::Result<()> {
        self.0.recv().unwrap_or_else(|_| Err(ended()))
    }
}

fn ended() -> io::Error {
    io::Error::other("the thread that syncs has ended")
}
