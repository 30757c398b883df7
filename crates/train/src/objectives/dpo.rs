//! Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290, equation 7).
//!
//! Label smoothing is conservative DPO's; the next-token term on the chosen answer is that of Pang
//! et al. 2024 (arXiv 2404.19733). Both are computed as TRL computes them.

use wsd_core::{Setting, Values};

use super::{Loss, LossInput, LossOutput, Measure, Needs, Objective, TargetTokens};

static BETA: Setting =
    Setting::positive("beta", "Strength of the pull towards the reference model", 1e6).with_default_number(0.1);
static LABEL_SMOOTHING: Setting =
    Setting::number("label_smoothing", "Share of pairs assumed to be in the wrong order", 0.0..=0.5)
        .with_default_number(0.0);
static SFT_WEIGHT: Setting =
    Setting::number("sft_weight", "Weight of the chosen answer's next-token loss", 0.0..=1e6).with_default_number(0.0);

pub(super) static OBJECTIVE: Objective = Objective {
    name: "dpo",
    about: "Learn to prefer the chosen answer to the rejected one",
    targets: TargetTokens::Preferences,
    settings: &[&BETA, &LABEL_SMOOTHING, &SFT_WEIGHT],
    needs: Needs::TargetsAndReference,
    make,
};

fn make(values: &Values) -> Box<dyn Loss> {
    Box::new(Dpo {
        beta: values.get(&BETA),
        label_smoothing: values.get(&LABEL_SMOOTHING),
        sft_weight: values.get(&SFT_WEIGHT),
    })
}

struct Dpo {
    beta: f64,
    label_smoothing: f64,
    sft_weight: f64,
}

impl Loss for Dpo {
    fn compute(&self, input: &LossInput<'_>) -> LossOutput {
        let Self { beta, label_smoothing, sft_weight } = *self;
        let (example, totals, sums) = (input.example, input.totals, input.sums());
        let reward = |side: usize| beta * (sums[side] - example.reference.get(side).copied().unwrap_or(sums[side]));
        let (chosen, rejected) = (reward(0), reward(1));
        let margin = chosen - rejected;
        let loss = -(1.0 - label_smoothing) * log_sigmoid(margin) - label_smoothing * log_sigmoid(-margin);
        // d/dm of -log sigmoid(m) is -sigmoid(-m).
        let gradient = -(1.0 - label_smoothing) * sigmoid(-margin) + label_smoothing * sigmoid(margin);
        let per_example = gradient * beta / totals.examples;
        let per_target = sft_weight / totals.targets;
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
        let targets = example.targets();
        if sft_weight > 0.0 {
            // The mean over examples of this sum is the mean over targets of the next-token loss.
            measures[0].sum -= sft_weight * sums[0] * totals.examples / totals.targets;
            measures.push(Measure { name: "nll_loss", sum: -sums[0], weight: targets as f64 });
        }
        let mut logprob_gradients = vec![-per_example as f32; input.logprobs.len()];
        logprob_gradients[..targets].fill((per_example - per_target) as f32);
        LossOutput { measures, logprob_gradients }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}
