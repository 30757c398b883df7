//! Writing a checkpoint as a GGUF file: the inverse of [`super::open`], by the same tables.

use std::path::Path;

use wsd_core::files::write_whole_with;

use super::architecture::Architecture;
use super::vocabulary_entries::vocabulary_entries;
use super::writer::{Announced, Entry, write};
use super::{read_tensors, sampling};
use crate::arch::{self, Blueprint, RopePlan, Scaling};
use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::{Error, Result};
use crate::format::Format;

/// The value of `general.file_type` for each writable format.
const FILE_TYPES: [(Format, u32); 16] = [
    (Format::F32, 0),
    (Format::F16, 1),
    (Format::Q4_0, 2),
    (Format::Q4_1, 3),
    (Format::Q8_0, 7),
    (Format::Q5_0, 8),
    (Format::Q5_1, 9),
    (Format::Q2_K, 10),
    (Format::Q3_K, 11),
    (Format::Q4_K, 14),
    (Format::Q5_K, 16),
    (Format::Q6_K, 18),
    (Format::IQ4_NL, 25),
    (Format::IQ4_XS, 30),
    (Format::BF16, 32),
    (Format::MXFP4, 38),
];
const QUANTIZATION_VERSION: u32 = 2;

impl Checkpoint {
    /// Writes a GGUF file with its matrices in `format`, whole or not at all. Matrices whose rows
    /// are not a multiple of the format's block keep their format; vectors are written as F32.
    /// Factored tables are multiplied out. llama.cpp reads the file.
    ///
    /// # Errors
    /// A format that cannot be written, a property that the container cannot store, and those of
    /// the file system.
    pub fn save_gguf(&self, to: &Path, format: Format) -> Result<()> {
        let (_, file_type) = FILE_TYPES
            .iter()
            .find(|(written, _)| *written == format)
            .ok_or_else(|| Error::Setting { name: "dtype", value: format.to_string(), limit: Format::names() })?;
        let whole = self.without_factors()?;
        let export = Export::new(&whole)?;
        let mut metadata = export.metadata(*file_type)?;
        metadata.extend(sampling::entries(self));
        metadata.extend(vocabulary_entries(self, export.blueprint.vocab)?);
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

/// A checkpoint with its properties in the file.
struct Export<'a> {
    checkpoint: &'a Checkpoint,
    architecture: &'static Architecture,
    blueprint: Blueprint,
    /// Tensors made of numbers in the config.
    factors: Vec<Tensor>,
}

impl<'a> Export<'a> {
    fn new(checkpoint: &'a Checkpoint) -> Result<Self> {
        let blueprint = arch::blueprint(&checkpoint.config)?;
        let architecture = Architecture::written_as(&checkpoint.name, arch::model_type(&checkpoint.config)?)?;
        let factors = factors(&blueprint.ropes[0])?;
        Ok(Self { checkpoint, architecture, blueprint, factors })
    }

