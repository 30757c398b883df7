#!/usr/bin/env python3
"""Golden numbers of training: losses, gradients and a step of AdamW by PyTorch, SFT and DPO runs by TRL.

    python scripts/train_goldens.py    # rewrites crates/train/tests/fixtures/train_goldens.json

Needs torch, transformers, trl and datasets. Everything is computed in float32 on the CPU with eager attention, on the
random fixtures. The fields are explained in the file itself, under "about".
"""

import json
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

FIXTURES = Path("crates/nn/tests/fixtures")
GRADIENTS = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "olmo2"]
STEP = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
CLIP = 0.5
RUN = dict(learning_rate=1e-3, max_steps=3, lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.1, max_grad_norm=1.0)
PAIRS = [
    ("What is red?", " A fox is red.", " Go away, you."),
    ("Where does a duck live? Tell me.", " On the river.", " In the sky, with the others, they say."),
    ("Say it", " It.", " No."),
    ("Count to three.", " One, two, three.", " Three."),
]
ABOUT = {
    "gradients": "per fixture: the sequences of its GOLDEN.json with more than 3 tokens, all tokens but the first and the "
    "middle one (index len // 2) learned; `loss` is the mean over all learned tokens; per tensor the norm of its gradient, the "
    "gradient's values at the places of `at`, and the weights there after a step: the gradient clipped to "
    f"{CLIP}, AdamW with {STEP}, no decay of vectors",
    "sft": f"TRL's SFTTrainer on prompt and completion, all rows in one batch, {RUN}: loss before each step",
    "dpo": "TRL's DPOTrainer likewise, per beta: what it logs before each step",
    "at": "the first value, and those at 1/3, 2/3 and the end of each tensor",
}


def model(name):
    return AutoModelForCausalLM.from_pretrained(FIXTURES / name, dtype=torch.float32, attn_implementation="eager")


def places(count):
    return [0, count // 3, 2 * count // 3, count - 1]


def gradients(name):
    network = model(name)
    network.train()
    golden = json.loads((FIXTURES / name / "GOLDEN.json").read_text())
    total, loss = 0, 0.0
    for sequence in golden["sequences"]:
        ids = sequence["ids"]
        if len(ids) <= 3:
            continue
        labels = torch.tensor(ids)
        labels[len(ids) // 2] = -100
        logits = network(torch.tensor([ids])).logits[0, :-1].float()
        loss = loss + torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=-100, reduction="sum")
        total += int((labels[1:] != -100).sum())
    loss = loss / total
    loss.backward()
    named = dict(network.named_parameters())
    tensors = {}
    for key, value in named.items():
        flat = value.grad.flatten()
        at = places(flat.numel())
        tensors[key] = {"norm": value.grad.double().norm().item(), "gradient": flat[at].tolist()}
    torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
    groups = [
        {"params": [p for p in named.values() if p.dim() > 1], "weight_decay": STEP["weight_decay"]},
        {"params": [p for p in named.values() if p.dim() < 2], "weight_decay": 0.0},
    ]
    torch.optim.AdamW(groups, lr=STEP["lr"], betas=STEP["betas"], eps=STEP["eps"]).step()
    for key, value in named.items():
        flat = value.detach().flatten()
        tensors[key]["after"] = flat[places(flat.numel())].tolist()
    return {"loss": loss.item(), "tensors": tensors}


def decay_matrices_only(trainer):
    """TRL decays by the kind of module; here it is by the number of dimensions, which for these models is the same."""
    trainer.create_optimizer()
    for group in trainer.optimizer.param_groups:
        dims = {p.dim() > 1 for p in group["params"]}
        assert len(dims) <= 1, "a group of matrices and vectors"


def run(kind, config, rows, keys):
    with tempfile.TemporaryDirectory() as folder:
        common = dict(
            output_dir=folder, per_device_train_batch_size=len(PAIRS), logging_steps=1, report_to=[], use_cpu=True, seed=1,
            max_length=256, bf16=False, gradient_checkpointing=False, disable_tqdm=True, save_strategy="no", **RUN,
        )
        classes = {"sft": (SFTConfig, SFTTrainer), "dpo": (DPOConfig, DPOTrainer)}[kind]
        arguments = classes[0](**common, **config)
        tokenizer = AutoTokenizer.from_pretrained(FIXTURES / "llama")
        trainer = classes[1](
            model=model("llama"), args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        )
        decay_matrices_only(trainer)
        trainer.train()
        return [{key: row[key] for key in keys} for row in trainer.state.log_history if "loss" in row]


def main():
    keys = ["loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected"]
    answers = [{"prompt": prompt, "completion": chosen} for prompt, chosen, _ in PAIRS]
    pairs = [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in PAIRS]
    settings = [dict(beta=0.1), dict(beta=0.5)]
    dpo = [{**each, "steps": run("dpo", {**each, "precompute_ref_log_probs": True}, pairs, keys)} for each in settings]
    golden = {
        "about": ABOUT,
        "pairs": PAIRS,
        "gradients": {name: gradients(name) for name in GRADIENTS},
        "sft": run("sft", {"completion_only_loss": True, "packing": False}, answers, ["loss", "grad_norm"]),
        "dpo": dpo,
    }
    path = Path("crates/train/tests/fixtures/train_goldens.json")
    path.write_text(json.dumps(golden, indent=1) + "\n")
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
