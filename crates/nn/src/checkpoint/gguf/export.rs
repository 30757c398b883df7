//! A checkpoint as a GGUF file: the way back from what [`super::open`] does, by the same tables.

use std::path::Path;

use wsd_core::files::write_whole_with;

use super::architecture::Architecture;
use super::vocabulary_entries::vocabulary_entries;
use super::writer::{Announced, Entry, write};
use crate::arch::{self, Blueprint, RopePlan, Scaling};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::{Error, Format, Result};

/// `general.file_type` of each format that is written.
const FILE_TYPES: [(Format, u32); 6] =
    [(Format::F32, 0), (Format::F16, 1), (Format::Q4_0, 2), (Format::Q8_0, 7), (Format::Q4_K, 14), (Format::BF16, 32)];
const QUANTIZATION_VERSION: u32 = 2;

impl Checkpoint {
    /// Write a GGUF file with its matrices in `format`, whole or not at all. Matrices whose rows are no whole number of the
    /// format's blocks stay as they are; vectors are written as F32. llama.cpp reads the file.
    ///
    /// # Errors
    /// A format that cannot be written, what the container has no place for, and those of the file system.
    pub fn save_gguf(&self, to: &Path, format: Format) -> Result<()> {
        let (_, file_type) =
            FILE_TYPES.iter().find(|(written, _)| *written == format).ok_or_else(|| Error::Setting {
                name: "dtype",
                value: format.to_string(),
                limit: Format::WRITABLE.map(Format::name).join(", "),
            })?;
        let export = Export::new(self)?;
        let mut metadata = export.metadata(*file_type)?;
        metadata.extend(vocabulary_entries(self, export.plan.vocab)?);
        let planned = export.tensors(format);
        let announced: Vec<_> = planned.iter().map(|(announced, _)| announced.clone()).collect();
        write_whole_with(to, |file| -> Result<()> {
            let mut out = std::io::BufWriter::new(file);
            write(&mut out, &metadata, &announced, |number| {
                let (announced, source) = &planned[number];
                announced.format.quantize(&export.values(source))
            })?;
            Ok(std::io::Write::flush(&mut out)?)
        })
    }
}

/// A checkpoint, and what the file calls it.
struct Export<'a> {
    checkpoint: &'a Checkpoint,
    architecture: &'static Architecture,
    plan: Blueprint,
    /// Tensors that a config holds as numbers.
    factors: Vec<Tensor>,
}

impl<'a> Export<'a> {
    fn new(checkpoint: &'a Checkpoint) -> Result<Self> {
        let plan = arch::blueprint(&checkpoint.config)?;
        let architecture = Architecture::written_as(arch::model_type(&checkpoint.config)?);
        let factors = factors(&plan.ropes[0])?;
        Ok(Self { checkpoint, architecture, plan, factors })
    }

    fn metadata(&self, file_type: u32) -> Result<Vec<(String, Entry)>> {
        let plan = &self.plan;
        let mut entries = vec![
            ("general.architecture".to_owned(), Entry::Text(self.architecture.name.into())),
            ("general.type".to_owned(), Entry::Text("model".into())),
            ("general.name".to_owned(), Entry::Text(self.checkpoint.name.clone())),
            ("general.file_type".to_owned(), Entry::Unsigned(file_type)),
            ("general.quantization_version".to_owned(), Entry::Unsigned(QUANTIZATION_VERSION)),
        ];
        let mut own = |key: &str, value: Entry| entries.push((format!("{}.{key}", self.architecture.name), value));
        let rope = &plan.ropes[0];
        for (key, count) in [
            ("vocab_size", plan.vocab),
            ("context_length", plan.max_len),
            ("embedding_length", plan.hidden),
            ("block_count", plan.layers.len()),
            ("feed_forward_length", plan.ffn),
            ("attention.head_count", plan.heads),
            ("attention.head_count_kv", plan.kv_heads),
            ("attention.key_length", plan.head_dim),
            ("attention.value_length", plan.head_dim),
            ("rope.dimension_count", rope.dims),
        ] {
            own(key, Entry::Unsigned(count as u32));
        }
        own("attention.layer_norm_rms_epsilon", Entry::Float(plan.norms.eps));
        for (key, cap) in
            [("attn_logit_softcapping", plan.attention_softcap), ("final_logit_softcapping", plan.final_softcap)]
        {
            if let Some(cap) = cap {
                own(key, Entry::Float(cap));
            }
        }
        if self.architecture.norm_offset_folded {
            own("attention.scale", Entry::Float(plan.attention_scale));
        }
        self.windows(&mut own)?;
        own("rope.freq_base", Entry::Float(self.full_rope().theta as f32));
        match &rope.scaling {
            Scaling::Linear { factor } => {
                own("rope.scaling.type", Entry::Text("linear".into()));
                own("rope.scaling.factor", Entry::Float(*factor as f32));
            }
            Scaling::Long { original, attention, .. } => {
                own("rope.scaling.original_context_length", Entry::Unsigned(*original as u32));
                own("rope.scaling.attn_factor", Entry::Float(*attention));
            }
            Scaling::None | Scaling::Llama3 { .. } | Scaling::Divided { .. } => {}
        }
        Ok(entries)
    }

