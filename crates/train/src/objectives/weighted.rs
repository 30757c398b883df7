//! Answers whose first tokens weigh most: ARBooth's scale-weighted cross-entropy (arXiv 2504.02612,
//! equation 4), with the tokens of an answer for the scales of an image.

use wsd_core::{Setting, Values};

use super::{Loss, LossInput, LossOutput, Measure, Needs, Objective, TargetTokens, Weight};

static FIRST_TOKENS: Setting =
    Setting::integer("first_tokens", "Tokens at the beginning of each answer that have weight 1", 0..=1 << 20)
        .with_default_integer(16);
static LATER_WEIGHT: Setting =
    Setting::number("later_weight", "Weight of the tokens after them", 0.0..=1e3).with_default_number(0.5);

pub(super) static OBJECTIVE: Objective = Objective {
    name: "weighted",
    about: "Learn to answer, the beginning of an answer most",
    targets: TargetTokens::Answers,
    settings: &[&FIRST_TOKENS, &LATER_WEIGHT],
    needs: Needs::Targets,
    weight: Weight::ONE,
    make,
};

fn make(values: &Values) -> Box<dyn Loss> {
    Box::new(Weighted { first_tokens: values.get(&FIRST_TOKENS), later_weight: values.get(&LATER_WEIGHT) })
}

/// The sum of `-w * log p(target)`, divided by the number of targets.
struct Weighted {
    first_tokens: usize,
    later_weight: f64,
}

impl Loss for Weighted {
    fn compute(&self, input: &LossInput<'_>) -> LossOutput {
        let ranges = input.example.sequences.iter().flat_map(|sequence| &sequence.target_ranges);
        let weight = |place: usize| if place < self.first_tokens { 1.0 } else { self.later_weight };
        let weights = ranges.flat_map(|range| (0..range.len()).map(weight));
        let (mut loss, mut plain) = (0.0, 0.0);
        let gradient = |(weight, logprob): (f64, &f32)| {
            loss -= weight * f64::from(*logprob);
            plain -= f64::from(*logprob);
            (-weight / input.totals.targets) as f32
        };
        let logprob_gradients = weights.zip(input.logprobs).map(gradient).collect();
        let mean = |name, sum| Measure { name, sum, weight: input.logprobs.len() as f64 };
        LossOutput { measures: vec![mean("loss", loss), mean("nll_loss", plain)], logprob_gradients }
    }
}
