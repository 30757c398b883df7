#!/usr/bin/env python3
"""Makes crates/nn/tests/goldens/fspad.json: outputs, losses and gradients of draft heads by PyTorch.

    python scripts/fspad_goldens.py

An independent writing, in plain PyTorch and float32, of the head of FSPAD (arXiv 2408.15562) and of its
ablations down to that of EAGLE, over the embedding and the vocabulary head of random fixtures. Weights and
features are numbers of a linear congruential generator, which the tests repeat. Needs torch and numpy.
The fields are explained in the file itself, under "about".
"""

import json
import math
import struct
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "crates/nn/tests/fixtures"
OUT = ROOT / "crates/nn/tests/goldens/fspad.json"
FFN, TOKENS = 48, 9
ABOUT = {
    "weights": "tensors in the order of DraftPlan::tensors, from seed 7: matrices are u / sqrt(inputs), "
    "norms 1 + u / 10, the bias u / 10, with u = (state >> 40) / 2^23 - 1 after "
    "state = state * 6364136223846793005 + 1442695040888963407",
    "features": "u from seed 11, one row per token",
    "predicted, aligned": "outputs of the two branches at each pair of a feature and the token after it; "
    "the last token follows the last feature used",
    "logits": "the first ten logits of the predicted rows",
    "tree": "the same after the first four pairs, of pairs with these tokens, parents (0: the fourth pair) "
    "and features of the features' last rows",
    "loss": "the mean over the pairs i whose token i + 2 is in `targets`",
    "gradients": "per tensor the norm, and the values at the first place, at 1/3, 2/3 and the end",
}


class Numbers:
    """The generator."""

    def __init__(self, seed):
        self.state = seed

    def take(self, *shape):
        values = []
        for _ in range(math.prod(shape)):
            self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
            values.append((self.state >> 40) / 2**23 - 1)
        return np.array(values, dtype=np.float32).reshape(shape)


def safetensors(path):
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        assert entry["dtype"] == "F32", entry
        tensors[name] = torch.tensor(np.frombuffer(data[start:end], dtype=np.float32).reshape(entry["shape"]).copy())
    return tensors


class Base:
    """What a head needs of its base."""

    def __init__(self, name):
        self.name = name
        config = json.loads((FIXTURES / name / "config.json").read_text())
        tensors = safetensors(FIXTURES / name / "model.safetensors")
        self.hidden, self.vocab = config["hidden_size"], config["vocab_size"]
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.head_dim, self.eps = config.get("head_dim") or self.hidden // self.heads, config["rms_norm_eps"]
        self.theta, self.cap = config["rope_theta"], config.get("final_logit_softcapping")
        table = tensors["model.embed_tokens.weight"]
        self.matrix = table if "lm_head.weight" not in tensors else tensors["lm_head.weight"]
        self.table = table * math.sqrt(self.hidden) if name.startswith("gemma") else table

    def logits(self, states):
        logits = states @ self.matrix.T
        return self.cap * torch.tanh(logits / self.cap) if self.cap else logits


def tensors(base, sampling, alignment):
    """Names and shapes, in the order of the file."""
    hidden, heads, kv = base.hidden, base.heads * base.head_dim, base.kv_heads * base.head_dim
    yield "model.fusion.weight", (hidden, 2 * hidden)
    if sampling:
        yield "model.sampling.norm.weight", (hidden,)
        yield "model.sampling.gate_proj.weight", (FFN, hidden)
        yield "model.sampling.up_proj.weight", (FFN, hidden)
        yield "model.sampling.down_proj.weight", (hidden, FFN)
    layer = "model.layers.0."
    yield layer + "post_attention_layernorm.weight", (hidden,)
    yield layer + "self_attn.q_proj.weight", (heads, hidden)
    yield layer + "self_attn.k_proj.weight", (kv, hidden)
    yield layer + "self_attn.v_proj.weight", (kv, hidden)
    yield layer + "mlp.gate_proj.weight", (FFN, hidden)
    yield layer + "mlp.up_proj.weight", (FFN, hidden)
    yield layer + "self_attn.o_proj.weight", (hidden, heads)
    yield layer + "mlp.down_proj.weight", (hidden * (2 if alignment else 1), FFN)
    yield "model.fusion.bias", (hidden,)


def weights(base, sampling, alignment):
    numbers, made = Numbers(7), {}
    for name, shape in tensors(base, sampling, alignment):
        values = numbers.take(*shape)
        if len(shape) == 2:
            values = values * np.float32(1 / math.sqrt(shape[1]))
        else:
            values = values * np.float32(0.1) + np.float32(0.0 if name.endswith("bias") else 1.0)
        made[name] = torch.tensor(values, requires_grad=True)
    return made


def norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotate(x, positions, theta):
    half = x.shape[-1] // 2
    frequencies = theta ** (-torch.arange(half, dtype=torch.float32) / half)
    angles = positions.float()[:, None] * frequencies
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    one, two = x[..., :half], x[..., half:]
    return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)


