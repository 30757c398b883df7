//! Cross-entropy of the next token: `pretrain` on every token, `sft` on answers.

use wsd_core::Values;

use super::{Graded, Learns, Loss, Measure, Objective, Seen, Sees};

pub(super) static PRETRAIN: Objective = Objective {
    name: "pretrain",
    about: "Learn to predict every next token of texts",
    learns: Learns::Everything,
    settings: &[],
    sees: Sees::Targets,
    make,
};

pub(super) static SFT: Objective = Objective {
    name: "sft",
    about: "Learn to answer: to predict the assistant's tokens",
    learns: Learns::Answers,
    settings: &[],
    sees: Sees::Targets,
    make,
};

fn make(_: &Values) -> Box<dyn Loss> {
    Box::new(NextToken)
}

/// The mean of `-log p(target)` over all targets of the step.
struct NextToken;

impl Loss for NextToken {
    fn grade(&self, seen: &Seen<'_>) -> Graded {
        let targets = seen.logprobs.len();
        let loss = -seen.sums().iter().sum::<f64>();
        Graded {
            measures: vec![Measure { name: "loss", sum: loss, weight: targets as f64 }],
            logprob_gradients: vec![-(1.0 / seen.totals.targets) as f32; targets],
        }
    }
}
