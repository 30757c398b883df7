#!/usr/bin/env bash
# The overhead of `wsd serve` in front of engines that answer at once: gateway.sh [STREAMS]
#
# Starts the example `stand_in`, which talks like vLLM and answers at once, and `wsd serve` with both models on it. Prints how long
# requests take one at a time, which is all overhead, stand-in and client included; then, with STREAMS (2000) answers running at a
# time and each token held back 400 ms, how they went and the gateway's largest memory. Everything on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
streams=${1:-2000}
cargo build --release -q -p wsd --bin wsd --example stand_in
wsd=${CARGO_TARGET_DIR:-target}/release/wsd
stand_in=${CARGO_TARGET_DIR:-target}/release/examples/stand_in
running=()

stop() {
    for process in ${running[@]+"${running[@]}"}; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    running=()
}
trap stop EXIT

# start PAUSE_MILLISECONDS STREAMS: a stand-in on port 9101 and a gateway on port 9100.
start() {
    "$stand_in" 9101 "$1" >/dev/null &
    running+=($!)
    sleep 1
    "$wsd" serve -q --port 9100 --max-concurrent "$2" --max-queue 64 --base-tokenizer models/base \
        --draft-tokenizer models/base --draft-template plain --base vllm+http://127.0.0.1:9101/instant \
        --draft vllm+http://127.0.0.1:9101/instant &
    gateway=$!
    running+=("$gateway")
    for _ in $(seq 50); do
        if (exec 3<>/dev/tcp/127.0.0.1/9100) 2>/dev/null; then break; fi
        sleep 0.2
    done
}

ulimit -n "$(ulimit -H -n)"
start 0 64
for model in base wsd; do
    "$wsd" bench serve --server 127.0.0.1:9100 --requests 50 --concurrency 1 --strategy "$model" -n 32 >/dev/null
    echo "one at a time, 32 tokens, strategy $model:"
    "$wsd" bench serve --server 127.0.0.1:9100 --requests 1000 --concurrency 1 --strategy "$model" -n 32
done
stop

start 400 "$streams"
echo "$streams streams at a time, 32 tokens each, 400 ms a token:"
"$wsd" bench serve --server 127.0.0.1:9100 --requests "$streams" --concurrency "$streams" --strategy wsd -n 32
grep VmHWM "/proc/$gateway/status"
