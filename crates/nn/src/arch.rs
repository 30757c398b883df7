//! Architectures as data: one transformer skeleton, and per architecture a function from its configuration to a
//! [`Blueprint`]. To add one: one file under `arch/`, one line in [`ARCHS`].

mod blueprint;
mod gemma2;
mod gemma3;
mod keys;
mod llama;
mod mistral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod rope;
mod tensors;

use serde_json::{Map, Value};

pub use blueprint::{Blueprint, LayerPlan, Norms, QkNorm};
pub use rope::{RopePlan, Scaling};
pub use tensors::tensors;

pub use crate::activation::Activation;
use crate::error::{Error, Result};
use keys::Keys;

/// One supported architecture.
#[derive(Debug)]
pub struct Arch {
    /// The entry of `architectures` and the `model_type` it answers to.
    pub names: [&'static str; 2],
    plan: fn(&Keys<'_>) -> Result<Blueprint>,
}

/// Every architecture the engine can run.
pub const ARCHS: &[Arch] = &[
    Arch { names: ["LlamaForCausalLM", "llama"], plan: llama::plan },
    Arch { names: ["MistralForCausalLM", "mistral"], plan: mistral::plan },
    Arch { names: ["Qwen2ForCausalLM", "qwen2"], plan: qwen2::plan },
    Arch { names: ["Qwen3ForCausalLM", "qwen3"], plan: qwen3::plan },
    Arch { names: ["Gemma2ForCausalLM", "gemma2"], plan: gemma2::plan },
    Arch { names: ["Gemma3ForCausalLM", "gemma3_text"], plan: gemma3::plan },
    Arch { names: ["Phi3ForCausalLM", "phi3"], plan: phi3::plan },
    Arch { names: ["Olmo2ForCausalLM", "olmo2"], plan: olmo2::plan },
];

/// The blueprint of a checkpoint from its configuration: the keys of a Hugging Face `config.json`, as published
/// checkpoints spell them or as transformers 5 does.
///
/// # Errors
/// [`Error::UnknownArchitecture`], or [`Error::Config`] naming the key and value that cannot be run.
pub fn blueprint(config: &Map<String, Value>) -> Result<Blueprint> {
    let keys = Keys::new(config);
    let blueprint = (find(config)?.plan)(&keys)?;
    Ok(if keys.flag_or("wsd_norm_offset_folded", false)? {
        Blueprint { norms: Norms { offset: 0.0, ..blueprint.norms }, ..blueprint }
    } else {
        blueprint
    })
}

/// The `model_type` of a configuration, also where only `architectures` says it.
pub(crate) fn model_type(config: &Map<String, Value>) -> Result<&'static str> {
    Ok(find(config)?.names[1])
}

/// By `architectures`; by `model_type` where that names none we know, as in a text model taken out of a larger one.
fn find(config: &Map<String, Value>) -> Result<&'static Arch> {
    let listed = config.get("architectures").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<&str> = listed.chain(config.get("model_type")).filter_map(Value::as_str).collect();
    let known = |name: &&str| ARCHS.iter().find(|arch| arch.names.contains(name));
    names.iter().find_map(known).ok_or_else(|| {
        let known: Vec<_> = ARCHS.iter().map(|arch| arch.names[0]).collect();
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

    fn plan(changes: &Value) -> Result<Blueprint> {
        blueprint(&config(changes))
    }

    #[test]
    fn every_architecture_has_distinct_names_and_a_plan() {
        let mut seen = std::collections::HashSet::new();
        for arch in ARCHS {
            assert!(arch.names.iter().all(|name| seen.insert(*name)));
            let by_class = plan(&json!({"architectures": [arch.names[0]]})).unwrap();
            let by_type = plan(&json!({"architectures": null, "model_type": arch.names[1]})).unwrap();
            assert_eq!(by_class, by_type);
            assert!(tensors(&by_class).len() >= 2 + 3 * 6);
        }
    }

    #[test]
    fn unknown_architecture_lists_the_known_ones() {
        let error = plan(&json!({"architectures": ["MambaForCausalLM"]})).unwrap_err().to_string();
        assert!(error.contains("MambaForCausalLM") && error.contains("Olmo2ForCausalLM"), "{error}");
        let text = json!({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3_text"});
        assert_eq!(plan(&text).unwrap().qk_norm, QkNorm::PerHead);
    }

    #[test]
    fn nonsense_is_refused_with_key_and_value() {
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
            ("hidden_act", json!("relu6")),
            ("rms_norm_eps", json!(-1.0)),
            ("rope_theta", json!(0.0)),
            ("tie_word_embeddings", json!("yes")),
            ("rope_scaling", json!({"type": "yarn", "factor": 4.0})),
            ("rope_scaling", json!({"rope_type": "dynamic", "factor": 4.0})),
            ("rope_scaling", json!({"rope_type": "linear"})),
            ("rope_scaling", json!({"rope_type": "linear", "factor": 0.0})),
            ("rope_scaling", json!(7)),
            ("rope_parameters", json!({"rope_type": "proportional"})),
        ] {
            let error = plan(&json!({key: value})).unwrap_err().to_string();
            assert!(error.contains(key), "{key} = {value}: {error}");
        }
    }

    #[test]
    fn both_spellings_of_rope_are_one() {
        let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32});
        let mut parameters = scaling.clone();
        parameters["rope_theta"] = json!(5000.0);
        let old = plan(&json!({"rope_theta": 5000.0, "rope_scaling": scaling})).unwrap();
        assert_eq!(old, plan(&json!({"rope_parameters": parameters})).unwrap());
        assert_eq!(old.ropes[0].theta, 5000.0);
    }

    #[test]
    fn gemma3_has_a_rope_per_kind_of_layer() {
        let old = json!({"architectures": ["Gemma3ForCausalLM"], "num_hidden_layers": 12, "rope_theta": 1e6,
            "rope_local_base_freq": 1e4, "sliding_window": 16, "sliding_window_pattern": 6,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0}});
        let kinds: Vec<_> = (0..12).map(|i| if i % 6 == 5 { "full_attention" } else { "sliding_attention" }).collect();
        let new = json!({"architectures": ["Gemma3ForCausalLM"], "num_hidden_layers": 12, "sliding_window": 16,
            "layer_types": kinds, "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}});
        let plan_old = plan(&old).unwrap();
        assert_eq!(plan_old, plan(&new).unwrap());
        assert_eq!(plan_old.layers[5], LayerPlan { window: None, rope: 0 });
        assert_eq!(plan_old.layers[6], LayerPlan { window: Some(16), rope: 1 });
    }

    #[test]
    fn gemma3_text_parts_may_leave_sizes_out() {
        let config = json!({"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
            "num_hidden_layers": 34, "sliding_window": 1024, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}});
        let plan = blueprint(config.as_object().unwrap()).unwrap();
        assert_eq!((plan.heads, plan.kv_heads, plan.head_dim, plan.vocab), (8, 4, 256, 262_208));
    }

    #[test]
    fn long_rope_changes_over_behind_the_original_length() {
        let scaling = json!({"type": "longrope", "short_factor": vec![1.0; 8], "long_factor": vec![2.0; 8]});
        let plan = plan(&json!({"architectures": ["Phi3ForCausalLM"], "rope_scaling": scaling,
            "original_max_position_embeddings": 64}));
        let plan = plan.unwrap();
        assert!(!plan.is_long(64) && plan.is_long(65));
        let rope = &plan.ropes[0];
        assert_eq!((rope.frequencies(false)[0], rope.frequencies(true)[0]), (1.0, 0.5));
        let expected = (1.0 + 4f64.ln() / 64f64.ln()).sqrt();
        assert!((f64::from(rope.attention_factor()) - expected).abs() < 1e-6);
    }

    #[test]
    fn mistral_window_may_be_null() {
        let windows = |value| plan(&json!({"architectures": ["MistralForCausalLM"], "sliding_window": value}));
        assert!(windows(Value::Null).unwrap().layers.iter().all(|layer| layer.window.is_none()));
        assert!(windows(json!(8)).unwrap().layers.iter().all(|layer| layer.window == Some(8)));
        assert!(windows(json!(0)).unwrap().layers.iter().all(|layer| layer.window.is_none()));
        assert!(windows(json!(-1)).is_err());
    }
}
