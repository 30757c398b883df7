#!/usr/bin/env python3
"""Golden numbers of bfloat16 runs, and how often bfloat16 moves the switch.

transformers runs each checkpoint with bfloat16 weights and arithmetic: log-probabilities of the prompts
of its GOLDEN.json, and of (prompt, response) pairs of about 40 response tokens, with the switch index by
the rule in bfloat16 and in float32. The responses are greedy and sampled texts of the model itself, made
in float32 from a fixed seed. Logits come out in bfloat16; the softmax over them is taken in float64, so
that the numbers say what the network gives and not how a softmax rounds.

Rerun from the repository root:

    python scripts/bf16_goldens.py --out crates/wsd/tests/goldens/bf16.json \\
        DATA/weights/hf_stories260k DATA/weights/hf_babyllama_tok105
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import transformers
from three_pass import PROMPTS, THRESHOLD, WINDOW, Model, finite, switch_index, token_logprobs

RESPONSE = 40
PAIRS = 100
# Per round over the prompts; 0 is greedy.
TEMPERATURES = [0.0, 0.4, 0.5, 0.6, 0.7, 0.7, 0.8, 0.9, 1.0, 1.3]

FIELDS = {
    "prompts": "ids of GOLDEN.json and their bfloat16 logprobs (the first is null)",
    "pairs": "[prompt ids, response ids, bfloat16 logprobs of the response, bfloat16 switch index, float32 switch "
    "index, float32 decision margin]; an index counts response tokens from 0 and is null if no window passes",
    "agreement": "pairs whose two switch indices are the same",
    "max_difference": "largest |bfloat16 - float32| log-probability in the pairs",
}


@torch.no_grad()
def sample(model, ids, rng, temperature):
    """RESPONSE tokens after ids, end-of-text ids left out of the choice; temperature 0 is greedy."""
    ids = list(ids)
    for _ in range(RESPONSE):
        logits = model.logits(ids)[-1].double()
        logits[sorted(model.ends)] = -torch.inf
        if temperature == 0:
            ids.append(int(logits.argmax()))
        else:
            p = torch.softmax(logits / temperature, dim=-1).numpy()
            ids.append(int(rng.choice(len(p), p=p / p.sum())))
    return ids[-RESPONSE:]


def make_pairs(model, rng):
    pairs = []
    for i in range(PAIRS):
        prompt = model.encode(PROMPTS[i % len(PROMPTS)])
        temperature = TEMPERATURES[i // len(PROMPTS)]
        pairs.append((prompt, sample(model, prompt, rng, temperature)))
    return pairs


def golden(folder, rng):
    wide, half = Model(folder), Model(folder, torch.bfloat16)
    reference = json.loads((folder / "GOLDEN.json").read_text())
    prompts = []
    for p in reference["prompts"]:
        logprobs = token_logprobs(half, p["ids"], 1)
        prompts.append({"ids": p["ids"], "logprobs": [None] + [round(v, 5) for v in logprobs]})
    pairs, agree, gap = [], 0, 0.0
    for prompt, response in make_pairs(wide, rng):
        low = token_logprobs(half, prompt + response, len(prompt))
        full = token_logprobs(wide, prompt + response, len(prompt))
        at_low, _ = switch_index(low)
        at_full, margin = switch_index(full)
        agree += at_low == at_full
        gap = max(gap, max(abs(a - b) for a, b in zip(low, full)))
        pairs.append([prompt, response, [round(v, 5) for v in low], at_low, at_full, finite(margin)])
    never = sum(p[4] is None for p in pairs)
    print(f"{folder.name}: switch agrees in {agree} of {len(pairs)}, never passes in {never}, logprobs within {gap:.4f}")
    return {"model": folder.name, "agreement": agree, "max_difference": round(gap, 5), "prompts": prompts, "pairs": pairs}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="checkpoint folders with a GOLDEN.json")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    rng = np.random.default_rng(606)
    models = [golden(folder, rng) for folder in args.folders]
    head = {
        "made_with": {
            "transformers": transformers.__version__,
            "torch": torch.__version__.split("+")[0],
            "dtype": "bfloat16",
            "attention": "eager",
            "logarithm": "natural",
        },
        "window": WINDOW,
        "threshold": THRESHOLD,
        "fields": FIELDS,
    }
    blocks = []
    for m in models:
        lists = []
        for key in ("prompts", "pairs"):
            rows = ",\n".join("    " + json.dumps(r, separators=(",", ":")) for r in m.pop(key))
            lists.append(f'   "{key}": [\n{rows}\n   ]')
        blocks.append("  " + json.dumps(m)[:-1] + ",\n" + ",\n".join(lists) + "}")
    text = json.dumps(head, indent=1)[:-2] + ',\n "models": [\n' + ",\n".join(blocks) + "\n ]\n}\n"
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
