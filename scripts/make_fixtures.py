#!/usr/bin/env python3
"""Write tiny seeded random checkpoints with golden numbers for the tests of crates/nn.

Each folder has config.json in the form published checkpoints use, safetensors weights, a 300-token
tokenizer with a ChatML template, generation_config.json and GOLDEN.json. The golden numbers come from
transformers in float32 with eager attention. Also writes quant_blocks.json: random GGUF quantisation
blocks and the values the gguf package reads from them.

All weights are exact in bfloat16 and in float16, so the same numbers hold whichever of float32,
bfloat16 and float16 a file stores them in.

Rerun from the repository root (versions in scripts/README.md):

    python scripts/make_fixtures.py --out crates/nn/tests/fixtures
    python scripts/make_fixtures.py --out crates/nn/tests/fixtures --only llama,phi3
"""

import argparse
import json
import math
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB = 300
CHAT_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # ids 297, 298, 299
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GREEDY = 24
MIN_MARGIN = 0.02
MIN_DISTINCT = 6

TRAINING_TEXT = """\
The ferry leaves the harbour at seven and comes back before the tide turns.
My sister keeps bees on the roof and sells the honey at the market.
How many apples are left in the basket if we eat three of them?
She answered that there were nine, and then she counted them again.
Please write the name of the street and the number of the house.
Nothing in the letter said when the painter would return.
A small engine pulls the long train over the bridge.
We walked along the river until the rain stopped.
The answer is 42, but the question has been lost.
First boil the water, then add the rice and a little salt.
He wanted to know whether the shop would be open on Sunday.
They have been waiting for the bus since half past eight.
The cat sleeps on the warm stones near the kitchen door.
You are a helpful assistant. Answer in one short sentence.
I do not know the answer, but I can help you look for it.
There is a lighthouse at the end of the northern pier.
Every winter the lake freezes and the children skate on it.
let total = 0; for (let i = 0; i < n; i += 1) { total += i; }
def area(width, height):
    return width * height
Could you explain why the sky is blue in the morning and red in the evening?
The teacher drew a circle, a square and a triangle on the board.
In 1998 the village had 310 people; in 2020 it had 275.
The old clock in the hall strikes thirteen when nobody listens.
Thank you for the book, it was better than I had expected.
Which of these two roads goes to the station?
The wind took the hat and carried it over the garden wall.
If the light is green you may cross, otherwise you must wait.
Our neighbour plays the violin, mostly at night, mostly well.
It is better to ask the way than to be lost in the forest.
The bread was still warm when they brought it to the table.
"""


def base_config(arch, model_type, **keys):
    """The keys shared by most published configs, then what the architecture adds or changes."""
    config = {
        "architectures": [arch],
        "model_type": model_type,
        "attention_dropout": 0.0,
        "bos_token_id": 297,
        "eos_token_id": 299,
        "hidden_act": "silu",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": VOCAB,
    }
    config.update(keys)
    return {k: v for k, v in config.items() if v != "absent"}


LLAMA3_SCALING = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 32,
    "rope_type": "llama3",
}


def phi3_config(**keys):
    return base_config(
        "Phi3ForCausalLM",
        "phi3",
        attention_bias=False,
        embd_pdrop=0.0,
        hidden_size=24,
        intermediate_size=40,
        original_max_position_embeddings=256,
        pad_token_id=297,
        resid_pdrop=0.0,
        rope_scaling=None,
        sliding_window=None,
        tie_word_embeddings=False,
        **keys,
    )


def llama_config(**keys):
    return base_config(
        "LlamaForCausalLM",
        "llama",
        attention_bias=False,
        head_dim=8,
        mlp_bias=False,
        pretraining_tp=1,
        rope_scaling=dict(LLAMA3_SCALING),
        **keys,
    )


