// SPDX-License-Identifier: MIT
//! Frames over a stream: what is to be sent, what came in, and the signs of life.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amq_protocol::protocol::AMQPClass;

use super::frame::{self, HEARTBEAT_FRAME, Incoming};
use super::heartbeat::Heartbeat;
use super::stream::{Ready, Stream};
use crate::sink::{Interrupt, SinkError};

/// What a peer may send in one frame before anything was agreed on.
const FIRST_FRAME_MAX: usize = 128 << 10;
/// Memory that the buffers begin with.
const INBOX: usize = 16 << 10;
/// Written bytes at the front of the buffer are dropped beyond this.
const DROP_AT: usize = 256 << 10;
/// An empty buffer keeps no more memory than this.
const KEEP: usize = 4 << 20;

/// One connection to a broker.
#[derive(Debug)]
pub(super) struct Wire {
    peer: String,
    stream: Stream,
    interrupt: Arc<Interrupt>,
    inbox: Vec<u8>,
    /// The part of `inbox` that came in and is not read yet.
    unread: std::ops::Range<usize>,
    /// What is to be sent; `sent` bytes of it are.
    out: Vec<u8>,
    sent: usize,
    /// The socket took no more: nothing can be written until it says that it does.
    stuck: bool,
    heartbeat: Heartbeat,
    frame_max: usize,
    /// Why nothing can be read any more.
    ended: Option<io::Error>,
    /// Why nothing can be written any more. What the peer said before is still read.
    broken: Option<io::Error>,
}

impl Wire {
    pub(super) fn new(peer: String, stream: Stream, interrupt: Arc<Interrupt>) -> Self {
        Self {
            peer,
            stream,
            interrupt,
            inbox: vec![0; INBOX],
            unread: 0..0,
            out: Vec::new(),
            sent: 0,
            stuck: false,
            heartbeat: Heartbeat::off(Instant::now()),
            frame_max: FIRST_FRAME_MAX,
            ended: None,
            broken: None,
        }
    }

    pub(super) fn peer(&self) -> String {
        self.peer.clone()
    }

    /// Takes over what the handshake agreed on.
    pub(super) fn agree(&mut self, frame_max: usize, heartbeat: Duration) {
        self.frame_max = frame_max;
        self.heartbeat.agree(heartbeat, Instant::now());
    }

    /// Where messages are appended to.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Bytes that wait to be sent.
    pub(super) fn pending(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Whether nothing can be sent any more. The next [`failure`](Self::failure) tells why.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some() || self.ended.is_some()
    }

    /// Appends a method.
    pub(super) fn push(&mut self, channel: u16, method: AMQPClass) -> Result<(), SinkError> {
        let encoded = frame::encode(channel, method);
        let mut encoded = encoded.map_err(|reason| self.protocol(reason))?;
        self.out.extend_from_slice(&encoded);
        // A login holds a password.
        encoded.fill(0);
        Ok(())
    }

