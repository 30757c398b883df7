//! Choosing the next token from a row of logits.

mod adjust;
mod filters;

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::logits::{argmax, log_sum_exp};
use crate::tokens::MAX_TOKENS_LIMIT;
use crate::{Engine, Error, Result, Sampled, Seat, Setting, Token, Value, Values};

/// The parameters of sampling. They apply in this order: logit bias, repetition penalty, frequency
/// and presence penalty, then the temperature, then the filters top-n-sigma, top-k, top-p, min-p,
/// typical-p and XTC. The order is that of Hugging Face transformers, and of vLLM and llama.cpp for
/// what transformers do not have. At temperature 0 the filters have no effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divisor of the logits, at least 0; 0 takes the argmax.
    pub temperature: f32,
    /// The number of most likely tokens to keep; 0 keeps all.
    pub top_k: usize,
    /// The probability that the kept tokens, the most likely ones, must reach together; 1 keeps
    /// all.
    pub top_p: f32,
    /// The least probability of a kept token, relative to the most likely one; 0 keeps all.
    pub min_p: f32,
    /// The probability that the kept tokens, those whose surprise is closest to the entropy, must
    /// reach together; 1 keeps all.
    pub typical_p: f32,
    /// The most standard deviations of all logits by which a kept logit may be below the largest;
    /// 0 keeps all.
    pub top_n_sigma: f32,
    /// The probability with which XTC applies at a position; 0 never.
    pub xtc_probability: f32,
    /// The probability from which XTC removes tokens, all but the least likely of them.
    pub xtc_threshold: f32,
    /// Divisor of positive logits and factor of negative ones for tokens already in the list; 1
    /// changes nothing.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens already in the answer, once for each occurrence.
    pub frequency_penalty: f32,
    /// Subtracted from the logits of tokens already in the answer, once.
    pub presence_penalty: f32,
    /// Additions to the logits of tokens.
    pub logit_bias: Arc<[(Token, f32)]>,
    /// The length of the prompt in the list, in tokens: the answer begins after it.
    pub prompt: usize,
    /// The seed of random numbers. The draw at a position depends only on the seed and the
    /// position.
    pub seed: u64,
}

/// The setting for the temperature.
pub static TEMPERATURE: Setting = Setting::number(
    "temperature",
    "0 takes the most likely token, 1 samples from the model's own distribution",
    0.0..=100.0,
)
.with_default_number(0.0)
.with_placeholder("T")
.with_short('t');
/// The setting for top-k.
pub static TOP_K: Setting =
    Setting::integer("top_k", "Sample among the N most likely tokens; 0 means all", 0..=MAX_TOKENS_LIMIT)
        .with_default_integer(0);
/// The setting for top-p.
pub static TOP_P: Setting =
    Setting::positive("top_p", "Sample among the most likely tokens that together reach probability P", 1.0)
        .with_default_number(1.0)
        .with_placeholder("P");
/// The setting for min-p.
pub static MIN_P: Setting =
    Setting::number("min_p", "Sample among tokens at least P times as likely as the most likely one", 0.0..=1.0)
        .with_default_number(0.0)
        .with_placeholder("P");
/// The setting for typical-p (Meister et al. 2023, "Locally Typical Sampling").
pub static TYPICAL_P: Setting = Setting::positive(
    "typical_p",
    "Sample among the tokens closest to the expected surprise that together reach probability P",
    1.0,
)
.with_default_number(1.0)
.with_placeholder("P");
/// The setting for top-n-sigma (Tang et al. 2024, "Top-nσ: Not All Logits Are You Need").
pub static TOP_N_SIGMA: Setting = Setting::number(
    "top_n_sigma",
    "Sample among tokens whose logit is within N standard deviations of the largest; 0 means all",
    0.0..=100.0,
)
.with_default_number(0.0)
.with_placeholder("N");
/// The setting for the probability of XTC ("exclude top choices", text-generation-webui PR 6335).
pub static XTC_PROBABILITY: Setting = Setting::number(
    "xtc_probability",
    "With probability P at each token, remove the likely tokens but the least likely of them (XTC)",
    0.0..=1.0,
)
.with_default_number(0.0)
.with_placeholder("P");
/// The setting for the threshold of XTC.
pub static XTC_THRESHOLD: Setting =
    Setting::number("xtc_threshold", "The probability from which XTC counts a token as likely", 0.0..=1.0)
        .with_default_number(0.1)
        .with_placeholder("P");
