//! Training of draft heads (FSPAD, arXiv 2408.15562): features of the base on disk, then steps of a
//! one-layer model on them.
//!
//! A run is described by a run file as those of objectives are, with a table `[head]`. Interrupted, it
//! goes on to the same bits.

mod features;
mod file;
mod run;

pub use features::{FEATURES_FILE, Features};
pub use file::{HeadFile, HeadTable};
pub use run::{HeadTask, HeadTrainer, save, train};

use wsd_core::Head;
use wsd_nn::arch::{self, Blueprint, EMBEDDING};
use wsd_nn::{Checkpoint, Tensor};

use crate::error::{Error, Result};
use crate::model::DraftBase;

/// Reads the tables of a base that a head stands on.
///
/// # Errors
/// A base without a vocabulary head; tensors that are missing.
pub fn base_tables(base: &Checkpoint) -> Result<DraftBase> {
    let base = base.without_factors()?;
    let shape = |name: &str| base.weights.get(name).map(|tensor| tensor.shape.as_slice());
    let blueprint = arch::blueprint(&base.config)?.with_heads(shape);
    if blueprint.head(Head::VOCABULARY).is_none() {
        return Err(Error::setting("model.from", "a model with a vocabulary head", &base.name));
    }
    let Blueprint { hidden, vocab, embedding_scale, logit_scale: scale, final_softcap: cap, .. } = blueprint;
    let table = |name: &str| -> Result<Vec<f32>> {
        let tensors = base.weights.require(&[(name.to_owned(), vec![vocab, hidden])])?;
        Ok(tensors.iter().flat_map(Tensor::to_f32).collect())
    };
    let mut embedding = table(EMBEDDING)?;
    let head = if blueprint.tied {
        // A tied head does not see the factor on the embedding.
        (embedding_scale != 1.0).then(|| embedding.clone())
    } else {
        Some(table(&Head::VOCABULARY.weight())?)
    };
    embedding.iter_mut().for_each(|value| *value *= embedding_scale);
    Ok(DraftBase { embedding, head, scale, cap })
}
