// SPDX-License-Identifier: MIT
//! Whether the peer lives, and showing it that we do (specification §4.2.7).

use std::time::{Duration, Instant};

/// The clock of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    /// What was agreed; `None`: no heartbeats.
    interval: Option<Duration>,
    sent: Instant,
    received: Instant,
}

impl Heartbeat {
    /// No heartbeats yet: they are agreed on in the handshake.
    pub(super) fn off(now: Instant) -> Self {
        Self { interval: None, sent: now, received: now }
    }

    /// Starts as agreed; zero turns heartbeats off.
    pub(super) fn agree(&mut self, interval: Duration, now: Instant) {
        *self =
            Self { interval: Some(interval).filter(|i| !i.is_zero()), sent: now, received: now };
    }

    /// Notes that bytes went out.
    pub(super) fn sent(&mut self, now: Instant) {
        self.sent = now;
    }

    /// Notes that bytes came in: any of them are a sign of life.
    pub(super) fn received(&mut self, now: Instant) {
        self.received = now;
    }

    /// Whether a heartbeat should go out: half an interval passed without other bytes.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.interval.is_some_and(|interval| now >= self.sent + interval / 2)
    }

    /// Whether two intervals passed without a byte from the peer.
    pub(super) fn is_dead(&self, now: Instant) -> bool {
        self.interval.is_some_and(|interval| now >= self.received + interval * 2)
    }

    /// When to look again. `can_send`: whether a heartbeat could be written at all.
    pub(super) fn next(&self, can_send: bool) -> Option<Instant> {
        let interval = self.interval?;
        let dead = self.received + interval * 2;
        Some(if can_send { dead.min(self.sent + interval / 2) } else { dead })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_due_after_half_an_interval_and_death_after_two() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heartbeat = Heartbeat::off(start);
        assert!(!heartbeat.is_due(at(999)) && !heartbeat.is_dead(at(999)));
        assert_eq!(heartbeat.next(true), None);
        heartbeat.agree(Duration::from_secs(10), start);
        assert!(!heartbeat.is_due(at(4)) && heartbeat.is_due(at(5)));
        assert_eq!(heartbeat.next(true), Some(at(5)));
        assert_eq!(heartbeat.next(false), Some(at(20)));
        heartbeat.sent(at(5));
        assert!(!heartbeat.is_due(at(9)));
        assert!(!heartbeat.is_dead(at(19)) && heartbeat.is_dead(at(20)));
        heartbeat.received(at(15));
        assert!(!heartbeat.is_dead(at(34)));
        heartbeat.agree(Duration::ZERO, start);
        assert_eq!(heartbeat.next(true), None);
    }
}
