//! `POST /v1/completions`: texts or token ids, continued without a chat form, and scored on
//! request.

use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use wsd_core::{Caps, Completion, Engine, Error, Event, MAX_TOKENS, Prompt, Sampled, Token};

use super::admission::Admitted;
use super::app::App;
use super::decoding::{self, await_first_event};
use super::envelope::{Envelope, Usage};
use super::error::ApiError;
use super::fields::{Fields, Texts};
use super::json_reply::JsonReply;
use super::reply::{TextLogprobs, complete_reply};
use super::request::{GenerationRequest, MAX_ANSWERS, MAX_TOP, max_tokens};
use super::request_log::Caller;
use super::sse::Chunks;
use super::tools::ToolUse;
use super::work::off_reactor;

/// The default of `max_tokens`, as in OpenAI's API.
const DEFAULT_MAX_TOKENS: usize = 16;

/// A request for text completions.
struct CompletionRequest {
    common: GenerationRequest,
    prompts: Vec<Prompt>,
    /// True if the reply repeats the prompt before each answer.
    echo: bool,
}

/// A prompt as a reply repeats it; empty if the reply does not.
#[derive(Clone, Default)]
struct Echo {
    text: String,
    /// Number of characters in `text`.
    characters: usize,
    /// Number of tokens.
    tokens: usize,
    /// The tokens with their log-probabilities, built once for all answers; `None` unless they are
    /// requested.
    list: Option<TextLogprobs>,
    /// The end-of-text token after the prompt, for answers that end at once.
    end: Option<Sampled>,
}

/// Handles `POST /v1/completions`.
pub(super) async fn completions(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    app.expect_room(caller.client)?;
    let fields = app.bodies.read(&headers, body).await?;
    let (parsing, client) = (app.clone(), caller.client);
    let (request, jobs) = app
        .work
        .of_body(fields.bytes(), move || {
            let request = CompletionRequest::parse(&parsing, &caller, fields)?;
            let prompts = request.prompts.iter().map(|prompt| readable_by_all(&request.common, prompt));
            let jobs = request.common.jobs(&prompts.collect::<Result<Vec<_>, _>>()?)?;
            Ok((request, jobs))
        })
        .await?;
    request.common.check_reply(0, jobs.len())?;
    let admitted = app.admit(client)?;
    let (request, echoes) = request.echoes(&app, &admitted).await?;
    let envelope = Envelope::new(&app, "cmpl-", "text_completion", request.common.model);
    if request.common.max_tokens() == 0 {
        return Ok(off_reactor(move || Ok(request.prompt_reply(&envelope, &echoes))).await?.into_response());
    }
    let events = decoding::run(&app, &request.common, jobs, admitted);
    if request.common.stream {
        return Ok(request.stream_reply(&app, envelope, echoes, await_first_event(events).await?));
    }
    let answers = decoding::collect(events, request.prompts.len() * request.common.n).await?;
    Ok(off_reactor(move || Ok(request.complete_reply(&envelope, &answers, &echoes))).await?.into_response())
}

