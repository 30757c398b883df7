//! Changes of logits before the choice: the logit bias and the penalties.

use super::Sampling;
use crate::Token;

/// A change of the logits, given the list so far.
type Adjustment = fn(&Sampling, &[Token], &mut Row<'_>);

/// All changes, in the order in which they apply: that of vLLM, and of llama.cpp for DRY.
static ADJUSTMENTS: &[Adjustment] = &[bias, repetition, occurrences, dry];

/// A row whose entries are being changed.
struct Row<'a> {
    logits: &'a mut [f32],
    /// The changed entries with their values before a change; the first of an index is the plain one.
    before: Vec<(usize, f32)>,
}

impl Row<'_> {
    /// Changes the logit of a token; one outside of the row has none.
    fn change(&mut self, token: Token, change: impl FnOnce(f32) -> f32) {
        if let Some(x) = self.logits.get_mut(token as usize) {
            self.before.push((token as usize, *x));
            *x = change(*x);
        }
    }
}

/// Applies all changes. Returns the changed entries with their values before a change; the first of
/// an index is the plain one.
pub(super) fn adjust(logits: &mut [f32], history: &[Token], sampling: &Sampling) -> Vec<(usize, f32)> {
    let mut row = Row { logits, before: Vec::new() };
    for adjustment in ADJUSTMENTS {
        adjustment(sampling, history, &mut row);
    }
    row.before
}

/// Adds the logit bias.
fn bias(sampling: &Sampling, _: &[Token], row: &mut Row<'_>) {
    for &(token, bias) in sampling.logit_bias.iter() {
        row.change(token, |x| x + bias);
    }
}

/// Divides the positive logits of tokens in the list, and multiplies the negative ones (Keskar et
/// al. 2019, "CTRL"). They stay finite, however small the divisor.
fn repetition(sampling: &Sampling, history: &[Token], row: &mut Row<'_>) {
    let penalty = sampling.repetition_penalty;
    if penalty == 1.0 {
        return;
    }
    for (token, _) in counts(history) {
        row.change(token, |x| if x > 0.0 { (x / penalty).min(f32::MAX) } else { x * penalty });
    }
}

/// Subtracts the frequency penalty for each occurrence in the answer and the presence penalty once:
/// `x - count * frequency - [count > 0] * presence` (OpenAI's API reference).
fn occurrences(sampling: &Sampling, history: &[Token], row: &mut Row<'_>) {
    let (frequency, presence) = (sampling.frequency_penalty, sampling.presence_penalty);
    if frequency == 0.0 && presence == 0.0 {
        return;
    }
    for (token, count) in counts(history.get(sampling.prompt..).unwrap_or_default()) {
        row.change(token, |x| x - count as f32 * frequency - presence);
    }
}

/// Counts the occurrences of each token.
fn counts(list: &[Token]) -> Vec<(Token, usize)> {
    let mut sorted = list.to_vec();
    sorted.sort_unstable();
    sorted.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect()
}

/// Subtracts the penalties of DRY. Logits stay finite.
fn dry(sampling: &Sampling, history: &[Token], row: &mut Row<'_>) {
    if sampling.dry.multiplier == 0.0 {
        return;
    }
    for (token, penalty) in sampling.dry.penalties(history) {
        let least = f64::from(f32::MIN);
        row.change(token, |x| if x.is_finite() { (f64::from(x) - penalty).max(least) as f32 } else { x });
    }
}