def newer_configs():
    """Architectures that differ from Llama's skeleton in more than keys."""
    layers = {"hidden_size": 24, "intermediate_size": 40}
    experts = {"hidden_size": 24, "num_hidden_layers": 2, "tie_word_embeddings": False}
    neox = {
        "attention_bias": True,
        "hidden_act": "gelu",
        "hidden_size": 32,
        "layer_norm_eps": 1e-05,
        "num_key_value_heads": "absent",
        "rms_norm_eps": "absent",
        "rope_theta": "absent",
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "tie_word_embeddings": False,
    }
    norms = {"layer_norm_eps": 1e-05, "rms_norm_eps": "absent"}
    granite = {
        "attention_bias": False,
        "attention_multiplier": 0.4,
        "embedding_multiplier": 1.5,
        "logits_scaling": 0.5,
        "mlp_bias": False,
        "residual_multiplier": 0.8,
        "rope_scaling": None,
    }
    return {
        "llama_yarn": llama_config()
        | {
            "rope_scaling": {
                "beta_fast": 4.0,
                "beta_slow": 1.0,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
                "rope_type": "yarn",
            }
        },
        "smollm3": base_config(
            "SmolLM3ForCausalLM",
            "smollm3",
            **layers,
            attention_bias=False,
            mlp_bias=False,
            no_rope_layer_interval=2,
            no_rope_layers=[1, 0, 1],
            num_hidden_layers=3,
            pad_token_id=297,
            rope_scaling=None,
            rope_theta=2000000.0,
            sliding_window=None,
            use_sliding_window=False,
        ),
        "olmo3": base_config(
            "Olmo3ForCausalLM",
            "olmo3",
            **layers,
            attention_bias=False,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            num_hidden_layers=3,
            pad_token_id=297,
            rms_norm_eps=1e-06,
            rope_scaling={
                "attention_factor": 1.2,
                "beta_fast": 4.0,
                "beta_slow": 1.0,
                "factor": 8.0,
                "original_max_position_embeddings": 32,
                "rope_type": "yarn",
            },
            rope_theta=500000.0,
            sliding_window=8,
            tie_word_embeddings=False,
        ),
        "granite": base_config("GraniteForCausalLM", "granite", **layers, **granite),
        "granite4": base_config(
            "GraniteMoeHybridForCausalLM",
            "granitemoehybrid",
            **granite,
            hidden_size=32,
            intermediate_size=80,
            layer_types=["attention", "attention"],
            mamba_n_heads=8,
            num_experts_per_tok=0,
            num_local_experts=0,
            position_embedding_type="rope",
            shared_intermediate_size=40,
        ),
        "stablelm": base_config(
            "StableLmForCausalLM",
            "stablelm",
            **norms,
            partial_rotary_factor=0.5,
            qk_layernorm=False,
            rope_scaling=None,
            tie_word_embeddings=False,
            use_parallel_residual=False,
            use_qkv_bias=True,
        ),
        "stablelm_parallel": base_config(
            "StableLmForCausalLM",
            "stablelm",
            **norms,
            partial_rotary_factor=0.25,
            rope_scaling=None,
            tie_word_embeddings=False,
            use_parallel_residual=True,
            use_qkv_bias=False,
        ),
        "cohere": base_config(
            "CohereForCausalLM",
            "cohere",
            **norms,
            attention_bias=False,
            logit_scale=0.75,
            pad_token_id=297,
            rope_theta=8000000.0,
            tie_word_embeddings="absent",
            use_qk_norm=False,
        ),
        "cohere2": base_config(
            "Cohere2ForCausalLM",
            "cohere2",
            **norms,
            attention_bias=False,
            head_dim=8,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            logit_scale=0.75,
            num_hidden_layers=3,
            pad_token_id=297,
            rope_theta=50000.0,
            sliding_window=8,
            tie_word_embeddings="absent",
        ),
        "gpt_neox": base_config("GPTNeoXForCausalLM", "gpt_neox", **neox, use_parallel_residual=True),
        "gpt_neox_sequential": base_config("GPTNeoXForCausalLM", "gpt_neox", **neox, use_parallel_residual=False),
        "gpt2": {
            "activation_function": "gelu_new",
            "architectures": ["GPT2LMHeadModel"],
            "attn_pdrop": 0.0,
            "bos_token_id": 297,
            "embd_pdrop": 0.0,
            "eos_token_id": 299,
            "initializer_range": 0.02,
            "layer_norm_epsilon": 1e-05,
            "model_type": "gpt2",
            "n_ctx": 128,
            "n_embd": 24,
            "n_head": 4,
            "n_inner": None,
            "n_layer": 2,
            "n_positions": 128,
            "resid_pdrop": 0.0,
            "torch_dtype": "float32",
            "vocab_size": VOCAB,
        },
        "mixtral": base_config(
            "MixtralForCausalLM",
            "mixtral",
            **experts,
            intermediate_size=40,
            num_experts_per_tok=2,
            num_local_experts=4,
            output_router_logits=False,
            rope_theta=1000000.0,
            router_aux_loss_coef=0.02,
            sliding_window=None,
        ),
        "qwen3_moe": base_config(
            "Qwen3MoeForCausalLM",
            "qwen3_moe",
            **experts,
            attention_bias=False,
            decoder_sparse_step=1,
            head_dim=12,
            intermediate_size=64,
            max_window_layers=2,
            mlp_only_layers=[],
            moe_intermediate_size=20,
            norm_topk_prob=True,
            num_experts=6,
            num_experts_per_tok=3,
            rms_norm_eps=1e-06,
            rope_scaling=None,
            sliding_window=None,
            use_sliding_window=False,
        ),
        "olmoe": base_config(
            "OlmoeForCausalLM",
            "olmoe",
            **experts,
            attention_bias=False,
            clip_qkv=None,
            intermediate_size=20,
            norm_topk_prob=False,
            num_experts=6,
            num_experts_per_tok=3,
            rope_scaling=None,
        ),
    }


