//! The table of architectures in GGUF files, with their names of tensors.
//!
//! Names and conventions are those of llama.cpp's converter (`convert_hf_to_gguf.py`,
//! `gguf-py/gguf/constants.py`).

use super::metadata::Metadata;
use crate::error::{Error, Result};

/// One row of the table of architectures.
pub(super) struct Architecture {
    /// The value of `general.architecture` and the prefix of its keys.
    pub(super) name: &'static str,
    /// The `model_type` in a Hugging Face config.
    pub(super) model_type: &'static str,
    /// The entry of `architectures` in a Hugging Face config.
    pub(super) class: &'static str,
    /// The rows of q and k are permuted: RoPE rotates adjacent pairs instead of the two halves of a
    /// head.
    pub(super) rope_interleaved: bool,
    /// The norm weights of the file include the 1 that Hugging Face adds (`1 + weight`).
    pub(super) norm_offset_folded: bool,
    /// Checkpoints of the architecture can be written, not only read.
    pub(super) is_written: bool,
    /// The default of `rope_theta`.
    pub(super) rope_theta: f64,
    /// The nonlinearity, of which the file has no key.
    pub(super) activation: &'static str,
    /// The key of the epsilon of norms in the file and in a Hugging Face config.
    pub(super) epsilon: [&'static str; 2],
    /// Numbers of the architecture's own: keys in the file and in a Hugging Face config.
    pub(super) numbers: &'static [(&'static str, &'static str)],
    /// Flags that the architecture means without a key.
    pub(super) flags: &'static [(&'static str, bool)],
    /// The period of layers with full attention, if the file has a sliding window but no pattern.
    pub(super) window_period: Option<u64>,
    /// The parts of a layer with other names than in [`LAYER`].
    layer: &'static [(&'static str, &'static str)],
}

/// The row of a dense model's name, for a model that bears it and has experts or a sliding window.
pub(super) struct Variant {
    pub(super) model_type: &'static str,
    pub(super) class: &'static str,
}

/// Llama with experts.
pub(super) const MIXTRAL: Variant = Variant { model_type: "mixtral", class: "MixtralForCausalLM" };
/// OLMo 2 with a sliding window.
pub(super) const OLMO3: Variant = Variant { model_type: "olmo3", class: "Olmo3ForCausalLM" };

const PLAIN: Architecture = Architecture {
    name: "",
    model_type: "",
    class: "",
    rope_interleaved: false,
    norm_offset_folded: false,
    is_written: true,
    rope_theta: 10_000.0,
    activation: "silu",
    epsilon: ["attention.layer_norm_rms_epsilon", "rms_norm_eps"],
    numbers: &[],
    flags: &[],
    window_period: None,
    layer: &[],
};

/// Architectures with LayerNorms.
const CENTERED: Architecture =
    Architecture { is_written: false, epsilon: ["attention.layer_norm_epsilon", "layer_norm_eps"], ..PLAIN };

/// The parts of a layer with a fused projection of queries, keys and values.
const FUSED_QKV: &[(&str, &str)] = &[("attn_qkv", "self_attn.qkv_proj")];

const GEMMA: Architecture =
    Architecture { norm_offset_folded: true, layer: &[("ffn_norm", "pre_feedforward_layernorm")], ..PLAIN };

