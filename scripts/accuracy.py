#!/usr/bin/env python3
"""Errors of log-probabilities in quantized arithmetic, in `wsd` and in llama.cpp, on the same GGUF files and text.

    python3 scripts/accuracy.py WSD LLAMA_PERPLEXITY TEXT MODEL.gguf... [--chunks 80] [--threads 2]

Both programs read chunks of 256 tokens and give the log-probability of each token of the second half: 127 tokens a
chunk. What they are compared with is `wsd --dtype f32`, which computes with the values that the file's blocks stand for,
in float32. Printed are, for each file, the mean and the root mean square of the differences in nats, and the mean
log-probability of all three. llama.cpp writes differences from the likeliest token in 16 bits, so that 0.0001 of its
error comes from that, and limits them to 16: tokens beyond are left out. Needs NumPy.
"""

import argparse
import contextlib
import json
import pathlib
import subprocess
import tempfile

import numpy
from servers import Client, free_port, start

LENGTH = 256


def by_llama(args, model, folder):
    """Returns tokens `(chunks, LENGTH)` and log-probabilities `(chunks, LENGTH / 2 - 1)`, NaN beyond the limit."""
    file = pathlib.Path(folder, "logits")
    subprocess.run([args.llama, "-m", model, "-f", args.text, "-c", str(LENGTH), "-b", str(LENGTH), "-t", str(args.threads),
                    "--chunks", str(args.chunks), "--kl-divergence-base", str(file)], check=True, capture_output=True)
    _, vocabulary, chunks = numpy.fromfile(file, numpy.int32, 3, offset=8)
    tokens = numpy.fromfile(file, numpy.int32, chunks * LENGTH, offset=20).reshape(chunks, LENGTH)
    width, rows = 2 * ((vocabulary + 1) // 2) + 4, LENGTH // 2 - 1
    packed = numpy.memmap(file, numpy.uint16, "r", 20 + tokens.nbytes, (chunks, rows, width))
    scale, least = numpy.moveaxis(packed[:, :, :4].copy().view(numpy.float32), 2, 0)
    levels = numpy.take_along_axis(packed, 4 + tokens[:, LENGTH // 2 + 1:, None], 2)[:, :, 0].astype(numpy.float64)
    file.unlink()
    return tokens, numpy.where(levels == 0, numpy.nan, scale * levels + least)


def by_wsd(args, model, tokens, *options):
    """Returns log-probabilities of the same tokens."""
    port = free_port()
    command = [args.wsd, "serve", "--base", model, "--strategy", "base", "--port", str(port), "--threads", str(args.threads)]
    with contextlib.ExitStack() as stack:
        start(stack, [*command, *options], port)
        client = Client(f"http://127.0.0.1:{port}")

        def ask(path, body):
            status, reply = client.send("POST", path, body)
            assert status == 200, reply
            return json.loads(reply)

        text = pathlib.Path(args.text).read_text()[:200]
        plain = ask("/tokenize", {"content": text, "add_special": False})["tokens"]
        chunks = tokens.copy()
        if plain[0] != tokens[0, 0]:  # a token for the beginning of the text, which llama.cpp puts before each chunk
            chunks[:, 0] = tokens[0, 0]
        body = {"max_tokens": 0, "echo": True, "logprobs": 0}
        replies = [ask("/v1/completions", body | {"prompt": chunk.tolist()}) for chunk in chunks]
    scores = [reply["choices"][0]["logprobs"]["token_logprobs"] for reply in replies]
    return numpy.array(scores, float)[:, LENGTH // 2 + 1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("wsd", "llama", "text"):
        parser.add_argument(name)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--chunks", type=int, default=80)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    print("| file | tokens | mean: wsd | llama.cpp | root mean square: wsd | llama.cpp | log-probability: f32, wsd, llama.cpp |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for model in args.models:
        with tempfile.TemporaryDirectory() as folder:
            tokens, llama = by_llama(args, model, folder)
        exact = by_wsd(args, model, tokens, "--dtype", "f32")
        results = [by_wsd(args, model, tokens), llama]
        kept = ~numpy.isnan(llama)
        errors = [result[kept] - exact[kept] for result in results]
        means = [f"{numpy.abs(error).mean():.5f}" for error in errors]
        roots = [f"{numpy.sqrt((error**2).mean()):.5f}" for error in errors]
        levels = ", ".join(f"{result[kept].mean():.4f}" for result in [exact, *results])
        print(f"| {pathlib.Path(model).name} | {kept.sum()} | {' | '.join(means + roots)} | {levels} |", flush=True)


main()