def gpt_oss_config(**keys):
    return base_config(
        "GptOssForCausalLM",
        "gpt_oss",
        attention_bias=True,
        head_dim=8,
        intermediate_size=32,
        layer_types=["sliding_attention", "full_attention"],
        num_experts_per_tok=2,
        num_local_experts=4,
        pad_token_id=297,
        rope_scaling={
            "beta_fast": 4.0,
            "beta_slow": 1.0,
            "factor": 8.0,
            "original_max_position_embeddings": 32,
            "rope_type": "yarn",
            "truncate": False,
        },
        rope_theta=150000,
        sliding_window=8,
        swiglu_limit=7.0,
        tie_word_embeddings=False,
        **keys,
    )


def fixture_configs():
    phi3_long = phi3_config()
    phi3_long.update(
        max_position_embeddings=160,
        original_max_position_embeddings=40,
        rope_scaling={
            "long_factor": [1.5, 2.25, 3.5],
            "short_factor": [1.0, 1.125, 1.25],
            "type": "longrope",
        },
    )
    kquant = llama_config(torch_dtype="float16")
    kquant.update(
        hidden_size=256,
        head_dim=64,
        intermediate_size=256,
        num_hidden_layers=1,
        num_key_value_heads=1,
        rope_scaling=None,
    )
    return {
        "llama": llama_config(),
        "llama_sharded_bf16": llama_config(torch_dtype="bfloat16"),
        "mistral": base_config(
            "MistralForCausalLM",
            "mistral",
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            sliding_window=8,
            tie_word_embeddings=False,
        ),
        "qwen2": base_config(
            "Qwen2ForCausalLM",
            "qwen2",
            max_window_layers=1,
            rms_norm_eps=1e-06,
            rope_theta=1000000.0,
            sliding_window=8,
            use_sliding_window=False,
        ),
        "qwen3": base_config(
            "Qwen3ForCausalLM",
            "qwen3",
            attention_bias=False,
            head_dim=12,
            intermediate_size=48,
            max_window_layers=2,
            rms_norm_eps=1e-06,
            rope_scaling=None,
            rope_theta=1000000.0,
            sliding_window=None,
            use_sliding_window=False,
        ),
        "gemma2": base_config(
            "Gemma2ForCausalLM",
            "gemma2",
            attention_bias=False,
            attn_logit_softcapping=4.0,
            cache_implementation="hybrid",
            final_logit_softcapping=10.0,
            head_dim=8,
            hidden_act="gelu_pytorch_tanh",
            hidden_activation="gelu_pytorch_tanh",
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=3,
            pad_token_id=297,
            query_pre_attn_scalar=14,
            rms_norm_eps=1e-06,
            sliding_window=8,
            tie_word_embeddings="absent",
        ),
        "gemma3_text": base_config(
            "Gemma3ForCausalLM",
            "gemma3_text",
            attention_bias=False,
            attn_logit_softcapping=None,
            cache_implementation="hybrid",
            final_logit_softcapping=None,
            head_dim=8,
            hidden_act="absent",
            hidden_activation="gelu_pytorch_tanh",
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=4,
            num_key_value_heads=1,
            pad_token_id=297,
            query_pre_attn_scalar=12,
            rms_norm_eps=1e-06,
            rope_local_base_freq=100.0,
            rope_scaling={"factor": 4.0, "rope_type": "linear"},
            rope_theta=10000.0,
            sliding_window=8,
            sliding_window_pattern=3,
            tie_word_embeddings="absent",
        ),
        "gemma3_pattern6": base_config(
            "Gemma3ForCausalLM",
            "gemma3_text",
            _sliding_window_pattern=6,
            attention_bias=False,
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
            head_dim=12,
            hidden_act="absent",
            hidden_activation="gelu_pytorch_tanh",
            hidden_size=16,
            intermediate_size=24,
            layer_types=["sliding_attention"] * 5 + ["full_attention", "sliding_attention"],
            num_attention_heads=2,
            num_hidden_layers=7,
            num_key_value_heads=1,
            pad_token_id=297,
            query_pre_attn_scalar=12,
            rms_norm_eps=1e-06,
            rope_local_base_freq=100.0,
            rope_scaling=None,
            rope_theta=10000.0,
            sliding_window=8,
            tie_word_embeddings="absent",
        ),
        "phi3": phi3_config(),
        "phi3_longrope": phi3_long,
        "olmo2": base_config(
            "Olmo2ForCausalLM",
            "olmo2",
            attention_bias=False,
            hidden_size=24,
            intermediate_size=40,
            pad_token_id=297,
            rms_norm_eps=1e-06,
            rope_scaling=None,
            rope_theta=500000.0,
            tie_word_embeddings=False,
        ),
        "kquant": kquant,
        **newer_configs(),
        "gpt_oss": gpt_oss_config(),
        "gpt_oss_mxfp4": gpt_oss_config(),
    }


