//! Choosing the next token from a row of logits.

mod adjust;
mod candidates;
mod dry;
mod filters;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

pub use candidates::{Candidates, pick_candidates};
pub use dry::{Breakers, Dry};
pub use settings::{
    DRY_ALLOWED_LENGTH, DRY_BASE, DRY_MULTIPLIER, DRY_PENALTY_LAST_N, DRY_SEQUENCE_BREAKERS, FREQUENCY_PENALTY, MIN_P,
    PRESENCE_PENALTY, REPETITION_PENALTY, SAMPLING, SEED, TEMPERATURE, TOP_K, TOP_N_SIGMA, TOP_P, TYPICAL_P,
    XTC_PROBABILITY, XTC_THRESHOLD,
};

use crate::logits::{argmax, log_sum_exp};
use crate::{Mask, Result, Sampled, Seat, Setting, TextCodec, Token, Value, Values};

/// The parameters of sampling. They apply in this order: logit bias, repetition penalty, frequency
/// and presence penalty, DRY, then the temperature, then the filters top-n-sigma, top-k, top-p, min-p,
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
    /// The penalty on tokens that would continue a repetition.
    pub dry: Dry,
    /// Additions to the logits of tokens.
    pub logit_bias: Arc<[(Token, f32)]>,
    /// The length of the prompt in the list, in tokens: the answer begins after it.
    pub prompt: usize,
    /// The seed of random numbers. The draw at a position depends only on the seed and the
    /// position.
    pub seed: u64,
}

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
            dry: Dry::from_values(values),
            logit_bias: Arc::default(),
            prompt: 0,
            seed: values.get(&SEED),
        }
    }

    /// The settings of kind number with their values.
    fn numbers(&self) -> [(&'static Setting, f32); 12] {
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
            (&DRY_MULTIPLIER, self.dry.multiplier),
            (&DRY_BASE, self.dry.base),
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

    /// Returns the settings of kind number that do not have their defaults, with their values.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (&'static Setting, f32)> {
        let is_default = |setting: &Setting, value| setting.default == Some(Value::Number(to_double(value)));
        self.numbers().into_iter().filter(move |&(setting, value)| !is_default(setting, value))
    }

    /// The same sampling for the model in a seat, whose list begins with a prompt of `prompt`
    /// tokens. The seed becomes specific to the seat, so that two models with one seed draw
    /// different numbers.
    #[must_use]
    pub fn for_seat(&self, seat: Seat, prompt: usize) -> Self {
        Self { seed: self.seed ^ seat.salt(), prompt, ..self.clone() }
    }

    /// The same sampling for lists of tokens in the vocabulary of a codec, whose texts the sequence
    /// breakers of DRY are found in. Engines and fusions of rows apply it before they choose.
    #[must_use]
    pub fn spelled_by(&self, codec: &TextCodec) -> Self {
        let breakers = self.dry.breakers.spelled_by(codec.tokenizer());
        Self { dry: Dry { breakers, ..self.dry.clone() }, ..self.clone() }
    }

    /// Tells that each token is the argmax of its row, whatever is in the list.
    #[must_use]
    pub fn is_argmax(&self) -> bool {
        self.temperature == 0.0 && !self.adjusts()
    }

    /// Tells whether logits are changed before the choice.
    fn adjusts(&self) -> bool {
        let is_neutral = self.repetition_penalty == 1.0 && self.frequency_penalty == 0.0;
        !(is_neutral && self.presence_penalty == 0.0 && self.dry.multiplier == 0.0 && self.logit_bias.is_empty())
    }

    /// A uniform number in 0..1 for a position of the list: the one that [`pick`] draws the token with.
    pub(crate) fn uniform(&self, position: usize) -> f64 {
        self.draw(position)[0]
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
    pick_allowed(logits, history, sampling, None)
}

/// Chooses as [`pick`] does, among the tokens of `mask` if there is one. The log-probability is that
/// of the plain softmax over all tokens.
#[must_use]
pub fn pick_allowed(
    logits: &mut [f32],
    history: &[Token],
    sampling: &Sampling,
    mask: Option<&Mask>,
) -> Option<Sampled> {
    let (lse, mut best) = log_sum_exp(logits)?;
    let changed = if sampling.adjusts() { adjust::adjust(logits, history, sampling) } else { Vec::new() };
    if let Some(mask) = mask {
        best = mask.argmax(logits)?;
        if logits[best] == f32::NEG_INFINITY {
            return Some(Sampled { token: best as Token, logprob: Some(f64::NEG_INFINITY), top: Vec::new() });
        }
    } else if !changed.is_empty() {
        best = argmax(logits)?;
    }
    let token = if sampling.temperature == 0.0 { best } else { draw(logits, best, history.len(), sampling) };
    let plain = changed.iter().find(|(id, _)| *id == token).map_or(logits[token], |(_, x)| *x);
    Some(Sampled { token: token as Token, logprob: Some((f64::from(plain) - lse).min(0.0)), top: Vec::new() })
}

/// Returns the tokens that pass every filter but XTC, with weights relative to the most likely one;
/// `None` if the row is not finite.
pub(crate) fn kept(logits: &[f32], sampling: &Sampling) -> Option<Vec<(usize, f64)>> {
    let (_, best) = log_sum_exp(logits)?;
    Some(filters::filter(&filters::Row { logits, best, chance: 1.0, sampling }))
}

/// Draws among the tokens that pass the filters.
fn draw(logits: &[f32], best: usize, position: usize, sampling: &Sampling) -> usize {
    let [number, chance] = sampling.draw(position);
    let kept = filters::filter(&filters::Row { logits, best, chance, sampling });
    settle(&kept, number, best)
}

/// The token that a uniform number in 0..1 falls on.
fn settle(kept: &[(usize, f64)], number: f64, best: usize) -> usize {
    let mut left = number * kept.iter().map(|(_, w)| w).sum::<f64>();
    for &(id, w) in kept {
        left -= w;
        if left < 0.0 {
            return id;
        }
    }
    // Only rounding leads here. The last candidate may have weight zero, so the most likely one is
    // taken.
    kept.iter().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0))).map_or(best, |&(id, _)| id)
}
