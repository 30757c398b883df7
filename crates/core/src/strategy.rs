//! Strategies: small loops over sessions that write an answer.

use std::sync::Arc;

use async_trait::async_trait;
use futures::channel::mpsc;
use futures::stream::{self, BoxStream};
use futures::{SinkExt as _, StreamExt as _};

use crate::{
    Answer, Bridge, Caps, Engine, Error, Event, FinishReason, Job, Models, Result, Seat, Setting, Stops, Values,
};

/// A decoding strategy over one or several models.
///
/// This one writes one token greedily and ends.
///
/// ```
/// use std::sync::Arc;
/// use wsd_core::scripted::{Pieces, Scripted};
/// use wsd_core::{
///     Answer, Engine, FinishReason, Generation, Job, Prompt, Result, Sampling, Seat, Strategy, Terms, TokenRecord,
///     Trace, run,
/// };
///
/// struct OneToken(Arc<dyn Engine>);
///
/// #[async_trait::async_trait]
/// impl Strategy for OneToken {
///     fn output_engine(&self) -> &Arc<dyn Engine> {
///         &self.0
///     }
///
///     async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
///         let prompt = self.0.codec().render(&job.prompt)?;
///         answer.begin(self.0.codec(), &prompt.tokens, 0);
///         let mut session = self.0.open(&prompt.tokens).await?;
///         let generation = Generation { max_tokens: 1, sampling: Sampling::default(), top_logprobs: 0, guide: None };
///         for sampled in session.write(&generation).await?.tokens {
///             let _ = answer.token(TokenRecord::new(sampled, Seat::BASE)).await?;
///         }
///         Ok(FinishReason::Length)
///     }
/// }
///
/// let engine = Arc::new(Scripted::random("demo", Arc::new(Pieces::letters("ab")), 1));
/// let job = Job { prompt: Prompt::Raw("ab".into()), terms: Terms::default() };
/// let events = run(Arc::new(OneToken(engine)), job);
/// assert_eq!(futures::executor::block_on(Trace::collect(events))?.tokens.len(), 1);
/// # Ok::<(), wsd_core::Error>(())
/// ```
#[async_trait]
pub trait Strategy: Send + Sync {
    /// Returns the engine whose vocabulary the answer's tokens belong to.
    fn output_engine(&self) -> &Arc<dyn Engine>;

    /// Tells whether the strategy writes under a grammar. False by default.
    fn follows_grammars(&self) -> bool {
        false
    }

    /// Writes the answer to a job. Dropping the future stops it and frees its sessions.
    ///
    /// # Errors
    /// Those of the engines and of [`crate::TextCodec::render`].
    async fn decode(&self, job: &Job, answer: &mut Answer) -> Result<FinishReason>;
}

/// A seat that a strategy needs filled.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// The seat.
    pub seat: Seat,
    /// The abilities that the model in it must have.
    pub caps: Caps,
    /// The seat whose vocabulary it must share, if any.
    pub same_vocabulary_as: Option<Seat>,
    /// Tells whether the strategy, with these settings, cannot do without a model in the seat.
    pub is_required: fn(&Values) -> bool,
}

impl Need {
    /// A need for any model that generates.
    #[must_use]
    pub const fn any(seat: Seat) -> Self {
        Self::with(seat, Caps::GENERATE)
    }

    /// A need for a model with certain abilities.
    #[must_use]
    pub const fn with(seat: Seat, caps: Caps) -> Self {
        Self { seat, caps, same_vocabulary_as: None, is_required: |_| true }
    }

    /// The same need, of a model that shares the vocabulary of the one in `seat`.
    #[must_use]
    pub const fn in_vocabulary_of(mut self, seat: Seat) -> Self {
        self.same_vocabulary_as = Some(seat);
        self
    }

    /// The same need, of a strategy that can do without.
    #[must_use]
    pub const fn optional(self) -> Self {
        self.required_if(|_| false)
    }

    /// The same need, of a strategy that can do without unless `is_required` holds for its settings.
    #[must_use]
    pub const fn required_if(mut self, is_required: fn(&Values) -> bool) -> Self {
        self.is_required = is_required;
        self
    }

    /// Finds the models for the seat and checks what they can do.
    ///
    /// # Errors
    /// [`Error::MissingModel`], [`Error::Unsupported`].
    pub(crate) fn check(&self, strategy: &'static str, models: &Models, values: &Values) -> Result<()> {
        if (self.is_required)(values) {
            models.require(strategy, self.seat)?;
        }
        models.all(self.seat).iter().try_for_each(|engine| self.check_engine(strategy, engine.as_ref(), models))
    }

