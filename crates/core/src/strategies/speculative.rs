//! Speculative decoding: the base's own answer, with smaller models and text at hand proposing tokens
//! ahead of it.
//!
//! `speculative` has at most one smaller model, `routed` a chain of any number of them; two models are
//! its smallest case. SpecRouter (arXiv 2505.07680) names the idea of `routed`; its recursion over
//! measured costs and acceptances is a reconstruction, because the paper's is not public.

use std::sync::Arc;

use async_trait::async_trait;

use crate::speculation::{Level, Rest, SPECULATE, Sources, Speculation};
use crate::steps::{begin, write_to_end};
use crate::{
    Answer, Bridge, Caps, Engine, Error, FinishReason, Job, Models, Need, Recipe, Result, Seat, Strategy, Values,
};

pub(super) static SPECULATIVE: Recipe = Recipe {
    name: "speculative",
    title: "speculative",
    about: "the base model alone, token for token, with the draft and text at hand writing ahead of it",
    needs: &[Need::with(Seat::BASE, Caps { choices: true, ..Caps::GENERATE }), Need::any(Seat::DRAFT).optional()],
    settings: &[&SPECULATE],
    make: |models, values| make("speculative", models, values),
};

pub(super) static ROUTED: Recipe = Recipe {
    name: "routed",
    title: "routed",
    about: "the base model alone, token for token, with a chain of smaller models writing ahead of it (SpecRouter)",
    needs: &[
        Need::with(Seat::BASE, Caps { choices: true, ..Caps::GENERATE }),
        Need::any(Seat::DRAFT).in_vocabulary_of(Seat::BASE).optional(),
        Need::with(Seat::MIDDLE, Caps { choices: true, ..Caps::GENERATE }).in_vocabulary_of(Seat::BASE).optional(),
    ],
    settings: &[&SPECULATE],
    make: |models, values| make("routed", models, values),
};

/// A base and the smaller models that propose to it.
struct Speculative {
    base: Arc<dyn Engine>,
    /// The smaller models in order of size.
    smaller: Vec<(Seat, Arc<dyn Engine>)>,
    sources: Sources,
}

fn make(strategy: &'static str, models: &Models, values: &Values) -> Result<Arc<dyn Strategy>> {
    let (base, sources) = (models.require(strategy, Seat::BASE)?, Sources::from_values(values));
    let middle = models.all(Seat::MIDDLE).iter().filter(|_| strategy == ROUTED.name);
    let draft = models.get(Seat::DRAFT).into_iter().map(|engine| (Seat::DRAFT, engine));
    let smaller: Vec<_> = draft.chain(middle.map(|engine| (Seat::MIDDLE, engine))).collect();
    // Without a choice of sources a draft of another vocabulary, which may be the default one, is left
    // out.
    let can_propose = |engine: &dyn Engine| Bridge::passes_ids(engine.codec(), base.codec());
    if values.get::<&str>(&SPECULATE) == "draft"
        && let Some((_, engine)) = smaller.iter().find(|(_, engine)| !can_propose(engine.as_ref()))
    {
        return Err(Error::other_vocabulary(strategy, engine.card().name.clone(), Seat::BASE));
    }
    let smaller = smaller.into_iter().filter(|(_, engine)| sources.models && can_propose(engine.as_ref()));
    let smaller: Vec<_> = smaller.map(|(seat, engine)| (seat, engine.clone())).collect();
    check_order(strategy, smaller.iter().map(|(_, engine)| engine).chain([&base]))?;
    Ok(Arc::new(Speculative { base, smaller, sources }))
}

/// Refuses a chain in which a model has more weights than the one it proposes to.
fn check_order<'a>(strategy: &'static str, chain: impl Iterator<Item = &'a Arc<dyn Engine>>) -> Result<()> {
    let known: Vec<_> = chain.filter_map(|engine| Some((engine.weights()?, engine.card()))).collect();
    match known.array_windows().find(|[(one, _), (next, _)]| one > next) {
        Some([(one, smaller), (next, larger)]) => Err(Error::ChainOrder {
            strategy,
            smaller: smaller.name.clone(),
            larger: larger.name.clone(),
            weights: [*one, *next],
        }),
        None => Ok(()),
    }
}

#[async_trait]
impl Strategy for Speculative {
    fn output_engine(&self) -> &Arc<dyn Engine> {
        &self.base
    }

    fn follows_grammars(&self) -> bool {
        true
    }

    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
        let (prompt, guide) = begin(self.base.as_ref(), job, answer).await?;
        let mut base = self.base.open(&prompt).await?;
        if self.sources.is_empty() {
            let reason = write_to_end(base.as_mut(), Seat::BASE, &job.terms, guide.as_ref(), answer).await?;
            answer.reused(base.reused_tokens()).await;
            return Ok(reason);
        }
        let mut levels = Vec::new();
        for (seat, engine) in self.smaller.iter().filter(|(_, engine)| prompt.len() < engine.card().max_len) {
            levels.push(Level::new(*seat, engine.as_ref(), engine.open(&prompt).await?, prompt.len(), 0));
        }
        levels.push(Level::new(Seat::BASE, self.base.as_ref(), base, prompt.len(), 0));
        let texts = self.sources.texts.then(Rest::default);
        Speculation::new(levels, &job.terms, texts).guided(guide.as_ref()).run(answer).await
    }
}
