"""Scores two answers to a question with the base: the log-probability of each, its least likely
tokens, and the position at which the base would take over.

    python examples/score.py
"""

import numpy

import wsd

QUESTION = "Where does the duck live?"
ANSWERS = [
    "Thank you for asking me about the duck. The home of the duck is the river.",
    "Thank you for asking me about the duck. The home of the duck is the kitchen.",
]

base = wsd.Engine("builtin:base")
totals = []
for answer in ANSWERS:
    score = base.score(QUESTION, answer)
    totals.append(score.total)
    print(f"{answer}\n  ln p {score.total:.2f} over {len(score.ids)} tokens, perplexity {score.perplexity:.2f}")
    for index in numpy.argsort(score.logprobs)[:3]:
        print(f"  p {numpy.exp(score.logprobs[index]):.5f} {base.detokenize(score.ids[index : index + 1])!r}")
    print(f"  the base takes over after token {score.handover.at}" if score.handover else "  no hand-over")
assert totals[0] > totals[1], "ducks live on the river"
