//! Identity preference optimization (Azar et al. 2023, arXiv 2310.12036, equation 17).
//!
//! Ratios are means over the tokens of an answer, as in TRL (`loss_type = "ipo"`), which confirmed
//! this form with the authors.

use wsd_core::{Setting, Values};

use super::preference::{PreferenceLoss, Sides};
use super::{Loss, LossInput, LossOutput, Needs, Objective, TargetTokens, Weight};

static BETA: Setting =
    Setting::positive("beta", "The wanted difference of mean log-ratios is 1 / (2 beta)", 1e6).with_default_number(0.1);

pub(super) static OBJECTIVE: Objective = Objective {
    name: "ipo",
    about: "Learn preferences up to a fixed margin",
    targets: TargetTokens::Preferences,
    settings: &[&BETA],
    needs: Needs::TargetsAndReference,
    weight: Weight::ONE,
    make,
};

fn make(values: &Values) -> Box<dyn Loss> {
    Box::new(Ipo { beta: values.get(&BETA) })
}

struct Ipo {
    beta: f64,
}

impl Loss for Ipo {
    fn compute(&self, input: &LossInput<'_>) -> LossOutput {
        let sides = Sides::of(input);
        let [chosen, rejected] = [0, 1].map(|side| sides.ratios[side] / sides.counts[side]);
        let off = chosen - rejected - 0.5 / self.beta;
        let preference = PreferenceLoss {
            loss: off * off,
            slopes: [2.0 * off / sides.counts[0], -2.0 * off / sides.counts[1]],
            rewards: sides.ratios.map(|ratio| self.beta * ratio),
            logps: sides.sums,
            nll_weight: 0.0,
        };
        preference.output(input, &sides)
    }
}
