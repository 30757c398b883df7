//! What training makes smaller: a row each in [`OBJECTIVES`].

use super::model::{Example, Graded, Measure};
use super::settings::Preference;

/// What the weights of a step are divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Totals {
    /// Examples of the step.
    pub examples: f64,
    /// Learned tokens of their first texts.
    pub targets: f64,
}

impl Totals {
    /// Of these examples.
    #[must_use]
    pub fn of(examples: &[&Example]) -> Self {
        let targets: usize = examples.iter().map(|example| example.targets()).sum();
        Self { examples: examples.len() as f64, targets: targets.max(1) as f64 }
    }
}

/// What of an example is learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learns {
    /// Every token of a text or of a conversation.
    Everything,
    /// The answers of a conversation, or what follows a prompt.
    Answers,
    /// Which of two answers is better.
    Preferences,
}

impl Learns {
    /// Texts of an example.
    #[must_use]
    pub fn texts(self) -> usize {
        if self == Self::Preferences { 2 } else { 1 }
    }
}

/// One objective.
#[derive(Debug)]
pub struct Objective {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What of an example is learnt.
    pub learns: Learns,
    grade: fn(&Preference, Totals, &Example, &[&[f32]]) -> Graded,
}

/// All objectives.
pub const OBJECTIVES: &[Objective] = &[
    Objective {
        name: "pretrain",
        about: "Learn to predict every next token of texts",
        learns: Learns::Everything,
        grade: next_token,
    },
    Objective {
        name: "sft",
        about: "Learn to answer: to predict the assistant's tokens",
        learns: Learns::Answers,
        grade: next_token,
    },
    Objective {
        name: "dpo",
        about: "Learn to prefer the chosen answer to the rejected one",
        learns: Learns::Preferences,
        grade: preference,
    },
];

impl Objective {
    /// The objective of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        OBJECTIVES.iter().find(|objective| objective.name == name)
    }

    /// Judge an example of a step by the log-probabilities of its learned tokens.
    #[must_use]
    pub fn grade(&self, preference: &Preference, totals: Totals, example: &Example, logprobs: &[&[f32]]) -> Graded {
        (self.grade)(preference, totals, example, logprobs)
    }
}

/// The mean over all learned tokens of the step.
fn next_token(_: &Preference, totals: Totals, _: &Example, logprobs: &[&[f32]]) -> Graded {
    let targets: usize = logprobs.iter().map(|logprobs| logprobs.len()).sum();
    let loss = -sums(logprobs).iter().sum::<f64>();
    let slope = -(1.0 / totals.targets) as f32;
    Graded { measures: vec![Measure { name: "loss", sum: loss, weight: targets as f64 }], slopes: vec![slope; targets] }
}

/// Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, equation 7), with label smoothing
/// (conservative DPO) and a next-token term on the chosen text (arXiv 2404.19733), as TRL has them.
fn preference(settings: &Preference, totals: Totals, example: &Example, logprobs: &[&[f32]]) -> Graded {
    let (beta, smoothing) = (settings.beta, settings.label_smoothing);
    let sums = sums(logprobs);
    let [chosen, rejected] =
        [0, 1].map(|side| beta * (sums[side] - example.reference.get(side).copied().unwrap_or(sums[side])));
    let margin = chosen - rejected;
    let loss = -(1.0 - smoothing) * log_sigmoid(margin) - smoothing * log_sigmoid(-margin);
    // The slope at the margin: of -log sigmoid(m) it is -sigmoid(-m).
    let slope = -(1.0 - smoothing) * sigmoid(-margin) + smoothing * sigmoid(margin);
    let targets = logprobs[0].len() as f64;
    let of_examples = slope * beta / totals.examples;
    let of_tokens = settings.sft_weight / totals.targets;
    let slopes = [of_examples - of_tokens, -of_examples];
    let one = |name, sum| Measure { name, sum, weight: 1.0 };
    let mut measures = vec![
        one("loss", loss),
        one("rewards/chosen", chosen),
        one("rewards/rejected", rejected),
        one("rewards/margins", margin),
        one("rewards/accuracies", f64::from(u8::from(margin > 0.0))),
        one("logps/chosen", sums[0]),
        one("logps/rejected", sums[1]),
    ];
    if settings.sft_weight > 0.0 {
        // Weights such that the means over the step add up to the loss.
        measures[0].sum -= settings.sft_weight * sums[0] * totals.examples / totals.targets;
        measures.push(Measure { name: "nll_loss", sum: -sums[0], weight: targets });
    }
    let slopes = logprobs.iter().zip(slopes).flat_map(|(logprobs, slope)| vec![slope as f32; logprobs.len()]);
    Graded { measures, slopes: slopes.collect() }
}

/// What the log-probabilities of each text come to.
#[must_use]
pub(super) fn sums(logprobs: &[&[f32]]) -> Vec<f64> {
    logprobs.iter().map(|logprobs| logprobs.iter().copied().map(f64::from).sum()).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slopes are those of the loss, by differences.
    #[test]
    fn slopes_are_differences_of_the_loss() {
        let settings = Preference { beta: 0.3, label_smoothing: 0.1, sft_weight: 0.5 };
        let example = Example { reference: vec![-3.0, -2.5], ..Example::default() };
        let totals = Totals { examples: 3.0, targets: 7.0 };
        for objective in OBJECTIVES {
            let texts = [vec![-0.5, -1.5, -0.25], vec![-2.0, -0.75]];
            let loss = |texts: &[Vec<f32>]| {
                let texts: Vec<_> = texts.iter().take(objective.learns.texts()).map(Vec::as_slice).collect();
                let graded = objective.grade(&settings, totals, &example, &texts);
                let weight = if objective.learns.texts() == 1 { totals.targets } else { totals.examples };
                (graded.measures[0].sum / weight, graded.slopes)
            };
            let (before, slopes) = loss(&texts);
            let mut seen = 0;
            for text in 0..objective.learns.texts() {
                for token in 0..texts[text].len() {
                    let mut nudged = texts.clone();
                    nudged[text][token] += 1.0 / 1024.0;
                    let difference = (loss(&nudged).0 - before) * 1024.0;
                    assert!((difference - f64::from(slopes[seen])).abs() < 1e-4, "{} {text} {token}", objective.name);
                    seen += 1;
                }
            }
            assert_eq!(seen, slopes.len());
        }
    }
}
