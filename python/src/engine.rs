//! A model.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use wsd::config::Partial;
use wsd::hub::stderr_progress;
use wsd_core::{Models, Need, Prompt, Rule, Seat, THRESHOLD, Token, WINDOW};

use crate::error::raise;
use crate::runtime::{runtime, wait};
use crate::score::{self, Response};
use crate::settings::{name_models, named, of_model, of_prompts, read};
use crate::{arrays, prompt};

/// Answers that are computed at a time; further ones wait.
pub(crate) const ANSWERS: usize = 64;

/// Answers that a model has sessions for: it may sit in several seats of each.
const SESSIONS: usize = 4 * ANSWERS;

/// A model: a folder, a `.gguf` file, a name on Hugging Face's hub, an address of a server, or
/// `builtin:base` and `builtin:draft`.
///
/// `seat` chooses the defaults, as the options `--base` and `--draft` do: a base reads chats in the
/// paper's plain form, other models in their own. Further keyword arguments are the settings of
/// models: `template`, `device`, `dtype`, `kv_dtype`, `threads`, `offline` and so on.
#[pyclass(module = "wsd", frozen)]
pub(crate) struct Engine {
    pub(crate) inner: Arc<dyn wsd_core::Engine>,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (model, *, seat = "base", **settings))]
    fn new(py: Python<'_>, model: PathBuf, seat: &str, settings: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let seat = find_seat(seat)?;
        let settings = read(&of_model(seat), settings)?;
        let models = load(py, settings, &[(seat, model.to_string_lossy().into_owned())], vec![Need::any(seat)])?;
        let inner = models.require("Engine", seat).map_err(raise)?;
        Ok(Self { inner })
    }

    /// The model's name in messages.
    #[getter]
    fn name(&self) -> &str {
        &self.inner.card().name
    }

    /// Context length in tokens, prompt and answer together.
    #[getter]
    fn max_len(&self) -> usize {
        self.inner.card().max_len
    }

    /// Number of entries in the vocabulary.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.inner.card().vocab
    }

    /// Tokens that end a text.
    #[getter]
    fn end_tokens(&self) -> Vec<Token> {
        self.inner.card().end_tokens.clone()
    }

    /// The end-of-text token of the tokenizer.
    #[getter]
    fn eos_token(&self) -> Option<Token> {
        self.inner.codec().eos()
    }

    /// The model's abilities besides generating.
    #[getter]
    fn abilities(&self) -> Vec<&'static str> {
        let caps = self.inner.card().caps;
        let all = [
            (caps.score, "score"),
            (caps.logits, "logits"),
            (caps.choices, "choices"),
            (caps.hidden, "hidden"),
            (caps.trees, "trees"),
        ];
        all.into_iter().filter_map(|(has, name)| has.then_some(name)).collect()
    }

    fn __repr__(&self) -> String {
        format!("<wsd.Engine {:?}>", self.name())
    }

    /// Encodes a text. With `bos`, the model's beginning-of-text token stands before it, as before a
    /// raw prompt.
    #[pyo3(signature = (text, *, bos = false))]
    fn tokenize(&self, text: String, bos: bool) -> PyResult<Vec<Token>> {
        let codec = self.inner.codec();
        let tokens = if bos {
            codec.render(&Prompt::Raw(text)).map(|rendered| rendered.tokens)
        } else {
            codec.tokenizer().encode(&text)
        };
        tokens.map_err(raise)
    }

    /// Decodes tokens, leaving out special ones.
    fn detokenize(&self, tokens: &Bound<'_, PyAny>) -> PyResult<String> {
        self.inner.codec().tokenizer().decode(&prompt::tokens(tokens)?).map_err(raise)
    }

    /// Renders a conversation in the form in which the model reads it. If the last message is the
    /// assistant's, it is continued. Without `add_generation_prompt` every message is complete.
    #[pyo3(signature = (messages, *, add_generation_prompt = true))]
    fn apply_chat_template(&self, messages: &Bound<'_, PyAny>, add_generation_prompt: bool) -> PyResult<String> {
        let (codec, messages) = (self.inner.codec(), prompt::messages(messages)?);
        let rendered =
            if add_generation_prompt { codec.render(&Prompt::Chat(messages)) } else { codec.render_whole(&messages) };
        Ok(rendered.map_err(raise)?.text)
    }

    /// Scores a response to a prompt, as `wsd score` does. Keyword arguments: `window`, `threshold`,
    /// and the settings of prompts (`raw`, `system`, `prefill`).
    #[pyo3(signature = (prompt, response, **settings))]
    fn score<'py>(
        &self,
        py: Python<'py>,
        prompt: &Bound<'_, PyAny>,
        response: &Bound<'_, PyAny>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let known = [named([&WINDOW, &THRESHOLD]), of_prompts()].concat();
        let settings = read(&known, settings)?.resolve().map_err(raise)?;
        let prompt = prompt::read(prompt, &settings.prompt)?;
        let response = match response.extract::<String>() {
            Ok(text) => Response::Text(text),
            Err(_) => Response::Tokens(prompt::tokens(response)?),
        };
        let scored = wait(py, score::response(self.inner.as_ref(), &prompt, &response))?.map_err(raise)?;
        score::record(py, &scored, Rule::from_values(&settings.values))
    }

    /// Returns the natural log-probability of each token from position `start` on, given those before
    /// it.
    #[pyo3(signature = (tokens, start = 1))]
    fn logprobs<'py>(&self, py: Python<'py>, tokens: &Bound<'_, PyAny>, start: usize) -> PyResult<Bound<'py, PyAny>> {
        let tokens = prompt::tokens(tokens)?;
        let logprobs = wait(py, score::tokens_from(self.inner.as_ref(), &tokens, start))?;
        arrays::floats(py, &logprobs.map_err(raise)?)
    }

    /// Returns for each pair of context and continuation, as token ids, the sum of the continuation's
    /// log-probabilities, and whether each of its tokens is the most likely one.
    fn loglikelihoods(&self, py: Python<'_>, pairs: Vec<(Vec<Token>, Vec<Token>)>) -> PyResult<Vec<(f64, bool)>> {
        wait(py, score::continuations(self.inner.clone(), pairs))?.map_err(raise)
    }
}

/// Finds a seat by its name.
fn find_seat(name: &str) -> PyResult<Seat> {
    Seat::find(name).ok_or_else(|| {
        let known = Seat::all().map(Seat::name).collect::<Vec<_>>().join(", ");
        PyValueError::new_err(format!("there is no seat `{name}`\n  hint: known are {known}"))
    })
}

/// Loads the models that `needs` ask for: those that are named here, and the settings' own for the others.
/// Ctrl-C gives up waiting; the loading then ends with the process.
pub(crate) fn load(
    py: Python<'_>,
    mut settings: Partial,
    names: &[(Seat, String)],
    needs: Vec<Need>,
) -> PyResult<Models> {
    if needs.is_empty() {
        return Ok(Models::default());
    }
    name_models(&mut settings, names)?;
    let settings = settings.resolve().map_err(raise)?;
    let loading =
        runtime(py)?.spawn_blocking(move || wsd::models::load(&settings, &needs, SESSIONS, stderr_progress().as_mut()));
    wait(py, loading)?.map_err(raise)?.map_err(raise)
}
