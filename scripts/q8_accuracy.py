#!/usr/bin/env python3
"""Error of log-probabilities with Q8_0, in wsd and in llama.cpp: q8_accuracy.py WSD LLAMA_SERVER MODEL ROWS.jsonl [COUNT]

MODEL is a folder with float weights; it is written as Q8_0 by `wsd train export`, and both programs read that file. ROWS are conversations
(`messages`), whose last answer is scored. Prints the mean, the root mean square and the largest difference from the log-probabilities
in float32, in nats, over all scored tokens.
"""

import json
import math
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request


def scores(wsd, base, row, *more):
    prompt, answer = row["messages"][-2]["content"], row["messages"][-1]["content"]
    command = [wsd, "score", "--json", "--base", str(base), "--prompt", prompt, "--response", answer, *more]
    tokens = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["tokens"]
    return [(token["id"], token["logprob"]) for token in tokens]


def start(server, file):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = ["-c", "1024", "-np", "1", "-t", "2", "-fa", "off", "-ctk", "f32", "-ctv", "f32"]
    command = [server, "-m", str(file), "--host", "127.0.0.1", "--port", str(port), *flags]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(120):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
            return process, f"llama-server+http://127.0.0.1:{port}"
        except OSError:
            time.sleep(0.5)
    process.kill()
    sys.exit("llama-server did not start")


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    wsd, server, model, rows = sys.argv[1:5]
    count = int(sys.argv[5]) if len(sys.argv) > 5 else 20
    with open(rows, encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(count))]
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "model.q8_0.gguf")
        export = [wsd, "train", "export", "--model", model, "--output", str(file), "--dtype", "q8_0"]
        subprocess.run(export, check=True, capture_output=True)
        process, address = start(server, file)
        try:
            far = {"wsd": [], "llama.cpp": []}
            for row in rows:
                exact = scores(wsd, model, row, "--dtype", "f32")
                for name, base, more in [("wsd", file, []), ("llama.cpp", address, ["--teacher-forcing"])]:
                    rounded = scores(wsd, base, row, *more)
                    assert [token for token, _ in exact] == [token for token, _ in rounded], "other tokens"
                    far[name] += [abs(a - b) for (_, a), (_, b) in zip(exact, rounded)]
        finally:
            process.terminate()
            process.wait()
    for name, far in far.items():
        root = math.sqrt(sum(one * one for one in far) / len(far))
        print(f"{name:10} mean {sum(far) / len(far):.5f}  root mean square {root:.5f}  most {max(far):.5f}  of {len(far)} tokens")


main()
