#!/usr/bin/env bash
# Clients of every protocol against a server of the built-in pair: ci.sh [path to wsd]
#
# A client that cannot be installed here (no Python, no Node, no registry within four minutes) is skipped, with a line that says so;
# one that can must pass. What is installed is kept in target/clients.
set -uo pipefail
cd "$(dirname "$0")/../.."
wsd=${1:-target/debug/wsd}
openai_python=3.57.0
openai_node=6.49.0
folder=$PWD/target/clients
mkdir -p "$folder/node"
[ -x "$wsd" ] || cargo build --locked -p wsd || exit 1

"$wsd" serve --port 0 2>"$folder/server.log" &
server=$!
trap 'kill $server; wait $server 2>/dev/null' EXIT
for _ in $(seq 300); do
    address=$(sed -n 's/^listening on //p' "$folder/server.log")
    [ -n "$address" ] && break
    sleep 0.1
done
if [ -z "$address" ]; then
    cat "$folder/server.log"
    exit 1
fi

# Each script with the packages that it needs, at the versions whose requests it was written for.
python_clients=(
    "openai_client.py openai==$openai_python"
    "responses_client.py openai==$openai_python"
    "anthropic_client.py anthropic==2.14.0"
    "ollama_client.py ollama==0.6.3"
    "litellm_client.py litellm==1.110.2 openai==$openai_python"
    "langchain_client.py langchain-openai==1.7.4 langchain-anthropic==1.7.10 langchain-ollama==1.1.0"
    "replay.py"
)
python_client() {
    # Packages of different clients may want different versions of one, so each has a folder of its own.
    python3 -m venv "$folder/python-$1" || return 1
    [ $# = 1 ] || timeout 240 "$folder/python-$1/bin/pip" install --quiet --disable-pip-version-check "${@:2}"
}
node_client() {
    timeout 120 npm install --silent --no-audit --no-fund --prefix "$folder/node" "openai@$openai_node"
}

failed=0
for client in "${python_clients[@]}"; do
    read -ra words <<<"$client"
    script=${words[0]}
    if python_client "${words[@]}" >"$folder/$script.log" 2>&1; then
        timeout 300 "$folder/python-$script/bin/python" "scripts/clients/$script" "$address" | grep -E "^FAILED|passed"
        [ "${PIPESTATUS[0]}" = 0 ] || failed=1
    else
        echo "skipped: the packages of $script cannot be installed here"
    fi
done
if node_client >"$folder/node.log" 2>&1; then
    # Node looks for packages beside the script.
    cp scripts/clients/openai_client.mjs "$folder/node/"
    timeout 300 node "$folder/node/openai_client.mjs" "$address" | grep -E "^FAILED|passed"
    [ "${PIPESTATUS[0]}" = 0 ] || failed=1
else
    echo "skipped: OpenAI's Node client cannot be installed here"
fi
exit $failed
