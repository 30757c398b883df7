//! From the names in the settings to engines that answer.

mod builtin;

use std::sync::Arc;

use wsd_core::{Engine, Models, Recipe, Seat};
use wsd_nn::{Checkpoint, Format, LoadOptions, Local, TemplateChoice};

use crate::config::{ModelSettings, Settings, TemplateForm};
use crate::hub::{HubError, HubOptions, Progress};
use crate::remote::{self, Address, Remote, RemoteError, RemoteOptions};

/// A model that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The name leads nowhere.
    #[error(transparent)]
    Name(#[from] HubError),
    /// There are no such files in the binary.
    #[error("there is no built-in model `{name}`\n  hint: there are {known}")]
    NotBuiltin {
        /// The name given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// No such number format.
    #[error("`dtype` of the {role} model must be one of {known}, given: {value}")]
    Dtype {
        /// The model it was meant for.
        role: Seat,
        /// What was given.
        value: String,
        /// The formats there are.
        known: String,
    },
    /// The chat template cannot be read.
    #[error("the chat template for the {role} model cannot be read")]
    Template {
        /// The model it was meant for.
        role: Seat,
        /// Why not.
        source: std::io::Error,
    },
    /// A model on another machine cannot be used.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The checkpoint cannot be loaded.
    #[error("the {role} model `{name}` cannot be loaded")]
    Load {
        /// What it was meant for.
        role: Seat,
        /// The name given.
        name: String,
        /// Why not.
        source: Box<wsd_nn::Error>,
    },
}

/// The roles that a recipe needs.
pub fn roles(recipe: &Recipe) -> Vec<Seat> {
    recipe.needs.iter().map(|&(role, _)| role).collect()
}

/// Load the models of `roles`, each ready for `max_sessions` conversations at once.
///
/// # Errors
/// [`ModelError`] names the model and what is wrong with it.
pub fn load(
    settings: &Settings,
    roles: &[Seat],
    max_sessions: usize,
    progress: &mut dyn Progress,
) -> Result<Models, ModelError> {
    let mut models = Models::default();
    for &seat in roles {
        let engine = match Address::is_one(&settings.model(role).name) {
            true => Arc::new(open_remote(role, settings, progress)?),
            false => open(role, settings.model(role), max_sessions, progress)?,
        };
        match role {
            Seat::BASE => models.base = Some(engine),
            Seat::DRAFT => models.draft = Some(engine),
        }
    }
    Ok(models)
}

fn open_remote(role: Seat, settings: &Settings, progress: &mut dyn Progress) -> Result<Remote, ModelError> {
    let (model, remote) = (settings.model(role), &settings.remote);
    let [tokenizer, key_env] = remote.of(role).clone();
    let options = RemoteOptions {
        role,
        addresses: Address::parse_list(&model.name)?,
        tokenizer,
        hub: HubOptions::from_env(),
        key_env,
        template: template(role, &model.template)?,
        limits: remote.limits,
        attempts: remote.attempts,
        teacher_forcing: remote.teacher_forcing,
        must_score: settings.recipe.needs.iter().any(|&(needed, caps)| needed == role && caps.score),
    };
    Ok(remote::open(&options, progress)?)
}

fn open(
    role: Seat,
    model: &ModelSettings,
    max_sessions: usize,
    progress: &mut dyn Progress,
) -> Result<Arc<dyn Engine>, ModelError> {
    // Before anything is downloaded.
    let options = LoadOptions {
        threads: model.threads,
        device: model.device,
        dtype: model.dtype.as_deref().map(|name| format(role, name)).transpose()?,
        template: template(role, &model.template)?,
        max_sessions,
        prefix_cache_tokens: model.prefix_cache_tokens,
        ..LoadOptions::new(&model.name)
    };
    if model.name.starts_with("builtin:") {
        return builtin::open(role, &options, progress);
    }
    let mut hub = HubOptions::from_env();
    hub.offline |= model.offline;
    let path = crate::hub::resolve(&model.name, &hub, progress)?;
    load_checkpoint(role, Checkpoint::open(&path), &options, progress)
}

fn load_checkpoint(
    role: Seat,
    checkpoint: wsd_nn::Result<Checkpoint>,
    options: &LoadOptions,
    progress: &mut dyn Progress,
) -> Result<Arc<dyn Engine>, ModelError> {
    let checkpoint = checkpoint.inspect(|checkpoint| {
        let unfit = options.dtype.map(|format| (format, checkpoint.weights.unfit_for(format)));
        if let Some((format, (unfit @ 1.., matrices))) = unfit {
            let values = format.block_values();
            progress.note(&format!(
                "{unfit} of {matrices} matrices of the {role} model stay as they are: their rows are no whole number of \
                 {format} blocks of {values} values"
            ));
        }
    });
    match checkpoint.and_then(|checkpoint| Local::load(checkpoint, options)) {
        Ok(engine) => Ok(Arc::new(engine)),
        Err(source) => Err(ModelError::Load { role, name: options.name.clone(), source: Box::new(source) }),
    }
}

fn format(role: Seat, name: &str) -> Result<Format, ModelError> {
    Format::parse(name).filter(|format| Format::WRITABLE.contains(format)).ok_or_else(|| ModelError::Dtype {
        role,
        value: name.into(),
        known: Format::WRITABLE.map(|format| format.name().to_ascii_lowercase()).join(", "),
    })
}

fn template(role: Seat, form: &TemplateForm) -> Result<TemplateChoice, ModelError> {
    Ok(match form {
        TemplateForm::Own => TemplateChoice::Own,
        TemplateForm::Plain => TemplateChoice::Plain,
        TemplateForm::File(path) => TemplateChoice::Source {
            name: path.display().to_string(),
            text: fs_err::read_to_string(path).map_err(|source| ModelError::Template { role, source })?,
        },
    })
}
