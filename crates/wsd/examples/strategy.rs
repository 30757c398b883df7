//! A strategy of one's own: the draft writes a fixed number of tokens, the base writes the rest.
//!
//! ```sh
//! cargo run --release -p wsd --example strategy
//! ```
//!
//! It is declared like those of the table `RECIPES`: needs, settings and a maker in a `Recipe`, the
//! method in a `Strategy`. In the crate's own table it would also be a command-line option.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use wsd_core::{
    Answer, ChatRole, Engine, FinishReason, Flow, Generation, Job, Message, Models, Need, Prompt, Recipe, Seat,
    Session, Setting, Stop, Strategy, Terms, TokenRecord, Trace, Values, run,
};

static OPENING_TOKENS: Setting =
    Setting::integer("opening_tokens", "Tokens that the draft writes", 1..=4096).with_default_integer(12);

static RECIPE: Recipe = Recipe {
    name: "opening",
    title: "fixed opening",
    about: "the draft writes a fixed number of tokens, the base the rest",
    needs: &[Need::any(Seat::DRAFT).in_vocabulary_of(Seat::BASE), Need::any(Seat::BASE)],
    settings: &[&OPENING_TOKENS],
    make,
};

fn make(models: &Models, values: &Values) -> wsd_core::Result<Arc<dyn Strategy>> {
    let draft = models.require(RECIPE.name, Seat::DRAFT)?;
    let base = models.require(RECIPE.name, Seat::BASE)?;
    Ok(Arc::new(Opening { draft, base, tokens: values.get(&OPENING_TOKENS) }))
}

struct Opening {
    draft: Arc<dyn Engine>,
    base: Arc<dyn Engine>,
    tokens: usize,
}

#[async_trait]
impl Strategy for Opening {
    fn output_engine(&self) -> &Arc<dyn Engine> {
        &self.base
    }

    async fn decode(&self, job: &Job, answer: &mut Answer) -> wsd_core::Result<FinishReason> {
        // Each model reads the prompt in its own form; both write tokens of one vocabulary.
        let prompt = self.base.codec().render(&job.prompt)?;
        let draft_prompt = self.draft.codec().render(&job.prompt)?;
        answer.prompt(prompt.tokens.len()).await;
        answer.begin(self.base.codec(), &prompt.tokens, 0);
        let mut draft = self.draft.open(&draft_prompt.tokens).await?;
        let mut base = self.base.open(&prompt.tokens).await?;

        let opening = self.tokens.min(answer.remaining());
        if let Some(reason) = write(draft.as_mut(), Seat::DRAFT, job, opening, answer).await? {
            return Ok(reason);
        }
        base.append(&draft.tokens()[draft_prompt.tokens.len()..]);
        let rest = answer.remaining();
        Ok(write(base.as_mut(), Seat::BASE, job, rest, answer).await?.unwrap_or(FinishReason::Length))
    }
}

/// Lets a model write up to a number of tokens. Returns the reason if the answer ended.
async fn write(
    session: &mut dyn Session,
    seat: Seat,
    job: &Job,
    max_tokens: usize,
    answer: &mut Answer,
) -> wsd_core::Result<Option<FinishReason>> {
    // Penalties then count the whole list: this strategy does not tell them where the answer begins.
    let sampling = job.terms.sampling.for_seat(seat, 0);
    let generation = Generation { max_tokens, sampling, top_logprobs: 0, guide: None };
    let written = session.write(&generation).await?;
    for sampled in written.tokens {
        if let Flow::Done(reason) = answer.token(TokenRecord::new(sampled, seat)).await? {
            return Ok(Some(reason));
        }
    }
    Ok((written.stop == Stop::End).then_some(FinishReason::Stop))
}

#[tokio::main]
async fn main() -> Result<()> {
    let models = wsd::models::builtin_pair()?;
    let prompt = Prompt::Chat(vec![Message::new(ChatRole::User, "Where does the bread come from?")]);
    let job = Job { prompt, terms: Terms { max_tokens: 60, ..Terms::default() } };
    for tokens in [1_usize, 9, 60] {
        let values = Values::default().with(&OPENING_TOKENS, tokens)?;
        let answer = Trace::collect(run(RECIPE.build(&models, &values)?, job.clone())).await?;
        let by = |seat| answer.tokens.iter().filter(|token| token.by == seat).map(|token| &*token.text).collect();
        let (opening, rest): (String, String) = (by(Seat::DRAFT), by(Seat::BASE));
        println!("{tokens:>2} tokens: {opening} |{rest}");
    }
    Ok(())
}
