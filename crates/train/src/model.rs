//! A decoder in training: every layer forward and backward by hand.
//!
//! Examples are computed in shards (`shard`), by a `Network`. On the CPU it is a thread with lists of
//! floats: each takes a run of the examples and sums a gradient of its own; the sums are added in the
//! order of the threads, so the bits of a result depend on the number of threads and on nothing
//! else. A GPU (`gpu`) takes all examples, in products of bfloat16 or floats; the bits depend on the
//! GPU and its libraries.

mod attention;
mod buffer;
mod decoder;
mod draft;
mod expert;
mod factor;
mod feed_forward;
mod gpu;
mod head;
mod layer;
mod logits;
mod mixture;
mod norm;
mod options;
mod places;
mod rotary;
mod shard;
mod threads;
mod vector;
mod worker;

use wsd_nn::arch::{Blueprint, EMBEDDING, EMBEDDING_FACTOR, Head, POSITIONS, RopePlan};
use wsd_nn::gpu::Arithmetic;
use wsd_nn::kernels::Simd;

pub use self::decoder::Pass;
pub use self::draft::{DraftBase, DraftExample, DraftLoss, DraftModel};
pub use self::options::ModelOptions;

use self::decoder::{Decoder, Decoders, Model, Projection};
use self::factor::Factor;
use self::gpu::Gpu;
use self::norm::NormPlace;
use self::places::LayerPlaces;
use self::rotary::RotaryTable;
use self::shard::shards;
use self::threads::WorkerThreads;
use self::vector::Vector;
use self::worker::{Worker, WorkerRun};
use crate::adapters::Trained;
use crate::error::{Error, Result};
use crate::layout::{Layout, REWARD};
use crate::objectives::{LossOutput, Needs};

/// Tokens that a thread computes at once, unless one example alone has more.
const SHARD_TOKENS: usize = 1024;

/// A decoder with the buffers to differentiate it.
pub struct TrainableModel {
    model: Model,
    /// The reference model, if it is of another blueprint.
    teacher: Option<Model>,
    /// The length of the longest sequence, in tokens.
    max_len: usize,
    computer: Computer,
}

/// What computes passes.
enum Computer {
    Cpu(WorkerThreads<Worker>),
    Gpu(Box<Gpu>),
}

impl TrainableModel {
    /// Makes the buffers for a blueprint.
    ///
    /// # Errors
    /// [`Error::Threads`]; [`Error::Setting`] for sequences longer than the positions that the model has
    /// learned.
    pub fn try_new(blueprint: &Blueprint, options: &ModelOptions<'_>) -> Result<Self> {
        let computer = Computer::Cpu(WorkerThreads::try_new(options.threads)?);
        Ok(Self { model: model(blueprint, options)?, teacher: None, max_len: options.max_len, computer })
    }

    /// Computes passes on a GPU instead, which keeps its first copy of the weights that do not change.
    ///
    /// # Errors
    /// [`wsd_nn::Error::DeviceLacks`] for a model with a part that a GPU does not differentiate.
    pub fn on_gpu(mut self, arithmetic: Arithmetic) -> Result<Self> {
        gpu::refuse_missing(&arithmetic, &self.model.decoder.blueprint)?;
        self.computer = Computer::Gpu(Box::new(Gpu::new(arithmetic)));
        Ok(self)
    }

    /// Lets a model of another blueprint, with the same vocabulary, be the reference of
    /// [`Pass::reference`].
    ///
    /// # Errors
    /// [`Error::Setting`] for another vocabulary, or for too few learned positions;
    /// [`wsd_nn::Error::DeviceLacks`] as of [`TrainableModel::on_gpu`].
    pub fn with_teacher(mut self, blueprint: &Blueprint) -> Result<Self> {
        let own = self.model.decoder.blueprint.vocab;
        if blueprint.vocab != own {
            return Err(Error::setting("model.teacher", format!("of a vocabulary of {own} entries"), blueprint.vocab));
        }
        if let Computer::Gpu(gpu) = &self.computer {
            gpu::refuse_missing(gpu.arithmetic(), blueprint)?;
        }
        let Decoder { recompute, precision, .. } = self.model.decoder;
        let options = ModelOptions { max_len: self.max_len, recompute, precision, ..ModelOptions::default() };
        self.teacher = Some(model(blueprint, &options)?);
        Ok(self)
    }

