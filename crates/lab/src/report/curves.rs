//! Mean log-probability by position: the base rates aligned answers higher the longer their prefix
//! (the paper's observation).

use serde::{Deserialize, Serialize};

use super::Run;
use crate::eval::Positions;
use crate::plot::{Lines, Page, Series};
use crate::stats::{mean, standard_error};

/// Number of answers that must reach a position for it to be shown.
const MIN_ANSWERS: usize = 20;

/// The base's mean log-probability of one kind of answer, by position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Kind of answer.
    pub name: String,
    /// Mean natural log-probability at each position.
    pub mean: Vec<f64>,
    /// Standard error of the mean at each position.
    pub standard_error: Vec<f64>,
    /// Number of answers that reach each position.
    pub count: Vec<usize>,
}

/// Curves of all kinds of answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    /// Curves of the base's own samples, the pilot's answers and aligned answers, in this order.
    pub curves: Vec<Curve>,
}

impl Curves {
    /// Computes the curves over the rows of all runs.
    #[must_use]
    pub fn of(runs: &[Run]) -> Self {
        let curve = |name: &str, of: fn(&Positions) -> &Vec<f64>| {
            let answers: Vec<_> = runs.iter().flat_map(|run| &run.positions).map(of).collect();
            let mut curve = Curve { name: name.into(), mean: vec![], standard_error: vec![], count: vec![] };
            for position in 0.. {
                let values: Vec<f64> = answers.iter().filter_map(|answer| answer.get(position).copied()).collect();
                if values.len() < MIN_ANSWERS {
                    return curve;
                }
                curve.mean.push(mean(&values).unwrap_or(f64::NAN));
                curve.standard_error.push(standard_error(&values).unwrap_or(f64::NAN));
                curve.count.push(values.len());
            }
            curve
        };
        Self {
            curves: vec![
                curve("own samples", |row| &row.own),
                curve("the pilot's", |row| &row.pilot),
                curve("aligned answers", |row| &row.reference),
            ],
        }
    }

    /// Renders the curves as a figure.
    #[must_use]
    pub fn figure(&self) -> Page {
        let series = self.curves.iter().zip([0, 1, 2]).map(|(curve, color)| {
            let points = || curve.mean.iter().enumerate().map(|(at, &mean)| (at as f64, mean));
            // A log-probability is at most 0, whatever its error.
            let band = points()
                .zip(&curve.standard_error)
                .map(|((at, mean), error)| (at, mean - 1.96 * error, (mean + 1.96 * error).min(0.0)));
            Series { band: band.collect(), color: Some(color), ..Series::new(&curve.name, points()) }
        });
        let lines = Lines {
            title: "How likely the base finds each token".into(),
            x_label: "position in the answer, in the base's tokens".into(),
            y_label: "mean log-probability, nats".into(),
            series: series.collect(),
            rules: vec![(0.8_f64.ln(), "ln 0.8, the threshold".into())],
        };
        Page { columns: 1, panels: vec![lines.into()], ..Page::default() }
    }
}
