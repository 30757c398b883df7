//! What chat and text completions have in common: how to decode, checked against every limit before any work.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::SemaphorePermit;
use wsd_core::{
    Engine, Job, Prompt, RECIPES, Recipe, SAMPLING, SEED, STRATEGY, Strategy, TOP_K, Terms, Values, strategy_settings,
};

use super::App;
use super::error::ApiError;
use super::fields::Fields;

/// Bytes in a request's body.
pub(super) const MAX_BODY: usize = 2 << 20;
/// Bytes in the bodies of all requests that are being read.
pub(super) const MAX_BODIES: usize = 256 << 20;
/// Answers to one prompt.
pub(super) const MAX_N: usize = 16;
/// Answers in one request.
pub(super) const MAX_ANSWERS: usize = 128;
/// Stop strings, and bytes in each.
pub(super) const MAX_STOPS: (usize, usize) = (16, 256);
/// Alternatives named at each token.
pub(super) const MAX_TOP: usize = 20;
/// Messages in a conversation.
pub(super) const MAX_MESSAGES: usize = 1024;
/// Tokens asked for; the context may end an answer sooner.
pub(super) const MAX_TOKENS: usize = 1 << 20;

/// Parameters of OpenAI's that are taken where they ask for nothing, with the values that do.
const NEUTRAL: &[(&str, &[&str])] = &[
    ("audio", &[]),
    ("best_of", &["1"]),
    ("frequency_penalty", &["0"]),
    ("presence_penalty", &["0"]),
    ("logit_bias", &["{}"]),
    ("response_format", &["{\"type\":\"text\"}"]),
    ("tools", &["[]"]),
    ("tool_choice", &["\"none\"", "\"auto\""]),
    ("parallel_tool_calls", &["true", "false"]),
    ("function_call", &["\"none\"", "\"auto\""]),
    ("functions", &["[]"]),
    ("metadata", &["{}"]),
    ("modalities", &["[\"text\"]"]),
    ("prediction", &[]),
    ("reasoning_effort", &[]),
    ("service_tier", &["\"auto\"", "\"default\""]),
    ("store", &["false"]),
    ("suffix", &["\"\""]),
    ("verbosity", &[]),
    ("web_search_options", &[]),
];

/// How a request wants to be answered.
pub(super) struct Ask {
    /// The strategy's name, which is the model's.
    pub(super) model: &'static str,
    /// Whether one model answers by itself.
    is_alone: bool,
    pub(super) strategy: Arc<dyn Strategy>,
    /// The terms of the first answer; further answers have seeds that follow its own.
    terms: Terms,
    /// Answers to each prompt.
    pub(super) n: usize,
    /// Alternatives to name at each token, where log-probabilities are asked for.
    pub(super) logprobs: Option<usize>,
    pub(super) stream: bool,
    /// Whether a stream ends with a count of tokens.
    pub(super) include_usage: bool,
    /// Whether each token comes with author and confidence.
    pub(super) details: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Ask {
    /// Take the common parameters.
    pub(super) fn parse(app: &App, fields: &mut Fields) -> Result<Self, ApiError> {
        let mut wsd = Fields::new(fields.take("wsd")?.unwrap_or_else(|| json!({})), "wsd")?;
        let recipe = recipe(app, fields.take("model")?, wsd.take(STRATEGY.name)?)?;
        let mut values = Values::default();
        wsd.settings(&strategy_settings(), &mut values)?;
        let details = wsd.take("tokens")?.unwrap_or(false);
        wsd.finish()?;

        if fields.take_if("top_k", &json!(-1)) {
            // Clients of vLLM write -1 for all.
            values.set(&TOP_K, 0usize.into())?;
        }
        fields.settings(SAMPLING, &mut values)?;
        if !values.is_set(&SEED) {
            values.set(&SEED, app.seed.unwrap_or_else(|| app.random_seed()).into())?;
        }
        let values = values.or(app.settings.values.clone());

        let mut terms = Terms::from_values(&values);
        terms.stop.extend(stops(fields)?);
        let n = fields.number("n", 1, MAX_N)?.unwrap_or(1);
        let stream = fields.take("stream")?.unwrap_or(false);
        let include_usage = include_usage(fields, stream)?;
        // Says who asks; there is nothing that could be done with it.
        fields.take::<String>("user")?;
        fields.unsupported(NEUTRAL)?;
        let strategy = recipe.build(&app.models, &values)?;
        Ok(Self {
            model: recipe.name,
            is_alone: recipe.is_alone(),
            strategy,
            terms,
            n,
            logprobs: None,
            stream,
            include_usage,
            details,
        })
    }

    /// Set what the two protocols spell differently.
    pub(super) fn limits(&mut self, max_tokens: Option<usize>, logprobs: Option<usize>) {
        self.terms.max_tokens = max_tokens.unwrap_or(self.terms.max_tokens);
        self.terms.top_logprobs = logprobs.unwrap_or(0);
        self.logprobs = logprobs;
    }

    /// The jobs of these prompts: `n` for each, with seeds that follow each other.
    pub(super) fn jobs(&self, prompts: &[Prompt]) -> Result<Vec<Job>, ApiError> {
        if prompts.len() * self.n > MAX_ANSWERS {
            let message = format!("and `prompt` ask for {} answers; at most {MAX_ANSWERS}", prompts.len() * self.n);
            return Err(ApiError::parameter("n", message));
        }
        let jobs = prompts.iter().flat_map(|prompt| {
            (0..self.n as u64).map(move |i| {
                let mut terms = self.terms.clone();
                terms.sampling.seed = terms.sampling.seed.wrapping_add(i);
                Job { prompt: prompt.clone(), terms }
            })
        });
        Ok(jobs.collect())
    }

    /// The engine in whose vocabulary the answers are.
    pub(super) fn output_engine(&self) -> &Arc<dyn Engine> {
        self.strategy.output_engine()
    }

    pub(super) fn is_alone(&self) -> bool {
        self.is_alone
    }

    pub(super) fn max_tokens(&self) -> usize {
        self.terms.max_tokens
    }

    pub(super) fn seed(&self) -> u64 {
        self.terms.sampling.seed
    }
}

/// The strategy of a request: `wsd.strategy`, or the one that the model's name names, or the server's own.
pub(super) fn recipe(app: &App, model: Option<String>, strategy: Option<String>) -> Result<&'static Recipe, ApiError> {
    let names = || RECIPES.iter().map(|recipe| recipe.name).collect::<Vec<_>>().join(", ");
    let model = match model {
        Some(name) => Recipe::find(&name).map_err(|_| ApiError::unknown_model(&name, &names()))?,
        None => app.settings.recipe,
    };
    match strategy {
        Some(name) => Recipe::find(&name)
            .map_err(|_| ApiError::parameter("wsd.strategy", format!("must be one of {}, got {name}", names()))),
        None => Ok(model),
    }
}

