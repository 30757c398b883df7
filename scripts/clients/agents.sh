#!/usr/bin/env bash
# Codex CLI and Claude Code against a server of the built-in pair, one question each: agents.sh [path to wsd]
#
# Both are pointed at the server by their environment and settings, as docs/api.md says, send no telemetry, and have a
# home folder of their own. The context of the built-in pair, 512 tokens, has no room for their tools and instructions,
# so that they ask without; with WSD_MODELS, a folder that has qwen2.5-coder-0.5b-instruct-q4_k_m.gguf, they ask that
# model with all of them, which takes minutes. Where npm cannot install an agent (both together take 700 MB), it is
# skipped, with a line that says so. What is installed is kept in target/clients. Not part of ci.sh, because of its size.
set -uo pipefail
cd "$(dirname "$0")/../.."
wsd=$(realpath -m "${1:-target/debug/wsd}")
codex=@openai/codex@0.171.0
claude=@anthropic-ai/claude-code@2.1.197
folder=$PWD/target/clients/agents
home=$folder/home
# The answers of the built-in pair begin with thanks.
question="What colour is a fox?"
mkdir -p "$home/codex" "$home/claude" "$folder/work"
[ -x "$wsd" ] || cargo build --locked -p wsd || exit 1
failed=0
server=

# Starts a server with these options and sets its address.
serve() {
    "$wsd" serve --port 0 "$@" 2>"$folder/server.log" &
    server=$!
    address=
    for _ in $(seq 600); do
        address=$(sed -n 's/^listening on //p' "$folder/server.log")
        [ -n "$address" ] && return
        sleep 0.1
    done
    cat "$folder/server.log"
    exit 1
}
stop() {
    [ -z "$server" ] || kill "$server" 2>/dev/null
    wait "$server" 2>/dev/null
    server=
}
trap stop EXIT

# Runs an agent in an empty folder, with nothing of the caller's environment, and prints its answer.
agent() {
    local log=$folder/agent.log
    (cd "$folder/work" && timeout 900 env -i PATH="$PATH" HOME="$home" "${environment[@]}" "$@" </dev/null 2>"$log")
}
# Asks through an agent and checks that it ends well with a text that has a word: ask NAME WORD COMMAND...
ask() {
    local name=$1 word=$2 answer
    shift 2
    answer=$(agent "$@")
    local status=$?
    if [ $status = 0 ] && grep -qi "$word" <<<"$answer"; then
        echo "$name: passed"
    else
        echo "FAILED $name: status $status: $answer"
        tail -n 5 "$folder/agent.log"
        failed=1
    fi
}
ask_codex() {
    environment=(CODEX_HOME="$home/codex" WSD_KEY=none)
    ask "codex, $1" "$2" "$folder/node_modules/.bin/codex" exec --skip-git-repo-check --ephemeral --sandbox read-only \
        --model "$3" "$question"
}
ask_claude() {
    environment=(CLAUDE_CONFIG_DIR="$home/claude" ANTHROPIC_BASE_URL="$address" ANTHROPIC_API_KEY=none
        ANTHROPIC_MODEL="$3" ANTHROPIC_DEFAULT_HAIKU_MODEL="$3"
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 DISABLE_TELEMETRY=1 DISABLE_ERROR_REPORTING=1 DISABLE_AUTOUPDATER=1
        API_TIMEOUT_MS=900000)
    ask "claude, $1" "$2" "$folder/node_modules/.bin/claude" -p "$question" "${@:4}"
}
# The settings of Codex: the server, nothing sent elsewhere.
codex_settings() {
    cat <<TOML
model_provider = "wsd"
check_for_update_on_startup = false
[analytics]
enabled = false
[otel]
exporter = "none"
[model_providers.wsd]
name = "wsd"
base_url = "$address/v1"
wire_api = "responses"
env_key = "WSD_KEY"
supports_websockets = false
request_max_retries = 0
stream_max_retries = 0
stream_idle_timeout_ms = 900000
TOML
}
# The same without tools and instructions.
codex_settings_without_tools() {
    cat <<TOML
model_instructions_file = "$folder/instructions.md"
include_environment_context = false
include_permissions_instructions = false
include_apps_instructions = false
web_search = "disabled"
$(codex_settings)
[skills]
include_instructions = false
[skills.bundled]
enabled = false
[agents]
enabled = false
[tools.experimental_request_user_input]
enabled = false
[tools.update_plan]
enabled = false
[features]
apps = false
goals = false
plugins = false
shell_snapshot = false
shell_tool = false
unified_exec = false
view_image = false
TOML
}

agents=()
for name in codex claude; do
    if timeout 400 npm install --silent --no-audit --no-fund --prefix "$folder" "${!name}" >"$folder/npm.log" 2>&1; then
        agents+=("$name")
    else
        echo "skipped: npm cannot install ${!name} here"
    fi
done

echo "You answer questions." >"$folder/instructions.md"
serve
codex_settings_without_tools >"$home/codex/config.toml"
for name in "${agents[@]}"; do
    case $name in
    codex) ask_codex "the built-in pair" "thank you" wsd ;;
    claude) ask_claude "the built-in pair" "thank you" wsd --tools "" --system-prompt "You answer questions." ;;
    esac
done
stop

model=${WSD_MODELS:-}/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf
if [ -f "$model" ]; then
    # One model in both seats: the answers are those of the model `base`, in its own chat form.
    serve --base "$model" --draft "$model" --base-template own --request-timeout-seconds 900
    codex_settings >"$home/codex/config.toml"
    for name in "${agents[@]}"; do
        "ask_$name" "all tools and instructions" . base
    done
else
    echo "skipped: the agents' own tools and instructions (WSD_MODELS has no qwen2.5-coder-0.5b-instruct-q4_k_m.gguf)"
fi
exit $failed
