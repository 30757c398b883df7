//! A way to answer with the models at hand.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use wsd::config::Partial;
use wsd_core::{Job, Models, Need, RECIPES, Recipe, STRATEGY, Seat, Setting, Trace, Values};

use crate::engine::{self, Engine};
use crate::error::raise;
use crate::runtime::wait;
use crate::settings::{named, of_answers, of_models, of_pairs, read};
use crate::stream::{self, Items, Stream};
use crate::{class, constraint, events, prompt};

/// A way to answer with the models at hand; `strategies()` lists them.
///
/// Models are given by seat (`base=...`, `draft=...`), each an `Engine` or a name, for `middle` also
/// a list of them; or by `pair=...`, a tested pair; without any, the built-in pair answers. Further
/// keyword arguments are the strategy's settings (`window`, `threshold`), settings of answers
/// (`max_tokens`, `temperature`), which are defaults for `generate`, and settings of the models that
/// are named here (`device`, `draft_dtype`, `threads`).
#[pyclass(module = "wsd", frozen)]
pub(crate) struct Strategy {
    recipe: &'static Recipe,
    inner: Arc<dyn wsd_core::Strategy>,
    models: Models,
    settings: Partial,
}

#[pymethods]
impl Strategy {
    #[new]
    #[pyo3(signature = (name = "wsd", **keywords))]
    fn new(py: Python<'_>, name: &str, keywords: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let recipe = Recipe::find(name).map_err(raise)?;
        let keywords = keywords.map_or_else(|| Ok(PyDict::new(py)), |it| it.copy())?;
        let given = given(&keywords)?;
        let needs = to_load(recipe, &given, has_pair(&keywords)?);
        let mut known = [named(recipe.settings.iter().copied()), of_answers(), of_pairs()].concat();
        if !needs.is_empty() {
            known.extend(of_models());
        }
        let mut settings = read(&known, Some(&keywords))?;
        // Sampling is taken from the files of the strategy's first model.
        settings.set_default(&STRATEGY, recipe.name).map_err(raise)?;
        check_seats(recipe, &settings.clone().resolve().map_err(raise)?.values, &given, &needs)?;
        let filled = given.iter().filter(|(seat, _)| needs.iter().any(|need| need.seat == *seat));
        let names: Vec<_> = filled.filter_map(|(seat, model)| Some((*seat, model.name()?))).collect();
        let loaded = engine::load(py, settings.clone(), &names, needs)?;
        let models = seated(&given, &loaded);
        let mut resolved = settings.clone().resolve().map_err(raise)?;
        resolved.adopt_sampling(&models);
        let inner = recipe.build(&models, &resolved.values).map_err(raise)?;
        Ok(Self { recipe, inner, models, settings })
    }

