//! Settings: the defaults, above them `wsd.toml`, above that the command line; checked once, here.

mod groups;
mod record;
mod remote;
mod serve;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use wsd_core::{Error, Job, Options, Prompt, Recipe, Role, Rule, Sampling};
use wsd_nn::{Device, LoadOptions};

pub use groups::{DecodeArgs, ModelArgs, PromptArgs, RemoteArgs, SamplingArgs, ServeArgs, TemplateForm};
pub use remote::RemoteSettings;
pub use serve::{KeySource, ServeSettings};

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "wsd.toml";
/// Threads that a model may start.
const THREADS: RangeInclusive<usize> = 1..=512;

/// What one source says; anything may be absent.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Partial {
    /// `[models]`.
    #[command(flatten)]
    pub models: ModelArgs,
    /// `[remote]`.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// `[decode]`.
    #[command(flatten)]
    pub decode: DecodeArgs,
    /// `[sampling]`.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// `[prompt]`.
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// `[serve]`; its flags belong to one command.
    #[arg(skip)]
    pub serve: ServeArgs,
}

/// Where a model is and how it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSettings {
    /// A folder, a file, a hub name, or `builtin:base` and `builtin:draft`.
    pub name: String,
    /// How it reads a chat.
    pub template: TemplateForm,
    /// Processor threads; all cores where absent.
    pub threads: Option<usize>,
    /// What it runs on.
    pub device: Device,
    /// The format weights are converted to; the checkpoint's where absent.
    pub dtype: Option<String>,
    /// Tokens of ended requests whose keys and values are kept.
    pub prefix_cache_tokens: usize,
    /// Whether nothing may be downloaded; where false, the environment may still forbid it.
    pub offline: bool,
}

/// What stands around a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptSettings {
    /// Instructions above the conversation.
    pub system: Option<String>,
    /// The beginning of the answer.
    pub prefill: Option<String>,
    /// No chat form.
    pub raw: bool,
}

