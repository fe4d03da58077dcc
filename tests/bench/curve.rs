// SPDX-License-Identifier: MIT
//! How something grows with the work, and the exponent of that.

use crate::results::Results;
use crate::rounds::Series;

/// One curve: what something took at each size.
pub struct Curve {
    of: &'static str,
    by: &'static str,
    unit: &'static str,
    pub points: Vec<(f64, Series)>,
}

impl Curve {
    /// What `of` takes in `unit`, by the sizes of `by`.
    pub fn new(of: &'static str, by: &'static str, unit: &'static str, sizes: &[u32]) -> Self {
        let points = sizes.iter().map(|size| (f64::from(*size), Series::default())).collect();
        Self { of, by, unit, points }
    }

    /// The slope of the logarithms over the upper half of the sizes: 1 is linear, 0 is constant.
    fn exponent(&self) -> f64 {
        let upper = &self.points[self.points.len() / 2..];
        let points: Vec<(f64, f64)> =
            upper.iter().map(|(size, series)| (size.ln(), series.median().ln())).collect();
        let n = points.len() as f64;
        let (mx, my) = (
            points.iter().map(|(x, _)| x).sum::<f64>() / n,
            points.iter().map(|(_, y)| y).sum::<f64>() / n,
        );
        let above: f64 = points.iter().map(|(x, y)| (x - mx) * (y - my)).sum();
        let below: f64 = points.iter().map(|(x, _)| (x - mx).powi(2)).sum();
        above / below
    }

    pub fn report(&self, results: &mut Results) {
        for (size, series) in &self.points {
            let what = format!("{}, by {}", self.of, self.by);
            results.figure(&what, &size.to_string(), self.unit, series);
        }
        let mut exponent = Series::default();
        exponent.push(f64::NAN);
        exponent.push(self.exponent());
        results.figure(
            &format!("exponent of {}, by {}", self.of, self.by),
            "upper half",
            "",
            &exponent,
        );
    }
}
