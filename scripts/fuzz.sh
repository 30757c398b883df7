#!/usr/bin/env bash
# Mutates every kind of input that is read from outside, for some minutes each, on a stable compiler.
# Inputs that end the reader, hang it or take 1 GiB are kept in fuzz/findings/ and fail the script.
#
#     scripts/fuzz.sh MINUTES [TARGET...]      # `cargo run -p wsd-fuzz -- list` names the targets
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${1:?usage: scripts/fuzz.sh MINUTES [TARGET...]}
shift
cargo build --quiet --locked -p wsd-fuzz
fuzz=target/debug/wsd-fuzz
status=0
for target in ${*:-$("$fuzz" list)}; do
    "$fuzz" run "$target" --minutes "$minutes" --seed "$RANDOM" || status=1
done
exit $status
