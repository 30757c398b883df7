//! The learned switch: logistic regression on the features of scored drafts.
//!
//! Newton's method on the mean log-loss with a ridge penalty on the weights of the standardized features
//! (the constant is free), so that separable data have finite weights too. Four parameters need no library.

use wsd_core::{Features, LearnedSwitch};

/// A position of a scored draft.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// The features of the window that ends there.
    #[serde(flatten)]
    pub features: Features,
    /// True if the answer is good with the base taking over there.
    pub good: bool,
}

/// Positions that nothing can be learned from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a switch is learned from good and bad positions, got {good} good and {bad} bad ones")]
pub struct OneSided {
    /// Good positions.
    pub good: usize,
    /// Bad positions.
    pub bad: usize,
}

/// A fitted switch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// The model.
    pub switch: LearnedSwitch,
    /// The mean log-loss on the positions, in nats.
    pub loss: f64,
    /// The mean log-loss of the share of good positions as a constant prediction, in nats.
    pub constant_loss: f64,
}

/// The penalty on the squared weights of standardized features, relative to the mean log-loss.
const RIDGE: f64 = 1e-3;
const STEPS: usize = 50;
const PARAMETERS: usize = 4;

/// Fits a switch to positions. Positions with a log-probability that is not finite are left out.
///
/// # Errors
/// [`OneSided`] where all positions are good, or none is.
///
/// ```
/// use wsd_core::Features;
/// use wsd_train::{Position, fit_switch};
///
/// let at = |confidence: f64, good| Position { features: Features { confidence, ..Features::default() }, good };
/// let fit = fit_switch(&[at(-2.0, false), at(-1.5, false), at(-0.5, true), at(-0.1, true)])?;
/// assert!(fit.switch.weights.confidence > 0.0 && fit.loss < fit.constant_loss);
/// # Ok::<(), wsd_train::OneSided>(())
/// ```
pub fn fit_switch(positions: &[Position]) -> Result<Fit, OneSided> {
    let rows: Vec<_> = positions.iter().filter(|position| position.features.confidence.is_finite()).collect();
    let good = rows.iter().filter(|position| position.good).count();
    if good == 0 || good == rows.len() {
        return Err(OneSided { good, bad: rows.len() - good });
    }
    let count = rows.len() as f64;
    let raw = |position: &Position| {
        let Features { confidence, entropy, agreement } = position.features;
        [confidence, entropy, agreement]
    };
    let mean = |of: &dyn Fn(&Position) -> f64| rows.iter().map(|row| of(row)).sum::<f64>() / count;
    let means = [0, 1, 2].map(|i| mean(&|row| raw(row)[i]));
    let spreads = [0, 1, 2].map(|i| mean(&|row| (raw(row)[i] - means[i]).powi(2)).sqrt().max(1e-9));
    let standard = |position: &Position| {
        let raw = raw(position);
        [1.0, (raw[0] - means[0]) / spreads[0], (raw[1] - means[1]) / spreads[1], (raw[2] - means[2]) / spreads[2]]
    };
    let examples: Vec<_> = rows.iter().map(|row| (standard(row), f64::from(u8::from(row.good)))).collect();
    let weights = newton(&examples);
    let scaled = [1, 2, 3].map(|i| weights[i] / spreads[i - 1]);
    let bias = weights[0] - scaled.iter().zip(means).map(|(weight, mean)| weight * mean).sum::<f64>();
    let features = Features { confidence: scaled[0], entropy: scaled[1], agreement: scaled[2] };
    let share = good as f64 / count;
    Ok(Fit {
        switch: LearnedSwitch { bias, weights: features },
        loss: loss(&examples, &weights),
        constant_loss: -share * share.ln() - (1.0 - share) * (1.0 - share).ln(),
    })
}

type Vector = [f64; PARAMETERS];