/// All settings, each within its limits.
#[derive(Clone)]
pub struct Settings {
    /// The large model.
    pub base: ModelSettings,
    /// The small aligned model.
    pub draft: ModelSettings,
    /// Models on other machines.
    pub remote: RemoteSettings,
    /// The strategy.
    pub recipe: &'static Recipe,
    /// How it works.
    pub options: Options,
    /// At most this many tokens in an answer.
    pub max_tokens: usize,
    /// Strings that end an answer.
    pub stop: Vec<String>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What stands around a prompt.
    pub prompt: PromptSettings,
    /// The server.
    pub serve: ServeSettings,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value outside its limits.
    #[error(transparent)]
    Value(#[from] Error),
    /// A value outside its limits, in a file.
    #[error("{}: {source}", .path.display())]
    FileValue {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Error,
    },
    /// A file that does not parse: not TOML, an unknown key, a value of the wrong type.
    #[error("{}:{line}: {message}", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong, with the key and the keys there are.
        message: String,
    },
    /// A file that cannot be read.
    #[error(transparent)]
    Read(#[from] std::io::Error),
}

impl Partial {
    /// Read a file. Without a name, `wsd.toml` in the working folder where there is one.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and the key.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let path = match path {
            None if !default.exists() => return Ok(Self::default()),
            path => path.unwrap_or(default),
        };
        let text = fs_err::read_to_string(path)?;
        let settings: Self = toml::from_str(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count() + 1;
            ConfigError::Parse { path: path.into(), line, message: error.message().to_owned() }
        })?;
        // Checked alone, so that a message can say that the file is at fault.
        settings.clone().resolve().map_err(|source| ConfigError::FileValue { path: path.into(), source })?;
        Ok(settings)
    }

    /// The settings here that do not hold under `upper`, because `raw` and what only a chat has exclude each other.
    #[must_use]
    pub fn silenced_by(&self, upper: &Self) -> Vec<&'static str> {
        let (here, above) = (&self.prompt, &upper.prompt);
        let (raw, chat) = (above.raw == Some(true), above.system.is_some() || above.prefill.is_some());
        let silenced = [
            ("system", raw && here.system.is_some()),
            ("prefill", raw && here.prefill.is_some()),
            ("raw", !raw && chat && here.raw == Some(true)),
        ];
        silenced.into_iter().filter(|&(_, silenced)| silenced).map(|(key, _)| key).collect()
    }

    /// These settings, and those of `lower` where they say nothing. Between `raw` and what only a chat has, the upper word
    /// holds.
    #[must_use]
    pub fn or(self, mut lower: Self) -> Self {
        let chat_only = self.prompt.system.is_some() || self.prompt.prefill.is_some();
        if self.prompt.raw == Some(true) {
            (lower.prompt.system, lower.prompt.prefill) = (None, None);
        } else if chat_only {
            lower.prompt.raw = None;
        }
        Self {
            models: self.models.or(lower.models),
            remote: self.remote.or(lower.remote),
            decode: self.decode.or(lower.decode),
            sampling: self.sampling.or(lower.sampling),
            prompt: self.prompt.or(lower.prompt),
            serve: self.serve.or(lower.serve),
        }
    }

    /// Fill in the defaults and check every value.
    ///
    /// # Errors
    /// [`Error::Setting`] or [`Error::UnknownStrategy`] for the first value outside its limits.
    pub fn resolve(self) -> Result<Settings, Error> {
        let Self { models, remote, decode, sampling, prompt, serve } = self;
        let (rule, options, random) = (Rule::default(), Options::default(), Sampling::default());
        let at_least_one = |name, value: Option<usize>| match value {
            Some(0) => Err(Error::Setting { name, limit: "at least 1", value: "0".into() }),
            value => Ok(value),
        };
        let settings = Settings {
            base: models.of(Role::Base),
            draft: models.of(Role::Draft),
            remote: RemoteSettings::parse(remote)?,
            recipe: Recipe::find(decode.strategy.as_deref().unwrap_or("wsd"))?,
            options: Options {
                rule: Rule::parse(
                    decode.window.unwrap_or(rule.window()),
                    decode.threshold.unwrap_or(rule.threshold()),
                )?,
                max_draft_tokens: decode.max_draft_tokens.unwrap_or(options.max_draft_tokens),
                chunk_tokens: decode.chunk_tokens.or(options.chunk_tokens),
                on_draft_end: decode.on_draft_end.unwrap_or(options.on_draft_end),
                speculate: decode.speculate.unwrap_or(options.speculate),
                nudge_threshold: decode.nudge_threshold.unwrap_or(options.nudge_threshold),
            }
            .check()?,
            max_tokens: at_least_one("max_tokens", decode.max_tokens)?.unwrap_or(512),
            stop: match decode.stop.unwrap_or_default() {
                stop if stop.iter().any(String::is_empty) => {
                    return Err(Error::Setting { name: "stop", limit: "at least one character", value: "none".into() });
                }
                stop => stop,
            },
            sampling: Sampling {
                temperature: sampling.temperature.unwrap_or(random.temperature),
                top_k: sampling.top_k.unwrap_or(random.top_k),
                top_p: sampling.top_p.unwrap_or(random.top_p),
                min_p: sampling.min_p.unwrap_or(random.min_p),
                repetition_penalty: sampling.repetition_penalty.unwrap_or(random.repetition_penalty),
                seed: sampling.seed.unwrap_or(random.seed),
            }
            .check()?,
            prompt: PromptSettings { system: prompt.system, prefill: prompt.prefill, raw: prompt.raw.unwrap_or(false) },
            serve: ServeSettings::parse(serve)?,
        };
        if let Some(threads) = models.threads.filter(|threads| !THREADS.contains(threads)) {
            return Err(Error::Setting { name: "threads", limit: "from 1 to 512", value: threads.to_string() });
        }
        settings.prompt.check()?;
        Ok(settings)
    }
}

impl ModelArgs {
    fn of(&self, role: Role) -> ModelSettings {
        let (name, template, default, own_dtype) = match role {
            Role::Base => (&self.base, &self.base_template, TemplateForm::Plain, &None),
            Role::Draft => (&self.draft, &self.draft_template, TemplateForm::Own, &self.draft_dtype),
        };
        ModelSettings {
            name: name.clone().unwrap_or_else(|| format!("builtin:{role}")),
            template: template.clone().unwrap_or(default),
            threads: self.threads,
            device: self.device.unwrap_or_default(),
            dtype: own_dtype.as_ref().or(self.dtype.as_ref()).cloned(),
            prefix_cache_tokens: self.prefix_cache_tokens.unwrap_or(LoadOptions::PREFIX_CACHE_TOKENS),
            offline: self.offline.unwrap_or(false),
        }
    }
}

impl PromptSettings {
    fn check(&self) -> Result<(), Error> {
        let chat_only = [("system", &self.system), ("prefill", &self.prefill)];
        match chat_only.into_iter().find(|(_, value)| self.raw && value.is_some()) {
            Some((name, _)) => Err(Error::Setting { name, limit: "left out with `raw`", value: "both".into() }),
            None => Ok(()),
        }
    }
}

impl Settings {
    /// The model of a role.
    #[must_use]
    pub fn model(&self, role: Role) -> &ModelSettings {
        match role {
            Role::Base => &self.base,
            Role::Draft => &self.draft,
        }
    }

    /// The request to continue `prompt` under these settings.
    #[must_use]
    pub fn job(&self, prompt: Prompt) -> Job {
        Job { prompt, max_tokens: self.max_tokens, sampling: self.sampling, stop: self.stop.clone(), top_logprobs: 0 }
    }
}

#[cfg(test)]
mod tests;
