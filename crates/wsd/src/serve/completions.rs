//! `POST /v1/completions`: texts or token ids continued as they stand, and scored where that is asked for.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use wsd_core::{Completion, Engine, Error, Prompt, Sampled, Token};

use super::App;
use super::admission::Admitted;
use super::decoding::{self, begun};
use super::error::ApiError;
use super::fields::Fields;
use super::reply::{Count, TextLogprobs, whole};
use super::request::{Ask, MAX_ANSWERS, MAX_TOKENS, MAX_TOP, read};
use super::sse::{self, Envelope};

/// `max_tokens` where a request names none, as OpenAI has it.
const DEFAULT_MAX_TOKENS: usize = 16;

/// What is asked of this route alone.
struct TextAsk {
    ask: Ask,
    prompts: Vec<Prompt>,
    echo: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum GivenPrompt {
    Text(String),
    Ids(Vec<Token>),
    Texts(Vec<String>),
    IdLists(Vec<Vec<Token>>),
}

/// A prompt as it is repeated before its answers.
#[derive(Clone, Default)]
struct Echo {
    text: String,
    first: Option<Token>,
    /// The tokens after the first.
    scored: Vec<Sampled>,
}

pub(super) async fn completions(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    app.expect_room()?;
    let asked = TextAsk::parse(&app, read(&app, &headers, body).await?)?;
    let crossed =
        asked.prompts.iter().map(|prompt| crossing(&app, &asked.ask, prompt)).collect::<Result<Vec<_>, _>>()?;
    let jobs = asked.ask.jobs(&crossed)?;
    let admitted = app.admit()?;
    let echoes = asked.echoes(&app, &admitted).await?;
    if asked.ask.max_tokens() == 0 {
        return Ok(asked.only_echoed(&app, &echoes).into_response());
    }
    let items = decoding::run(&app, &asked.ask.strategy, jobs, admitted);
    if asked.ask.stream {
        return Ok(asked.streamed(&app, echoes, begun(items).await?));
    }
    let answers = decoding::whole(items, asked.prompts.len() * asked.ask.n).await?;
    Ok(asked.whole(&app, &answers, &echoes).into_response())
}

impl TextAsk {
    fn parse(app: &App, mut fields: Fields) -> Result<Self, ApiError> {
        let mut ask = Ask::parse(app, &mut fields)?;
        let prompts: Vec<_> = match fields.need("prompt")? {
            GivenPrompt::Text(text) => vec![Prompt::Raw(text)],
            GivenPrompt::Ids(ids) if !ids.is_empty() => vec![Prompt::Tokens(ids)],
            GivenPrompt::Ids(_) => vec![],
            GivenPrompt::Texts(texts) => texts.into_iter().map(Prompt::Raw).collect(),
            GivenPrompt::IdLists(lists) => lists.into_iter().map(Prompt::Tokens).collect(),
        };
        if prompts.is_empty() || prompts.len() > MAX_ANSWERS {
            let message = format!("must hold from 1 to {MAX_ANSWERS} prompts, given: {}", prompts.len());
            return Err(ApiError::parameter("prompt", message));
        }
        let echo = fields.take("echo")?.unwrap_or(false);
        let logprobs = fields.number("logprobs", 0, MAX_TOP)?;
        let max_tokens = fields.number("max_tokens", usize::from(!echo), MAX_TOKENS)?;
        ask.limits(Some(max_tokens.unwrap_or(DEFAULT_MAX_TOKENS)), logprobs);
        if ask.stream && ask.max_tokens() == 0 {
            return Err(ApiError::parameter("stream", "needs `max_tokens` above 0"));
        }
        fields.finish()?;
        Ok(Self { ask, prompts, echo })
    }

    /// The prompts as they are repeated; scored by the model that continues them where log-probabilities are asked for.
    async fn echoes(&self, app: &App, _admitted: &Admitted) -> Result<Vec<Echo>, ApiError> {
        if !self.echo {
            return Ok(vec![Echo::default(); self.prompts.len()]);
        }
        let patience = app.serve.request_timeout;
        let work = async {
            let mut echoes = Vec::with_capacity(self.prompts.len());
            for prompt in &self.prompts {
                let _slot = app.admission.slot().await?;
                echoes.push(echo(self.ask.output_engine().as_ref(), prompt, self.ask.logprobs).await?);
            }
            Ok(echoes)
        };
        tokio::time::timeout(patience, work).await.unwrap_or_else(|_| Err(ApiError::late(patience.as_secs())))
    }