    fn check_engine(&self, strategy: &'static str, engine: &dyn Engine, models: &Models) -> Result<()> {
        let name = || engine.card().name.clone();
        if let Some(lacking) = self.caps.lacking(engine.card().caps) {
            return Err(Error::Unsupported { strategy, engine: name(), need: lacking.to_owned(), hint: "" });
        }
        match self.same_vocabulary_as {
            Some(seat) if !Bridge::passes_ids(engine.codec(), models.require(strategy, seat)?.codec()) => {
                Err(Error::other_vocabulary(strategy, name(), seat))
            }
            _ => Ok(()),
        }
    }
}

/// A table entry that builds something from models: strategies ([`crate::RECIPES`]) and step
/// scorers ([`crate::SCORERS`]).
pub struct Recipe<T: ?Sized = dyn Strategy> {
    /// The name users call it by.
    pub name: &'static str,
    /// The heading above the answers.
    pub title: &'static str,
    /// One line for the help.
    pub about: &'static str,
    /// The seats that must be filled.
    pub needs: &'static [Need],
    /// The settings that the strategy reads.
    pub settings: &'static [&'static Setting],
    /// Makes it of models that satisfy `needs`.
    pub make: fn(&Models, &Values) -> Result<Arc<T>>,
}

impl<T: ?Sized> Recipe<T> {
    /// Builds the strategy or scorer. Checks everything that could fail later in a request.
    ///
    /// # Errors
    /// [`Error::MissingModel`], [`Error::Unsupported`], [`Error::Setting`].
    pub fn build(&self, models: &Models, values: &Values) -> Result<Arc<T>> {
        self.needs.iter().try_for_each(|need| need.check(self.name, models, values))?;
        (self.make)(models, values)
    }

    /// Finds an entry of a table by its name; `kind` is the word for its entries in the message.
    pub(crate) fn find_in(table: &'static [&'static Self], kind: &'static str, name: &str) -> Result<&'static Self> {
        table.iter().copied().find(|recipe| recipe.name == name).ok_or_else(|| Error::UnknownRecipe {
            kind,
            name: name.to_owned(),
            known: crate::known_names(name, table.iter().map(|recipe| recipe.name)),
        })
    }

    /// Tells whether one model answers by itself, with nothing to help it.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        matches!(self.needs, [need] if need.caps == Caps::GENERATE)
    }

    /// Tells whether no other model than one takes part, so that there is one vocabulary.
    #[must_use]
    pub fn has_one_model(&self) -> bool {
        self.needs.len() == 1
    }
}

/// Runs a job. The stream yields events as soon as they are final; the last item is [`Event::Done`]
/// or an error. Nothing runs unless the stream is polled; dropping it stops the job and frees its
/// sessions.
///
/// ```
/// use std::sync::Arc;
/// use futures::TryStreamExt as _;
/// use wsd_core::scripted::{Pieces, Scripted};
/// use wsd_core::{Event, Job, Models, Prompt, Recipe, Seat, Terms, Values, run};
///
/// # futures::executor::block_on(async {
/// let pieces = Arc::new(Pieces::letters("abc "));
/// let models = Models::default().with(Seat::BASE, Arc::new(Scripted::random("base", pieces, 1)));
/// let strategy = Recipe::find("base")?.build(&models, &Values::default())?;
/// let job = Job { prompt: Prompt::Raw("ab".into()), terms: Terms { max_tokens: 8, ..Terms::default() } };
/// let mut events = run(strategy, job);
/// let mut text = String::new();
/// while let Some(event) = events.try_next().await? {
///     if let Event::Token(token) = event {
///         text += &token.text;
///     }
/// }
/// assert_eq!(text.len(), 8);
/// # Ok::<(), wsd_core::Error>(()) }).unwrap();
/// ```
pub fn run(strategy: Arc<dyn Strategy>, job: Job) -> BoxStream<'static, Result<Event>> {
    let (mut sender, events) = mpsc::channel(16);
    let work = async move {
        let own_stops = strategy.output_engine().codec().default_stops(&job.prompt);
        let own_stops = if job.terms.grammar.is_some() { &[] } else { own_stops };
        let stops = own_stops.iter().map(|&stop| stop.to_owned()).chain(job.terms.stop.clone());
        let mut answer = Answer::new(sender.clone(), Stops::new(stops), job.terms.max_tokens);
        let result = async {
            job.terms.check()?;
            if job.terms.grammar.is_some() && !strategy.follows_grammars() {
                return Err(Error::UnguidedStrategy);
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
