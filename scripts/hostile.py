"""Sixteen hostile clients beside a well-behaved one, against a `wsd serve` that this script starts on this machine.

    python3 scripts/hostile.py target/release/wsd [--minutes 2] [--clients 16] [--tries 200] [-- --base FILE ...]

Each client has a key of its own. Hostile ones send the most that is allowed: echoes with 20 alternatives for each
token, 16 answers at a time, long prompts, answers to the end of the context, large grammars, texts and bodies, and
they leave in the middle. The well-behaved one asks for four tokens over and over, first alone, then beside them.
Printed are the times of /health and of the well-behaved client, and the peak of memory above the server at rest.
Then it sends texts by one key and measures, with another, the time to the first token of known and of new texts;
Mann and Whitney's test, two-sided, tells whether they differ. Exit 1 where a limit is passed.
"""

import argparse
import contextlib
import http.client
import json
import math
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

MOST_HEALTH_SECONDS = 0.05
MOST_RATIO = 3.0
MOST_BYTES = 1 << 30
LEAST_P = 0.1
ALONE_SECONDS = 20
JOIN_SECONDS = 30
TIMEOUT_SECONDS = 30
WORDS = "the bread comes from a mill and foxes live in woods by rivers where ducks and bears eat berries".split()
OWN = {"max_tokens": 4, "temperature": 0, "messages": [{"role": "user", "content": "Where do foxes live?"}]}


