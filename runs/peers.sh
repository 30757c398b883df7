#!/usr/bin/env bash
# The engine beside llama.cpp and transformers, on the same weights, and WSD beside the paper's three passes: the tables of
# docs/performance.md.
#
#     runs/peers.sh [FOLDER]     # default: target/peers
#
# In FOLDER it builds llama.cpp from the source package of llama-cpp-python (20 minutes on one core), makes a Python environment, and
# writes random models of the shapes 1b and 150m in all formats (7 GB). All of that is used again. Then it measures ROUNDS times (3),
# the programs in turn, adds what it saw to FOLDER/results.jsonl, and writes the medians of all that is there into the tables. Needs uv
# and a C++ compiler.
#
#     PYTHON    a Python with torch, transformers, gguf, numpy and sentencepiece, instead of one made here
#     THREADS   for all (the number of cores)
#     ROUNDS    how often everything is measured (3)
#     PARTS     which parts: engine, torch, pair, real (engine torch pair)
#     REAL      the GGUF files that the part real measures
#     CONTEXTS  the tokens before those that it decodes (128 4096)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${1:-$root/target/peers}"
folder=$(cd "${1:-$root/target/peers}" && pwd)
wsd=${WSD:-$root/target/release/wsd}
threads=${THREADS:-$(nproc)}
parts=${PARTS:-engine torch pair}
python=${PYTHON:-$folder/tools/bin/python}
source=$folder/source
llama=$folder/build/bin
models=$folder/models
results=$folder/results.jsonl

[ -x "$wsd" ] || cargo build --release --locked --manifest-path "$root/Cargo.toml"
"$root/scripts/llama_cpp.sh" "$folder" llama-bench llama-quantize

# A random model as a Hugging Face folder. The draft chooses as the base does 8 times out of 10.
random() { [ -d "$models/$1" ] || "$wsd" bench engine "$2" --dtype bf16 --agreement "$3" --save "$models/$1"; }

# A random model as GGUF, all matrices in one format but for q4_k_m.
gguf() {
    local whole=$models/$1.bf16.gguf file=$models/$1.$2.gguf pure=--pure
    [ -f "$whole" ] || "$python" "$root/scripts/make_gguf.py" --llama-cpp "$source" --model "$models/$1" --out "$whole" \
        --type bf16 --pre gpt-2
    [ "$2" = q4_k_m ] && pure=
    [ -f "$file" ] || "$llama/llama-quantize" $pure "$whole" "$file" "$2" > "$folder/quantize.log" 2>&1
}

if [ "$parts" != real ]; then
    mkdir -p "$models"
    random 1b 1b 1
    random 150m 150m 1
    random 150m-draft 150m 0.8
    for format in q8_0 q4_0 q4_k q4_k_m bf16; do gguf 1b "$format"; done
    gguf 150m q8_0
fi

# A JSON object of each line, with what it belongs to.
record() { "$python" -c 'import json, sys
for line in sys.stdin:
    if line.startswith("{"):
        print(json.dumps({"program": sys.argv[1], "file": sys.argv[2], **json.loads(line)}))' "$@" >> "$results"; }

# A file in both programs, after contexts of so many tokens.
beside() {
    local path=$1 file context whats=("-p 128,512 -n 0" "-p 2,4,8,16 -n 0 -d 128")
    file=$(basename "$path" .gguf)
    shift
    for context in "$@"; do whats+=("-p 0 -n 32 -d $context"); done
    # shellcheck disable=SC2046
    "$wsd" bench engine "$path" $(printf -- ' --context %s' "$@") --threads "$threads" --repeats 1 --json | record wsd "$file"
    for what in "${whats[@]}"; do
        # shellcheck disable=SC2086
        "$llama/llama-bench" -m "$path" -t "$threads" $what -r 1 -o jsonl 2> "$folder/llama.log" | record llama.cpp "$file"
    done
}
engine() { for file in 1b.q8_0 1b.q4_0 1b.q4_k 1b.q4_k_m 1b.bf16 150m.q8_0; do beside "$models/$file.gguf" 128; done; }
# shellcheck disable=SC2086
real() { for path in ${REAL:?the part real needs files}; do beside "$path" ${CONTEXTS:-128 4096}; done; }
peer() { env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE "$python" "$root/scripts/peers_torch.py" --threads "$threads" "$@"; }
torch() { peer --model "$models/1b" | record transformers 1b.bf16; }
pair() {
    local pair=(--base 1b --draft 150m --dtype q8_0 --window 10 -n 256 --prompts 4 --threads "$threads" --repeats 1 --json)
    "$wsd" bench wsd "${pair[@]}" | record wsd pair
    "$wsd" bench wsd "${pair[@]}" --draft-dtype q4_0 | record wsd pair.q4_0
    "$wsd" bench wsd --threads "$threads" --repeats 3 --json | record wsd builtin
    peer --base "$models/1b" --draft "$models/150m-draft" --window 10 --tokens 256 --prompts 4 | record transformers pair
}
for _ in $(seq "${ROUNDS:-3}"); do
    for part in $parts; do "$part"; done
done
"$python" "$root/scripts/peers_table.py" "$results" "$root/docs/performance.md"
