#!/usr/bin/env python3
"""Training speed on the CPU beside PyTorch: the same model, batch, optimizer and number of threads, taking turns.

    python scripts/train_speed.py --wsd target/release/wsd

Needs torch and transformers. Prints tokens per second of each and their ratio, medians over all steps of all rounds.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

SIZES = {
    "small": dict(hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2),
    "large": dict(hidden_size=320, intermediate_size=864, num_hidden_layers=6, num_attention_heads=5, num_key_value_heads=5),
}


def config(size, vocab, row):
    return dict(
        architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=vocab, max_position_embeddings=row,
        tie_word_embeddings=True, hidden_act="silu", rms_norm_eps=1e-5, rope_theta=10000.0, **SIZES[size],
    )


def torch_steps(settings, args):
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**settings, attn_implementation="sdpa"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    ids = torch.randint(3, settings["vocab_size"], (args.rows, args.row))
    speeds = []
    for _ in range(args.steps):
        started = time.perf_counter()
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        speeds.append(ids.numel() / (time.perf_counter() - started))
    return speeds[1:]


def toml(value):
    return json.dumps(value)


def wsd_steps(settings, args, folder, number):
    run = folder / f"run-{number}"
    lines = [f"output = {toml(str(run))}", f"threads = {args.threads}", "[model]", f"tokenizer = {toml(str(folder / 'tokenizer'))}"]
    lines += ["[model.config]"] + [f"{key} = {toml(value)}" for key, value in settings.items()]
    lines += ["[data]", f"train = [{toml(str(folder / 'corpus.jsonl'))}]", f"max_length = {args.row}", "packing = true"]
    lines += ["[train]", f"batch_size = {args.rows}", f"max_steps = {args.steps}", "logging_steps = 1", "save_steps = 0"]
    lines += ["weight_decay = 0.1", "learning_rate = 1e-3"]
    (folder / "run.toml").write_text("\n".join(lines) + "\n")
    subprocess.run([args.wsd, "train", "pretrain", "--quiet", "--config", folder / "run.toml"], check=True)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["tokens_per_second"] for row in rows[1:]]


def corpus(folder, args):
    words = ["".join(random.choices("abcdefghijklmnoprstuvw", k=random.randint(2, 8))) for _ in range(3000)]
    with (folder / "corpus.jsonl").open("w") as file:
        for _ in range(args.rows * args.row * 2 // 60):
            file.write(json.dumps({"text": " ".join(random.choices(words, k=60))}) + "\n")
    tokenizer = [args.wsd, "train", "tokenizer", "--input", folder / "corpus.jsonl", "--output", folder / "tokenizer"]
    subprocess.run([*tokenizer, "--vocab-size", str(args.vocab)], check=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--wsd", default="target/release/wsd")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--row", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=2048)
    args = parser.parse_args()
    random.seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus(folder, args)
        for size in SIZES:
            settings = config(size, args.vocab, args.row)
            ours, theirs = [], []
            for number in range(args.rounds):
                theirs += torch_steps(settings, args)
                ours += wsd_steps(settings, args, folder, f"{size}-{number}")
            ours, theirs = statistics.median(ours), statistics.median(theirs)
            print(f"{size}: wsd {ours:.0f}, PyTorch {theirs:.0f} tokens/s, ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
