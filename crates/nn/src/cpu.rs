//! The executor on a CPU. Matrices are packed into tiles where that is faster, else they stay
//! mapped in the format of their file; a step computes in float32.

mod attention;
mod draft;
mod experts;
mod layer;
mod linear;
mod loader;
mod model;
mod options;
mod place;
mod step;

use std::collections::HashMap;

use rayon::prelude::*;

use crate::adapter::Adapter;
use crate::arch::{self, Blueprint, Factors, Head, HeadPlan};
use crate::cache::Slot;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::{Error, Result};
use crate::executor::{self, Executor, Span};
use crate::kernels::{self, Workers};
pub use draft::DraftLayer;
use linear::{Activations, Stored};
use loader::Loader;
use model::{Embedding, Model, OutputHead};
pub use options::CpuOptions;
use step::{Scratch, Step};

/// Tokens run at once when a slot is run again.
const RERUN_TOKENS: usize = 256;
/// Bytes of weights that fit a processor's cache. Models this small are parallelized over
/// sequences: each thread runs whole layers. Parallelizing over rows would need a barrier per
/// matrix.
const CACHED_BYTES: usize = 32 << 20;
/// The least number of tokens in a thread's part: this many cost hardly more than one.
const PART_TOKENS: usize = 4;

/// A model on the CPU.
pub struct Cpu {
    model: Model,
    slots: HashMap<u64, Slot>,
    /// Scratch of the output heads.
    rounded: Activations,
    /// Scratch of each part of a step.
    scratches: Vec<Scratch>,
}

