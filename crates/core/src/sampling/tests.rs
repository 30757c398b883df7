//! The sampler against its definitions.

use super::*;
use crate::logprob;
use proptest::prelude::*;

fn sampling(temperature: f32, seed: u64) -> Sampling {
    Sampling { temperature, seed, ..Sampling::default() }
}

#[test]
fn greedy_sampling_takes_the_first_of_equal_logits() {
    let sampled = pick(&mut [0.0, 1.0, 1.0, -1.0], &[], &Sampling::default()).unwrap();
    assert_eq!(sampled.token, 1);
    let z: f64 = [0.0f64, 1.0, 1.0, -1.0].iter().map(|x| x.exp()).sum();
    assert!((sampled.logprob.unwrap() - (1.0 - z.ln())).abs() < 1e-6);
}

#[test]
fn rows_that_are_not_finite_are_refused() {
    for row in [vec![f32::NAN, 0.0], vec![0.0, f32::INFINITY], vec![f32::NEG_INFINITY; 3], vec![]] {
        assert_eq!(pick(&mut row.clone(), &[], &Sampling::default()), None, "{row:?}");
        assert_eq!(logprob(&row, 0), None);
    }
    assert_eq!(logprob(&[f32::NEG_INFINITY, 0.0], 0), Some(f64::NEG_INFINITY));
}

#[test]
fn a_draw_depends_only_on_seed_and_position() {
    let row = [0.3, 0.1, 0.9, 0.2];
    let at = |position: usize, seed| pick(&mut row.clone(), &vec![0; position], &sampling(1.0, seed)).unwrap().token;
    let first: Vec<_> = (0..64).map(|position| at(position, 7)).collect();
    assert_eq!(first, (0..64).map(|position| at(position, 7)).collect::<Vec<_>>());
    assert_ne!(first, (0..64).map(|position| at(position, 8)).collect::<Vec<_>>());
}

#[test]
fn frequencies_follow_the_softmax() {
    let row = [1.0f32, 0.0, -1.0, 2.0];
    let mut counts = [0usize; 4];
    for seed in 0..40_000 {
        counts[pick(&mut row.clone(), &[], &sampling(0.7, seed)).unwrap().token as usize] += 1;
    }
    let weights = row.map(|x| f64::from(x / 0.7).exp());
    for (count, weight) in counts.iter().zip(weights) {
        let want = weight / weights.iter().sum::<f64>();
        assert!((*count as f64 / 40_000.0 - want).abs() < 0.01, "{counts:?}");
    }
}

#[test]
fn a_penalty_changes_the_choice_but_not_the_logprob() {
    let row = [2.0, 1.9];
    let plain = logprob(&row, 1);
    let penalty = Sampling { repetition_penalty: 1.5, ..Sampling::default() };
    assert_eq!(pick(&mut row.clone(), &[0], &penalty), Some(Sampled { token: 1, logprob: plain, top: vec![] }));
    let again = pick(&mut row.clone(), &[0, 1], &penalty).unwrap();
    assert_eq!((again.token, again.logprob), (0, logprob(&row, 0)));
}

#[test]
fn the_least_penalty_leaves_numbers() {
    // The quotient of token 0 is beyond single precision.
    let sampling = Sampling { repetition_penalty: f32::MIN_POSITIVE, ..Sampling::default() };
    let warm = Sampling { temperature: 1.0, ..sampling.clone() };
    for sampling in [sampling, warm] {
        assert_eq!(pick(&mut [9.0, 10.0, -1.0], &[0], &sampling).unwrap().token, 0);
    }
}

#[test]
fn errors_name_the_limits() {
    let text = Sampling { top_p: 0.0, ..Sampling::default() }.check().unwrap_err().to_string();
    assert_eq!(text, "`top_p` must be a number above 0 and at most 1, got 0");
}

