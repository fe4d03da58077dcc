// SPDX-License-Identifier: MIT
//! The date, as file names have it: UTC, so that a clock change never names two days alike.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment in parts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Moment {
    pub(super) year: u64,
    pub(super) month: u64,
    pub(super) day: u64,
    pub(super) hour: u64,
    pub(super) minute: u64,
    pub(super) second: u64,
}

/// The parts of `time` in UTC.
pub(super) fn moment(time: SystemTime) -> Moment {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to date by Howard Hinnant's `civil_from_days`, for days since 1970 only.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    Moment { year, month, day, hour: rest / 3_600, minute: rest / 60 % 60, second: rest % 60 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn seconds_become_the_date_that_everyone_uses() {
        for (seconds, expected) in [
            (0, (1970, 1, 1, 0)),
            (951_782_400, (2000, 2, 29, 0)),
            (1_795_195_109, (2026, 11, 20, 17)),
            (4_107_542_399, (2100, 2, 28, 23)),
            (4_107_542_400, (2100, 3, 1, 0)),
        ] {
            let found = moment(UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!((found.year, found.month, found.day, found.hour), expected);
        }
    }
}