const ARCHITECTURES: &[Architecture] = &[
    // Mistral is written as `llama` too; it differs by a sliding window, which the file does not store.
    Architecture { name: "llama", model_type: "llama", class: "LlamaForCausalLM", rope_interleaved: true, ..PLAIN },
    Architecture { name: "qwen2", model_type: "qwen2", class: "Qwen2ForCausalLM", ..PLAIN },
    Architecture { name: "qwen3", model_type: "qwen3", class: "Qwen3ForCausalLM", ..PLAIN },
    Architecture { name: "gemma2", model_type: "gemma2", class: "Gemma2ForCausalLM", ..GEMMA },
    Architecture {
        name: "gemma3",
        model_type: "gemma3_text",
        class: "Gemma3ForCausalLM",
        rope_theta: 1_000_000.0,
        ..GEMMA
    },
    Architecture {
        name: "phi3",
        model_type: "phi3",
        class: "Phi3ForCausalLM",
        layer: &[("attn_qkv", "self_attn.qkv_proj"), ("ffn_up", "mlp.gate_up_proj")],
        ..PLAIN
    },
    Architecture { name: "olmo2", model_type: "olmo2", class: "Olmo2ForCausalLM", window_period: Some(4), ..PLAIN },
    Architecture {
        name: "smollm3",
        model_type: "smollm3",
        class: "SmolLM3ForCausalLM",
        rope_interleaved: true,
        is_written: false,
        ..PLAIN
    },
    Architecture {
        name: "granite",
        model_type: "granite",
        class: "GraniteForCausalLM",
        rope_interleaved: true,
        is_written: false,
        numbers: &[
            ("attention.scale", "attention_multiplier"),
            ("embedding_scale", "embedding_multiplier"),
            ("residual_scale", "residual_multiplier"),
            ("logit_scale", "logits_scaling"),
        ],
        ..PLAIN
    },
    Architecture { name: "stablelm", model_type: "stablelm", class: "StableLmForCausalLM", ..CENTERED },
    Architecture {
        name: "command-r",
        model_type: "cohere",
        class: "CohereForCausalLM",
        numbers: &[("logit_scale", "logit_scale")],
        ..CENTERED
    },
    Architecture {
        name: "cohere2",
        model_type: "cohere2",
        class: "Cohere2ForCausalLM",
        numbers: &[("logit_scale", "logit_scale")],
        window_period: Some(4),
        ..CENTERED
    },
    Architecture {
        name: "gptneox",
        model_type: "gpt_neox",
        class: "GPTNeoXForCausalLM",
        activation: "gelu",
        layer: FUSED_QKV,
        ..CENTERED
    },
    Architecture {
        name: "gpt2",
        model_type: "gpt2",
        class: "GPT2LMHeadModel",
        activation: "gelu_new",
        epsilon: ["attention.layer_norm_epsilon", "layer_norm_epsilon"],
        layer: FUSED_QKV,
        ..CENTERED
    },
    Architecture {
        name: "qwen3moe",
        model_type: "qwen3_moe",
        class: "Qwen3MoeForCausalLM",
        is_written: false,
        flags: &[("norm_topk_prob", true)],
        ..PLAIN
    },
    Architecture {
        name: "gpt-oss",
        model_type: "gpt_oss",
        class: "GptOssForCausalLM",
        is_written: false,
        rope_theta: 150_000.0,
        window_period: Some(2),
        ..PLAIN
    },
    Architecture { name: "olmoe", model_type: "olmoe", class: "OlmoeForCausalLM", is_written: false, ..PLAIN },
];

const OUTSIDE_LAYERS: &[(&str, &str)] = &[
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("position_embd.weight", "model.embed_positions.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output_norm.bias", "model.norm.bias"),
    ("output.weight", "lm_head.weight"),
    ("output.bias", "lm_head.bias"),
    ("rope_freqs.weight", "rope_freqs"),
];

const LAYER: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_sinks", "self_attn.sinks"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate_inp", "mlp.gate"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

/// Tensors outside of layers that only the configuration is made of, by their names in the file.
const OF_THE_CONFIG: [&str; 3] = ["rope_freqs", "rope_factors_long.weight", "rope_factors_short.weight"];

/// Tells whether a tensor, by its translated name, belongs to every architecture.
pub(super) fn is_outside_layers(name: &str) -> bool {
    OF_THE_CONFIG.contains(&name) || OUTSIDE_LAYERS.iter().any(|(_, translated)| *translated == name)
}

/// Model types written under the name of another.
const WRITTEN_AS: [(&str, &str); 1] = [("mistral", "llama")];

