//! `POST /v1/completions`: texts or token ids, continued without a chat form, and scored on
//! request.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use wsd_core::{Completion, Engine, Error, MAX_TOKENS, Prompt, Sampled, Token, TokenRecord};

use super::admission::Admitted;
use super::app::App;
use super::decoding::{self, await_first_event};
use super::envelope::{Envelope, Usage};
use super::error::ApiError;
use super::fields::Fields;
use super::reply::{TextLogprobs, complete_reply};
use super::request::{GenerationRequest, MAX_ANSWERS, MAX_TOP};
use super::sse::Chunks;

/// The default of `max_tokens`, as in OpenAI's API.
const DEFAULT_MAX_TOKENS: usize = 16;

/// A request for text completions.
struct CompletionRequest {
    common: GenerationRequest,
    prompts: Vec<Prompt>,
    /// True if the reply repeats the prompt before each answer.
    echo: bool,
}

/// The field `prompt`: one or several prompts, as text or token ids.
#[derive(Deserialize)]
#[serde(untagged)]
enum PromptField {
    Text(String),
    Ids(Vec<Token>),
    Texts(Vec<String>),
    IdLists(Vec<Vec<Token>>),
}

/// A prompt as a reply repeats it; empty if the reply does not.
#[derive(Clone, Default)]
struct Echo {
    text: String,
    /// The first token, which has no probability; `None` for an empty prompt.
    first: Option<Token>,
    /// The tokens after the first with their log-probabilities; empty unless they are requested.
    scored: Vec<Sampled>,
}

/// Handles `POST /v1/completions`.
pub(super) async fn completions(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    app.expect_room()?;
    let request = CompletionRequest::parse(&app, app.bodies.read(&headers, body).await?)?;
    let prompts = request.prompts.iter().map(|prompt| readable_by_all(&app, &request.common, prompt));
    let jobs = request.common.jobs(&prompts.collect::<Result<Vec<_>, _>>()?)?;
    let admitted = app.admit()?;
    let echoes = request.echoes(&app, &admitted).await?;
    if request.common.max_tokens() == 0 {
        return Ok(request.prompt_reply(&app, &echoes).into_response());
    }
    let events = decoding::run(&app, &request.common.strategy, jobs, admitted);
    if request.common.stream {
        return Ok(request.stream_reply(&app, echoes, await_first_event(events).await?));
    }
    let answers = decoding::collect(events, request.prompts.len() * request.common.n).await?;
    Ok(request.complete_reply(&app, &answers, &echoes).into_response())
}

impl CompletionRequest {
    /// Takes all fields of a request.
    fn parse(app: &App, mut fields: Fields) -> Result<Self, ApiError> {
        let mut common = GenerationRequest::parse(app, &mut fields)?;
        let prompts: Vec<_> = match fields.need("prompt")? {
            PromptField::Text(text) => vec![Prompt::Raw(text)],
            PromptField::Ids(ids) if !ids.is_empty() => vec![Prompt::Tokens(ids)],
            PromptField::Ids(_) => vec![],
            PromptField::Texts(texts) => texts.into_iter().map(Prompt::Raw).collect(),
            PromptField::IdLists(lists) => lists.into_iter().map(Prompt::Tokens).collect(),
        };
        if prompts.is_empty() || prompts.len() > MAX_ANSWERS {
            let message = format!("must have from 1 to {MAX_ANSWERS} prompts, got {}", prompts.len());
            return Err(ApiError::parameter("prompt", message));
        }
        let echo = fields.take("echo")?.unwrap_or(false);
        let logprobs = fields.number("logprobs", 0, MAX_TOP)?;
        // With `echo`, 0 requests the prompt with its scores and no answer.
        let max_tokens = if echo && fields.take_if(MAX_TOKENS.name, &json!(0)) {
            0
        } else {
            fields.setting(MAX_TOKENS.name, &MAX_TOKENS)?.unwrap_or(DEFAULT_MAX_TOKENS)
        };
        common.limits(Some(max_tokens), logprobs);
        if common.stream && max_tokens == 0 {
            return Err(ApiError::parameter("stream", "must be false where `max_tokens` is 0"));
        }
        fields.finish()?;
        Ok(Self { common, prompts, echo })
    }

    /// Returns every prompt as the reply repeats it. If log-probabilities are requested, the prompts
    /// are scored by the strategy's output engine. The queue's place is held until all are scored.
    async fn echoes(&self, app: &Arc<App>, _admitted: &Admitted) -> Result<Vec<Echo>, ApiError> {
        if !self.echo {
            return Ok(vec![Echo::default(); self.prompts.len()]);
        }
        let work = async {
            let mut echoes = Vec::with_capacity(self.prompts.len());
            for prompt in &self.prompts {
                let _slot = app.admission.slot().await?;
                echoes.push(echo(self.common.output_engine().as_ref(), prompt, self.common.logprobs).await?);
            }
            Ok(echoes)
        };
        tokio::select! {
            error = decoding::ending(app.clone()) => Err(error),
            echoes = work => echoes,
        }
    }

    /// Returns the reply to a request with `max_tokens` 0: the prompts without answers.
    fn prompt_reply(&self, app: &App, echoes: &[Echo]) -> Json<Value> {
        let mut usage = Usage::default();
        let choices = (0..echoes.len() * self.common.n).map(|index| {
            let echo = &echoes[index / self.common.n];
            usage.set_prompt(index / self.common.n, echo.scored.len() + usize::from(echo.first.is_some()));
            let logprobs = self.common.logprobs.map(|top| self.logprobs(echo, &[], top));
            json!({"index": index, "text": echo.text, "logprobs": logprobs, "finish_reason": "length"})
        });
        let choices = choices.collect();
        Json(Envelope::new(app, "cmpl", "text_completion", self.common.model).json(choices, &usage))
    }

