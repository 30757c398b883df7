#!/usr/bin/env python3
"""The table of runs/training_family.sh: training methods for the pilot of the closed world beside plain SFT + DPO.

    python scripts/family_table.py FOLDER      # FOLDER/seed-N/eval-OPTION, and the speed of the first seed

Prints markdown. Scores are means over the worlds in percent, with the least and the greatest difference from plain.
"""

import json
import statistics
import sys
from pathlib import Path


def scores(folder):
    """HHH, facts and sums of the pilot and of WSD."""
    systems = {each["system"]: each for each in json.loads((folder / "results.json").read_text())["systems"]}
    found = {}
    for system in ("pilot", "wsd"):
        found[system, "hhh"] = 100 * systems[system]["hhh"]["value"]
        for task in ("facts", "sums"):
            found[system, task] = 100 * systems[system]["tasks"][task]["value"]
    path = folder / "sensitivity.json"
    found["cues"] = json.loads(path.read_text())["all"]["divergence"] if path.exists() else float("nan")
    return found


def seconds_per_step(folder, name):
    steps = []
    for run in sorted(folder.glob(f"speed/{name}-[0-9]")):
        times = [json.loads(row)["time"] for row in (run / "metrics.jsonl").read_text().splitlines()]
        steps += [b - a for a, b in zip(times[1:], times[2:])]
    return statistics.median(steps) if steps else float("nan")


def main():
    root = Path(sys.argv[1])
    worlds = sorted(root.glob("seed-*"))
    names = [path.name.removeprefix("eval-") for path in worlds[0].glob("eval-*") if (path / "results.json").exists()]
    names.sort(key=lambda name: (name != "start", name != "plain", name))
    found = {name: [scores(world / f"eval-{name}") for world in worlds if (world / f"eval-{name}").exists()] for name in names}
    mean = lambda name, key: statistics.mean(each[key] for each in found[name])
    print(f"{len(worlds)} worlds. *Gain*: of WSD's HHH over plain's, mean [least, greatest]. *Step*: time of a step beside sft's,")
    print("or dpo's for methods of the second stage. *Cues*: divergence by cues that should not matter, nats per token.\n")
    print("| method | WSD HHH | gain | WSD facts | WSD sums | pilot HHH | pilot facts | cues | step |")
    print("|---|---|---|---|---|---|---|---|---|")
    second = {"ipo", "simpo", "orpo", "kto", "residual"}
    for name in names:
        pairs = zip(found[name], found.get("plain", found[name]))
        gains = [each["wsd", "hhh"] - plain["wsd", "hhh"] for each, plain in pairs]
        step = seconds_per_step(worlds[0], name) / seconds_per_step(worlds[0], "dpo" if name in second else "plain")
        cells = [
            f"{mean(name, ('wsd', 'hhh')):.1f}", f"{statistics.mean(gains):+.1f} [{min(gains):+.1f}, {max(gains):+.1f}]",
            f"{mean(name, ('wsd', 'facts')):.1f}", f"{mean(name, ('wsd', 'sums')):.1f}", f"{mean(name, ('pilot', 'hhh')):.1f}",
            f"{mean(name, ('pilot', 'facts')):.1f}", f"{mean(name, 'cues'):.3f}", f"{step:.2f}",
        ]
        print(f"| {name} | " + " | ".join(cells).replace("nan", "–") + " |")


if __name__ == "__main__":
    main()
