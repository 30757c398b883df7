"""lm-evaluation-harness over `wsd serve` beside `wsd eval`: the same model, items, prompts and metrics.

    NLTK_DATA=FOLDER venv/bin/python scripts/harness.py PROGRAM MODEL DATA OUT

needs `pip install "lm-eval[api,ifeval]"` and NLTK's punkt_tab, and starts PROGRAM on a free port with MODEL as base.
DATA has the folders `arc`, `gsm8k`, `ifeval`, `mmlu` and `truthfulqa`. Prompts, filters and metrics are those of the
harness's installed task files, which tasks in OUT include; only data and number of shots are replaced. The result is a
table of metrics, followed by the items whose verdicts differ. `--as-it-is` leaves the harness's remote tokenizer
without the beginning-of-text token; `--chat` gives each prompt as a message in the chat template of the model.
"""

import argparse
import contextlib
import csv
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

from servers import Client, free_port, start  # noqa: E402

HARNESS = Path(importlib.util.find_spec("lm_eval").origin).parent / "tasks"
LETTERS = "ABCD"
SUBJECT = "anatomy"
IFEVAL_TOKENS = 200
TRUTHFULQA_FILE = "truthfulqa/TruthfulQA.csv"
ACC, NORMALIZED = {"acc": "acc"}, {"acc": "acc", "acc_norm": "acc_norm"}
NUMBERS = {"strict": "exact_match,strict-match", "flexible": "exact_match,flexible-extract"}
RULES = {f"{level}_{mode}": f"{level}_level_{mode}_acc" for level in ("prompt", "inst") for mode in ("strict", "loose")}


@dataclass
class Bench:
    """A benchmark in both programs. `read` returns the rows of the harness and writes the file of `wsd eval`."""

    task: str
    file: str
    metrics: dict
    read: object
    source: str
    items: int
    shots: int = 0
    options: list = field(default_factory=list)
    changes: dict = field(default_factory=dict)


