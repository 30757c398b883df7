//! Loading a model onto cards.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::Cuda;
use super::driver::Gpu;
use super::model::{self, Loader, Weights};
use super::pages::Pages;
use super::program::{Kernels, Request, Types, Uses};
use super::stage::Stage;
use super::storage::{self, Cache};
use crate::adapter::LowRank;
use crate::arch::{self, Blueprint};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::kernels::KvFormat;

/// Options for loading a model onto NVIDIA GPUs.
#[derive(Clone, Copy, Debug, Default)]
pub struct CudaOptions {
    /// Convert matrices to this format first; by default they keep that of the file.
    pub dtype: Option<Format>,
    /// The number format of cached keys and values; by default the type of activations.
    pub kv: Option<KvFormat>,
}

/// The cards that a model may take: all of those that are open, and as many others as it needs.
pub(super) struct Cards<I> {
    pub(super) open: Vec<Gpu>,
    pub(super) others: I,
}

/// Weights and kernels of a stage.
type Loaded = (Weights, Kernels);

impl Cuda {
    /// Loads the model of a checkpoint onto the GPUs with these numbers, which divide its layers, or
    /// without numbers onto as many as it needs, from the first one on. Activations are F32 or F16 if
    /// all matrices are, else BF16.
    ///
    /// # Errors
    /// A configuration that cannot be run; [`Error::Tensors`] naming all that are missing or
    /// misshapen; [`Error::DeviceMissing`]; [`Error::ModelMemory`] with the bytes of each GPU;
    /// [`Error::DeviceMemory`].
    pub fn load(checkpoint: &Checkpoint, numbers: &[usize], options: CudaOptions) -> Result<Self> {
        let (open, others) = if numbers.is_empty() { (&[0][..], 1..Gpu::count()) } else { (numbers, 0..0) };
        let open = open.iter().map(|number| Gpu::open(*number)).collect::<Result<_>>()?;
        // One that this program cannot use is no reason to fail.
        let others = others.filter_map(|number| Gpu::open(number).ok());
        Self::load_onto(Cards { open, others }, checkpoint, options)
    }

    pub(super) fn load_onto(
        cards: Cards<impl Iterator<Item = Gpu>>,
        checkpoint: &Checkpoint,
        options: CudaOptions,
    ) -> Result<Self> {
        let checkpoint = &*checkpoint.without_factors()?;
        let shape = |name: &str| checkpoint.weights.get(name).map(|tensor| tensor.shape.as_slice());
        let blueprint = arch::blueprint(&checkpoint.config)?.with_heads(shape);
        Self::load_blueprint(cards, checkpoint, blueprint, options)
    }

    /// Loads a model of a blueprint that is not, or not only, that of the configuration.
    pub(super) fn load_blueprint(
        mut cards: Cards<impl Iterator<Item = Gpu>>,
        checkpoint: &Checkpoint,
        blueprint: Blueprint,
        CudaOptions { dtype, kv }: CudaOptions,
    ) -> Result<Self> {
        if let Some(property) = model::missing(&blueprint) {
            return Err(Error::DeviceLacks { device: cards.open[0].name().to_owned(), property });
        }
        let required = checkpoint.weights.require(&arch::tensors(&blueprint))?;
        let compute = compute_format(&required, dtype);
        let types = Types { compute, kv: kv.unwrap_or_else(|| plain_kv(compute)) };
        let tensors = required.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        let blueprint = Arc::new(blueprint);
        let mut model = Self {
            blueprint,
            tensors,
            dtype,
            types,
            changes: HashMap::new(),
            pages: Pages::new(1),
            stages: Vec::new(),
        };
        let division = model.divide(&mut cards)?;
        let loaded = model.load_stages(&division, &model.changes)?;
        model.build(division, loaded)?;
        Ok(model)
    }

    /// Divides the layers among the cards.
    fn divide(&self, cards: &mut Cards<impl Iterator<Item = Gpu>>) -> Result<Vec<(Gpu, Range<usize>)>> {
        let needs = self.loader(&cards.open[0], &self.changes).needs(storage::least_cache(&self.blueprint, self.types));
        loop {
            let free = cards.open.iter().map(|gpu| Ok(gpu.memory()?.0)).collect::<Result<Vec<_>>>()?;
            if let Some(division) = needs.divide(&free) {
                return Ok(division.into_iter().map(|(card, layers)| (cards.open[card].clone(), layers)).collect());
            }
            let Some(gpu) = cards.others.next() else {
                let told = |(gpu, free): (&Gpu, usize)| format!("{} has {} MiB", gpu.name(), free >> 20);
                let cards: Vec<_> = cards.open.iter().zip(free).map(told).collect();
                return Err(Error::ModelMemory { bytes: needs.total(), cards: cards.join(", ") });
            };
            cards.open.push(gpu);
        }
    }

