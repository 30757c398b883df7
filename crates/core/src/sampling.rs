//! Choosing the next token from a row of logits.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::logits::{argmax, log_sum_exp};
use crate::tokens::MAX_TOKENS_LIMIT;
use crate::{Mask, Result, Sampled, Seat, Setting, Token, Value, Values};

/// The parameters of sampling. Filters apply in the order of Hugging Face transformers: repetition
/// penalty, temperature, top-k, top-p, min-p.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
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
    /// Divisor of positive logits and factor of negative ones for tokens already in the list; 1
    /// changes nothing.
    pub repetition_penalty: f32,
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
/// The setting for the repetition penalty.
pub static REPETITION_PENALTY: Setting = Setting::positive(
    "repetition_penalty",
    "Make tokens that occurred less likely by this factor; 1 does nothing",
    100.0,
)
.with_default_number(1.0)
.with_placeholder("FACTOR");
/// The setting for the seed of random numbers.
pub static SEED: Setting = Setting::seed("seed", "Same seed, same text", 42);

/// Every setting of the sampler, in the order of the help.
pub static SAMPLING: &[&Setting] = &[&TEMPERATURE, &TOP_K, &TOP_P, &MIN_P, &REPETITION_PENALTY, &SEED];

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
            repetition_penalty: positive(&REPETITION_PENALTY),
            seed: values.get(&SEED),
        }
    }

    /// Checks every value against its limits.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] names the first value outside them.
    pub fn check(self) -> Result<Self> {
        for (setting, value) in [
            (&TEMPERATURE, self.temperature),
            (&TOP_P, self.top_p),
            (&MIN_P, self.min_p),
            (&REPETITION_PENALTY, self.repetition_penalty),
        ] {
            setting.check(Value::Number(f64::from(value)))?;
        }
        Ok(self)
    }

    /// The same sampling with a seed specific to the seat, so that two models with one seed draw
    /// different numbers.
    #[must_use]
    pub fn for_seat(self, seat: Seat) -> Self {
        Self { seed: self.seed ^ seat.salt(), ..self }
    }

    /// Draws a uniform number in 0..1 for a position of the list, from stream number `position` of
    /// `ChaCha8`.
    fn draw(&self, position: usize) -> f64 {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(position as u64);
        (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
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
    if let Some(mask) = mask {
        best = mask.argmax(logits)?;
        if logits[best] == f32::NEG_INFINITY {
            return Some(Sampled { token: best as Token, logprob: Some(f64::NEG_INFINITY), top: Vec::new() });
        }
    }
    if sampling.repetition_penalty == 1.0 && sampling.temperature == 0.0 {
        return Some(Sampled {
            token: best as Token,
            logprob: Some((f64::from(logits[best]) - lse).min(0.0)),
            top: Vec::new(),
        });
    }
    let mut penalized = Vec::new();
    if sampling.repetition_penalty != 1.0 {
        let mut seen = history.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for token in seen {
            if let Some(x) = logits.get_mut(token as usize) {
                penalized.push((token as usize, *x));
                *x = if *x > 0.0 { *x / sampling.repetition_penalty } else { *x * sampling.repetition_penalty };
            }
        }
        best = argmax(logits)?;
    }
    let token = if sampling.temperature == 0.0 { best } else { draw(logits, best, history.len(), sampling) };
    let plain = penalized.iter().find(|(id, _)| *id == token).map_or(logits[token], |(_, x)| *x);
    Some(Sampled { token: token as Token, logprob: Some((f64::from(plain) - lse).min(0.0)), top: Vec::new() })
}

/// Draws among the tokens that pass the filters.
fn draw(logits: &[f32], best: usize, position: usize, sampling: &Sampling) -> usize {
    let weight = |id: usize| (f64::from(logits[id] - logits[best]) / f64::from(sampling.temperature)).exp();
    let mut kept = candidates(logits, sampling, &weight);
    kept.retain(|&(_, w)| w >= f64::from(sampling.min_p));
    let mut left = sampling.draw(position) * kept.iter().map(|(_, w)| w).sum::<f64>();
    for (id, w) in kept {
        left -= w;
        if left < 0.0 {
            return id;
        }
    }
    // Only rounding leads here. The last candidate may have weight zero, so the most likely one is
    // taken.
    best
}

/// Returns the tokens that top-k and top-p leave, with weights relative to the most likely one.
fn candidates(logits: &[f32], sampling: &Sampling, weight: &dyn Fn(usize) -> f64) -> Vec<(usize, f64)> {
    let mut all: Vec<_> = (0..logits.len()).map(|id| (id, weight(id))).collect();
    let descending = |a: &(usize, f64), b: &(usize, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let limit = if sampling.top_k == 0 { all.len() } else { sampling.top_k.min(all.len()) };
    if limit < all.len() {
        all.select_nth_unstable_by(limit - 1, descending);
        all.truncate(limit);
    }
    if sampling.top_p >= 1.0 {
        all.sort_unstable_by_key(|&(id, _)| id);
        return all;
    }
    let mass = f64::from(sampling.top_p) * all.iter().map(|(_, w)| w).sum::<f64>();
    // Sorting the whole vocabulary is rarely necessary: sort a growing head of it until the head
    // holds the mass.
    let mut head = 256;
    loop {
        let head_len = head.min(all.len());
        if head_len < all.len() {
            all.select_nth_unstable_by(head_len - 1, descending);
        }
        all[..head_len].sort_unstable_by(descending);
        let mut before = 0.0;
        let kept = all[..head_len].iter().position(|(_, w)| {
            let full = before >= mass;
            before += w;
            full
        });
        match kept {
            None if head_len < all.len() => head *= 8,
            kept => {
                all.truncate(kept.unwrap_or(all.len()).max(1));
                return all;
            }
        }
    }
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
