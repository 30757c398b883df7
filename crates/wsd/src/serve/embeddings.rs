//! `POST /v1/embeddings`: hidden states of a language model, which was not trained for them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use wsd_core::{Engine, Error, Layer, Prompt, Seat, Token};

use super::admission::Admitted;
use super::app::App;
use super::decoding;
use super::error::ApiError;
use super::fields::{Fields, Texts};
use super::ignored::Place;
use super::request_log::Caller;
use super::work::off_reactor;
use crate::models::short_name;

/// The most texts in a request, as in OpenAI's API.
pub(super) const MAX_INPUTS: usize = 2048;

/// A request for embeddings.
struct EmbeddingRequest {
    engine: Arc<dyn Engine>,
    lists: Vec<Vec<Token>>,
    /// The way from the hidden states of all tokens to one vector: `mean` or `last`.
    pooling: &'static str,
    is_base64: bool,
}

/// Handles `POST /v1/embeddings`.
pub(super) async fn embeddings(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    app.expect_room(caller.client)?;
    let fields = app.bodies.read(&headers, body).await?;
    let (parsing, client) = (app.clone(), caller.client);
    let request = app.work.of_body(fields.bytes(), move || EmbeddingRequest::parse(&parsing, fields)).await?;
    let admitted = app.admit(client)?;
    let vectors = tokio::select! {
        error = decoding::ending(app.clone()) => return Err(error),
        vectors = request.compute(&app, &admitted) => vectors?,
    };
    off_reactor(move || Ok(Json(request.reply(&vectors)))).await
}

impl EmbeddingRequest {
    /// Takes all fields of a request.
    fn parse(app: &App, mut fields: Fields) -> Result<Self, ApiError> {
        let seat = seat(fields.take::<String>("model")?.as_deref())?;
        let engine = app.models.get(seat).cloned();
        let engine = engine.ok_or_else(|| ApiError::unknown_model(seat.name(), ["base", "draft"]))?;
        let codec = engine.codec();
        let lists = fields.need::<Texts>("input")?.prompts().into_iter().map(|prompt| match prompt {
            Prompt::Tokens(ids) => Ok(ids),
            text => Ok(codec.render(&text)?.tokens),
        });
        let lists = lists.collect::<Result<Vec<_>, Error>>()?;
        let is_filled = |list: &Vec<Token>| !list.is_empty();
        if !(1..=MAX_INPUTS).contains(&lists.len()) || !lists.iter().all(is_filled) {
            let message = format!("must have from 1 to {MAX_INPUTS} texts, none of them empty, got {}", lists.len());
            return Err(ApiError::parameter("input", message));
        }
        let limit = engine.card().max_len;
        if let Some(long) = lists.iter().find(|list| list.len() > limit) {
            return Err(Error::PromptTooLong { engine: engine.card().name.clone(), tokens: long.len(), limit }.into());
        }
        let is_base64 = choice(&mut fields, "encoding_format", ["float", "base64"])? == "base64";
        let mut wsd = Fields::new(fields.take("wsd")?.unwrap_or_else(|| json!({})), "wsd")?;
        let pooling = choice(&mut wsd, "pooling", ["mean", "last"])?;
        wsd.finish()?;
        fields.take::<String>("user")?;
        fields.ignore(Place::Request, app.serve.strict);
        fields.unsupported(&[("dimensions", &[])])?;
        fields.finish()?;
        Ok(Self { engine, lists, pooling, is_base64 })
    }

    /// Computes one vector of length 1 for each text.
    async fn compute(&self, app: &App, admitted: &Admitted) -> Result<Vec<Vec<f32>>, ApiError> {
        let mut vectors = Vec::with_capacity(self.lists.len());
        for list in &self.lists {
            let _slot = app.admission.slot(admitted.source).await?;
            app.admission.add_tokens(admitted.source.client, list.len());
            let from = if self.pooling == "last" { list.len() } else { 1 };
            let states = self.engine.open(list).await?.hidden(from, Layer::Final).await?;
            vectors.push(pool(&states));
        }
        Ok(vectors)
    }

    fn reply(&self, vectors: &[Vec<f32>]) -> Value {
        let data = vectors.iter().enumerate().map(|(index, vector)| {
            let embedding = if self.is_base64 { json!(encode(vector)) } else { json!(vector) };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        });
        let tokens: usize = self.lists.iter().map(Vec::len).sum();
        let about = "hidden states after the final norm of a language model that was not trained for embeddings";
        json!({
            "object": "list", "data": data.collect::<Vec<_>>(), "model": short_name(&self.engine.card().name),
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "wsd": {"pooling": self.pooling, "about": about},
        })
    }
}

/// Finds the seat of the model that `model` names: the base, unless the draft is named.
fn seat(model: Option<&str>) -> Result<Seat, ApiError> {
    match model {
        None | Some("base" | "wsd") => Ok(Seat::BASE),
        Some("draft") => Ok(Seat::DRAFT),
        Some(other) => Err(ApiError::unknown_model(other, ["base", "draft"])),
    }
}

/// Takes one of two words, the first by default.
fn choice(fields: &mut Fields, field: &'static str, words: [&'static str; 2]) -> Result<&'static str, ApiError> {
    let Some(given) = fields.take::<String>(field)? else { return Ok(words[0]) };
    words.into_iter().find(|word| *word == given).ok_or_else(|| {
        let message = format!("must be `{}` or `{}`, got {given}", words[0], words[1]);
        ApiError::parameter(fields.name(field), message)
    })
}

/// Returns the mean of vectors, scaled to length 1.
fn pool(states: &[Vec<f32>]) -> Vec<f32> {
    let width = states.first().map_or(0, Vec::len);
    let mut sums = vec![0f64; width];
    for state in states {
        sums.iter_mut().zip(state).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let length = sums.iter().map(|x| x * x).sum::<f64>().sqrt();
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    sums.into_iter().map(|x| (x * scale) as f32).collect()
}

/// Encodes a vector as base64 of its little-endian floats.
fn encode(vector: &[f32]) -> String {
    STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_means_of_length_one() {
        assert_eq!(pool(&[vec![1.0, 8.0], vec![5.0, 0.0]]), [0.6, 0.8]);
        assert_eq!(pool(&[vec![0.0, 0.0]]), [0.0, 0.0]);
        assert_eq!(encode(&[1.0, -2.0]), "AACAPwAAAMA=");
    }
}
