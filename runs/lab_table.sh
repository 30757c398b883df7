#!/bin/sh
# Makes docs/lab/: the table, its figure, the perplexity by position and the ablation, from models of one or more closed worlds.
#
#   runs/lab_table.sh OUT WORLD BASE PILOT TUNED [WORLD BASE PILOT TUNED ...]
#
# Each four are one run: the folder of `wsd lab world`, the base, the pilot, and the base tuned on the pilot's data (- where there is
# none). Run folders are kept under OUT/run-N; after an interruption the same command goes on. The report on all runs goes to OUT.
set -eu
wsd=${WSD:-target/release/wsd}
out=${1:?"usage: $0 OUT WORLD BASE PILOT TUNED ..."}
shift
number=0
runs=
while [ $# -ge 4 ]; do
    number=$((number + 1))
    tuned=
    [ "$4" = - ] || tuned="--tuned $4"
    # shellcheck disable=SC2086
    "$wsd" lab eval --world "$1" --base "$2" --draft "$3" $tuned --out "$out/run-$number" ${LAB_EVAL_FLAGS:-}
    runs="$runs $out/run-$number"
    shift 4
done
# shellcheck disable=SC2086
"$wsd" lab report $runs --out "$out"
