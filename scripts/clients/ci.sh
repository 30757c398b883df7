#!/usr/bin/env bash
# OpenAI's own clients against a server of the built-in pair: ci.sh [path to wsd]
#
# A client that cannot be installed here (no Python, no Node, no registry within two minutes) is skipped, with a line that says so;
# one that can must pass. What is installed is kept in target/clients.
set -uo pipefail
cd "$(dirname "$0")/../.."
wsd=${1:-target/debug/wsd}
openai_python=3.57.0
openai_node=6.49.0
langchain_openai=1.7.4
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

python_client() {
    python3 -m venv "$folder/python" &&
        timeout 120 "$folder/python/bin/pip" install --quiet --disable-pip-version-check "openai==$openai_python"
}
langchain_client() {
    python3 -m venv "$folder/langchain" &&
        timeout 120 "$folder/langchain/bin/pip" install --quiet --disable-pip-version-check "langchain-openai==$langchain_openai"
}
node_client() {
    timeout 120 npm install --silent --no-audit --no-fund --prefix "$folder/node" "openai@$openai_node"
}

failed=0
if python_client >"$folder/python.log" 2>&1; then
    timeout 300 "$folder/python/bin/python" scripts/clients/openai_client.py "$address" | grep -E "^FAILED|passed"
    [ "${PIPESTATUS[0]}" = 0 ] || failed=1
else
    echo "skipped: OpenAI's Python client cannot be installed here"
fi
if langchain_client >"$folder/langchain.log" 2>&1; then
    timeout 300 "$folder/langchain/bin/python" scripts/clients/langchain_client.py "$address" | grep -E "^FAILED|passed"
    [ "${PIPESTATUS[0]}" = 0 ] || failed=1
else
    echo "skipped: LangChain cannot be installed here"
fi
if node_client >"$folder/node.log" 2>&1; then
    # Node looks for packages beside the script.
    cp scripts/clients/openai_client.mjs "$folder/node/"
    timeout 300 node "$folder/node/openai_client.mjs" "$address" | grep -E "^FAILED|passed"
    [ "${PIPESTATUS[0]}" = 0 ] || failed=1
else
    echo "skipped: OpenAI's Node client cannot be installed here"
fi
exit $failed
