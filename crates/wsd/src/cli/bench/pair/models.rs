//! The pair that is measured: models by name, or random ones of a shape.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use wsd::config::{ModelSettings, Settings};
use wsd::models;
use wsd::nn::shapes::{Recipe, Shape};
use wsd::nn::{Format, LoadOptions, Local};
use wsd_core::{Engine, Models, Prompt, Role, Token};

use crate::cli::GlobalArgs;
use crate::cli::bench::engine::SEED;

/// Whether both names are those of shapes.
pub(super) fn are_random(settings: &Settings) -> bool {
    shape(&settings.base).is_some()
}

fn shape(model: &ModelSettings) -> Option<&'static Shape> {
    Shape::find(&model.name).filter(|_| !Path::new(&model.name).exists())
}

/// Both models. A random draft agrees with a random base on a share of all tokens.
pub(super) fn load(settings: &Settings, agreement: f64, look: &GlobalArgs) -> Result<Models> {
    match [&settings.base, &settings.draft].map(shape) {
        [Some(base), Some(draft)] => Ok(Models {
            base: Some(random(base, &settings.base, 1.0)?),
            draft: Some(random(draft, &settings.draft, agreement)?),
        }),
        [None, None] => Ok(models::load(settings, &[Role::Base, Role::Draft], 4, look.progress().as_mut())?),
        _ => bail!("of the two models one is random and the other is not: they would never agree"),
    }
}

fn random(shape: &Shape, model: &ModelSettings, agreement: f64) -> Result<Arc<dyn Engine>> {
    let format = model.dtype.as_deref().map_or(Ok(Format::Q8_0), str::parse)?;
    let checkpoint = shape.model(format, Recipe { seed: SEED, agreement })?;
    let options = LoadOptions {
        threads: model.threads,
        device: model.device,
        prefix_cache_tokens: model.prefix_cache_tokens,
        ..LoadOptions::new(shape.name)
    };
    Ok(Arc::new(Local::load(checkpoint, &options)?))
}

/// A prompt of some tokens, another one for each index.
pub(super) fn random_prompt(settings: &Settings, index: usize, tokens: usize) -> Prompt {
    let vocab = shape(&settings.base).map_or(1, Shape::vocab);
    Prompt::Tokens((0..tokens).map(|place| ((index * 1009 + place) * 7919 % vocab) as Token).collect())
}
