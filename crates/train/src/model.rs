//! A decoder that is trained on the CPU: every layer forward and backward by hand, over lists of
//! floats.
//!
//! Each thread takes a run of the examples, computes them in shards, and sums a gradient of its
//! own; the sums are added in the order of the threads. The bits of a result depend on the number
//! of threads and on nothing else.

mod attention;
mod buffer;
mod decoder;
mod draft;
mod expert;
mod factor;
mod feed_forward;
mod head;
mod layer;
mod logits;
mod mixture;
mod norm;
mod places;
mod rotary;
mod threads;
mod vector;
mod worker;

use wsd_nn::arch::{Blueprint, EMBEDDING, EMBEDDING_FACTOR, Head, POSITIONS, RopePlan};
use wsd_nn::kernels::Simd;
use wsd_nn::kernels::dense::Precision;

pub use self::decoder::Pass;
pub use self::draft::{DraftBase, DraftExample, DraftLoss, DraftModel};

use self::decoder::{Decoder, Projection};
use self::factor::Factor;
use self::norm::NormPlace;
use self::places::LayerPlaces;
use self::rotary::RotaryTable;
use self::threads::WorkerThreads;
use self::vector::Vector;
use self::worker::Worker;
use crate::adapters::Trained;
use crate::error::{Error, Result};
use crate::example::Example;
use crate::layout::{Layout, REWARD};
use crate::objectives::LossOutput;

/// Tokens that a thread computes at once, unless one example alone has more.
const SHARD_TOKENS: usize = 1024;

/// A decoder with the buffers to differentiate it.
pub struct TrainableModel {
    decoder: Decoder,
    /// The reference model, if it is of another blueprint.
    teacher: Option<Decoder>,
    layout: Layout,
    /// The length of the longest sequence, in tokens.
    max_len: usize,
    workers: WorkerThreads<Worker>,
}

/// The options of a [`TrainableModel`].
pub struct ModelOptions<'a> {
    /// The number of threads, each with a gradient of its own.
    pub threads: usize,
    /// The length of the longest sequence, in tokens.
    pub max_len: usize,
    /// Keep only the inputs of layers for the backward pass, and compute the rest again.
    pub recompute: bool,
    /// The precision of products with the matrices of layers and heads.
    pub precision: Precision,
    /// Tells how the tensor of this name changes; gradients of those that do not are skipped.
    pub trained: &'a dyn Fn(&str) -> Trained,
}

impl Default for ModelOptions<'_> {
    fn default() -> Self {
        let (recompute, precision) = (false, Precision::default());
        Self { threads: 1, max_len: 1024, recompute, precision, trained: &|_| Trained::Frozen }
    }
}

impl TrainableModel {
    /// Makes the buffers for a blueprint.
    ///
    /// # Errors
    /// [`Error::Threads`]; [`Error::Setting`] for sequences longer than the positions that the model has
    /// learned.
    pub fn try_new(blueprint: &Blueprint, options: &ModelOptions<'_>) -> Result<Self> {
        let layout = Layout::new(blueprint);
        let decoder = decoder(blueprint, &layout, options)?;
        let workers = WorkerThreads::try_new(options.threads)?;
        Ok(Self { decoder, teacher: None, layout, max_len: options.max_len, workers })
    }

    /// Lets a model of another blueprint, with the same vocabulary, be the reference of
    /// [`Pass::reference`].
    ///
    /// # Errors
    /// [`Error::Setting`] for another vocabulary, or for too few learned positions.
    pub fn with_teacher(mut self, blueprint: &Blueprint) -> Result<Self> {
        let own = self.decoder.blueprint.vocab;
        if blueprint.vocab != own {
            return Err(Error::setting("model.teacher", format!("of a vocabulary of {own} entries"), blueprint.vocab));
        }
        let Self { max_len, decoder: Decoder { recompute, precision, .. }, .. } = self;
        let options = ModelOptions { max_len, recompute, precision, ..ModelOptions::default() };
        self.teacher = Some(decoder(blueprint, &Layout::new(blueprint), &options)?);
        Ok(self)
    }

    /// The places of tensors in weights and gradients.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Tells whether the model has a vocabulary head.
    pub(crate) fn writes(&self) -> bool {
        self.decoder.vocabulary.outputs > 0
    }

