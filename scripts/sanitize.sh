#!/usr/bin/env bash
# Runs all tests of wsd-nn under AddressSanitizer, and those of the worker threads under
# ThreadSanitizer.
#
#     scripts/sanitize.sh [FOLDER]       # builds in FOLDER, by default target/sanitize
#
# The stable toolchain ships the sanitizers' runtimes; RUSTC_BOOTSTRAP lets it use them. Its standard
# library is not instrumented: ThreadSanitizer does not see the order that locks and fences of std,
# rayon and crossbeam establish, and reports accesses there that do not race. Only a report whose own
# line lies in this project counts.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-target/sanitize}")
target=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1

run() {
    local sanitizer=$1
    shift
    RUSTFLAGS="-Zsanitizer=$sanitizer -Cunsafe-allow-abi-mismatch=sanitizer" \
        cargo test -q -p wsd-nn --target "$target" --target-dir "$folder/$sanitizer" "$@"
}

# One test leaks a file on purpose, to keep it for as long as the program runs.
# The emulator of GPU kernels changes stacks, which the sanitizer does not follow.
ASAN_OPTIONS=detect_leaks=0 run address --lib --test engine --test golden -- --skip cuda::tests
echo "AddressSanitizer: nothing found"

run thread --lib --no-run
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run thread --lib kernels::workers > "$log" 2>&1 || true
if ! grep -q "running" "$log" || grep "SUMMARY: .*crates/nn/src" "$log"; then
    cat "$log"
    exit 1
fi
echo "ThreadSanitizer: $(grep -c SUMMARY "$log") reports from within std, rayon and crossbeam, none from here"
