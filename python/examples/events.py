"""Prints every event of an answer: calls of the models, each token with its author and the base's
confidence, and the hand-over.

    python examples/events.py
"""

import math

import wsd

# Short chunks, and no proposals of the draft after the hand-over, make the events easy to follow.
strategy = wsd.Strategy("wsd", chunk_tokens=4, speculate="off")

print("author   p      confidence  text")
for event in strategy.events("Where does the bread come from?", max_tokens=32):
    if isinstance(event, wsd.Token):
        p = "" if event.logprob is None else f"{math.exp(event.logprob):.3f}"
        confidence = "" if event.confidence is None else f"{event.confidence:.3f}"
        print(f"{event.author:<6}   {p:<5}  {confidence:<10}  {event.text!r}")
    elif isinstance(event, wsd.Handover):
        print(f"         the base takes over after token {event.at}: {event.confidence:.3f} >= {event.threshold}")
    elif isinstance(event, wsd.Call):
        print(f"         {event.kind}: {event.tokens} tokens by the {event.to}, {event.seconds * 1000:.1f} ms")
    else:
        print(f"         {event}")
