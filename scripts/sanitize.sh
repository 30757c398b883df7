#!/usr/bin/env bash
# Kernels, crew and engine under AddressSanitizer (all tests of wsd-nn) and ThreadSanitizer (the crew's tests).
#
#     scripts/sanitize.sh [FOLDER]       # builds in FOLDER, target/sanitize if not said
#
# The stable toolchain brings the sanitizers' runtimes along; RUSTC_BOOTSTRAP lets it use them. Its standard library is not built with
# them, so ThreadSanitizer does not see what the locks and fences of std, rayon and crossbeam put in order, and reports accesses there
# that are no races. What counts is a report whose own line is one of this project's.
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

# One test leaks a file on purpose, to have it for as long as the program runs.
ASAN_OPTIONS=detect_leaks=0 run address --lib --test engine --test golden
echo "AddressSanitizer: nothing found"

run thread --lib --no-run
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run thread --lib kernels::crew > "$log" 2>&1 || true
if ! grep -q "running" "$log" || grep "SUMMARY: .*crates/nn/src" "$log"; then
    cat "$log"
    exit 1
fi
echo "ThreadSanitizer: $(grep -c SUMMARY "$log") reports from within std, rayon and crossbeam, none from here"
