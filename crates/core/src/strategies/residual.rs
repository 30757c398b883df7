//! The residual alignment model (RAM, arXiv 2505.19700): the base proposes, a small aligned model of the
//! same vocabulary chooses among its proposals, token by token.
//!
//! With the base's distribution `b`, the aligner's `a`, and `N(b)` the base's nucleus (top-k, then top-p,
//! at the base's temperature), the next token is drawn
//!
//! - `mask`: from `a` restricted to `N(b)`, which is what the authors' code does (modes `par` and
//!   `par_kl`): the base only vetoes. Where the nucleus's most likely token ends the text, the text ends,
//!   unless there is a gate;
//! - `product`: from `b * a`, normalized: the paper's definition (their mode `mds`);
//! - `par`: from `candidates` tokens drawn from `N(b)`, with weights `a`: the paper's sampling. One
//!   candidate is a draw from `N(b)`, and many approach `N(b) * a`.
//!
//! The gate: where `KL(b || a)`, in nats at temperature 1, is above it, the base writes alone. The
//! request's sampling (temperature, top-k, top-p, min-p) applies to the result.

use std::sync::Arc;

use super::fused_needs;
use crate::distribution::{self as rows, Filter, NoToken};
use crate::fused::{Fused, Fusion, Next, Place};
use crate::tokens::MAX_TOKENS_LIMIT;
use crate::{Author, Models, Recipe, Result, Row, Seat, Setting, Strategy, Token, Values};

/// The setting for the way in which the aligner chooses.
pub static RESIDUAL_MODE: Setting = Setting::choice(
    "residual_mode",
    "In residual, the way in which the aligned draft chooses among the base's tokens",
    &[
        ("mask", "the draft's distribution within the base's nucleus, as in the authors' code"),
        ("product", "the product of both distributions"),
        ("par", "candidates drawn from the base's nucleus, weighted by the draft"),
    ],
);

/// The setting for the number of candidates.
pub static CANDIDATES: Setting =
    Setting::integer("candidates", "In residual_mode=par, tokens drawn from the base's nucleus", 1..=1024)
        .with_default_integer(8);

/// The setting for the base's temperature.
pub static BASE_TEMPERATURE: Setting =
    Setting::positive("base_temperature", "In residual, the temperature of the base's distribution", 100.0)
        .with_default_number(1.0)
        .with_placeholder("T");

/// The setting for the aligner's temperature.
pub static ALIGNER_TEMPERATURE: Setting =
    Setting::positive("aligner_temperature", "In residual, the temperature of the draft's distribution", 100.0)
        .with_default_number(1.0)
        .with_placeholder("T");

/// The setting for the mass of the base's nucleus.
pub static BASE_TOP_P: Setting =
    Setting::positive("base_top_p", "In residual, the probability that the base's nucleus reaches", 1.0)
        .with_default_number(0.95)
        .with_placeholder("P");

/// The setting for the size of the base's nucleus.
pub static BASE_TOP_K: Setting = Setting::integer(
    "base_top_k",
    "In residual, the most tokens in the base's nucleus; 0 means all",
    0..=MAX_TOKENS_LIMIT,
)
.with_default_integer(0);

/// The setting for the divergence above which the base writes alone.
pub static KL_GATE: Setting = Setting::number(
    "kl_gate",
    "In residual, the base writes alone where its distribution diverges from the draft's by more nats than this \
     (KL(base || draft)); the authors use 0.1",
    0.0..=1e6,
)
.with_default_about("no gate")
.with_placeholder("NATS");

pub(super) static RECIPE: Recipe = Recipe {
    name: "residual",
    title: "residual",
    about: "the aligned draft chooses each token among those the base proposes (RAM, arXiv 2505.19700)",
    needs: &fused_needs(),
    settings: &[
        &RESIDUAL_MODE,
        &CANDIDATES,
        &BASE_TEMPERATURE,
        &ALIGNER_TEMPERATURE,
        &BASE_TOP_P,
        &BASE_TOP_K,
        &KL_GATE,
    ],
    make,
};

