//! From the names in the settings to engines that answer.

// Until the embedded engine is there, its place is taken by a scripted pair.
#[path = "models/scripted.rs"]
mod local;

use std::path::PathBuf;
use std::sync::Arc;

use wsd_core::{Engine, Models, Recipe, Role};

use crate::config::{ModelSettings, Settings};
use crate::hub::{HubError, HubOptions, Progress};

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
    #[error("`dtype` must be one of {known}, given: {value}")]
    Dtype {
        /// What was given.
        value: String,
        /// The formats there are.
        known: String,
    },
    /// The chat template cannot be read.
    #[error("the chat template for the {role} model cannot be read")]
    Template {
        /// The model it was meant for.
        role: Role,
        /// Why not.
        source: std::io::Error,
    },
    /// The checkpoint cannot be loaded.
    #[error("the {role} model `{name}` cannot be loaded")]
    Load {
        /// What it was meant for.
        role: Role,
        /// The name given.
        name: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The roles that a recipe needs.
pub fn roles(recipe: &Recipe) -> Vec<Role> {
    recipe.needs.iter().map(|&(role, _)| role).collect()
}

/// Load the models of `roles`, each ready for `max_sessions` conversations at once.
///
/// # Errors
/// [`ModelError`] names the model and what is wrong with it.
pub fn load(
    settings: &Settings,
    roles: &[Role],
    max_sessions: usize,
    progress: &mut dyn Progress,
) -> Result<Models, ModelError> {
    let mut models = Models::default();
    for &role in roles {
        let engine: Arc<dyn Engine> = local::open(role, settings.model(role), max_sessions, progress)?;
        match role {
            Role::Base => models.base = Some(engine),
            Role::Draft => models.draft = Some(engine),
        }
    }
    Ok(models)
}

/// The folder or file that a model's name stands for.
fn find(model: &ModelSettings, progress: &mut dyn Progress) -> Result<PathBuf, HubError> {
    let mut options = HubOptions::from_env();
    options.offline |= model.offline;
    crate::hub::resolve(&model.name, &options, progress)
}
