#!/usr/bin/env bash
# The files of a release, in the folder of the first argument (dist): scripts/release.sh [FOLDER] [TARGET]
#
#   wsd-VERSION-TARGET.tar.gz   the program, LICENSE, README, completions of five shells, manual pages
#   wsd-VERSION-oci.tar         an OCI image with the program, if it is static, and the certificates of this machine
#   wsd-VERSION.cdx.json        the packages in the program (CycloneDX)
#   SHA256SUMS
#
# The default target is static Linux (x86_64-unknown-linux-musl, `rustup target add`), which needs musl-gcc (musl-tools
# of Debian). A static program loads no libraries, so it runs on CPUs only; for NVIDIA GPUs build for
# x86_64-unknown-linux-gnu on the oldest system that is to run it. PROFILE=dev builds without optimisation, to try the
# script.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-dist}
target=${2:-$(rustc --version --verbose | sed -n 's/^host: \([^-]*\)-.*/\1-unknown-linux-musl/p')}
profile=${PROFILE:-release}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

case $target in
    *-musl)
        # The compiler for the C and C++ parts: the tokenizers' regular expressions, the cryptography of TLS.
        export "CC_${target//-/_}=${CC_MUSL:-musl-gcc}"
        ;;
esac
cargo build --locked --profile "$profile" --target "$target" -p wsd
folder=target/$target/$([ "$profile" = dev ] && echo debug || echo "$profile")

rm -rf "$out"
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/wsd-$version-$target
mkdir -p "$tree/completions"
cp "$folder/wsd" LICENSE README.md "$tree/"
[ "$profile" = dev ] || strip "$tree/wsd"
for shell in bash zsh fish elvish powershell; do
    "$tree/wsd" completions "$shell" > "$tree/completions/wsd.$shell"
done
"$tree/wsd" man "$tree/man1"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime='@0' -C "$work" \
    -czf "$out/wsd-$version-$target.tar.gz" "wsd-$version-$target"
case $target in
    *-musl) python3 scripts/oci_image.py "$tree/wsd" "$out/wsd-$version-oci.tar" "$version" ;;
    *) echo "skipped: the OCI image, which has no libraries, needs a static program" ;;
esac
python3 scripts/sbom.py > "$out/wsd-$version.cdx.json"
(cd "$out" && sha256sum -- * > "$work/sums" && mv "$work/sums" SHA256SUMS)
ls -l "$out"
if command -v file > /dev/null; then file "$tree/wsd"; fi
