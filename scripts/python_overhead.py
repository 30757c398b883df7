"""Time of an answer by the program and by Python, in turns.

    scripts/python.sh && cargo build -p wsd                               # or both with the profile release
    target/python/bin/python scripts/python_overhead.py MODEL.gguf target/debug/wsd [rounds]

Program and wheel must have the same build profile; `python.sh` writes that of the wheel into a file. Each answer has
256 tokens by the model alone. Prints the medians of the program, of `stream` and of `generate`, and their excess over
the program's: seconds from the request to the end, without loading.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time

import wsd

model, program = sys.argv[1:3]
FOLDERS = {"dev": "debug"}
noted = pathlib.Path(sys.prefix, "profile")
profile = noted.read_text().strip() if noted.exists() else "unknown"
if pathlib.Path(program).resolve().parent.name != FOLDERS.get(profile, profile):
    sys.exit(f"the wheel has the build profile {profile}, {program} another one: build both with the same")
rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 9
PROMPT = "Tell me a long story about a river."
SETTINGS = {"max_tokens": 256, "temperature": 1.0, "seed": 5, "prefix_cache_tokens": 0}


def by_program():
    options = [part for name, value in SETTINGS.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [program, "generate", PROMPT, "--json", "--strategy", "base", "--base", model, "--quiet", *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def by_stream(strategy):
    started = time.perf_counter()
    tokens = [(token.id, token.text) for token in strategy.stream(PROMPT)]
    return [token for token, _ in tokens], time.perf_counter() - started


def by_call(strategy):
    started = time.perf_counter()
    answer = strategy.generate(PROMPT)
    return [token.id for token in answer.tokens], time.perf_counter() - started


times = {"program": [], "stream": [], "generate": []}
for _ in range(rounds):
    record = by_program()
    expected = [token["id"] for token in record["tokens"]]
    times["program"].append(record["timings"]["total"])
    for name, answer in [("stream", by_stream), ("generate", by_call)]:
        # A process computes one thing at a time, and each answer begins without a cache.
        strategy = wsd.Strategy("base", base=model, **SETTINGS)
        tokens, seconds = answer(strategy)
        del strategy
        assert tokens == expected, "the answers differ"
        times[name].append(seconds)
medians = {name: statistics.median(seconds) for name, seconds in times.items()}
print(f"{len(expected)} tokens, {rounds} rounds")
for name, median in medians.items():
    print(f"{name:<8} median {median:.4f} s, best {min(times[name]):.4f} s, {median / medians['program'] - 1:+.2%}")
