//! Parameters common to chat and text completions, checked against every limit before any work.

use std::sync::Arc;

use serde_json::{Value, json};
use wsd_core::{
    DRY_PENALTY_LAST_N, DRY_SEQUENCE_BREAKERS, Engine, Job, MAX_TOKENS, MAX_TOKENS_LIMIT, Prompt, RECIPES,
    REPETITION_PENALTY, Recipe, Reply, SAMPLING, SEED, STOP, STRATEGY, Strategy, TOP_K, Terms, TextCodec, Token,
    Values, strategy_settings,
};
use wsd_grammar::Form;

use super::app::App;
use super::constraint;
use super::error::ApiError;
use super::fields::Fields;
use super::ignored::Place;
use super::request_log::{Caller, RequestLog};
use super::tools::{AnswerReader, ToolUse};
use super::work::SMALL_BODY;
use crate::config::without_tag;

/// The most answers to one prompt.
pub(super) const MAX_N: usize = 16;
/// The most answers in one request.
pub(super) const MAX_ANSWERS: usize = 128;
/// The most stop strings, and the most sequence breakers, in a request.
pub(super) const MAX_STOPS: usize = 16;
/// The most bytes in one of them.
pub(super) const MAX_STOP_BYTES: usize = 256;
/// The most alternatives reported for each token.
pub(super) const MAX_TOP: usize = 20;
/// The most messages in a conversation.
pub(super) const MAX_MESSAGES: usize = 1024;

/// The most bytes of log-probabilities in a reply, by the estimate of [`TOKEN_BYTES`] for a token and
/// [`ALTERNATIVE_BYTES`] for each of its alternatives.
const MAX_REPLY_BYTES: usize = 64 << 20;
const TOKEN_BYTES: usize = 64;
const ALTERNATIVE_BYTES: usize = 40;
/// The most tokens in a `logit_bias`, and the largest number there.
const MAX_BIASES: usize = 1024;
const MAX_BIAS: f64 = 100.0;
/// The most bytes in a `cache_salt`.
const MAX_SALT_BYTES: usize = 256;

/// Parameters of OpenAI's API, vLLM and llama-server that are accepted with a value that has no effect,
/// and these values.
const NEUTRAL: &[(&str, &[&str])] = &[
    ("audio", &[]),
    ("background", &["false"]),
    ("bad_words", &["[]"]),
    ("best_of", &["1"]),
    ("chat_template_kwargs", &["{}"]),
    ("conversation", &[]),
    ("ignore_eos", &["false"]),
    ("include_stop_str_in_output", &["false"]),
    ("length_penalty", &["1"]),
    ("min_tokens", &["0"]),
    ("mirostat", &["0"]),
    ("metadata", &["{}"]),
    ("modalities", &["[\"text\"]"]),
    ("prediction", &[]),
    ("reasoning_effort", &[]),
    ("service_tier", &["\"auto\"", "\"default\""]),
    ("skip_special_tokens", &["true"]),
    ("stop_token_ids", &["[]"]),
    ("store", &["false"]),
    ("suffix", &["\"\""]),
    ("use_beam_search", &["false"]),
    ("verbosity", &[]),
    ("web_search_options", &[]),
];

