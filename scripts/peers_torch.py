#!/usr/bin/env python3
"""Times of transformers on the CPU for the jobs of `wsd bench engine` and `wsd bench wsd`; runs/peers.sh calls it.

    python scripts/peers_torch.py --model FOLDER                             # decode, prefill, score, as one JSON object
    python scripts/peers_torch.py --base FOLDER --draft FOLDER --window 10   # the paper's three passes, greedy
"""

import argparse
import json
import time

import torch
import transformers
from transformers import AutoModelForCausalLM, DynamicCache


VERSIONS = f"torch {torch.__version__}, transformers {transformers.__version__}"


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()


def some(start, count, vocab):
    """The tokens that `wsd bench engine` runs."""
    return torch.tensor([[index * 7919 % vocab for index in range(start, start + count)]])


def seconds(job):
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def engine(model, context, tokens):
    vocab = model.config.vocab_size
    figures = {}
    for count in (128, 512):
        figures[f"prefill {count}"] = seconds(lambda: model(some(0, count, vocab), logits_to_keep=1))
    cache = DynamicCache(config=model.config)
    model(some(0, context, vocab), past_key_values=cache, logits_to_keep=1)
    for count in (2, 4, 8, 16):
        figures[f"score {count}@{context}"] = seconds(
            lambda: model(some(context, count, vocab), past_key_values=cache)
        )
        cache.crop(-count)

    def decode():
        token = torch.tensor([[1]])
        for _ in range(tokens):
            token = model(token, past_key_values=cache).logits[:, -1:].argmax(-1)

    figures[f"decode@{context}"] = seconds(decode) / tokens
    return {"versions": VERSIONS, "figures": [{"name": name, "seconds": value} for name, value in figures.items()]}


def write(model, tokens, count):
    """Greedy continuation."""
    return model.generate(
        torch.tensor([tokens]), max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0
    )[0, len(tokens) :].tolist()


def three_passes(base, draft, prompt, args):
    """Draft all, score all, go on after the switch: each from the beginning, as the paper's code does."""
    drafted = write(draft, prompt, args.draft_tokens)
    logits = base(torch.tensor([prompt + drafted])).logits[0, len(prompt) - 1 : -1].float()
    logprobs = torch.log_softmax(logits, -1).gather(1, torch.tensor(drafted)[:, None])[:, 0].tolist()
    means = [sum(logprobs[i + 1 - args.window : i + 1]) / args.window for i in range(args.window - 1, len(drafted))]
    passed = [i for i, mean in enumerate(means, args.window - 1) if mean >= torch.tensor(args.threshold).log()]
    switch = passed[0] if passed else len(drafted) - 1
    kept = drafted[: switch + 1][: args.tokens]
    return switch, kept + (write(base, prompt + kept, args.tokens - len(kept)) if len(kept) < args.tokens else [])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--base")
    parser.add_argument("--draft")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--window", type=int, default=6)
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--prompts", type=int, default=1)
    parser.add_argument("--draft-tokens", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=256)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        if args.model:
            model = load(args.model)
            model(some(0, 8, model.config.vocab_size))
            print(json.dumps(engine(model, 128, 32)))
            return
        base, draft = load(args.base), load(args.draft)
        prompts = [some(1009 * index, 64, base.config.vocab_size)[0].tolist() for index in range(args.prompts)]
        base(torch.tensor(prompts[:1]))
        draft(torch.tensor(prompts[:1]))
        started = time.perf_counter()
        answers = [three_passes(base, draft, prompt, args) for prompt in prompts]
        taken = time.perf_counter() - started
    switches, tokens = zip(*answers)
    print(json.dumps({"seconds": taken, "switches": switches, "tokens": tokens, "versions": VERSIONS}))


if __name__ == "__main__":
    main()
