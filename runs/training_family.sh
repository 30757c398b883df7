#!/usr/bin/env bash
# Every training method for the pilot of the closed world beside plain SFT + DPO, with the same data, steps and batches.
#
#     runs/training_family.sh [FOLDER]      # prints one table; resumes where it was stopped
#
# SEEDS (1 2 3) names the worlds, OPTIONS the rows of the table below (all of them), ITEMS the items of each task (300),
# ROWS the first demonstrations and the first preferences that are read (all), ROUNDS the measurements of speed (3),
# PARTS what is done ("train speed"); speed alone needs the plain pilot of the first world.
# PAIR=1 takes runs/lab.sh's base for each seed (minutes each); with PAIR=0 the built-in base stands in for seed 1's.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$root/target/family}
wsd=${WSD:-$root/target/release/wsd}
seeds=${SEEDS:-1 2 3}
items=${ITEMS:-300}
parts=" ${PARTS:-train speed} "
rows=${ROWS:-100000}
[ -x "$wsd" ] || cargo build --release --manifest-path "$root/Cargo.toml"
export WSD=$wsd

# A row: name, stage that differs (1: from demonstrations, 2: from preferences), command, learning rate, more of the run file.
regular='[[objective]]\nname = "sft"\n[[objective]]\nname = "distill"\nweight = 0.5\n'
table() {
    printf '%s\n' \
        'plain|1|sft|3e-4|' \
        'weighted|1|weighted|3e-4|[weighted]\nfirst_tokens = 8\n' \
        "prior|1|sft|3e-4|${regular}train = [\"prior.jsonl\"]\n" \
        'starft|1|sft|3e-4|[[objective]]\nname = "sft"\n[[objective]]\nname = "starft"\ntrain = ["cued.jsonl"]\n' \
        'digrap|1|sft|3e-4|[optimizer]\nname = "digrap"\n' \
        'spd|1|sft|3e-4|[optimizer]\nname = "spd"\n' \
        'muon|1|sft|3e-4|[optimizer]\nname = "muon"\n' \
        'partial|1|sft|3e-4|[partial]\n' \
        'lora|1|sft|2e-3|[lora]\nr = 8\nlora_alpha = 16\n' \
        'dora|1|sft|2e-3|[dora]\nr = 8\nlora_alpha = 16\n' \
        'oft|1|sft|2e-3|[oft]\noft_block_size = 16\n' \
        "oft-regular|1|sft|2e-3|${regular}[oft]\noft_block_size = 16\n" \
        'ipo|2|ipo|1e-5|[ipo]\nbeta = 0.1\n' \
        'simpo|2|simpo|1e-5|[simpo]\nbeta = 2.0\nsimpo_gamma = 1.0\ncpo_alpha = 0.2\n' \
        'orpo|2|orpo|1e-5|[orpo]\nbeta = 0.1\n' \
        'kto|2|kto|1e-5|[kto]\nbeta = 0.1\n' \
        'residual|2|residual|1e-5|[[objective]]\nname = "residual"\ntrain = ["residual.jsonl"]\n'
}
options=${OPTIONS:-$(table | cut -d'|' -f1)}

# The run file CONFIG for a stage of an option: its output, start, learning rate and the tables MORE.
config() {
    local from=$1 output=$2 start=$3 rate=$4 more=$5
    sed -e "s/^seed = .*/seed = $seed/" -e "s|^output = .*|output = \"$output\"|" -e "s|^from = .*|from = \"$start\"|" \
        -e '/^max_length/a skip_refused = true' -e 's|world/sft.jsonl|demonstrations.jsonl|' -e 's|"pairs.jsonl"|"preferences.jsonl"|' \
        -e "s/^learning_rate = .*/learning_rate = $rate/" "$root/runs/lab/$from.toml" > "$output.toml"
    if [ "$from" = pilot_dpo ] && [ "${6:-dpo}" != dpo ]; then sed -i '/^\[dpo\]/,$d' "$output.toml"; fi
    printf "\n$more" >> "$output.toml"
}

# A training run: begun, gone on with, or done already.
train() {
    [ -d "$2/model" ] && return
    if [ -d "$2" ]; then "$wsd" train "$1" --quiet --config "$2.toml" --resume; else "$wsd" train "$1" --quiet --config "$2.toml"; fi
}

