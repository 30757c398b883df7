//! Weighted sums of the models' log-probabilities, token by token.
//!
//! With the log-probabilities `b` of the base, `d` of the aligned draft and `u` of its untuned twin (the
//! seat `guide`), and the weight `w`, the next token is drawn from the softmax of
//!
//! - `product`: `b + w d`. GenARM's form (arXiv 2410.08193) is this with a reward model that scores tokens
//!   as the draft, and `w = 1 / beta`;
//! - `proxy`: `b + w (d - u)`, proxy tuning (Liu et al. 2024, arXiv 2401.08565);
//! - `contrastive`: `(1 + w) b - w u` among the tokens with at least `plausibility` times the probability
//!   of the base's most likely one (Li et al. 2023, arXiv 2210.15097, in the form of O'Brien and Lewis,
//!   arXiv 2309.09117).
//!
//! With `hand_over`, the window of WSD runs along over the base's probabilities, and the base takes over
//! where it passes: the models together open the answer, in place of the draft alone.

use std::sync::Arc;

use super::fused_needs;
use crate::distribution::{self as rows, NoToken};
use crate::finish::Finish;
use crate::fused::{Fused, Fusion, Next, Place};
use crate::handover::{THRESHOLD, WINDOW};
use crate::look;
use crate::speculation::SPECULATE;
use crate::{Author, Caps, Models, Need, Recipe, Result, Row, Seat, Setting, Strategy, Values};

/// The setting for the sum.
pub static MIX_RULE: Setting = Setting::choice(
    "mix_rule",
    "In mix, the sum of log-probabilities: of the base (b), the draft (d) and its untuned twin in the seat guide (u), \
     with the weight w",
    &[
        ("product", "b + w d"),
        ("proxy", "b + w (d - u), proxy tuning"),
        ("contrastive", "(1 + w) b - w u among the base's plausible tokens"),
    ],
);

/// The setting for the weight.
pub static MIX_WEIGHT: Setting =
    Setting::number("mix_weight", "In mix, the weight w of the other models", 0.0..=100.0).with_default_number(1.0);

/// The setting for the plausible tokens.
pub static PLAUSIBILITY: Setting = Setting::number(
    "plausibility",
    "In mix_rule=contrastive, the least probability of a token relative to the base's most likely one",
    0.0..=1.0,
)
.with_default_number(0.1)
.with_placeholder("P");

/// The setting for a hand-over to the base alone.
pub static HAND_OVER: Setting = Setting::flag(
    "hand_over",
    "In mix, the base takes over once the window over its probabilities reaches the threshold, as in wsd",
    false,
);

pub(super) static RECIPE: Recipe = Recipe {
    name: "mix",
    title: "mix",
    about: "each token from a weighted sum of the models' log-probabilities (proxy tuning, arXiv 2401.08565)",
    needs: &{
        let [draft, base] = fused_needs();
        let guide = Need::with(Seat::GUIDE, Caps { logits: true, ..Caps::GENERATE });
        [draft, base, guide.in_vocabulary_of(Seat::BASE).required_if(has_guide)]
    },
    settings: &{
        let [a, b, c, d, e, f] = look::SETTINGS;
        [&MIX_RULE, &MIX_WEIGHT, &PLAUSIBILITY, &HAND_OVER, &WINDOW, &THRESHOLD, a, b, c, d, e, f, &SPECULATE]
    },
    make,
};

/// Tells whether the rule takes a part of the seat guide.
fn has_guide(values: &Values) -> bool {
    values.get::<&str>(&MIX_RULE) != "product"
}

fn make(models: &Models, values: &Values) -> Result<Arc<dyn Strategy>> {
    let [base, draft] = [Seat::BASE, Seat::DRAFT].map(|seat| models.require(RECIPE.name, seat));
    let (base, draft) = (base?, draft?);
    let sum = match values.get::<&str>(&MIX_RULE) {
        "proxy" => Sum::Proxy,
        "contrastive" => Sum::Contrastive { plausibility: values.get(&PLAUSIBILITY) },
        _ => Sum::Product,
    };
    let finish = Finish::from_values(values, draft.as_ref(), base.as_ref());
    let finish = values.get::<bool>(&HAND_OVER).then_some(finish);
    let mut seated = vec![(Seat::BASE, base), (Seat::DRAFT, draft)];
    if has_guide(values) {
        seated.push((Seat::GUIDE, models.require(RECIPE.name, Seat::GUIDE)?));
    }
    let fusion = Arc::new(Mix { sum, weight: values.get(&MIX_WEIGHT) });
    Ok(Arc::new(Fused { models: seated, fusion, finish }))
}

/// The sum of log-probabilities.
#[derive(Clone, Copy, Debug)]
enum Sum {
    Product,
    Proxy,
    Contrastive { plausibility: f64 },
}

/// The rule.
#[derive(Clone, Copy, Debug)]
struct Mix {
    sum: Sum,
    weight: f64,
}

impl Fusion for Mix {
    fn next(&self, models: &[Row], _: &Place<'_>) -> Result<Next, NoToken> {
        let (base, weight) = (&models[0], self.weight);
        let row = match self.sum {
            Sum::Product => rows::combine(&[(1.0, base), (weight, &models[1])]),
            Sum::Proxy => rows::combine(&[(1.0, base), (weight, &models[1]), (-weight, &models[2])]),
            Sum::Contrastive { plausibility } => {
                let mut row = rows::combine(&[(1.0 + weight, base), (-weight, &models[2])]);
                let mut plausible = base.clone();
                rows::filter(&mut plausible, rows::Filter { min_p: plausibility, ..rows::Filter::ALL })?;
                rows::mask(&mut row, &plausible);
                row
            }
        };
        Ok(Next::Row(row, Author::Fused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sampling;

    fn logs<const N: usize>(p: [f64; N]) -> Row {
        p.iter().map(|p| p.ln() as f32).collect()
    }

    fn mixed(mix: Mix, models: &[Row]) -> Vec<f64> {
        let place = Place { list: &[], sampling: &Sampling::default(), ends: &[] };
        let Ok(Next::Row(mut row, Author::Fused)) = mix.next(models, &place) else { panic!("no row") };
        crate::log_softmax(&mut row).unwrap();
        row.iter().map(|&x| f64::from(x).exp()).collect()
    }

    #[test]
    fn each_sum_has_its_distribution() {
        let (b, d, u) = ([0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.5, 0.3, 0.2]);
        let models = [logs(b), logs(d), logs(u)];
        let twin = [logs(b), logs(u), logs(u)];
        for (sum, weight, want) in [
            (Sum::Product, 0.0, b),
            (Sum::Product, 2.0, [0, 1, 2].map(|i| b[i] * d[i] * d[i])),
            (Sum::Proxy, 1.0, [0, 1, 2].map(|i| b[i] * d[i] / u[i])),
            (Sum::Contrastive { plausibility: 0.2 }, 1.0, [b[0] * b[0] / u[0], b[1] * b[1] / u[1], 0.0]),
        ] {
            let z: f64 = want.iter().sum();
            let got = mixed(Mix { sum, weight }, &models);
            assert!(got.iter().zip(want).all(|(got, want)| (got - want / z).abs() < 1e-6), "{sum:?} {got:?}");
        }
        let got = mixed(Mix { sum: Sum::Proxy, weight: 3.0 }, &twin);
        assert!(got.iter().zip(b).all(|(got, want)| (got - want).abs() < 1e-6), "tuning that changes nothing: {got:?}");
    }
}
