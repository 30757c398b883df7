//! Log-likelihoods of continuations, as lm-evaluation-harness computes them.

use serde::{Deserialize, Serialize};
use wsd_core::{Engine, Error, Prompt, Result, common_prefix};

/// Score of one continuation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChoiceScore {
    /// Sum of the natural log-probabilities of its tokens.
    pub logprob: f64,
    /// Number of its tokens.
    pub tokens: usize,
}

/// Scores each of `choices` as the continuation of a raw `context`.
///
/// Context and choice are encoded as one text, and the tokens after the length of the context's own
/// encoding count (`_encode_pair` of lm-evaluation-harness). White space at the end of the context
/// belongs to the choice. A list that is longer than the engine's context loses its first tokens.
///
/// ```
/// use std::sync::Arc;
/// use wsd_core::scripted::{Pieces, Scripted};
///
/// let engine = Scripted::random("demo", Arc::new(Pieces::letters("ab ")), 1);
/// let choices = ["a".to_owned(), "ab".to_owned()];
/// let scores = futures::executor::block_on(wsd_eval::score_choices(&engine, "b a", &choices))?;
/// assert_eq!(scores.iter().map(|score| score.tokens).collect::<Vec<_>>(), [1, 2]);
/// assert!(scores[1].logprob < scores[0].logprob);
/// # Ok::<(), wsd_core::Error>(())
/// ```
///
/// # Errors
/// Errors of the engine; [`Error::Engine`] for a choice without a token.
pub async fn score_choices(engine: &dyn Engine, context: &str, choices: &[String]) -> Result<Vec<ChoiceScore>> {
    let codec = engine.codec();
    let text = context.trim_end();
    let space = &context[text.len()..];
    let rendered = codec.render(&Prompt::Raw(text.to_owned()))?;
    let limit = engine.card().max_len;
    let mut session = engine.open(&[]).await?;
    let mut scores = Vec::new();
    for choice in choices {
        let list = codec.encode_after(&rendered, &format!("{space}{choice}"))?;
        let cut = list.len().saturating_sub(limit);
        let from = rendered.tokens.len().min(list.len()).saturating_sub(cut).max(1);
        let list = &list[cut..];
        if from >= list.len() {
            let message = format!("the choice `{choice}` adds no token to its context");
            return Err(Error::Engine { engine: engine.card().name.clone(), message });
        }
        engine.card().check(list)?;
        session.truncate(common_prefix(session.tokens(), list));
        let kept = session.tokens().len();
        session.append(&list[kept..]);
        let logprobs = session.score(from).await?;
        scores.push(ChoiceScore { logprob: logprobs.iter().sum(), tokens: logprobs.len() });
    }
    Ok(scores)
}

/// The engine's log-probabilities of a text after a prompt. What is longer than its context is left
/// out.
pub(crate) async fn text_logprobs(engine: &dyn Engine, prompt: &Prompt, text: &str) -> Result<Vec<f64>> {
    let rendered = engine.codec().render(prompt)?;
    let mut list = engine.codec().encode_after(&rendered, text)?;
    let from = common_prefix(&rendered.tokens, &list).max(1);
    list.truncate(engine.card().max_len);
    if from >= list.len() { Ok(Vec::new()) } else { engine.open(&list).await?.score(from).await }
}
