#!/usr/bin/env bash
# The paper's experiment in small: a base and a draft on public benchmarks, then the draft after DPO, and calibrated rules.
# Answers, verdicts and tables of each run are in FOLDER.
#
#     runs/real.sh MODELS DATA [FOLDER]     # default: target/real; resumes where it was stopped
#
# MODELS holds gemma-3-270m-q4_k_m.gguf (the base) and SmolLM2-135M-Instruct.Q4_1.gguf (the draft), DATA the files of the benchmarks
# and preferences named below. The IFEval grader reads NLTK's English parameters from $NLTK_DATA. Steps, all by default:
#
#     STEPS="plain nudging pairs pilot calibrate aligned scored"; and, if named, "tax methods sampled judge"
#     LIMIT    items of the tasks but IFEval (200)
#     IFEVAL   items of IFEval with a pilot, a calibrated rule or sampled answers (150); all with the paper's rule and the draft
#     JUDGE    the model that compares the answers to AlpacaEval's questions, in the step judge
#     WSD      the program (target/release/wsd)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
models=$(cd "$1" && pwd)
data=$(cd "$2" && pwd)
mkdir -p "${3:-$root/target/real}"
cd "${3:-$root/target/real}"
limit=${LIMIT:-200}
ifeval=
wsd=${WSD:-$root/target/release/wsd}
[ -x "$wsd" ] || cargo build --release --locked --manifest-path "$root/Cargo.toml"

base=$models/gemma-3-270m-q4_k_m.gguf
draft=$models/SmolLM2-135M-Instruct.Q4_1.gguf

# measure RUN SYSTEMS OPTIONS...: the tasks whose answers are written.
measure() {
    local run=$1 systems=$2
    shift 2
    "$wsd" eval "ifeval=$data/ifeval/input_data.jsonl" --max-tokens 256 --systems "$systems" \
        ${ifeval:+--limit "$ifeval"} --out "$run/ifeval" "$@"
    "$wsd" eval "xstest=$data/xstest/xstest_prompts.csv" "strongreject=$data/safety/strongreject_dataset.csv" \
        hh_harmless=held-out.jsonl "alpaca_eval=$data/alpaca_eval/alpaca_eval_ques.json" \
        --limit "$limit" --max-tokens 128 --systems "$systems" --out "$run/answers" "$@"
}

# score RUN SYSTEMS OPTIONS...: the tasks whose choices are scored.
score() {
    local run=$1 systems=$2
    shift 2
    "$wsd" eval "arc_easy=$data/arc/arc_easy_test.jsonl" "hellaswag=hellaswag.txt" \
        "truthfulqa_mc1=$data/truthfulqa/TruthfulQA.csv" "truthfulqa_mc2=$data/truthfulqa/TruthfulQA.csv" \
        --limit "$limit" --systems "$systems" --out "$run/scored" "$@"
}

# tune OBJECTIVE OUTPUT MODEL TEMPLATE DATA [MORE]: a training run, begun, gone on with, or done already. MORE lines end the run file.
tune() {
    sed "s|@OUTPUT@|$2|; s|@MODEL@|$3|; s|@TEMPLATE@|$4|; s|@DATA@|$5|" "$root/runs/real/tuning.toml" > "$2.toml"
    printf '%b' "${6:-}" >> "$2.toml"
    if [ ! -d "$2" ]; then "$wsd" train "$1" --config "$2.toml"
    elif [ ! -d "$2/model" ]; then "$wsd" train "$1" --config "$2.toml" --resume; fi
}

# The held-out half of HH's harmless conversations is never trained on, nor looked at to choose anything.
[ -f hh.jsonl ] || gzip -dc "$data/hh_rlhf/test.jsonl.gz" > hh.jsonl
[ -f held-out.jsonl ] || tail -n 512 hh.jsonl > held-out.jsonl
[ -f hh-train.jsonl ] || head -n 1800 hh.jsonl > hh-train.jsonl
[ -f hellaswag.txt ] || bzip2 -dc "$data/hellaswag/hellaswag_val_full.txt.bz2" > hellaswag.txt

step() { [[ " ${STEPS:-plain nudging pairs pilot calibrate aligned scored} " == *" $1 "* ]]; }

if step plain; then measure plain base,in_context,draft,wsd --base "$base" --draft "$draft"; fi
if step nudging; then measure nudging nudging --base "$base" --draft "$draft"; fi

