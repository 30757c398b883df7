//! Models inside the binary.

use std::sync::Arc;

use wsd_core::{Engine, Seat};
use wsd_nn::{Checkpoint, LoadOptions};

use super::{ModelError, load_checkpoint};
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
            files: &builtin! {
                @files $folder: "config.json" "model.safetensors" "tokenizer.json" "tokenizer_config.json"
            },
        }
    };
    (@files $folder:literal: $($file:literal)*) => {
        [$(($file, include_bytes!(concat!("../../models/", $folder, "/", $file)) as &[u8]),)*]
    };
}

/// Every built-in model.
static BUILTIN: &[Builtin] = &[builtin!("builtin:base", "base"), builtin!("builtin:draft", "pilot")];

/// Loads the built-in model that the options name.
pub(super) fn open(
    seat: Seat,
    options: &LoadOptions,
    progress: &mut dyn Progress,
) -> Result<Arc<dyn Engine>, ModelError> {
    let builtin =
        BUILTIN.iter().find(|builtin| builtin.name == options.name).ok_or_else(|| ModelError::NotBuiltin {
            name: options.name.clone(),
            known: BUILTIN.iter().map(|builtin| builtin.name).collect::<Vec<_>>().join(", "),
        })?;
    load_checkpoint(seat, Checkpoint::from_bytes(builtin.name, builtin.files), options, progress)
}