impl Cpu {
    /// Loads the model of a checkpoint.
    ///
    /// # Errors
    /// A configuration that cannot be run, or [`Error::Tensors`] naming all that are missing or
    /// misshapen.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        Self::load_with(checkpoint, CpuOptions::default())
    }

    /// Loads the model of a checkpoint with options. Matrices are converted and packed one at a
    /// time, and the pages of their file are released.
    ///
    /// # Errors
    /// Those of [`Cpu::load`]; [`Error::Quantize`] for a `dtype` that cannot be written; not enough
    /// memory.
    pub fn load_with(checkpoint: &Checkpoint, options: CpuOptions) -> Result<Self> {
        let shape = |name: &str| checkpoint.weights.get(name).map(|tensor| tensor.shape.as_slice());
        let blueprint = arch::blueprint(&checkpoint.config)?.with_heads(shape);
        Self::load_blueprint(checkpoint, blueprint, options)
    }

    /// Loads a model of a blueprint that is not, or not only, that of the configuration.
    pub(crate) fn load_blueprint(checkpoint: &Checkpoint, blueprint: Blueprint, options: CpuOptions) -> Result<Self> {
        let loader = Loader::try_new(&checkpoint.weights, &arch::tensors(&blueprint), options)?;
        let take = |name: &str| loader.take(name);
        let plain = |weight: Tensor| loader.linear(Stored { weight, bias: None });
        let mut head = |HeadPlan { head, bias, .. }: &HeadPlan| {
            let is_embedding = blueprint.tied && *head == Head::VOCABULARY;
            let name = if is_embedding { arch::EMBEDDING.to_owned() } else { head.weight() };
            let weight = take(&name)?;
            let bias = bias.then(|| take(&head.bias())).transpose()?.map(|bias| bias.to_f32());
            let Factors { embedding, head: own, kept } = &blueprint.factors;
            let parts = match (embedding, own) {
                (Some(_), _) if is_embedding => {
                    Some((take(arch::EMBEDDING_FACTOR)?.transposed()?, arch::EMBEDDING_KEPT))
                }
                (_, Some(_)) if *head == Head::VOCABULARY && !is_embedding => {
                    Some((take(arch::HEAD_FACTOR)?, arch::HEAD_KEPT))
                }
                _ => None,
            };
            let has_kept = parts.is_some() && !kept.is_empty();
            let kept = parts.as_ref().filter(|_| has_kept).map(|(_, name)| plain(take(name)?)).transpose()?;
            let factor = parts.map(|(factor, _)| plain(factor)).transpose()?;
            Ok((*head, OutputHead { factor, linear: loader.linear(Stored { weight, bias })?, kept }))
        };
        let heads = blueprint.output_heads.iter().map(&mut head).collect::<Result<_>>()?;
        let final_norm = Some(layer::Norm::read(&blueprint, "model.norm", blueprint.norms.bias, &take)?);
        let positions = blueprint.positions.then(|| take(arch::POSITIONS)).transpose()?;
        let layer = |index| loader.layer((&blueprint, blueprint.layer()), index);
        let layers = (0..blueprint.layers.len()).map(layer).collect::<Result<_>>()?;
        let embedding = Embedding::read(&blueprint.factors, take, plain)?;
        let (simd, kv, bytes) = (options.simd, options.kv(), loader.bytes());
        let model = Model { blueprint, simd, kv, bytes, embedding, positions, layers, final_norm, heads };
        let (slots, scratches) = (HashMap::new(), Vec::new());
        Ok(Self { model, slots, rounded: Activations::default(), scratches })
    }

    /// Runs the cached tokens again if a span takes its sequence across the border of
    /// [`Blueprint::is_long`].
    fn cross_border(&mut self, span: &Span<'_>) {
        let shape = self.model.cache_shape();
        let slot = self.slots.entry(span.slot).or_insert_with(|| Slot::new(shape));
        let long = self.model.blueprint.is_long(span.end());
        if std::mem::replace(&mut slot.long, long) == long || slot.len() == 0 {
            return;
        }
        let tokens = slot.tokens.clone();
        slot.truncate(0);
        for (index, tokens) in tokens.chunks(RERUN_TOKENS).enumerate() {
            self.run(&[Span::chain(span.slot, index * RERUN_TOKENS, tokens)]);
        }
    }

    /// Runs spans, which are valid and not empty.
    fn run(&mut self, spans: &[Span<'_>]) -> Vec<f32> {
        let shape = self.model.cache_shape();
        let take = |span: &Span<'_>| self.slots.remove(&span.slot).unwrap_or_else(|| Slot::new(shape));
        let mut slots: Vec<_> = spans.iter().map(take).collect();
        let parts = self.parts(spans);
        self.scratches.resize_with(self.scratches.len().max(parts.len()), Scratch::default);
        let model = &self.model;
        let rows = if let [_] = parts[..] {
            let tokens = spans.iter().map(|span| span.tokens.len()).sum();
            let scratch = &mut self.scratches[0];
            model.with_workers(tokens, |workers| Step::new(model, workers, scratch, &mut slots, spans).run())
        } else {
            let mut left = (spans, &mut slots[..]);
            let steps = parts.into_iter().zip(&mut self.scratches).map(|(count, scratch)| {
                let (spans, slots) = std::mem::take(&mut left);
                let ((spans, later_spans), (slots, later_slots)) = (spans.split_at(count), slots.split_at_mut(count));
                left = (later_spans, later_slots);
                (spans, slots, scratch)
            });
            let steps = steps.collect::<Vec<_>>().into_par_iter();
            let rows = steps.map(|(spans, slots, scratch)| {
                Step::new(model, &Workers::alone(model.simd), scratch, slots, spans).run()
            });
            rows.collect::<Vec<_>>().concat()
        };
        self.slots.extend(spans.iter().map(|span| span.slot).zip(slots));
        rows
    }

    /// The number of spans that each thread runs: each gets about as many tokens as the others.
    fn parts(&self, spans: &[Span<'_>]) -> Vec<usize> {
        let tokens: usize = spans.iter().map(|span| span.tokens.len()).sum();
        let most = rayon::current_num_threads().min(tokens / PART_TOKENS).max(1);
        if self.model.bytes > CACHED_BYTES || most == 1 {
            return vec![spans.len()];
        }
        let (mut parts, mut count, mut done) = (Vec::new(), 0, 0);
        for span in spans {
            count += 1;
            done += span.tokens.len();
            if done * most >= (parts.len() + 1) * tokens {
                parts.push(std::mem::take(&mut count));
            }
        }
        parts
    }
}

impl Executor for Cpu {
    fn blueprint(&self) -> &Blueprint {
        &self.model.blueprint
    }

    fn forward(&mut self, spans: &[Span<'_>]) -> Result<Vec<f32>> {
        executor::check(&self.model.blueprint, spans, |slot| {
            self.slots.get(&slot).map(Slot::cached).unwrap_or_default()
        })?;
        let spans: Vec<_> = spans.iter().filter(|span| !span.tokens.is_empty()).cloned().collect();
        spans.iter().for_each(|span| self.cross_border(span));
        Ok(if spans.is_empty() { Vec::new() } else { self.run(&spans) })
    }

    fn adapt(&mut self, adapter: &Adapter) -> Result<()> {
        let Model { blueprint, layers, heads, .. } = &mut self.model;
        let parts = blueprint.layer();
        for (module, change) in adapter.modules(blueprint)? {
            let head = heads.iter_mut().find(|(head, _)| head.module() == module);
            head.into_iter().for_each(|(_, head)| head.linear.add(change, 0));
            let Some((layer, name)) = arch::layer_module(module) else { continue };
            for (part, linear) in parts.linears().zip(layers[layer].parts.linears_mut()) {
                if part.module == name {
                    linear.add(change, part.rows.start);
                }
            }
        }
        // Cached keys and values belong to the model without the adapter.
        self.slots.clear();
        Ok(())
    }

    fn project(&mut self, head: Head, hidden: &[f32], out: &mut Vec<f32>) -> Result<()> {
        let width = self.model.blueprint.hidden;
        if !hidden.len().is_multiple_of(width) {
            return Err(Error::Rows { floats: hidden.len(), width });
        }
        let Self { model, rounded, .. } = self;
        let (_, OutputHead { factor, linear, kept }) =
            model.heads.iter().find(|(other, _)| *other == head).ok_or(Error::MissingHead { head: head.module() })?;
        model.with_workers(hidden.len() / width, |workers| {
            let (mut inner, mut own) = (Vec::new(), Vec::new());
            kept.iter().for_each(|kept| linear::apply(workers, hidden, rounded, [(kept, &mut own)]));
            factor.iter().for_each(|factor| linear::apply(workers, hidden, rounded, [(factor, &mut inner)]));
            let hidden = if factor.is_some() { &inner } else { hidden };
            linear::apply(workers, hidden, rounded, [(linear, &mut *out)]);
            let tokens = &model.blueprint.factors.kept;
            for (out, own) in out.chunks_exact_mut(linear.outputs()).zip(own.chunks_exact(tokens.len().max(1))) {
                tokens.iter().zip(own).for_each(|(token, own)| out[*token as usize] += own);
            }
        });
        if head == Head::VOCABULARY {
            let Blueprint { logit_scale, final_softcap, .. } = self.model.blueprint;
            if logit_scale != 1.0 {
                out.iter_mut().for_each(|logit| *logit *= logit_scale);
            }
            if let Some(cap) = final_softcap {
                kernels::softcap(self.model.simd, out, cap);
            }
        }
        Ok(())
    }

    fn copy(&mut self, from: u64, to: u64, len: usize) -> Result<()> {
        let copy = self.slots.get(&from).map(|slot| slot.prefix(len));
        self.slots.remove(&to);
        self.slots.extend(copy.map(|slot| (to, slot)));
        Ok(())
    }

    fn keep(&mut self, slot: u64, len: usize, path: &[usize]) -> Result<()> {
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.keep(len, path);
        }
        Ok(())
    }

    fn truncate(&mut self, slot: u64, len: usize) {
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.truncate(len);
        }
    }

    fn release(&mut self, slot: u64) {
        self.slots.remove(&slot);
    }

    fn cached(&self, slot: u64) -> usize {
        self.slots.get(&slot).map_or(0, Slot::len)
    }

    fn slots(&self) -> usize {
        self.slots.len()
    }

    fn read_bandwidth(&self, bytes: usize) -> Result<f64> {
        crate::kernels::read_bandwidth(bytes)
    }
}