def spread(rows, limit):
    """Keeps `limit` rows, evenly spread over the file, as `wsd eval --limit` does."""
    count = len(rows)
    limit = min(limit, count)
    return [row for i, row in enumerate(rows) if (i + 1) * limit // count > i * limit // count]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_csv(path, rows, names=None):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(([names] if names else []) + rows)


def read_lines(path):
    return [json.loads(line) for line in path.open()]


def json_rows(data, bench, folder):
    """Rows that both programs read as they are."""
    rows = spread(read_lines(data / bench.file), bench.items)
    write_lines(folder / bench.source, rows)
    return {"test": rows}


def gsm8k_rows(data, bench, folder):
    shown = read_lines(data / "gsm8k/train.jsonl")[: bench.shots]
    write_lines(folder / "train.jsonl", shown)
    return json_rows(data, bench, folder) | ({"train": shown} if shown else {})


def arc_rows(data, bench, folder):
    """AllenAI's form for `wsd eval`, the hub's for the harness."""
    rows = json_rows(data, bench, folder)["test"]

    def hub(row):
        stem, choices = row["question"]["stem"], row["question"]["choices"]
        columns = {key: [choice[key] for choice in choices] for key in ("text", "label")}
        return {"question": stem, "choices": columns, "answerKey": row["answerKey"]}

    return {"test": [hub(row) for row in rows]}


def truthfulqa_rows(data, bench, folder):
    """TruthfulQA's CSV for `wsd eval`, the labelled answers of the hub for the harness."""
    with (data / bench.file).open(newline="") as file:
        table = list(csv.DictReader(file))
    rows = spread(table, bench.items)
    write_csv(folder / bench.source, [list(row.values()) for row in rows], list(table[0]))

    def targets(right, wrong):
        texts = [[part.strip() for part in text.split(";") if part.strip()] for text in (right, wrong)]
        full = [[text if text.endswith(".") else f"{text}." for text in part] for part in texts]
        return {"choices": full[0] + full[1], "labels": [1] * len(full[0]) + [0] * len(full[1])}

    hub = [
        {
            "question": row["Question"],
            "mc1_targets": targets(row["Best Answer"], row["Incorrect Answers"]),
            "mc2_targets": targets(row["Correct Answers"], row["Incorrect Answers"]),
        }
        for row in rows
    ]
    (folder / "questions_above.txt").write_text(questions_above())
    return {"test": hub}


def questions_above():
    """The questions above each question of TruthfulQA, from the harness's own task file."""
    import jinja2
    import yaml

    text = yaml.safe_load((HARNESS / "truthfulqa/truthfulqa_mc1.yaml").read_text())["doc_to_text"]
    return jinja2.Template(text).render(question="\0").rpartition("\n\nQ: \0")[0].strip()


def mmlu_rows(data, bench, folder):
    """Prompts with letters for `wsd eval`, questions with choices for the harness."""
    with (data / bench.file).open(newline="") as file:
        table = [mmlu_row(row) for row in csv.DictReader(file)]
    rows = spread(table, bench.items)
    if not bench.shots:
        lines = lambda row: "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, row["choices"]))
        prompts = [["", f"{row['question']}\n{lines(row)}", LETTERS[row["answer"]]] for row in rows]
        write_csv(folder / bench.source, prompts, ["system", "prompt", "answer"])
        return {"test": rows}
    shown = [row for row in table if row not in rows][: bench.shots]
    for name, part in ((bench.source, rows), ("dev.csv", shown)):
        write_csv(folder / name, [[row["question"], *row["choices"], LETTERS[row["answer"]]] for row in part])
    return {"test": rows, "dev": shown}


def mmlu_row(row):
    question, rest = row["prompt"].rsplit("\nA. ", 1)
    choices = []
    for letter in LETTERS[1:]:
        choice, rest = rest.split(f"\n{letter}. ", 1)
        choices.append(choice)
    return {"question": question.strip(), "choices": [*choices, rest], "answer": LETTERS.index(row["answer"].strip())}


def benches(chat):
    numbers = {"training_split": None, "fewshot_split": "train", "fewshot_config": {"sampler": "first_n"}}
    plain = {"training_split": None, "fewshot_split": None}
    greedy = {"until": [], "do_sample": False, "temperature": 0.0, "max_gen_toks": IFEVAL_TOKENS}
    ifeval = Bench("ifeval", "ifeval/input_data.jsonl", RULES, json_rows, "input_data.jsonl", 60)
    ifeval.changes = {"generation_kwargs": greedy}
    ifeval.options = ["--max-tokens", str(IFEVAL_TOKENS)]
    gsm8k = ("gsm8k/test.jsonl", NUMBERS, gsm8k_rows, "test.jsonl", 40)
    if chat:
        return {"ifeval": ifeval, "gsm8k": Bench("gsm8k_zero", *gsm8k, changes=plain)}
    truthfulqa = {"options": ["--examples", "{task}={folder}/questions_above.txt"]}
    arc = lambda name: (f"arc/{name}_test.jsonl", NORMALIZED, arc_rows, "questions.jsonl", 100)
    answers = (TRUTHFULQA_FILE, ACC, truthfulqa_rows, "TruthfulQA.csv", 20)
    above = ["--examples", "mmlu={folder}/dev.csv"]
    return {
        "arc_easy": Bench("arc_easy", *arc("arc_easy"), changes=plain),
        "arc_challenge": Bench("arc_challenge", *arc("arc_challenge"), changes=plain),
        "truthfulqa_mc1": Bench("truthfulqa_mc1", *answers, **truthfulqa),
        "truthfulqa_mc2": Bench("truthfulqa_mc2", *answers, **truthfulqa),
        "mmlu": Bench("mmlu", "mmlu/mmlu.csv", ACC, mmlu_rows, "mmlu.csv", 60, changes={"fewshot_split": None}),
        f"mmlu_{SUBJECT}": Bench("mmlu", "mmlu/mmlu.csv", ACC, mmlu_rows, f"{SUBJECT}_test.csv", 8, 5, above),
        "gsm8k": Bench("gsm8k", *gsm8k, shots=5, changes=numbers),
        "ifeval": ifeval,
    }


# Task files that are not named by their task.
FILES = {"mmlu": "mmlu/default/_default_template_yaml", f"mmlu_{SUBJECT}": f"mmlu/default/mmlu_{SUBJECT}.yaml"}


def harness_task(name, bench, rows, folder):
    """Writes the task of the harness: its own file with local data."""
    for split, part in rows.items():
        write_lines(folder / f"harness_{split}.jsonl", part)
    files = {split: str(folder / f"harness_{split}.jsonl") for split in rows}
    found = FILES.get(name) or next(HARNESS.glob(f"*/{name}.yaml")).relative_to(HARNESS)
    task = {"include": str(HARNESS / found), "task": f"local_{name}", "tag": None, "dataset_path": "json"}
    task |= {"dataset_name": None, "dataset_kwargs": {"data_files": files}, "num_fewshot": bench.shots}
    task |= {"validation_split": None, "test_split": "test"} | bench.changes
    (folder / "task.yaml").write_text(json.dumps(task, indent=1))


def with_special_tokens():
    """Makes the harness's remote tokenizer encode texts with the special tokens of the model, as its own class for
    transformers does for models that need them."""
    from lm_eval.utils import RemoteTokenizer

    def encode(self, text):
        reply = self._request_with_retries("POST", f"{self.base_url}/tokenize", json={"prompt": text})
        return reply.json()["tokens"]

    RemoteTokenizer.encode = encode


def run_harness(names, port, out, args):
    """Runs the tasks; returns metrics and samples by task."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    url = f"http://127.0.0.1:{port}/v1/"
    model = {"model": "base", "base_url": f"{url}completions", "tokenizer_backend": "remote", "max_length": 4096}
    if args.chat:
        model = {"model": "base", "base_url": f"{url}chat/completions"}
    elif not args.as_it_is:
        with_special_tokens()
    manager = TaskManager(include_path=str(out), include_defaults=False)
    kind = "local-chat-completions" if args.chat else "local-completions"
    tasks = [f"local_{name}" for name in names]
    options = {"task_manager": manager, "batch_size": 1, "apply_chat_template": args.chat, "bootstrap_iters": 0}
    found = lm_eval.simple_evaluate(model=kind, model_args=model, tasks=tasks, **options)
    for name, task in zip(names, tasks):
        (out / name / "harness_samples.json").write_text(json.dumps(found["samples"][task], default=str))
    return {
        name: (found["results"][task], sorted(found["samples"][task], key=lambda row: row["doc_id"]))
        for name, task in zip(names, tasks)
    }


def run_wsd(bench, folder, args):
    """Runs `wsd eval`; returns metrics, verdicts and samples."""
    run = folder / "run"
    command = [args.program, "eval", f"{bench.task}={folder / bench.source}", "--out", str(run), "--strategy", "base"]
    command += ["--base", args.model, "--threads", str(args.threads), "--offline", "--quiet"]
    command += ["--form", "chat", "--base-template", "own"] if args.chat else ["--form", "raw"]
    command += [option.format(task=bench.task, folder=folder) for option in bench.options]
    command += ["--shots", str(bench.shots)] if bench.shots else []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = [read_lines(run / part / bench.task / "base.jsonl") for part in ("verdicts", "samples")]
    return json.loads((run / "lm_eval/base.json").read_text())["results"][bench.task], *rows


def points(value):
    """The share of points of one item."""
    return sum(map(float, value)) / len(value) if isinstance(value, list) else float(value)


def compare(name, bench, harness, wsd):
    """Prints a row for each metric; returns lines about differing items."""
    (results, samples), (own_results, verdicts, own_samples) = harness, wsd
    lines = []
    for own, metric in bench.metrics.items():
        key, _, rule = metric.partition(",")
        full = f"{key},{rule or 'none'}"
        chosen = [row for row in samples if row.get("filter", "none") == (rule or "none")]
        if len(chosen) != len(verdicts):
            sys.exit(f"{name}: {len(chosen)} samples of the harness, {len(verdicts)} of wsd eval")
        pairs = [(points(row[key]), float(verdict["scores"][own])) for row, verdict in zip(chosen, verdicts)]
        differing = [i for i, (one, two) in enumerate(pairs) if abs(one - two) > 5e-4]
        one, two = 100 * results[full], 100 * own_results[full]
        print(f"| {name} | {own} | {len(pairs)} | {one:.2f} | {two:.2f} | {two - one:+.2f} | {len(differing)} |")
        lines += [f"{name}, {own}, {verdicts[i]['id']}: {pairs[i][0]:.4f} and {pairs[i][1]:.4f}" for i in differing]
    if own_samples[0].get("scores"):
        gaps = [
            abs(float(theirs[0]) - ours["logprob"])
            for row, own in zip(samples, own_samples)
            for theirs, ours in zip(row["filtered_resps"], own["scores"])
        ]
        lines.append(f"{name}: the log-likelihoods of {len(gaps)} choices differ by at most {max(gaps):.2e}")
    else:
        texts = [(row["resps"][0][0], own["output"]) for row, own in zip(chosen, own_samples)]
        ids = [own["id"] for (one, two), own in zip(texts, own_samples) if one != two]
        lines.append(f"{name}: {len(ids)} of {len(own_samples)} answers differ: {' '.join(ids)}")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", help="names, separated by commas [default: all]")
    parser.add_argument("--items", type=int, help="items of each task")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--as-it-is", action="store_true", help="no beginning-of-text token from the harness")
    parser.add_argument("--chat", action="store_true", help="prompts as messages in the model's chat template")
    args = parser.parse_args()
    out = args.out.resolve()
    os.environ["HF_HOME"] = str(out / "cache")
    chosen = benches(args.chat)
    chosen = {name: chosen[name] for name in args.tasks.split(",")} if args.tasks else chosen
    for name, bench in chosen.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        bench.items = args.items or bench.items
        harness_task(name, bench, bench.read(args.data.resolve(), bench, folder), folder)
    port = free_port()
    with contextlib.ExitStack() as stack:
        server = [args.program, "serve", "--offline", "--quiet", "--port", str(port), "--strategy", "base"]
        server += ["--base", args.model, "--threads", str(args.threads)]
        server += ["--base-template", "own"] * args.chat
        start(stack, server, port)
        harness = run_harness(list(chosen), port, out, args)
    wsd = {name: run_wsd(bench, out / name, args) for name, bench in chosen.items()}
    print("\n| task | metric | n | harness | wsd eval | difference | differing items |\n|---|---|---|---|---|---|---|")
    lines = [line for name, bench in chosen.items() for line in compare(name, bench, harness[name], wsd[name])]
    print("", *lines, sep="\n")


if __name__ == "__main__":
    main()
