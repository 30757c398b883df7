#!/bin/bash
# All checks on an NVIDIA GPU, with binaries that may have been built elsewhere, in less than five minutes.
#
#   scripts/gpu_check.sh WSD TESTS [SECONDS]
#
# WSD is the program; TESTS is the unit test binary of wsd-nn (cargo test -p wsd-nn --lib --no-run), which runs its
# `cuda` tests against the reference's numbers. Fixtures are read from this tree; $WSD_DATA adds checkpoints to them.
# Speed: decoding, scoring and prefill of random models in several formats, and weak-to-strong decoding of a pair.
set -u
cd "$(dirname "$0")/.." || exit 1
wsd=$1 tests=$2 seconds=${3:-280} started=$SECONDS failed=0
export WSD_FIXTURES=${WSD_FIXTURES:-$PWD/crates/nn/tests/fixtures}

say() { echo "[$((SECONDS - started)) s] $*"; }
left() { echo $((seconds - (SECONDS - started))); }
part() { # its name, then a command
  local name=$1
  shift
  [ "$(left)" -lt 10 ] && { say "$name: skipped, out of time"; return; }
  say "$name"
  timeout "$(left)" "$@" || { say "$name: FAILED with $?"; failed=1; }
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null
for model in "1b bf16" "1b q8_0" "1b q4_k" "8b q4_k" "8b q8_0" "8b bf16"; do
  read -r shape dtype <<<"$model"
  part "speed of $shape in $dtype" "$wsd" bench engine "$shape" --dtype "$dtype" --device cuda --repeats 3 \
    --context 128 --context 4096 --tokens 64
done
part "two streams" "$tests" cuda::tests::streams --nocapture
part "numbers against the reference" "$tests" cuda:: --skip compile --skip streams --nocapture
part "a pair" "$wsd" bench wsd --base 1b --draft 150m --dtype bf16 --device cuda --window 10 -n 256 --repeats 1 --prompts 2
say "done"
exit $failed
