#!/usr/bin/env python3
"""Checks that other programs read the output of a training run: transformers the model, with the same
log-probabilities as wsd; TensorBoard the events.

    python scripts/train_check.py --wsd target/release/wsd runs/base
"""

import argparse
import json
import subprocess
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, AutoTokenizer


def logprobs(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        rows = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return [rows[i - 1, ids[i]].item() for i in range(1, len(ids))]


def by_wsd(wsd, folder, ids):
    lists = ["--prompt-ids", str(ids[0]), "--response-ids", ",".join(map(str, ids[1:]))]
    command = [wsd, "score", "--base", folder, "--raw", "--dtype", "f32", *lists, "--json"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return [token["logprob"] for token in report["tokens"]]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--wsd", default="target/release/wsd")
    parser.add_argument("run", type=Path)
    args = parser.parse_args()
    folder = args.run / "model"
    ids = AutoTokenizer.from_pretrained(folder)("The quick brown fox is red. It lives near the river.")["input_ids"]
    pairs = list(zip(logprobs(folder, ids), by_wsd(args.wsd, folder, ids), strict=True))
    print(f"{len(pairs)} log-probabilities, off by at most {max(abs(a - b) for a, b in pairs):.1e}")
    events = EventAccumulator(str(args.run)).Reload()
    for tag in events.Tags()["scalars"]:
        print(tag, [round(event.value, 4) for event in events.Scalars(tag)][-3:])


if __name__ == "__main__":
    main()
