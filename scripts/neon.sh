#!/usr/bin/env bash
# Runs the tests of wsd-nn on an emulated AArch64 processor, without and with the dot products of
# bytes (dotprod).
#
#     scripts/neon.sh [FOLDER]       # builds in FOLDER, by default target/neon
#
# Needs qemu-aarch64-static, aarch64-linux-gnu-gcc and the sources of the standard library, which is
# built for the target as well (`rustup component add rust-src`, or a distribution's package of the
# same version).
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-target/neon}")
target=aarch64-unknown-linux-gnu
export RUSTC_BOOTSTRAP=1 CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc

run() {
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -cpu $1 -L /usr/aarch64-linux-gnu" \
        cargo test -q -Zbuild-std -p wsd-nn --target "$target" --target-dir "$folder" "${@:2}"
}
run cortex-a53 --lib kernels
run max --lib --test engine --test golden