def head(base, w, tokens, features, positions, seen):
    """The outputs of both branches. `seen[i, j]` tells whether pair i attends to pair j."""
    e = base.table[tokens]
    h = torch.cat([e, features], -1) @ w["model.fusion.weight"].T + w["model.fusion.bias"]
    if "model.sampling.norm.weight" in w:
        gate = F.silu(e @ w["model.sampling.gate_proj.weight"].T)
        up = norm(h, w["model.sampling.norm.weight"], base.eps) @ w["model.sampling.up_proj.weight"].T
        h = h + (gate * up) @ w["model.sampling.down_proj.weight"].T
    layer = {name.removeprefix("model.layers.0."): value for name, value in w.items()}
    n = len(tokens)
    q = rotate((h @ layer["self_attn.q_proj.weight"].T).view(n, base.heads, -1), positions, base.theta)
    k = rotate((h @ layer["self_attn.k_proj.weight"].T).view(n, base.kv_heads, -1), positions, base.theta)
    v = (h @ layer["self_attn.v_proj.weight"].T).view(n, base.kv_heads, -1)
    k, v = (x.repeat_interleave(base.heads // base.kv_heads, 1) for x in (k, v))
    scores = torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(base.head_dim)
    scores = scores.masked_fill(~seen, -math.inf).softmax(-1)
    attended = torch.einsum("hij,jhd->ihd", scores, v).reshape(n, -1)
    u = h + attended @ layer["self_attn.o_proj.weight"].T
    x = norm(u, layer["post_attention_layernorm.weight"], base.eps)
    inner = F.silu(x @ layer["mlp.gate_proj.weight"].T) * (x @ layer["mlp.up_proj.weight"].T)
    out = inner @ layer["mlp.down_proj.weight"].T
    branches = out.shape[-1] // base.hidden
    out = torch.cat([u] * branches, -1) + out
    return out[:, : base.hidden], out[:, -base.hidden :]


def rows(x):
    return [[float(f"{value:.7g}") for value in row] for row in x.tolist()]


def case(name, sampling, alignment):
    base = Base(name)
    w = weights(base, sampling, alignment)
    tokens = torch.tensor([(17 * i * i + 5 * i + 3) % base.vocab for i in range(TOKENS)])
    features = torch.tensor(Numbers(11).take(TOKENS, base.hidden))
    pairs = TOKENS - 1
    seen = torch.ones(pairs, pairs).tril().bool()
    predicted, aligned = head(base, w, tokens[1:], features[:-1], torch.arange(pairs), seen)

    # Position i drafts token i + 2, and its feature is that of token i + 1.
    targets = [4, 5, 6, 8]
    counted = [i for i in range(TOKENS - 2) if i + 2 in targets]
    true = features[[i + 1 for i in counted]]
    regression = F.smooth_l1_loss(aligned[counted], true, reduction="none").mean(-1).mean()
    want = base.logits(true).softmax(-1)
    entropy = -(want * base.logits(predicted[counted]).log_softmax(-1)).sum(-1).mean()
    loss = regression + 0.1 * entropy
    loss.backward()

    tree_tokens, parents = [1, 2, 3, 4, 5], [0, 0, 1, 1, 3]
    depth, visible = [], torch.zeros(9, 9).bool()
    visible[:4, :4] = seen[:4, :4]
    for i, parent in enumerate(parents):
        depth.append(1 + (depth[parent - 1] if parent else 0))
        visible[4 + i] = visible[3] if parent == 0 else visible[3 + parent]
        visible[4 + i, 4 + i] = True
    all_tokens = torch.cat([tokens[1:5], torch.tensor(tree_tokens)])
    all_features = torch.cat([features[:4], features[4:9]])
    positions = torch.tensor([0, 1, 2, 3] + [3 + d for d in depth])
    with torch.no_grad():
        of_tree = [part[4:] for part in head(base, w, all_tokens, all_features, positions, visible)]

    def places(count):
        return [0, count // 3, 2 * count // 3, count - 1]

    gradients = {}
    for tensor, value in w.items():
        flat = value.grad.flatten()
        gradients[tensor] = {"norm": float(flat.norm()), "at": [float(flat[i]) for i in places(len(flat))]}
    return {
        "base": name,
        "sampling": sampling,
        "alignment": alignment,
        "ffn": FFN,
        "tokens": tokens.tolist(),
        "predicted": rows(predicted.detach()[:, ::4]),
        "aligned": rows(aligned.detach()[:, ::4]),
        "logits": rows(base.logits(predicted.detach())[:, :10]),
        "tree": {
            "tokens": tree_tokens,
            "parents": parents,
            "predicted": rows(of_tree[0][:, ::4]),
            "aligned": rows(of_tree[1][:, ::4]),
        },
        "targets": targets,
        "regression": float(regression.detach()),
        "entropy": float(entropy.detach()),
        "loss": float(loss.detach()),
        "gradients": gradients,
    }


def main():
    ablations = [(True, True), (False, True), (True, False), (False, False)]
    cases = [case("mistral", *ablation) for ablation in ablations] + [case("gemma2", True, True)]
    ABOUT["rows"] = "every fourth value of a row is there"
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"about": ABOUT, "cases": cases}) + "\n")


main()
