"""Sixteen hostile clients beside a well-behaved one, against a `wsd serve` that this script starts on this machine.

    python3 scripts/hostile.py target/release/wsd [--minutes 2] [--clients 16] [--tries 200] [--attack NAME]
        [-- --base FILE ...]

Each client has a key of its own. Hostile ones send the most that is allowed: echoes with 20 alternatives for each
token, 16 answers at a time, long prompts, answers to the end of the context, large grammars, texts and bodies, and
they leave in the middle. The well-behaved one asks for four tokens over and over, first alone, then beside them.
Every client is a process. The bodies of hostile ones are made beforehand, and they have the lowest priority, so that
the load they put on this machine, from where they would not attack, is small.
Printed are the times of /health, of the well-behaved client and between its tokens, and the peak of memory above the
server at rest. Then it sends texts by one key and measures, with another, the time to the first token of known and of
new texts; Mann and Whitney's test, two-sided, tells whether they differ. Exit 1 where a limit is passed.
"""

import argparse
import collections
import contextlib
import json
import math
import multiprocessing
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import time

from servers import FAULTS, WORDS, Client, free_port, start

MOST_HEALTH_SECONDS = 0.05
MOST_RATIO = 3.0
MOST_BYTES = 1 << 30
LEAST_P = 0.1
ALONE_SECONDS = 20
TIMEOUT_SECONDS = 30
VARIANTS = 8
LOWEST_PRIORITY = 19
OWN = {"max_tokens": 4, "temperature": 0, "stream": True,
       "messages": [{"role": "user", "content": "Where do foxes live?"}]}


class Server:
    """A server in a process of its own, with a key for each client."""

    def __init__(self, stack, program, arguments, clients):
        keys = [f"client-{n}" for n in range(clients + 2)]
        self.file = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".keys"))
        self.file.write("\n".join(keys))
        self.file.flush()
        port = free_port()
        command = [program, "serve", "--offline", "--port", str(port), "--api-key-file", self.file.name]
        self.process = start(stack, command + arguments, port)
        self.clients = [Client(f"http://127.0.0.1:{port}", key, TIMEOUT_SECONDS) for key in keys]

    def tokens(self, text):
        return json.loads(self.clients[0].send("POST", "/tokenize", {"model": "base", "prompt": text})[1])["tokens"]

    def memory(self, field):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(rf"{field}:\s+(\d+) kB", status.read())[1]) << 10


def words(rng, count):
    return " ".join(rng.choices(WORDS, k=count))


