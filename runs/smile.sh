#!/usr/bin/env bash
# Three pilots of one behaviour each, helpful, harmless and honest, merged into one by several methods.
#
#     runs/smile.sh [FOLDER]      # prints one table; resumes where it was stopped
#
# The start of all three is the base of the built-in pair, and each learns for STEPS (240) steps from the reference
# answers to the alignment prompts of its behaviour in world 1. ITEMS (200) of each behaviour are scored by the oracle,
# each model alone, and so is a model that learns from all three for as many steps. SETS (own, shared) names the data of
# the pilots: `shared` adds the helpful answers to that of the others.
# THREADS (2) is the number of threads.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$root/target/smile}
wsd=${WSD:-$root/target/release/wsd}
base=$root/models/base
[ -x "$wsd" ] || cargo build --release --manifest-path "$root/Cargo.toml"
mkdir -p "$folder"
cd "$folder"

# The methods: name, method, options.
merges() {
    printf '%s\n' \
        'linear|linear|' \
        'task-arithmetic|task_arithmetic|--scale 0.5' \
        'ties|ties|--density 0.2' \
        'smile|smile|--rank 8 --router-rank 4' \
        'smile-one-row|smile|--rank 8 --router-rank 1' \
        'smile-top-2|smile|--rank 8 --router-rank 4 --experts-per-token 2'
}

# The scores of a model, kept in scores-NAME.
score() {
    "$wsd" lab eval --quiet --world items --base "$base" --draft "$2" --out "scores-$1" --systems pilot --parts table \
        --threads "${THREADS:-2}" --limit "${ITEMS:-200}" > /dev/null
}

# A pilot: begun, gone on with, or done already.
train() {
    local set=$1 name=$2 data=$3
    cat > "$set-$name.toml" <<FILE
output = "$set-$name"
seed = 1
threads = ${THREADS:-2}
model = { from = "$base", template = "plain" }
data = { train = [$data], max_length = 256 }
lora = { r = 8, lora_alpha = 16 }

[train]
max_steps = ${STEPS:-240}
batch_size = 16
learning_rate = 2e-3
lr_scheduler_type = "linear"
warmup_steps = 10
logging_steps = 20
save_steps = 60
FILE
    if [ ! -d "$set-$name/model" ]; then "$wsd" train sft --quiet --config "$set-$name.toml" --resume; fi
    score "$set-$name" "$set-$name/model"
}

[ -f world/README.md ] || "$wsd" lab world --seed 1 --out world
[ -d items ] || {
    mkdir -p items.partial
    grep -E '"task":"(helpful|harmless|honest)"' world/eval.jsonl > items.partial/eval.jsonl
    python3 - <<'SPLIT'
import json

for task in ("helpful", "harmless", "honest"):
    with open(f"{task}.jsonl", "w") as file:
        for row in map(json.loads, open("world/prompts.jsonl")):
            if row["task"] == task:
                answer = {"role": "assistant", "content": row["reference"]}
                file.write(json.dumps({"messages": [*row["messages"], answer]}) + "\n")
SPLIT
    mv items.partial items
}

score start "$base"
train own joint '"helpful.jsonl", "harmless.jsonl", "honest.jsonl"'
train own helpful '"helpful.jsonl"'
for set in ${SETS:-own shared}; do
    [ "$set" = own ] && more='' || more=', "helpful.jsonl"'
    for name in harmless honest; do train "$set" "$name" "\"$name.jsonl\"$more"; done
    while IFS='|' read -r name method options; do
        merged=$set-$name
        [ -d "$merged" ] || "$wsd" merge "$method" --quiet --base "$base" --model own-helpful/model \
            --model "$set-harmless/model" --model "$set-honest/model" --output "$merged" $options
        score "$merged" "$merged"
    done < <(merges)
done

python3 - <<'TABLE'
import json
from pathlib import Path

TASKS = ("helpful", "harmless", "honest")


def scores(name):
    systems = json.loads(Path(f"scores-{name}/results.json").read_text())["systems"]
    tasks = next(each for each in systems if each["system"] == "pilot")["tasks"]
    return [100 * tasks[task]["value"] for task in TASKS]


def size(folder):
    return sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))


names = sorted(path.name.removeprefix("scores-") for path in Path(".").glob("scores-*"))
print("| model | helpful | harmless | honest | least share of its pilot | weights |\n|---|---|---|---|---|---|")
for name in names:
    found = scores(name)
    pilots = ["own-helpful", *(f"{name.split('-')[0]}-{task}" for task in TASKS[1:])]
    share, weights = "–", "1.00"
    if Path(name).joinpath("config.json").exists():
        share = f"{min(own / max(scores(pilot)[at], 1e-9) for at, (own, pilot) in enumerate(zip(found, pilots))):.2f}"
        weights = f"{size(name) / size(pilots[0] + '/model'):.2f}"
    cells = [f"{value:.1f}" for value in found]
    print(f"| {name} | {' | '.join(cells)} | {share} | {weights} |")
TABLE