fn dot(a: &Vector, b: &Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The mean log-loss, without the penalty.
fn loss(examples: &[(Vector, f64)], weights: &Vector) -> f64 {
    let of = |(x, y): &(Vector, f64)| {
        let z = dot(x, weights);
        // ln(1 + e^z) - y z, without overflow.
        z.max(0.0) + (-z.abs()).exp().ln_1p() - y * z
    };
    examples.iter().map(of).sum::<f64>() / examples.len() as f64
}

fn newton(examples: &[(Vector, f64)]) -> Vector {
    let penalty = |weights: &Vector| RIDGE / 2.0 * weights[1..].iter().map(|w| w * w).sum::<f64>();
    let value = |weights: &Vector| loss(examples, weights) + penalty(weights);
    let mut weights = [0.0; PARAMETERS];
    for _ in 0..STEPS {
        let (mut gradient, mut hessian) = ([0.0; PARAMETERS], [[0.0; PARAMETERS]; PARAMETERS]);
        for (x, y) in examples {
            let p = 1.0 / (1.0 + (-dot(x, &weights)).exp());
            for i in 0..PARAMETERS {
                gradient[i] += (p - y) * x[i] / examples.len() as f64;
                for j in 0..PARAMETERS {
                    hessian[i][j] += p * (1.0 - p) * x[i] * x[j] / examples.len() as f64;
                }
            }
        }
        for i in 0..PARAMETERS {
            let ridge = if i == 0 { 0.0 } else { RIDGE };
            gradient[i] += ridge * weights[i];
            hessian[i][i] += ridge + 1e-9;
        }
        let step = solve(hessian, gradient);
        // A step that overshoots is halved.
        let (before, mut size) = (value(&weights), 1.0);
        let moved = |size: f64| std::array::from_fn(|i| weights[i] - size * step[i]);
        while size > 1e-6 && value(&moved(size)) > before {
            size /= 2.0;
        }
        weights = moved(size);
        if step.iter().all(|step| step.abs() * size < 1e-10) {
            break;
        }
    }
    weights
}

/// Solves a symmetric positive definite system by elimination.
fn solve(mut matrix: [Vector; PARAMETERS], mut right: Vector) -> Vector {
    for i in 0..PARAMETERS {
        for j in i + 1..PARAMETERS {
            let (factor, pivot) = (matrix[j][i] / matrix[i][i], matrix[i]);
            matrix[j].iter_mut().zip(pivot).skip(i).for_each(|(value, pivot)| *value -= factor * pivot);
            right[j] -= factor * right[i];
        }
    }
    for i in (0..PARAMETERS).rev() {
        let known: f64 = (i + 1..PARAMETERS).map(|j| matrix[i][j] * right[j]).sum();
        right[i] = (right[i] - known) / matrix[i][i];
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsd_core::splitmix64;

    fn uniform(state: u64) -> f64 {
        (splitmix64(state) >> 11) as f64 / (1u64 << 53) as f64
    }

    #[test]
    fn known_weights_are_found_again() {
        let truth = LearnedSwitch { bias: 1.0, weights: Features { confidence: 2.0, entropy: -1.5, agreement: 3.0 } };
        let position = |i: u64| {
            let features = Features {
                confidence: -3.0 * uniform(4 * i),
                entropy: 2.0 * uniform(4 * i + 1),
                agreement: (uniform(4 * i + 2) * 7.0).floor() / 6.0,
            };
            Position { features, good: uniform(4 * i + 3) < truth.probability(&features) }
        };
        let positions: Vec<_> = (0..40_000).map(position).collect();
        let fit = fit_switch(&positions).unwrap();
        let Features { confidence, entropy, agreement } = fit.switch.weights;
        for (got, want) in [(fit.switch.bias, 1.0), (confidence, 2.0), (entropy, -1.5), (agreement, 3.0)] {
            assert!((got - want).abs() < 0.15, "{fit:?}");
        }
        assert!(fit.loss < fit.constant_loss);
    }

    #[test]
    fn separable_positions_have_finite_weights_and_one_sided_ones_are_refused() {
        let at = |confidence: f64, good| Position { features: Features { confidence, ..Features::default() }, good };
        let fit = fit_switch(&[at(-3.0, false), at(-2.0, false), at(-0.2, true), at(-0.1, true)]).unwrap();
        assert!(fit.switch.weights.confidence.is_finite() && fit.loss < 0.1, "{fit:?}");
        assert_eq!(fit.switch.weights.entropy, 0.0, "a feature that never varies has no weight");
        let all_good = [at(-0.1, true), at(-0.2, true), at(f64::NEG_INFINITY, false)];
        assert_eq!(fit_switch(&all_good), Err(OneSided { good: 2, bad: 0 }));
    }
}