impl CompletionRequest {
    /// Takes all fields of a request.
    fn parse(app: &App, caller: &Caller, mut fields: Fields) -> Result<Self, ApiError> {
        let mut common = GenerationRequest::parse(app, caller, &mut fields)?;
        common.operation = "text_completion";
        let prompts = fields.need::<Texts>("prompt")?.prompts();
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
            max_tokens(&mut fields, MAX_TOKENS.name)?.unwrap_or(DEFAULT_MAX_TOKENS)
        };
        common.limits(Some(max_tokens), logprobs);
        common.answer(&ToolUse::none())?;
        // Texts are continued as they are.
        common.reader = None;
        if common.stream && max_tokens == 0 {
            return Err(ApiError::parameter("stream", "must be false where `max_tokens` is 0"));
        }
        fields.finish()?;
        Ok(Self { common, prompts, echo })
    }

    /// Returns the request with every prompt as the reply repeats it. If log-probabilities are
    /// requested, the prompts are scored by the strategy's output engine. The queue's place is held
    /// until all are scored.
    async fn echoes(self, app: &Arc<App>, admitted: &Admitted) -> Result<(Self, Vec<Echo>), ApiError> {
        if !self.echo {
            let echoes = vec![Echo::default(); self.prompts.len()];
            return Ok((self, echoes));
        }
        let engine = self.common.output_engine().clone();
        let needed = Caps { score: self.common.logprobs.is_some(), ..Caps::default() };
        if let Some(need) = needed.lacking(engine.card().caps) {
            return Err(Error::Lacks { engine: engine.card().name.clone(), need }.into());
        }
        let (request, rendered) = app
            .work
            .of_body(self.common.bytes, move || {
                let rendered: Vec<_> =
                    self.prompts.iter().map(|prompt| rendered(&self, prompt)).collect::<Result<_, _>>()?;
                Ok((self, rendered))
            })
            .await?;
        let tokens: usize = rendered.iter().map(|(_, tokens)| tokens.len()).sum();
        let (n, is_answered) = (request.common.n, request.common.max_tokens() > 0);
        request.common.check_reply(tokens * n, if is_answered { rendered.len() * n } else { 0 })?;
        let work = async {
            let mut echoes = Vec::with_capacity(rendered.len());
            for (text, mut tokens) in rendered {
                let Some(top) = request.common.logprobs else {
                    let (characters, tokens) = (text.chars().count(), tokens.len());
                    echoes.push(Echo { text, characters, tokens, ..Echo::default() });
                    continue;
                };
                let _slot = app.admission.slot(admitted.source).await?;
                app.admission.add_tokens(admitted.source.client, tokens.len());
                let card = engine.card();
                let has_room = is_answered && !tokens.is_empty() && tokens.len() < card.max_len;
                let end = card.end_tokens.first().copied().filter(|_| has_room);
                tokens.extend(end);
                let mut scored = engine.open(&tokens).await?.score_top(1, top).await?;
                let end = end.and_then(|_| scored.pop()).map(|end| likeliest_end(end, &card.end_tokens));
                let engine = engine.clone();
                let list = move || Ok(Echo { end, ..echo(&engine, text, tokens.first().copied(), &scored, top) });
                echoes.push(off_reactor(list).await?);
            }
            Ok::<_, ApiError>(echoes)
        };
        tokio::select! {
            error = decoding::ending(app.clone()) => Err(error),
            echoes = work => Ok((request, echoes?)),
        }
    }

    /// Returns the reply to a request with `max_tokens` 0: the prompts without answers.
    fn prompt_reply(&self, envelope: &Envelope, echoes: &[Echo]) -> JsonReply {
        let (mut usage, mut reply) = (Usage::default(), JsonReply::new(envelope));
        for (prompt, echo) in echoes.iter().enumerate() {
            usage.set_prompt(prompt, echo.tokens);
            let logprobs = echo.list.as_ref().map_or_else(|| "null".into(), TextLogprobs::json);
            let logprobs = Bytes::from(logprobs);
            for answer in 0..self.common.n {
                let index = prompt * self.common.n + answer;
                let choice = json!({"index": index, "text": echo.text, "finish_reason": "length"});
                reply.push(&choice, Some(&logprobs));
            }
        }
        reply.finish(&usage, &[])
    }

    /// Returns the reply with all answers.
    fn complete_reply(&self, envelope: &Envelope, answers: &[Completion], echoes: &[Echo]) -> JsonReply {
        complete_reply(envelope, &self.common, answers, |index, answer| {
            let echo = &echoes[self.common.prompt_of(index)];
            let logprobs = self.common.logprobs.map(|top| self.logprobs(echo, answer, top));
            let choice = json!({"index": index, "text": format!("{}{}", echo.text, answer.text)});
            (choice, Some(logprobs.unwrap_or_else(|| "null".into()).into()))
        })
    }

    /// Returns the `logprobs` of a repeated prompt and its answer. An answer that ends at once has its
    /// end-of-text token there, as in vLLM: clients that score prompts drop the last token, without
    /// a look at the answer.
    fn logprobs(&self, echo: &Echo, answer: &Completion, top: usize) -> String {
        let new = || TextLogprobs::new(self.common.output_engine().clone(), top);
        let mut list = echo.list.clone().unwrap_or_else(new);
        let mut offset = echo.characters;
        for record in &answer.tokens {
            list.push_record(record, offset);
            offset += record.text.chars().count();
        }
        if let Some(end) = echo.end.as_ref().filter(|_| answer.tokens.is_empty() && answer.stop_string.is_none()) {
            list.push_scored(end, offset);
        }
        list.json()
    }

    /// Returns the reply as a stream of chunks: first the repeated prompts, then the events.
    fn stream_reply(self, app: &App, envelope: Envelope, echoes: Vec<Echo>, events: decoding::Events) -> Response {
        let text_choice =
            |index: usize, text: &str| json!({"index": index, "text": text, "logprobs": null, "finish_reason": null});
        let characters: Vec<_> = echoes.iter().map(|echo| echo.characters).collect();
        let (n, count) = (self.common.n, if self.echo { self.prompts.len() * self.common.n } else { 0 });
        let opening = (0..count).map(move |index| {
            let echo = &echoes[index / n];
            let logprobs = echo.list.as_ref().map_or_else(|| "null".into(), TextLogprobs::json);
            let text = Value::from(echo.text.as_str());
            format!(r#"{{"index":{index},"text":{text},"logprobs":{logprobs},"finish_reason":null}}"#)
        });
        let request = Arc::new(self.common);
        let common = request.clone();
        let choice = move |index: usize, event: &Event, written| {
            let Event::Token(token) = event else { return text_choice(index, "") };
            let mut choice = text_choice(index, &token.text);
            if let Some(top) = common.logprobs {
                let mut list = TextLogprobs::new(common.output_engine().clone(), top);
                list.push_record(token, characters[common.prompt_of(index)] + written);
                choice["logprobs"] = serde_json::from_str(&list.json()).unwrap_or_default();
            }
            choice
        };
        Chunks { envelope, request, opening: Box::new(opening), choice }.respond(app, events)
    }
}

