//! Strategies: small loops over sessions, and the table they are listed in.

use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use futures::channel::mpsc;
use futures::stream::{self, BoxStream};
use futures::{SinkExt as _, StreamExt as _};

use crate::strategies::{alone, nudging, speculative, wsd};
use crate::{Answer, Bridge, Caps, Engine, Error, Event, FinishReason, Prompt, Result, Role, Rule, Sampling, Stops};

/// The models at hand.
#[derive(Clone, Default)]
pub struct Models {
    /// The large model.
    pub base: Option<Arc<dyn Engine>>,
    /// The small aligned model.
    pub draft: Option<Arc<dyn Engine>>,
}

impl Models {
    /// The model of a role.
    #[must_use]
    pub fn get(&self, role: Role) -> Option<&Arc<dyn Engine>> {
        match role {
            Role::Base => self.base.as_ref(),
            Role::Draft => self.draft.as_ref(),
        }
    }
}

/// What follows when the draft ends, or has written all it may, and the window never passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDraftEnd {
    /// The base goes on after the whole draft: the paper's rule.
    #[default]
    Continue,
    /// The draft is the answer.
    Stop,
}

impl FromStr for OnDraftEnd {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "continue" => Ok(Self::Continue),
            "stop" => Ok(Self::Stop),
            _ => {
                Err(Error::Setting { name: "on_draft_end", limit: "`continue` or `stop`", value: format!("`{text}`") })
            }
        }
    }
}

/// How a strategy works; each takes what it needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// The switch rule.
    pub rule: Rule,
    /// At most this many tokens are drafted.
    pub max_draft_tokens: usize,
    /// Tokens drafted between two scorings; as measured costs have it where absent.
    pub chunk_tokens: Option<usize>,
    /// What follows a draft that never convinced the base.
    pub on_draft_end: OnDraftEnd,
    /// Once the base writes, let the draft write ahead of it where their vocabularies are one: faster, token for token the same.
    pub speculate: bool,
    /// The base writes where its likeliest token has at least this probability (nudging).
    pub nudge_threshold: f64,
}

impl Default for Options {
    /// The papers' values; the chunk length changes no token, only the cost.
    fn default() -> Self {
        Self {
            rule: Rule::default(),
            max_draft_tokens: 512,
            chunk_tokens: None,
            on_draft_end: OnDraftEnd::Continue,
            speculate: true,
            nudge_threshold: 0.4,
        }
    }
}

impl Options {
    /// Check the values against their limits.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(self) -> Result<Self> {
        for (name, value) in [("max_draft_tokens", Some(self.max_draft_tokens)), ("chunk_tokens", self.chunk_tokens)] {
            if value == Some(0) {
                return Err(Error::Setting { name, limit: "at least 1", value: "0".into() });
            }
        }
        if !(0.0..=1.0).contains(&self.nudge_threshold) {
            let value = self.nudge_threshold.to_string();
            return Err(Error::Setting { name: "nudge_threshold", limit: "from 0 to 1", value });
        }
        Ok(self)
    }
}

/// One request: continue this prompt.
#[derive(Clone, Debug)]
pub struct Job {
    /// What to continue.
    pub prompt: Prompt,
    /// At most this many tokens in the answer.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Strings that end the answer, besides those the prompt's form calls for.
    pub stop: Vec<String>,
    /// How many of the likeliest tokens to name at each position of the answer.
    pub top_logprobs: usize,
}

/// A way to answer with the models at hand.
#[async_trait]
pub trait Strategy: Send + Sync {
    /// The model whose tokens the answer is made of.
    fn speaker(&self) -> &Arc<dyn Engine>;

    /// Write the answer to a job. Dropping the future ends it and frees all it held.
    ///
    /// # Errors
    /// Those of the engines, and of rendering the prompt.
    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason>;
}

/// An entry of the table of strategies.
pub struct Recipe {
    /// The name users call it by.
    pub name: &'static str,
    /// One line for the help.
    pub about: &'static str,
    /// The models it needs, and what each must be able to do.
    pub needs: &'static [(Role, Caps)],
    /// The options that its text depends on, by the names that command line and server have for them.
    pub uses: &'static [&'static str],
    /// The models must have one vocabulary.
    pub one_vocabulary: bool,
    /// Makes the strategy of models that satisfy `needs`.
    make: fn(Parts) -> Arc<dyn Strategy>,
}

/// What a recipe's maker is given: models that satisfy its needs, in the order of `needs`.
pub(crate) struct Parts {
    pub(crate) engines: Vec<Arc<dyn Engine>>,
    pub(crate) options: Options,
}