/// The tokens that sampling can draw from a row, found with many seeds.
fn drawn(row: &[f32], history: &[Token], sampling: &Sampling) -> Vec<Token> {
    let draw = |seed| pick(&mut row.to_vec(), history, &Sampling { seed, ..sampling.clone() }).unwrap().token;
    (0..2000).map(draw).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

#[test]
fn frequency_and_presence_count_the_answer_alone() {
    // Token 0 occurs twice in the prompt, token 1 twice in the answer, token 2 once.
    let history = [0, 0, 1, 2, 1];
    let at = |frequency_penalty, presence_penalty| {
        let sampling = Sampling { frequency_penalty, presence_penalty, prompt: 2, ..Sampling::default() };
        let mut row = [3.0, 4.0, 3.5, -1.0];
        let token = pick(&mut row, &history, &sampling).unwrap().token;
        (token, row)
    };
    assert_eq!(at(0.5, 0.0), (0, [3.0, 3.0, 3.0, -1.0]));
    assert_eq!(at(0.0, 1.5), (0, [3.0, 2.5, 2.0, -1.0]));
    assert_eq!(at(0.5, 1.5), (0, [3.0, 1.5, 1.5, -1.0]));
    assert_eq!(at(-1.0, 0.0), (1, [3.0, 6.0, 4.5, -1.0]));
}

#[test]
fn a_bias_comes_before_the_repetition_penalty() {
    let sampling = Sampling {
        logit_bias: [(0, -3.0), (2, 100.0), (9, 1.0)].into(),
        repetition_penalty: 2.0,
        ..Sampling::default()
    };
    let mut row = [1.0, 5.0, -90.0];
    let sampled = pick(&mut row, &[0], &sampling).unwrap();
    // 1 - 3 = -2, which is negative and so multiplied; token 9 is outside of the row.
    assert_eq!((row, sampled.token), ([-4.0, 5.0, 10.0], 2));
    assert_eq!(sampled.logprob, logprob(&[1.0, 5.0, -90.0], 2), "the plain softmax");
}

#[test]
fn top_n_sigma_measures_in_standard_deviations() {
    // Mean 2, variance (4 + 1 + 0 + 1 + 4) / 5 = 2, so sigma is 1.414 and 1 sigma reaches down to 2.586.
    let row = [0.0, 1.0, 2.0, 3.0, 4.0];
    let hot = |top_n_sigma| Sampling { top_n_sigma, temperature: 2.0, ..Sampling::default() };
    assert_eq!(drawn(&row, &[], &hot(1.0)), [3, 4]);
    assert_eq!(drawn(&row, &[], &hot(1.5)), [2, 3, 4]);
    let masked = [0.0, 1.0, 2.0, 3.0, 4.0, f32::NEG_INFINITY];
    assert_eq!(drawn(&masked, &[], &hot(1.0)), [3, 4], "what is impossible has no logit to count");
}

#[test]
fn typical_p_keeps_what_is_closest_to_the_entropy() {
    // p = 0.5, 0.25, 0.125, 0.125: entropy 1.75 bits; surprises 1, 2, 3, 3; distances 0.75, 0.25, 1.25, 1.25.
    let row = [0.5f32, 0.25, 0.125, 0.125].map(f32::ln);
    let typical = |typical_p| Sampling { typical_p, temperature: 1.0, ..Sampling::default() };
    assert_eq!(drawn(&row, &[], &typical(0.2)), [1]);
    assert_eq!(drawn(&row, &[], &typical(0.5)), [0, 1]);
    assert_eq!(drawn(&row, &[], &typical(0.8)), [0, 1, 2]);
    assert_eq!(drawn(&row, &[], &typical(1.0)), [0, 1, 2, 3]);
}

#[test]
fn xtc_removes_the_likely_tokens_but_the_least_likely_of_them() {
    let row = [0.4f32, 0.3, 0.2, 0.1].map(f32::ln);
    let xtc = |xtc_probability, xtc_threshold| Sampling {
        xtc_probability,
        xtc_threshold,
        temperature: 1.0,
        ..Sampling::default()
    };
    assert_eq!(drawn(&row, &[], &xtc(1.0, 0.15)), [2, 3]);
    assert_eq!(drawn(&row, &[], &xtc(1.0, 0.35)), [0, 1, 2, 3], "one likely token stays");
    assert_eq!(drawn(&row, &[], &xtc(0.0, 0.15)), [0, 1, 2, 3]);
    let masked = [row[0], row[1], f32::NEG_INFINITY, f32::NEG_INFINITY];
    assert_eq!(drawn(&masked, &[], &xtc(1.0, 0.0)), [1], "an impossible token is never the last");
    // With probability 0.5, token 0 is drawn half as often as without: 0.5 * 0.4.
    let draw = |seed| pick(&mut row.clone(), &[], &Sampling { seed, ..xtc(0.5, 0.15) }).unwrap().token;
    let firsts = (0..20_000).filter(|&seed| draw(seed) == 0).count();
    assert!((f64::from(firsts as u32) / 20_000.0 - 0.2).abs() < 0.01, "{firsts}");
}

#[test]
fn numbers_in_single_precision_stay_within_limits() {
    let sampling = Sampling { min_p: 0.1, xtc_threshold: 0.1, ..Sampling::default() };
    assert!(sampling.check().is_ok());
    assert!(Sampling { presence_penalty: 2.5, ..Sampling::default() }.check().is_err());
}

proptest! {
    /// The filters against their definitions, spelled out over a full sort.
    #[test]
    fn filters_keep_what_they_define(
        row in prop::collection::vec(-8f32..8.0, 1..600),
        top_k in 0usize..40, top_p in 0.05f32..=1.0, min_p in 0f32..0.5, seed: u64,
    ) {
        let sampling = Sampling { temperature: 1.0, top_k, top_p, min_p, seed, ..Sampling::default() };
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        if top_k > 0 { order.truncate(top_k); }
        let p: Vec<f64> = order.iter().map(|&i| f64::from(row[i]).exp()).collect();
        let total: f64 = p.iter().sum();
        let mut before = 0.0;
        let allowed: Vec<usize> = order.iter().zip(&p).filter(|(_, w)| {
            let is_in_top_p = before < f64::from(top_p) * total * (1.0 + 1e-9);
            let keep = is_in_top_p && **w >= f64::from(min_p) * p[0] * (1.0 - 1e-6);
            before += **w;
            keep
        }).map(|(&i, _)| i).collect();
        let got = pick(&mut row.clone(), &[], &sampling).unwrap();
        prop_assert!(allowed.contains(&(got.token as usize)));
        prop_assert_eq!(got.logprob, logprob(&row, got.token));
    }
}