/// The setting for the repetition penalty.
pub static REPETITION_PENALTY: Setting = Setting::positive(
    "repetition_penalty",
    "Make tokens that occurred less likely by this factor; 1 does nothing",
    100.0,
)
.with_default_number(1.0)
.with_placeholder("FACTOR");
/// The setting for the frequency penalty.
pub static FREQUENCY_PENALTY: Setting = Setting::number(
    "frequency_penalty",
    "Lower the logits of tokens of the answer by this much for each occurrence; a negative one raises them",
    -2.0..=2.0,
)
.with_default_number(0.0);
/// The setting for the presence penalty.
pub static PRESENCE_PENALTY: Setting = Setting::number(
    "presence_penalty",
    "Lower the logits of tokens that occurred in the answer by this much; a negative one raises them",
    -2.0..=2.0,
)
.with_default_number(0.0);
/// The setting for the seed of random numbers.
pub static SEED: Setting = Setting::seed("seed", "Same seed, same text", 42);

/// Every setting of the sampler, in the order of the help.
pub static SAMPLING: &[&Setting] = &[
    &TEMPERATURE,
    &TOP_K,
    &TOP_P,
    &MIN_P,
    &TYPICAL_P,
    &TOP_N_SIGMA,
    &XTC_PROBABILITY,
    &XTC_THRESHOLD,
    &REPETITION_PENALTY,
    &FREQUENCY_PENALTY,
    &PRESENCE_PENALTY,
    &SEED,
];

impl Default for Sampling {
    fn default() -> Self {
        Self::from_values(&Values::default())
    }
}

impl Sampling {
    /// The sampling that the settings in [`SAMPLING`] have in `values`.
    #[must_use]
    pub fn from_values(values: &Values) -> Self {
        // A number above zero may still round to zero in single precision.
        let positive = |setting| values.get::<f32>(setting).max(f32::MIN_POSITIVE);
        Self {
            temperature: values.get(&TEMPERATURE),
            top_k: values.get(&TOP_K),
            top_p: positive(&TOP_P),
            min_p: values.get(&MIN_P),
            typical_p: positive(&TYPICAL_P),
            top_n_sigma: values.get(&TOP_N_SIGMA),
            xtc_probability: values.get(&XTC_PROBABILITY),
            xtc_threshold: values.get(&XTC_THRESHOLD),
            repetition_penalty: positive(&REPETITION_PENALTY),
            frequency_penalty: values.get(&FREQUENCY_PENALTY),
            presence_penalty: values.get(&PRESENCE_PENALTY),
            logit_bias: Arc::default(),
            prompt: 0,
            seed: values.get(&SEED),
        }
    }

