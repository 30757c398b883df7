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
use wsd_nn::arch::{self, Blueprint, EMBEDDING, EMBEDDING_FACTOR, HEAD_FACTOR};
use wsd_nn::{Checkpoint, Tensor};

use crate::error::{Error, Result};
use crate::model::DraftBase;

/// Reads the tables of a base that a head stands on.
///
/// # Errors
/// A base without a vocabulary head; tensors that are missing.
pub fn base_tables(base: &Checkpoint) -> Result<DraftBase> {
    let shape = |name: &str| base.weights.get(name).map(|tensor| tensor.shape.as_slice());
    let blueprint = arch::blueprint(&base.config)?.with_heads(shape);
    if blueprint.head(Head::VOCABULARY).is_none() {
        return Err(Error::setting("model.from", "a model with a vocabulary head", &base.name));
    }
    let mut names: Vec<_> = arch::tensors(&blueprint);
    names.retain(|(name, _)| is_table(name));
    let tensors = base.weights.require(&names)?;
    let find = |name: &str| tensors.iter().find(|tensor| tensor.name == name);
    let missing = || Error::setting("model.from", "a model with an embedding", &base.name);
    let mut embedding = find(EMBEDDING).ok_or_else(missing)?.to_f32();
    if let Some(factor) = find(EMBEDDING_FACTOR) {
        embedding = product(&embedding, &transposed(factor), blueprint.hidden);
    }
    let own = find(&Head::VOCABULARY.weight()).map(|head| match find(HEAD_FACTOR) {
        Some(factor) => product(&head.to_f32(), &factor.to_f32(), blueprint.hidden),
        None => head.to_f32(),
    });
    let Blueprint { embedding_scale, logit_scale: scale, final_softcap: cap, .. } = blueprint;
    // A tied head does not see the factor on the embedding.
    let head = own.or_else(|| (embedding_scale != 1.0).then(|| embedding.clone()));
    embedding.iter_mut().for_each(|value| *value *= embedding_scale);
    Ok(DraftBase { embedding, head, scale, cap })
}

fn is_table(name: &str) -> bool {
    [EMBEDDING, EMBEDDING_FACTOR, HEAD_FACTOR].contains(&name) || name == Head::VOCABULARY.weight()
}

/// The rows of a matrix `(columns, rows)` as columns.
fn transposed(matrix: &Tensor) -> Vec<f32> {
    let (values, columns) = (matrix.to_f32(), matrix.columns());
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns).copied()).collect()
}

/// The product of `(rows, inner)` and `(inner, columns)`.
fn product(a: &[f32], b: &[f32], columns: usize) -> Vec<f32> {
    let inner = b.len() / columns;
    let mut out = vec![0.0; a.len() / inner * columns];
    for (out, a) in out.chunks_exact_mut(columns).zip(a.chunks_exact(inner)) {
        for (factor, b) in a.iter().zip(b.chunks_exact(columns)) {
            out.iter_mut().zip(b).for_each(|(out, b)| *out += factor * b);
        }
    }
    out
}
