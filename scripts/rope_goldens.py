#!/usr/bin/env python3
"""Write the frequencies of rotary embeddings that transformers computes, for every kind of scaling.

    python scripts/rope_goldens.py --out crates/nn/tests/fixtures/rope_goldens.json
"""

import argparse
import json
from pathlib import Path

import transformers
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

HEAD_DIM, THETA, MAX_LEN = 64, 500000.0, 4096
LONG = {
    "short_factor": [1.0 + i / 64 for i in range(HEAD_DIM // 2)],
    "long_factor": [1.0 + i / 8 for i in range(HEAD_DIM // 2)],
}
SCALINGS = [
    {"rope_type": "linear", "factor": 8.0},
    {"rope_type": "dynamic", "factor": 8.0},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    },
    {"rope_type": "longrope", "original_max_position_embeddings": 1024, **LONG},
    {"rope_type": "longrope", "original_max_position_embeddings": 1024, "attention_factor": 1.5, **LONG},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
    {"rope_type": "yarn", "factor": 4.0},
    {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 128, "truncate": False},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024, "beta_fast": 8.0, "beta_slow": 2.0},
    {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 1024,
        "mscale": 0.707,
        "mscale_all_dim": 1.0,
    },
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024, "mscale": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024, "attention_factor": 0.75},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4},
]


def case(scaling):
    config = {"head_dim": HEAD_DIM, "rope_theta": THETA, "max_position_embeddings": MAX_LEN, "rope_scaling": scaling}
    llama = LlamaConfig(**json.loads(json.dumps(config)))
    original = scaling.get("original_max_position_embeddings", MAX_LEN)
    # The base of `dynamic` changes beyond the context only.
    longest = MAX_LEN if scaling["rope_type"] == "dynamic" else original + 1
    frequencies, attention = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](llama, "cpu", seq_len=original)
    long_frequencies, _ = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](llama, "cpu", seq_len=longest)
    return {
        "config": config,
        "frequencies": [float(f"{v:.9g}") for v in frequencies],
        "long_frequencies": [float(f"{v:.9g}") for v in long_frequencies],
        "attention_factor": float(attention),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = ",\n".join("  " + json.dumps(case(scaling)) for scaling in SCALINGS)
    head = json.dumps({"made_with": {"transformers": transformers.__version__}})[:-1]
    args.out.write_text(f'{head},\n "cases": [\n{rows}\n ]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
