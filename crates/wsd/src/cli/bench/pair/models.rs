//! The pair to measure: models by name, or random models of a shape.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use wsd::config::{ModelSettings, Settings};
use wsd::models;
use wsd::nn::shapes::{Recipe, Shape};
use wsd::nn::{Format, LoadOptions, Local};
use wsd_core::{Engine, Models, Need, Prompt, Seat, Token};

use crate::cli::bench::engine::SEED;
use crate::cli::{GlobalArgs, usage};

/// True where the models are random ones.
pub(super) fn are_random(settings: &Settings) -> bool {
    base_shape(settings).is_some()
}

fn base_shape(settings: &Settings) -> Option<&'static Shape> {
    settings.model(Seat::BASE).and_then(shape)
}

fn shape(model: &ModelSettings) -> Option<&'static Shape> {
    Shape::find(&model.name).filter(|_| !Path::new(&model.name).exists())
}

/// Loads the models that are named. A random draft has the argmax of a random base after the first of
/// the shares in `agreements` of all tokens, a random middle model after the second.
pub(super) fn load(settings: &Settings, agreements: [f64; 2], global: &GlobalArgs) -> Result<Models> {
    let needs = [wsd_core::Recipe::find("wsd")?.needs, &[Need::any(Seat::MIDDLE).optional()]].concat();
    settings.check_seats(&needs)?;
    let [draft_agreement, middle_agreement] = agreements;
    let seats = [(Seat::BASE, 1.0), (Seat::DRAFT, draft_agreement), (Seat::MIDDLE, middle_agreement)];
    let named = seats.into_iter().filter_map(|(seat, agreement)| Some((seat, agreement, settings.model(seat)?)));
    let named: Vec<_> = named.collect();
    let shapes: Vec<_> = named.iter().filter_map(|(.., model)| shape(model)).collect();
    if shapes.is_empty() {
        return Ok(models::load(settings, &needs, 4, global.progress().as_mut())?);
    }
    if shapes.len() < named.len() {
        return Err(usage(
            "base and draft must both be random shapes or both be models, got one of each: they would never agree",
        ));
    }
    if let Some(other) = shapes.iter().find(|shape| shape.vocab() != shapes[0].vocab()) {
        let [one, other] = [shapes[0], other].map(|shape| format!("`{}` has {} tokens", shape.name, shape.vocab()));
        return Err(usage(format!("random models must have one vocabulary, but {one} and {other}")));
    }
    let mut models = Models::default();
    for ((seat, agreement, model), shape) in named.into_iter().zip(shapes) {
        models.add(seat, random(shape, model, agreement)?);
    }
    Ok(models)
}

fn random(shape: &Shape, model: &ModelSettings, agreement: f64) -> Result<Arc<dyn Engine>> {
    let format = model.dtype.unwrap_or(Format::Q8_0);
    let checkpoint = shape.model(format, Recipe { seed: SEED, agreement })?;
    let options = LoadOptions {
        threads: model.threads,
        device: model.device.clone(),
        kv_dtype: model.kv_dtype,
        prefix_cache_tokens: model.prefix_cache_tokens,
        ..LoadOptions::new(shape.name)
    };
    Ok(Arc::new(Local::load(checkpoint, &options)?))
}

/// A prompt of `tokens` tokens, different for each index.
pub(super) fn random_prompt(settings: &Settings, index: usize, tokens: usize) -> Prompt {
    let vocab = base_shape(settings).map_or(1, Shape::vocab);
    Prompt::Tokens((0..tokens).map(|place| ((index * 1009 + place) * 7919 % vocab) as Token).collect())
}