# The pilot: the draft after DPO by LoRA on the preferences of three data sets.
if step pairs && [ ! -d pairs ]; then
    "$wsd" data read hh-train.jsonl --limit 450 --source hh --label harmless --licence MIT --out hh-prompts.jsonl
    "$wsd" data read "$data/ultrafeedback_sample/train_clean.jsonl" --limit 240 --source ultrafeedback --label helpful --licence MIT \
        --out ultrafeedback-prompts.jsonl
    "$wsd" data read "$data/rasbt_instruct/instruction-data-with-preference.json" --limit 240 --source rasbt --label helpful \
        --licence Apache-2.0 --out rasbt-prompts.jsonl
    "$wsd" data filter hh-prompts.jsonl ultrafeedback-prompts.jsonl rasbt-prompts.jsonl --script latin \
        --share harmless=1 --share helpful=1 --against hh_harmless=held-out.jsonl \
        --against "alpaca_eval=$data/alpaca_eval/alpaca_eval_ques.json" --against "ifeval=$data/ifeval/input_data.jsonl" \
        --against "xstest=$data/xstest/xstest_prompts.csv" \
        --against "strongreject=$data/safety/strongreject_dataset.csv" --out prompts.jsonl
    "$wsd" data pair prompts.jsonl --by given --eval 0.05 --out pairs
fi

if step pilot; then tune dpo pilot "$draft" own pairs; fi

# The rule for each pair, from prompts of the training set.
if step calibrate; then
    for name in draft pilot; do
        model=$draft
        [ "$name" = pilot ] && model=pilot/model
        touch "$name-rule.toml"
        "$wsd" calibrate prompts.jsonl --limit 60 -n 128 --base "$base" --draft "$model" --draft-dtype q8_0 \
            --out "calibrate-$name" --write --config "$name-rule.toml"
    done
fi

ifeval=${IFEVAL:-150}
if step aligned; then
    measure pilot draft,wsd --base "$base" --draft pilot/model --draft-dtype q8_0
    measure calibrated wsd --config draft-rule.toml --base "$base" --draft "$draft"
    measure pilot-calibrated wsd --config pilot-rule.toml --base "$base" --draft pilot/model --draft-dtype q8_0
fi

# The chosen answers of the pairs, for SFT.
chosen() {
    mkdir -p chosen
    for part in train eval; do
        sed 's/"chosen":/"completion":/; s/"rejected":/"other":/; s/"label":/"kind":/' "pairs/$part.jsonl" > "chosen/$part.jsonl"
    done
}

# The base itself after training on the same pairs, as preferences and as answers: what alignment by training costs it.
if step tax; then
    chosen
    tune dpo tuned "$base" plain pairs
    tune sft tuned-sft "$base" plain chosen
    for name in tuned tuned-sft; do
        measure "$name" base --base "$name/model" --dtype q8_0
        score "$name" base --base "$name/model" --dtype q8_0
    done
fi

# The draft after SFT on the chosen answers by LoRA, plainly and held to its own answers by distillation.
if step methods; then
    chosen
    mkdir -p methods
    [ -f prior.jsonl ] || {
        head -n 400 prompts.jsonl > prior-prompts.jsonl
        "$wsd" generate -q --input prior-prompts.jsonl --output prior-part.jsonl --strategy draft --draft "$draft" \
            --temperature 1 --seed 9 -n 96 --parallel 8
        mv prior-part.jsonl prior.jsonl
    }
    distill='\n[[objective]]\nname = "sft"\n[[objective]]\nname = "distill"\nweight = 0.5\ntrain = ["prior.jsonl"]\n'
    tune sft methods/lora "$draft" own chosen
    tune sft methods/distill "$draft" own chosen "$distill"
    for name in start lora distill; do
        model=(--base "$base" --draft "methods/$name/model" --draft-dtype q8_0)
        [ "$name" = start ] && model=(--base "$base" --draft "$draft")
        measure "methods/$name" draft,wsd "${model[@]}"
        score "methods/$name" draft "${model[@]}"
    done
fi

# Answers drawn at a temperature, with those of the step plain to set beside them.
if step sampled; then measure sampled base,draft,wsd --temperature 0.7 --seed 1 --base "$base" --draft "$draft"; fi

# Which answers a judge prefers to the base's, each pair in both orders.
if step judge; then
    "$wsd" eval "alpaca_eval=$data/alpaca_eval/alpaca_eval_ques.json" --judge alpaca_eval --limit "$limit" --max-tokens 128 \
        --systems base,draft,wsd,in_context --out judge --base "$base" --draft "$draft" \
        --model "judge=${JUDGE:?the step judge needs a model}"
fi

if step scored; then
    score plain base,draft --base "$base" --draft "$draft"
    score pilot draft --base "$base" --draft pilot/model --draft-dtype q8_0
fi