def attacks(server, context):
    """The worst requests that are allowed: by name, functions of a random source that return a path and a body."""
    ids = server.tokens(words(random.Random(0), 2 * context))[: context - 1]
    per_token = 64 + 21 * 40
    repeats = max(1, min(8, (64 << 20) // (16 * per_token * len(ids))))
    schema = {"type": "object", "properties": {f"k{n}": {"type": "string", "pattern": "^(a|b){1,60}$"}
                                               for n in range(40)}}

    def completion(**fields):
        return "/v1/completions", {"max_tokens": 0, **fields}

    def chat(**fields):
        return "/v1/chat/completions", {"messages": [{"role": "user", "content": "Tell all"}], **fields}

    def shuffled(rng):
        start = rng.randrange(len(ids))
        return ids[start:] + ids[:start]

    return {
        "echoes": lambda rng: completion(prompt=[shuffled(rng) for _ in range(repeats)], n=16, echo=True, logprobs=20),
        "echo": lambda rng: completion(prompt=shuffled(rng), echo=True, logprobs=20, model="base"),
        "prompts": lambda rng: completion(prompt=shuffled(rng)[: len(ids) // 2], max_tokens=4096, logprobs=20,
                                          stream=True, n=16),
        "answers": lambda rng: chat(n=16, max_tokens=4096, logprobs=True, top_logprobs=20, stream=True,
                                    stop=["x" * 255 + str(n) for n in range(4)], seed=rng.randrange(1 << 30)),
        "leave": lambda rng: chat(n=16, max_tokens=4096, stream=True,
                                  logit_bias={str(n): -100 for n in range(1000)}),
        "schema": lambda rng: chat(max_tokens=512, response_format={"type": "json_schema",
                                                                    "json_schema": {"name": "s", "schema": schema}}),
        "tokenize": lambda rng: ("/tokenize", {"prompt": words(rng, 300_000)}),
        "embeddings": lambda rng: ("/v1/embeddings", {"input": [words(rng, context // 2)] * 64}),
        "brackets": lambda rng: ("/v1/chat/completions", "[" * 2_000_000),
        "message": lambda rng: ("/v1/chat/completions",
                                {"messages": [{"role": "user", "content": words(rng, 200_000)}]}),
    }


def bodies(requests):
    """Several bodies of each attack, as bytes: by name, lists of a path and a body."""
    rng = random.Random(1)
    made = {}
    for name, request in requests.items():
        paths = [request(rng) for _ in range(VARIANTS)]
        made[name] = [(path, (body if isinstance(body, str) else json.dumps(body)).encode()) for path, body in paths]
    return made


def attack(server, client, requests, end):
    """Sends attacks until a time; returns the number of replies of each status."""
    def leave(*_):
        raise TimeoutError

    os.nice(LOWEST_PRIORITY)
    # An answer to the end of a long context takes longer than the attack.
    signal.signal(signal.SIGALRM, leave)
    signal.setitimer(signal.ITIMER_REAL, max(end - time.time(), 0.001))
    rng, statuses = random.Random(client), collections.Counter()
    while time.time() < end:
        name = rng.choice(list(requests))
        path, body = rng.choice(requests[name])
        with contextlib.suppress(*FAULTS):
            status, _ = server.clients[client].send("POST", path, body, rng.randrange(4000) if name == "leave" else None)
            statuses[status] += 1
    return statuses


def answer(server, client):
    """Asks for an answer; returns the status and the seconds between its tokens."""
    with server.clients[client].response("POST", "/v1/chat/completions", OWN) as response:
        times = [time.perf_counter() for line in response if b'"content"' in line]
        return response.status, [later - earlier for earlier, later in zip(times, times[1:])]


def watch(send, end, pause):
    """Sends a request over and over until a time; returns the times in order, the replies, and the refusals. A request
    that fails counts as refused; one that takes too long counts with the time it took."""
    took, replies, refused = [], [], 0
    while time.time() < end:
        started = time.perf_counter()
        try:
            status, reply = send()
            replies.append(reply)
        except TimeoutError:
            status = 200
        except FAULTS:
            status = 0
        if status == 200:
            took.append(time.perf_counter() - started)
        else:
            refused += 1
        time.sleep(pause)
    return sorted(took), replies, refused


def spawn(function, *arguments):
    """Runs a function in a process of its own, by fork; returns a function that waits for its result."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=lambda: sender.send(function(*arguments)), daemon=True)
    process.start()
    # So that the receiver sees the end of a process that dies.
    sender.close()

    def result():
        value = receiver.recv()
        process.join()
        return value

    return result


def percentile(times, share):
    return times[min(len(times) - 1, int(share * len(times)))] if times else math.inf


def report(name, times):
    p50, p99, most = (1e3 * percentile(times, share) for share in (0.5, 0.99, 1))
    print(f"{name}: {len(times)}, p50 {p50:.1f} ms, p99 {p99:.1f} ms, at most {most:.1f} ms", flush=True)
    return percentile(times, 0.99)


def first_token(server, client, text):
    body = {"model": "base", "prompt": text, "max_tokens": 1, "temperature": 0}
    started = time.perf_counter()
    server.clients[client].send("POST", "/v1/completions", body)
    return time.perf_counter() - started


def mann_whitney(one, other):
    """The two-sided probability that samples of one distribution differ as much, by the normal approximation."""
    ranks = {value: rank for rank, value in enumerate(sorted(one + other), 1)}
    u = sum(ranks[value] for value in one) - len(one) * (len(one) + 1) / 2
    mean, variance = len(one) * len(other) / 2, len(one) * len(other) * (len(one) + len(other) + 1) / 12
    return math.erfc(abs(u - mean) / math.sqrt(2 * variance))


def compare_keys(server, tries):
    """Times to the first token of texts that another key has sent, and of new ones, in random order."""
    rng, known, new = random.Random(7), [], []
    for _ in range(tries):
        texts = [words(rng, 60), words(rng, 60)]
        first_token(server, 0, texts[0])
        for index in rng.sample([0, 1], 2):
            (new if index else known).append(first_token(server, 1, texts[index]))
    return known, new


def beside(server, args, requests):
    """The well-behaved client alone and beside the hostile ones; returns the limits that are passed."""
    own = lambda: answer(server, 1)
    health = lambda: server.clients[1].send("GET", "/health")
    [own() for _ in range(3)]
    gaps = lambda replies: sorted(gap for reply in replies for gap in reply)
    took, replies, _ = watch(own, time.time() + args.alone, 0.05)
    alone = report("answers alone", took), report("tokens alone", gaps(replies))
    rest = server.memory("VmRSS")
    end = time.time() + args.minutes * 60
    hostile = [spawn(attack, server, 2 if args.one_key else n + 2, requests, end) for n in range(args.clients)]
    healths, own_result = spawn(watch, health, end, 0.02), spawn(watch, own, end, 0.05)
    took, replies, refused = own_result()
    healths = healths()[0]
    peak = server.memory("VmHWM") - rest
    statuses = sum((result() for result in hostile), collections.Counter())
    both = report("answers beside", took), report("tokens beside", gaps(replies))
    report("/health", healths)
    ratios = [beside / alone for beside, alone in zip(both, alone)]
    print(f"p99 beside / alone: answers {ratios[0]:.2f}, tokens {ratios[1]:.2f}; refused beside: {refused}; "
          f"statuses of hostile clients: {dict(statuses)}")
    print(f"memory: {rest >> 20} MiB at rest, at most {peak >> 20} MiB above")
    passed = {
        "/health": percentile(healths, 1) > MOST_HEALTH_SECONDS,
        "well-behaved client": ratios[0] > MOST_RATIO or refused,
        "memory": peak > MOST_BYTES,
        "server errors": any(status >= 500 and status != 503 for status in statuses),
    }
    return [name for name, is_passed in passed.items() if is_passed]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--alone", type=float, default=ALONE_SECONDS, help="seconds of the well-behaved client alone")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--tries", type=int, default=200)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--attack", action="append", help="send this attack only; may be repeated")
    parser.add_argument("--one-key", action="store_true", help="hostile clients have one key together")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args = parser.parse_args(sys.argv[1:end])
    with contextlib.ExitStack() as stack:
        server = Server(stack, args.program, sys.argv[end + 1:], args.clients)
        requests = attacks(server, args.context)
        faults = beside(server, args, bodies({name: requests[name] for name in args.attack or requests}))
        if args.tries:
            known, new = compare_keys(server, args.tries)
            p = mann_whitney(known, new)
            print(f"two keys, {args.tries} tries: median {1e3 * statistics.median(known):.2f} ms for known texts, "
                  f"{1e3 * statistics.median(new):.2f} ms for new ones, p = {p:.3f}")
            faults += ["prefixes of another key"] if p < LEAST_P else []
    print("beyond the limits: " + ", ".join(faults) if faults else "all within the limits")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
