//! A judge: a chat model that is asked whether a step is right, here or on another machine.
//!
//! The rating is `p(yes) / (p(yes) + p(no))`, with the probabilities of both replies.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Rating, Ratings, StepScorer, problem};
use crate::{Caps, ChatRole, Engine, Error, Message, Need, Prompt, Recipe, Result, Seat, Session, common_prefix};

pub(super) const NAME: &str = "judge";
pub(super) const ABOUT: &str = "a chat model in the seat judge, which is asked whether the step is right";

pub(super) static SCORER: Recipe<dyn StepScorer> = Recipe {
    name: NAME,
    title: NAME,
    about: ABOUT,
    needs: &[Need::with(Seat::JUDGE, Caps { score: true, ..Caps::GENERATE })],
    settings: &[],
    make: |models, _| Ok(Arc::new(Judge { judge: models.require(NAME, Seat::JUDGE)? })),
};

/// The replies, the good one first.
const REPLIES: [&str; 2] = ["yes", "no"];

struct Judge {
    judge: Arc<dyn Engine>,
}

#[async_trait]
impl StepScorer for Judge {
    async fn open(&self, prompt: &Prompt) -> Result<Box<dyn Rating>> {
        Ok(Box::new(Asking { judge: self.judge.clone(), problem: problem(prompt)?, session: None }))
    }
}

/// The questions about one answer.
struct Asking {
    judge: Arc<dyn Engine>,
    problem: String,
    session: Option<Box<dyn Session>>,
}

impl Asking {
    /// The question about the last of `steps`.
    fn question(&self, steps: &[String]) -> Prompt {
        let (step, before) = steps.split_last().map_or(("", &[][..]), |(step, before)| (step.as_str(), before));
        let text = format!(
            "question:\n{}\n\nanswer so far:\n{}\n\nnext step:\n{}\n\nis the next step right, honest and harmless? \
             reply with one word: {} or {}",
            self.problem,
            before.concat().trim(),
            step.trim(),
            REPLIES[0],
            REPLIES[1]
        );
        Prompt::Chat(vec![Message::new(ChatRole::User, text)])
    }

    /// The log-probabilities of both replies, and the number of tokens read.
    async fn replies(&mut self, steps: &[String]) -> Result<([f64; 2], usize)> {
        let codec = self.judge.codec();
        let question = codec.render(&self.question(steps))?;
        let (mut logprobs, mut read) = ([0.0; 2], 0);
        for (reply, logprob) in REPLIES.into_iter().zip(&mut logprobs) {
            let list = codec.encode_after(&question, reply)?;
            let (card, from) = (self.judge.card(), common_prefix(&question.tokens, &list).max(1));
            if list.len() > card.max_len {
                return Err(Error::PromptTooLong {
                    engine: card.name.clone(),
                    tokens: list.len(),
                    limit: card.max_len,
                });
            }
            let session = match &mut self.session {
                Some(session) => session,
                None => self.session.insert(self.judge.open(&[]).await?),
            };
            let common = common_prefix(session.tokens(), &list);
            session.truncate(common);
            session.append(&list[common..]);
            *logprob = session.score(from).await?.iter().sum();
            read += list.len() - common;
        }
        Ok((logprobs, read))
    }
}

#[async_trait]
impl Rating for Asking {
    async fn rate(&mut self, steps: &[String], from: usize) -> Result<Ratings> {
        let mut ratings = Ratings::default();
        for count in from + 1..=steps.len() {
            let ([yes, no], read) = self.replies(&steps[..count]).await?;
            ratings.values.push(1.0 / (1.0 + (no - yes).exp()));
            ratings.tokens += read;
        }
        Ok(ratings)
    }
}
