//! The config of a GGUF file in Hugging Face keys.
//!
//! Three keys describe differences between the tensors of the file and those of Hugging Face:
//! `wsd_rope_interleaved`, `wsd_norm_offset_folded`, and `wsd_rope_factors`, the divisors of the
//! RoPE frequencies (the llama3 scaling, computed by the converter).

mod rope;

use serde_json::{Map, Value, json};

use super::architecture::{Architecture, MIXTRAL, OLMO3, Variant};
use super::metadata::Metadata;
use crate::arch::Head;
use crate::checkpoint::weights::Weights;
use crate::error::{Error, Result};

/// The period of full-attention layers in Gemma 3.
const GEMMA3_PATTERN: u64 = 6;
/// The RoPE base of the other layers.
const GEMMA3_LOCAL_THETA: f64 = 10_000.0;
/// The numbers of layers of the two Gemma models (27B each) whose queries are scaled by hidden size
/// / heads instead of head size. The file has no key for it; llama.cpp uses the same numbers.
const GEMMA_27B_LAYERS: [(&str, u64); 2] = [("gemma2", 46), ("gemma3", 62)];

/// Counts in the file, with their Hugging Face names.
const COUNTS: &[(&str, &str)] = &[
    ("embedding_length", "hidden_size"),
    ("block_count", "num_hidden_layers"),
    ("attention.head_count", "num_attention_heads"),
    ("feed_forward_length", "intermediate_size"),
    ("context_length", "max_position_embeddings"),
];

const OPTIONAL_NUMBERS: &[(&str, &str)] =
    &[("attn_logit_softcapping", "attn_logit_softcapping"), ("final_logit_softcapping", "final_logit_softcapping")];

const TOKEN_IDS: &[(&str, &str)] = &[
    ("tokenizer.ggml.bos_token_id", "bos_token_id"),
    ("tokenizer.ggml.eos_token_id", "eos_token_id"),
    ("tokenizer.ggml.padding_token_id", "pad_token_id"),
];

/// Builds the config of a file.
pub(super) fn config(
    metadata: &Metadata<'_>,
    architecture: &Architecture,
    weights: &Weights,
) -> Result<Map<String, Value>> {
    let reader = Reader { metadata, architecture, weights };
    let Variant { model_type, class } = reader.variant()?;
    let mut config = Map::new();
    config.insert("model_type".into(), model_type.into());
    config.insert("architectures".into(), json!([class]));
    reader.sizes(&mut config)?;
    reader.experts(&mut config)?;
    reader.layer_types(&mut config)?;
    reader.tensors(&mut config)?;
    reader.rope(&mut config)?;
    if architecture.norm_offset_folded {
        reader.gemma(&mut config)?;
    } else {
        config.insert("hidden_act".into(), architecture.activation.into());
    }
    for (key, name) in TOKEN_IDS {
        if let Some(id) = metadata.token_id(key)? {
            config.insert((*name).into(), id.into());
        }
    }
    Ok(config)
}

struct Reader<'a> {
    metadata: &'a Metadata<'a>,
    architecture: &'a Architecture,
    weights: &'a Weights,
}

