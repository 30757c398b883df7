#!/usr/bin/env bash
# Runs the tests that take minutes: 320 schemas, and the cost of a constraint per token (with WSD_MODELS, a folder with
# the two files that the test names).
#
#     scripts/slow_tests.sh
set -euo pipefail
cd "$(dirname "$0")/.."
WSD_SCHEMAS=320 cargo test --release --locked -p wsd --test schemas -- --include-ignored --nocapture