    fn metadata(&self, file_type: u32) -> Result<Vec<(String, Entry)>> {
        let blueprint = &self.blueprint;
        let mut entries = vec![
            ("general.architecture".to_owned(), Entry::Text(self.architecture.name.into())),
            ("general.type".to_owned(), Entry::Text("model".into())),
            ("general.name".to_owned(), Entry::Text(self.checkpoint.name.clone())),
            ("general.file_type".to_owned(), Entry::Unsigned(file_type)),
            ("general.quantization_version".to_owned(), Entry::Unsigned(QUANTIZATION_VERSION)),
        ];
        let mut own = |key: &str, value: Entry| entries.push((format!("{}.{key}", self.architecture.name), value));
        let rope = &blueprint.ropes[0];
        for (key, count) in [
            ("vocab_size", blueprint.vocab),
            ("context_length", blueprint.max_len),
            ("embedding_length", blueprint.hidden),
            ("block_count", blueprint.layers.len()),
            ("feed_forward_length", blueprint.ffn),
            ("attention.head_count", blueprint.heads),
            ("attention.head_count_kv", blueprint.kv_heads),
            ("attention.key_length", blueprint.head_dim),
            ("attention.value_length", blueprint.head_dim),
            ("rope.dimension_count", rope.dims),
        ] {
            own(key, Entry::Unsigned(count as u32));
        }
        own("attention.layer_norm_rms_epsilon", Entry::Float(blueprint.norms.eps));
        for (key, cap) in [
            ("attn_logit_softcapping", blueprint.attention_softcap),
            ("final_logit_softcapping", blueprint.final_softcap),
        ] {
            if let Some(cap) = cap {
                own(key, Entry::Float(cap));
            }
        }
        if self.architecture.norm_offset_folded {
            own("attention.scale", Entry::Float(blueprint.attention_scale));
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
            Scaling::Yarn { factor, fast, slow, original, attention, .. } => {
                own("rope.scaling.type", Entry::Text("yarn".into()));
                own("rope.scaling.factor", Entry::Float(*factor as f32));
                own("rope.scaling.original_context_length", Entry::Unsigned(*original as u32));
                own("rope.scaling.yarn_beta_fast", Entry::Float(*fast as f32));
                own("rope.scaling.yarn_beta_slow", Entry::Float(*slow as f32));
                // llama.cpp multiplies it with the factor of the paper.
                let relative = f64::from(*attention) / (0.1 * factor.max(1.0).ln() + 1.0);
                if (relative - 1.0).abs() > 1e-6 {
                    own("rope.scaling.attn_factor", Entry::Float(relative as f32));
                }
            }
            Scaling::None | Scaling::Llama3 { .. } | Scaling::Divided { .. } => {}
        }
        Ok(entries)
    }

    /// Returns the rotary embedding of the layers with full attention.
    fn full_rope(&self) -> &RopePlan {
        let full = self.blueprint.layers.iter().find(|layer| layer.window.is_none());
        &self.blueprint.ropes[full.and_then(|layer| layer.rope).unwrap_or(0)]
    }

    /// Writes the sliding window. Files of architecture `llama`, which Mistral uses too, have no
    /// key for it.
    fn windows(&self, own: &mut impl FnMut(&str, Entry)) -> Result<()> {
        let layers = &self.blueprint.layers;
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
                let reason = "a GGUF file stores only a period of full-attention layers".to_owned();
                return Err(Error::malformed(&self.checkpoint.name, "key `layer_types`", reason));
            }
            own("attention.sliding_window_pattern", Entry::Unsigned(pattern as u32));
            let local = &self.blueprint.ropes[local.unwrap_or(0)];
            own("rope.freq_base_swa", Entry::Float(local.theta as f32));
        }
        Ok(())
    }

    /// Lists every tensor of the file with the source of its values. Tensors that the model does not
    /// read, such as buffers of older folders, are left out: readers refuse a file with them.
    fn tensors(&self, format: Format) -> Vec<(Announced, &Tensor)> {
        let read = read_tensors(self.checkpoint, self.blueprint.clone());
        let weights = self.checkpoint.weights.iter().filter(|tensor| read.contains(&tensor.name));
        let announced = |tensor: &Tensor| {
            let format = match tensor.shape.len() {
                0 | 1 => Format::F32,
                _ if tensor.fits(format) => format,
                _ => tensor.format,
            };
            let name = self.architecture.written_name(&tensor.name, self.blueprint.norms.post_mlp.is_some());
            Announced { name, format, shape: tensor.shape.clone() }
        };
        weights.chain(&self.factors).map(|tensor| (announced(tensor), tensor)).collect()
    }

    /// Computes the values of a tensor in the file.
    fn values(&self, tensor: &Tensor) -> Vec<f32> {
        let mut values = tensor.to_f32();
        let blueprint = &self.blueprint;
        if tensor.name.ends_with("norm.weight") {
            values.iter_mut().for_each(|value| *value += blueprint.norms.offset);
        }
        if self.architecture.rope_interleaved && !blueprint.ropes[0].interleaved {
            let is = |part: &str| tensor.name.contains(part);
            if is(".q_proj.") || is(".k_proj.") {
                let width = if tensor.shape.len() == 1 { 1 } else { tensor.columns() };
                return interleaved(&values, blueprint.head_dim, width);
            }
        }
        values
    }
}

/// Places rows `i` and `i + head_dim / 2` of each head next to each other, as the rotation of
/// adjacent pairs needs them; a row has `width` values.
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
        Scaling::None | Scaling::Linear { .. } | Scaling::Yarn { .. } => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests;
