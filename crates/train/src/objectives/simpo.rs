//! Simple preference optimization (Meng et al. 2024, arXiv 2405.14734, equation 6), without a
//! reference model.
//!
//! Names and defaults are those of TRL's CPO trainer with `loss_type = "simpo"`; the paper's own
//! runs have `beta` from 2 to 10. With `cpo_alpha` above 0 it is TRL's CPO-SimPO.

use wsd_core::{Setting, Values};

use super::preference::{PreferenceLoss, Sides, logistic};
use super::{Loss, LossInput, LossOutput, Needs, Objective, TargetTokens, Weight};

static BETA: Setting =
    Setting::positive("beta", "Factor on the difference of mean log-probabilities", 1e6).with_default_number(0.1);
static SIMPO_GAMMA: Setting =
    Setting::number("simpo_gamma", "Margin between the two rewards", 0.0..=1e6).with_default_number(0.5);
static LABEL_SMOOTHING: Setting =
    Setting::number("label_smoothing", "Share of pairs assumed to be in the wrong order", 0.0..=0.5)
        .with_default_number(0.0);
static CPO_ALPHA: Setting =
    Setting::number("cpo_alpha", "Weight of the chosen answer's next-token loss", 0.0..=1e6).with_default_number(0.0);

pub(super) static OBJECTIVE: Objective = Objective {
    name: "simpo",
    about: "Learn preferences of mean log-probabilities, without a reference",
    targets: TargetTokens::Preferences,
    settings: &[&BETA, &SIMPO_GAMMA, &LABEL_SMOOTHING, &CPO_ALPHA],
    needs: Needs::Targets,
    weight: Weight::ONE,
    make,
};

fn make(values: &Values) -> Box<dyn Loss> {
    Box::new(SimPo {
        beta: values.get(&BETA),
        gamma: values.get(&SIMPO_GAMMA),
        label_smoothing: values.get(&LABEL_SMOOTHING),
        nll_weight: values.get(&CPO_ALPHA),
    })
}

struct SimPo {
    beta: f64,
    gamma: f64,
    label_smoothing: f64,
    nll_weight: f64,
}

impl Loss for SimPo {
    fn compute(&self, input: &LossInput<'_>) -> LossOutput {
        let sides = Sides::of(input);
        let means = sides.means();
        let (loss, slope) = logistic(self.beta * (means[0] - means[1]) - self.gamma, self.label_smoothing);
        let preference = PreferenceLoss {
            loss,
            slopes: [slope * self.beta / sides.counts[0], -slope * self.beta / sides.counts[1]],
            rewards: means.map(|mean| self.beta * mean),
            logps: means,
            nll_weight: self.nll_weight,
        };
        preference.output(input, &sides)
    }
}
