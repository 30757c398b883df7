#!/usr/bin/env python3
"""Write the tables of docs/performance.md from the output of runs/peers.sh.

    python scripts/peers_table.py RESULTS.jsonl docs/performance.md

Each table is between `<!-- NAME -->` and `<!-- /NAME -->`. Ratios are medians of the ratios within a round.
"""

import datetime
import json
import os
import re
import statistics
import subprocess
import sys
import textwrap
from collections import defaultdict

RANDOM = {
    "1b.q8_0": "1.1B Q8_0",
    "1b.q4_0": "1.1B Q4_0",
    "1b.q4_k": "1.1B Q4_K",
    "1b.q4_k_m": "1.1B Q4_K_M",
    "1b.bf16": "1.1B BF16",
    "150m.q8_0": "150M Q8_0",
}
REAL = {
    "SmolLM2-135M-Instruct.Q4_1": "SmolLM2 135M Q4_1",
    "gemma-3-270m-q4_k_m": "Gemma 3 270M Q4_K_M",
    "qwen2.5-coder-0.5b-instruct-q4_k_m": "Qwen 2.5 0.5B Q4_K_M",
    "qwen2.5-coder-1.5b-instruct-q4_k_m": "Qwen 2.5 1.5B Q4_K_M",
}
PAIRS = {
    "pair": "1.1B and 150M, agreement 0.8",
    "pair.q4_0": "the same, the draft in Q4_0",
    "builtin": "built-in pair",
}
FIGURES = ["decode@128", "decode@4096", "decode@16384", "score 2@128", "score 4@128", "score 8@128", "score 16@128", "prefill 128", "prefill 512"]


def figures(record):
    """Seconds by name, from either program's JSON."""
    if "figures" in record:
        return {figure["name"]: figure["seconds"] for figure in record["figures"]}
    rate = record["avg_ts"]
    if record["n_gen"]:
        return {f"decode@{record['n_depth']}": 1 / rate}
    name = f"score {record['n_prompt']}@{record['n_depth']}" if record["n_depth"] else f"prefill {record['n_prompt']}"
    return {name: record["n_prompt"] / rate}


def collect(records):
    """Lists of seconds, round by round, by (program, file, figure)."""
    times = defaultdict(list)
    for record in records:
        if record["file"] not in PAIRS:
            for name, seconds in figures(record).items():
                times[record["program"], record["file"], name].append(seconds)
    return times


def ratio(ours, theirs):
    """The speed of wsd relative to theirs."""
    return statistics.median(their / our for our, their in zip(ours, theirs)) if ours and theirs else None


def number(value, unit=""):
    if value is None:
        return "-"
    return f"{value:.0f}{unit}" if value >= 100 else f"{value:.1f}{unit}" if value >= 10 else f"{value:.2f}{unit}"


def table(head, rows):
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def engine(records, files):
    times = collect(records)
    rows = []
    for file, title in files.items():
        for name in FIGURES:
            ours = times["wsd", file, name]
            if not ours:
                continue
            peers = [times[program, file, name] for program in ("llama.cpp", "transformers")]
            cells = [title, name, number(1e3 * statistics.median(ours))]
            for peer in peers:
                cells += [number(1e3 * statistics.median(peer)) if peer else "-", number(ratio(ours, peer), "x")]
            rows.append(cells)
    head = ["model", "what", "wsd, ms", "llama.cpp, ms", "as fast", "transformers, ms", "as fast"]
    return table(head, rows)


def memory(records, files):
    rows = []
    for file, title in files.items():
        ours = [record for record in records if record["program"] == "wsd" and record["file"] == file]
        if not ours:
            continue
        middle = lambda key: statistics.median(record[key] for record in ours)
        one, eight = (
            statistics.median(figures(record)[name] for record in ours) for name in ("decode@128", "score 8@128")
        )
        rows.append(
            [
                title,
                number(middle("load_seconds")),
                number(middle("loaded_peak_share"), "x"),
                number(middle("peak_share"), "x"),
                number(middle("read_bytes_per_second") / 1e9),
                f"{100 * middle('decode_share_of_limit'):.0f} %",
                number(eight / one, "x"),
            ]
        )
    head = ["model", "load, s", "peak memory to the first token / weights", "with all figures", "read, GB/s", "decode's share of it", "score 8 / decode"]
    return table(head, rows)