/// The parameters of a request that do not depend on its protocol.
pub(super) struct GenerationRequest {
    /// The name of the strategy, which is the model's name too.
    pub(super) model: &'static str,
    /// True where all models that answer read the same token ids.
    has_one_vocabulary: bool,
    pub(super) strategy: Arc<dyn Strategy>,
    /// The terms of the first answer to each prompt; the seeds of further answers count up from its
    /// own.
    terms: Terms,
    /// Answers to each prompt.
    pub(super) n: usize,
    /// The number of alternatives at each token; `None` for a reply without log-probabilities.
    pub(super) logprobs: Option<usize>,
    /// True for a reply in server-sent events.
    pub(super) stream: bool,
    /// True where a stream ends with the token counts.
    pub(super) include_usage: bool,
    /// True where each token comes with its author and confidence.
    pub(super) token_details: bool,
    /// OpenTelemetry's name of the operation.
    pub(super) operation: &'static str,
    /// The line about the request.
    pub(super) log: Arc<RequestLog>,
    /// The bytes of the body.
    pub(super) bytes: usize,
    /// The codec of the model that begins the answer.
    pub(super) codec: TextCodec,
    /// The constraint, and the field that it was given in.
    constraint: Option<(&'static str, Form)>,
    /// The reader of answers with calls of tools or reasoning; `None` for those of text alone.
    pub(super) reader: Option<Reply>,
}

impl GenerationRequest {
    /// Takes the common parameters.
    pub(super) fn parse(app: &App, caller: &Caller, fields: &mut Fields) -> Result<Self, ApiError> {
        let mut wsd = Fields::new(fields.take("wsd")?.unwrap_or_else(|| json!({})), "wsd")?;
        let mut values = Values::default();
        wsd.settings(&[&STRATEGY], &mut values)?;
        wsd.settings(&strategy_settings(), &mut values)?;
        let model = find_recipe(app, fields.take("model")?)?;
        let recipe = if values.is_set(&STRATEGY) { Recipe::find(values.get(&STRATEGY))? } else { model };
        let token_details = wsd.take("tokens")?.unwrap_or(false);
        wsd.finish()?;

        if fields.take_if(TOP_K.name, &json!(-1)) {
            // vLLM's clients send -1 for all tokens.
            values.set(&TOP_K, 0usize.into())?;
        }
        if fields.take_if(DRY_PENALTY_LAST_N.name, &json!(-1)) {
            // llama-server's clients do.
            values.set(&DRY_PENALTY_LAST_N, MAX_TOKENS_LIMIT.into())?;
        }
        // llama-server's and Ollama's name.
        fields.rename("repeat_penalty", REPETITION_PENALTY.name);
        fields.settings(SAMPLING, &mut values)?;
        check_texts(DRY_SEQUENCE_BREAKERS.name, &values.get::<Vec<_>>(&DRY_SEQUENCE_BREAKERS))?;
        if !values.is_set(&SEED) {
            values.set(&SEED, app.seed.unwrap_or_else(|| app.random_seed()).into())?;
        }
        let values = values.or(app.settings.values.clone());

        let mut terms = Terms::from_values(&values);
        terms.stop.extend(stops(fields)?);
        let n = fields.number("n", 1, MAX_N)?.unwrap_or(1);
        let stream = fields.take("stream")?.unwrap_or(false);
        let include_usage = include_usage(fields, stream, app.serve.strict)?;
        // Names the end user; it has no effect.
        fields.take::<String>("user")?;
        fields.ignore(Place::Request, app.serve.strict);
        fields.unsupported(NEUTRAL)?;
        let constraint = constraint::take(fields)?;
        let scope = app.scope(caller.client, cache_salt(fields)?.as_deref());
        let strategy = recipe.build(&app.models.scoped(scope), &values)?;
        terms.sampling.logit_bias = logit_bias(fields, strategy.output_engine().as_ref())?.into();
        let has_one_vocabulary = recipe.has_one_model() || app.one_vocabulary;
        if !terms.sampling.logit_bias.is_empty() && !has_one_vocabulary {
            let message =
                "must be left out where two models with different vocabularies answer; name `base` or `draft`";
            return Err(ApiError::parameter("logit_bias", message));
        }
        caller.log.asks(recipe.name);
        let opener = recipe.needs.iter().find_map(|need| app.models.get(need.seat));
        let codec = opener.unwrap_or_else(|| strategy.output_engine()).codec().clone();
        Ok(Self {
            model: recipe.name,
            has_one_vocabulary,
            strategy,
            terms,
            n,
            logprobs: None,
            stream,
            include_usage,
            token_details,
            operation: "chat",
            log: caller.log.clone(),
            bytes: fields.bytes(),
            codec,
            constraint,
            reader: None,
        })
    }

    /// Sets how answers are read and constrained, once the tools are known.
    pub(super) fn answer(&mut self, tools: &ToolUse) -> Result<(), ApiError> {
        let reader = self.codec.reply(tools.inputs());
        let constraint = tools.constraint(self.constraint.take())?;
        let reader = match &constraint {
            Some(_) => reader.constrained(tools.must_call()),
            None => reader,
        };
        self.reader = (!reader.is_plain()).then_some(reader);
        self.terms.grammar = constraint.map(|(name, form)| wsd_grammar::grammar(name, &form)).transpose()?;
        Ok(())
    }

    /// Tells whether the work on the request may take long: on a large body, or with a grammar, whose
    /// masks do.
    pub(super) fn is_heavy(&self) -> bool {
        self.bytes > SMALL_BODY || self.terms.grammar.is_some()
    }