NOTES = {
    "llama": "llama3 rope scaling with the old context at 32, grouped queries, tied head",
    "llama_sharded_bf16": "as llama, other seed, two bfloat16 shards with an index",
    "mistral": "a token sees itself and the 7 before it; no head_dim key; untied head",
    "qwen2": "biases on q, k and v; the window in the config is switched off",
    "qwen3": "q and k normed per head; head_dim 12 with hidden 32 and 4 heads",
    "gemma2": "soft caps; window 8 on layers 0 and 2; norms are 1 + weight; embedding times sqrt(hidden)",
    "gemma3_text": "window 8 and base 100 on layers 0, 1 and 3; layer 2 is global with base 10000 and positions divided by 4",
    "gemma3_pattern6": "layer_types in the config: only layer 5 is global; no rope scaling",
    "phi3": "fused qkv_proj and gate_up_proj, untied head",
    "phi3_longrope": "short factors while the whole sequence has at most 40 tokens, long factors for every "
    "position once it has more; cos and sin are scaled by sqrt(1 + ln(160/40) / ln(40)) in both cases. The "
    "greedy ids were made by running the whole text again at every step, so they change factors for all "
    "positions when the text passes 40 tokens",
    "olmo2": "norms after attention and after the feed-forward only; q and k normed over the full projection",
    "llama_yarn": "as llama, with YaRN: four times the context of 64",
    "smollm3": "layer 1 rotates nothing",
    "olmo3": "window 8 on layers 0 and 2; YaRN on layer 1 only",
    "granite": "factors on embeddings, attention scores, residual sums and logits",
    "granite4": "as granite, in the layout of the hybrid architecture: a fused shared_mlp, no Mamba layers",
    "stablelm": "LayerNorms, half of each head rotates, biases on q, k and v",
    "stablelm_parallel": "one norm serves attention and feed-forward part",
    "cohere": "LayerNorms without biases, parallel parts, rotation of adjacent pairs, logits scaled",
    "cohere2": "window 8 on layers 0 and 2, which alone rotate",
    "gpt_neox": "q, k and v of each head in one matrix, parallel parts with a norm each, no gate",
    "gpt_neox_sequential": "as gpt_neox, one part after the other",
    "gpt2": "learned positions, transposed matrices, no gate",
    "mixtral": "2 of 4 experts, their weights normalized",
    "qwen3_moe": "3 of 6 experts, their weights normalized; q and k normed per head",
    "olmoe": "3 of 6 experts, whose weights do not sum to 1; q and k normed over the full projection",
    "gpt_oss": "2 of 4 experts with biases, sinks, window 8 on layer 0, YaRN with a ramp between fractions of pairs",
    "gpt_oss_mxfp4": "as gpt_oss, the matrices of experts in MXFP4",
    "kquant": "one layer whose rows are multiples of 256, float16 storage",
}


