//! Log-probabilities of given texts and tokens.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use pyo3::prelude::*;
use wsd_core::{Engine, Error, Prompt, Result, Rule, Token, common_prefix};

use crate::arrays::{floats, ids};
use crate::class;

/// Sequences that are scored at a time; the engine batches them.
const PARALLEL: usize = 64;

/// A response to score.
pub(crate) enum Response {
    /// A text, which is encoded together with its prompt.
    Text(String),
    /// Token ids.
    Tokens(Vec<Token>),
}

/// A response's tokens with their log-probabilities.
pub(crate) struct Scored {
    tokens: Vec<Token>,
    logprobs: Vec<f64>,
}

/// Scores a response after a prompt, as `wsd score` does: both are encoded as one text, and the
/// response's tokens are those after the prefix that they share with the prompt alone.
pub(crate) async fn response(engine: &dyn Engine, prompt: &Prompt, response: &Response) -> Result<Scored> {
    let codec = engine.codec();
    let rendered = codec.render(prompt)?;
    let tokens = match response {
        Response::Tokens(ids) => [rendered.tokens.as_slice(), ids.as_slice()].concat(),
        Response::Text(text) if matches!(prompt, Prompt::Tokens(_)) => {
            [rendered.tokens.as_slice(), &codec.tokenizer().encode(text)?].concat()
        }
        Response::Text(text) => codec.encode_after(&rendered, text)?,
    };
    let from = common_prefix(&rendered.tokens, &tokens);
    if from == tokens.len() {
        return Err(Error::Chat("the response adds no token to the prompt: there is nothing to score".into()));
    }
    let logprobs = tokens_from(engine, &tokens, from).await?;
    Ok(Scored { tokens: tokens[from..].to_vec(), logprobs })
}

/// Scores the tokens from `from` on.
pub(crate) async fn tokens_from(engine: &dyn Engine, tokens: &[Token], from: usize) -> Result<Vec<f64>> {
    check(engine, tokens, from)?;
    engine.open(tokens).await?.score(from).await
}

/// Checks that there is something to score, and that it fits the context.
fn check(engine: &dyn Engine, tokens: &[Token], from: usize) -> Result<()> {
    let card = engine.card();
    card.check(tokens)?;
    if tokens.len() > card.max_len {
        return Err(Error::PromptTooLong { engine: card.name.clone(), tokens: tokens.len(), limit: card.max_len });
    }
    if from == 0 || from >= tokens.len() {
        let limit = format!("from 1 to below the number of tokens, {}", tokens.len());
        return Err(Error::Setting { name: "start", limit, value: from.to_string() });
    }
    Ok(())
}

/// Returns for each pair of context and continuation the sum of the continuation's log-probabilities,
/// and whether each of its tokens is the most likely one (`false` for an engine that cannot tell). A
/// list longer than the context loses its first tokens.
pub(crate) async fn continuations(
    engine: Arc<dyn Engine>,
    pairs: Vec<(Vec<Token>, Vec<Token>)>,
) -> Result<Vec<(f64, bool)>> {
    let scores = pairs.into_iter().map(|pair| continuation(engine.clone(), pair));
    stream::iter(scores).buffered(PARALLEL).try_collect().await
}

async fn continuation(engine: Arc<dyn Engine>, pair: (Vec<Token>, Vec<Token>)) -> Result<(f64, bool)> {
    let (context, continuation) = pair;
    let list = [context.as_slice(), continuation.as_slice()].concat();
    let cut = list.len().saturating_sub(engine.card().max_len);
    let from = context.len().saturating_sub(cut).max(1);
    check(engine.as_ref(), &list[cut..], from)?;
    let top = usize::from(engine.card().caps.logits);
    let scored = engine.open(&list[cut..]).await?.score_top(from, top).await?;
    let sum = scored.iter().filter_map(|sampled| sampled.logprob).sum();
    let is_greedy = scored.iter().all(|sampled| sampled.top.first().is_some_and(|(top, _)| *top == sampled.token));
    Ok((sum, is_greedy))
}

/// Converts a score to the record of the package's Python part.
pub(crate) fn record<'py>(py: Python<'py>, scored: &Scored, rule: Rule) -> PyResult<Bound<'py, PyAny>> {
    let confidences = rule.confidences(&scored.logprobs);
    let at = rule.accept_index(&scored.logprobs);
    let handover = at.and_then(|at| Some((at, confidences.get(at).copied().flatten()?)));
    let handover = handover
        .map(|(at, confidence)| class(py, "Handover")?.call1((at, confidence, rule.window(), rule.threshold())));
    let confidences: Vec<_> = confidences.into_iter().map(|it| it.unwrap_or(f64::NAN)).collect();
    let arrays = (ids(py, &scored.tokens)?, floats(py, &scored.logprobs)?, floats(py, &confidences)?);
    class(py, "Score")?.call1((arrays.0, arrays.1, arrays.2, handover.transpose()?))
}