    /// Whether trying to write is known to be in vain for now.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Sends what goes at once.
    pub(super) fn write(&mut self) {
        self.stuck = false;
        while self.pending() > 0 && !self.is_broken() && !self.stuck {
            match self.stream.write(self.out.get(self.sent..).unwrap_or_default()) {
                Ok(0) => self.broken = Some(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.sent += written;
                    self.heartbeat.sent(Instant::now());
                    // TLS takes a record at a time; a socket that takes a part is full.
                    self.stuck = self.pending() > 0 && !self.stream.is_tls();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stuck = true,
                Err(error) => self.broken = Some(error),
            }
        }
        if self.pending() == 0 || self.is_broken() {
            self.out.clear();
            self.sent = 0;
            self.stuck = false;
            if self.out.capacity() > KEEP {
                self.out.shrink_to(DROP_AT);
            }
        } else if self.sent >= DROP_AT && self.sent > self.out.len() / 2 {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Overwrites what was sent: a login holds a password.
    pub(super) fn wipe(&mut self) {
        if self.pending() == 0 {
            let capacity = self.out.capacity();
            self.out.resize(capacity, 0);
            self.out.fill(0);
            self.out.clear();
        }
    }

    /// Reads what is there. True: there may be more.
    pub(super) fn read(&mut self) -> bool {
        if self.ended.is_some() {
            return false;
        }
        if self.unread.is_empty() {
            self.unread = 0..0;
        }
        if self.unread.end == self.inbox.len() {
            if self.unread.start > 0 {
                self.inbox.copy_within(self.unread.clone(), 0);
                self.unread = 0..self.unread.len();
            } else {
                // Only a frame that is larger than all this: its size has been checked.
                let larger = (self.inbox.len() * 2).min(self.frame_max.max(INBOX));
                self.inbox.resize(larger, 0);
            }
        }
        let space = self.inbox.get_mut(self.unread.end..).unwrap_or_default();
        let room = space.len();
        if room == 0 {
            // Full of whole frames: they have to be taken first. Not the end, as a read of
            // nothing would seem to say.
            return true;
        }
        match self.stream.read(space) {
            Ok(0) => {
                self.ended = Some(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it closed the connection without a word",
                ));
                false
            }
            Ok(read) => {
                self.unread.end += read;
                self.heartbeat.received(Instant::now());
                // A TLS record may end before what has arrived does.
                read == room || self.stream.is_tls()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                self.ended = Some(error);
                false
            }
        }
    }

    /// The next whole frame that was read.
    ///
    /// # Errors
    ///
    /// [`SinkError::Protocol`] when the peer does not speak AMQP.
    pub(super) fn next(&mut self) -> Result<Option<(u16, Incoming)>, SinkError> {
        let bytes = self.inbox.get(self.unread.clone()).unwrap_or_default();
        let split = frame::split(bytes, self.frame_max);
        let decoded = split.and_then(|found| {
            found.map(|(raw, len)| raw.decode().map(|decoded| (decoded, len))).transpose()
        });
        match decoded {
            Ok(Some((decoded, len))) => {
                self.unread.start += len;
                Ok(Some(decoded))
            }
            Ok(None) => Ok(None),
            Err(reason) => Err(self.protocol(reason)),
        }
    }

    /// Why the connection is over, once everything that was read is dealt with. A broken write is
    /// reported only when there is nothing left to read, which may tell more.
    pub(super) fn failure(&mut self) -> Option<SinkError> {
        if self.broken.is_some() && self.ended.is_none() {
            let before = self.unread.len();
            self.read();
            if self.unread.len() > before {
                return None;
            }
        }
        let source = match (self.broken.take(), self.ended.take()) {
            // What TLS says about the end explains why writing failed.
            (_, Some(ended)) if ended.kind() == io::ErrorKind::InvalidData => ended,
            (Some(broken), _) => broken,
            (None, ended) => ended?,
        };
        Some(SinkError::Disconnected { peer: self.peer(), source })
    }

    /// Waits for something to read, for room when the socket had none, for the interrupt, or
    /// `until`.
    pub(super) fn wait(&mut self, until: Instant) -> Result<Ready, SinkError> {
        let interrupt = Some(&*self.interrupt);
        let ready = self.stream.wait(true, self.stuck, interrupt, until);
        ready.map_err(|source| SinkError::Disconnected { peer: self.peer(), source })
    }

    /// Waits as [`wait`](Self::wait), but leaves what comes in lying.
    pub(super) fn wait_deaf(&mut self, until: Instant) -> Result<Ready, SinkError> {
        let interrupt = Some(&*self.interrupt);
        let ready = self.stream.wait(false, self.stuck, interrupt, until);
        ready.map_err(|source| SinkError::Disconnected { peer: self.peer(), source })
    }

    /// Whether the interrupt is raised.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupt.is_raised()
    }

    /// Shows that we live, and checks that the peer does. To be called after a read.
    ///
    /// # Errors
    ///
    /// [`SinkError::Disconnected`] when the peer was silent for two heartbeats.
    pub(super) fn beat(&mut self, now: Instant) -> Result<(), SinkError> {
        if self.heartbeat.is_dead(now) {
            let words = "two heartbeats passed without a byte from it";
            let source = io::Error::new(io::ErrorKind::TimedOut, words);
            return Err(SinkError::Disconnected { peer: self.peer(), source });
        }
        // Whatever waits to be sent is a sign of life too, as soon as it goes.
        if self.heartbeat.is_due(now) && !self.stuck {
            if self.pending() == 0 {
                self.out.extend_from_slice(HEARTBEAT_FRAME);
            }
            self.write();
        }
        Ok(())
    }

    /// Whether nothing was read for two heartbeats.
    pub(super) fn seems_silent(&self, now: Instant) -> bool {
        self.heartbeat.is_dead(now)
    }

    /// When [`beat`](Self::beat) has to be called again.
    pub(super) fn next_beat(&self) -> Option<Instant> {
        self.heartbeat.next(!self.stuck)
    }

    /// The next frame but heartbeats, waiting for it: for the handshake.
    ///
    /// # Errors
    ///
    /// When none comes in time, and at once when the interrupt is raised.
    pub(super) fn expect(
        &mut self,
        deadline: Instant,
        waiting_for: &'static str,
    ) -> Result<(u16, Incoming), SinkError> {
        loop {
            while let Some((channel, incoming)) = self.next()? {
                if incoming != Incoming::Heartbeat {
                    return Ok((channel, incoming));
                }
            }
            if let Some(error) = self.failure() {
                return Err(error);
            }
            if Instant::now() >= deadline {
                return Err(SinkError::Timeout { peer: self.peer(), waiting_for });
            }
            self.write();
            let ready = self.wait(deadline)?;
            if ready.interrupted {
                return Err(SinkError::Interrupted);
            }
            if ready.readable {
                self.read();
            }
        }
    }

    /// Sends everything, then drops whatever comes until `is_last` or the deadline. For the end
    /// of a connection: not ended by the interrupt, which is raised for exactly that.
    pub(super) fn finish(&mut self, deadline: Instant, is_last: impl Fn(&Incoming) -> bool) {
        loop {
            self.write();
            while let Ok(Some((_, incoming))) = self.next() {
                if is_last(&incoming) {
                    self.stream.shutdown();
                    return;
                }
            }
            if self.is_broken() || Instant::now() >= deadline {
                return;
            }
            match self.stream.wait(true, self.stuck, None, deadline) {
                Ok(ready) if ready.readable => {
                    self.read();
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// Sends what is to be sent as far as it goes at once; the connection is over.
    pub(super) fn part(&mut self) {
        self.write();
        self.stream.shutdown();
    }

    pub(super) fn protocol(&self, reason: String) -> SinkError {
        SinkError::Protocol { peer: self.peer(), reason }
    }
}
