// SPDX-License-Identifier: MIT
//! librdkafka's log lines, as many as a reader can bear.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

/// Lets a line through once in a while and counts its repetitions.
///
/// Lines are the same when they differ in nothing but digits: times, ports and counts do change.
#[derive(Debug, Default)]
pub(super) struct LogLines {
    recent: Vec<Recent>,
}

#[derive(Debug)]
struct Recent {
    line: u64,
    logged: Instant,
    held_back: u32,
}

impl LogLines {
    /// How long the same line is held back.
    const PAUSE: Duration = Duration::from_secs(10);
    /// Different lines remembered. The oldest is forgotten first.
    const REMEMBERED: usize = 64;

    /// Whether to log this line, and then how many like it were held back since the last one.
    pub(super) fn admit(&mut self, line: &str, now: Instant) -> Option<u32> {
        let line = fingerprint(line);
        if let Some(recent) = self.recent.iter_mut().find(|recent| recent.line == line) {
            if now.saturating_duration_since(recent.logged) < Self::PAUSE {
                recent.held_back = recent.held_back.saturating_add(1);
                return None;
            }
            recent.logged = now;
            return Some(std::mem::take(&mut recent.held_back));
        }
        if self.recent.len() >= Self::REMEMBERED {
            self.recent.remove(0);
        }
        self.recent.push(Recent { line, logged: now, held_back: 0 });
        Some(0)
    }
}

fn fingerprint(line: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for byte in line.bytes().filter(|byte| !byte.is_ascii_digit()) {
        byte.hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_line_comes_once_in_ten_seconds_with_its_count() {
        let mut lines = LogLines::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(lines.admit("connect failed after 3ms", start), Some(0));
        assert_eq!(lines.admit("connect failed after 17ms", after(1)), None);
        assert_eq!(lines.admit("connect failed after 4ms", after(9)), None);
        assert_eq!(lines.admit("something else", after(9)), Some(0));
        assert_eq!(lines.admit("connect failed after 5ms", after(10)), Some(2));
        assert_eq!(lines.admit("connect failed after 5ms", after(11)), None);
    }

    #[test]
    fn many_different_lines_take_no_more_memory() {
        let mut lines = LogLines::default();
        for n in 0..10_000 {
            let _logged = lines.admit(&"x".repeat(n % 500), Instant::now());
        }
        assert!(lines.recent.len() <= LogLines::REMEMBERED);
    }
}