    /// Computes the loss of each example. A `gradient` is set to the sum over all examples of the
    /// loss's gradient with respect to the weights, or to the parameters of low-rank changes.
    pub fn pass(&mut self, pass: &Pass<'_>, gradient: Option<&mut [f32]>) -> Vec<LossOutput> {
        let Self { decoder, teacher, workers, .. } = self;
        let decoders = (&*decoder, teacher.as_ref().unwrap_or(decoder));
        let needs_gradient = gradient.is_some();
        workers.run((pass.examples, |example| example.tokens()), gradient, |worker, share| {
            let shard = |shard| worker.run(decoders, &Pass { examples: shard, ..*pass }, needs_gradient);
            shards(share).into_iter().flat_map(shard).collect()
        })
    }
}

/// Finds the parts of a model in the list of its weights.
fn decoder(blueprint: &Blueprint, layout: &Layout, options: &ModelOptions<'_>) -> Result<Decoder> {
    refuse_long(blueprint, options.max_len)?;
    let range = |name: &str| layout.get(name).map(|place| place.range.clone()).unwrap_or_default();
    let own_head = Head::VOCABULARY.weight();
    let head = if blueprint.tied { EMBEDDING } else { &own_head };
    let trained = |name: &str| (options.trained)(name) == Trained::Whole;
    let projection = |name: &str, scale: f32, factor: Option<Factor>| {
        let (matrix, trained) = (range(name), trained(name));
        let inputs = factor.as_ref().map_or(blueprint.hidden, |factor| factor.rank);
        Projection { outputs: matrix.len() / inputs.max(1), matrix, factor, scale, cap: None, trained }
    };
    let tables = |rope: &RopePlan| [false, true].map(|long| RotaryTable::new(rope, options.max_len, long));
    let layers = 0..blueprint.layers.len();
    let head_factor = Factor::of_head(blueprint, layout, &trained);
    let vocabulary = projection(head, blueprint.logit_scale, head_factor);
    Ok(Decoder {
        blueprint: blueprint.clone(),
        simd: Simd::detect(),
        embedding: range(EMBEDDING),
        embedding_factor: Factor::of_embedding(blueprint, layout, &trained),
        vocabulary: Projection { cap: blueprint.final_softcap, ..vocabulary },
        reward: projection(REWARD, 1.0, None),
        positions: Vector::new(layout, POSITIONS, options.trained),
        final_norm: NormPlace::new(layout, "model.norm", options.trained).unwrap_or_default(),
        layers: layers.map(|index| LayerPlaces::new(blueprint, layout, index, options)).collect(),
        rotary: blueprint.ropes.iter().map(tables).collect(),
        recompute: options.recompute,
        precision: options.precision,
        trains_embedding: [EMBEDDING, EMBEDDING_FACTOR].into_iter().any(trained),
    })
}

/// Refuses sequences longer than the embedding of positions.
fn refuse_long(blueprint: &Blueprint, max_len: usize) -> Result<()> {
    if blueprint.positions && max_len > blueprint.max_len {
        let limit = format!("at most {}, the positions that the model has learned", blueprint.max_len);
        return Err(Error::setting("max_length", limit, max_len));
    }
    Ok(())
}

/// Divides the examples into consecutive runs of at most [`SHARD_TOKENS`] tokens, or of one
/// example.
fn shards<'e, 'x>(mut examples: &'e [&'x Example]) -> Vec<&'e [&'x Example]> {
    let mut shards = Vec::new();
    while !examples.is_empty() {
        let mut tokens = 0;
        let fits = |example: &&&Example| {
            tokens += example.tokens();
            tokens <= SHARD_TOKENS
        };
        let len = examples.iter().take_while(fits).count().max(1);
        let (shard, rest) = examples.split_at(len);
        shards.push(shard);
        examples = rest;
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sequence;

    #[test]
    fn every_example_is_in_one_shard() {
        let examples: Vec<_> = (1..40)
            .map(|i| Example::of(Sequence { tokens: vec![0; i * 37 % 500 + 1], target_ranges: Vec::new() }))
            .collect();
        let examples: Vec<_> = examples.iter().collect();
        let back: Vec<_> = shards(&examples).into_iter().flatten().copied().collect();
        assert_eq!(back, examples);
        assert!(shards(&examples).len() > 1 && shards(&[]).is_empty());
    }
}
