//! Loading models: from the names in the settings to engines.

mod builtin;

pub use builtin::{BUILTIN_ABOUT, BUILTIN_EXAMPLES, builtin_checkpoint, builtin_pair, is_about_builtin};

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use wsd_core::{Engine, Input, Models, Need, Recipe, Seat, Values};
use wsd_nn::adapter::CONFIG_FILE;
use wsd_nn::{Checkpoint, LoadOptions, Local, TemplateChoice};

use crate::config::{BUILTIN, ModelSettings, RemoteModel, Settings, TemplateForm};
use crate::hub::{self, HubError, HubOptions, Progress};
use crate::remote::{self, Address, Remote, RemoteError, RemoteOptions};
use crate::words;

/// Size of weights whose loading is announced, because it may take seconds.
const ANNOUNCED_BYTES: u64 = 256 << 20;

/// Failure to load a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The settings name models that do not go together.
    #[error(transparent)]
    Settings(#[from] wsd_core::Error),
    /// No model has this name.
    #[error(transparent)]
    Name(#[from] HubError),
    /// No built-in model has this name.
    #[error("there is no built-in model `{name}`\n  hint: there are {known}")]
    NotBuiltin {
        /// The name that was given.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The chat template cannot be read.
    #[error("the chat template for the {seat} model cannot be read")]
    Template {
        /// The model's seat.
        seat: Seat,
        /// The cause.
        source: std::io::Error,
    },
    /// A model on another machine cannot be used.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The checkpoint cannot be loaded.
    #[error("the {seat} model `{name}` cannot be loaded")]
    Load {
        /// The model's seat.
        seat: Seat,
        /// The name that was given.
        name: String,
        /// The cause.
        source: Box<wsd_nn::Error>,
    },
}

/// Sessions that an answer may have with one model: its own, and that of a scorer of steps. An answer
/// that waited for a session while it holds another one could wait for ever.
pub const SESSIONS_PER_ANSWER: usize = 2;

/// Lists the needs of several recipes, for [`load`].
pub fn needs<'a, T: ?Sized + 'a>(recipes: impl IntoIterator<Item = &'a Recipe<T>>) -> Vec<Need> {
    recipes.into_iter().flat_map(|recipe| recipe.needs).copied().collect()
}

/// Lists the needs of a recipe, and every other seat as an optional one, for programs in which the
/// recipe may be exchanged.
#[must_use]
pub fn needs_of_any(recipe: &Recipe) -> Vec<Need> {
    let others = Seat::all().map(|seat| Need::any(seat).optional());
    recipe.needs.iter().copied().chain(others).collect()
}

/// Lists the seats that a recipe needs.
pub fn seats<T: ?Sized>(recipe: &Recipe<T>) -> Vec<Seat> {
    recipe.needs.iter().map(|need| need.seat).collect()
}

/// Loads the models of the settings that `needs` ask for, each ready for `answers` answers at once.
///
/// # Errors
/// [`ModelError`] names the model and the fault, or the model of the pair that is missing.
pub fn load(
    settings: &Settings,
    needs: &[Need],
    answers: usize,
    progress: &mut dyn Progress,
) -> Result<Models, ModelError> {
    settings.check_seats(needs)?;
    let seats: BTreeSet<_> = needs.iter().map(|need| need.seat).collect();
    let named = |&seat: &Seat| settings.model(seat).into_iter().flat_map(ModelSettings::each).map(move |it| (seat, it));
    // All names and templates are checked before anything is downloaded, and all files are there before
    // the first model is loaded, which takes long.
    let parts = seats.iter().flat_map(named).map(|(seat, model)| Part::parse(seat, model));
    let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
    for part in &mut parts {
        part.find(progress)?;
    }
    let mut models = Models::default();
    for part in parts {
        let seat = part.seat;
        let engine = match part.place {
            Place::Remote(ref addresses) => Arc::new(part.open_remote(addresses, (settings, needs), progress)?),
            Place::Builtin | Place::Files(_) => part.open(answers.saturating_mul(SESSIONS_PER_ANSWER), progress)?,
        };
        models.add(seat, engine);
    }
    Ok(models)
}

/// Reads the sampling that the files of the strategy's first model recommend, as [`Engine::files`] tells
/// it, without loading the model.
///
/// # Errors
/// [`ModelError`] names the model and the fault.
pub fn recommended_sampling(settings: &Settings, progress: &mut dyn Progress) -> Result<Values, ModelError> {
    let first = settings.recipe.needs.iter().find_map(|need| Some((need.seat, settings.model(need.seat)?)));
    let Some((seat, model)) = first.filter(|_| settings.may_adopt_sampling()) else { return Ok(Values::default()) };
    let mut part = Part::parse(seat, model.clone())?;
    part.find(progress)?;
    let Place::Files(path) = part.place else { return Ok(Values::default()) };
    let checkpoint = Checkpoint::open_text(&path);
    let fault = |source| ModelError::Load { seat, name: model.name.clone(), source: Box::new(source) };
    checkpoint.map(|checkpoint| checkpoint.sampling()).map_err(fault)
}

/// A model to load.
struct Part {
    seat: Seat,
    model: ModelSettings,
    template: TemplateChoice,
    place: Place,
}

/// The place of a model.
enum Place {
    /// Servers of one model on other machines.
    Remote(Vec<Address>),
    /// Inside the binary.
    Builtin,
    /// A folder or file of this machine; until it is found, the name that stands for it.
    Files(PathBuf),
}

impl Place {
    /// Checks the name of a model.
    fn parse(name: &str) -> Result<Self, ModelError> {
        if Address::is_one(name) {
            return Ok(Self::Remote(Address::parse_list(name)?));
        }
        if name.starts_with(BUILTIN) {
            return builtin::check(name).map(|()| Self::Builtin);
        }
        hub::check(name)?;
        Ok(Self::Files(name.into()))
    }
}

impl Part {
    /// Checks the name of a model and reads its template.
    fn parse(seat: Seat, model: ModelSettings) -> Result<Self, ModelError> {
        let place = Place::parse(&model.name)?;
        if let (Place::Remote(_), Some(folder)) = (&place, &model.draft_head) {
            let limit = "left out with a remote base, whose features stay there".to_owned();
            return Err(wsd_core::Error::Setting { name: "head", limit, value: folder.display().to_string() }.into());
        }
        Ok(Self { seat, template: template(seat, &model.template)?, model, place })
    }

    /// Finds the files of a model on this machine, after downloading what is missing.
    fn find(&mut self, progress: &mut dyn Progress) -> Result<(), ModelError> {
        if let Place::Files(path) = &mut self.place {
            let mut options = HubOptions::from_env();
            options.offline |= self.model.offline;
            *path = hub::resolve(&self.model.name, &options, progress)?;
        }
        Ok(())
    }

    fn open_remote(
        &self,
        addresses: &[Address],
        (settings, needs): (&Settings, &[Need]),
        progress: &mut dyn Progress,
    ) -> Result<Remote, ModelError> {
        let (remote, seat) = (&settings.remote, self.seat);
        let RemoteModel { tokenizer, key_env } = remote.model(seat);
        let options = RemoteOptions {
            seat,
            addresses: addresses.to_vec(),
            tokenizer,
            hub: HubOptions::from_env(),
            key_env,
            template: self.template.clone(),
            template_variables: self.model.template_variables.clone(),
            limits: remote.limits,
            attempts: remote.attempts,
            teacher_forcing: remote.teacher_forcing,
            must_score: needs.iter().any(|need| need.seat == seat && need.caps.score),
        };
        Ok(remote::open(&options, progress)?)
    }

    fn open(self, max_sessions: usize, progress: &mut dyn Progress) -> Result<Arc<dyn Engine>, ModelError> {
        let model = self.model;
        let mut options = LoadOptions {
            threads: model.threads,
            device: model.device,
            dtype: model.dtype,
            adapters: model.adapters,
            draft_head: model.draft_head,
            kv_dtype: model.kv_dtype,
            template: self.template,
            template_variables: model.template_variables,
            max_sessions,
            prefix_cache_tokens: model.prefix_cache_tokens,
            ..LoadOptions::new(&model.name)
        };
        let Place::Files(path) = self.place else { return builtin::open(self.seat, &options, progress) };
        // As in transformers, an adapter that stands beside a model belongs to it.
        if path.join(CONFIG_FILE).is_file() && path.join("config.json").is_file() {
            options.adapters.push(path.clone());
        }
        let checkpoint = Checkpoint::open(&path);
        let checkpoint = checkpoint.map(|it| if model.copy_weights { it.in_memory() } else { it });
        load_checkpoint(self.seat, checkpoint, &options, progress)
    }
}

fn load_checkpoint(
    seat: Seat,
    checkpoint: wsd_nn::Result<Checkpoint>,
    options: &LoadOptions,
    progress: &mut dyn Progress,
) -> Result<Arc<dyn Engine>, ModelError> {
    let checkpoint = checkpoint.inspect(|checkpoint| {
        checkpoint.warnings.iter().for_each(|warning| progress.note(warning));
        let unfit = options.dtype.map(|format| (format, checkpoint.weights.unfit_for(format)));
        if let Some((format, (unfit @ 1.., matrices))) = unfit {
            let values = format.block_values();
            progress.note(&format!(
                "{unfit} of {matrices} matrices of the {seat} model stay as they are: their rows are not a multiple of \
                 {values} values, the size of a {format} block"
            ));
        }
    });
    let started = Instant::now();
    let loaded = checkpoint.and_then(|checkpoint| {
        let bytes = checkpoint.weights.total_bytes() as u64;
        if bytes >= ANNOUNCED_BYTES && !options.name.starts_with(BUILTIN) {
            progress.note(&format!("loading the {seat} model, {} ...", words::bytes(bytes)));
        }
        Local::load(checkpoint, options)
    });
    match loaded {
        Ok(engine) => {
            if !options.name.starts_with(BUILTIN) {
                let seconds = started.elapsed().as_secs_f64();
                progress.note(&format!("{}, loaded in {seconds:.1} s", describe(seat, &engine)));
            }
            Ok(Arc::new(engine))
        }
        Err(source) => Err(ModelError::Load { seat, name: options.name.clone(), source: Box::new(source) }),
    }
}

/// Describes a model in one line: file or folder, weights, size, context, and a device other than the CPU.
#[must_use]
pub fn describe(seat: Seat, engine: &dyn Engine) -> String {
    let (card, files) = (engine.card(), engine.files());
    let weights = (files.parameters > 0)
        .then(|| format!(", {} parameters, {}", words::count(files.parameters), words::bytes(files.bytes)));
    // The CPU is what everybody expects who is told nothing.
    let device = engine.device().filter(|device| device != "cpu").map(|device| format!(", on {device}"));
    format!(
        "{seat}: {}{}, context of {} tokens{}",
        short_name(&card.name),
        weights.unwrap_or_default(),
        words::grouped(card.max_len as u64),
        device.unwrap_or_default()
    )
}

/// Returns a model's name without the folders of this machine, which do not concern clients: the last
/// part of a path. Addresses and names of the hub stay.
///
/// ```
/// use wsd::models::short_name;
/// assert_eq!(["./base", "of/a/customer", "of/base.gguf"].map(short_name), ["base", "customer", "base.gguf"]);
/// for name in ["org/name", "org/name:q4.gguf", "org/name:Q4/q4.gguf", "org/name@refs/pr/1"] {
///     assert_eq!(short_name(name), name);
/// }
/// assert_eq!(short_name("vllm+http://host/v1/m"), "vllm+http://host/v1/m");
/// ```
#[must_use]
pub fn short_name(name: &str) -> &str {
    let is_file = name.to_ascii_lowercase().ends_with(".gguf") && !name.contains(':');
    // A revision and the path of a file in a repository may hold slashes of their own.
    let is_of_hub = name.contains(['@', ':']) && hub::HubName::parse(name).is_ok();
    let is_path = name.starts_with(['/', '.', '~']) || is_file || (name.matches('/').count() > 1 && !is_of_hub);
    let last = Path::new(name).file_name().and_then(|last| last.to_str());
    last.filter(|_| is_path && !Address::is_one(name)).unwrap_or(name)
}

fn template(seat: Seat, form: &TemplateForm) -> Result<TemplateChoice, ModelError> {
    Ok(match form {
        TemplateForm::Own => TemplateChoice::Own,
        TemplateForm::Plain => TemplateChoice::Plain,
        TemplateForm::File(path) => TemplateChoice::Source {
            name: path.display().to_string(),
            text: Input::SETTINGS.read_text(path).map_err(|source| ModelError::Template { seat, source })?,
        },
    })
}
