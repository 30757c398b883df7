//! The pair to measure: models by name, or random models of a shape.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use wsd::config::{ModelSettings, Settings};
use wsd::models;
use wsd::nn::shapes::{Recipe, Shape};
use wsd::nn::{Format, LoadOptions, Local};
use wsd_core::{Engine, Models, Prompt, Seat, Token};

use crate::cli::GlobalArgs;
use crate::cli::bench::engine::SEED;

/// True where the models are random ones.
pub(super) fn are_random(settings: &Settings) -> bool {
    shape(&settings.models[&Seat::BASE]).is_some()
}

fn shape(model: &ModelSettings) -> Option<&'static Shape> {
    Shape::find(&model.name).filter(|_| !Path::new(&model.name).exists())
}

/// Loads both models. A random draft has the argmax of a random base after a share `agreement` of
/// all tokens.
pub(super) fn load(settings: &Settings, agreement: f64, global: &GlobalArgs) -> Result<Models> {
    let [base, draft] = [Seat::BASE, Seat::DRAFT].map(|seat| &settings.models[&seat]);
    match (shape(base), shape(draft)) {
        (Some(base_shape), Some(draft_shape)) => Ok(Models::default()
            .with(Seat::BASE, random(base_shape, base, 1.0)?)
            .with(Seat::DRAFT, random(draft_shape, draft, agreement)?)),
        (None, None) => Ok(models::load(settings, &[Seat::BASE, Seat::DRAFT], 4, global.progress().as_mut())?),
        _ => bail!(
            "base and draft must both be random shapes or both be models, got one of each: they would never agree"
        ),
    }
}

fn random(shape: &Shape, model: &ModelSettings, agreement: f64) -> Result<Arc<dyn Engine>> {
    let format = model.dtype.unwrap_or(Format::Q8_0);
    let checkpoint = shape.model(format, Recipe { seed: SEED, agreement })?;
    let options = LoadOptions {
        threads: model.threads,
        device: model.device,
        kv_dtype: model.kv_dtype,
        prefix_cache_tokens: model.prefix_cache_tokens,
        ..LoadOptions::new(shape.name)
    };
    Ok(Arc::new(Local::load(checkpoint, &options)?))
}

/// A prompt of `tokens` tokens, different for each index.
pub(super) fn random_prompt(settings: &Settings, index: usize, tokens: usize) -> Prompt {
    let vocab = shape(&settings.models[&Seat::BASE]).map_or(1, Shape::vocab);
    Prompt::Tokens((0..tokens).map(|place| ((index * 1009 + place) * 7919 % vocab) as Token).collect())
}
