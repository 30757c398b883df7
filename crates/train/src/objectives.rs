//! Objectives: losses to minimize, one entry each in [`OBJECTIVES`].
//!
//! An objective is a function of the log-probabilities of an example: it returns the loss and its
//! gradient with respect to them. [`Needs`] declares whether it needs those of the targets alone or
//! whole rows over the vocabulary, and whether it also needs those of the frozen reference model; or
//! it needs rewards instead. The model computes what is declared and propagates the gradient to its
//! weights, so objectives do not depend on tensors.

mod distill;
mod dpo;
mod ipo;
mod kto;
mod next_token;
mod orpo;
mod preference;
mod residual;
mod reward;
mod simpo;
mod starft;
mod weighted;

use wsd_core::{Setting, Values};

use crate::example::Example;

/// A loss to minimize; an entry of [`OBJECTIVES`].
#[derive(Debug)]
pub struct Objective {
    /// The name on the command line and in run files.
    pub name: &'static str,
    /// One line for the help.
    pub about: &'static str,
    /// The tokens of a row that are targets.
    pub targets: TargetTokens,
    /// The settings of this objective.
    pub settings: &'static [&'static Setting],
    /// The numbers that [`Loss::compute`] needs.
    pub needs: Needs,
    /// The weight in a sum of objectives, unless the run file gives another.
    pub weight: Weight,
    /// Makes the loss from checked settings.
    pub make: fn(&Values) -> Box<dyn Loss>,
}

/// All objectives.
pub static OBJECTIVES: &[&Objective] = &[
    // The stages of the paper's draft model.
    &next_token::PRETRAIN,
    &next_token::SFT,
    &dpo::OBJECTIVE,
    // Others that learn from answers.
    &weighted::OBJECTIVE,
    &distill::OBJECTIVE,
    &starft::OBJECTIVE,
    // Others that learn from comparisons.
    &ipo::OBJECTIVE,
    &simpo::OBJECTIVE,
    &orpo::OBJECTIVE,
    &kto::OBJECTIVE,
    &residual::OBJECTIVE,
    // Heads.
    &reward::PREFERENCES,
    &reward::STEPS,
];

impl Objective {
    /// The objective of this name.
    ///
    /// ```
    /// use wsd_train::{Objective, Needs};
    /// assert_eq!(Objective::find("dpo").unwrap().needs, Needs::TargetsAndReference);
    /// ```
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        OBJECTIVES.iter().copied().find(|objective| objective.name == name)
    }
}

/// The tokens of a training row that are targets, that is, predicted in the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetTokens {
    /// Every token of a text or a conversation.
    Everything,
    /// The assistant's messages of a conversation, or the completion of a prompt.
    Answers,
    /// A chosen and a rejected answer: two sequences per example.
    Preferences,
    /// An answer with a label, 1 for a wanted and 0 for an unwanted one; and for the divergence of
    /// the step the answer to another prompt, as [`Example::baseline`].
    Labelled,
    /// The last token of a chosen and of a rejected answer: two sequences per example.
    PreferenceEnds,
    /// The last token of each step of an answer, with its label.
    StepEnds,
}

/// The factor on a loss in a sum of objectives: a straight line over the steps of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight {
    /// The value that the line comes from before the first step.
    pub start: f64,
    /// The value in the last step.
    pub end: f64,
}

impl Weight {
    /// The weight 1 throughout.
    pub const ONE: Self = Self::constant(1.0);

    /// The same weight throughout.
    #[must_use]
    pub const fn constant(value: f64) -> Self {
        Self { start: value, end: value }
    }

    /// The same line with another first value, in proportion.
    #[must_use]
    pub(crate) fn scaled_to(self, start: f64) -> Self {
        let factor = if self.start == 0.0 { 1.0 } else { start / self.start };
        Self { start, end: self.end * factor }
    }

    /// The weight after a share `progress` of the steps, from 0 to 1.
    ///
    /// ```
    /// let weight = wsd_train::Weight { start: 0.5, end: 0.0 };
    /// assert_eq!([0.25, 1.0].map(|progress| weight.at(progress)), [0.375, 0.0]);
    /// ```
    #[must_use]
    pub fn at(self, progress: f64) -> f64 {
        self.start + (self.end - self.start) * progress
    }
}

/// The numbers that an objective needs of each target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The log-probability of the target.
    Targets,
    /// The log-probability of the target, and per sequence their sum under the reference model.
    TargetsAndReference,
    /// The log-probabilities of the whole vocabulary.
    Rows,
    /// The log-probabilities of the whole vocabulary, also under the reference model.
    RowsAndReference,
    /// The output of the reward head at the target itself, in place of a log-probability.
    Rewards,
}

impl Needs {
    /// True for [`Needs::Rows`] and [`Needs::RowsAndReference`].
    #[must_use]
    pub fn rows(self) -> bool {
        matches!(self, Self::Rows | Self::RowsAndReference)
    }
}

