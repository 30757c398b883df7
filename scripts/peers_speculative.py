"""Speculation on one pair of models: `wsd` and llama.cpp's `llama-speculative-simple`, in turn, on the same prompts.

    python3 scripts/peers_speculative.py WSD LLAMA_SPECULATIVE_SIMPLE BASE DRAFT QUESTIONS.jsonl... \
        [--questions 2] [--tokens 128] [--threads 2]

QUESTIONS are files of EAGLE's speculative benchmark: each line has `turns`. The first questions of each file are put in
ChatML, which both programs read as raw text, greedy. Times are those of the answer after its first token; loading and
the prompt do not count. Printed are tokens/s by prompt, and each column's total relative to llama.cpp's better one.
"""

import argparse
import json
import re
import subprocess
import tempfile

SPEED = re.compile(r"decoded\s+(\d+) tokens in\s+([\d.]+) seconds")
LENGTHS = (3, 8)


def chatml(question):
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def questions(paths, count):
    for path in paths:
        with open(path) as lines:
            for _, line in zip(range(count), lines):
                yield json.loads(line)["turns"][0]


def by_wsd(args, strategy, prompts):
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/in.jsonl", "w") as rows:
            rows.writelines(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
        subprocess.run(
            [args.wsd, "generate", "--strategy", strategy, "--base", args.base, "--draft", args.draft, "--raw",
             "--input", f"{folder}/in.jsonl", "--output", f"{folder}/out.jsonl", "--parallel", "1", "-t", "0",
             "-n", str(args.tokens), "--repetition-penalty", "1", "--quiet"], check=True)
        with open(f"{folder}/out.jsonl") as rows:
            answers = [json.loads(row)["wsd"] for row in rows]
    return [(answer["usage"]["completion_tokens"] - 1, answer["timings"]["total"] - answer["timings"]["first_token"])
            for answer in answers]


def by_llama(args, length, prompts):
    for prompt in prompts:
        done = subprocess.run(
            [args.llama, "-m", args.base, "-md", args.draft, "-p", prompt, "-n", str(args.tokens), "--temp", "0",
             "-t", str(args.threads), "-c", "2048", "--spec-type", "draft-simple", "--spec-draft-n-max", str(length)],
            check=True, capture_output=True, text=True, errors="replace")
        tokens, seconds = SPEED.search(done.stdout + done.stderr).groups()
        yield int(tokens), float(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("wsd", "llama", "base", "draft"):
        parser.add_argument(name)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--questions", type=int, default=2, help="of each file")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    prompts = [chatml(question) for question in questions(args.files, args.questions)]
    columns = {f"llama.cpp, {length} proposed": list(by_llama(args, length, prompts)) for length in LENGTHS}
    peers = list(columns)
    columns |= {f"wsd: {strategy}": by_wsd(args, strategy, prompts) for strategy in ("base", "speculative", "wsd")}
    for name, answers in columns.items():
        print(f"{name}: " + " ".join(f"{tokens / seconds:.1f}" for tokens, seconds in answers) + " tokens/s")
    speeds = {name: sum(tokens for tokens, _ in answers) / sum(seconds for _, seconds in answers)
              for name, answers in columns.items()}
    best = max(speeds[name] for name in peers)
    for name, speed in speeds.items():
        print(f"{name}: {speed:.1f} tokens/s in all, {speed / best:.2f}x")


if __name__ == "__main__":
    main()
