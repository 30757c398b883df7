#!/usr/bin/env python3
"""Golden numbers of training: losses, gradients and a step of AdamW by PyTorch, SFT and DPO runs by TRL.

    python scripts/train_goldens.py               # rewrites crates/train/tests/fixtures/train_goldens.json
    python scripts/train_goldens.py objectives    # rewrites objective_goldens.json beside it: losses of random logits

Needs torch, transformers, trl and datasets, and the second torch and trl alone. Everything is computed in float32 on the CPU with eager attention, on the
random fixtures. The fields are explained in the file itself, under "about".
"""

import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F

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
    from transformers import AutoModelForCausalLM

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
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

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


VOCAB = 7
EXAMPLES = [(4, 3), (2, 5), (3, 3)]
OBJECTIVES_ABOUT = (
    "Random logits of three examples, each of one or two sequences, in double precision. `loss` is that of the step, `gradients` its "
    "gradient with respect to the logits, sequences end to end. `references` are log-probabilities of the frozen start: rows, or sums "
    "of the targets'. Rewards take the place of logits for reward heads."
)


def sides(case):
    """Sums and means of log-probabilities of the chosen and the rejected answers, and their sums under the reference."""
    rows = [[F.log_softmax(logits, -1) for logits in example["logits"]] for example in case["examples"]]
    picked = [
        [row.gather(1, torch.tensor(ids)[:, None])[:, 0] for row, ids in zip(each, example["targets"])]
        for each, example in zip(rows, case["examples"])
    ]
    sums = torch.stack([torch.stack([side.sum() for side in each]) for each in picked])
    means = torch.stack([torch.stack([side.mean() for side in each]) for each in picked])
    references = torch.tensor([example.get("reference", [0.0] * len(example["targets"])) for example in case["examples"]])
    return rows, picked, sums, means, references.double()


def dpo(case, beta, label_smoothing=0.0, sft_weight=0.0):
    _, picked, sums, _, reference = sides(case)
    ratios = sums - reference
    margin = beta * (ratios[:, 0] - ratios[:, 1])
    loss = (-F.logsigmoid(margin) * (1 - label_smoothing) - F.logsigmoid(-margin) * label_smoothing).mean()
    return loss - sft_weight * torch.cat([each[0] for each in picked]).mean()


def ipo(case, beta):
    _, picked, sums, _, reference = sides(case)
    counts = torch.tensor([[len(side) for side in each] for each in picked])
    means = (sums - reference) / counts
    return ((means[:, 0] - means[:, 1] - 1 / (2 * beta)) ** 2).mean()


def simpo(case, beta, simpo_gamma, label_smoothing=0.0, cpo_alpha=0.0):
    from trl.experimental.cpo import CPOTrainer

    _, picked, _, means, _ = sides(case)
    trainer = SimpleNamespace(
        alpha=0.0, loss_type="simpo", simpo_gamma=simpo_gamma, beta=beta, label_smoothing=label_smoothing,
        accelerator=SimpleNamespace(device="cpu"),
    )
    losses = CPOTrainer.cpo_loss(trainer, means[:, 0], means[:, 1])[0]
    return losses.mean() - cpo_alpha * torch.cat([each[0] for each in picked]).mean()


def orpo(case, beta):
    _, picked, _, means, _ = sides(case)
    log_odds = (means[:, 0] - means[:, 1]) - (torch.log1p(-torch.exp(means[:, 0])) - torch.log1p(-torch.exp(means[:, 1])))
    return -torch.cat([each[0] for each in picked]).mean() - (beta * F.logsigmoid(log_odds)).mean()


def kto(case, beta, desirable_weight=1.0, undesirable_weight=1.0):
    _, _, sums, _, reference = sides(case)
    ratios, z = (sums - reference)[:, 0], case["divergence"]
    labels = torch.tensor([example["labels"][0] for example in case["examples"]]).bool()
    wanted = desirable_weight * (1 - torch.sigmoid(beta * (ratios[labels] - z)))
    unwanted = undesirable_weight * (1 - torch.sigmoid(beta * (z - ratios[~labels])))
    return torch.cat([wanted, unwanted]).mean()


def residual(case, alpha):
    _, _, sums, _, _ = sides(case)
    return (-sums[:, 0] + alpha * sums[:, 1]).mean()


def sft(case):
    return -torch.cat([each[0] for each in sides(case)[1]]).mean()


def weighted(case, first_tokens, later_weight):
    losses = [-side * torch.where(torch.arange(len(side)) < first_tokens, 1.0, later_weight) for (side,) in sides(case)[1]]
    return torch.cat(losses).mean()


