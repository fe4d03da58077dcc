// SPDX-License-Identifier: MIT
//! Threads of ours: named, owned, joined.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::memory;

/// What every thread of ours does first; from the FreeSWITCH side: back to normal scheduling.
pub type Prepare = fn();

/// The process can start no thread.
#[derive(Debug, thiserror::Error)]
#[error("cannot start a thread: {0}; raise the limits on threads and descriptors of this process")]
pub struct SpawnError(#[source] pub io::Error);

/// A thread did not end as it should.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ThreadError {
    /// It still runs.
    #[error("the thread {0} did not end by its deadline")]
    Late(String),
    /// It panicked; the panic is in the log.
    #[error("the thread {0} ended by a fault")]
    Panicked(String),
}

/// A thread that somebody is responsible for.
#[derive(Debug)]
pub(super) struct Owned {
    name: String,
    handle: JoinHandle<()>,
}

/// The longest name Linux keeps for a thread, in bytes.
const NAME_MAX: usize = 15;

/// Stack of our threads: far more than they use, since librdkafka and TLS run on them too.
const STACK: usize = 1 << 20;

/// More than the standard library takes for a thread.
const OWN_BYTES: usize = 64 * 1024;

/// Starts a thread. The only place in the module that does.
pub(super) fn spawn(
    name: &str,
    prepare: Prepare,
    body: impl FnOnce() + Send + 'static,
) -> Result<Owned, SpawnError> {
    // The standard library allocates a thread's own things past our allocator, which ends the process where it cannot: there
    // should be memory when it does.
    memory::expect(OWN_BYTES).map_err(|_| SpawnError(io::ErrorKind::OutOfMemory.into()))?;
    let name: String = name.chars().filter(char::is_ascii).take(NAME_MAX).collect();
    let handle = std::thread::Builder::new()
        .name(name.clone())
        .stack_size(STACK)
        .spawn(move || {
            prepare();
            body();
        })
        .map_err(SpawnError)?;
    Ok(Owned { name, handle })
}

impl Owned {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn into_name(self) -> String {
        self.name
    }

    pub(super) fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Waits for the end of a thread that is known to be past its work.
    pub(super) fn join(self) {
        // A panic was logged by the hook and shows as a missing report.
        drop(self.handle.join());
    }

    /// Waits for the end until `deadline`.
    pub(super) fn join_by(self, deadline: Instant) -> Result<(), ThreadError> {
        while !self.handle.is_finished() {
            if Instant::now() >= deadline {
                return Err(ThreadError::Late(self.name));
            }
            // Nothing tells of a thread's end; it is looked for.
            std::thread::park_timeout(Duration::from_millis(2));
        }
        self.join();
        Ok(())
    }
}

/// A thread for something on the side, owned by whoever started it.
#[derive(Debug)]
pub struct Background(Owned);

impl Background {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// When the process can start no thread.
    pub fn start(
        name: &str,
        prepare: Prepare,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<Self, SpawnError> {
        spawn(name, prepare, body).map(Self)
    }

    /// Waits for its end until `deadline`. False when it still runs.
    pub fn finish(self, deadline: Instant) -> bool {
        self.0.join_by(deadline).is_ok()
    }
}
