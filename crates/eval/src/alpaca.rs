//! Win rates from AlpacaEval's annotations.

use serde::Serialize;
use wsd_lab::stats::{mean, standard_error};

use crate::{Source, SourceError};

/// Preferences and lengths of one annotated pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Annotation {
    /// Preference of the annotator, from 1 for the reference to 2 for the model; `None` if it gave none.
    pub preference: Option<f64>,
    /// Characters in the reference's answer.
    pub reference_chars: usize,
    /// Characters in the model's answer.
    pub model_chars: usize,
}

/// AlpacaEval's aggregates, in percent where they are rates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WinRates {
    /// Mean preference for the model.
    pub win_rate: f64,
    /// Standard error of the mean.
    pub standard_error: f64,
    /// Share of wins, with ties counted half.
    pub discrete_win_rate: f64,
    /// Win rate at equal lengths, by a logistic model of the preference with an intercept and the
    /// hyperbolic tangent of the standardized difference of lengths (`length_controlled_minimal` of
    /// AlpacaEval, without its regularization).
    pub length_controlled: f64,
    /// Number of pairs with a preference.
    pub n: usize,
    /// Number of pairs without one.
    pub failed: usize,
}

/// Steps of Newton's method; a handful reaches machine precision.
const STEPS: usize = 50;

/// Reads a file of annotations.
///
/// # Errors
/// [`SourceError`] for a file of another form.
pub fn read_annotations(source: &Source) -> Result<Vec<Annotation>, SourceError> {
    let row = |row: &crate::Row| {
        let value = row.value("preference")?;
        let preference = value.as_f64().or_else(|| value.as_str()?.parse().ok());
        // 0 stands for a tie.
        let preference = preference.map(|preference| if preference == 0.0 { 1.5 } else { preference });
        if preference.is_some_and(|preference| !(0.999..=2.001).contains(&preference)) {
            return Err(row.fault(format!("`preference` must be a number from 1 to 2, got {value}")));
        }
        let chars = |key| Ok::<_, SourceError>(row.text(key)?.chars().count());
        Ok(Annotation { preference, reference_chars: chars("output_1")?, model_chars: chars("output_2")? })
    };
    source.rows()?.iter().map(row).collect()
}

impl WinRates {
    /// Aggregates annotations; `None` if none has a preference.
    #[must_use]
    pub fn of(annotations: &[Annotation]) -> Option<Self> {
        let known: Vec<_> = annotations.iter().filter_map(|pair| Some((pair, pair.preference? - 1.0))).collect();
        let wins: Vec<f64> = known.iter().map(|(_, win)| *win).collect();
        let discrete = wins.iter().map(|&win| match win {
            0.5 => 0.5,
            win => f64::from(u8::from(win > 0.5)),
        });
        Some(Self {
            win_rate: 100.0 * mean(&wins)?,
            standard_error: 100.0 * standard_error(&wins)?,
            discrete_win_rate: 100.0 * mean(&discrete.collect::<Vec<_>>())?,
            length_controlled: 100.0 * length_controlled(annotations, &known),
            n: wins.len(),
            failed: annotations.len() - wins.len(),
        })
    }
}

/// The probability of a win at equal lengths. Lengths are standardized over all pairs.
fn length_controlled(all: &[Annotation], known: &[(&Annotation, f64)]) -> f64 {
    let difference = |pair: &Annotation| pair.reference_chars as f64 - pair.model_chars as f64;
    let differences: Vec<f64> = all.iter().map(difference).collect();
    let deviation = standard_error(&differences).unwrap_or(0.0) * (differences.len() as f64).sqrt();
    let feature = |pair: &Annotation| if deviation > 0.0 { (difference(pair) / deviation).tanh() } else { 0.0 };
    let rows: Vec<(f64, f64)> = known.iter().map(|(pair, win)| (feature(pair), win.clamp(0.0, 1.0))).collect();
    let (mut intercept, mut slope) = (0.0, 0.0);
    for _ in 0..STEPS {
        let (mut gradient, mut curvature) = ([0.0; 2], [0.0; 3]);
        for &(x, win) in &rows {
            let p = logistic(intercept + slope * x);
            let weight = p * (1.0 - p);
            gradient = [gradient[0] + win - p, gradient[1] + (win - p) * x];
            curvature = [curvature[0] + weight, curvature[1] + weight * x, curvature[2] + weight * x * x];
        }
        let determinant = curvature[0] * curvature[2] - curvature[1] * curvature[1];
        if determinant > 1e-12 {
            intercept += (curvature[2] * gradient[0] - curvature[1] * gradient[1]) / determinant;
            slope += (curvature[0] * gradient[1] - curvature[1] * gradient[0]) / determinant;
        } else if curvature[0] > 1e-12 {
            intercept += gradient[0] / curvature[0];
        }
    }
    logistic(intercept)
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_a_few_pairs() {
        let text = r#"[{"preference": 1.0, "output_1": "aaaa", "output_2": "b"},
            {"preference": "1.9", "output_1": "a", "output_2": "bbbb"},
            {"preference": null, "output_1": "a", "output_2": "b"},
            {"preference": 0, "output_1": "aa", "output_2": "bb"}]"#;
        let rates = WinRates::of(&read_annotations(&Source::of("a.json", text)).unwrap()).unwrap();
        assert_eq!((rates.n, rates.failed, rates.discrete_win_rate), (3, 1, 50.0));
        assert!((rates.win_rate - 140.0 / 3.0).abs() < 1e-9, "{rates:?}");
        let fault = read_annotations(&Source::of("a", r#"{"preference": 3, "output_1": "", "output_2": ""}"#));
        assert!(fault.unwrap_err().to_string().starts_with("a:1: `preference` must be a number from 1 to 2, got 3"));
    }

    #[test]
    fn length_is_controlled() {
        // The model wins where it is longer and loses where it is shorter: at equal lengths it is even.
        let pair = |wins: bool| Annotation {
            preference: Some(if wins { 1.8 } else { 1.2 }),
            reference_chars: 100,
            model_chars: if wins { 150 } else { 50 },
        };
        let pairs: Vec<_> = (0..9).map(|i| pair(i % 3 != 0)).collect();
        let rates = WinRates::of(&pairs).unwrap();
        assert!((rates.length_controlled - 50.0).abs() < 1e-6 && rates.win_rate > 55.0, "{rates:?}");
    }
}
