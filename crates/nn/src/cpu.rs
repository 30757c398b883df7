//! The executor on a CPU. Matrices stay mapped in the format of their file; what a step computes is float32.

mod layer;
mod linear;
mod step;

use std::collections::HashMap;

use crate::arch::{self, Blueprint};
use crate::cache::Slot;
use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::{Error, Result};
use crate::executor::{self, Executor, Span};
use crate::kernels::{self, Simd};
use layer::Layer;
use step::{Scratch, Step};

/// Tokens run at once when a slot has to be run anew.
const RERUN_TOKENS: usize = 256;

/// A model on the CPU.
pub struct Cpu {
    blueprint: Blueprint,
    weights: Weights,
    slots: HashMap<u64, Slot>,
    scratch: Scratch,
}

/// What a step reads and never changes.
struct Weights {
    simd: Simd,
    embedding: Tensor,
    layers: Vec<Layer>,
    final_norm: Vec<f32>,
    head: Tensor,
}

impl Cpu {
    /// The model of a checkpoint.
    ///
    /// # Errors
    /// A configuration that cannot be run, or [`Error::Tensors`] naming all that are missing or misshapen.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self> {
        Self::load_for(checkpoint, Simd::detect())
    }

    /// As [`Cpu::load`], on a given instruction set.
    ///
    /// # Errors
    /// As [`Cpu::load`].
    pub fn load_for(checkpoint: &Checkpoint, simd: Simd) -> Result<Self> {
        let blueprint = arch::blueprint(&checkpoint.config)?;
        let required = checkpoint.weights.require(&arch::tensors(&blueprint))?;
        let mut tensors: HashMap<String, Tensor> =
            required.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        let mut take =
            |name: &str| tensors.remove(name).expect("invariant: `require` returned all that were asked for");
        let embedding = take("model.embed_tokens.weight");
        let head = if blueprint.tied { embedding.clone() } else { take("lm_head.weight") };
        let final_norm = layer::norm_weight(&take("model.norm.weight"), &blueprint);
        let layers = (0..blueprint.layers.len())
            .map(|index| Layer::new(&blueprint, |name| take(&format!("model.layers.{index}.{name}"))))
            .collect();
        let weights = Weights { simd, embedding, layers, final_norm, head };
        Ok(Self { blueprint, weights, slots: HashMap::new(), scratch: Scratch::default() })
    }

    /// Where a span takes its sequence across the border of [`Blueprint::is_long`], run what is cached anew.
    fn cross_border(&mut self, span: &Span<'_>) {
        let layers = self.blueprint.layers.len();
        let slot = self.slots.entry(span.slot).or_insert_with(|| Slot::new(layers));
        let long = self.blueprint.is_long(span.start + span.tokens.len());
        if std::mem::replace(&mut slot.long, long) == long || slot.len() == 0 {
            return;
        }
        let tokens = slot.tokens.clone();
        slot.truncate(0, self.blueprint.kv_width());
        for (index, tokens) in tokens.chunks(RERUN_TOKENS).enumerate() {
            self.run(&[Span { slot: span.slot, start: index * RERUN_TOKENS, tokens, rows: 0..0 }]);
        }
    }

    fn run(&mut self, spans: &[Span<'_>]) -> Vec<f32> {
        let mut step = Step::new(&self.blueprint, &self.weights, &mut self.scratch, &mut self.slots, spans);
        for layer in 0..self.blueprint.layers.len() {
            step.layer(layer);
        }
        step.finish()
    }
}

impl Executor for Cpu {
    fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    fn forward(&mut self, spans: &[Span<'_>]) -> Result<Vec<f32>> {
        executor::check(&self.blueprint, spans, |slot| self.cached(slot))?;
        for span in spans.iter().filter(|span| !span.tokens.is_empty()) {
            self.cross_border(span);
        }
        let spans: Vec<_> = spans.iter().filter(|span| !span.tokens.is_empty()).cloned().collect();
        Ok(if spans.is_empty() { Vec::new() } else { self.run(&spans) })
    }

    fn project(&mut self, hidden: &[f32], out: &mut Vec<f32>) -> Result<()> {
        let (width, vocab) = (self.blueprint.hidden, self.blueprint.vocab);
        if !hidden.len().is_multiple_of(width) {
            return Err(Error::Rows { floats: hidden.len(), width });
        }
        out.clear();
        out.resize(hidden.len() / width * vocab, 0.0);
        kernels::linear(self.weights.simd, hidden, &self.weights.head, None, out);
        if let Some(cap) = self.blueprint.final_softcap {
            kernels::softcap(self.weights.simd, out, cap);
        }
        Ok(())
    }

    fn truncate(&mut self, slot: u64, len: usize) {
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.truncate(len, self.blueprint.kv_width());
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
}