def make_tokenizer():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - len(CHAT_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tok.train_from_iterator(TRAINING_TEXT.splitlines(keepends=True), trainer)
    tok.add_special_tokens(CHAT_TOKENS)
    assert tok.get_vocab_size() == VOCAB
    return tok


def write_json(path, value, indent=2):
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def write_small_files(folder, config, tokenizer):
    write_json(folder / "config.json", config)
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": 297, "do_sample": False, "eos_token_id": [299, 297]},
    )
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=False) + "\n", encoding="utf-8")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": {
                str(VOCAB - len(CHAT_TOKENS) + i): {"content": t, **flags} for i, t in enumerate(CHAT_TOKENS)
            },
            "bos_token": None,
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "model_max_length": config.get("max_position_embeddings", 128),
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": None,
        },
    )


def exact_in_half(t):
    """Round to bfloat16 and drop what float16 could not hold as a normal number."""
    t = t.to(torch.bfloat16).to(torch.float32)
    t = torch.where(t.abs() < 2.0**-14, torch.zeros_like(t), t)
    assert torch.equal(t.to(torch.float16).to(torch.float32), t)
    return t


LAST_NORMS = ("model.norm.weight", "gpt_neox.final_layer_norm.weight", "transformer.ln_f.weight")


def published(model):
    """The tensors of a model under the names that its checkpoints have."""
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        return {k: v for file in Path(scratch).glob("*.safetensors") for k, v in load_file(file).items()}


def random_weights(config, folder, seed):
    """Names and shapes from transformers, values from the seed."""
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    gemma = config["model_type"].startswith("gemma")
    tied = config.get("tie_word_embeddings", True)
    gen = torch.Generator().manual_seed(seed)
    weights = {}
    for name, value in sorted(published(model).items()):
        if name == "lm_head.weight" and tied:
            continue
        noise = torch.randn(value.shape, generator=gen)
        if ("norm" in name or "ln_" in name) and not name.endswith(".bias"):
            # The last norm is larger, so that the output is far from flat.
            t = 0.25 * noise + (0.0 if gemma else 1.0) + (1.0 if name in LAST_NORMS else 0.0)
        elif name.endswith(".bias"):
            t = 0.3 * noise
        elif "wpe" in name:
            t = noise
        elif any(part in name for part in ("embed_", "lm_head.weight", "wte")):
            # Gemma multiplies the embedding by sqrt(hidden); larger values would drown the layers.
            t = noise * (0.12 if value.shape[1] > 64 else 0.2 if gemma else 0.3)
        elif value.dim() == 1:
            t = noise
        else:
            t = noise * (0.2 if value.shape[1] <= 64 else 1.2 / math.sqrt(value.shape[1]))
        weights[name] = exact_in_half(t)
    return weights


E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]


