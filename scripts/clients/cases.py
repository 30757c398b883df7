"""Cases against a running `wsd serve`: a script declares them with `@case` and ends with `run(title)`.

The server's address is the script's first argument.
"""

import os
import sys
import time

SERVER = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
QUESTION = "What colour is a fox?"
FOX = [{"role": "user", "content": QUESTION}]
CASES = []

# Clients of other services look for keys here, and for proxies.
for name in ["OPENAI_API_KEY", "ANTHROPIC_API_KEY"]:
    os.environ.setdefault(name, "none")


def case(function):
    CASES.append(function)
    return function


def refused(kind, words, call, **more):
    """Checks that a call fails with an error of this kind that has these words."""
    try:
        call(**more)
    except kind as error:
        assert words in str(error), error
        return error
    raise AssertionError(f"not refused: {more}")


def run(title):
    """Runs all cases, tells each, and ends the program."""
    failed = 0
    for run_case in CASES:
        started = time.time()
        try:
            run_case()
        except Exception as error:
            failed += 1
            print(f"FAILED {run_case.__name__}: {type(error).__name__}: {error}")
        else:
            print(f"ok     {run_case.__name__} ({time.time() - started:.2f} s)")
    print(f"{title}: {len(CASES) - failed} of {len(CASES)} cases passed")
    sys.exit(failed > 0)
