//! One thing measured on several sides in turns, and how the sides compare. Pure.

use std::fmt;

use serde::Serialize;

/// What is measured, and how it is written.
#[derive(Debug, Serialize)]
pub(crate) struct Unit {
    name: &'static str,
    #[serde(skip)]
    decimals: usize,
    /// Which of two figures of one side counts: of times the shorter and of rates the higher, as whatever else the machine
    /// does only makes them worse; of memory the larger.
    #[serde(skip)]
    counts: fn(f64, f64) -> f64,
}

pub(crate) const NANOSECONDS: &Unit = &Unit { name: "ns", decimals: 0, counts: f64::min };
pub(crate) const MILLISECONDS: &Unit = &Unit { name: "ms", decimals: 1, counts: f64::min };
pub(crate) const SECONDS: &Unit = &Unit { name: "s", decimals: 2, counts: f64::min };
pub(crate) const MEBIBYTES: &Unit = &Unit { name: "MiB", decimals: 2, counts: f64::max };
pub(crate) const PER_SECOND: &Unit = &Unit { name: "per second", decimals: 0, counts: f64::max };

/// Figures of several sides, one of each in a round.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    what: String,
    unit: &'static Unit,
    /// The first is what the others are held against.
    sides: Vec<String>,
    rounds: Vec<Vec<f64>>,
    /// More than that on the last side is a failure.
    limit: Option<f64>,
}

impl Comparison {
    /// Nothing measured yet.
    pub(crate) fn new(
        what: impl Into<String>,
        unit: &'static Unit,
        sides: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let sides = sides.into_iter().map(Into::into).collect();
        Self { what: what.into(), unit, sides, rounds: Vec::new(), limit: None }
    }

    /// The last side must not have more than that.
    pub(crate) fn at_most(self, limit: f64) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// One round's figures, as many as there are sides.
    pub(crate) fn add(&mut self, figures: impl Into<Vec<f64>>) {
        let figures = figures.into();
        assert_eq!(figures.len(), self.sides.len(), "{}: a figure of each side", self.what);
        self.rounds.push(figures);
    }

    /// Why that is a failure, where it is one.
    pub(crate) fn too_much(&self) -> Option<String> {
        let (last, limit) = (self.sides.len() - 1, self.limit?);
        let (figure, side) = (self.figure(last), &self.sides[last]);
        let Unit { name, decimals, .. } = self.unit;
        (figure > limit).then(|| {
            format!("{}: {side} takes {figure:.decimals$} {name}, more than {limit:.decimals$}", self.what)
        })
    }

    /// What is measured.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// The figures that count, of each side by its name.
    pub(crate) fn figures(&self) -> impl Iterator<Item = (&str, f64)> {
        self.sides.iter().enumerate().map(|(side, name)| (name.as_str(), self.figure(side)))
    }

    /// The figure of a side that counts.
    fn figure(&self, side: usize) -> f64 {
        self.rounds.iter().map(|figures| figures[side]).reduce(self.unit.counts).unwrap_or(f64::NAN)
    }

    /// A side by the first, in the middle of the rounds: far from that of the figures where the machine was not quiet.
    fn median_ratio(&self, side: usize) -> f64 {
        median(self.rounds.iter().map(|figures| figures[side] / figures[0]).collect())
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unit { name, decimals, .. } = self.unit;
        write!(f, "{}:", self.what)?;
        for (side, what) in self.sides.iter().enumerate() {
            let (figure, separator) = (self.figure(side), if side == 0 { "" } else { "," });
            write!(f, "{separator} {what} {figure:.decimals$} {name}")?;
            if side > 0 {
                write!(f, " (ratio {:.2}, median {:.2})", figure / self.figure(0), self.median_ratio(side))?;
            }
        }
        Ok(())
    }
}

/// The middle of the figures, or of the two that are there.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => figures[odd / 2],
        even => f64::midpoint(figures[even / 2 - 1], figures[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(unit: &'static Unit, rounds: &[[f64; 2]]) -> Comparison {
        let mut comparison = Comparison::new("connect()", unit, ["without", "with"]);
        rounds.iter().for_each(|figures| comparison.add(*figures));
        comparison
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let check = |figures: &[f64], expected: f64| {
            assert!((median(figures.to_vec()) - expected).abs() < f64::EPSILON, "{figures:?}");
        };
        check(&[3.0], 3.0);
        check(&[9.0, 1.0, 2.0], 2.0);
        check(&[4.0, 1.0, 2.0, 100.0], 3.0);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn a_line_has_the_figures_that_count_and_how_they_compare() {
        let times = comparison(NANOSECONDS, &[[100.0, 300.0], [200.0, 220.0], [120.0, 150.0]]);
        let expected = "connect(): without 100 ns, with 150 ns (ratio 1.50, median 1.25)";
        assert_eq!(times.to_string(), expected);
        let rates = comparison(PER_SECOND, &[[1000.0, 900.0], [2000.0, 1000.0]]);
        let expected = "connect(): without 2000 per second, with 1000 per second (ratio 0.50, median 0.70)";
        assert_eq!(rates.to_string(), expected);
        let mut three = Comparison::new("memory", MEBIBYTES, ["one", "two", "three"]);
        three.add([1.0, 2.0, 4.0]);
        let expected = "memory: one 1.00 MiB, two 2.00 MiB (ratio 2.00, median 2.00), three 4.00 MiB (ratio 4.00, median 4.00)";
        assert_eq!(three.to_string(), expected);
    }

    #[test]
    fn what_takes_more_than_it_may_is_reported() {
        let rounds = [[10.0, 1500.0], [10.0, 1100.25]];
        assert_eq!(comparison(MILLISECONDS, &rounds).at_most(1100.5).too_much(), None);
        assert_eq!(comparison(MILLISECONDS, &rounds).too_much(), None);
        let expected = "connect(): with takes 1100.2 ms, more than 1000.0";
        assert_eq!(comparison(MILLISECONDS, &rounds).at_most(1000.0).too_much().as_deref(), Some(expected));
    }
}
