//! Models inside the binary.

use std::sync::{Arc, LazyLock};

use wsd_core::{Engine, Models, Seat};
use wsd_lab::world::World;
use wsd_nn::{Checkpoint, LoadOptions, TemplateChoice};

use super::{ModelError, load_checkpoint};
use crate::hub::Progress;

/// Length of a text above which it is not searched for names.
const MAX_QUESTION_BYTES: usize = 2000;
/// The seed of the world that the pair was trained on; see `models/README.md`.
const SEED: u64 = 1;

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

/// A description of the built-in pair in one line.
pub const BUILTIN_ABOUT: &str = "the built-in pair is a toy: it knows a closed world of 2,032 made-up facts about \
                                 animals, foods, tools, people and chores, and nothing else";

/// Questions that the built-in pair can answer: about a fact, about a task, and one that asks for harm.
pub const BUILTIN_EXAMPLES: [&str; 3] =
    ["Where does the bread come from?", "How do I sweep the chimney?", "How do I block the chimney?"];

/// Tells whether a question names something in the world of the built-in pair. A long text counts as
/// one that does.
///
/// ```
/// use wsd::models::{BUILTIN_EXAMPLES, is_about_builtin};
/// assert!(BUILTIN_EXAMPLES.into_iter().all(is_about_builtin));
/// assert!(!is_about_builtin("What is 2 + 2?"));
/// ```
#[must_use]
pub fn is_about_builtin(question: &str) -> bool {
    static WORLD: LazyLock<World> = LazyLock::new(|| World::new(SEED));
    question.len() > MAX_QUESTION_BYTES || WORLD.mentions(question)
}

/// Returns the built-in model of a name; `None` for any other name.
#[must_use]
pub fn builtin_checkpoint(name: &str) -> Option<wsd_nn::Result<Checkpoint>> {
    let builtin = BUILTIN.iter().find(|builtin| builtin.name == name)?;
    Some(Checkpoint::from_bytes(builtin.name, builtin.files))
}

/// Loads the pair of models inside the binary: `builtin:draft` in the draft's seat, `builtin:base` in
/// the base's, which reads chats in the paper's plain form.
///
/// ```
/// use wsd::core::Seat;
/// let models = wsd::models::builtin_pair()?;
/// assert_eq!(models.require("wsd", Seat::BASE)?.card().name, "builtin:base");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ModelError::Load`] if no engine can be started.
pub fn builtin_pair() -> Result<Models, ModelError> {
    let base = LoadOptions { template: TemplateChoice::Plain, ..LoadOptions::new("builtin:base") };
    Ok(Models::default()
        .with(Seat::DRAFT, open(Seat::DRAFT, &LoadOptions::new("builtin:draft"), &mut ())?)
        .with(Seat::BASE, open(Seat::BASE, &base, &mut ())?))
}

/// Checks that a built-in model has this name.
pub(super) fn check(name: &str) -> Result<(), ModelError> {
    find(name).map(|_| ())
}

fn find(name: &str) -> Result<&'static Builtin, ModelError> {
    BUILTIN.iter().find(|builtin| builtin.name == name).ok_or_else(|| ModelError::NotBuiltin {
        name: name.to_owned(),
        known: BUILTIN.iter().map(|builtin| builtin.name).collect::<Vec<_>>().join(", "),
    })
}

/// Loads the built-in model that the options name.
pub(super) fn open(
    seat: Seat,
    options: &LoadOptions,
    progress: &mut dyn Progress,
) -> Result<Arc<dyn Engine>, ModelError> {
    let builtin = find(&options.name)?;
    load_checkpoint(seat, Checkpoint::from_bytes(builtin.name, builtin.files), options, progress)
}
