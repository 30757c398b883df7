//! The number of words.

use std::sync::Arc;

use async_trait::async_trait;
use wsd_core::{Recipe, Result};

use super::{Rated, Rater, Rating};

pub(super) static RECIPE: Recipe<dyn Rater> = Recipe {
    name: "length",
    title: "length",
    about: "the number of words, separated by white space",
    needs: &[],
    settings: &[],
    make: |_, _| Ok(Arc::new(Length)),
};

struct Length;

#[async_trait]
impl Rater for Length {
    async fn rate(&self, rated: &Rated<'_>) -> Result<Rating> {
        Ok((rated.answer.split_whitespace().count() as f64).into())
    }
}
