//! Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290, equation 7).
//!
//! Label smoothing is conservative DPO's; the next-token term on the chosen answer is that of Pang
//! et al. 2024 (arXiv 2404.19733). Both are computed as TRL computes them.

use wsd_core::{Setting, Values};

use super::preference::{PreferenceLoss, Sides, logistic};
use super::{Loss, LossInput, LossOutput, Needs, Objective, TargetTokens, Weight};

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
    weight: Weight::ONE,
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
        let sides = Sides::of(input);
        let rewards = sides.ratios.map(|ratio| self.beta * ratio);
        let (loss, slope) = logistic(rewards[0] - rewards[1], self.label_smoothing);
        let slopes = [slope * self.beta, -slope * self.beta];
        let preference = PreferenceLoss { loss, slopes, rewards, logps: sides.sums, nll_weight: self.sft_weight };
        preference.output(input, &sides)
    }
}
