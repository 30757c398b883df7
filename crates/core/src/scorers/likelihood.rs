//! The likelihood of a step: the geometric mean of the base's probabilities of its tokens.

use std::sync::Arc;

use async_trait::async_trait;

use super::StepScorer;
use crate::{Caps, Engine, Error, Need, Prompt, Recipe, Result, Seat, common_prefix};

pub(super) static SCORER: Recipe<dyn StepScorer> = Recipe {
    name: "likelihood",
    title: "likelihood",
    about: "the geometric mean of the base's probabilities of a step's tokens",
    needs: &[Need::with(Seat::BASE, Caps { score: true, ..Caps::GENERATE })],
    settings: &[],
    make: |models, _| Ok(Arc::new(Likelihood { base: models.require(SCORER.name, Seat::BASE)? })),
};

struct Likelihood {
    base: Arc<dyn Engine>,
}

#[async_trait]
impl StepScorer for Likelihood {
    async fn rate(&self, prompt: &Prompt, steps: &[String]) -> Result<Vec<f64>> {
        let (card, codec) = (self.base.card(), self.base.codec());
        let rendered = codec.render(prompt)?;
        let answer = steps.concat();
        let list = codec.encode_after(&rendered, &answer)?;
        if list.len() > card.max_len {
            return Err(Error::PromptTooLong { engine: card.name.clone(), tokens: list.len(), limit: card.max_len });
        }
        // The first token of a list has no context, so it has no probability.
        let from = common_prefix(&rendered.tokens, &list).max(1);
        if from >= list.len() {
            return Ok(vec![0.0; steps.len()]);
        }
        let logprobs = self.base.open(&list).await?.score(from).await?;
        let mut detokenizer = codec.detokenizer(&list[..from]);
        let mut lengths = Vec::with_capacity(logprobs.len());
        for &token in &list[from..] {
            lengths.push(detokenizer.push(token)?.len());
        }
        let tokens: Vec<_> = lengths.into_iter().zip(logprobs).collect();
        Ok(step_likelihoods(&tokens, steps, answer.len()))
    }
}

/// Averages the log-probabilities of `(bytes, log-probability)` tokens over the steps they overlap. The
/// first tokens may spell the end of the prompt too: the last `answer` bytes belong to the steps.
pub(super) fn step_likelihoods(tokens: &[(usize, f64)], steps: &[String], answer: usize) -> Vec<f64> {
    let spelled: usize = tokens.iter().map(|(bytes, _)| bytes).sum();
    let prompt = spelled.saturating_sub(answer);
    let mut start = prompt;
    let likelihood = |step: &String| {
        let range = start..start + step.len();
        start = range.end;
        let mut at = 0;
        let (mut sum, mut count) = (0.0, 0);
        for &(bytes, logprob) in tokens {
            let token = at..at + bytes;
            at = token.end;
            if token.start < range.end && range.start < token.end {
                sum += logprob;
                count += 1;
            }
        }
        if count == 0 { 0.0 } else { (sum / f64::from(count)).exp() }
    };
    steps.iter().map(likelihood).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{Pieces, Scripted};
    use crate::{Models, Values};
    use futures::executor::block_on;

    #[test]
    fn a_token_counts_in_every_step_it_overlaps() {
        let steps = ["ab".to_owned(), "cd".to_owned()];
        let halves = |p: f64| p.ln();
        // Prompt byte and first step; both steps; second step.
        let tokens = [(2, halves(0.5)), (2, halves(0.25)), (1, halves(1.0))];
        let got = step_likelihoods(&tokens, &steps, 4);
        assert!((got[0] - 0.125f64.sqrt()).abs() < 1e-12, "{got:?}");
        assert!((got[1] - 0.25f64.sqrt()).abs() < 1e-12, "{got:?}");
    }

    #[test]
    fn scores_are_those_of_the_base() {
        let base: Arc<dyn Engine> = Arc::new(Scripted::random("base", Arc::new(Pieces::letters("ab ")), 3));
        let models = Models::default().with(Seat::BASE, base.clone());
        let scorer = SCORER.build(&models, &Values::default()).unwrap();
        let prompt = Prompt::Raw("a ".into());
        let steps = ["ab".to_owned(), " b a".to_owned()];
        let got = block_on(scorer.score(&prompt, &steps)).unwrap();

        let rendered = base.codec().render(&prompt).unwrap();
        let list = base.codec().encode_after(&rendered, "ab b a").unwrap();
        let logprobs = block_on(async { base.open(&list).await.unwrap().score(rendered.tokens.len()).await }).unwrap();
        let mean = |part: &[f64]| (part.iter().sum::<f64>() / part.len() as f64).exp();
        assert_eq!(got, [mean(&logprobs[..2]), mean(&logprobs[2..])]);
    }
}