impl Reader<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture.name)
    }

    fn count(&self, name: &str) -> Result<Option<u64>> {
        self.metadata.unsigned(&self.key(name))
    }

    fn needed_count(&self, name: &str) -> Result<u64> {
        self.metadata.needed(&self.key(name), self.count(name)?)
    }

    /// Reads a 32-bit number as the shortest decimal that rounds to it (0.00001, not
    /// 0.0000099999997).
    fn number(&self, name: &str) -> Result<Option<f64>> {
        let value = self.metadata.float(&self.key(name))?;
        Ok(value.map(|value| (value as f32).to_string().parse().unwrap_or(value)))
    }

    /// Returns the model type and the class: a file may bear the name of another architecture.
    fn variant(&self) -> Result<Variant> {
        let has_experts = self.count("expert_count")?.is_some_and(|count| count > 0);
        let own = Variant { model_type: self.architecture.model_type, class: self.architecture.class };
        match self.architecture.name {
            "llama" if has_experts => Ok(MIXTRAL),
            "olmo2" if self.sliding_window()?.is_some() => Ok(OLMO3),
            "qwen3moe" | "olmoe" | "gpt-oss" => Ok(own),
            name if has_experts => Err(Error::Unsupported {
                file: self.metadata.file.into(),
                what: "GGUF architecture".into(),
                found: format!("{name} with experts"),
                supported: "a dense model of this architecture".into(),
            }),
            _ => Ok(own),
        }
    }

    /// Reads the numbers and the width of experts.
    fn experts(&self, config: &mut Map<String, Value>) -> Result<()> {
        for (key, name) in [
            ("expert_count", "num_experts"),
            ("expert_used_count", "num_experts_per_tok"),
            ("expert_feed_forward_length", "moe_intermediate_size"),
        ] {
            if let Some(count) = self.count(key)?.filter(|count| *count > 0) {
                config.insert(name.into(), count.into());
            }
        }
        for (name, flag) in self.architecture.flags {
            config.insert((*name).into(), (*flag).into());
        }
        Ok(())
    }

    /// Reads which layers have a window: a flag for each, or else by the architecture's period.
    fn layer_types(&self, config: &mut Map<String, Value>) -> Result<()> {
        let (Some(period), Some(_)) = (self.architecture.window_period, self.sliding_window()?) else { return Ok(()) };
        let layers = self.needed_count("block_count")?.min(self.weights.names().count() as u64);
        let key = self.key("attention.sliding_window_pattern");
        let slides: Vec<bool> = match self.metadata.flags(&key)? {
            Some(flags) if flags.len() as u64 != layers => {
                let reason = format!("must have {layers} values (one per layer), got {}", flags.len());
                return Err(self.metadata.fault(&key, reason));
            }
            Some(flags) => flags,
            None => (0..layers).map(|layer| (layer + 1) % period != 0).collect(),
        };
        let kind = |slides: bool| if slides { "sliding_attention" } else { "full_attention" };
        config.insert("layer_types".into(), slides.into_iter().map(kind).collect());
        Ok(())
    }

    fn sizes(&self, config: &mut Map<String, Value>) -> Result<()> {
        for (key, name) in COUNTS {
            config.insert((*name).into(), self.needed_count(key)?.into());
        }
        let heads = self.needed_count("attention.head_count")?;
        let key_value_heads = self.count("attention.head_count_kv")?.unwrap_or(heads);
        config.insert("num_key_value_heads".into(), key_value_heads.into());
        config.insert("head_dim".into(), self.head_dim()?.into());
        let [key, name] = self.architecture.epsilon;
        let epsilon = self.metadata.needed(&self.key(key), self.number(key)?)?;
        config.insert(name.into(), epsilon.into());
        if let Some(window) = self.sliding_window()? {
            config.insert("sliding_window".into(), window.into());
        }
        for (key, name) in OPTIONAL_NUMBERS.iter().chain(self.architecture.numbers) {
            if let Some(value) = self.number(key)? {
                config.insert((*name).into(), value.into());
            }
        }
        Ok(())
    }

    /// Reads the sliding window, in tokens; the 0 of a file means no window.
    fn sliding_window(&self) -> Result<Option<u64>> {
        Ok(self.count("attention.sliding_window")?.filter(|window| *window > 0))
    }

    fn head_dim(&self) -> Result<u64> {
        let heads = self.needed_count("attention.head_count")?;
        let of_hidden = self.needed_count("embedding_length")?.checked_div(heads);
        let head_dim = self.count("attention.key_length")?.or(of_hidden);
        head_dim.ok_or_else(|| self.metadata.fault(&self.key("attention.head_count"), "must be at least 1, got 0"))
    }

    /// Derives the keys that only the tensors determine.
    fn tensors(&self, config: &mut Map<String, Value>) -> Result<()> {
        let embedding = "model.embed_tokens.weight";
        let rows = self.weights.get(embedding).map(|tensor| tensor.rows());
        let rows =
            rows.ok_or_else(|| Error::malformed(self.metadata.file, "tensor `token_embd.weight`", "it is missing"))?;
        config.insert("vocab_size".into(), rows.into());
        config.insert("tie_word_embeddings".into(), self.weights.get(&Head::VOCABULARY.weight()).is_none().into());
        let has = |part: &str| self.weights.get(&format!("model.layers.0.{part}")).is_some();
        let has_bias = has("self_attn.q_proj.bias") || has("self_attn.qkv_proj.bias");
        // Files of StableLM state it of models of both kinds; the second norm tells them apart.
        let flag = match self.architecture.name {
            "stablelm" => Some(false),
            _ => self.metadata.bool(&self.key("use_parallel_residual"))?,
        };
        for (key, value) in [
            ("attention_bias", has_bias),
            ("use_qkv_bias", has_bias),
            ("mlp_bias", has("mlp.up_proj.bias")),
            // Of a parallel model without the second norm some files state nothing.
            ("use_parallel_residual", flag.unwrap_or(true) || !has("post_attention_layernorm.weight")),
        ] {
            config.insert(key.into(), value.into());
        }
        Ok(())
    }

    fn gemma(&self, config: &mut Map<String, Value>) -> Result<()> {
        config.insert("wsd_norm_offset_folded".into(), true.into());
        config.insert("hidden_activation".into(), "gelu_pytorch_tanh".into());
        let (head_dim, heads) = (self.head_dim()?, self.needed_count("attention.head_count")?);
        let large = GEMMA_27B_LAYERS.contains(&(self.architecture.name, self.needed_count("block_count")?));
        let scalar = match self.number("attention.scale")? {
            Some(scale) => nearly_whole(scale.powi(-2)),
            None if large => self.needed_count("embedding_length")? as f64 / heads as f64,
            None => head_dim as f64,
        };
        config.insert("query_pre_attn_scalar".into(), scalar.into());
        if self.architecture.name == "gemma3" {
            let pattern = self.count("attention.sliding_window_pattern")?.unwrap_or(GEMMA3_PATTERN);
            config.insert("sliding_window_pattern".into(), pattern.into());
            let local = self.number("rope.freq_base_swa")?.unwrap_or(GEMMA3_LOCAL_THETA);
            config.insert("rope_local_base_freq".into(), local.into());
        }
        Ok(())
    }
}

/// Rounds a number to the whole number that it is but for the rounding of a file.
fn nearly_whole(number: f64) -> f64 {
    let whole = number.round();
    if (number - whole).abs() < 1e-6 * whole { whole } else { number }
}
