#!/usr/bin/env python3
"""Tokens per second of a server of OpenAI's protocol under load: that of wsd or another, with equal requests.

    scripts/peers_serve.py http://127.0.0.1:8080 [--concurrency 1 2 4 8 16] [--requests 32] [--tokens 64] [--shared 0]

Each request continues greedily a distinct prompt of some hundred words. All prompts share a prefix of
--shared sentences. Prints a line of JSON for each number of clients.
"""

import argparse
import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor


def prompt(index: int, shared: int) -> str:
    rules = "".join(f"Rule {rule}: be polite to everyone.\n" for rule in range(shared))
    return rules + " ".join(f"{index * 31 + word * 7} is a number," for word in range(20))


def base_model(server: str) -> str:
    """wsd's base by itself, or what the other server has."""
    with urllib.request.urlopen(f"{server}/v1/models", timeout=60) as reply:
        names = [model["id"] for model in json.load(reply)["data"]]
    return "base" if "base" in names else names[0]


def ask(server: str, model: str, text: str, tokens: int) -> tuple[int, int]:
    """Tokens of the prompt and of the answer."""
    body = {"model": model, "prompt": text, "max_tokens": tokens, "temperature": 0}
    request = urllib.request.Request(
        f"{server}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as reply:
        usage = json.load(reply)["usage"]
        return usage["prompt_tokens"], usage["completion_tokens"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--shared", type=int, default=0)
    arguments = parser.parse_args()
    model, asked = base_model(arguments.server), 0
    for clients in arguments.concurrency:
        # No prompt is asked twice: a server's cache is not what is measured.
        indices = range(asked, asked + max(clients, arguments.requests * clients // 16))
        asked = indices.stop
        started = time.monotonic()
        with ThreadPoolExecutor(clients) as pool:
            texts = [prompt(index, arguments.shared) for index in indices]
            answers = list(pool.map(lambda text: ask(arguments.server, model, text, arguments.tokens), texts))
        seconds = time.monotonic() - started
        read, written = (sum(counts) for counts in zip(*answers))
        line = {"concurrency": clients, "requests": len(indices), "prompt_tokens": read, "tokens": written}
        line["tokens_per_second"] = round(written / seconds, 2)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
