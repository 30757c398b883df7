//! BlendIn (Gan, Li and Luo, arXiv 2606.11201): where the base is unsure, its distribution is blended with
//! the guide's.
//!
//! Where the base's most likely token has a probability below a threshold, the next token is drawn from
//! `(1 - a) b + a d` with the base's distribution `b`, the draft's `d`, and
//! `a = clip(p_d / (p_b + p_d) + 0.1 b(t), 0, 1)`, where `p_b` and `p_d` are the probabilities of their most
//! likely tokens and `t` is the draft's. Elsewhere the base writes. The formula is the one of the authors'
//! description; their code was not compared.

use std::sync::Arc;

use super::fused_needs;
use crate::distribution::{self as rows, NoToken};
use crate::fused::{Fused, Fusion, Next, Place};
use crate::{Author, Models, Recipe, Result, Row, Seat, Setting, Strategy, Values};

/// The weight of the base's agreement with the draft's token.
const AGREEMENT: f64 = 0.1;

/// The setting for the probability below which the models are blended.
pub static BLEND_THRESHOLD: Setting = Setting::number(
    "blend_threshold",
    "In blendin, the draft is blended in where the base's most likely token has a probability below this",
    0.0..=1.0,
)
.with_default_number(0.4)
.with_placeholder("P");

pub(super) static RECIPE: Recipe = Recipe {
    name: "blendin",
    title: "blendin",
    about: "the draft's distribution is blended in wherever the base is unsure (arXiv 2606.11201)",
    needs: &fused_needs(),
    settings: &[&BLEND_THRESHOLD],
    make,
};

fn make(models: &Models, values: &Values) -> Result<Arc<dyn Strategy>> {
    let [base, draft] = [Seat::BASE, Seat::DRAFT].map(|seat| models.require(RECIPE.name, seat));
    let fusion = Arc::new(Blend { threshold: values.get(&BLEND_THRESHOLD) });
    Ok(Arc::new(Fused { models: vec![(Seat::BASE, base?), (Seat::DRAFT, draft?)], fusion, finish: None }))
}

/// The rule.
struct Blend {
    threshold: f64,
}

impl Fusion for Blend {
    fn is_lazy(&self) -> bool {
        true
    }

    fn first(&self, base: &Row, _: &Place<'_>) -> Result<Option<Next>, NoToken> {
        let is_sure = rows::most_likely(base)?.1 >= self.threshold;
        Ok(is_sure.then(|| Next::Row(base.clone(), Seat::BASE.into())))
    }

    fn next(&self, models: &[Row], _: &Place<'_>) -> Result<Next, NoToken> {
        let (base, draft) = (&models[0], &models[1]);
        let ((_, of_base), (token, of_draft)) = (rows::most_likely(base)?, rows::most_likely(draft)?);
        let agreement = base.get(token).map_or(0.0, |&logprob| f64::from(logprob).exp());
        let share = (of_draft / (of_base + of_draft) + AGREEMENT * agreement).clamp(0.0, 1.0);
        Ok(Next::Row(rows::interpolate(base, draft, share), Author::Fused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sampling;

    #[test]
    fn the_share_follows_the_confidences_and_the_agreement() {
        let (b, d) = ([0.35f64, 0.33, 0.32], [0.1, 0.7, 0.2]);
        let models = [b, d].map(|p| p.iter().map(|p| p.ln() as f32).collect::<Row>());
        let place = Place { list: &[], sampling: &Sampling::default(), ends: &[] };
        let blend = Blend { threshold: 0.4 };
        assert!(blend.first(&models[0], &place).unwrap().is_none());
        assert!(blend.first(&models[1], &place).unwrap().is_some());
        let Ok(Next::Row(row, by)) = blend.next(&models, &place) else { panic!("no row") };
        let share = 0.7 / (0.35 + 0.7) + 0.1 * 0.33;
        for id in 0..3 {
            let want = (1.0 - share) * b[id] + share * d[id];
            assert!((f64::from(row[id]).exp() - want).abs() < 1e-6, "{by:?} {row:?}");
        }
    }
}
