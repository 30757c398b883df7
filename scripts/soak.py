"""Mixed traffic for a long time against a running `wsd serve`, and the slope of its memory.

    python3 scripts/soak.py --url http://127.0.0.1:8080 --minutes 60 [--threads 8] [--key KEY]
    python3 scripts/soak.py --remote target/release/wsd --faults 0.05 --minutes 60

The second form starts two servers of the built-in pair and asks the one whose draft is the other, behind
scripts/faulty_proxy.py: of the requests between them, that share is reset, refused, late, slow or cut off. Where the
attempts at a question are used up, 502 and 503 are right, and only other failures count.

Chats and completions, streamed and whole, echoes with log-probabilities, cut streams and refused bodies. Every few
seconds it reads /metrics. At the end it prints, for memory, descriptors and slots, the slope of the second half by
least squares, and the values after a minute of rest. Exit 1 where memory grows by more than 1 MiB a minute, where
descriptors or slots are not given back, or at any 5xx.
"""

import argparse
import collections
import contextlib
import pathlib
import random
import sys
import threading
import time

from servers import FAULTS, WORDS, Client, free_port, start

WATCHED = {"memory": "process_resident_memory_bytes", "descriptors": "process_open_fds", "slots": "wsd_engine_slots"}
MOST_BYTES_A_MINUTE = 1 << 20
SAMPLE_SECONDS = 5
REST_SECONDS = 60
ROOT = pathlib.Path(__file__).resolve().parent.parent


def request(rng):
    """A random request: its path, its body, and the bytes after which the client leaves."""
    text = " ".join(rng.choices(WORDS, k=rng.choice([3, 20, 150])))
    body = {"max_tokens": rng.choice([1, 8, 40]), "temperature": rng.choice([0, 1]), "seed": rng.randrange(1 << 30)}
    body["model"] = rng.choice(["wsd", "base", "draft"])
    kind = rng.randrange(6)
    if kind == 0:
        return "/v1/completions", {**body, "prompt": text, "echo": True, "logprobs": 5}, None
    if kind == 1:
        return "/v1/chat/completions", {"messages": 7}, None
    if kind == 2:
        return "/tokenize", {"prompt": text}, None
    if kind == 3:
        return "/v1/completions", {**body, "prompt": text, "stream": True, "n": 2}, None
    chat = {**body, "messages": [{"role": "user", "content": text}], "stream": kind == 5}
    return "/v1/chat/completions", chat, 300 if kind == 5 and rng.random() < 0.5 else None


def traffic(client, stop, seed, right, failures, statuses):
    """Sends requests until it is stopped. Statuses from 500 that are not `right` are failures."""
    rng = random.Random(seed)
    while not stop.is_set():
        path, body, leave_after = request(rng)
        try:
            status, reply = client.send("POST", path, body, leave_after)
            statuses[status] += 1
            if status >= 500 and status not in right:
                failures.append(f"{status} {path}: {reply[:200]}")
        except FAULTS as error:
            failures.append(f"{path}: {error!r}")


def start_remote(stack, program, rate):
    """Starts a server whose draft is another server behind a proxy with faults; returns its address."""
    ports = [free_port() for _ in range(3)]
    serve = [program, "serve", "--offline", "--quiet", "--port"]
    start(stack, serve + [str(ports[0]), "--max-concurrent", "64", "--max-queue", "64"], ports[0])
    proxy = [sys.executable, str(ROOT / "scripts/faulty_proxy.py"), "--to", f"127.0.0.1:{ports[0]}"]
    start(stack, proxy + ["--port", str(ports[1]), "--rate", str(rate)], ports[1])
    draft = ["--draft", f"openai+http://127.0.0.1:{ports[1]}/v1/draft", "--draft-tokenizer", str(ROOT / "models/pilot")]
    start(stack, serve + [str(ports[2]), *draft, "--base", str(ROOT / "models/base")], ports[2])
    return f"http://127.0.0.1:{ports[2]}"


def sample(client):
    _, text = client.send("GET", "/metrics")
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: sum(float(value) for key, value in lines if key.split("{")[0] == metric)
            for name, metric in WATCHED.items()}


def slope(points):
    """The slope of (minute, value) points by least squares."""
    times, values = [t for t, _ in points], [v for _, v in points]
    mean_t, mean_v = sum(times) / len(times), sum(values) / len(values)
    spread = sum((t - mean_t) ** 2 for t in times)
    return sum((t - mean_t) * (v - mean_v) for t, v in points) / spread if spread else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--key")
    parser.add_argument("--remote", metavar="PROGRAM", help="start servers of this program, one remote to the other")
    parser.add_argument("--faults", type=float, default=0.05, help="the share of requests to the remote with a fault")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = start_remote(stack, args.remote, args.faults) if args.remote else args.url
        failed = soak(Client(url, args.key), args)
    sys.exit(failed)


def soak(client, args):
    """Sends traffic and prints what it does to the server; returns true where something is wrong."""
    stop, failures, statuses = threading.Event(), [], collections.Counter()
    right = {502, 503} if args.remote else set()
    before = sample(client)
    workers = [threading.Thread(target=traffic, args=(client, stop, seed, right, failures, statuses))
               for seed in range(args.threads)]
    [worker.start() for worker in workers]
    started, points = time.time(), []
    while time.time() - started < args.minutes * 60:
        time.sleep(SAMPLE_SECONDS)
        points.append(((time.time() - started) / 60, sample(client)))
    stop.set()
    [worker.join() for worker in workers]
    time.sleep(min(REST_SECONDS, args.minutes * 60))
    after = sample(client)
    second_half = points[len(points) // 2:]
    for name in WATCHED:
        grows = slope([(minute, values[name]) for minute, values in second_half])
        print(f"{name}: {before[name]:.0f} before, {second_half[-1][1][name]:.0f} at the end, "
              f"{after[name]:.0f} at rest, {grows:+.1f} a minute in the second half")
    print("replies by status:", dict(statuses))
    [print("failure:", failure) for failure in failures[:5]]
    memory = slope([(minute, values["memory"]) for minute, values in second_half])
    lost = after["slots"] > 0 or after["descriptors"] > before["descriptors"] + 2
    return bool(failures or lost or memory > MOST_BYTES_A_MINUTE)


if __name__ == "__main__":
    main()