    /// The places of tensors in weights and gradients.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.model.layout
    }

    /// Tells whether the model has a vocabulary head.
    pub(crate) fn writes(&self) -> bool {
        self.model.decoder.vocabulary.outputs > 0
    }

    /// Tells whether the model adds low-rank changes itself, so that [`Pass::weights`] are without them.
    #[must_use]
    pub fn adds_changes(&self) -> bool {
        matches!(self.computer, Computer::Gpu(_))
    }

    /// The examples that a pass had best take at once, of `all`, where batches are of `batch`.
    pub(crate) fn batch(&self, batch: usize, all: usize) -> usize {
        match &self.computer {
            Computer::Cpu(_) => batch,
            // Weights and gradients cross to the device and back once in a pass.
            Computer::Gpu(_) => all.max(1),
        }
    }

    /// Lets the weights of the reference change before the next pass.
    pub(crate) fn forget_reference(&mut self) {
        if let Computer::Gpu(gpu) = &mut self.computer {
            gpu.forget_reference();
        }
    }

    /// Checks that a GPU has the memory for passes of these needs, over examples of at most `longest`
    /// tokens. Returns the GPU's name and the bytes; `None` on the CPU.
    ///
    /// # Errors
    /// [`wsd_nn::Error::DeviceMemory`] with the bytes that are needed and those that are free.
    pub(crate) fn require_memory(&self, needs: &[Needs], longest: usize) -> Result<Option<(String, usize)>> {
        let Computer::Gpu(gpu) = &self.computer else { return Ok(None) };
        let bytes = gpu.require_memory(self.decoders(), needs, [longest, self.max_len])?;
        Ok(Some((gpu.arithmetic().name().to_owned(), bytes)))
    }

    fn decoders(&self) -> Decoders<'_> {
        Decoders { model: &self.model, reference: self.teacher.as_ref().unwrap_or(&self.model) }
    }

    /// Computes the loss of each example. A `gradient` is set to the sum over all examples of the
    /// loss's gradient with respect to the weights, or to the parameters of low-rank changes.
    ///
    /// # Errors
    /// Those of a GPU; there are none on the CPU.
    pub fn pass(&mut self, pass: &Pass<'_>, gradient: Option<&mut [f32]>) -> Result<Vec<LossOutput>> {
        let Self { model, teacher, computer, .. } = self;
        let decoders = Decoders { model, reference: teacher.as_ref().unwrap_or(model) };
        let needs_gradient = gradient.is_some();
        match computer {
            Computer::Gpu(gpu) => gpu.pass(decoders, pass, gradient),
            Computer::Cpu(workers) => {
                let outputs = workers.run((pass.examples, |example| example.tokens()), gradient, |worker, share| {
                    let shard = |examples| {
                        let pass = Pass { examples, ..*pass };
                        let mut run = WorkerRun { worker, decoders, pass: &pass, needs_gradient };
                        shard::run(&mut run, &decoders.model.decoder, &pass, needs_gradient)
                    };
                    shards(share, SHARD_TOKENS).into_iter().map(shard).collect()
                });
                Ok(outputs.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
            }
        }
    }
}

/// A decoder of a blueprint with the places of its tensors.
fn model(blueprint: &Blueprint, options: &ModelOptions<'_>) -> Result<Model> {
    let layout = Layout::new(blueprint);
    let decoder = decoder(blueprint, &layout, options)?;
    let changes = |index: &usize| (options.trained)(&layout.places()[*index].name) == Trained::Whole;
    let changing = (0..layout.places().len()).filter(changes).collect();
    Ok(Model { decoder, layout, changing })
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