# Data that all options share.
prepare() {
    base=$root/models/base
    if [ "${PAIR:-1}" = 1 ]; then
        "$root/runs/lab.sh" "$seed" "$here" > "$here.log" 2>&1
        base=$here/base/model
    elif [ ! -f "$here/pairs.jsonl" ]; then
        BASE=$base "$root/runs/lab.sh" "$seed" "$here" > "$here.log" 2>&1
    fi
    cd "$here"
    [ -f demonstrations.jsonl ] || head -n "$rows" world/sft.jsonl > demonstrations.jsonl
    [ -f preferences.jsonl ] || head -n "$rows" pairs.jsonl > preferences.jsonl
    [ -f prompts.jsonl ] || head -n "$rows" world/prompts.jsonl > prompts.jsonl
    [ -f prior.jsonl ] || {
        "$wsd" generate -q --input prompts.jsonl --output prior-part.jsonl --strategy draft \
            --draft pilot-pretrained/model --temperature 1.0 --seed 9 -n 60 --parallel 16
        mv prior-part.jsonl prior.jsonl
    }
    [ -f residual.jsonl ] || {
        sed 's/"reference":/"chosen":/' prompts.jsonl > residual-prompts.jsonl
        "$wsd" generate -q --input residual-prompts.jsonl --output residual-part.jsonl --strategy base --base "$base" \
            --temperature 0.5 --top-p 0.95 --top-k 10 --seed 9 -n 60 --parallel 16
        mv residual-part.jsonl residual.jsonl
    }
    [ -f cued.jsonl ] || "$wsd" train cues --quiet --input demonstrations.jsonl --output cued.jsonl --seed "$seed"
    [ -f probe.jsonl ] || {
        tail -n 400 world/sft.jsonl > probe.jsonl
        "$wsd" train cues --quiet --input probe.jsonl --output probe-cued.jsonl --seed "$((seed + 100))"
    }
}

# One option in one world: both stages, its answers, and its sensitivity to cues.
option() {
    local name=$1 stage=$2 command=$3 rate=$4 more=$5 first=plain-sft
    if [ "$stage" = 1 ]; then
        first=$name-sft
        config pilot_sft "$first" pilot-pretrained/model "$rate" "$more"
        train "$command" "$first"
        config pilot_dpo "$name" "$first/model" 1e-5 ''
        train dpo "$name"
    else
        config pilot_sft plain-sft pilot-pretrained/model 3e-4 ''
        train sft plain-sft
        config pilot_dpo "$name" "$first/model" "$rate" "$more" "$command"
        train "$command" "$name"
    fi
    "$wsd" lab eval --quiet --world world --base "$base" --draft "$name/model" --out "eval-$name" --systems pilot,wsd \
        --parts table --limit "$items" > /dev/null
    "$wsd" train sensitivity --json --template plain --model "$name/model" --input probe.jsonl --cued probe-cued.jsonl \
        > "eval-$name/sensitivity.json"
}

# All options in one world.
train_all() {
    local name stage command rate more
    "$wsd" lab eval --quiet --world world --base "$base" --draft pilot-pretrained/model --out eval-start --systems pilot,wsd \
        --parts table --limit "$items" > /dev/null
    while IFS='|' read -r name stage command rate more; do
        [[ " ${options//$'\n'/ } " == *" $name "* ]] || continue
        option "$name" "$stage" "$command" "$rate" "$more"
    done < <(table)
}

# Seconds per step of the stage that differs, the options by turns.
speed() {
    local round name stage command rate more
    for round in $(seq "${ROUNDS:-3}"); do
        while IFS='|' read -r name stage command rate more; do
            [[ " ${options//$'\n'/ } plain dpo " == *" $name "* ]] || continue
            [ -f "speed/$name-$round/metrics.jsonl" ] && continue
            mkdir -p speed
            local from=pilot_sft start=pilot-pretrained/model
            [ "$stage" = 2 ] && from=pilot_dpo start=plain-sft/model
            config "$from" "speed/$name-$round" "$start" "$rate" "$more" "$command"
            sed -i 's/^num_train_epochs = .*/max_steps = 12/; s/^logging_steps = .*/logging_steps = 1/' "speed/$name-$round.toml"
            "$wsd" train "$command" --quiet --config "speed/$name-$round.toml"
            rm -rf "speed/$name-$round"/checkpoint-* "speed/$name-$round/model"
        done < <(table; echo 'dpo|2|dpo|1e-5|')
    done
}

for seed in $seeds; do
    here=$folder/seed-$seed
    mkdir -p "$here"
    prepare
    if [[ $parts == *" train "* ]]; then train_all; fi
    if [[ $parts == *" speed "* ]] && [ "$seed" = "${seeds%% *}" ]; then speed; fi
done
python3 "$root/scripts/family_table.py" "$folder"
