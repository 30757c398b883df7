//! The trainee on the CPU: each layer forward and backward by hand, over plain floats.
//!
//! Each thread takes a share of the examples, a shard of them at a time, and sums up a gradient of its own; the sums are
//! added in the order of the threads. So bits depend on the number of threads and on nothing else.

mod attention;
mod layer;
mod shard;

use std::ops::Range;

use rayon::prelude::*;

use self::layer::LayerPlaces;
use self::shard::Worker;
use super::layout::Layout;
use super::model::{Example, Grade, Graded, Trainee};
use crate::error::{Error, Result};
use wsd_nn::arch::{Blueprint, RopePlan};
use wsd_nn::kernels::{Rotation, Simd};

/// Tokens that a thread runs at once, but for single examples that are longer.
const SHARD_TOKENS: usize = 1024;

/// A model on the CPU.
pub struct Native {
    model: Model,
    layout: Layout,
    workers: Vec<Worker>,
    pool: rayon::ThreadPool,
}

/// What all threads read.
struct Model {
    plan: Blueprint,
    simd: Simd,
    embedding: Range<usize>,
    head: Range<usize>,
    final_norm: Range<usize>,
    layers: Vec<LayerPlaces>,
    /// Per rotary embedding of the blueprint, for short and for long sequences.
    rotations: Vec<[Turns; 2]>,
    /// Keep nothing of a layer but its input, and run it anew for its gradient.
    recompute: bool,
    /// Whether the embedding changes, and the output projection.
    trained: [bool; 2],
}

/// Cosines and sines of all positions.
struct Turns {
    pairs: usize,
    interleaved: bool,
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// Sines of the angles back.
    back: Vec<f32>,
}

/// How a model is trained on the CPU.
pub struct NativeOptions<'a> {
    /// Threads, each with a gradient of its own.
    pub threads: usize,
    /// The longest sequence there will be.
    pub max_len: usize,
    /// Keep nothing of a layer but its input, and run it anew for its gradient.
    pub recompute: bool,
    /// Whether the tensor of this name changes; the gradient of a matrix that does not is left out.
    pub trained: &'a dyn Fn(&str) -> bool,
}

impl Native {
    /// A model of this blueprint.
    ///
    /// # Errors
    /// [`Error::Threads`].
    pub fn new(plan: &Blueprint, options: &NativeOptions<'_>) -> Result<Self> {
        let layout = Layout::new(plan);
        let threads = options.threads.max(1);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|error| Error::Threads { threads, reason: error.to_string() })?;
        let range = |name: &str| layout.get(name).map(|place| place.range.clone()).unwrap_or_default();
        let embedding = "model.embed_tokens.weight";
        let head = if plan.tied { embedding } else { "lm_head.weight" };
        let turns = |rope: &RopePlan| [false, true].map(|long| Turns::new(rope, options.max_len, long));
        let model = Model {
            plan: plan.clone(),
            simd: Simd::detect(),
            embedding: range(embedding),
            head: range(head),
            final_norm: range("model.norm.weight"),
            layers: (0..plan.layers.len())
                .map(|index| LayerPlaces::new(plan, &layout, index, options.trained))
                .collect(),
            rotations: plan.ropes.iter().map(turns).collect(),
            recompute: options.recompute,
            trained: [embedding, head].map(options.trained),
        };
        Ok(Self { model, layout, workers: (0..threads).map(|_| Worker::default()).collect(), pool })
    }
}

impl Trainee for Native {
    fn pass(
        &mut self,
        weights: &[f32],
        examples: &[&Example],
        grade: &Grade<'_>,
        gradient: Option<&mut [f32]>,
    ) -> Result<Vec<Graded>> {
        let Self { model, workers, pool, layout } = self;
        let shares = shares(examples, workers.len());
        let learns = gradient.is_some();
        let work = |(worker, share): (&mut Worker, &[&Example])| {
            if learns {
                worker.gradient.resize(layout.len(), 0.0);
                worker.gradient.fill(0.0);
            }
            let shard = |shard| worker.run(model, weights, shard, grade, learns);
            shards(share).into_iter().flat_map(shard).collect::<Vec<_>>()
        };
        pool.install(|| {
            let graded: Vec<_> = workers.par_iter_mut().zip(shares).map(work).collect();
            if let Some(gradient) = gradient {
                let chunk = 1 << 14;
                gradient.par_chunks_mut(chunk).enumerate().for_each(|(index, sum)| {
                    let start = index * chunk;
                    sum.fill(0.0);
                    for worker in &*workers {
                        for (sum, part) in sum.iter_mut().zip(&worker.gradient[start..]) {
                            *sum += part;
                        }
                    }
                });
            }
            Ok(graded.into_iter().flatten().collect())
        })
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }
}

impl Turns {
    fn new(rope: &RopePlan, positions: usize, long: bool) -> Self {
        let (frequencies, factor) = (rope.frequencies(long), rope.attention_factor());
        let angles = (0..positions).flat_map(|position| {
            // The product in single precision, as the reference implementations have it.
            frequencies.iter().map(move |frequency| f64::from(position as f32 * frequency))
        });
        let (cos, sin): (Vec<_>, Vec<_>) =
            angles.map(|angle| (angle.cos() as f32 * factor, angle.sin() as f32 * factor)).unzip();
        let back = sin.iter().map(|sin| -sin).collect();
        Self { pairs: rope.dims / 2, interleaved: rope.interleaved, cos, sin, back }
    }

    fn at(&self, position: usize, back: bool) -> Rotation<'_> {
        let range = position * self.pairs..(position + 1) * self.pairs;
        let sin = if back { &self.back } else { &self.sin };
        Rotation { cos: &self.cos[range.clone()], sin: &sin[range], interleaved: self.interleaved }
    }
}

/// A run of examples for each thread, of about as many tokens.
fn shares<'e, 'x>(examples: &'e [&'x Example], threads: usize) -> Vec<&'e [&'x Example]> {
    let total: usize = examples.iter().map(|example| example.tokens()).sum();
    let (mut rest, mut seen) = (examples, 0);
    let mut take = |thread: usize| {
        let wanted = total * (thread + 1) / threads;
        let mut len = 0;
        // An example that lies across the border goes to the side that has more of it.
        while let Some(tokens) = rest.get(len).map(|example| example.tokens()) {
            if seen + tokens / 2 > wanted && thread + 1 < threads {
                break;
            }
            seen += tokens;
            len += 1;
        }
        let (share, others) = rest.split_at(len);
        rest = others;
        share
    };
    (0..threads).map(&mut take).collect()
}

/// Runs of at most [`SHARD_TOKENS`], or of one example.
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
        let examples: Vec<_> =
            (1..40).map(|i| Example::of(Sequence { tokens: vec![0; i * 37 % 500 + 1], learned: Vec::new() })).collect();
        let examples: Vec<_> = examples.iter().collect();
        for threads in 1..6 {
            let shares = shares(&examples, threads);
            assert_eq!(shares.len(), threads);
            let back: Vec<_> = shares.iter().flat_map(|share| shards(share)).flatten().copied().collect();
            assert_eq!(back, examples);
        }
        assert!(shares(&[], 3).iter().all(|share| share.is_empty()));
    }
}
