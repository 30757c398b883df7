#!/usr/bin/env bash
# Runs the tests that take minutes and are ignored otherwise: the kills of training with every optimizer and adapter, 320 schemas,
# and the cost of a constraint per token (with WSD_MODELS, a folder with the two files it names).
#
#     scripts/slow_tests.sh
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --release --locked -p wsd --test train -- --ignored --nocapture
WSD_SCHEMAS=320 cargo test --release --locked -p wsd --test schemas -- --include-ignored --nocapture