    /// Sets the limits, which the two protocols name differently.
    pub(super) fn limits(&mut self, max_tokens: Option<usize>, logprobs: Option<usize>) {
        self.terms.max_tokens = max_tokens.unwrap_or(self.terms.max_tokens);
        self.terms.top_logprobs = logprobs.unwrap_or(0);
        self.logprobs = logprobs;
    }

    /// Makes the jobs for these prompts: `n` for each, whose seeds count up.
    pub(super) fn jobs(&self, prompts: &[Prompt]) -> Result<Vec<Job>, ApiError> {
        if prompts.len() * self.n > MAX_ANSWERS {
            let message =
                format!("times the number of prompts must be at most {MAX_ANSWERS}, got {}", prompts.len() * self.n);
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

    /// Refuses a reply with too many bytes of log-probabilities before any of them is computed.
    /// `prompt_tokens` is the number of repeated tokens in the reply.
    pub(super) fn check_reply(&self, prompt_tokens: usize, answers: usize) -> Result<(), ApiError> {
        let Some(top) = self.logprobs else { return Ok(()) };
        let longest = self.terms.max_tokens.min(self.output_engine().card().max_len);
        let written = if self.stream { 0 } else { answers.saturating_mul(longest) };
        let tokens = prompt_tokens.saturating_add(written);
        let bytes = tokens.saturating_mul(TOKEN_BYTES + (top + 1) * ALTERNATIVE_BYTES);
        if bytes <= MAX_REPLY_BYTES {
            return Ok(());
        }
        let message = format!(
            "must leave the reply within about {MAX_REPLY_BYTES} bytes, got {bytes}: {tokens} tokens with {top} \
             alternatives each; ask for fewer answers, tokens or alternatives, or for a stream"
        );
        Err(ApiError::parameter("logprobs", message))
    }

    /// The engine in whose vocabulary the answers are.
    pub(super) fn output_engine(&self) -> &Arc<dyn Engine> {
        self.strategy.output_engine()
    }

    /// The stop strings of the request and of the server.
    pub(super) fn stops(&self) -> &[String] {
        &self.terms.stop
    }

    /// The temperature.
    pub(super) fn temperature(&self) -> f32 {
        self.terms.sampling.temperature
    }

    /// The share of top-p.
    pub(super) fn top_p(&self) -> f32 {
        self.terms.sampling.top_p
    }

    /// Tells that all models that answer read the same token ids.
    pub(super) fn has_one_vocabulary(&self) -> bool {
        self.has_one_vocabulary
    }

    /// Returns a reader of one answer; `None` for answers of text alone.
    pub(super) fn answer_reader(&self) -> Option<AnswerReader> {
        let codec = self.output_engine().codec().clone();
        self.reader.clone().map(|reply| AnswerReader::new(reply, codec))
    }

    /// The most tokens in an answer.
    pub(super) fn max_tokens(&self) -> usize {
        self.terms.max_tokens
    }

    /// The index of the prompt that answer `index`, counted over all prompts, belongs to.
    pub(super) fn prompt_of(&self, index: usize) -> usize {
        index / self.n
    }

    /// The seed of answer `index`, counted over all prompts.
    pub(super) fn seed(&self, index: usize) -> u64 {
        self.terms.sampling.seed.wrapping_add((index % self.n) as u64)
    }
}

/// Iterates over the models that requests may name: the strategies, and the further names of the
/// server's own.
pub(super) fn named_recipes(app: &App) -> impl Iterator<Item = (&str, &'static Recipe)> {
    let further = app.serve.served_names.iter().map(|name| (name.as_str(), app.settings.recipe));
    app.offered.iter().map(|&recipe| (recipe.name, recipe)).chain(further)
}

/// Finds the strategy that `model` names, with or without Ollama's tag; without a name, the server's own.
pub(super) fn find_recipe(app: &App, model: Option<String>) -> Result<&'static Recipe, ApiError> {
    let Some(model) = model else { return Ok(app.settings.recipe) };
    // One that is not listed is found too: its own refusal tells what it lacks.
    let all = RECIPES.iter().map(|&recipe| (recipe.name, recipe));
    let found = named_recipes(app).chain(all).find(|(name, _)| without_tag(name) == without_tag(&model));
    found
        .map(|(_, recipe)| recipe)
        .ok_or_else(|| ApiError::unknown_model(&model, named_recipes(app).map(|(name, _)| name)))
}

/// Takes the most tokens in an answer from a field. As in llama-server, -1 means no limit but the
/// context length.
pub(super) fn max_tokens(fields: &mut Fields, field: &'static str) -> Result<Option<usize>, ApiError> {
    if fields.take_if(field, &json!(-1)) {
        return Ok(Some(MAX_TOKENS_LIMIT as usize));
    }
    fields.setting(field, &MAX_TOKENS)
}

/// Takes the stop strings: one text, or a list of texts.
fn stops(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    fields.wrap_text(STOP.name);
    let stops: Vec<String> = fields.setting(STOP.name, &STOP)?.unwrap_or_default();
    check_texts(STOP.name, &stops)?;
    Ok(stops)
}

/// Checks the number and the lengths of texts that are looked for in every answer.
fn check_texts(name: &str, texts: &[String]) -> Result<(), ApiError> {
    if texts.len() > MAX_STOPS {
        let message = format!("must have at most {MAX_STOPS} texts, got {}", texts.len());
        return Err(ApiError::parameter(name, message));
    }
    if let Some(long) = texts.iter().find(|text| text.len() > MAX_STOP_BYTES) {
        let message = format!("must have texts of at most {MAX_STOP_BYTES} bytes, got one of {}", long.len());
        return Err(ApiError::parameter(name, message));
    }
    Ok(())
}

/// Takes `logit_bias`: an object of numbers by token id, as in OpenAI's API, or a list of pairs, as
/// in llama-server.
fn logit_bias(fields: &mut Fields, engine: &dyn Engine) -> Result<Vec<(Token, f32)>, ApiError> {
    let Some(given) = fields.take::<Value>("logit_bias")? else { return Ok(Vec::new()) };
    let refuse = |value: &Value| {
        let limit = format!("an object of numbers from -{MAX_BIAS} to {MAX_BIAS} by token id");
        ApiError::parameter("logit_bias", format!("must be {limit}, got {value}"))
    };
    let pairs: Vec<_> = match &given {
        Value::Object(fields) => fields.iter().map(|(id, bias)| (id.parse().ok(), bias.clone())).collect(),
        Value::Array(pairs) => pairs.iter().map(|pair| (pair[0].as_u64(), pair[1].clone())).collect(),
        other => return Err(refuse(other)),
    };
    if pairs.len() > MAX_BIASES {
        let message = format!("must have at most {MAX_BIASES} tokens, got {}", pairs.len());
        return Err(ApiError::parameter("logit_bias", message));
    }
    let read = |(id, bias): (Option<u64>, Value)| {
        let bias_value = bias.as_f64().filter(|bias| bias.abs() <= MAX_BIAS);
        let token = id.and_then(|id| Token::try_from(id).ok());
        let (token, value) = token.zip(bias_value).ok_or_else(|| refuse(&given))?;
        engine.card().check(&[token])?;
        Ok((token, value as f32))
    };
    pairs.into_iter().map(read).collect()
}

/// Takes `cache_salt`, as in vLLM: requests share cached prefixes only with those of the same salt.
fn cache_salt(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    let salt: Option<String> = fields.take("cache_salt")?;
    match salt.as_ref().map(String::len).filter(|length| !(1..=MAX_SALT_BYTES).contains(length)) {
        Some(length) => {
            Err(ApiError::parameter("cache_salt", format!("must have 1 to {MAX_SALT_BYTES} bytes, got {length}")))
        }
        None => Ok(salt),
    }
}

/// Takes `stream_options`, and tells whether a stream ends with the token counts.
fn include_usage(fields: &mut Fields, stream: bool, strict: bool) -> Result<bool, ApiError> {
    let Some(options) = fields.take::<Value>("stream_options")? else { return Ok(false) };
    if !stream {
        return Err(ApiError::parameter("stream_options", "must be left out without `stream`"));
    }
    let mut options = Fields::new(options, "stream_options")?;
    let include = options.take("include_usage")?.unwrap_or(false);
    options.ignore(Place::StreamOptions, strict);
    // Random padding, which hides the lengths of tokens from eavesdroppers.
    options.unsupported(&[("include_obfuscation", &["false"])])?;
    options.finish()?;
    Ok(include)
}
