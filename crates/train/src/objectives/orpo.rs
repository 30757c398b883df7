//! Odds ratio preference optimization (Hong et al. 2024, arXiv 2403.07691, equations 6 and 7),
//! without a reference model.
//!
//! The next-token loss is that of the chosen answer, as in the paper; TRL takes the prompt's tokens
//! into it too.

use wsd_core::{Setting, Values};

use super::preference::{PreferenceLoss, Sides, logistic};
use super::{Loss, LossInput, LossOutput, Needs, Objective, TargetTokens, Weight};

static BETA: Setting =
    Setting::positive("beta", "Weight of the odds ratio beside the next-token loss", 1e6).with_default_number(0.1);

pub(super) static OBJECTIVE: Objective = Objective {
    name: "orpo",
    about: "Learn to answer and preferences at once, without a reference",
    targets: TargetTokens::Preferences,
    settings: &[&BETA],
    needs: Needs::Targets,
    weight: Weight::ONE,
    make,
};

fn make(values: &Values) -> Box<dyn Loss> {
    Box::new(Orpo { beta: values.get(&BETA) })
}

struct Orpo {
    beta: f64,
}

impl Loss for Orpo {
    fn compute(&self, input: &LossInput<'_>) -> LossOutput {
        let sides = Sides::of(input);
        // A mean of exactly 0 is a certain answer, whose odds are infinite.
        let means = sides.means().map(|mean| mean.min(-1e-12));
        let log_odds = means.map(|mean| mean - (-mean.exp_m1()).ln());
        let (loss, slope) = logistic(log_odds[0] - log_odds[1], 0.0);
        // d/dm of m - log(1 - exp(m)) is 1 / (1 - exp(m)).
        let odds_slope = |side: usize| self.beta * slope / (-means[side].exp_m1() * sides.counts[side]);
        let preference = PreferenceLoss {
            loss: self.beta * loss,
            slopes: [odds_slope(0), -odds_slope(1)],
            rewards: means.map(|mean| self.beta * mean),
            logps: means,
            nll_weight: 1.0,
        };
        preference.output(input, &sides)
    }
}
