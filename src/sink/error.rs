// SPDX-License-Identifier: MIT
//! What can go wrong between a sink and its peer, and what is done about it.

use std::io;

/// Why a sink could not connect, take or deliver.
///
/// Messages name the peer and what to do; never a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The client's buffer or the broker's credit is used up for the moment.
    #[error("{peer} takes no more for the moment")]
    Busy {
        /// The broker.
        peer: String,
    },
    /// This message can never be delivered as it is.
    #[error("{peer} rejects the message: {reason}")]
    Rejected {
        /// The broker.
        peer: String,
        /// Why, in its words or ours.
        reason: String,
    },
    /// The peer cannot be reached, or the connection broke.
    #[error("no connection to {peer}: {source}")]
    Disconnected {
        /// The broker.
        peer: String,
        /// What the system said.
        source: io::Error,
    },
    /// The peer ended the connection and said why.
    #[error("{peer} closed the connection: {reason}")]
    Closed {
        /// The broker.
        peer: String,
        /// The broker's words.
        reason: String,
    },
    /// The peer sent what the protocol does not allow.
    #[error("{peer} does not speak the protocol: {reason}")]
    Protocol {
        /// The broker.
        peer: String,
        /// What came instead.
        reason: String,
    },
    /// The peer did not answer in time.
    #[error("{peer} did not answer in time: {waiting_for}")]
    Timeout {
        /// The broker.
        peer: String,
        /// What was being waited for.
        waiting_for: &'static str,
    },
    /// Credentials, permissions, or a thing that must exist and does not. An operator must act.
    #[error("{peer} refuses: {reason}")]
    Refused {
        /// The broker.
        peer: String,
        /// The broker's words, and what to do.
        reason: String,
    },
    /// The client library must be built anew; nothing is wrong with the broker.
    #[error("the client for {peer} failed for good and is built anew: {reason}")]
    Fatal {
        /// The broker.
        peer: String,
        /// The library's words.
        reason: String,
    },
    /// A shutdown or a command came while waiting.
    #[error("interrupted")]
    Interrupted,
}

/// What the publisher does about an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// Keep the message, poll, try again.
    Busy,
    /// Put the message to the dead letters and go on.
    Reject,
    /// Connect again soon, with backoff, and send again what was in flight.
    Reconnect,
    /// The same, but slowly, and say it only once: it lasts until an operator acts.
    Refused,
}

impl SinkError {
    /// What the publisher does about it. Total on purpose: a new variant has to choose.
    pub fn class(&self) -> Class {
        match self {
            Self::Busy { .. } => Class::Busy,
            Self::Rejected { .. } => Class::Reject,
            Self::Disconnected { .. }
            | Self::Closed { .. }
            | Self::Protocol { .. }
            | Self::Timeout { .. }
            | Self::Fatal { .. }
            | Self::Interrupted => Class::Reconnect,
            Self::Refused { .. } => Class::Refused,
        }
    }
}
