#!/usr/bin/env python3
"""Golden runs of the three-pass rule, computed with transformers alone.

The draft model answers a raw prompt greedily; its text is encoded again by the base model's tokenizer
and scored by the base in one pass; the draft is kept up to the first window whose geometric mean of
probabilities reaches the threshold (all of it if none does); the base goes on greedily from the ids.

Rerun from the repository root:

    python scripts/three_pass.py --base DATA/weights/hf_babyllama_tok105 \\
        --draft DATA/weights/hf_stories260k --out crates/wsd/tests/goldens/three_pass.json
    python scripts/three_pass.py --base DATA/weights/hf_stories260k \\
        --draft DATA/weights/hf_babyllama_tok105 --out crates/wsd/tests/goldens/three_pass_swapped.json
    python scripts/three_pass.py --base DATA/weights/hf_stories260k --max-tokens 460 \\
        --draft DATA/weights/hf_babyllama_tok105 --out crates/wsd/tests/goldens/three_pass_swapped_long.json
"""

import argparse
import json
import math
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

WINDOW = 6
THRESHOLD = 0.8
DRAFT_TOKENS = 512

PROMPTS = [
    "Once upon a time",
    "One sunny day, a boy named Tim went to the park with his mom.",
    "Lily had a red ball. She liked to",
    "The little dog was sad because",
    "There was a big tree in the garden. Every day, a bird",
    '"Can I have a cookie?" asked Sam. His mom said,',
    "Tom and his friend Ben wanted to build a house of blocks. They",
    "It was raining, so Mia could not go outside. She looked out of the window and",
    "A cat saw a fish in the water. The cat wanted",
    "Anna found a shiny key on the ground!",
    "In the morning, the old man opened his shop and",
]

FIELDS = {
    "prompt": "raw text, no chat template",
    "draft_ids": "greedy ids of the draft model, its end-of-text id left out",
    "draft_text": "decode(prompt + draft) less decode(prompt), special tokens left out",
    "base_prompt_ids": "the base tokenizer's ids that stand for the prompt: the part of encode(prompt) that "
    "encode(prompt + draft_text) begins with",
    "base_draft_ids": "the rest of encode(prompt + draft_text), cut to the base's context",
    "logprobs": "natural log-probabilities of base_draft_ids by the base",
    "switch_at": "index in base_draft_ids of the last id of the first passing window, or null",
    "kept_ids": "base_draft_ids up to and including switch_at (all of them if null), cut to max_tokens",
    "continued_ids": "greedy ids of the base after the kept ones, its end-of-text id left out",
    "text": "decode(base_prompt + kept + continued) less decode(encode(prompt)), special tokens left out",
    "finish": "stop (an end-of-text id) or length (max_tokens or the context's end)",
    "decision_margin": "smallest |mean log-probability - ln threshold| over the windows up to the decision",
    "greedy_margin": "smallest gap between the two largest logits on the base's greedy way",
    "draft_greedy_margin": "the same on the draft's way",
}


class Model:
    def __init__(self, folder, dtype=torch.float32):
        self.name = folder.name
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
        self.context = self.model.config.max_position_embeddings
        ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
        self.ends = set(ends if isinstance(ends, list) else [ends])

    def encode(self, text):
        return self.tokenizer.encode(text)

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    @torch.no_grad()
    def logits(self, ids):
        return self.model(torch.tensor([ids]), use_cache=False).logits[0].float()

    @torch.no_grad()
    def greedy(self, ids, limit):
        """Greedy ids after `ids`, whether an end-of-text id came, and the smallest margin on the way."""
        new, margin, past, feed = [], math.inf, None, list(ids)
        limit = min(limit, self.context - len(ids))
        while len(new) < limit:
            step = self.model(torch.tensor([feed]), past_key_values=past, use_cache=True)
            past = step.past_key_values
            best = torch.topk(step.logits[0, -1].float(), 2)
            margin = min(margin, float(best.values[0] - best.values[1]))
            token = int(best.indices[0])
            if token in self.ends:
                return new, True, margin
            new.append(token)
            feed = [token]
        return new, False, margin


