//! Rewards of answers: the output of the head `score` at the last token of an answer.
//!
//! `reward` learns from preferences by the model of Bradley and Terry (Ouyang et al. 2022, arXiv
//! 2203.02155, equation 1), `step_reward` from labels of the steps of an answer (Lightman et al.
//! 2023, arXiv 2305.20050), for strategies that accept and reject steps, such as RSD (arXiv
//! 2501.19324).

use wsd_core::{Setting, Values};

use super::preference::{log_sigmoid, logistic, sigmoid};
use super::{Loss, LossInput, LossOutput, Measure, Needs, Objective, TargetTokens, Weight};

static CENTER: Setting =
    Setting::number("center_rewards_coefficient", "Weight of the squared sum of both rewards", 0.0..=1e6)
        .with_default_number(0.0);

pub(super) static PREFERENCES: Objective = Objective {
    name: "reward",
    about: "Learn a reward head from preferences (Bradley-Terry)",
    targets: TargetTokens::PreferenceEnds,
    settings: &[&CENTER],
    needs: Needs::Rewards,
    weight: Weight::ONE,
    make: |values| Box::new(BradleyTerry { center: values.get(&CENTER) }),
};

pub(super) static STEPS: Objective = Objective {
    name: "step_reward",
    about: "Learn a reward head from labels of steps (process rewards)",
    targets: TargetTokens::StepEnds,
    settings: &[],
    needs: Needs::Rewards,
    weight: Weight::ONE,
    make: |_: &Values| Box::new(StepLabels),
};

/// `-log sigmoid(chosen - rejected)`, with TRL's term `center * (chosen + rejected)^2`, which keeps
/// the mean of rewards near 0.
struct BradleyTerry {
    center: f64,
}

impl Loss for BradleyTerry {
    fn compute(&self, input: &LossInput<'_>) -> LossOutput {
        let reward = |side: usize| input.logprobs.get(side).copied().map_or(0.0, f64::from);
        let (chosen, rejected) = (reward(0), reward(1));
        let (loss, slope) = logistic(chosen - rejected, 0.0);
        let sum = chosen + rejected;
        let one = |name, sum| Measure { name, sum, weight: 1.0 };
        let measures = vec![
            one("loss", loss + self.center * sum * sum),
            one("accuracy", f64::from(u8::from(chosen > rejected))),
            one("margin", chosen - rejected),
            Measure { name: "mean_reward", sum, weight: 2.0 },
        ];
        let pull = 2.0 * self.center * sum;
        let gradients = [slope + pull, pull - slope].map(|gradient| (gradient / input.totals.examples) as f32);
        LossOutput { measures, logprob_gradients: gradients.into() }
    }
}

/// The cross-entropy of `sigmoid(reward)` with the label of each step, averaged over the steps.
struct StepLabels;

impl Loss for StepLabels {
    fn compute(&self, input: &LossInput<'_>) -> LossOutput {
        let steps = input.logprobs.len() as f64;
        let (mut loss, mut right) = (0.0, 0.0);
        let gradient = |(reward, label): (&f32, &f32)| {
            let (reward, label) = (f64::from(*reward), f64::from(*label));
            loss -= label * log_sigmoid(reward) + (1.0 - label) * log_sigmoid(-reward);
            right += f64::from(u8::from((reward > 0.0) == (label > 0.5)));
            ((sigmoid(reward) - label) / input.totals.targets) as f32
        };
        let logprob_gradients = input.logprobs.iter().zip(&input.example.labels).map(gradient).collect();
        let mean = |name, sum| Measure { name, sum, weight: steps };
        LossOutput { measures: vec![mean("loss", loss), mean("accuracy", right)], logprob_gradients }
    }
}