fn make(models: &Models, values: &Values) -> Result<Arc<dyn Strategy>> {
    let [base, draft] = [Seat::BASE, Seat::DRAFT].map(|seat| models.require(RECIPE.name, seat));
    let fusion = Arc::new(Residual::from_values(values));
    Ok(Arc::new(Fused { models: vec![(Seat::BASE, base?), (Seat::DRAFT, draft?)], fusion, finish: None }))
}

/// The way in which the aligner chooses.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Mask,
    Product,
    Candidates(u64),
}

/// The rule.
#[derive(Clone, Copy, Debug)]
struct Residual {
    mode: Mode,
    base_temperature: f64,
    aligner_temperature: f64,
    nucleus: Filter,
    /// The divergence above which the base writes alone.
    gate: Option<f64>,
}

impl Residual {
    fn from_values(values: &Values) -> Self {
        Self {
            mode: match values.get::<&str>(&RESIDUAL_MODE) {
                "product" => Mode::Product,
                "par" => Mode::Candidates(values.get(&CANDIDATES)),
                _ => Mode::Mask,
            },
            base_temperature: values.get(&BASE_TEMPERATURE),
            aligner_temperature: values.get(&ALIGNER_TEMPERATURE),
            nucleus: Filter { top_k: values.get(&BASE_TOP_K), top_p: values.get(&BASE_TOP_P), ..Filter::ALL },
            gate: values.get(&KL_GATE),
        }
    }

    /// The base's nucleus: its row at its temperature, without the tokens outside.
    fn nucleus(&self, base: &Row) -> Result<Row, NoToken> {
        let mut nucleus = base.clone();
        rows::temper(&mut nucleus, self.base_temperature);
        rows::filter(&mut nucleus, self.nucleus)?;
        Ok(nucleus)
    }

    /// Draws candidates from the nucleus. Returns the row whose distribution, after the division by the
    /// request's temperature, weighs each as often as it was drawn by the aligner.
    fn candidates(&self, nucleus: &Row, aligner: &Row, count: u64, place: &Place<'_>) -> Result<Next, NoToken> {
        let possible = nucleus.iter().enumerate().filter(|(_, x)| **x > f32::NEG_INFINITY);
        let (ids, inside): (Vec<usize>, Row) = possible.map(|(id, &x)| (id, x)).unzip();
        let draws = (1..=count).map(|stream| rows::draw(&inside, place.uniform(stream)));
        let draws = draws.collect::<Result<Vec<_>, _>>()?;
        let mut drawn = vec![0_u32; ids.len()];
        draws.iter().for_each(|&at| drawn[at] += 1);
        let mut row = vec![f32::NEG_INFINITY; nucleus.len()];
        for (&id, &times) in ids.iter().zip(&drawn).filter(|(_, times)| **times > 0) {
            let weight = aligner.get(id).copied().unwrap_or(f32::NEG_INFINITY);
            row[id] = weight + place.sampling.temperature * (times as f32).ln();
        }
        if row.iter().all(|&x| x == f32::NEG_INFINITY) {
            // The aligner excludes all of them.
            return Ok(Next::Token(ids[draws[0]] as Token, Author::Fused));
        }
        Ok(Next::Row(row, Author::Fused))
    }
}

