#!/usr/bin/env bash
# The live tests against a real llama-server: live_llama_server.sh [FOLDER [MODELS]]
#
# Builds llama-server from the source package of llama-cpp-python in FOLDER (a temporary folder where none is given; 20 minutes on
# one core), writes GGUF files of tiny checkpoints, made in FOLDER/models unless MODELS has them, starts one server with the draft
# and one with the base, runs `cargo test -p wsd --test remote_live`, and stops them. Needs uv and a C++ compiler. What is built in
# FOLDER is used again. With WSD_LIVE_VLLM set, pairs of both servers are tested too.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
if [ $# -gt 0 ]; then
    mkdir -p "$1"
    folder=$(cd "$1" && pwd)
else
    folder=$(mktemp -d)
fi
models=${2:-$folder/models}
python=$folder/tools/bin/python
source=$folder/source
binary=$folder/build/bin/llama-server
servers=()

stop() {
    for server in ${servers[@]+"${servers[@]}"}; do
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    done
}
trap stop EXIT

"$here/scripts/llama_cpp.sh" "$folder" llama-server
[ -f "$models/hf_reference.json" ] || "$python" "$here/scripts/tiny_pair.py" "$models"
for role in base draft; do
    [ -f "$folder/$role.gguf" ] || "$python" "$here/scripts/make_gguf.py" --llama-cpp "$source" --model "$models/tiny_$role" \
        --out "$folder/$role.gguf" --type f32 --pre gpt-2
done

start() {
    port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    # The default cache is f16 and the default attention computes in it: their scores are up to 2e-3 off.
    "$binary" -m "$folder/$1.gguf" --host 127.0.0.1 --port "$port" -c 4096 -np 4 -fa off -ctk f32 -ctv f32 >"$folder/$1.log" 2>&1 &
    servers+=($!)
    for _ in $(seq 60); do
        if "$python" -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$port/health')" 2>/dev/null; then
            return
        fi
        sleep 0.5
    done
    tail -n 20 "$folder/$1.log"
    exit 1
}
start draft
draft=$port
start base
base=$port
cd "$here"
WSD_LIVE_MODELS=$models WSD_LIVE_LLAMA_DRAFT=llama-server+http://127.0.0.1:$draft \
    WSD_LIVE_LLAMA_BASE=llama-server+http://127.0.0.1:$base cargo test -p wsd --locked --test remote_live -- --nocapture
