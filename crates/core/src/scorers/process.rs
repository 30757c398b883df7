//! Process rewards: a reward head on the last token of each step, in the form of Skywork-o1's models.
//!
//! The list is the problem and a line break, then each step without its white space at the end, followed by
//! one token: the last of those that spell a blank line. The rating is read at that token: the logistic
//! function of a head with one label, the probability of the last label of a head with several.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Rating, Ratings, StepScorer, problem};
use crate::{Caps, Engine, Error, Head, Heads, Need, Prompt, Recipe, Result, Seat, Session, Token, common_prefix};

pub(super) const NAME: &str = "process";
pub(super) const ABOUT: &str = "a process reward model in the seat judge: its reward head at the end of each step";

pub(super) static SCORER: Recipe<dyn StepScorer> = Recipe {
    name: NAME,
    title: NAME,
    about: ABOUT,
    needs: &[Need::with(Seat::JUDGE, Caps { heads: Heads::NONE.with(Head::REWARD), ..Caps::GENERATE })],
    settings: &[],
    make: |models, _| Ok(Arc::new(Process { judge: models.require(NAME, Seat::JUDGE)? })),
};

struct Process {
    judge: Arc<dyn Engine>,
}

#[async_trait]
impl StepScorer for Process {
    async fn open(&self, prompt: &Prompt) -> Result<Box<dyn Rating>> {
        let codec = self.judge.codec();
        let prompt = codec.render(&Prompt::Raw(format!("{}\n", problem(prompt)?)))?.tokens;
        let flag = codec.tokenizer().encode("\n\n")?.last().copied().ok_or_else(|| Error::Tokenizer {
            name: self.judge.card().name.clone(),
            message: "a blank line has no token".into(),
        })?;
        let session = self.judge.open(&prompt).await?;
        Ok(Box::new(Reading { judge: self.judge.clone(), prompt, flag, session }))
    }
}

/// The judge's session, which holds the problem and the steps rated last.
struct Reading {
    judge: Arc<dyn Engine>,
    prompt: Vec<Token>,
    /// The token that closes each step.
    flag: Token,
    session: Box<dyn Session>,
}

#[async_trait]
impl Rating for Reading {
    async fn rate(&mut self, steps: &[String], from: usize) -> Result<Ratings> {
        let (mut list, mut ends) = (self.prompt.clone(), Vec::new());
        for step in steps {
            list.extend(self.judge.codec().tokenizer().encode(step.trim_end())?);
            list.push(self.flag);
            ends.push(list.len());
        }
        let card = self.judge.card();
        if list.len() > card.max_len {
            return Err(Error::PromptTooLong { engine: card.name.clone(), tokens: list.len(), limit: card.max_len });
        }
        let Some(&first) = ends.get(from) else { return Ok(Ratings::default()) };
        let common = common_prefix(self.session.tokens(), &list);
        self.session.truncate(common);
        self.session.append(&list[common..]);
        let outputs = self.session.rewards(first).await?;
        let values = ends[from..].iter().map(|end| outputs.get(end - first).map_or(0.0, |labels| rating(labels)));
        Ok(Ratings { values: values.collect(), tokens: list.len() - common })
    }
}

/// The rating that a head's outputs stand for.
fn rating(labels: &[f32]) -> f64 {
    let exp = |x: f32| (f64::from(x) - labels.iter().copied().map(f64::from).fold(f64::NEG_INFINITY, f64::max)).exp();
    match labels {
        [] => 0.0,
        [reward] => 1.0 / (1.0 + (-f64::from(*reward)).exp()),
        [.., last] => exp(*last) / labels.iter().copied().map(exp).sum::<f64>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{Pieces, Scripted};
    use crate::{Models, Values};
    use futures::executor::block_on;

    #[test]
    fn a_rating_is_read_behind_each_step() {
        let pieces = Arc::new(Pieces::letters("ab\n"));
        // The reward is the length of the list, if it ends with a line break.
        let judge = Scripted::random("judge", pieces, 1).with_head(Head::REWARD, |tokens| {
            vec![if tokens.last() == Some(&4) { tokens.len() as f32 / 10.0 } else { -9.0 }]
        });
        let models = Models::default().with(Seat::JUDGE, Arc::new(judge));
        let scorer = SCORER.build(&models, &Values::default()).unwrap();
        let steps = ["ab\n\n".to_owned(), "b".to_owned()];
        let got = block_on(scorer.score(&Prompt::Raw("a".into()), &steps)).unwrap();
        // <s> a \n | a b \n | b \n
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        assert!(got.iter().zip([0.6, 0.8]).all(|(got, want)| (got - logistic(want)).abs() < 1e-6), "{got:?}");
        assert!((rating(&[1.0, 1.0]) - 0.5).abs() < 1e-12 && rating(&[]) == 0.0);
    }
}