    /// The settings of kind number with their values.
    fn numbers(&self) -> [(&'static Setting, f32); 10] {
        [
            (&TEMPERATURE, self.temperature),
            (&TOP_P, self.top_p),
            (&MIN_P, self.min_p),
            (&TYPICAL_P, self.typical_p),
            (&TOP_N_SIGMA, self.top_n_sigma),
            (&XTC_PROBABILITY, self.xtc_probability),
            (&XTC_THRESHOLD, self.xtc_threshold),
            (&REPETITION_PENALTY, self.repetition_penalty),
            (&FREQUENCY_PENALTY, self.frequency_penalty),
            (&PRESENCE_PENALTY, self.presence_penalty),
        ]
    }

    /// Checks every value against its limits.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] names the first value outside them.
    pub fn check(&self) -> Result<()> {
        // The nearest number in single precision may be just outside of a limit.
        let check = |(setting, value): (&Setting, f32)| setting.check(Value::Number(to_double(value))).map(drop);
        self.numbers().into_iter().try_for_each(check)
    }

    /// Checks that an engine follows every value that is not the default.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] names the first that it does not follow.
    pub fn check_for(&self, engine: &dyn Engine) -> Result<()> {
        let ignored = engine.ignored_sampling();
        let is_ignored = |setting: &Setting| ignored.iter().any(|other| other.name == setting.name);
        let is_default = |setting: &Setting, value| setting.default == Some(Value::Number(to_double(value)));
        let mut numbers = self.numbers().into_iter();
        match numbers.find(|&(setting, value)| is_ignored(setting) && !is_default(setting, value)) {
            None => Ok(()),
            Some((setting, value)) => Err(Error::Setting {
                name: setting.name,
                limit: format!("left out, because the engine `{}` does not follow it", engine.card().name),
                value: format!("{value}\n  hint: an embedded model follows every setting of sampling"),
            }),
        }
    }

    /// The same sampling for the model in a seat, whose list begins with a prompt of `prompt`
    /// tokens. The seed becomes specific to the seat, so that two models with one seed draw
    /// different numbers.
    #[must_use]
    pub fn for_seat(&self, seat: Seat, prompt: usize) -> Self {
        Self { seed: self.seed ^ seat.salt(), prompt, ..self.clone() }
    }

    /// Tells that each token is the argmax of its row, whatever is in the list.
    #[must_use]
    pub fn is_argmax(&self) -> bool {
        self.temperature == 0.0 && !self.adjusts()
    }

    /// Tells whether logits are changed before the choice.
    fn adjusts(&self) -> bool {
        let is_neutral = self.repetition_penalty == 1.0 && self.frequency_penalty == 0.0;
        !(is_neutral && self.presence_penalty == 0.0 && self.logit_bias.is_empty())
    }

    /// Draws two uniform numbers in 0..1 for a position of the list, from stream number `position`
    /// of `ChaCha8`: one for the token, one for XTC.
    fn draw(&self, position: usize) -> [f64; 2] {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(position as u64);
        std::array::from_fn(|_| (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// Converts a number to the double that has the same shortest decimal form, so that 0.1 stays 0.1.
fn to_double(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// Chooses the token at position `history.len()` from the logits that predict it. The row is
/// overwritten.
///
/// The log-probability returned is that of the plain softmax, before any penalty, temperature or
/// filter. Returns `None` if the row is not finite.
///
/// ```
/// use wsd_core::{Sampling, pick};
/// let row = [0.0, 3.0, 1.0];
/// assert_eq!(pick(&mut row.clone(), &[], &Sampling::default()).unwrap().token, 1); // argmax
/// let penalty = Sampling { repetition_penalty: 4.0, ..Sampling::default() };
/// assert_eq!(pick(&mut row.clone(), &[1], &penalty).unwrap().token, 2);
/// let bias = Sampling { logit_bias: [(0, 5.0)].into(), ..Sampling::default() };
/// assert_eq!(pick(&mut row.clone(), &[], &bias).unwrap().token, 0);
/// ```
#[must_use]
pub fn pick(logits: &mut [f32], history: &[Token], sampling: &Sampling) -> Option<Sampled> {
    let (lse, mut best) = log_sum_exp(logits)?;
    let changed = if sampling.adjusts() { adjust::adjust(logits, history, sampling) } else { Vec::new() };
    if !changed.is_empty() {
        best = argmax(logits)?;
    }
    let token = if sampling.temperature == 0.0 { best } else { draw(logits, best, history.len(), sampling) };
    let plain = changed.iter().find(|(id, _)| *id == token).map_or(logits[token], |(_, x)| *x);
    Some(Sampled { token: token as Token, logprob: Some((f64::from(plain) - lse).min(0.0)), top: Vec::new() })
}

/// Draws among the tokens that pass the filters.
fn draw(logits: &[f32], best: usize, position: usize, sampling: &Sampling) -> usize {
    let [number, chance] = sampling.draw(position);
    let kept = filters::filter(&filters::Row { logits, best, chance, sampling });
    let mut left = number * kept.iter().map(|(_, w)| w).sum::<f64>();
    for &(id, w) in &kept {
        left -= w;
        if left < 0.0 {
            return id;
        }
    }
    // Only rounding leads here. The last candidate may have weight zero, so the most likely one is
    // taken.
    kept.iter().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0))).map_or(best, |&(id, _)| id)
}

#[cfg(test)]
mod tests {
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
        let at =
            |position: usize, seed| pick(&mut row.clone(), &vec![0; position], &sampling(1.0, seed)).unwrap().token;
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
}
