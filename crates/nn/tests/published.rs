//! Blueprints of published configurations.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use wsd_nn::arch::{Blueprint, blueprint};

#[expect(clippy::needless_pass_by_value, reason = "callers write the value in place")]
fn of(config: Value) -> Blueprint {
    blueprint(config.as_object().unwrap()).unwrap()
}

/// Returns query heads, key and value heads, head width, layers, vocabulary, context length, and
/// tied.
fn shape(plan: &Blueprint) -> (usize, usize, usize, usize, usize, usize, bool) {
    (plan.heads, plan.kv_heads, plan.head_dim, plan.layers.len(), plan.vocab, plan.max_len, plan.tied)
}

fn windows(plan: &Blueprint) -> Vec<Option<usize>> {
    plan.layers.iter().map(|layer| layer.window).collect()
}

#[test]
fn llama_3_2_1b() {
    let plan = of(json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true,
        "vocab_size": 128256
    }));
    assert_eq!(shape(&plan), (32, 8, 64, 16, 128_256, 131_072, true));
}

#[test]
fn mistral_7b() {
    let config = |window: Value| {
        json!({
            "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
            "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
            "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
            "rope_theta": 10000.0, "sliding_window": window, "tie_word_embeddings": false, "vocab_size": 32000
        })
    };
    let plan = of(config(json!(4096)));
    assert_eq!(shape(&plan), (32, 8, 128, 32, 32_000, 32_768, false));
    assert_eq!(windows(&plan), [Some(4096); 32]);
    assert_eq!(windows(&of(config(Value::Null))), [None; 32], "as from version 0.2 on");
}

#[test]
fn qwen2_5_0_5b() {
    let plan = of(json!({
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151643,
        "hidden_act": "silu", "hidden_size": 896, "intermediate_size": 4864, "max_position_embeddings": 32768,
        "max_window_layers": 24, "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
        "tie_word_embeddings": true, "use_mrope": false, "use_sliding_window": false, "vocab_size": 151936
    }));
    assert_eq!(shape(&plan), (14, 2, 64, 24, 151_936, 32_768, true));
    assert_eq!(windows(&plan), [None; 24]);
    assert!(plan.qkv_bias && !plan.output_bias);
}

#[test]
fn qwen3_0_6b() {
    let plan = of(json!({
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "bos_token_id": 151643, "eos_token_id": 151645,
        "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 3072,
        "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3", "num_attention_heads": 16,
        "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null,
        "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": true, "use_sliding_window": false,
        "vocab_size": 151936
    }));
    assert_eq!(shape(&plan), (16, 8, 128, 28, 151_936, 40_960, true));
    assert!(!plan.qkv_bias);
}

#[test]
fn gemma_2_2b() {
    let plan = of(json!({
        "architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attn_logit_softcapping": 50.0,
        "bos_token_id": 2,
        "cache_implementation": "hybrid", "eos_token_id": 1, "final_logit_softcapping": 30.0, "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304,
        "intermediate_size": 9216, "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 8,
        "num_hidden_layers": 26, "num_key_value_heads": 4, "pad_token_id": 0, "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096, "vocab_size": 256000
    }));
    assert_eq!(shape(&plan), (8, 4, 256, 26, 256_000, 8192, true), "tied although the file does not say so");
    assert_eq!(windows(&plan)[..4], [Some(4096), None, Some(4096), None]);
    assert_eq!((plan.attention_softcap, plan.final_softcap), (Some(50.0), Some(30.0)));
    assert!((plan.attention_scale - 1.0 / 16.0).abs() < 1e-7);
}

#[test]
fn gemma_3_1b() {
    let plan = of(json!({
        "architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attn_logit_softcapping": null,
        "bos_token_id": 2,
        "cache_implementation": "hybrid", "eos_token_id": [1, 106], "final_logit_softcapping": null, "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "intermediate_size": 6912,
        "max_position_embeddings": 32768, "model_type": "gemma3_text", "num_attention_heads": 4,
        "num_hidden_layers": 26,
        "num_key_value_heads": 1, "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": 512,
        "sliding_window_pattern": 6, "vocab_size": 262144
    }));
    assert_eq!(shape(&plan), (4, 1, 256, 26, 262_144, 32_768, true));
    let local = Some(512);
    assert_eq!(windows(&plan)[..7], [local, local, local, local, local, None, local]);
    assert_ne!(plan.layers[0].rope, plan.layers[5].rope, "local and global layers turn at different speeds");
}

#[test]
fn phi_3_mini() {
    let config = |scaling: Value, context: usize| {
        json!({
            "architectures": ["Phi3ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "embd_pdrop": 0.0,
            "eos_token_id": 32000, "hidden_act": "silu", "hidden_size": 3072, "intermediate_size": 8192,
            "max_position_embeddings": context, "model_type": "phi3", "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 32, "original_max_position_embeddings": 4096, "pad_token_id": 32000,
            "rms_norm_eps": 1e-05,
            "rope_scaling": scaling, "rope_theta": 10000.0,
            "sliding_window": if context == 4096 { 2047 } else { 262_144 },
            "tie_word_embeddings": false, "vocab_size": 32064
        })
    };
    let plan = of(config(Value::Null, 4096));
    assert_eq!(shape(&plan), (32, 32, 96, 32, 32_064, 4096, false));
    assert_eq!(windows(&plan), [Some(2047); 32]);
    let factors: Vec<f64> = (0..48).map(|i| 1.0 + f64::from(i)).collect();
    let long = of(config(json!({"type": "longrope", "short_factor": factors, "long_factor": factors}), 131_072));
    assert!(!long.is_long(4096) && long.is_long(4097));
    let old = of(config(json!({"type": "su", "short_factor": factors, "long_factor": factors}), 131_072));
    assert!(old.is_long(4097), "`su` is longrope's older name");
}

#[test]
fn olmo_2_7b() {
    let plan = of(json!({
        "architectures": ["Olmo2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "eos_token_id": 100257,
        "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 4096,
        "model_type": "olmo2", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
        "pad_token_id": 100277, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 500000,
        "tie_word_embeddings": false, "vocab_size": 100352
    }));
    assert_eq!(shape(&plan), (32, 32, 128, 32, 100_352, 4096, false));
}
