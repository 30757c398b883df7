//! The executor on candle tensors: GPUs, and BLAS on a CPU.
//!
//! [`Decoder`] is the model without caches, of operations that gradients pass through; [`Tensors`]
//! adds the KV caches.

mod attention;
mod batch;
mod cache;
mod decoder;
mod experts;
mod layers;
mod upload;
mod wide;

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use wsd_core::Layer;

pub use batch::{Batch, Piece};
pub use decoder::Decoder;

use crate::adapter::{Adapter, LowRank};
use crate::arch::{self, Blueprint, Head};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::executor::{self, Executor, Span};
use crate::format::Format;
use cache::Slot;
use decoder::Context;

/// Tokens run at once when a slot is run again.
const RERUN_TOKENS: usize = 256;

/// A model on a candle device.
pub struct Tensors {
    blueprint: Blueprint,
    decoder: Decoder,
    device: Device,
    slots: HashMap<u64, Slot>,
}

impl Tensors {
    /// Loads the model of a checkpoint, one matrix at a time.
    ///
    /// Products are computed in `dtype`: F32, F16 or BF16. The default is F32 on candle's CPU. On a
    /// GPU it is F32 or F16 if most of the checkpoint is stored so, else BF16, also for block
    /// formats.
    ///
    /// # Errors
    /// A configuration that cannot be run; [`Error::Tensors`] naming all that are missing or
    /// misshapen; [`Error::ComputeFormat`] for another `dtype`; or those of the device, as when its
    /// memory is full.
    pub fn load(checkpoint: &Checkpoint, device: &Device, dtype: Option<Format>) -> Result<Self> {
        let checkpoint = &*checkpoint.without_factors()?;
        let shape = |name: &str| checkpoint.weights.get(name).map(|tensor| tensor.shape.as_slice());
        let blueprint = arch::blueprint(&checkpoint.config)?.with_heads(shape);
        let required = checkpoint.weights.require(&arch::tensors(&blueprint))?;
        let format = match dtype {
            Some(Format::F32 | Format::F16 | Format::BF16) | None => {
                dtype.unwrap_or_else(|| upload::compute_format(&required, device))
            }
            Some(format) => return Err(Error::ComputeFormat { format: format.name() }),
        };
        let required: HashMap<_, _> = required.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        let decoder = Decoder::new(&blueprint, |name| upload::upload(&required[name], format, device))?;
        Ok(Self { blueprint, decoder, device: device.clone(), slots: HashMap::new() })
    }

    /// Runs the cached tokens again if a span takes its sequence across the border of
    /// [`Blueprint::is_long`].
    fn cross_border(&mut self, span: &Span<'_>) -> Result<()> {
        let layers = self.blueprint.layers.len();
        let slot = self.slots.entry(span.slot).or_insert_with(|| Slot::new(layers));
        let long = self.blueprint.is_long(span.end());
        if std::mem::replace(&mut slot.long, long) == long {
            return Ok(());
        }
        let tokens = std::mem::take(&mut slot.tokens);
        for (index, tokens) in tokens.chunks(RERUN_TOKENS).enumerate() {
            self.run(&[Span::chain(span.slot, index * RERUN_TOKENS, tokens)])?;
        }
        Ok(())
    }

    /// Runs spans, which are valid and not empty and whose slots exist. Returns hidden states of
    /// all tokens by layer: those that spans ask for.
    fn run<'a>(&mut self, spans: &[Span<'a>]) -> Result<HashMap<Layer, Tensor>> {
        let slots = &mut self.slots;
        let is_long = |span: &Span<'_>| slots.get(&span.slot).is_some_and(|slot| slot.long);
        let piece = |span: &Span<'a>| Piece {
            tokens: span.tokens,
            start: span.start,
            long: is_long(span),
            parents: span.parents,
        };
        let pieces: Vec<_> = spans.iter().map(piece).collect();
        let batch = Batch::new(&self.blueprint, &pieces, &self.device)?;
        let mut context = Run { spans, slots, hidden: HashMap::new() };
        let last = self.decoder.forward_in(&batch, &mut context)?;
        let Run { mut hidden, slots, .. } = context;
        for (_, inner) in hidden.iter_mut().filter(|(layer, _)| layer.is_normed()) {
            *inner = self.decoder.normed(inner)?;
        }
        hidden.insert(Layer::Final, last);
        // New positions count only now, so a step that fails half-way has no effect.
        for span in spans {
            let slot = slots.get_mut(&span.slot).expect("invariant: `cross_border` made the slot");
            slot.tokens.extend_from_slice(span.tokens);
            slot.fork = span.fork();
        }
        Ok(hidden)
    }
}