def pair(records, files):
    rows = []
    for file, title in files.items():
        ours = [record for record in records if record["program"] == "wsd" and record["file"] == file]
        theirs = [record["seconds"] for record in records if record["program"] == "transformers" and record["file"] == file]
        for index, system in enumerate(ours[0]["systems"] if ours else []):
            runs = [record["systems"][index] for record in ours]
            same = [run["same_tokens_as"] for run in runs if run["same_tokens_as"]]
            words = "yes" if same and all(one["same"] for one in same) else "NO" if same else "-"
            acceptance = [run["acceptance"] for run in runs if run["acceptance"] is not None]
            switches = [switch for switch in system["switches"] if switch is not None]
            rows.append(
                [
                    title,
                    system["name"],
                    f"{statistics.median(run['seconds'] for run in runs):.3f}",
                    number(statistics.median(run["to_base_alone"] for run in runs), "x"),
                    f"{statistics.median(switches):.0f}" if switches else "-",
                    f"{100 * statistics.median(acceptance):.0f} %" if acceptance else "-",
                    f"{words} ({same[0]['name']})" if same else "-",
                ]
            )
        if theirs:
            best = [run["systems"][3]["seconds"] for run in ours]
            base = [run["systems"][0]["seconds"] for run in ours]
            to_base = statistics.median(their / our for their, our in zip(theirs, base))
            rows.append(
                [title, "three passes, transformers in bf16", f"{statistics.median(theirs):.3f}", number(to_base, "x"), "-", "-", f"wsd is {number(ratio(best, theirs), 'x')} as fast"]
            )
    head = ["pair", "who", "seconds", "of base alone", "switch", "accepted", "same tokens (as)"]
    return table(head, rows)


def machine(records, files):
    cpu = open("/proc/cpuinfo").read()
    name = re.search(r"model name\s*: (.*)", cpu)[1]
    memory_kb = int(re.search(r"MemTotal:\s*(\d+)", open("/proc/meminfo").read())[1])
    here = os.path.dirname(os.path.abspath(__file__))
    run = lambda *command: subprocess.run(command, cwd=here, capture_output=True, text=True).stdout.strip()
    builds = sorted({record["build_commit"] for record in records if "build_commit" in record})
    versions = sorted({record["versions"] for record in records if "versions" in record})
    instructions = sorted({record["instructions"] for record in records if "instructions" in record})
    rounds = len([record for record in records if record["program"] == "wsd" and record["file"] == next(iter(files))])
    about = (
        f"{datetime.date.today()}; {name}, {os.cpu_count()} cores, {memory_kb / 2**20:.0f} GiB; wsd at "
        f"{run('git', 'rev-parse', '--short', 'HEAD')} with {', '.join(instructions)}; llama.cpp of llama-cpp-python 0.3.36 "
        f"({', '.join(builds)}; built for this processor); {', '.join(versions) or 'no transformers'}; {rounds} rounds"
    )
    return textwrap.fill(about, 100)


TABLES = {
    "machine": (machine, RANDOM),
    "engine": (engine, RANDOM),
    "memory": (memory, RANDOM),
    "pair": (pair, PAIRS),
    "real-machine": (machine, REAL),
    "real-engine": (engine, REAL),
    "real-memory": (memory, REAL),
}


def main():
    results, document = sys.argv[1:]
    with open(results) as file:
        records = [json.loads(line) for line in file]
    text = open(document).read()
    for name, (make, files) in TABLES.items():
        of_files = [record for record in records if record["file"] in files]
        if not of_files:
            continue
        made = f"<!-- {name} -->\n{make(of_files, files)}\n<!-- /{name} -->"
        text = re.sub(f"<!-- {name} -->.*?<!-- /{name} -->", lambda _: made, text, flags=re.DOTALL)
    with open(document, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main()
