//! Cross-entropy of the next token: `pretrain` on every token, `sft` on answers.

use wsd_core::Values;

use super::{Loss, LossInput, LossOutput, Measure, Needs, Objective, TargetTokens, Weight};

pub(super) static PRETRAIN: Objective = Objective {
    name: "pretrain",
    about: "Learn to predict every next token of texts",
    targets: TargetTokens::Everything,
    settings: &[],
    needs: Needs::Targets,
    weight: Weight::ONE,
    make,
};

pub(super) static SFT: Objective = Objective {
    name: "sft",
    about: "Learn to answer: to predict the assistant's tokens",
    targets: TargetTokens::Answers,
    settings: &[],
    needs: Needs::Targets,
    weight: Weight::ONE,
    make,
};

fn make(_: &Values) -> Box<dyn Loss> {
    Box::new(NextToken)
}

/// The mean of `-log p(target)` over all targets of the step.
struct NextToken;

impl Loss for NextToken {
    fn compute(&self, input: &LossInput<'_>) -> LossOutput {
        let targets = input.logprobs.len();
        let loss = -input.sums().iter().sum::<f64>();
        LossOutput {
            measures: vec![Measure { name: "loss", sum: loss, weight: targets as f64 }],
            logprob_gradients: vec![-(1.0 / input.totals.targets) as f32; targets],
        }
    }
}