def in_mxfp4(weights, seed):
    """Replace the matrices of experts by random ones in MXFP4; returns their blocks and scales too."""
    rng = np.random.default_rng(seed)
    packed = {}
    for name, value in weights.items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            continue
        experts, inputs, outputs = value.shape
        codes = rng.integers(0, 16, size=(experts, outputs, inputs // 32, 32), dtype=np.uint8)
        scales = rng.integers(122, 125, size=codes.shape[:-1], dtype=np.uint8)
        packed[name + "_blocks"] = torch.from_numpy(codes[..., ::2] | codes[..., 1::2] << 4)
        packed[name + "_scales"] = torch.from_numpy(scales)
        values = np.array(E2M1, dtype=np.float32)[codes] * 2.0 ** (scales[..., None].astype(np.float32) - 127)
        rows = torch.from_numpy(values.reshape(experts, outputs, inputs).astype(np.float32))
        weights[name] = rows.transpose(1, 2).contiguous()
    return packed


def save_weights(folder, weights, config, shards):
    dtype = getattr(torch, config["torch_dtype"])
    weights = {k: v.to(dtype).contiguous() for k, v in weights.items()}
    if not shards:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(weights)
    cut = len(names) // 2
    weight_map = {}
    for i, part in enumerate((names[:cut], names[cut:]), start=1):
        file = f"model-{i:05}-of-00002.safetensors"
        save_file({n: weights[n] for n in part}, folder / file, metadata={"format": "pt"})
        weight_map.update({n: file for n in part})
    total = sum(t.numel() * t.element_size() for t in weights.values())
    write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))},
    )


def load(folder, dtype=torch.float32, **changes):
    config = AutoConfig.from_pretrained(folder)
    for key, value in changes.items():
        setattr(config, key, value)
    # Eager experts are the only ones in float64.
    eager = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=dtype, **eager)
    return model.eval()


@torch.no_grad()
def logits_of(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0]


def golden_sequence(model, ids):
    logits = logits_of(model, ids)
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    top = torch.topk(logits[-1], 20)
    text, margin = list(ids), math.inf
    for _ in range(GREEDY):
        best = torch.topk(logits_of(model, text)[-1], 2)
        margin = min(margin, float(best.values[0] - best.values[1]))
        text.append(int(best.indices[0]))
    return {
        "ids": list(ids),
        "logprobs": [None] + [round(float(logprobs[i, t]), 7) for i, t in enumerate(ids[1:])],
        "last_top20": [[int(i), round(float(v), 6)] for i, v in zip(top.indices, top.values)],
        "last_logsumexp": round(float(torch.logsumexp(logits[-1].double(), dim=-1)), 7),
        "greedy_ids": text[len(ids) :],
        "greedy_min_margin": round(margin, 6),
    }


FIELDS = {
    "ids": "random ordinary token ids, nothing prepended",
    "logprobs": "logprobs[i] = ln p(ids[i] | ids[..i]); the first is null",
    "last_top20": "[id, logit] of the row after the last id, largest first, after any final soft cap",
    "last_logsumexp": "ln of the sum of exp of that whole row",
    "greedy_ids": f"{GREEDY} greedy tokens; end-of-text ids do not stop it",
    "greedy_min_margin": "smallest gap between the two largest logits on the way",
}


def goldens(folder, name, seed, lengths):
    model = load(folder)
    rng = np.random.default_rng(seed)
    sequences = []
    for n in lengths:
        # A greedy path with a near tie, or one that repeats itself, is a bad test: draw another.
        for _ in range(500):
            ids = [int(i) for i in rng.integers(0, VOCAB - len(CHAT_TOKENS), size=n)]
            seq = golden_sequence(model, ids)
            if seq["greedy_min_margin"] >= MIN_MARGIN and len(set(seq["greedy_ids"])) >= MIN_DISTINCT:
                break
        else:
            raise SystemExit(f"{name}: no sequence of length {n} that is a good test")
        sequences.append(seq)
    wide = load(folder, torch.float64)
    gap = max(float((logits_of(model, s["ids"]) - logits_of(wide, s["ids"])).abs().max()) for s in sequences)
    return {
        "made_with": {
            "transformers": transformers.__version__,
            "torch": torch.__version__.split("+")[0],
            "dtype": "float32",
            "attention": "eager",
            "logarithm": "natural",
        },
        "what": NOTES[name],
        "seed": seed,
        "fields": FIELDS,
        "float32_vs_float64_max_logit_difference": gap,
        "sequences": sequences,
    }