    pub(super) fn loader<'a>(&'a self, gpu: &'a Gpu, changes: &'a HashMap<String, Vec<LowRank>>) -> Loader<'a> {
        let Self { blueprint, tensors, dtype, types, .. } = self;
        Loader { gpu, blueprint, tensors, compute: types.compute, dtype: *dtype, changes }
    }

    /// Loads the weights of each stage. All stages have the same kernels, so that they are compiled once.
    pub(super) fn load_stages(
        &self,
        division: &[(Gpu, Range<usize>)],
        changes: &HashMap<String, Vec<LowRank>>,
    ) -> Result<Vec<Loaded>> {
        let load = |(gpu, layers): &(Gpu, Range<usize>)| self.loader(gpu, changes).load(layers);
        let weights = division.iter().map(load).collect::<Result<Vec<_>>>()?;
        let uses = weights.iter().map(|weights| weights.uses(&self.blueprint, self.types));
        let uses = uses.fold(Uses::default(), Uses::join);
        let embedding = weights.iter().find_map(|weights| weights.embedding.as_ref()).map(|matrix| matrix.format);
        let request = Request {
            blueprint: &self.blueprint,
            types: self.types,
            uses: &uses,
            embedding: embedding.unwrap_or(self.types.compute),
        };
        let kernels = division.iter().map(|(gpu, _)| Kernels::load(gpu, &request)).collect::<Result<Vec<_>>>()?;
        Ok(weights.into_iter().zip(kernels).collect())
    }

    /// Makes the stages, each with its part of the cache.
    fn build(&mut self, division: Vec<(Gpu, Range<usize>)>, loaded: Vec<Loaded>) -> Result<()> {
        let count =
            |(gpu, layers): &(Gpu, Range<usize>)| Cache::count_pages(gpu, &self.blueprint, self.types, layers.len());
        let counts = division.iter().map(count).collect::<Result<Vec<_>>>()?;
        let pages = counts.into_iter().min().unwrap_or(1);
        let most_rows = loaded.iter().map(|(weights, _)| weights.most_rows()).min().unwrap_or(0);
        let stage = |((gpu, layers), loaded): ((Gpu, Range<usize>), Loaded)| {
            Stage::new(&gpu, (&self.blueprint, self.types), (layers, most_rows), loaded, pages)
        };
        self.stages = division.into_iter().zip(loaded).map(stage).collect::<Result<_>>()?;
        self.pages = Pages::new(pages);
        Ok(())
    }

    /// The cards for people, and of several the layers and bytes of each.
    pub(crate) fn device(&self) -> String {
        if let [stage] = &self.stages[..] {
            return stage.gpu.name().to_owned();
        }
        let told = |stage: &Stage| {
            let layers = format!("layers {} to {}", stage.layers.start + 1, stage.layers.end);
            let needs = self.loader(&stage.gpu, &self.changes).needs(0);
            let [weights, cache] = [needs.weights(&stage.layers), stage.cache.data.bytes()].map(|bytes| bytes >> 20);
            format!("{}: {layers}, {weights} MiB of weights and {cache} of cache", stage.gpu.name())
        };
        self.stages.iter().map(told).collect::<Vec<_>>().join("; ")
    }
}

/// Chooses the type of activations.
fn compute_format(tensors: &[Tensor], dtype: Option<Format>) -> Format {
    if let Some(format @ (Format::F32 | Format::F16 | Format::BF16)) = dtype {
        return format;
    }
    if dtype.is_some() {
        return Format::BF16;
    }
    let matrices = || tensors.iter().filter(|tensor| tensor.shape.len() > 1);
    let all = |format: Format| matrices().all(|tensor| tensor.format == format);
    // Block formats have no more digits than bfloat16.
    [Format::F32, Format::F16].into_iter().find(|format| all(*format)).unwrap_or(Format::BF16)
}

/// The format of cached keys and values in the type of activations.
fn plain_kv(compute: Format) -> KvFormat {
    match compute {
        Format::F32 => KvFormat::F32,
        Format::F16 => KvFormat::F16,
        _ => KvFormat::BF16,
    }
}