def distill(case, divergence="kl"):
    rows = torch.cat([each[0] for each in sides(case)[0]])
    reference = torch.cat([example["references"][0] for example in case["examples"]])
    if divergence == "hard":
        return F.cross_entropy(rows, reference.argmax(-1))
    if divergence == "l1":
        return (rows.exp() - reference.exp()).abs().sum(-1).mean()
    return F.kl_div(rows, reference, log_target=True, reduction="batchmean")


def starft(case):
    rows = torch.cat([example["logits"][0] for example in case["examples"]])
    reference = torch.cat([example["references"][0] for example in case["examples"]])
    ids = torch.tensor([id for example in case["examples"] for id in example["targets"][0]])
    hidden = F.one_hot(ids, VOCAB).double() * -1e8
    ours, theirs = F.log_softmax(rows + hidden, -1), F.log_softmax(reference + hidden, -1)
    return F.kl_div(ours, theirs, log_target=True, reduction="batchmean")


def reward(case, center_rewards_coefficient=0.0):
    rewards = torch.stack([torch.cat([side[:, 0] for side in example["logits"]]) for example in case["examples"]])
    loss = -F.logsigmoid(rewards[:, 0] - rewards[:, 1]).mean()
    return loss + center_rewards_coefficient * (rewards.sum(1) ** 2).mean()


def step_reward(case):
    rewards = torch.cat([example["logits"][0][:, 0] for example in case["examples"]])
    labels = torch.tensor([label for example in case["examples"] for label in example["labels"]]).double()
    return F.binary_cross_entropy_with_logits(rewards, labels)


CASES = [
    (sft, {}), (dpo, dict(beta=0.1)), (dpo, dict(beta=0.7, label_smoothing=0.2, sft_weight=0.3)), (ipo, dict(beta=0.1)),
    (ipo, dict(beta=0.6)), (simpo, dict(beta=0.1, simpo_gamma=0.5)),
    (simpo, dict(beta=2.0, simpo_gamma=1.0, label_smoothing=0.1, cpo_alpha=0.5)), (orpo, dict(beta=0.1)), (orpo, dict(beta=1.0)),
    (kto, dict(beta=0.1)), (kto, dict(beta=0.5, desirable_weight=1.3, undesirable_weight=0.6)), (residual, dict(alpha=1e-4)),
    (residual, dict(alpha=0.1)), (weighted, dict(first_tokens=2, later_weight=0.5)), (distill, {}), (distill, dict(divergence="hard")),
    (distill, dict(divergence="l1")), (starft, {}), (reward, {}), (reward, dict(center_rewards_coefficient=0.2)), (step_reward, {}),
]
PAIRED = ["dpo", "ipo", "simpo", "orpo", "residual", "reward"]
REFERRED = ["dpo", "ipo", "kto"]


def objective_case(compute, settings):
    name = compute.__name__
    width = 1 if name in ("reward", "step_reward") else VOCAB
    examples = []
    for lengths in EXAMPLES:
        lengths = lengths if name in PAIRED else lengths[:1]
        lengths = [1] * len(lengths) if name == "reward" else lengths
        rows = [(torch.randn(len_, width) * 1.5).mul(1e4).round().div(1e4).double() for len_ in lengths]
        example = {"targets": [torch.randint(0, VOCAB, (len_,)).tolist() for len_ in lengths]}
        example["logits"] = [each.requires_grad_() for each in rows]
        if name in REFERRED:
            example["reference"] = [round(-2.0 * len_ + 0.3 * place, 4) for place, len_ in enumerate(lengths)]
        if name in ("distill", "starft"):
            example["references"] = [F.log_softmax(torch.randn(len_, width).double(), -1) for len_ in lengths]
        if name == "kto":
            example["labels"] = [float(len(examples) % 2 == 0)]
        if name == "step_reward":
            example["labels"] = [float(place % 2) if place < 3 else 0.25 for place in range(lengths[0])]
        examples.append(example)
    case = {"objective": name, "settings": settings, "divergence": 0.3 if name == "kto" else 0.0, "examples": examples}
    loss = compute(case, **settings)
    loss.backward()
    case["loss"] = loss.item()
    for example in examples:
        example["gradients"] = [value for each in example["logits"] for value in each.grad.flatten().tolist()]
        example["logits"] = [value for each in example["logits"] for value in each.flatten().tolist()]
        if "references" in example:
            example["references"] = [value for each in example["references"] for value in each.flatten().tolist()]
    return case


def objectives():
    torch.manual_seed(7)
    torch.set_default_dtype(torch.float64)
    golden = {"about": OBJECTIVES_ABOUT, "cases": [objective_case(*case) for case in CASES]}
    return json.loads(json.dumps(golden), parse_float=lambda text: round(float(text), 9))


def main():
    if sys.argv[1:] == ["objectives"]:
        path = Path("crates/train/tests/fixtures/objective_goldens.json")
        path.write_text(json.dumps(objectives()) + "\n")
        return print(path, path.stat().st_size, "bytes")
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
