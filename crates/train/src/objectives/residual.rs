//! The residual aligner of RAM (arXiv 2505.19700): a small model that a frozen base is multiplied
//! with.

use wsd_core::{Setting, Values};

use super::preference::{PreferenceLoss, Sides};
use super::{Loss, LossInput, LossOutput, Needs, Objective, TargetTokens, Weight};

static ALPHA: Setting =
    Setting::number("alpha", "Weight of the base's own answer, which is made less likely", 0.0..=1.0)
        .with_default_number(1e-4);

pub(super) static OBJECTIVE: Objective = Objective {
    name: "residual",
    about: "Learn what to add to a frozen base (RAM): its answers count against the wanted ones",
    targets: TargetTokens::Preferences,
    settings: &[&ALPHA],
    needs: Needs::Targets,
    weight: Weight::ONE,
    make,
};

fn make(values: &Values) -> Box<dyn Loss> {
    Box::new(Residual { alpha: values.get(&ALPHA) })
}

/// `-log Q(chosen) + alpha * log Q(rejected)`, sums over tokens and a mean over examples, with the
/// rejected answer one sample of the base.
///
/// The second term has no lower limit, so `alpha` is small: at 1e-4 it is a correction of the first.
struct Residual {
    alpha: f64,
}

impl Loss for Residual {
    fn compute(&self, input: &LossInput<'_>) -> LossOutput {
        let sides = Sides::of(input);
        let preference = PreferenceLoss {
            loss: self.alpha * sides.sums[1] - sides.sums[0],
            slopes: [-1.0, self.alpha],
            rewards: sides.sums,
            logps: sides.sums,
            nll_weight: 0.0,
        };
        preference.output(input, &sides)
    }
}