    /// The rotation of the layers that see everything.
    fn full_rope(&self) -> &RopePlan {
        let full = self.plan.layers.iter().find(|layer| layer.window.is_none());
        &self.plan.ropes[full.map_or(0, |layer| layer.rope)]
    }

    /// The sliding window, where the container has a place for it: a Llama file has none, and Mistral goes as Llama.
    fn windows(&self, own: &mut impl FnMut(&str, Entry)) -> Result<()> {
        let layers = &self.plan.layers;
        let Some((window, local)) = layers.iter().find_map(|layer| layer.window.map(|window| (window, layer.rope)))
        else {
            return Ok(());
        };
        if self.architecture.rope_interleaved {
            return Ok(());
        }
        own("attention.sliding_window", Entry::Unsigned(window as u32));
        if self.architecture.name == "gemma3" {
            let pattern = layers.iter().position(|layer| layer.window.is_none()).map_or(layers.len(), |full| full) + 1;
            let regular =
                layers.iter().enumerate().all(|(place, layer)| layer.window.is_none() == ((place + 1) % pattern == 0));
            if !regular {
                let reason = "a GGUF file says only that every so many layers see everything".to_owned();
                return Err(Error::malformed(&self.checkpoint.name, "key `layer_types`", reason));
            }
            own("attention.sliding_window_pattern", Entry::Unsigned(pattern as u32));
            own("rope.freq_base_swa", Entry::Float(self.plan.ropes[local].theta as f32));
        }
        Ok(())
    }

    /// Every tensor as it is announced, and where its values come from.
    fn tensors(&self, format: Format) -> Vec<(Announced, &Tensor)> {
        let weights =
            self.checkpoint.weights.iter().filter(|tensor| !(self.plan.tied && tensor.name == "lm_head.weight"));
        let announced = |tensor: &Tensor| {
            let format = match tensor.shape.len() {
                0 | 1 => Format::F32,
                _ if tensor.fits(format) => format,
                _ => tensor.format,
            };
            let name = self.architecture.written_name(&tensor.name, self.plan.norms.post_mlp.is_some());
            Announced { name, format, shape: tensor.shape.clone() }
        };
        weights.chain(&self.factors).map(|tensor| (announced(tensor), tensor)).collect()
    }

    /// The values of a tensor as the file has them.
    fn values(&self, tensor: &Tensor) -> Vec<f32> {
        let mut values = tensor.to_f32();
        let plan = &self.plan;
        if tensor.name.ends_with("norm.weight") {
            values.iter_mut().for_each(|value| *value += plan.norms.offset);
        }
        if self.architecture.rope_interleaved && !plan.ropes[0].interleaved {
            let is = |part: &str| tensor.name.contains(part);
            if is(".q_proj.") || is(".k_proj.") {
                let width = if tensor.shape.len() == 1 { 1 } else { tensor.columns() };
                return interleaved(&values, plan.head_dim, width);
            }
        }
        values
    }
}

/// Rows `i` and `i + head_dim / 2` of each head side by side, as rotations of adjacent pairs need them; a row has `width` values.
fn interleaved(values: &[f32], head_dim: usize, width: usize) -> Vec<f32> {
    let heads = values.chunks(head_dim * width);
    let rows = heads.flat_map(|head| {
        let (first, second) = head.split_at(head_dim / 2 * width);
        first.chunks(width).zip(second.chunks(width)).flat_map(|(row, other)| [row, other])
    });
    rows.flatten().copied().collect()
}

fn factors(rope: &RopePlan) -> Result<Vec<Tensor>> {
    let tensor =
        |name: &str, values: &[f32]| Tensor::new(name, Format::F32, vec![values.len()], Format::F32.quantize(values)?);
    match &rope.scaling {
        Scaling::Llama3 { .. } => {
            let plain = RopePlan { scaling: Scaling::None, ..rope.clone() };
            let divisors: Vec<_> = plain
                .frequencies(false)
                .iter()
                .zip(rope.frequencies(false))
                .map(|(plain, slow)| plain / slow)
                .collect();
            Ok(vec![tensor("rope_freqs", &divisors)?])
        }
        Scaling::Divided { divisors } => Ok(vec![tensor("rope_freqs", divisors)?]),
        Scaling::Long { short, long, .. } => {
            Ok(vec![tensor("rope_factors_long.weight", long)?, tensor("rope_factors_short.weight", short)?])
        }
        Scaling::None | Scaling::Linear { .. } => Ok(Vec::new()),
    }
}
