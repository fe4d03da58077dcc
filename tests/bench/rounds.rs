// SPDX-License-Identifier: MIT
//! Rounds of interleaved measurements, and what may be said of them.

use serde_json::{Value, json};

/// How far apart the ends of a ratio's interval may be, as a factor, for the ratio to be told as one number.
const WIDTH_MAX: f64 = 1.3;

/// One number per round.
#[derive(Clone, Debug, Default)]
pub struct Series(Vec<f64>);

impl Series {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// What was put in last.
    pub fn last(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }

    /// Another figure made of each.
    pub fn map(&self, of: impl Fn(f64) -> f64) -> Self {
        Self(self.0.iter().map(|value| of(*value)).collect())
    }

    /// What is left of each without what the same round of `other` has.
    pub fn less(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(value, other)| value - other).collect())
    }

    /// Each times that of the same round.
    pub fn times(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(value, other)| value * other).collect())
    }

    /// Without the first round, in which caches, pools and pages are cold.
    pub fn settled(&self) -> &[f64] {
        self.0.get(1..).unwrap_or_default()
    }

    fn quantile(values: &[f64], at: f64) -> f64 {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let last = values.len().saturating_sub(1);
        let position = at * last as f64;
        let below = position.floor() as usize;
        let (Some(low), Some(high)) = (values.get(below), values.get((below + 1).min(last))) else {
            return f64::NAN;
        };
        low + (high - low) * position.fract()
    }

    pub fn median(&self) -> f64 {
        Self::quantile(self.settled(), 0.5)
    }

    /// The width of the middle half, as a share of the median.
    pub fn spread(&self) -> f64 {
        let settled = self.settled();
        (Self::quantile(settled, 0.75) - Self::quantile(settled, 0.25)) / self.median()
    }
}

/// The middle of values that are no rounds.
pub fn median(values: &[f64]) -> f64 {
    Series::quantile(values, 0.5)
}

/// A figure against its baseline.
#[derive(Clone, Debug)]
pub struct Ratio {
    pub median: f64,
    /// Between these two lies the median of all rounds there could be, with a certainty of at least 95 % from six settled
    /// rounds on; with fewer it is the range of what was seen.
    pub low: f64,
    pub high: f64,
    pub worst: f64,
}

/// How many of the smallest, and how many of the largest, of so many values the interval leaves out: the most that leave the
/// median outside with a chance of one in forty on either side, whatever the distribution (the sign test, turned round).
fn left_out(rounds: usize) -> usize {
    let each = 0.5_f64.powf(rounds as f64);
    let (mut ways, mut total) = (1.0, 0.0);
    for below in 0..rounds {
        total += ways * each;
        if total > 0.025 {
            return below.saturating_sub(1);
        }
        ways *= (rounds - below) as f64 / (below + 1) as f64;
    }
    0
}

impl Ratio {
    /// `of` divided by `by`, round by round. The worst is the largest.
    pub fn new(of: &Series, by: &Series) -> Self {
        let pairs = of.settled().iter().zip(by.settled());
        let mut ratios: Vec<f64> = pairs.map(|(a, b)| a / b).collect();
        ratios.sort_by(f64::total_cmp);
        let out = left_out(ratios.len());
        let at = |place: usize| ratios.get(place).copied().unwrap_or(f64::NAN);
        Self {
            median: Series::quantile(&ratios, 0.5),
            low: at(out),
            high: at(ratios.len().wrapping_sub(out + 1)),
            worst: at(ratios.len().wrapping_sub(1)),
        }
    }

    pub fn is_comparable(&self) -> bool {
        self.low > 0.0 && self.high / self.low <= WIDTH_MAX
    }

    pub fn json(&self) -> Value {
        json!({
            "median": if self.is_comparable() { json!(self.median) } else { Value::Null },
            "worst": if self.is_comparable() { json!(self.worst) } else { Value::Null },
            "comparable": self.is_comparable(),
            "low": self.low,
            "high": self.high,
        })
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { median, low, high, worst } = self;
        if self.is_comparable() {
            write!(f, "{median:.3} ({low:.3} to {high:.3}, worst {worst:.3})")
        } else {
            write!(f, "not comparable (somewhere from {low:.3} to {high:.3})")
        }
    }
}
