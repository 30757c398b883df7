#!/usr/bin/env bash
# The built-in pair from nothing: a world, a tokenizer, a base, a pilot, its manners and its preferences.
#
#     runs/lab.sh [SEED] [FOLDER]     # two cores; resumes where it was stopped
#
# Afterwards FOLDER/base/model and FOLDER/pilot/model are what models/base and models/pilot hold, for SEED 1.
# With TAX=1 the base itself is aligned too (FOLDER/base-aligned/model). BASE names a base to take instead of training one.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
seed=${1:-1}
folder=${2:-$root/target/lab/seed-$seed}
wsd=${WSD:-$root/target/release/wsd}
[ -x "$wsd" ] || cargo build --release --manifest-path "$root/Cargo.toml"
mkdir -p "$folder"
cd "$folder"

# The run's file with this seed.
config() { sed "s/^seed = .*/seed = $seed/" "$root/runs/lab/$1.toml" > "$1.toml"; }

# A training run: begun, gone on with, or done already.
train() {
    config "$2"
    local output
    output=$(sed -n 's/^output = "\(.*\)"/\1/p' "$2.toml")
    [ -d "$output/model" ] && return
    if [ -d "$output" ]; then "$wsd" train "$1" --config "$2.toml" --resume; else "$wsd" train "$1" --config "$2.toml"; fi
}

[ -f world/README.md ] || "$wsd" lab world --seed "$seed" --out world
[ -d tokenizer ] || "$wsd" train tokenizer --input world/corpus.jsonl --vocab-size 2048 --bos '</s>' --eos '</s>' \
    --chat-template "$root/runs/lab/plain.jinja" --model-max-length 512 --output tokenizer

{ [ -n "${BASE:-}" ] || train pretrain base; } & base=$!
train pretrain pilot_pretrain
train sft pilot_sft

answers=()
for sample in 1 2 3 4; do
    "$wsd" generate -q --input world/prompts.jsonl --output "answers-$sample.jsonl" --strategy draft \
        --draft pilot-sft/model --temperature 0.9 --seed "$sample" -n 80 --parallel 16
    answers+=(--answers "answers-$sample.jsonl")
done
[ -f pairs.jsonl ] || "$wsd" lab pairs "${answers[@]}" --seed "$seed" --output pairs.jsonl
train dpo pilot_dpo
wait "$base"

if [ -n "${TAX:-}" ]; then
    train sft base_sft
    train dpo base_dpo
fi