    /// The strategy's name.
    #[getter]
    fn name(&self) -> &'static str {
        self.recipe.name
    }

    /// The model in whose vocabulary answers are: the base, unless the draft answers alone.
    #[getter]
    fn engine(&self) -> Engine {
        Engine { inner: self.inner.output_engine().clone() }
    }

    fn __repr__(&self) -> String {
        format!("<wsd.Strategy {:?} over {:?}>", self.recipe.name, self.inner.output_engine().card().name)
    }

    /// Answers a prompt: a text, a list of messages, or a list of token ids.
    #[pyo3(signature = (prompt, *, top_logprobs = 0, **settings))]
    fn generate<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'_, PyAny>,
        top_logprobs: usize,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let job = self.job(prompt, top_logprobs, settings)?;
        let completion = wait(py, Trace::collect(stream::answer(self.inner.clone(), job)))?;
        events::answer(py, &completion.map_err(raise)?)
    }

    /// Answers a prompt and yields each token as soon as it is final.
    #[pyo3(signature = (prompt, *, top_logprobs = 0, **settings))]
    fn stream(
        &self,
        prompt: &Bound<'_, PyAny>,
        top_logprobs: usize,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Stream> {
        Ok(Stream::new(self.inner.clone(), self.job(prompt, top_logprobs, settings)?, Items::Tokens))
    }

    /// Answers a prompt and yields all events: tokens, the hand-over, calls of models, the end.
    #[pyo3(signature = (prompt, *, top_logprobs = 0, **settings))]
    fn events(
        &self,
        prompt: &Bound<'_, PyAny>,
        top_logprobs: usize,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Stream> {
        Ok(Stream::new(self.inner.clone(), self.job(prompt, top_logprobs, settings)?, Items::Events))
    }
}

impl Strategy {
    /// The request of a call; its settings take precedence over those of the strategy.
    fn job(
        &self,
        prompt: &Bound<'_, PyAny>,
        top_logprobs: usize,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Job> {
        let keywords = settings.map_or_else(|| Ok(PyDict::new(prompt.py())), |it| it.copy())?;
        let grammar = constraint::take(&keywords)?;
        let settings = read(&of_answers(), Some(&keywords))?.or(self.settings.clone());
        let mut settings = settings.resolve().map_err(raise)?;
        settings.adopt_sampling(&self.models);
        let mut job = settings.job(prompt::read(prompt, &settings.prompt)?);
        (job.terms.top_logprobs, job.terms.grammar) = (top_logprobs, grammar);
        Ok(job)
    }
}

/// A model as it is given.
enum Given {
    /// A model that is open.
    Open(Arc<dyn wsd_core::Engine>),
    /// A model to load.
    Named(String),
}

impl Given {
    fn read(model: &Bound<'_, PyAny>) -> PyResult<Self> {
        match model.cast::<Engine>() {
            Ok(engine) => Ok(Self::Open(engine.get().inner.clone())),
            Err(_) => Ok(Self::Named(text(model)?)),
        }
    }

    fn name(&self) -> Option<String> {
        match self {
            Self::Open(_) => None,
            Self::Named(name) => Some(name.clone()),
        }
    }
}

/// Takes the models out of the keyword arguments.
fn given(keywords: &Bound<'_, PyDict>) -> PyResult<Vec<(Seat, Given)>> {
    let mut given = Vec::new();
    for seat in Seat::all() {
        let Some(model) = keywords.get_item(seat.name())? else { continue };
        keywords.del_item(seat.name())?;
        let models = match model.cast::<PyList>() {
            Ok(list) => list.iter().collect(),
            Err(_) => vec![model],
        };
        for model in models.iter().filter(|model| !model.is_none()) {
            given.push((seat, Given::read(model)?));
        }
    }
    Ok(given)
}

fn has_pair(keywords: &Bound<'_, PyDict>) -> PyResult<bool> {
    Ok(keywords.get_item("pair")?.is_some_and(|pair| !pair.is_none()))
}

/// Returns the needs of the strategy whose models are to be loaded: those that are named, and where
/// there is a pair or no model at all, those of the pair.
fn to_load(recipe: &'static Recipe, given: &[(Seat, Given)], has_pair: bool) -> Vec<Need> {
    let is_given = |seat: Seat| given.iter().any(|(other, _)| *other == seat);
    let is_named = |seat: Seat| given.iter().any(|(other, model)| *other == seat && model.name().is_some());
    let takes_pair = has_pair || given.is_empty();
    let of_pair = |seat: Seat| takes_pair && !is_given(seat) && [Seat::DRAFT, Seat::BASE].contains(&seat);
    recipe.needs.iter().filter(|need| is_named(need.seat) || of_pair(need.seat)).copied().collect()
}

/// Checks that each seat which these settings need is given or will be loaded.
fn check_seats(recipe: &Recipe, values: &Values, given: &[(Seat, Given)], to_load: &[Need]) -> PyResult<()> {
    let is_there = |seat| given.iter().any(|(other, _)| *other == seat) || to_load.iter().any(|need| need.seat == seat);
    let Some(need) = recipe.needs.iter().find(|need| (need.is_required)(values) && !is_there(need.seat)) else {
        return Ok(());
    };
    Err(PyValueError::new_err(format!(
        "`{}` needs a {seat} model\n  hint: give one with {seat}=MODEL, or none for the built-in pair",
        recipe.name,
        seat = need.seat,
    )))
}

/// Puts the models that were open and those that were loaded together, each seat's in their order.
fn seated(given: &[(Seat, Given)], loaded: &Models) -> Models {
    let mut models = Models::default();
    for seat in Seat::all() {
        let mut rest = loaded.all(seat).iter();
        for (_, model) in given.iter().filter(|(other, _)| *other == seat) {
            match model {
                Given::Open(engine) => models.add(seat, engine.clone()),
                Given::Named(_) => rest.next().into_iter().for_each(|engine| models.add(seat, engine.clone())),
            }
        }
        rest.for_each(|engine| models.add(seat, engine.clone()));
    }
    models
}

/// A name or a path as text.
fn text(name: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(name.extract::<PathBuf>()?.to_string_lossy().into_owned())
}

/// Lists the strategies with the seats that they fill and their settings.
#[pyfunction]
pub(crate) fn strategies(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyAny>>> {
    let describe = |recipe: &&'static Recipe| {
        let seats = recipe.needs.iter().map(|need| need.seat.name()).collect::<Vec<_>>();
        let settings = PyDict::new(py);
        recipe.settings.iter().try_for_each(|setting| settings.set_item(setting.name, about(setting)))?;
        class(py, "StrategyInfo")?.call1((recipe.name, recipe.about, seats, settings))
    };
    RECIPES.iter().map(describe).collect()
}

/// A setting in words: meaning, limits, default.
fn about(setting: &Setting) -> String {
    let default = setting.default_text().map_or_else(String::new, |default| format!("; default: {default}"));
    format!("{}; {}{default}", setting.about, setting.limit())
}