const PLAIN: Caps = Caps { score: false, logits: false };
const SCORE: Caps = Caps { score: true, logits: false };
const ROWS: Caps = Caps { score: false, logits: true };

/// Every strategy. Command line, server, help and conformance tests derive from this table.
pub static RECIPES: &[Recipe] = &[
    Recipe {
        name: "wsd",
        about: "the draft opens the answer, the base takes over once it is confident",
        needs: &[(Role::Draft, PLAIN), (Role::Base, SCORE)],
        uses: &["window", "threshold", "max_draft_tokens", "on_draft_end"],
        one_vocabulary: false,
        make: wsd::make,
    },
    Recipe {
        name: "base",
        about: "the base model alone",
        needs: &[(Role::Base, PLAIN)],
        uses: &[],
        one_vocabulary: false,
        make: alone::base,
    },
    Recipe {
        name: "draft",
        about: "the draft model alone",
        needs: &[(Role::Draft, PLAIN)],
        uses: &[],
        one_vocabulary: false,
        make: alone::draft,
    },
    Recipe {
        name: "nudging",
        about: "the draft writes the next words wherever the base is unsure (arXiv 2410.09300)",
        needs: &[(Role::Draft, PLAIN), (Role::Base, SCORE)],
        uses: &["nudge_threshold"],
        one_vocabulary: false,
        make: nudging::make,
    },
    Recipe {
        name: "speculative",
        about: "the base model alone, token for token, with the draft writing ahead of it",
        needs: &[(Role::Draft, PLAIN), (Role::Base, ROWS)],
        uses: &[],
        one_vocabulary: true,
        make: speculative::make,
    },
];

impl Recipe {
    /// The recipe of this name.
    ///
    /// # Errors
    /// [`Error::UnknownStrategy`], with the names there are.
    pub fn find(name: &str) -> Result<&'static Self> {
        RECIPES.iter().find(|recipe| recipe.name == name).ok_or_else(|| Error::UnknownStrategy {
            name: name.to_owned(),
            known: RECIPES.iter().map(|recipe| recipe.name).collect::<Vec<_>>().join(", "),
        })
    }

    /// Build the strategy, or refuse now what could not work in a request.
    ///
    /// # Errors
    /// [`Error::MissingModel`], [`Error::Unsupported`], [`Error::Setting`].
    pub fn build(&self, models: &Models, options: Options) -> Result<Arc<dyn Strategy>> {
        let options = options.check()?;
        let mut engines = Vec::new();
        for &(role, need) in self.needs {
            let engine = models.get(role).ok_or(Error::MissingModel { strategy: self.name, role })?;
            let caps = engine.card().caps;
            for (wanted, has, what) in [
                (need.score, caps.score, "log-probabilities of given tokens"),
                (need.logits, caps.logits, "whole rows of logits"),
            ] {
                if wanted && !has {
                    let engine = engine.card().name.clone();
                    return Err(Error::Unsupported { strategy: self.name, engine, need: what });
                }
            }
            engines.push(engine.clone());
        }
        if let [draft, base] = &engines[..]
            && self.one_vocabulary
            && !Bridge::passes_ids(draft.codec(), base.codec())
        {
            let engine = draft.card().name.clone();
            return Err(Error::Unsupported { strategy: self.name, engine, need: "the base's vocabulary" });
        }
        Ok((self.make)(Parts { engines, options }))
    }
}

/// Run a job: the stream yields events as they are certain, the last of them [`Event::Done`], or one error at its end.
/// Nothing runs unless the stream is read; dropping it ends the job and frees all it held.
pub fn run(strategy: Arc<dyn Strategy>, job: Job) -> BoxStream<'static, Result<Event>> {
    let (mut sender, events) = mpsc::channel(16);
    let work = async move {
        let stops = strategy.speaker().codec().default_stops(&job.prompt).iter().map(|&stop| stop.to_owned());
        let mut answer = Answer::new(sender.clone(), Stops::new(stops.chain(job.stop.clone())), job.max_tokens);
        let result = async {
            job.sampling.check()?;
            if job.max_tokens == 0 {
                return Err(Error::Setting { name: "max_tokens", limit: "at least 1", value: "0".into() });
            }
            strategy.decode(&job, &mut answer).await
        };
        match result.await {
            Ok(reason) => answer.finish(reason).await,
            Err(error) => drop(sender.send(Err(error)).await),
        }
    };
    stream::select(events, stream::once(work).filter_map(async |()| None)).boxed()
}
