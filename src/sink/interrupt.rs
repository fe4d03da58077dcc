// SPDX-License-Identifier: MIT
//! Ending a sink's wait from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// A flag that a `poll(2)` can wait for beside a socket.
///
/// Raised by the thread that stops or commands a publisher, never by a FreeSWITCH thread that
/// delivers an event: raising it is a system call.
#[derive(Debug)]
pub struct Interrupt {
    raised: AtomicBool,
    fd: OwnedFd,
}

impl Interrupt {
    /// A lowered flag.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { raised: AtomicBool::new(false), fd })
    }

    /// Wakes whoever waits now, and whoever waits next. Stays raised until [`clear`](Self::clear).
    pub fn raise(&self) {
        // Release: what was put down for the publisher to find is there when it sees the flag.
        self.raised.store(true, Ordering::Release);
        // A counter at its maximum is readable too, so a refused write still wakes.
        let _readable = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
    }

    /// Whether it is raised.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Waits until it is raised, or for so long. For a publisher without a connection.
    pub fn wait(&self, timeout: Duration) -> bool {
        if self.is_raised() {
            return true;
        }
        let timeout = Timespec::try_from(timeout).ok();
        let mut watched = [PollFd::new(&self.fd, PollFlags::IN)];
        // Interrupted by a signal or not: the caller comes around again.
        let _early = poll(&mut watched, timeout.as_ref());
        self.is_raised()
    }

    /// Lowers it. Only the publisher does, before it looks for what it was woken for.
    pub fn clear(&self) {
        let mut count = [0_u8; 8];
        let _empty = rustix::io::read(&self.fd, &mut count);
        self.raised.store(false, Ordering::Release);
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
