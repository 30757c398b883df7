//! Models that run in this process.

use std::sync::Arc;

use wsd_core::{Engine, Role};
use wsd_nn::{Checkpoint, Format, LoadOptions, Local, TemplateChoice};

use super::ModelError;
use crate::config::{ModelSettings, TemplateForm};
use crate::hub::Progress;

/// A checkpoint inside the binary.
struct Builtin {
    name: &'static str,
    files: &'static [(&'static str, &'static [u8])],
}

macro_rules! builtin {
    ($name:literal, $folder:literal) => {
        Builtin {
            name: $name,
            files: &builtin!(@files $folder: "config.json" "generation_config.json" "model.safetensors" "tokenizer.json"
                "tokenizer_config.json"),
        }
    };
    (@files $folder:literal: $($file:literal)*) => {
        [$(($file, include_bytes!(concat!("../../../../models/", $folder, "/", $file)) as &[u8]),)*]
    };
}

/// The models that need no file.
static BUILTIN: &[Builtin] = &[builtin!("builtin:base", "seed-base"), builtin!("builtin:draft", "seed-draft")];

/// Load one model.
pub(super) fn open(
    role: Role,
    model: &ModelSettings,
    max_sessions: usize,
    progress: &mut dyn Progress,
) -> Result<Arc<dyn Engine>, ModelError> {
    let fault = |source: wsd_nn::Error| ModelError::Load { role, name: model.name.clone(), source: source.into() };
    let options = LoadOptions {
        name: model.name.clone(),
        threads: model.threads,
        dtype: model.dtype.as_deref().map(format).transpose()?,
        template: template(role, &model.template)?,
        max_len: None,
        max_sessions,
    };
    let checkpoint = match model.name.starts_with("builtin:") {
        true => Checkpoint::from_bytes(&model.name, builtin(&model.name)?.files),
        false => Checkpoint::open(&super::find(model, progress)?),
    };
    Ok(Arc::new(checkpoint.and_then(|checkpoint| Local::load(checkpoint, &options)).map_err(fault)?))
}

fn builtin(name: &str) -> Result<&'static Builtin, ModelError> {
    BUILTIN.iter().find(|builtin| builtin.name == name).ok_or_else(|| ModelError::NotBuiltin {
        name: name.into(),
        known: BUILTIN.iter().map(|builtin| builtin.name).collect::<Vec<_>>().join(", "),
    })
}

fn format(name: &str) -> Result<Format, ModelError> {
    let known = || Format::all().map(|format| format.name().to_ascii_lowercase()).collect::<Vec<_>>().join(", ");
    name.parse().map_err(|_| ModelError::Dtype { value: name.into(), known: known() })
}

fn template(role: Role, form: &TemplateForm) -> Result<TemplateChoice, ModelError> {
    Ok(match form {
        TemplateForm::Own => TemplateChoice::Own,
        TemplateForm::Plain => TemplateChoice::Plain,
        TemplateForm::File(path) => TemplateChoice::Source {
            name: path.display().to_string(),
            text: fs_err::read_to_string(path).map_err(|source| ModelError::Template { role, source })?,
        },
    })
}
