//! The executor on candle tensors: GPUs, and BLAS on a CPU.
//!
//! [`Decoder`] is the model by itself, of operations that gradients pass through; [`Tensors`] keeps its caches.

mod attention;
mod batch;
mod cache;
mod decoder;
mod layers;
mod upload;

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};

pub use batch::{Batch, Piece};
pub use decoder::Decoder;

use crate::arch::{self, Blueprint};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::executor::{self, Executor, Span};
use crate::format::Format;
use cache::Slot;

/// Tokens run at once when a slot has to be run anew.
const RERUN_TOKENS: usize = 256;

/// What norms, rotations and softmax are computed in, whatever the matrices are.
const WIDE: DType = DType::F32;

/// A model on a candle device.
pub struct Tensors {
    blueprint: Blueprint,
    decoder: Decoder,
    device: Device,
    slots: HashMap<u64, Slot>,
}

impl Tensors {
    /// The model of a checkpoint, uploaded one matrix at a time.
    ///
    /// Matrices are computed with in `dtype`: F32, F16 or BF16. Where none is given, that is F32 on candle's CPU; on
    /// a GPU F32 or F16 where most of the checkpoint is stored so, and BF16 for the rest, blocks among them.
    ///
    /// # Errors
    /// A configuration that cannot be run; [`Error::Tensors`] naming all that are missing or misshapen;
    /// [`Error::ComputeFormat`] for another `dtype`; or what the device says, as when its memory is full.
    pub fn load(checkpoint: &Checkpoint, device: &Device, dtype: Option<Format>) -> Result<Self> {
        let blueprint = arch::blueprint(&checkpoint.config)?;
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

    /// Where a span takes its sequence across the border of [`Blueprint::is_long`], run what is cached anew.
    fn cross_border(&mut self, span: &Span<'_>) -> Result<()> {
        let layers = self.blueprint.layers.len();
        let slot = self.slots.entry(span.slot).or_insert_with(|| Slot::new(layers));
        let long = self.blueprint.is_long(span.start + span.tokens.len());
        if std::mem::replace(&mut slot.long, long) == long {
            return Ok(());
        }
        let tokens = std::mem::take(&mut slot.tokens);
        for (index, tokens) in tokens.chunks(RERUN_TOKENS).enumerate() {
            self.run(&[Span { slot: span.slot, start: index * RERUN_TOKENS, tokens, rows: 0..0 }])?;
        }
        Ok(())
    }

    /// Hidden states of all tokens. The spans are valid and not empty, and their slots exist.
    fn run(&mut self, spans: &[Span<'_>]) -> Result<Tensor> {
        let slots = &mut self.slots;
        let is_long = |span: &Span<'_>| slots.get(&span.slot).is_some_and(|slot| slot.long);
        let pieces = spans.iter().map(|span| Piece { tokens: span.tokens, start: span.start, long: is_long(span) });
        let pieces: Vec<_> = pieces.collect();
        let batch = Batch::new(&self.blueprint, &pieces, &self.device)?;
        let hidden = self.decoder.forward_cached(&batch, &mut |layer, index, fresh| {
            let span = &spans[index];
            let slot = slots.get_mut(&span.slot).expect("invariant: `cross_border` made the slot");
            slot.layers[layer].append(span.start, &fresh)
        })?;
        // Only now do the new positions count: a step that failed half-way is as if it had never been.
        for span in spans {
            let slot = slots.get_mut(&span.slot).expect("invariant: `cross_border` made the slot");
            slot.tokens.extend_from_slice(span.tokens);
        }
        Ok(hidden)
    }
}

impl Executor for Tensors {
    fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    fn forward(&mut self, spans: &[Span<'_>]) -> Result<Vec<f32>> {
        executor::check(&self.blueprint, spans, |slot| self.cached(slot))?;
        let spans: Vec<_> = spans.iter().filter(|span| !span.tokens.is_empty()).cloned().collect();
        for span in &spans {
            self.cross_border(span)?;
        }
        if spans.is_empty() {
            return Ok(Vec::new());
        }
        let hidden = self.run(&spans)?;
        let firsts = spans.iter().scan(0, |next, span| Some(std::mem::replace(next, *next + span.tokens.len())));
        let wanted = |(span, first): (&Span<'_>, usize)| first + span.rows.start..first + span.rows.end;
        let rows: Vec<u32> = spans.iter().zip(firsts).flat_map(wanted).map(|row| row as u32).collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let rows = Tensor::new(rows, &self.device)?;
        Ok(hidden.index_select(&rows, 0)?.flatten_all()?.to_vec1()?)
    }

    fn project(&mut self, hidden: &[f32], out: &mut Vec<f32>) -> Result<()> {
        let width = self.blueprint.hidden;
        if !hidden.len().is_multiple_of(width) {
            return Err(Error::Rows { floats: hidden.len(), width });
        }
        out.clear();
        if !hidden.is_empty() {
            let hidden = Tensor::from_slice(hidden, (hidden.len() / width, width), &self.device)?;
            *out = self.decoder.logits(&hidden)?.flatten_all()?.to_vec1()?;
        }
        Ok(())
    }

    fn copy(&mut self, from: u64, to: u64, len: usize) -> Result<()> {
        self.slots.remove(&to);
        if let Some(slot) = self.slots.get(&from) {
            let copy = slot.beginning(len)?;
            self.slots.insert(to, copy);
        }
        Ok(())
    }

    fn truncate(&mut self, slot: u64, len: usize) {
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.tokens.truncate(len);
        }
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
}
