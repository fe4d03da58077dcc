// SPDX-License-Identifier: MIT
//! The publisher's connection: open, opening, or not there.
//!
//! Opening happens on a thread of its own, which lasts as long as the attempt: a connect that
//! times out, or a name server that does not answer (no call to it has a deadline), must not keep
//! the publisher from taking events in.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};

use crate::pipeline::publisher::drop_quietly;
use crate::pipeline::thread::{self, Owned, Prepare};
use crate::sink::{Interrupt, Sink, SinkError};

type Opened = (Box<dyn Sink>, Result<(), SinkError>);

/// Where the sink is.
pub(super) enum Link {
    /// Here, and not connected.
    Down(Box<dyn Sink>),
    /// With the thread that opens it.
    Opening(Receiver<Opened>, Owned),
    /// Here, and connected.
    Up(Box<dyn Sink>),
    /// Gone: the thread that had it panicked, or is past its deadline.
    Lost,
}

/// How an attempt stands.
pub(super) enum Attempt {
    /// There is none, or it goes on.
    Pending,
    /// The sink is connected.
    Open,
    /// It is not.
    Failed(SinkError),
}

/// Opens it. A fault of ours in there is one more failed attempt: the sink is needed for the next one.
fn open(sink: &mut dyn Sink, timeout: Duration) -> Result<(), SinkError> {
    panic::catch_unwind(AssertUnwindSafe(|| sink.open(Instant::now() + timeout))).unwrap_or_else(
        |payload| {
            drop_quietly(payload);
            let reason = "a fault of the module while connecting, see the log".into();
            Err(SinkError::Fatal { peer: String::new(), reason })
        },
    )
}

impl Link {
    /// Starts an attempt. Does nothing unless the link is down.
    pub(super) fn open(
        &mut self,
        name: &str,
        prepare: Prepare,
        timeout: Duration,
        interrupt: &Arc<Interrupt>,
    ) -> Attempt {
        let Self::Down(mut sink) = std::mem::replace(self, Self::Lost) else {
            return Attempt::Pending;
        };
        let (report, opened) = bounded(1);
        let (hand_over, handed) = bounded::<Box<dyn Sink>>(1);
        let interrupt = Arc::clone(interrupt);
        let spawned = thread::spawn(&format!("ro-{name}"), prepare, move || {
            let Ok(mut sink) = handed.recv() else { return };
            let result = open(sink.as_mut(), timeout);
            // The publisher waits for as long as the process lives, or has given the sink up.
            drop(report.send((sink, result)));
            interrupt.raise();
        });
        let Ok(thread) = spawned else {
            // No thread to be had: the attempt is made here, events wait in the ring.
            let result = open(sink.as_mut(), timeout);
            return self.settle((sink, result));
        };
        // The channel has room for one, and its receiver lives until it got it.
        drop(hand_over.send(sink));
        *self = Self::Opening(opened, thread);
        Attempt::Pending
    }

    /// How the attempt stands now.
    pub(super) fn attempt(&mut self) -> Attempt {
        let Self::Opening(opened, _) = self else { return Attempt::Pending };
        match opened.try_recv() {
            Ok(result) => {
                self.join();
                self.settle(result)
            }
            Err(TryRecvError::Empty) => Attempt::Pending,
            Err(TryRecvError::Disconnected) => {
                self.join();
                Attempt::Failed(SinkError::Fatal {
                    peer: String::new(),
                    reason: "its thread ended by a fault".into(),
                })
            }
        }
    }

    /// Waits until `deadline` for an attempt to end. False when it did not.
    pub(super) fn await_attempt(&mut self, deadline: Instant) -> bool {
        let Self::Opening(opened, _) = self else { return true };
        let Ok(result) = opened.recv_deadline(deadline) else { return false };
        self.join();
        drop(self.settle(result));
        true
    }

    fn join(&mut self) {
        if let Self::Opening(_, thread) = std::mem::replace(self, Self::Lost) {
            thread.join();
        }
    }

    fn settle(&mut self, (sink, result): Opened) -> Attempt {
        match result {
            Ok(()) => {
                *self = Self::Up(sink);
                Attempt::Open
            }
            Err(error) => {
                *self = Self::Down(sink);
                Attempt::Failed(error)
            }
        }
    }

    /// The sink, while it is connected.
    pub(super) fn up(&mut self) -> Option<&mut dyn Sink> {
        match self {
            Self::Up(sink) => Some(sink.as_mut()),
            _ => None,
        }
    }

    /// Marks the connection as gone.
    pub(super) fn drop_connection(&mut self) {
        *self = match std::mem::replace(self, Self::Lost) {
            Self::Up(sink) => Self::Down(sink),
            other => other,
        };
    }

    /// The sink, wherever it is, unless it is being opened.
    pub(super) fn sink(&self) -> Option<&dyn Sink> {
        match self {
            Self::Up(sink) | Self::Down(sink) => Some(sink.as_ref()),
            _ => None,
        }
    }

    /// The broker in use or tried last.
    pub(super) fn peer(&self) -> Option<String> {
        self.sink().map(Sink::peer)
    }

    /// Whether an attempt may be started.
    pub(super) fn is_down(&self) -> bool {
        matches!(self, Self::Down(_))
    }

    /// Whether an attempt is under way.
    pub(super) fn is_opening(&self) -> bool {
        matches!(self, Self::Opening(..))
    }

    /// Whether the sink is connected.
    pub(super) fn is_up(&self) -> bool {
        matches!(self, Self::Up(_))
    }
}
