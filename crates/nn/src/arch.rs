//! Architectures as data: one transformer skeleton, and for each architecture a function from its
//! configuration to a [`Blueprint`]. A new architecture is a file under `arch/` and a row of
//! [`ARCHS`].

mod blueprint;
mod cohere;
mod draft;
mod experts;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod gpt_oss;
mod granite;
mod heads;
mod keys;
mod layer;
mod llama;
mod mistral;
mod olmo2;
mod olmo3;
mod phi3;
mod qwen2;
mod qwen3;
mod rope;
mod routing;
mod smollm3;
mod stablelm;
mod tensors;

use serde_json::{Map, Value};

pub use blueprint::{Blueprint, EMBEDDING_RANK, Experts, Factors, HEAD_RANK, KEPT_TOKENS, LayerPlan, Norms, QkNorm};
pub use draft::{DraftPlan, FUSION, SAMPLING};
pub use heads::HeadPlan;
pub use layer::{Expert, LayerParts, StoredLinear, StoredNorm};
pub use rope::{RopePlan, Scaling};
pub use routing::Share;
pub use tensors::{
    EMBEDDING, EMBEDDING_FACTOR, EMBEDDING_KEPT, HEAD_FACTOR, HEAD_KEPT, POSITIONS, SINKS, layer_module, tensors,
};
pub use wsd_core::Head;

pub use crate::activation::Activation;
use crate::error::{Error, Result};
use keys::Keys;

/// One supported architecture.
#[derive(Debug)]
pub struct Arch {
    /// Its name in documents.
    pub name: &'static str,
    /// The name of its class, an entry of `architectures` in `config.json`.
    pub class: &'static str,
    /// Its `model_type` in `config.json`.
    pub model_type: &'static str,
    parse: fn(&Keys<'_>) -> Result<Blueprint>,
}

/// Every architecture the engine can run.
pub const ARCHS: &[Arch] = &[
    Arch { name: "Llama", class: "LlamaForCausalLM", model_type: "llama", parse: llama::parse },
    Arch { name: "Mistral", class: "MistralForCausalLM", model_type: "mistral", parse: mistral::parse },
    Arch { name: "Qwen 2", class: "Qwen2ForCausalLM", model_type: "qwen2", parse: qwen2::parse },
    Arch { name: "Qwen 3", class: "Qwen3ForCausalLM", model_type: "qwen3", parse: qwen3::parse },
    Arch { name: "Gemma 2", class: "Gemma2ForCausalLM", model_type: "gemma2", parse: gemma2::parse },
    Arch { name: "Gemma 3", class: "Gemma3ForCausalLM", model_type: "gemma3_text", parse: gemma3::parse },
    Arch { name: "Phi-3", class: "Phi3ForCausalLM", model_type: "phi3", parse: phi3::parse },
    Arch { name: "OLMo 2", class: "Olmo2ForCausalLM", model_type: "olmo2", parse: olmo2::parse },
    Arch { name: "OLMo 3", class: "Olmo3ForCausalLM", model_type: "olmo3", parse: olmo3::parse },
    Arch { name: "SmolLM3", class: "SmolLM3ForCausalLM", model_type: "smollm3", parse: smollm3::parse },
    Arch { name: "Granite 3", class: "GraniteForCausalLM", model_type: "granite", parse: granite::parse },
    Arch {
        name: "Granite 4 (dense)",
        class: "GraniteMoeHybridForCausalLM",
        model_type: "granitemoehybrid",
        parse: granite::parse_hybrid,
    },
    Arch { name: "StableLM", class: "StableLmForCausalLM", model_type: "stablelm", parse: stablelm::parse },
    Arch { name: "Command R", class: "CohereForCausalLM", model_type: "cohere", parse: cohere::parse },
    Arch { name: "Command R7B", class: "Cohere2ForCausalLM", model_type: "cohere2", parse: cohere::parse_sliding },
    Arch { name: "GPT-NeoX (Pythia)", class: "GPTNeoXForCausalLM", model_type: "gpt_neox", parse: gpt_neox::parse },
    Arch { name: "GPT-2", class: "GPT2LMHeadModel", model_type: "gpt2", parse: gpt2::parse },
    Arch { name: "Mixtral", class: "MixtralForCausalLM", model_type: "mixtral", parse: experts::mixtral },
    Arch { name: "Qwen 3 MoE", class: "Qwen3MoeForCausalLM", model_type: "qwen3_moe", parse: experts::qwen3_moe },
    Arch { name: "OLMoE", class: "OlmoeForCausalLM", model_type: "olmoe", parse: experts::olmoe },
    Arch { name: "gpt-oss", class: "GptOssForCausalLM", model_type: "gpt_oss", parse: gpt_oss::parse },
];

/// Reads the blueprint of a model from the keys of a Hugging Face `config.json`, as published
/// checkpoints spell them or as transformers 5 does.
///
/// # Errors
/// [`Error::UnknownArchitecture`], or [`Error::Config`] for a value that is missing or not
/// supported.
///
/// # Examples
/// ```
/// let config = serde_json::json!({
///     "model_type": "llama", "hidden_size": 64, "intermediate_size": 160, "vocab_size": 512,
///     "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256,
/// });
/// let blueprint = wsd_nn::arch::blueprint(config.as_object().expect("an object"))?;
/// assert_eq!((blueprint.layers.len(), blueprint.head_dim), (2, 16));
/// # Ok::<_, wsd_nn::Error>(())
/// ```
pub fn blueprint(config: &Map<String, Value>) -> Result<Blueprint> {
    let keys = Keys::new(config);
    let arch = find(config)?;
    let blueprint = Blueprint { model_type: arch.model_type, ..(arch.parse)(&keys)? };
    Ok(if keys.flag_or("wsd_norm_offset_folded", false)? {
        Blueprint { norms: Norms { offset: 0.0, ..blueprint.norms }, ..blueprint }
    } else {
        blueprint
    })
}

/// Returns the `model_type` of a configuration, which may name only its class.
pub(crate) fn model_type(config: &Map<String, Value>) -> Result<&'static str> {
    Ok(find(config)?.model_type)
}

