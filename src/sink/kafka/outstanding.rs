// SPDX-License-Identifier: MIT
//! Which messages have no report yet, and for how long the oldest of them has had none.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::sink::Outcome;

/// The messages between the oldest without a report and the newest.
#[derive(Debug)]
pub(super) struct Outstanding {
    /// The tag of the first in `reported`.
    oldest: u64,
    reported: VecDeque<bool>,
    /// Since when the oldest is the oldest.
    since: Instant,
}

impl Outstanding {
    /// None.
    pub(super) fn new(now: Instant) -> Self {
        Self { oldest: 0, reported: VecDeque::new(), since: now }
    }

    /// Notes that the next message was taken. Tags count up from zero.
    pub(super) fn sent(&mut self) {
        if self.reported.is_empty() {
            // Asking for the time of each message would cost more than this whole table.
            self.since = Instant::now();
        }
        self.reported.push_back(false);
    }

    /// Notes what came back.
    pub(super) fn reported(&mut self, outcomes: &[Outcome], now: Instant) {
        for outcome in outcomes {
            let (Outcome::Delivered(tag)
            | Outcome::DeliveredThrough(tag)
            | Outcome::Rejected { tag, .. }
            | Outcome::Nacked { tag, .. }) = outcome;
            let place = tag.checked_sub(self.oldest).and_then(|place| usize::try_from(place).ok());
            if let Some(reported) = place.and_then(|place| self.reported.get_mut(place)) {
                *reported = true;
            }
        }
        while self.reported.front() == Some(&true) {
            self.reported.pop_front();
            self.oldest += 1;
            self.since = now;
        }
    }

    /// For how long the oldest has waited, if there is one.
    pub(super) fn waiting(&self, now: Instant) -> Option<Duration> {
        (!self.reported.is_empty()).then(|| now.saturating_duration_since(self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_report_of_the_oldest_starts_its_time_anew() {
        let mut outstanding = Outstanding::new(Instant::now());
        assert_eq!(outstanding.waiting(Instant::now()), None);
        for _ in 0..4 {
            outstanding.sent();
        }
        let start = outstanding.since;
        let after = |seconds| start + Duration::from_secs(seconds);
        let waits = |outstanding: &Outstanding, seconds| {
            outstanding.waiting(after(seconds)).map(|waited| waited.as_secs())
        };
        outstanding.reported(&[Outcome::Delivered(2), Outcome::Delivered(1)], after(5));
        assert_eq!(waits(&outstanding, 7), Some(7));
        let nacked = Outcome::Nacked { tag: 0, reason: String::new() };
        outstanding.reported(&[nacked], after(8));
        assert_eq!(waits(&outstanding, 9), Some(1));
        outstanding.reported(&[Outcome::Delivered(3), Outcome::Delivered(77)], after(9));
        assert_eq!(waits(&outstanding, 99), None);
        outstanding.sent();
        outstanding.reported(&[Outcome::Delivered(4)], after(100));
        assert_eq!(waits(&outstanding, 100), None);
    }
}
