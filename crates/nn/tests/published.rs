//! Blueprints of published configurations.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use wsd_nn::arch::{Blueprint, Experts, blueprint};

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

#[test]
fn gpt_2_and_pythia() {
    let plan = of(json!({
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "bos_token_id": 50256,
        "eos_token_id": 50256, "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768,
        "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257
    }));
    assert_eq!(shape(&plan), (12, 12, 64, 12, 50_257, 1024, true));
    assert_eq!((plan.ffn, plan.positions, plan.gated, plan.layers[0].rope), (3072, true, false, None));
    let plan = of(json!({
        "architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
        "hidden_size": 512, "intermediate_size": 2048, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048,
        "model_type": "gpt_neox", "num_attention_heads": 8, "num_hidden_layers": 6, "rotary_emb_base": 10000,
        "rotary_pct": 0.25, "tie_word_embeddings": false, "use_parallel_residual": true, "vocab_size": 50304
    }));
    assert_eq!(shape(&plan), (8, 8, 64, 6, 50_304, 2048, false));
    assert_eq!((plan.ropes[0].dims, plan.parallel, plan.norms.centered, plan.mlp_bias), (16, true, true, true));
}

#[test]
fn smollm3_3b_and_granite_3_3_2b() {
    let rotating: Vec<u8> = (0..36).map(|layer| u8::from(layer % 4 != 3)).collect();
    let plan = of(json!({
        "architectures": ["SmolLM3ForCausalLM"], "attention_bias": false, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 11008, "max_position_embeddings": 65536, "max_window_layers": 28, "mlp_bias": false,
        "model_type": "smollm3", "no_rope_layer_interval": 4, "no_rope_layers": rotating, "num_attention_heads": 16,
        "num_hidden_layers": 36, "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_scaling": null,
        "rope_theta": 5000000.0, "sliding_window": null, "use_sliding_window": false, "vocab_size": 128256
    }));
    assert_eq!(shape(&plan), (16, 4, 128, 36, 128_256, 65_536, true));
    assert_eq!(plan.layers.iter().filter(|layer| layer.rope.is_none()).count(), 9);
    let plan = of(json!({
        "architectures": ["GraniteForCausalLM"], "attention_bias": false, "attention_multiplier": 0.015625,
        "embedding_multiplier": 12.0, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 8192,
        "logits_scaling": 8.0, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "granite",
        "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8, "residual_multiplier": 0.22,
        "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000000.0, "tie_word_embeddings": true,
        "vocab_size": 49159
    }));
    assert_eq!(shape(&plan), (32, 8, 64, 40, 49_159, 131_072, true));
    let factors = [plan.embedding_scale, plan.attention_scale, plan.residual_scale, plan.logit_scale];
    assert_eq!(factors, [12.0, 0.015_625, 0.22, 0.125]);
}

#[test]
fn models_of_experts() {
    let plan = of(json!({
        "architectures": ["MixtralForCausalLM"], "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": 32, "num_experts_per_tok": 2,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8, "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0, "sliding_window": null, "tie_word_embeddings": false, "vocab_size": 32000
    }));
    assert_eq!(shape(&plan), (32, 8, 128, 32, 32_000, 32_768, false));
    assert_eq!(plan.experts, Some(Experts { count: 8, used: 2, normalized: true, bias: false }));
    let plan = of(json!({
        "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false, "decoder_sparse_step": 1, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 6144, "max_position_embeddings": 40960,
        "max_window_layers": 48, "mlp_only_layers": [], "model_type": "qwen3_moe", "moe_intermediate_size": 768,
        "norm_topk_prob": true, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8,
        "num_hidden_layers": 48, "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_scaling": null,
        "rope_theta": 1000000.0, "sliding_window": null, "tie_word_embeddings": false, "use_sliding_window": false,
        "vocab_size": 151936
    }));
    assert_eq!(shape(&plan), (32, 4, 128, 48, 151_936, 40_960, false));
    let experts = Experts { count: 128, used: 8, normalized: true, bias: false };
    assert_eq!((plan.ffn, plan.experts), (768, Some(experts)));
    let kinds: Vec<_> =
        (0..24).map(|layer| if layer % 2 == 0 { "sliding_attention" } else { "full_attention" }).collect();
    let plan = of(json!({
        "architectures": ["GptOssForCausalLM"], "attention_bias": true, "eos_token_id": 200002, "experts_per_token": 4,
        "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880, "initial_context_length": 4096,
        "intermediate_size": 2880, "layer_types": kinds, "max_position_embeddings": 131072, "model_type": "gpt_oss",
        "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 8,
        "num_local_experts": 32, "pad_token_id": 199999, "quantization_config": {"quant_method": "mxfp4"},
        "rms_norm_eps": 1e-05, "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
            "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": false},
        "rope_theta": 150000, "sliding_window": 128, "swiglu_limit": 7.0, "tie_word_embeddings": false,
        "vocab_size": 201088
    }));
    assert_eq!(shape(&plan), (64, 8, 64, 24, 201_088, 131_072, false));
    assert_eq!((windows(&plan)[..2].to_vec(), plan.sinks), (vec![Some(128), None], true));
    assert!((plan.ropes[0].attention_factor() - 1.346_574).abs() < 1e-6);
}