def write_golden(path, golden):
    """Indented, but with every list on one line."""
    text = json.dumps({k: v for k, v in golden.items() if k != "sequences"}, indent=1)
    rows = []
    for s in golden["sequences"]:
        rows.append("  {" + ",\n   ".join(f'"{k}": {json.dumps(v, separators=(",", ":"))}' for k, v in s.items()) + "}")
    path.write_text(text[:-2] + ',\n "sequences": [\n' + ",\n".join(rows) + "\n ]\n}\n", encoding="utf-8")


def make_checkpoint(out, name, config, seed, tokenizer):
    folder = out / name
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_small_files(folder, config, tokenizer)
    weights = random_weights(config, folder, seed)
    packed = in_mxfp4(weights, seed) if "mxfp4" in name else {}
    save_weights(folder, weights, config, shards="sharded" in name)
    # 16 to 40 tokens stays short for longrope, 30 crosses on the way, 48 is long from the start.
    golden = goldens(folder, name, seed, (16, 30, 48))
    write_golden(folder / "GOLDEN.json", golden)
    if packed:
        kept = {k: v for k, v in weights.items() if f"{k}_blocks" not in packed}
        save_file({**kept, **packed}, folder / "model.safetensors", metadata={"format": "pt"})
        write_json(folder / "config.json", {**config, "quantization_config": {"quant_method": "mxfp4"}})
    size = sum(f.stat().st_size for f in folder.iterdir())
    margins = [s["greedy_min_margin"] for s in golden["sequences"]]
    distinct = [len(set(s["greedy_ids"])) for s in golden["sequences"]]
    print(f"{name}: {size} bytes, margins {margins}, distinct greedy ids {distinct}")


# Byte offsets of the float16 scales in one block of each type.
SCALE_OFFSETS = {
    "Q8_0": [0],
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
    "MXFP4": [],
    "IQ1_S": [0],
    "IQ1_M": [],
    "IQ2_XXS": [0],
    "IQ2_XS": [0],
    "IQ2_S": [0],
    "IQ3_XXS": [0],
    "IQ3_S": [0],
    "TQ1_0": [52],
    "TQ2_0": [64],
}


def make_quant_blocks(path, seed=77):
    import gguf

    rng = np.random.default_rng(seed)
    blocks = {}
    for name, offsets in SCALE_OFFSETS.items():
        kind = gguf.GGMLQuantizationType[name]
        values, size = gguf.GGML_QUANT_SIZES[kind]
        raw = rng.integers(0, 256, size=(2, size), dtype=np.uint8)
        for row in raw:
            for at in offsets:
                scale = np.float16(rng.uniform(0.01, 0.2) * rng.choice([-1.0, 1.0]))
                row[at : at + 2] = np.frombuffer(scale.tobytes(), dtype=np.uint8)
            if name == "MXFP4":
                row[0] = rng.integers(118, 132)  # an exponent
            if name == "IQ1_M":
                for at, digit in zip((49, 51, 53, 55), (0x6, 0x6, 0x6, 0x2)):  # the scale 0x2666, in the highest 4 bits
                    row[at] = (row[at] & 0x0F) | digit << 4
        floats = gguf.quants.dequantize(raw, kind).reshape(-1)
        assert np.isfinite(floats).all() and floats.size == 2 * values
        blocks[name] = {
            "type_id": int(kind),
            "block_values": values,
            "block_bytes": size,
            "hex": raw.tobytes().hex(),
            "values": [float(f"{v:.9g}") for v in floats],
        }
    rows = []
    for name, block in blocks.items():
        rows.append(f' "{name}": {json.dumps(block, separators=(",", ":"))}')
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    print(f"{path.name}: {path.stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder that receives one folder per fixture")
    parser.add_argument("--only", default="", help="comma-separated fixture names; quant_blocks is one of them")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    args.out.mkdir(parents=True, exist_ok=True)
    only = set(filter(None, args.only.split(",")))
    tokenizer = make_tokenizer()
    for i, (name, config) in enumerate(fixture_configs().items()):
        if not only or name in only:
            make_checkpoint(args.out, name, config, 9100 + i, tokenizer)
    if not only or "quant_blocks" in only:
        make_quant_blocks(args.out / "quant_blocks.json")


if __name__ == "__main__":
    main()
