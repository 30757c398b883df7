"""Answers a question with two models and prints the text as it is written.

    python examples/decode.py "Where does the bread come from?"

The models are the built-in pair, which knows a small closed world. For real ones:
`wsd.Strategy("wsd", base="./large.gguf", draft="./small.gguf")`.
"""

import sys

import wsd

question = sys.argv[1] if len(sys.argv) > 1 else "Where does the bread come from?"
strategy = wsd.Strategy("wsd", max_tokens=100)

stream = strategy.stream(question)
for token in stream:
    print(token.text, end="", flush=True)

answer = stream.answer
assert answer is not None
print(f"\n\n{answer.usage['draft_tokens']} tokens by the draft, {answer.usage['base_tokens']} by the base")
print(f"{answer.timings['total'] * 1000:.0f} ms, ended by {answer.finish_reason}")