def added_text(model, prompt_ids, more_ids, prompt_only_ids=None):
    before = model.decode(prompt_only_ids if prompt_only_ids is not None else prompt_ids)
    whole = model.decode(list(prompt_ids) + list(more_ids))
    if not whole.startswith(before):
        raise SystemExit("decoding the prompt and more does not begin with the prompt's text")
    return whole[len(before) :]


def common_prefix(a, b):
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


def switch_index(logprobs, window=WINDOW, threshold=THRESHOLD):
    """The first index whose window passes, and how near the decision was; index None if none passes."""
    nearest = math.inf
    for i in range(window - 1, len(logprobs)):
        mean = math.fsum(logprobs[i + 1 - window : i + 1]) / window
        nearest = min(nearest, abs(mean - math.log(threshold)))
        if mean >= math.log(threshold):
            return i, nearest
    return None, nearest


def token_logprobs(model, ids, start):
    logprobs = torch.log_softmax(model.logits(ids).double(), dim=-1)
    return [float(logprobs[i - 1, ids[i]]) for i in range(start, len(ids))]


def finite(x, digits=6):
    return None if math.isinf(x) else round(x, digits)


def run(base, draft, prompt, max_tokens):
    prompt_ids = draft.encode(prompt)
    draft_ids, _, draft_margin = draft.greedy(prompt_ids, DRAFT_TOKENS)
    draft_text = added_text(draft, prompt_ids, draft_ids)

    prompt_alone = base.encode(prompt)
    whole = base.encode(prompt + draft_text)[: base.context]
    split = common_prefix(prompt_alone, whole)
    base_prompt, base_draft = whole[:split], whole[split:]
    logprobs = token_logprobs(base, whole, split)
    switch_at, decision = switch_index(logprobs)

    kept = base_draft if switch_at is None else base_draft[: switch_at + 1]
    kept = kept[:max_tokens]
    more, ended, margin = base.greedy(base_prompt + kept, max_tokens - len(kept))
    return {
        "prompt": prompt,
        "draft_ids": draft_ids,
        "draft_text": draft_text,
        "base_prompt_ids": base_prompt,
        "base_draft_ids": base_draft,
        "logprobs": [round(p, 6) for p in logprobs],
        "switch_at": switch_at,
        "kept_ids": kept,
        "continued_ids": more,
        "text": added_text(base, base_prompt, kept + more, prompt_alone),
        "finish": "stop" if ended else "length",
        "decision_margin": finite(decision),
        "greedy_margin": finite(margin),
        "draft_greedy_margin": finite(draft_margin),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--draft", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-tokens", type=int, default=120, help="answer length in base tokens")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    base, draft = Model(args.base), Model(args.draft)
    runs = [run(base, draft, prompt, args.max_tokens) for prompt in PROMPTS]
    golden = {
        "made_with": {
            "transformers": transformers.__version__,
            "torch": torch.__version__.split("+")[0],
            "dtype": "float32",
            "attention": "eager",
            "logarithm": "natural",
        },
        "base": base.name,
        "draft": draft.name,
        "window": WINDOW,
        "threshold": THRESHOLD,
        "draft_tokens": DRAFT_TOKENS,
        "max_tokens": args.max_tokens,
        "fields": FIELDS,
    }
    rows = []
    for r in runs:
        rows.append("  {" + ",\n   ".join(f'"{k}": {json.dumps(v, separators=(",", ":"))}' for k, v in r.items()) + "}")
        print(r["switch_at"], len(r["kept_ids"]), len(r["continued_ids"]), len(r["base_draft_ids"]), r["finish"],
              r["decision_margin"], r["greedy_margin"], r["draft_greedy_margin"])
    text = json.dumps(golden, indent=1)[:-2] + ',\n "runs": [\n' + ",\n".join(rows) + "\n ]\n}\n"
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