    /// The reply to a request that wants prompts scored and nothing written.
    fn only_echoed(&self, app: &App, echoes: &[Echo]) -> Json<Value> {
        let mut count = Count::default();
        let choices = (0..echoes.len() * self.ask.n).map(|index| {
            let echo = &echoes[index / self.ask.n];
            count.prompt(index / self.ask.n, echo.scored.len() + usize::from(echo.first.is_some()));
            let logprobs = self.ask.logprobs.map(|top| self.listed(echo, &[], top));
            json!({"index": index, "text": echo.text, "logprobs": logprobs, "finish_reason": "length"})
        });
        let choices = choices.collect();
        Json(Envelope::new(app, "cmpl", "text_completion", self.ask.model).json(choices, &count))
    }

    fn whole(&self, app: &App, answers: &[Completion], echoes: &[Echo]) -> Json<Value> {
        let envelope = Envelope::new(app, "cmpl", "text_completion", self.ask.model);
        Json(whole(&envelope, &self.ask, answers, |index, answer| {
            let echo = &echoes[index / self.ask.n];
            json!({
                "index": index,
                "text": format!("{}{}", echo.text, answer.text),
                "logprobs": self.ask.logprobs.map(|top| self.listed(echo, &answer.tokens, top)),
            })
        }))
    }

    /// `logprobs` of an echoed prompt and its answer.
    fn listed(&self, echo: &Echo, answer: &[wsd_core::TokenRecord], top: usize) -> Value {
        let engine = self.ask.output_engine();
        let mut list = TextLogprobs::new(engine.as_ref(), top);
        let mut offset = 0;
        let mut detokenizer = engine.codec().detokenizer(&[]);
        // Where the tokenizer fails on a token, its place is all that is lost.
        let mut length = |token| detokenizer.push(token).map_or(0, |text| text.chars().count());
        if let Some(first) = echo.first {
            list.push(first, None, &[], 0);
            offset += length(first);
        }
        for scored in &echo.scored {
            list.scored(scored, offset);
            offset += length(scored.token);
        }
        let mut offset = echo.text.chars().count();
        for record in answer {
            list.record(record, offset);
            offset += record.text.chars().count();
        }
        list.json()
    }

    /// The answers as a stream of chunks.
    fn streamed(self, app: &App, echoes: Vec<Echo>, items: decoding::Items) -> Response {
        let envelope = Envelope::new(app, "cmpl", "text_completion", self.ask.model);
        let choice =
            |index: usize, text: &str| json!({"index": index, "text": text, "logprobs": null, "finish_reason": null});
        let opening = (0..self.prompts.len() * self.ask.n).filter(|_| self.echo).map(|index| {
            let echo = &echoes[index / self.ask.n];
            let mut choice = choice(index, &echo.text);
            choice["logprobs"] = self.ask.logprobs.map_or(Value::Null, |top| self.listed(echo, &[], top));
            choice
        });
        let (opening, ask) = (opening.collect(), Arc::new(self.ask));
        let asked = ask.clone();
        sse::respond(app, envelope, asked, opening, items, move |index, token, characters| {
            let Some(token) = token else { return choice(index, "") };
            let mut choice = choice(index, &token.text);
            if let Some(top) = ask.logprobs {
                let mut list = TextLogprobs::new(ask.output_engine().as_ref(), top);
                list.record(token, echoes[index / ask.n].text.chars().count() + characters);
                choice["logprobs"] = list.json();
            }
            choice
        })
    }
}

/// A prompt of ids as two models of different vocabularies can read it: the text that the speaker spells with these ids. Whether
/// a beginning-of-text token stands before them is the models' business then.
fn crossing(app: &App, ask: &Ask, prompt: &Prompt) -> Result<Prompt, ApiError> {
    let Prompt::Tokens(ids) = prompt else { return Ok(prompt.clone()) };
    if ask.is_alone() || app.one_vocabulary {
        return Ok(prompt.clone());
    }
    let engine = ask.output_engine();
    let (vocab, text) = (engine.card().vocab, engine.codec());
    if let Some(&token) = ids.iter().find(|&&token| token as usize >= vocab) {
        return Err(Error::TokenRange { engine: engine.card().name.clone(), token, limit: vocab }.into());
    }
    let raw = Prompt::Raw(text.tokenizer().decode(ids)?);
    let rendered = text.render(&raw)?;
    let without_bos = |tokens: &[Token]| {
        let tokens = tokens.iter().copied().skip_while(|&token| Some(token) == rendered.bos);
        tokens.collect::<Vec<_>>()
    };
    // Where no text has these ids, the strategy refuses them in its own words.
    Ok(if without_bos(&rendered.tokens) == without_bos(ids) { raw } else { prompt.clone() })
}

/// A prompt's text and, where asked for, the log-probability of each of its tokens after the first.
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