class Server:
    """A server in a process of its own, with a key for each client."""

    def __init__(self, program, arguments, clients):
        self.keys = [f"client-{n}" for n in range(clients + 2)]
        self.file = tempfile.NamedTemporaryFile("w", suffix=".keys")
        self.file.write("\n".join(self.keys))
        self.file.flush()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [program, "serve", "--offline", "--port", str(self.port), "--api-key-file", self.file.name]
        self.process = subprocess.Popen(command + arguments)
        while not self.is_ready():
            if self.process.poll() is not None:
                sys.exit(f"the server ended with status {self.process.returncode}")
            time.sleep(0.2)

    def is_ready(self):
        try:
            return self.send(0, "GET", "/ready")[0] == 200
        except OSError:
            return False

    def send(self, client, method, path, body=None, leave_after=None):
        """Sends a request with a client's key; returns the status and the first bytes of the reply, or all."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        with contextlib.closing(connection):
            body = json.dumps(body) if isinstance(body, dict) else body
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.keys[client]}"}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read(leave_after)

    def tokens(self, text):
        return json.loads(self.send(0, "POST", "/tokenize", {"model": "base", "prompt": text})[1])["tokens"]

    def memory(self, field):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(rf"{field}:\s+(\d+) kB", status.read())[1]) << 10


def words(rng, count):
    return " ".join(rng.choices(WORDS, k=count))


def attacks(server, context):
    """The worst requests that are allowed: functions of a random source that return a request to send."""
    ids = server.tokens(words(random.Random(0), 2 * context))[: context - 1]
    per_token = 64 + 21 * 40
    repeats = max(1, min(8, (64 << 20) // (16 * per_token * len(ids))))
    schema = {"type": "object", "properties": {f"k{n}": {"type": "string", "pattern": "^(a|b){1,60}$"}
                                               for n in range(40)}}

    def completion(**fields):
        return "/v1/completions", {"max_tokens": 0, **fields}, None

    def chat(leave_after=None, **fields):
        return "/v1/chat/completions", {"messages": [{"role": "user", "content": "Tell all"}], **fields}, leave_after

    def shuffled(rng):
        start = rng.randrange(len(ids))
        return ids[start:] + ids[:start]

    return [
        lambda rng: completion(prompt=[shuffled(rng) for _ in range(repeats)], n=16, echo=True, logprobs=20),
        lambda rng: completion(prompt=shuffled(rng), echo=True, logprobs=20, model="base"),
        lambda rng: completion(prompt=shuffled(rng)[: len(ids) // 2], max_tokens=4096, logprobs=20, stream=True, n=16),
        lambda rng: chat(n=16, max_tokens=4096, logprobs=True, top_logprobs=20, stream=True,
                         stop=["x" * 255 + str(n) for n in range(4)], seed=rng.randrange(1 << 30)),
        lambda rng: chat(leave_after=rng.randrange(4000), n=16, max_tokens=4096, stream=True,
                         logit_bias={str(n): -100 for n in range(1000)}),
        lambda rng: chat(max_tokens=512, response_format={"type": "json_schema",
                                                          "json_schema": {"name": "s", "schema": schema}}),
        lambda rng: ("/tokenize", {"prompt": words(rng, 300_000)}, None),
        lambda rng: ("/v1/embeddings", {"input": [words(rng, context // 2)] * 64}, None),
        lambda rng: ("/v1/chat/completions", "[" * 2_000_000, None),
        lambda rng: ("/v1/chat/completions", {"messages": [{"role": "user", "content": words(rng, 200_000)}]}, None),
    ]


def attack(server, client, requests, stop, statuses):
    rng = random.Random(client)
    while not stop.is_set():
        path, body, leave_after = rng.choice(requests)(rng)
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, _ = server.send(client, "POST", path, body, leave_after)
            statuses[status] = statuses.get(status, 0) + 1


def timed(send):
    """Sends a request; returns the time and the status, 0 where the connection fails. One that takes too long counts
    as answered, with the time it took."""
    started = time.perf_counter()
    try:
        status, _ = send()
    except TimeoutError:
        status = 200
    except (OSError, http.client.HTTPException):
        status = 0
    return time.perf_counter() - started, status


def watch(send, seconds, pause):
    """Sends a request over and over; returns the times, and the number of refusals."""
    end, samples = time.time() + seconds, []
    while time.time() < end:
        samples.append(timed(send))
        time.sleep(pause)
    return sorted(took for took, status in samples if status == 200), sum(status != 200 for _, status in samples)


def percentile(times, share):
    return times[min(len(times) - 1, int(share * len(times)))] if times else math.inf


def first_token(server, client, text):
    body = {"model": "base", "prompt": text, "max_tokens": 1, "temperature": 0}
    return timed(lambda: server.send(client, "POST", "/v1/completions", body))[0]


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--tries", type=int, default=200)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--one-key", action="store_true", help="hostile clients have one key together")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args = parser.parse_args(sys.argv[1:end])
    server = Server(args.program, sys.argv[end + 1:], args.clients)
    faults = []
    try:
        own = lambda: server.send(1, "POST", "/v1/chat/completions", OWN)
        health = lambda: server.send(1, "GET", "/health")
        [own() for _ in range(3)]
        alone, refused_alone = watch(own, ALONE_SECONDS, 0.05)
        rest = server.memory("VmRSS")
        stop, statuses, requests = threading.Event(), {}, attacks(server, args.context)
        key = (lambda n: 2) if args.one_key else (lambda n: n + 2)
        hostile = [threading.Thread(target=attack, args=(server, key(n), requests, stop, statuses), daemon=True)
                   for n in range(args.clients)]
        results = {}
        seconds = args.minutes * 60
        watched = [threading.Thread(target=lambda: results.update(health=watch(health, seconds, 0.02))),
                   threading.Thread(target=lambda: results.update(beside=watch(own, seconds, 0.05)))]
        [thread.start() for thread in hostile + watched]
        [thread.join() for thread in watched]
        stop.set()
        peak = server.memory("VmHWM") - rest
        (healths, unhealthy), (beside, refused) = results["health"], results["beside"]
        ratio = percentile(beside, 0.99) / percentile(alone, 0.99)
        for name, times in (("alone", alone), ("beside", beside), ("/health", healths)):
            print(f"{name}: {len(times)} answers, p50 {1e3 * percentile(times, 0.5):.1f} ms, p99 "
                  f"{1e3 * percentile(times, 0.99):.1f} ms, at most {1e3 * percentile(times, 1):.1f} ms")
        print(f"p99 beside / alone: {ratio:.2f}; refused beside: {refused}; statuses of hostile clients: {statuses}")
        print(f"memory: {rest >> 20} MiB at rest, at most {peak >> 20} MiB above")
        faults += ["/health"] if percentile(healths, 1) > MOST_HEALTH_SECONDS or unhealthy else []
        faults += ["well-behaved client"] if ratio > MOST_RATIO or refused or refused_alone else []
        faults += ["memory"] if peak > MOST_BYTES else []
        faults += ["server errors"] if any(status >= 500 and status != 503 for status in statuses) else []
        end = time.time() + JOIN_SECONDS
        [thread.join(max(0, end - time.time())) for thread in hostile]
        if args.tries:
            known, new = compare_keys(server, args.tries)
            p = mann_whitney(known, new)
            print(f"two keys, {args.tries} tries: median {1e3 * statistics.median(known):.2f} ms for known texts, "
                  f"{1e3 * statistics.median(new):.2f} ms for new ones, p = {p:.3f}")
            faults += ["prefixes of another key"] if p < LEAST_P else []
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait()
    print("beyond the limits: " + ", ".join(faults) if faults else "all within the limits")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
