#!/bin/bash
# All checks on an NVIDIA GPU, with binaries that may have been built elsewhere, in less than five minutes.
#
#   scripts/gpu_check.sh WSD TESTS [SECONDS]
#
# WSD is the program; TESTS is the unit test binary of wsd-nn (cargo test -p wsd-nn --lib --no-run), which runs its
# `cuda` tests against the reference's numbers. Fixtures are read from this tree; $WSD_DATA adds checkpoints to them.
# Training: a few steps on random models, of all weights and by LoRA; their tokens per second are in the lines of metrics.
# Speed: decoding, scoring and prefill of random models in several formats, and weak-to-strong decoding of a pair.
set -u
cd "$(dirname "$0")/.." || exit 1
wsd=$1 tests=$2 seconds=${3:-280} started=$SECONDS failed=0
export wsd WSD_FIXTURES=${WSD_FIXTURES:-$PWD/crates/nn/tests/fixtures}

say() { echo "[$((SECONDS - started)) s] $*"; }
left() { echo $((seconds - (SECONDS - started))); }
part() { # its name, then a command
  local name=$1
  shift
  [ "$(left)" -lt 10 ] && { say "$name: skipped, out of time"; return; }
  say "$name"
  timeout "$(left)" bash -c '"$@"' part "$@" || { say "$name: FAILED with $?"; failed=1; }
}

# Trains a random model of a width, a number of layers, and an adapter (a table of a run file) on texts of 1,024 tokens.
training() {
  local folder width=$1 layers=$2 adapter=$3 row
  folder=$(mktemp -d)
  row=$(for word in $(seq 1 400); do printf 'word %s, ' "$word"; done)
  for _ in $(seq 1 40); do echo "{\"text\": \"$row\"}"; done > "$folder/rows.jsonl"
  cat > "$folder/run.toml" <<RUN
output = "$folder/run"
device = "${WSD_DEVICE:-cuda}"
[model]
tokenizer = "$WSD_FIXTURES/llama"
[model.config]
architectures = ["LlamaForCausalLM"]
hidden_size = $width
intermediate_size = $((width * 4))
num_hidden_layers = $layers
num_attention_heads = $((width / 64))
num_key_value_heads = $((width / 256))
vocab_size = 32000
max_position_embeddings = 2048
[data]
train = ["$folder/rows.jsonl"]
max_length = 1024
packing = true
[train]
max_steps = 6
batch_size = 8
bf16 = true
logging_steps = 1
save_steps = 0
$adapter
RUN
  "$wsd" train pretrain --config "$folder/run.toml"
  local failed=$?
  rm -r "$folder"
  return $failed
}

export -f training

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null
for model in "1b bf16" "1b q8_0" "1b q4_k" "8b q4_k" "8b q8_0" "8b bf16"; do
  read -r shape dtype <<<"$model"
  part "speed of $shape in $dtype" "$wsd" bench engine "$shape" --dtype "$dtype" --device cuda --repeats 3 \
    --context 128 --context 4096 --tokens 64
done
part "two streams" "$tests" cuda::tests::streams --nocapture
part "numbers against the reference" "$tests" cuda:: --skip compile --skip streams --nocapture
part "a pair" "$wsd" bench wsd --base 1b --draft 150m --dtype bf16 --device cuda --window 10 -n 256 --repeats 1 --prompts 2
part "training of 1.1B weights by LoRA" training 2048 16 '[lora]'
part "training of all of 150M weights" training 768 12 ''
say "done"
exit $failed
