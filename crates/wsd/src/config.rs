//! Settings: the defaults, above them `wsd.toml`, above that the command line; checked once, here.

mod args;
mod file;
mod models;
mod pairs;
mod prompt;
mod record;
mod remote;
mod sections;
mod serve;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wsd_core::{
    Error, FromValue, Job, MAX_TOKENS, Models, Need, Prompt, Recipe, Result, SAMPLING, STRATEGY, Seat, Setting, Terms,
    Value, Values,
};

pub use args::{ServeArgs, SettingArgs, SharedArgs};
pub use models::{ModelSettings, TemplateForm};
pub use pairs::{PAIRS, Pair};
pub use prompt::PromptSettings;
pub use remote::{RemoteModel, RemoteSettings};
pub use sections::{SECTIONS, Section};
pub use serve::{KeySource, LogFormat, ServeSettings};
pub(crate) use serve::{OLLAMA_TAG, without_tag};

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "wsd.toml";

/// The beginning of the names of models inside the binary.
pub(crate) const BUILTIN: &str = "builtin:";

/// The settings that one source gives; each may be absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Partial(Values);

/// All settings, each within its limits.
#[derive(Clone)]
pub struct Settings {
    /// The models by seat: those that are named, and built-in ones for base and draft where neither is a
    /// model of one's own.
    pub models: BTreeMap<Seat, ModelSettings>,
    /// The file that names a model, if one does and the command line does not.
    pub models_from: Option<PathBuf>,
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
    /// Reads a file. Without a name, reads `wsd.toml` in the working folder if it exists, which then may
    /// not set what acts on this machine ([`Setting::host_only`]).
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and the key.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let (default, is_named) = (Path::new(DEFAULT_FILE), path.is_some());
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
        let value = |source| ConfigError::FileValue { path: path.into(), source };
        settings.clone().resolve().map_err(value)?;
        if !is_named {
            settings.check_found().map_err(value)?;
        }
        settings.with_pair().map_err(value)
    }

    /// Checks that a file that nobody named, and that may have come with its folder from elsewhere, sets
    /// nothing that acts on this machine.
    fn check_found(&self) -> Result<()> {
        let mut settings = SECTIONS.iter().flat_map(Section::settings);
        match settings.find(|setting| setting.host_only && self.is_set(setting)) {
            Some(setting) => Err(Error::Setting {
                name: setting.name,
                limit: "given on the command line or in a file that --config names".into(),
                value: format!(
                    "one in the working folder's own file\n  hint: read it first, then take --config {DEFAULT_FILE}"
                ),
            }),
            None => Ok(()),
        }
    }

    /// The same settings with those of the pair that they name, where they do not set them.
    ///
    /// # Errors
    /// None in practice: the settings of pairs are within their limits.
    pub fn with_pair(self) -> Result<Self> {
        match Pair::named(&self.0) {
            Some(pair) => Ok(Self(self.0.or(pair.values()?))),
            None => Ok(self),
        }
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

    /// Tells whether a model of the pair is named here.
    #[must_use]
    pub fn names_models(&self) -> bool {
        [&*models::BASE, &models::DRAFT].iter().any(|setting| self.0.is_set(setting))
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
        let Self(values) = self.with_pair()?;
        Ok(Settings {
            models: models::parse(&values)?,
            models_from: None,
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

    /// The same settings with another base, which otherwise runs as they say.
    ///
    /// # Errors
    /// [`Error::Setting`] for a name that `base` may not have.
    pub fn with_base(mut self, name: &str) -> Result<Self> {
        let mut values = self.values.clone();
        values.set(&models::BASE, name.to_owned().into())?;
        if let Some(draft) = self.model(Seat::DRAFT) {
            values.set(&models::DRAFT, draft.name.clone().into())?;
        }
        self.models.extend(models::parse(&values)?.remove_entry(&Seat::BASE));
        Ok(self)
    }

    /// Checks that a model is named for each seat that `needs` do not do without.
    ///
    /// # Errors
    /// [`Error::Setting`] names the seat that is missing.
    pub fn check_seats(&self, needs: &[Need]) -> Result<()> {
        let is_missing = |need: &&Need| (need.is_required)(&self.values) && self.model(need.seat).is_none();
        let Some(seat) = needs.iter().filter(is_missing).map(|need| need.seat).min() else { return Ok(()) };
        let name = seat.name();
        let (limit, hint) = match [Seat::DRAFT, Seat::BASE].into_iter().find(|other| *other != seat) {
            Some(other) if seat <= Seat::BASE => {
                let file = self.models_from.as_ref().map_or_else(String::new, |it| format!(" (in {})", it.display()));
                let hint = format!(
                    "name both models, --base LARGE --draft SMALL, or take --pair NAME (`wsd pairs` lists them); \
                     {BUILTIN}{name} is a toy that only knows its own world; --strategy {other} runs one model alone"
                );
                (format!("given where `{other}` is{file}"), hint)
            }
            _ => ("given for this strategy and these settings".into(), format!("name one with {}", seat.option())),
        };
        Err(Error::Setting { name, limit, value: format!("none\n  hint: {hint}") })
    }

    /// Takes sampling that is not set from the files of the strategy's first model, which writes the
    /// beginning of answers, unless `generation_config` is off. Returns the settings that were taken.
    pub fn adopt_sampling(&mut self, models: &Models) -> Vec<&'static Setting> {
        let first = self.recipe.needs.iter().find_map(|need| models.get(need.seat));
        self.adopt(first.map(|engine| engine.files().sampling).unwrap_or_default())
    }

    /// Takes recommended sampling where it is not set, unless `generation_config` is off. Returns the
    /// settings that were taken.
    pub fn adopt(&mut self, recommended: Values) -> Vec<&'static Setting> {
        if !self.values.get::<bool>(&models::GENERATION_CONFIG) {
            return Vec::new();
        }
        let is_taken = |setting: &&&'static Setting| recommended.is_set(setting) && !self.values.is_set(setting);
        let taken = SAMPLING.iter().filter(is_taken).copied().collect();
        self.values = std::mem::take(&mut self.values).or(recommended);
        taken
    }

    /// Tells whether [`Settings::adopt_sampling`] may change these settings.
    #[must_use]
    pub fn may_adopt_sampling(&self) -> bool {
        let first = self.recipe.needs.iter().find_map(|need| self.model(need.seat));
        self.values.get::<bool>(&models::GENERATION_CONFIG) && first.is_some_and(|model| !model.is_builtin())
    }

    /// Tells whether a model that `needs` ask for is a built-in one.
    #[must_use]
    pub fn has_builtin(&self, needs: &[Need]) -> bool {
        needs.iter().any(|need| self.model(need.seat).is_some_and(ModelSettings::is_builtin))
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
