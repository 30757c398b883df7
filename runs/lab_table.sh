#!/bin/sh
# Makes the report of docs/lab: the table, its figure, the base's confidence by position and the ablation.
#
#   runs/lab_table.sh OUT WORLD BASE PILOT TUNED [WORLD BASE PILOT TUNED ...]
#
# Each four are one run, of a world or of a training seed: the folder of `wsd lab world`, the base, the pilot, and the base tuned on the
# pilot's data (- where there is none). Answers are kept in LAB_RUNS (target/lab); after an interruption the same command goes on.
set -eu
wsd=${WSD:-target/release/wsd}
kept=${LAB_RUNS:-target/lab}
out=${1:?"usage: $0 OUT WORLD BASE PILOT TUNED ..."}
shift
number=0
runs=
while [ $# -ge 4 ]; do
    number=$((number + 1))
    tuned=
    [ "$4" = - ] || tuned="--tuned $4"
    # shellcheck disable=SC2086
    "$wsd" lab eval --world "$1" --base "$2" --draft "$3" $tuned --out "$kept/run-$number" ${LAB_EVAL_FLAGS:-} > /dev/null
    runs="$runs $kept/run-$number"
    shift 4
done
# shellcheck disable=SC2086
"$wsd" lab report $runs --out "$out"