fn translate(tables: &[&[(&str, &'static str)]], name: &str) -> Option<&'static str> {
    tables.iter().copied().flatten().find(|(gguf, _)| *gguf == name).map(|(_, hugging_face)| *hugging_face)
}

impl Architecture {
    /// Finds the architecture that a file names.
    pub(super) fn of(metadata: &Metadata<'_>) -> Result<&'static Self> {
        let key = "general.architecture";
        let name = metadata.needed(key, metadata.string(key)?)?;
        ARCHITECTURES.iter().find(|architecture| architecture.name == name).ok_or_else(|| Error::Unsupported {
            file: metadata.file.into(),
            what: "GGUF architecture".into(),
            found: name.into(),
            supported: ARCHITECTURES.iter().map(|architecture| architecture.name).collect::<Vec<_>>().join(", "),
        })
    }

    /// Returns the architecture under which a model of this Hugging Face type is written.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an architecture that can be read but not written.
    pub(super) fn written_as(file: &str, model_type: &str) -> Result<&'static Self> {
        let written = WRITTEN_AS.iter().find(|(from, _)| *from == model_type).map_or(model_type, |(_, to)| *to);
        let writable = || ARCHITECTURES.iter().filter(|architecture| architecture.is_written);
        writable().find(|architecture| architecture.model_type == written).ok_or_else(|| Error::Unsupported {
            file: file.into(),
            what: "architecture for GGUF files".into(),
            found: model_type.into(),
            supported: writable()
                .map(|architecture| architecture.model_type)
                .chain(WRITTEN_AS.iter().map(|(from, _)| *from))
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// Translates a Hugging Face tensor name to the name in the file; names outside of the tables
    /// stay. Two names map to `post_attention_layernorm`: with norms after the parts of a layer
    /// (`post_norms`) it is the norm after attention, otherwise the norm before the feed-forward
    /// part.
    pub(super) fn written_name(&self, name: &str, post_norms: bool) -> String {
        let back = |tables: &[&[(&'static str, &'static str)]], name: &str| {
            let rows = tables.iter().copied().flatten();
            let mut found = rows.filter(|(_, hugging_face)| *hugging_face == name).map(|(gguf, _)| *gguf);
            if post_norms { found.next() } else { found.next_back() }
        };
        if let Some(written) = back(&[OUTSIDE_LAYERS], name) {
            return written.into();
        }
        let written = name.strip_prefix("model.layers.").and_then(|rest| {
            let (layer, rest) = rest.split_once('.')?;
            let (part, kind) = rest.rsplit_once('.')?;
            Some(format!("blk.{layer}.{}.{kind}", back(&[self.layer, LAYER], part)?))
        });
        written.unwrap_or_else(|| name.into())
    }

    /// Names each expert's part of a tensor of all experts, as `blk.0.ffn_up_exps.weight`; `None` for
    /// another tensor.
    pub(super) fn expert_name(name: &str) -> Option<impl Fn(usize) -> String> {
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let part = translate(&[LAYER], part.strip_suffix("_exps")?)?.strip_prefix("mlp.")?;
        let (layer, kind) = (layer.to_owned(), kind.to_owned());
        Some(move |expert| format!("model.layers.{layer}.mlp.experts.{expert}.{part}.{kind}"))
    }

    /// Translates a tensor name of the file to its Hugging Face name; names outside of the tables
    /// stay.
    pub(super) fn tensor_name(&self, name: &str) -> String {
        if let Some(translated) = translate(&[OUTSIDE_LAYERS], name) {
            return translated.into();
        }
        let translated = name.strip_prefix("blk.").and_then(|rest| {
            let (layer, rest) = rest.split_once('.')?;
            let (part, kind) = rest.rsplit_once('.')?;
            let translated = format!("model.layers.{layer}.{}.{kind}", translate(&[self.layer, LAYER], part)?);
            // Sinks are no module: their name has no kind.
            Some(translated.replace("sinks.weight", "sinks"))
        });
        translated.unwrap_or_else(|| name.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_architecture() {
        let named = |architecture: &str, name: &str| {
            let row = ARCHITECTURES.iter().find(|row| row.name == architecture).unwrap();
            row.tensor_name(name)
        };
        assert_eq!(named("llama", "blk.11.attn_q.weight"), "model.layers.11.self_attn.q_proj.weight");
        assert_eq!(named("qwen2", "blk.0.attn_v.bias"), "model.layers.0.self_attn.v_proj.bias");
        assert_eq!(named("llama", "blk.0.ffn_norm.weight"), "model.layers.0.post_attention_layernorm.weight");
        assert_eq!(named("gemma2", "blk.0.ffn_norm.weight"), "model.layers.0.pre_feedforward_layernorm.weight");
        assert_eq!(named("phi3", "blk.3.ffn_up.weight"), "model.layers.3.mlp.gate_up_proj.weight");
        assert_eq!(named("olmo2", "output.weight"), "lm_head.weight");
        assert_eq!(named("llama", "rope_freqs.weight"), "rope_freqs");
        assert_eq!(named("llama", "blk.x"), "blk.x");
        assert_eq!(named("gptneox", "blk.2.attn_qkv.bias"), "model.layers.2.self_attn.qkv_proj.bias");
        assert_eq!(named("qwen3moe", "blk.2.ffn_gate_inp.weight"), "model.layers.2.mlp.gate.weight");
        let expert = Architecture::expert_name("blk.3.ffn_down_exps.weight").unwrap();
        assert_eq!(expert(7), "model.layers.3.mlp.experts.7.down_proj.weight");
        assert!(Architecture::expert_name("blk.3.ffn_down.weight").is_none());
    }
}
