// SPDX-License-Identifier: MIT
//! Rounds of interleaved measurements, and what may be said of them.

use serde_json::{Value, json};

/// The baseline's middle half may be this wide, as a share of its median.
const NOISE_MAX: f64 = 0.10;

/// One number per round.
#[derive(Clone, Debug, Default)]
pub struct Series(Vec<f64>);

impl Series {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
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

/// A figure against its baseline.
#[derive(Clone, Debug)]
pub struct Ratio {
    pub median: f64,
    pub worst: f64,
    /// How much the baseline differed between rounds.
    pub noise: f64,
}

impl Ratio {
    /// `of` divided by `by`, round by round. The worst is the largest.
    pub fn new(of: &Series, by: &Series) -> Self {
        let pairs = of.settled().iter().zip(by.settled());
        let ratios = Series([f64::NAN].into_iter().chain(pairs.map(|(a, b)| a / b)).collect());
        let worst = ratios.settled().iter().copied().fold(f64::NAN, f64::max);
        Self { median: ratios.median(), worst, noise: by.spread() }
    }

    pub fn is_comparable(&self) -> bool {
        self.noise <= NOISE_MAX && self.median.is_finite()
    }

    pub fn json(&self) -> Value {
        json!({
            "median": if self.is_comparable() { json!(self.median) } else { Value::Null },
            "worst": if self.is_comparable() { json!(self.worst) } else { Value::Null },
            "comparable": self.is_comparable(),
            "median_measured": self.median,
            "baseline_spread": self.noise,
        })
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_comparable() {
            write!(f, "{:.3} (worst {:.3})", self.median, self.worst)
        } else {
            let percent = self.noise * 100.0;
            write!(f, "not comparable (baseline differs by {percent:.0} % between rounds)")
        }
    }
}