/// A loss with its settings.
pub trait Loss: Send + Sync {
    /// Computes the loss of one example and its gradient.
    fn compute(&self, input: &LossInput<'_>) -> LossOutput;
}

/// The input of a loss: one example and its log-probabilities.
#[derive(Clone, Copy, Debug)]
pub struct LossInput<'a> {
    /// The example.
    pub example: &'a Example,
    /// Counts over all examples of the step, to divide by.
    pub totals: Totals,
    /// Entries of a row: the vocabulary's size for [`Needs::Rows`], 1 for [`Needs::Targets`].
    pub width: usize,
    /// Log-probabilities, or rewards for [`Needs::Rewards`], `(targets, width)`, all sequences end
    /// to end.
    pub logprobs: &'a [f32],
    /// Log-probabilities under the reference model, of the same shape; empty unless
    /// [`Needs::RowsAndReference`].
    pub reference: &'a [f32],
}

impl LossInput<'_> {
    /// The sum of the targets' log-probabilities of each sequence, for [`Needs::Targets`].
    #[must_use]
    pub fn sums(&self) -> Vec<f64> {
        let mut rest = self.logprobs;
        let mut sum = |targets: usize| {
            let (own, others) = rest.split_at(targets);
            rest = others;
            own.iter().copied().map(f64::from).sum()
        };
        self.example.sequences.iter().map(|sequence| sum(sequence.targets())).collect()
    }

    /// The token ids of all targets.
    pub fn targets(&self) -> impl Iterator<Item = u32> {
        let sequences = self.example.sequences.iter();
        sequences.flat_map(|sequence| sequence.positions().map(|position| sequence.tokens[position]))
    }
}

/// Numbers of a whole step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Totals {
    /// The number of examples.
    pub examples: f64,
    /// The number of targets of their first sequences, at least 1.
    pub targets: f64,
    /// The divergence from the reference model, estimated from [`Example::baseline`]: the mean of
    /// `log p - log q` over these answers, at least 0; 0 without them.
    pub divergence: f64,
}

impl Totals {
    /// The counts of these examples, without a divergence.
    #[must_use]
    pub fn of(examples: &[&Example]) -> Self {
        let targets: usize = examples.iter().map(|example| example.targets()).sum();
        Self { examples: examples.len() as f64, targets: targets.max(1) as f64, divergence: 0.0 }
    }
}

/// The loss of one example and its gradient.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossOutput {
    /// The measures to report; the first is the loss.
    pub measures: Vec<Measure>,
    /// The gradient of the step's loss with respect to [`LossInput::logprobs`], of the same shape.
    pub logprob_gradients: Vec<f32>,
}

/// A sum over examples and the weight to divide it by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measure {
    /// The name, TRL's where TRL has one.
    pub name: &'static str,
    /// The sum.
    pub sum: f64,
    /// The divisor.
    pub weight: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sequence;

    /// The gradient of every objective equals finite differences of its loss.
    #[test]
    fn gradients_are_differences_of_the_loss() {
        for objective in OBJECTIVES {
            let loss = (objective.make)(&Values::default());
            let targets = match objective.targets {
                TargetTokens::Preferences => vec![3, 2],
                TargetTokens::PreferenceEnds => vec![1, 1],
                _ => vec![3],
            };
            let sequence = |targets: &usize| Sequence::targets_from(1, (0..=*targets as u32).collect());
            let sequences = targets.iter().map(sequence).collect();
            let (reference, labels) = (vec![-3.0, -2.5], vec![1.0, 0.0, 1.0]);
            let example = Example { sequences, reference, labels, ..Example::default() };
            let totals = Totals { divergence: 0.3, ..Totals::of(&[&example]) };
            let width = if objective.needs.rows() { 4 } else { 1 };
            let len = targets.iter().sum::<usize>() * width;
            let values = |shift: f32| (0..len).map(|i| -1.0 - (i as f32 * 0.9 + shift).sin().abs()).collect::<Vec<_>>();
            let reference = if objective.needs == Needs::RowsAndReference { values(0.4) } else { Vec::new() };
            let compute = |logprobs: &[f32]| {
                let input = LossInput { example: &example, totals, width, logprobs, reference: &reference };
                let output = loss.compute(&input);
                (output.measures[0].sum / output.measures[0].weight, output.logprob_gradients)
            };
            let logprobs = values(0.0);
            let (before, gradients) = compute(&logprobs);
            assert_eq!(gradients.len(), len);
            for (index, gradient) in gradients.iter().enumerate() {
                let mut shifted = logprobs.clone();
                shifted[index] += 1.0 / 1024.0;
                let difference = (compute(&shifted).0 - before) * 1024.0;
                assert!((difference - f64::from(*gradient)).abs() < 1e-3, "{} {index}", objective.name);
            }
        }
    }
}
