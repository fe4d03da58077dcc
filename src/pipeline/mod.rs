// SPDX-License-Identifier: MIT
//! One publisher thread per sink, from the ring to the acknowledgement.
//!
//! [`Pipeline`] is what the module holds of a sink: it starts the thread, hands it commands, reads
//! its status and stops it within a deadline. Everything else runs on that thread: `publisher`
//! is its loop.

#[cfg(test)]
mod agreements;
mod backoff;
mod connection;
mod delivery;
mod dispatch;
mod gap;
mod intake;
mod item;
mod latency;
mod link;
mod pace;
mod publisher;
mod reach;
mod status;
mod store;
mod stream;
mod subclass;
mod succession;
mod syncer;
mod telling;
mod thread;
mod window;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

pub use dispatch::{Dispatch, PublishError, Target};
pub use latency::LatencyView;
pub use publisher::Settings;
pub use reach::LATENCY_BELIEVED;
pub use status::{SinkState, SinkStatus, SpoolStatus, StatusBoard};
pub use store::StoreSettings;
pub use succession::Leftover;
pub use syncer::SyncThread;
pub use thread::{Background, Prepare, SpawnError, ThreadError};

use crate::queue::{Pool, Ring};
use crate::sink::{Interrupt, Sink};

/// What a publisher thread can be told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Send nothing until [`Command::Resume`]; events go on being taken in.
    Pause,
    /// Go on.
    Resume,
    /// Connect now instead of at the end of the wait.
    Reconnect,
    /// End by this moment, delivering what can be.
    Stop {
        /// By when.
        deadline: Instant,
        /// Whether another publisher goes on with what is left.
        has_heir: bool,
    },
}

/// A running sink.
#[derive(Debug)]
pub struct Pipeline {
    settings: Arc<Settings>,
    ring: Arc<Ring>,
    board: Arc<StatusBoard>,
    interrupt: Arc<Interrupt>,
    commands: Sender<Command>,
    done: Receiver<Leftover>,
    thread: thread::Owned,
}

/// What is left of a sink that was stopped to be replaced: the next one goes on from there.
#[derive(Debug)]
pub struct Predecessor {
    done: Receiver<Leftover>,
    ring: Arc<Ring>,
    board: Arc<StatusBoard>,
}

impl Pipeline {
    /// Starts the thread. It waits for nothing: the broker may be away, and a predecessor may
    /// still be draining.
    ///
    /// # Errors
    ///
    /// When the process can start no thread or has no descriptor left.
    pub fn start(
        settings: Settings,
        ring: Arc<Ring>,
        pool: Arc<Pool>,
        predecessor: Option<Predecessor>,
        make_sink: impl FnOnce(Arc<Interrupt>) -> Box<dyn Sink>,
    ) -> Result<Self, SpawnError> {
        let interrupt = Arc::new(Interrupt::new().map_err(SpawnError)?);
        let settings = Arc::new(settings);
        let board = Arc::new(StatusBoard::new(&settings));
        board.follow(
            predecessor
                .as_ref()
                .map(|before| (Arc::clone(&before.board), Arc::clone(&before.ring))),
        );
        let (commands, inbox) = unbounded();
        let (report, done) = bounded(1);
        let sink = make_sink(Arc::clone(&interrupt));
        let parts = publisher::Parts {
            settings: Arc::clone(&settings),
            ring: Arc::clone(&ring),
            pool,
            board: Arc::clone(&board),
            interrupt: Arc::clone(&interrupt),
            inbox,
            sink,
        };
        let thread =
            thread::spawn(&format!("rb-{}", settings.name), settings.prepare, move || {
                let leftover = publisher::run(parts, predecessor);
                // Nobody is left to hear it only when the module gave this thread up.
                drop(report.send(leftover));
            })?;
        Ok(Self { settings, ring, board, interrupt, commands, done, thread })
    }

    /// Sends nothing until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.tell(Command::Pause);
    }

    /// Goes on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.tell(Command::Resume);
    }

    /// Connects now instead of at the end of the wait.
    pub fn reconnect(&self) {
        self.tell(Command::Reconnect);
    }

    fn tell(&self, command: Command) {
        // A publisher that is gone needs no commands.
        drop(self.commands.send(command));
        self.interrupt.raise();
    }

    /// What it was started with.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Its queue.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// How it is doing.
    pub fn status(&self) -> SinkStatus {
        let dead_letters = self.settings.dead_letters.as_ref().map_or(0, |letters| letters.kept());
        self.board.view(&self.ring, dead_letters)
    }

    /// Where its status is posted, also after its end.
    pub fn board(&self) -> Arc<StatusBoard> {
        Arc::clone(&self.board)
    }

    /// Asks the thread to end by `deadline`. [`finish`](Self::finish) waits for it.
    pub fn stop(&self, deadline: Instant) {
        self.tell(Command::Stop { deadline, has_heir: false });
    }

    /// What a successor takes over, once this one is [`retire`](Self::retire)d.
    pub fn succession(&self) -> Predecessor {
        Predecessor {
            done: self.done.clone(),
            ring: Arc::clone(&self.ring),
            board: Arc::clone(&self.board),
        }
    }

    /// Waits until `deadline` for the thread to end, which it does only after
    /// [`stop`](Self::stop).
    ///
    /// # Errors
    ///
    /// When it did not, or panicked: with the name of the thread.
    pub fn finish(self, deadline: Instant) -> Result<Leftover, ThreadError> {
        let wait = deadline.saturating_duration_since(Instant::now());
        match self.done.recv_timeout(wait) {
            Ok(leftover) => {
                self.thread.join();
                Ok(leftover)
            }
            Err(RecvTimeoutError::Timeout) => Err(ThreadError::Late(self.thread.into_name())),
            Err(RecvTimeoutError::Disconnected) => {
                let name = self.thread.name().to_owned();
                self.thread.join();
                Err(ThreadError::Panicked(name))
            }
        }
    }

    /// Stops it while the module goes on, in favor of a successor or not. Returns at once.
    pub fn retire(self, deadline: Instant, has_heir: bool) -> Retired {
        self.tell(Command::Stop { deadline, has_heir });
        let Self { thread, commands, interrupt, .. } = self;
        Retired { thread, commands, interrupt, deadline, has_heir }
    }
}

/// The thread of a replaced sink.
#[derive(Debug)]
pub struct Retired {
    thread: thread::Owned,
    commands: Sender<Command>,
    interrupt: Arc<Interrupt>,
    deadline: Instant,
    has_heir: bool,
}

impl Retired {
    /// Has it end by `deadline` when that is earlier than what it was given: its successor, which
    /// waits for it, has to end too.
    pub fn hurry(&mut self, deadline: Instant) {
        if deadline < self.deadline {
            self.deadline = deadline;
            // A publisher that is gone needs no commands.
            drop(self.commands.send(Command::Stop { deadline, has_heir: self.has_heir }));
            self.interrupt.raise();
        }
    }

    /// Joins the thread if it ended, or waits for that a little beyond the deadline it was given.
    ///
    /// # Errors
    ///
    /// When it still runs.
    pub fn finish(self) -> Result<(), ThreadError> {
        self.thread.join_by(self.deadline + Duration::from_millis(250))
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

impl Predecessor {
    /// Waits for what is left, as long as `patience` lasts. The room that it takes in memory is
    /// charged to `ring` from then on.
    fn take(&self, patience: Duration, ring: &Ring) -> Option<Leftover> {
        let leftover = self.done.recv_timeout(patience).ok()?;
        for size in leftover.charged() {
            self.ring.release(size);
            ring.charge(size);
        }
        Some(leftover)
    }
}