/// The context of a step.
struct Run<'a> {
    spans: &'a [Span<'a>],
    slots: &'a mut HashMap<u64, Slot>,
    /// Hidden states of all tokens, of the layers that spans ask for.
    hidden: HashMap<Layer, Tensor>,
}

impl Context for Run<'_> {
    fn remember(&mut self, layer: usize, piece: usize, fresh: [Tensor; 2]) -> candle_core::Result<[Tensor; 2]> {
        let span = &self.spans[piece];
        let slot = self.slots.get_mut(&span.slot).expect("invariant: `cross_border` made the slot");
        slot.layers[layer].append(span.start, &fresh)
    }

    fn observe(&mut self, layers: usize, hidden: &Tensor) {
        for layer in [Layer::After(layers), Layer::Normed(layers)] {
            if self.spans.iter().any(|span| span.layer == layer) {
                self.hidden.insert(layer, hidden.clone());
            }
        }
    }
}

impl Executor for Tensors {
    fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    fn forward(&mut self, spans: &[Span<'_>]) -> Result<Vec<f32>> {
        executor::check(&self.blueprint, spans, |slot| self.slots.get(&slot).map(Slot::cached).unwrap_or_default())?;
        let spans: Vec<_> = spans.iter().filter(|span| !span.tokens.is_empty()).cloned().collect();
        for span in &spans {
            self.cross_border(span)?;
        }
        if spans.is_empty() {
            return Ok(Vec::new());
        }
        let hidden = self.run(&spans)?;
        let (mut first, mut out) = (0, Vec::new());
        for alike in spans.chunk_by(|one, other| one.layer == other.layer) {
            let mut rows: Vec<u32> = Vec::new();
            for span in alike {
                rows.extend((first + span.rows.start..first + span.rows.end).map(|row| row as u32));
                first += span.tokens.len();
            }
            if !rows.is_empty() {
                let rows = Tensor::new(rows, &self.device)?;
                out.extend(hidden[&alike[0].layer].index_select(&rows, 0)?.flatten_all()?.to_vec1::<f32>()?);
            }
        }
        Ok(out)
    }

    fn adapt(&mut self, adapter: &Adapter) -> Result<()> {
        adapter.refuse_routed("this device")?;
        for (module, LowRank { a, b, scale, .. }) in adapter.modules(&self.blueprint)? {
            let [a, b] = [a, b].map(|matrix| Tensor::from_vec(matrix.to_f32(), &matrix.shape[..], &self.device));
            self.decoder.add(module, &(b?.matmul(&a?)? * f64::from(*scale))?)?;
        }
        // Cached keys and values belong to the model without the adapter.
        self.slots.clear();
        Ok(())
    }

    fn project(&mut self, head: Head, hidden: &[f32], out: &mut Vec<f32>) -> Result<()> {
        let width = self.blueprint.hidden;
        if !hidden.len().is_multiple_of(width) {
            return Err(Error::Rows { floats: hidden.len(), width });
        }
        out.clear();
        if !hidden.is_empty() {
            let hidden = Tensor::from_slice(hidden, (hidden.len() / width, width), &self.device)?;
            *out = self.decoder.project(head, &hidden)?.flatten_all()?.to_vec1()?;
        }
        Ok(())
    }

    fn copy(&mut self, from: u64, to: u64, len: usize) -> Result<()> {
        self.slots.remove(&to);
        if let Some(slot) = self.slots.get(&from) {
            let copy = slot.prefix(len)?;
            self.slots.insert(to, copy);
        }
        Ok(())
    }

    fn truncate(&mut self, slot: u64, len: usize) {
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.truncate(len);
        }
    }

    fn keep(&mut self, slot: u64, len: usize, path: &[usize]) -> Result<()> {
        let kept = self.slots.get_mut(&slot).map_or(Ok(()), |slot| slot.keep(len, path));
        kept.map_err(|error| {
            self.slots.remove(&slot);
            error.into()
        })
    }

    fn release(&mut self, slot: u64) {
        self.slots.remove(&slot);
    }

    fn cached(&self, slot: u64) -> usize {
        self.slots.get(&slot).map_or(0, |slot| slot.tokens.len())
    }

    fn slots(&self) -> usize {
        self.slots.len()
    }

    fn read_bandwidth(&self, bytes: usize) -> Result<f64> {
        crate::kernels::read_bandwidth(bytes)
    }
}