impl Fusion for Residual {
    fn next(&self, models: &[Row], place: &Place<'_>) -> Result<Next, NoToken> {
        let (base, aligner) = (&models[0], &models[1]);
        let len = base.len().min(aligner.len());
        if self.gate.is_some_and(|gate| rows::divergence(base, aligner) > gate) {
            return Ok(Next::Row(base.clone(), Seat::BASE.into()));
        }
        let mut tempered = aligner[..len].to_vec();
        rows::temper(&mut tempered, self.aligner_temperature);
        match self.mode {
            Mode::Product => {
                let mut base = base.clone();
                rows::temper(&mut base, self.base_temperature);
                Ok(Next::Row(rows::combine(&[(1.0, &base), (1.0, &tempered)]), Author::Fused))
            }
            Mode::Candidates(count) => self.candidates(&self.nucleus(base)?, &tempered, count, place),
            Mode::Mask => {
                let nucleus = self.nucleus(base)?;
                let best = rows::most_likely(&nucleus)?.0 as Token;
                if self.gate.is_none() && place.ends.contains(&best) {
                    return Ok(Next::Token(best, Author::Fused));
                }
                rows::mask(&mut tempered, &nucleus);
                Ok(Next::Row(tempered, Author::Fused))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Sampling, log_softmax};
    use serde_json::Value;

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    }

    fn row(value: &Value) -> Row {
        let mut row: Row = numbers(value).into_iter().map(|x| x as f32).collect();
        log_softmax(&mut row).unwrap();
        row
    }

    /// A case of the goldens: its models' rows, and the rule with a mode.
    fn rule(case: &Value, mode: Mode, gate: Option<f64>) -> (Residual, [Row; 2]) {
        let number = |name: &str| case[name].as_f64().unwrap();
        let nucleus =
            Filter { top_k: case["base_top_k"].as_u64().unwrap() as usize, top_p: number("base_top_p"), ..Filter::ALL };
        let (base_temperature, aligner_temperature) = (number("base_temperature"), number("aligner_temperature"));
        let residual = Residual { mode, base_temperature, aligner_temperature, nucleus, gate };
        (residual, [row(&case["base"]), row(&case["aligner"])])
    }

    fn probabilities((rule, models): &(Residual, [Row; 2])) -> (Vec<f64>, Author) {
        let place = Place { list: &[], sampling: &Sampling::default(), ends: &[] };
        let Ok(Next::Row(mut row, by)) = rule.next(models, &place) else { panic!("no row") };
        log_softmax(&mut row).unwrap();
        (row.iter().map(|&x| f64::from(x).exp()).collect(), by)
    }

    fn cases() -> Vec<Value> {
        serde_json::from_str(include_str!("../../tests/goldens/ram.json")).unwrap()
    }

    #[test]
    fn distributions_are_those_of_an_independent_implementation() {
        let mut passed_by = [0, 0];
        for case in cases() {
            let gate = case["kl_gate"].as_f64();
            for (name, mode, gate) in
                [("mask", Mode::Mask, None), ("gated", Mode::Mask, gate), ("product", Mode::Product, None)]
            {
                let (got, by) = probabilities(&rule(&case, mode, gate));
                let want = numbers(&case[name]);
                assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-5), "{name}: {got:?} {want:?}");
                if name == "gated" {
                    // A small divergence trusts the aligner.
                    let is_small = case["divergence"].as_f64() <= gate;
                    assert_eq!(by, if is_small { Author::Fused } else { Seat::BASE.into() });
                    passed_by[usize::from(is_small)] += 1;
                }
            }
            let (_, [base, aligner]) = rule(&case, Mode::Mask, None);
            assert!((rows::divergence(&base, &aligner) - case["divergence"].as_f64().unwrap()).abs() < 1e-5);
        }
        assert!(passed_by.iter().all(|&count| count > 0), "both sides of the gate occur: {passed_by:?}");
    }

    /// Pearson's statistic of counts for expected probabilities, and the degrees of freedom.
    fn chi_square(counts: &[usize], want: &[f64]) -> (f64, usize) {
        let total: usize = counts.iter().sum();
        let terms = counts.iter().zip(want).filter(|(_, want)| **want > 1e-9);
        let terms: Vec<_> =
            terms.map(|(&count, want)| (count as f64 - want * total as f64).powi(2) / (want * total as f64)).collect();
        assert!(counts.iter().zip(want).all(|(&count, want)| count == 0 || *want > 1e-9), "{counts:?} {want:?}");
        (terms.iter().sum(), terms.len().saturating_sub(1))
    }

    /// The token that the request's sampling chooses.
    fn chosen(rule: &Residual, models: &[Row; 2], place: &Place<'_>) -> usize {
        let Ok(Next::Row(mut row, _)) = rule.next(models, place) else { panic!("no row") };
        crate::pick(&mut row, place.list, place.sampling).unwrap().token as usize
    }

    /// The frequencies of `par`, at a temperature of 1 over the aligner's, follow `want`.
    fn check_candidates(case: &Value, count: u64, want: &[f64]) {
        let (rule, models) = rule(case, Mode::Candidates(count), None);
        let mut counts = vec![0; want.len()];
        for seed in 0..8_000 {
            let sampling = Sampling { temperature: 1.0, seed, ..Sampling::default() };
            let place = Place { list: &[], sampling: &sampling, ends: &[] };
            counts[chosen(&rule, &models, &place)] += 1;
        }
        let (statistic, freedom) = chi_square(&counts, want);
        // The 0.9999 quantile for up to five degrees of freedom is below 26.
        assert!(statistic < 26.0, "{count} candidates: {statistic} at {freedom}, {counts:?} {want:?}");
    }

    #[test]
    fn candidates_are_drawn_as_enumerated() {
        for case in cases().iter().take(6) {
            for count in [1, 2, 3] {
                check_candidates(case, count, &numbers(&case["candidates"][count.to_string()]));
            }
        }
    }

    #[test]
    fn one_candidate_is_the_nucleus_and_many_approach_the_product_within_it() {
        for case in cases().iter().take(4) {
            let (rule, [base, aligner]) = rule(case, Mode::Mask, None);
            let mut nucleus = rule.nucleus(&base).unwrap();
            log_softmax(&mut nucleus).unwrap();
            let nucleus: Vec<_> = nucleus.iter().map(|&x| f64::from(x).exp()).collect();
            check_candidates(case, 1, &nucleus);
            let mut tempered = aligner.clone();
            rows::temper(&mut tempered, rule.aligner_temperature);
            let product: Vec<_> = nucleus.iter().zip(&tempered).map(|(p, &a)| p * f64::from(a).exp()).collect();
            let total: f64 = product.iter().sum();
            let (many, models) = self::rule(case, Mode::Candidates(256), None);
            let mut counts = vec![0.0; product.len()];
            for seed in 0..2_000 {
                let sampling = Sampling { temperature: 1.0, seed, ..Sampling::default() };
                let place = Place { list: &[], sampling: &sampling, ends: &[] };
                counts[chosen(&many, &models, &place)] += 1.0 / 2_000.0;
            }
            let distance: f64 = counts.iter().zip(&product).map(|(a, b)| (a - b / total).abs()).sum::<f64>() / 2.0;
            assert!(distance < 0.05, "{distance}");
        }
    }

    #[test]
    fn an_aligner_equal_to_the_base_gives_the_nucleus() {
        for case in cases() {
            let (rule, [base, _]) = rule(&case, Mode::Mask, Some(0.0));
            let (got, by) = probabilities(&(rule, [base.clone(), base.clone()]));
            assert_eq!(by, Author::Fused, "a divergence of zero passes every gate");
            let mut want = base.clone();
            rows::temper(&mut want, rule.aligner_temperature);
            rows::mask(&mut want, &rule.nucleus(&base).unwrap());
            log_softmax(&mut want).unwrap();
            assert!(got.iter().zip(&want).all(|(got, &want)| (got - f64::from(want).exp()).abs() < 1e-6));
        }
    }

    #[test]
    fn an_end_that_the_base_proposes_first_ends_the_text_where_there_is_no_gate() {
        let models = [[0.7f32, 0.3], [0.001, 0.999]].map(|p| p.map(f32::ln).to_vec());
        let mode = Mode::Mask;
        let mut rule =
            Residual { mode, base_temperature: 1.0, aligner_temperature: 1.0, nucleus: Filter::ALL, gate: None };
        let place = Place { list: &[], sampling: &Sampling::default(), ends: &[0] };
        assert!(matches!(rule.next(&models, &place), Ok(Next::Token(0, _))));
        rule.gate = Some(100.0);
        assert!(matches!(rule.next(&models, &place), Ok(Next::Row(..))));
    }
}
