#!/usr/bin/env python3
"""Makes crates/core/tests/goldens/ram.json: distributions of the residual alignment model's warper.

    python3 scripts/ram_goldens.py

An independent writing, in float64, of the definitions in `docs/strategies.md`: the aligner within the
base's nucleus (mask), the product of both distributions, the gate on KL(base || aligner), and the limit of
sampling with n candidates, by enumeration over all n-tuples. It needs NumPy and nothing else.
"""

import itertools
import json
from pathlib import Path

import numpy as np

VOCABULARY = 6
OUT = Path(__file__).resolve().parent.parent / "crates/core/tests/goldens/ram.json"


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum()


def nucleus(p, top_k, top_p):
    """The tokens kept: the top_k most likely ones, and of these the fewest that hold top_p."""
    order = sorted(range(len(p)), key=lambda i: (-p[i], i))
    order = order[:top_k] if top_k else order
    q = p[order] / p[order].sum()
    kept = [i for i, before in zip(order, np.concatenate([[0.0], np.cumsum(q)[:-1]])) if before < top_p]
    return sorted(kept)


def restricted(p, kept):
    q = np.zeros_like(p)
    q[kept] = p[kept]
    return q / q.sum()


def with_candidates(proposal, weights, count):
    """The distribution of a candidate drawn by weight from `count` independent proposals."""
    out = np.zeros_like(proposal)
    for drawn in itertools.product(range(len(proposal)), repeat=count):
        drawn = list(drawn)
        chance = np.prod(proposal[drawn])
        if chance > 0.0:
            np.add.at(out, drawn, chance * weights[drawn] / weights[drawn].sum())
    return out


def case(rng, number):
    spread = rng.uniform(0.2, 3.0)
    base, aligner = rng.normal(0, spread, VOCABULARY), rng.normal(0, spread, VOCABULARY)
    if number % 5 == 0:
        aligner = base + rng.normal(0, 0.1, VOCABULARY)
    base, aligner = base.astype(np.float32).astype(np.float64), aligner.astype(np.float32).astype(np.float64)
    temperatures = [float(rng.choice([0.3, 0.5, 0.7, 1.0])) for _ in range(2)]
    top_p, top_k = float(rng.choice([0.5, 0.8, 0.95, 1.0])), int(rng.choice([0, 2, 4]))
    gate = 0.1
    b, a = softmax(base), softmax(aligner)
    divergence = float(np.sum(b * (np.log(b) - np.log(a))))
    tempered_base, tempered_aligner = softmax(base / temperatures[0]), softmax(aligner / temperatures[1])
    kept = nucleus(tempered_base, top_k, top_p)
    mask = restricted(tempered_aligner, kept)
    product = tempered_base * tempered_aligner
    return {
        "base": base.tolist(),
        "aligner": aligner.tolist(),
        "base_temperature": temperatures[0],
        "aligner_temperature": temperatures[1],
        "base_top_p": top_p,
        "base_top_k": top_k,
        "kl_gate": gate,
        "divergence": divergence,
        "mask": mask.tolist(),
        "gated": (mask if divergence <= gate else b).tolist(),
        "product": (product / product.sum()).tolist(),
        "candidates": {
            str(n): with_candidates(restricted(tempered_base, kept), tempered_aligner, n).tolist() for n in (1, 2, 3)
        },
    }


def main():
    rng = np.random.default_rng(19)
    OUT.write_text(json.dumps([case(rng, number) for number in range(20)], indent=1) + "\n")


if __name__ == "__main__":
    main()
