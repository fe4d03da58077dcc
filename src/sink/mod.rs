// SPDX-License-Identifier: MIT
//! Where messages go. One publisher thread owns each sink from `open` to `close`.

#[cfg(feature = "amqp")]
pub mod amqp;
mod error;
pub mod file;
mod interrupt;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(any(feature = "amqp", feature = "kafka"))]
mod revocation;

use std::time::{Duration, Instant};

pub use error::{Class, SinkError};
pub use interrupt::Interrupt;

use crate::codec::Outgoing;

/// A destination that acknowledges.
///
/// The publisher numbers what it hands over: tags count up from zero, one for each accepted
/// [`send`](Self::send) since the last [`open`](Self::open). Handing over is not delivery; only
/// [`poll`](Self::poll) reports that. Every method may block, but not past the time it is given,
/// and returns early when the [`Interrupt`] the sink was built with is raised: `unload` waits for
/// this thread.
pub trait Sink: Send {
    /// Connects, or connects anew after an error of class [`Class::Reconnect`] or
    /// [`Class::Refused`]. Whatever was in flight is forgotten: the publisher sends it again.
    ///
    /// # Errors
    ///
    /// Says which peer could not be reached, or what it refused.
    fn open(&mut self, deadline: Instant) -> Result<(), SinkError>;

    /// How many messages may be in flight at this moment, at most.
    fn window(&self) -> usize;

    /// How many of these a broker next door needs to be kept busy. What the way to it holds may
    /// come on top (`pipeline::reach`). `usize::MAX`: the window is used as it is.
    fn reserve(&self) -> usize {
        usize::MAX
    }

    /// Takes over the message `tag`. May keep it in a buffer until [`poll`](Self::poll).
    ///
    /// # Errors
    ///
    /// [`Class::Busy`]: not taken, poll and try again. [`Class::Reject`]: not taken, and would
    /// never be. Otherwise the connection is gone, and with it everything unreported.
    fn send(&mut self, tag: u64, message: &Outgoing<'_>) -> Result<(), SinkError>;

    /// Pushes out what is buffered, serves the connection (heartbeats, flow control), and waits
    /// up to `budget` for acknowledgements; returns as soon as there are some. With nothing in
    /// flight it still waits: this is where an idle publisher spends its time.
    ///
    /// # Errors
    ///
    /// The connection is gone, and with it everything unreported. Outcomes already pushed stand.
    fn poll(&mut self, budget: Duration, outcomes: &mut Vec<Outcome>) -> Result<(), SinkError>;

    /// Pushes out what is buffered, then leaves what comes lying for `pause`; the next
    /// [`poll`](Self::poll) takes it in, and tells if the connection is gone. For a publisher under
    /// load, that each acknowledgement would wake. False from a sink that has no use for it: it has
    /// done nothing then.
    fn rest(&mut self, _pause: Duration) -> bool {
        false
    }

    /// Ends the connection in the protocol's own way, and every thread the sink started. What is
    /// still in flight stays undelivered: the publisher has waited for it before.
    fn close(&mut self, deadline: Instant);

    /// The broker in use or tried last, for status and logs. Holds no secret.
    fn peer(&self) -> String;

    /// Appends the key that the message goes by here.
    fn write_key(&self, message: &Outgoing<'_>, out: &mut Vec<u8>) {
        message.write_routing_key(out);
    }

    /// Since when the broker asks us to stop sending (`connection.blocked`, a full queue).
    fn blocked_since(&self) -> Option<Instant> {
        None
    }

    /// Why nothing gets through although the sink is open, for a client that keeps its
    /// connections itself. It needs no help; but nothing more should be handed to it meanwhile.
    fn degraded(&self) -> Option<String> {
        None
    }

    /// Whether the broker in use is the one to be preferred.
    fn is_on_primary(&self) -> bool {
        true
    }

    /// Lets the next [`open`](Self::open) begin with the preferred broker.
    fn return_to_primary(&mut self) {}
}

/// What became of messages handed over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The broker has taken responsibility for this one.
    Delivered(u64),
    /// And for every one up to and including this.
    DeliveredThrough(u64),
    /// The broker refuses this message itself, and would refuse it again: too large, unroutable.
    Rejected {
        /// Which.
        tag: u64,
        /// The broker's words.
        reason: String,
    },
    /// The broker could not take this one now; worth another try, but not for ever.
    Nacked {
        /// Which.
        tag: u64,
        /// The broker's words, when it has any.
        reason: String,
    },
}

/// In the place of a kind of sink that is not built in. A configuration with one is refused, so
/// this is never reached; it exists so that no other code has to know.
#[cfg(not(all(feature = "amqp", feature = "kafka")))]
#[derive(Debug)]
pub struct Absent;

#[cfg(not(all(feature = "amqp", feature = "kafka")))]
impl Sink for Absent {
    fn open(&mut self, _deadline: Instant) -> Result<(), SinkError> {
        let reason = "this library was built without it".into();
        Err(SinkError::Refused { peer: self.peer(), reason })
    }

    fn window(&self) -> usize {
        0
    }

    fn send(&mut self, _tag: u64, _message: &Outgoing<'_>) -> Result<(), SinkError> {
        Err(SinkError::Busy { peer: self.peer() })
    }

    fn poll(&mut self, _budget: Duration, _outcomes: &mut Vec<Outcome>) -> Result<(), SinkError> {
        Ok(())
    }

    fn close(&mut self, _deadline: Instant) {}

    fn peer(&self) -> String {
        "this kind of sink".into()
    }
}