/// Returns the prompt in a form that all models of the strategy can read. If their vocabularies
/// differ, token ids of the output engine are replaced by the text that it encodes as these ids. A
/// beginning-of-text token is dropped, since each model adds its own.
fn readable_by_all(request: &GenerationRequest, prompt: &Prompt) -> Result<Prompt, ApiError> {
    let Prompt::Tokens(ids) = prompt else { return Ok(prompt.clone()) };
    if request.has_one_vocabulary() {
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

/// Returns a prompt's text and its tokens in the vocabulary of the output engine.
fn rendered(request: &CompletionRequest, prompt: &Prompt) -> Result<(String, Vec<Token>), ApiError> {
    let engine = request.common.output_engine();
    let rendered = engine.codec().render(prompt)?;
    let (tokens, limit) = (rendered.tokens.len(), engine.card().max_len);
    if tokens > limit {
        return Err(Error::PromptTooLong { engine: engine.card().name.clone(), tokens, limit }.into());
    }
    engine.card().check(&rendered.tokens)?;
    let text = match prompt {
        Prompt::Raw(text) => text.clone(),
        _ => engine.codec().tokenizer().decode(&rendered.tokens)?,
    };
    Ok((text, rendered.tokens))
}

/// Returns the likeliest end-of-text token at a place where one of `end_tokens` was scored, as far as
/// the most likely tokens there tell.
fn likeliest_end(scored: Sampled, end_tokens: &[Token]) -> Sampled {
    match scored.top.iter().find(|(token, _)| end_tokens.contains(token)) {
        Some(&(token, logprob)) => Sampled { token, logprob: Some(logprob), ..scored },
        None => scored,
    }
}

/// Lists the tokens of a prompt: the first, which has no probability, and the scored ones after it.
fn echo(engine: &Arc<dyn Engine>, text: String, first: Option<Token>, scored: &[Sampled], top: usize) -> Echo {
    let mut list = TextLogprobs::new(engine.clone(), top);
    let mut detokenizer = engine.codec().detokenizer(&[]);
    // Length in characters; 0 for a token that cannot be decoded.
    let mut length = |token| detokenizer.push(token).map_or(0, |text| text.chars().count());
    let mut offset = 0;
    if let Some(first) = first {
        list.push(first, None, &[], 0);
        offset += length(first);
    }
    for scored in scored {
        list.push_scored(scored, offset);
        offset += length(scored.token);
    }
    let tokens = scored.len() + usize::from(first.is_some());
    Echo { characters: text.chars().count(), tokens, text, list: Some(list), end: None }
}