    /// Returns the reply with all answers.
    fn complete_reply(&self, app: &App, answers: &[Completion], echoes: &[Echo]) -> Json<Value> {
        let envelope = Envelope::new(app, "cmpl", "text_completion", self.common.model);
        Json(complete_reply(&envelope, &self.common, answers, |index, answer| {
            let echo = &echoes[index / self.common.n];
            json!({
                "index": index,
                "text": format!("{}{}", echo.text, answer.text),
                "logprobs": self.common.logprobs.map(|top| self.logprobs(echo, &answer.tokens, top)),
            })
        }))
    }

    /// Returns the `logprobs` of a repeated prompt and its answer.
    fn logprobs(&self, echo: &Echo, answer: &[TokenRecord], top: usize) -> Value {
        let engine = self.common.output_engine();
        let mut list = TextLogprobs::new(engine.as_ref(), top);
        let mut offset = 0;
        let mut detokenizer = engine.codec().detokenizer(&[]);
        // Length in characters; 0 for a token that cannot be decoded.
        let mut length = |token| detokenizer.push(token).map_or(0, |text| text.chars().count());
        if let Some(first) = echo.first {
            list.push(first, None, &[], 0);
            offset += length(first);
        }
        for scored in &echo.scored {
            list.push_scored(scored, offset);
            offset += length(scored.token);
        }
        let mut offset = echo.text.chars().count();
        for record in answer {
            list.push_record(record, offset);
            offset += record.text.chars().count();
        }
        list.json()
    }

    /// Returns the reply as a stream of chunks: first the repeated prompts, then the events.
    fn stream_reply(self, app: &App, echoes: Vec<Echo>, events: decoding::Events) -> Response {
        let envelope = Envelope::new(app, "cmpl", "text_completion", self.common.model);
        let text_choice =
            |index: usize, text: &str| json!({"index": index, "text": text, "logprobs": null, "finish_reason": null});
        let opening = (0..self.prompts.len() * self.common.n).filter(|_| self.echo).map(|index| {
            let echo = &echoes[index / self.common.n];
            let mut choice = text_choice(index, &echo.text);
            choice["logprobs"] = self.common.logprobs.map_or(Value::Null, |top| self.logprobs(echo, &[], top));
            choice
        });
        let (opening, request) = (opening.collect(), Arc::new(self.common));
        let common = request.clone();
        let choice = move |index: usize, token: Option<&TokenRecord>, characters| {
            let Some(token) = token else { return text_choice(index, "") };
            let mut choice = text_choice(index, &token.text);
            if let Some(top) = common.logprobs {
                let mut list = TextLogprobs::new(common.output_engine().as_ref(), top);
                list.push_record(token, echoes[index / common.n].text.chars().count() + characters);
                choice["logprobs"] = list.json();
            }
            choice
        };
        Chunks { envelope, request, opening, choice }.respond(app, events)
    }
}

/// Returns the prompt in a form that all models of the strategy can read. If their vocabularies
/// differ, token ids of the output engine are replaced by the text that it encodes as these ids. A
/// beginning-of-text token is dropped, since each model adds its own.
fn readable_by_all(app: &App, request: &GenerationRequest, prompt: &Prompt) -> Result<Prompt, ApiError> {
    let Prompt::Tokens(ids) = prompt else { return Ok(prompt.clone()) };
    if request.is_alone() || app.one_vocabulary {
        return Ok(prompt.clone());
    }
    let engine = request.output_engine();
    let (vocab, codec) = (engine.card().vocab, engine.codec());
    if let Some(&token) = ids.iter().find(|&&token| token as usize >= vocab) {
        return Err(Error::TokenRange { engine: engine.card().name.clone(), token, limit: vocab }.into());
    }
    let raw = Prompt::Raw(codec.tokenizer().decode(ids)?);
    let rendered = codec.render(&raw)?;
    let without_bos = |tokens: &[Token]| {
        let tokens = tokens.iter().copied().skip_while(|&token| Some(token) == rendered.bos);
        tokens.collect::<Vec<_>>()
    };
    // If the decoded text is not encoded as these ids, the ids are kept, and the strategy refuses
    // them.
    Ok(if without_bos(&rendered.tokens) == without_bos(ids) { raw } else { prompt.clone() })
}

/// Returns a prompt's text and, if `logprobs` is given, the log-probability of each token after the
/// first, with that many alternatives.
async fn echo(engine: &dyn Engine, prompt: &Prompt, logprobs: Option<usize>) -> Result<Echo, ApiError> {
    let rendered = engine.codec().render(prompt)?;
    let (tokens, limit) = (rendered.tokens.len(), engine.card().max_len);
    if tokens > limit {
        return Err(Error::PromptTooLong { engine: engine.card().name.clone(), tokens, limit }.into());
    }
    let text = match prompt {
        Prompt::Raw(text) => text.clone(),
        _ => engine.codec().tokenizer().decode(&rendered.tokens)?,
    };
    let mut session = engine.open(&rendered.tokens).await?;
    let scored = match logprobs {
        Some(top) => session.score_top(1, top).await?,
        None => Vec::new(),
    };
    Ok(Echo { text, first: rendered.tokens.first().copied(), scored })
}