/// Finds an architecture by `architectures`, or else by `model_type`: the text part of a larger
/// model lists the class of the whole.
fn find(config: &Map<String, Value>) -> Result<&'static Arch> {
    let listed = config.get("architectures").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<&str> = listed.chain(config.get("model_type")).filter_map(Value::as_str).collect();
    let known = |name: &&str| ARCHS.iter().find(|arch| [arch.class, arch.model_type].contains(name));
    names.iter().find_map(known).ok_or_else(|| {
        let known: Vec<_> = ARCHS.iter().map(|arch| arch.class).collect();
        Error::UnknownArchitecture { found: names.join(", "), known: known.join(", ") }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(changes: &Value) -> Map<String, Value> {
        let mut config = json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 160, "vocab_size": 512,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu",
            "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
        });
        let config = config.as_object_mut().unwrap();
        for (key, value) in changes.as_object().unwrap() {
            config.insert(key.clone(), value.clone());
        }
        config.clone()
    }

    fn parse(changes: &Value) -> Result<Blueprint> {
        blueprint(&config(changes))
    }

    #[test]
    fn every_architecture_has_distinct_names_and_a_blueprint() {
        let mut seen = std::collections::HashSet::new();
        for arch in ARCHS {
            assert!(seen.insert(arch.class) && seen.insert(arch.model_type));
            let by_class = parse(&json!({"architectures": [arch.class]})).unwrap();
            let by_type = parse(&json!({"architectures": null, "model_type": arch.model_type})).unwrap();
            assert_eq!(by_class, by_type);
            assert!(tensors(&by_class).len() >= 2 + 3 * 6);
        }
    }

    #[test]
    fn the_readme_lists_every_architecture() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
        let readme = fs_err::read_to_string(readme).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        let names: Vec<_> = ARCHS.iter().map(|arch| arch.name).collect();
        assert!(readme.contains(&format!("- {}.", names.join(", "))), "README.md must list {}", names.join(", "));
    }

    #[test]
    fn unknown_architecture_lists_the_known_ones() {
        let error = parse(&json!({"architectures": ["MambaForCausalLM"]})).unwrap_err().to_string();
        assert!(error.contains("MambaForCausalLM") && error.contains("Olmo2ForCausalLM"), "{error}");
        let text = json!({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3_text"});
        assert_eq!(parse(&text).unwrap().qk_norm, QkNorm::PerHead);
    }

    #[test]
    fn wrong_values_are_refused_by_key_and_value() {
        for (key, value) in [
            ("hidden_size", json!(0)),
            ("hidden_size", json!(-5)),
            ("hidden_size", json!("64")),
            ("hidden_size", Value::Null),
            ("num_hidden_layers", json!(1e12)),
            ("num_hidden_layers", json!(u64::MAX)),
            ("num_key_value_heads", json!(3)),
            ("head_dim", json!(15)),
            ("vocab_size", json!(1u64 << 40)),
            ("wsd_embedding_rank", json!(65)),
            ("wsd_head_rank", json!(0)),
            ("hidden_act", json!("relu6")),
            ("rms_norm_eps", json!(-1.0)),
            ("rope_theta", json!(0.0)),
            ("tie_word_embeddings", json!("yes")),
            ("rope_scaling", json!({"type": "yarn", "factor": -4.0})),
            ("rope_scaling", json!({"type": "yarn", "factor": 4.0, "beta_fast": "32"})),
            ("rope_scaling", json!({"rope_type": "dynamic"})),
            ("rope_scaling", json!({"rope_type": "linear"})),
            ("rope_scaling", json!({"rope_type": "linear", "factor": 0.0})),
            ("rope_scaling", json!(7)),
            ("rope_parameters", json!({"rope_type": "proportional"})),
        ] {
            let error = parse(&json!({key: value})).unwrap_err().to_string();
            assert!(error.contains(key), "{key} = {value}: {error}");
        }
    }

    #[test]
    fn both_spellings_of_rope_are_equal() {
        let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32});
        let mut parameters = scaling.clone();
        parameters["rope_theta"] = json!(5000.0);
        let old = parse(&json!({"rope_theta": 5000.0, "rope_scaling": scaling})).unwrap();
        assert_eq!(old, parse(&json!({"rope_parameters": parameters})).unwrap());
        assert_eq!(old.ropes[0].theta, 5000.0);
    }

    #[test]
    fn theta_within_the_section_counts() {
        for key in ["rope_scaling", "rope_parameters"] {
            for outside in [Value::Null, json!(10000.0)] {
                let section = json!({"rope_type": "default", "rope_theta": 500000.0});
                let rope = &parse(&json!({"rope_theta": outside, key: section})).unwrap().ropes[0];
                assert_eq!((rope.theta, &rope.scaling), (500000.0, &Scaling::None), "{key}");
            }
        }
        let nested = json!({"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500000.0}});
        let rope = &parse(&json!({"rope_scaling": nested})).unwrap().ropes[0];
        assert_eq!((rope.theta, &rope.scaling), (500000.0, &Scaling::Linear { factor: 2.0 }));
    }

    #[test]
    fn gemma3_has_one_rope_per_kind_of_layer() {
        let old = json!({"architectures": ["Gemma3ForCausalLM"], "num_hidden_layers": 12, "rope_theta": 1e6,
            "rope_local_base_freq": 1e4, "sliding_window": 16, "sliding_window_pattern": 6,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0}});
        let kinds: Vec<_> = (0..12).map(|i| if i % 6 == 5 { "full_attention" } else { "sliding_attention" }).collect();
        let new = json!({"architectures": ["Gemma3ForCausalLM"], "num_hidden_layers": 12, "sliding_window": 16,
            "layer_types": kinds, "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}});
        let old_blueprint = parse(&old).unwrap();
        assert_eq!(old_blueprint, parse(&new).unwrap());
        assert_eq!(old_blueprint.layers[5], LayerPlan { window: None, rope: Some(0) });
        assert_eq!(old_blueprint.layers[6], LayerPlan { window: Some(16), rope: Some(1) });
    }

    #[test]
    fn gemma3_text_parts_may_omit_sizes() {
        let config = json!({"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
            "num_hidden_layers": 34, "sliding_window": 1024, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}});
        let blueprint = blueprint(config.as_object().unwrap()).unwrap();
        assert_eq!((blueprint.heads, blueprint.kv_heads, blueprint.head_dim, blueprint.vocab), (8, 4, 256, 262_208));
    }

    #[test]
    fn long_rope_changes_beyond_the_original_length() {
        let scaling = json!({"type": "longrope", "short_factor": vec![1.0; 8], "long_factor": vec![2.0; 8]});
        let blueprint = parse(&json!({"architectures": ["Phi3ForCausalLM"], "rope_scaling": scaling,
            "original_max_position_embeddings": 64}));
        let blueprint = blueprint.unwrap();
        assert!(!blueprint.is_long(64) && blueprint.is_long(65));
        let rope = &blueprint.ropes[0];
        assert_eq!((rope.frequencies(false)[0], rope.frequencies(true)[0]), (1.0, 0.5));
        let expected = (1.0 + 4f64.ln() / 64f64.ln()).sqrt();
        assert!((f64::from(rope.attention_factor()) - expected).abs() < 1e-6);
    }

    /// `rope_goldens.json` has the numbers of transformers for scalings of all kinds.
    #[test]
    fn frequencies_are_those_of_the_reference() {
        let goldens = fs_err::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rope_goldens.json")).unwrap();
        let goldens: Value = serde_json::from_slice(&goldens).unwrap();
        for case in goldens["cases"].as_array().unwrap() {
            let blueprint = parse(&case["config"]).unwrap();
            let rope = &blueprint.ropes[0];
            let floats = |key: &str| {
                let list = case[key].as_array().unwrap().iter();
                list.map(|number| number.as_f64().unwrap()).collect::<Vec<_>>()
            };
            for (key, long) in [("frequencies", false), ("long_frequencies", true)] {
                let (found, expected) = (rope.frequencies(long), floats(key));
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(expected) {
                    assert!((f64::from(*found) / expected - 1.0).abs() < 2e-6, "{case}: {found}");
                }
            }
            let attention = case["attention_factor"].as_f64().unwrap();
            assert!((f64::from(rope.attention_factor()) / attention - 1.0).abs() < 1e-6, "{case}");
        }
    }

    #[test]
    fn yarn_extends_the_context() {
        let max_len = |scaling: Value| parse(&json!({"rope_scaling": scaling})).unwrap().max_len;
        assert_eq!(max_len(json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256})), 1024);
        assert_eq!(max_len(json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32})), 256);
        assert_eq!(max_len(json!({"type": "dynamic", "factor": 4.0})), 256);
    }

    #[test]
    fn mistral_window_may_be_null() {
        let windows = |value| parse(&json!({"architectures": ["MistralForCausalLM"], "sliding_window": value}));
        assert!(windows(Value::Null).unwrap().layers.iter().all(|layer| layer.window.is_none()));
        assert!(windows(json!(8)).unwrap().layers.iter().all(|layer| layer.window == Some(8)));
        assert!(windows(json!(0)).unwrap().layers.iter().all(|layer| layer.window.is_none()));
        assert!(windows(json!(-1)).is_err());
    }
}
