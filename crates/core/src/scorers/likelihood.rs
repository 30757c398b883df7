//! The likelihood of a step: the geometric mean of the base's probabilities of its tokens.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Rating, Ratings, StepScorer};
use crate::{Caps, Engine, Error, Need, Prompt, Recipe, Rendered, Result, Seat, Session, common_prefix};

pub(super) const NAME: &str = "likelihood";
pub(super) const ABOUT: &str = "the geometric mean of the base's probabilities of a step's tokens";

pub(super) static SCORER: Recipe<dyn StepScorer> = Recipe {
    name: NAME,
    title: NAME,
    about: ABOUT,
    needs: &[Need::with(Seat::BASE, Caps { score: true, ..Caps::GENERATE })],
    settings: &[],
    make: |models, _| Ok(Arc::new(Likelihood { base: models.require(NAME, Seat::BASE)? })),
};

struct Likelihood {
    base: Arc<dyn Engine>,
}

#[async_trait]
impl StepScorer for Likelihood {
    async fn open(&self, prompt: &Prompt) -> Result<Box<dyn Rating>> {
        let prompt = self.base.codec().render(prompt)?;
        let session = self.base.open(&prompt.tokens).await?;
        Ok(Box::new(Reading { base: self.base.clone(), prompt, session }))
    }
}

/// The base's session, which holds the prompt and the steps rated last.
struct Reading {
    base: Arc<dyn Engine>,
    prompt: Rendered,
    session: Box<dyn Session>,
}

#[async_trait]
impl Rating for Reading {
    async fn rate(&mut self, steps: &[String], from: usize) -> Result<Ratings> {
        let (card, codec) = (self.base.card(), self.base.codec());
        let list = codec.encode_after(&self.prompt, &steps.concat())?;
        if list.len() > card.max_len {
            return Err(Error::PromptTooLong { engine: card.name.clone(), tokens: list.len(), limit: card.max_len });
        }
        // The first token of a list has no context, so it has no probability.
        let start = common_prefix(&self.prompt.tokens, &list).max(1);
        let mut detokenizer = codec.detokenizer(list.get(..start).unwrap_or(&list));
        let mut lengths = Vec::new();
        for &token in list.iter().skip(start) {
            lengths.push(detokenizer.push(token)?.len());
        }
        // The tokens of the steps to be rated are the last ones: those before spell nothing of them.
        let rated: usize = steps[from..].iter().map(String::len).sum();
        let (mut first, mut spelled) = (lengths.len(), 0);
        while first > 0 && spelled < rated {
            first -= 1;
            spelled += lengths[first];
        }
        if lengths.len() == first {
            return Ok(Ratings { values: vec![0.0; steps.len() - from], tokens: 0 });
        }
        let common = common_prefix(self.session.tokens(), &list);
        self.session.truncate(common);
        self.session.append(&list[common..]);
        let logprobs = self.session.score(start + first).await?;
        let tokens: Vec<_> = lengths.split_off(first).into_iter().zip(logprobs).collect();
        Ok(Ratings { values: step_likelihoods(&tokens, &steps[from..], rated), tokens: tokens.len() })
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
        let later = block_on(async { scorer.open(&prompt).await.unwrap().rate(&steps, 1).await }).unwrap();
        assert_eq!((later.values, later.tokens), (got[1..].to_vec(), 4));

        let rendered = base.codec().render(&prompt).unwrap();
        let list = base.codec().encode_after(&rendered, "ab b a").unwrap();
        let logprobs = block_on(async { base.open(&list).await.unwrap().score(rendered.tokens.len()).await }).unwrap();
        let mean = |part: &[f64]| (part.iter().sum::<f64>() / part.len() as f64).exp();
        assert_eq!(got, [mean(&logprobs[..2]), mean(&logprobs[2..])]);
    }
}