fn stops(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let stops = match fields.take("stop")? {
        None => Vec::new(),
        Some(OneOrMany::One(stop)) => vec![stop],
        Some(OneOrMany::Many(stops)) => stops,
    };
    if stops.iter().any(String::is_empty) {
        return Err(ApiError::parameter("stop", "must not hold an empty string: every text ends with one"));
    }
    let (most, bytes) = MAX_STOPS;
    if stops.len() > most || stops.iter().any(|stop| stop.len() > bytes) {
        return Err(ApiError::parameter("stop", format!("may hold at most {most} strings of at most {bytes} bytes")));
    }
    Ok(stops)
}

fn include_usage(fields: &mut Fields, stream: bool) -> Result<bool, ApiError> {
    let Some(options) = fields.take::<Value>("stream_options")? else { return Ok(false) };
    if !stream {
        return Err(ApiError::parameter("stream_options", "needs `stream`"));
    }
    let mut options = Fields::new(options, "stream_options")?;
    let include = options.take("include_usage")?.unwrap_or(false);
    // Padding against listeners on the wire.
    options.unsupported(&[("include_obfuscation", &["false"])])?;
    options.finish()?;
    Ok(include)
}

/// The body's fields, once all of it is here.
pub(super) async fn read(app: &App, headers: &HeaderMap, body: Body) -> Result<Fields, ApiError> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json")) {
        return Err(ApiError::media_type());
    }
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > MAX_BODY) {
        return Err(ApiError::body_too_large(MAX_BODY));
    }
    let patience = app.serve.header_timeout;
    match tokio::time::timeout(patience, whole(app, body)).await {
        Err(_) => Err(ApiError::slow_body(patience.as_secs())),
        Ok(body) => Fields::parse(&body?),
    }
}

/// All bytes of a body, as long as there is room for them beside those of others.
async fn whole(app: &App, mut body: Body) -> Result<Vec<u8>, ApiError> {
    let (mut bytes, mut held) = (Vec::new(), None::<SemaphorePermit<'_>>);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::invalid(format!("the body broke off: {error}")))?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > MAX_BODY {
            return Err(ApiError::body_too_large(MAX_BODY));
        }
        let room = app.body_bytes.try_acquire_many(data.len() as u32).map_err(|_| ApiError::crowded(MAX_BODIES))?;
        match &mut held {
            Some(held) => held.merge(room),
            None => held = Some(room),
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes)
}
