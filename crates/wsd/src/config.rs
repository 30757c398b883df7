//! Settings: the defaults, above them `wsd.toml`, above that the command line; checked once, here.

mod args;
mod file;
mod models;
mod prompt;
mod record;
mod remote;
mod sections;
mod serve;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wsd_core::{
    Error, FromValue, Job, MAX_TOKENS, Prompt, Recipe, Result, STRATEGY, Seat, Setting, Terms, Value, Values,
};

pub use args::{ServeArgs, SettingArgs, SharedArgs};
pub use models::{ModelSettings, TemplateForm};
pub use prompt::PromptSettings;
pub use remote::{RemoteModel, RemoteSettings};
pub use sections::{SECTIONS, Section};
pub use serve::{KeySource, LogFormat, ServeSettings};

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "wsd.toml";

/// The settings that one source gives; each may be absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Partial(Values);

/// All settings, each within its limits.
#[derive(Clone)]
pub struct Settings {
    /// The models that are named, by seat.
    pub models: BTreeMap<Seat, ModelSettings>,
    /// Access to models on other machines.
    pub remote: RemoteSettings,
    /// The strategy.
    pub recipe: &'static Recipe,
    /// The settings of strategies, terms and sampling.
    pub values: Values,
    /// The text around a prompt.
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
        /// The fault.
        source: Error,
    },
    /// A file that does not parse: not TOML, an unknown key, a value outside its limits.
    #[error("{}:{line}: {message}", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The fault, with the key and its limits.
        message: String,
    },
    /// A file that cannot be read.
    #[error(transparent)]
    Read(#[from] std::io::Error),
}

impl Partial {
    /// Reads a file. Without a name, reads `wsd.toml` in the working folder if it exists.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and the key.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let default = Path::new(DEFAULT_FILE);
        let path = match path {
            None if !default.exists() => return Ok(Self::default()),
            path => path.unwrap_or(default),
        };
        let text = wsd_core::Input::SETTINGS.read_text(path)?;
        let settings: Self = toml::from_str(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count() + 1;
            ConfigError::Parse { path: path.into(), line, message: error.message().to_owned() }
        })?;
        // Resolved alone, so that a message can name the file.
        settings.clone().resolve().map_err(|source| ConfigError::FileValue { path: path.into(), source })?;
        Ok(settings)
    }

    /// Tells whether a setting was given.
    #[must_use]
    pub fn is_set(&self, setting: &'static Setting) -> bool {
        self.0.is_set(setting)
    }

    /// The value of a setting, if it was given.
    #[must_use]
    pub fn get<T: FromValue>(&self, setting: &'static Setting) -> Option<T> {
        self.0.is_set(setting).then(|| self.0.get(setting))
    }

    /// Sets a value where none was given.
    ///
    /// # Errors
    /// [`Error::Setting`] for a value outside the setting's limits.
    pub fn set_default(&mut self, setting: &'static Setting, value: impl Into<Value>) -> Result<()> {
        if self.0.is_set(setting) { Ok(()) } else { self.0.set(setting, value.into()) }
    }

    /// Turns the prefix cache off where it was not set, so that measurements of requests with a
    /// common prefix do not depend on each other.
    ///
    /// # Errors
    /// None in practice: 0 is within the setting's limits.
    pub fn without_prefix_cache(&mut self) -> Result<()> {
        self.set_default(&models::PREFIX_CACHE_TOKENS, 0usize)
    }

    /// Names the settings here that `upper` overrides because `raw` excludes the settings of a
    /// chat.
    #[must_use]
    pub fn overridden_by(&self, upper: &Self) -> Vec<&'static str> {
        prompt::overridden(&self.0, &upper.0).into_iter().map(|setting| setting.name).collect()
    }

    /// These settings, and those of `lower` that are absent here. Where `raw` and the settings of a
    /// chat exclude each other, these hold.
    #[must_use]
    pub fn or(self, mut lower: Self) -> Self {
        for setting in prompt::overridden(&lower.0, &self.0) {
            lower.0.unset(setting);
        }
        Self(self.0.or(lower.0))
    }

    /// Fills in the defaults and checks settings against each other.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first fault.
    pub fn resolve(self) -> Result<Settings> {
        let Self(values) = self;
        Ok(Settings {
            models: models::parse(&values)?,
            remote: RemoteSettings::from_values(&values),
            recipe: Recipe::find(values.get(&STRATEGY))?,
            prompt: PromptSettings::parse(&values)?,
            serve: ServeSettings::parse(&values)?,
            values,
        })
    }
}

impl Settings {
    /// The model of a seat, if one is named.
    #[must_use]
    pub fn model(&self, seat: Seat) -> Option<&ModelSettings> {
        self.models.get(&seat)
    }

    /// The same settings with another model in `seat`, which otherwise runs as the present one
    /// does.
    #[must_use]
    pub fn with_model(mut self, seat: Seat, name: &str) -> Self {
        if let Some(model) = self.models.get_mut(&seat) {
            model.name = name.to_owned();
        }
        self
    }

    /// The terms of answers.
    #[must_use]
    pub fn terms(&self) -> Terms {
        Terms::from_values(&self.values)
    }

    /// The most tokens in an answer.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.values.get(&MAX_TOKENS)
    }

    /// The request to continue `prompt` under these settings.
    #[must_use]
    pub fn job(&self, prompt: Prompt) -> Job {
        Job { prompt, terms: self.terms() }
    }

    /// The request to continue `prompt` under `values`, which take precedence over these settings.
    #[must_use]
    pub fn job_with(&self, prompt: Prompt, values: Values) -> Job {
        Job { prompt, terms: Terms::from_values(&values.or(self.values.clone())) }
    }
}

#[cfg(test)]
mod tests;
