#!/usr/bin/env bash
# The Python package: builds the wheel, runs its tests and its examples on the built-in pair: python.sh [path to wsd]
#
# Without Python 3.9 or later, or where maturin cannot be installed, it skips and says so; so do the checks of the stubs
# without mypy and those of the model class without lm-eval. PROFILE=release builds as `pip install` does. What is
# installed is kept in target/python.
set -euo pipefail
cd "$(dirname "$0")/.."
wsd=$(realpath -m "${1:-target/debug/wsd}")
profile=${PROFILE:-dev}
folder=$PWD/target/python
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}

if ! python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
    echo "skipped: Python 3.9 or later with venv and pip is not installed"
    exit 0
fi
python3 -m venv "$folder"
install() { timeout 600 "$folder/bin/pip" install --quiet --disable-pip-version-check "$@" >"$folder/pip.log" 2>&1; }
if ! install 'maturin>=1.9.4,<2' numpy pytest; then
    echo "skipped: maturin, numpy and pytest cannot be installed here"
    exit 0
fi
install mypy || echo "skipped: the stubs are not checked (mypy cannot be installed here)"
install 'lm-eval>=0.4.9' || echo "skipped: the model class is not tested (lm-eval cannot be installed here)"

rm -rf "$folder/wheels"
"$folder/bin/maturin" build --locked --profile "$profile" --manifest-path python/Cargo.toml --out "$folder/wheels" \
    --interpreter "$folder/bin/python"
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall "$folder"/wheels/*.whl
echo "$profile" >"$folder/profile"

[ -x "$wsd" ] || cargo build --locked -p wsd
export WSD_BIN=$wsd HF_HUB_OFFLINE=1 HF_DATASETS_CACHE=$folder/datasets
# Outside the source folder, whose package lacks the native part.
cd "$folder"
source=$OLDPWD/python
bin/pytest --quiet -c "$source/pyproject.toml" --rootdir "$source" -p no:cacheprovider "$source/tests"
if [ -x bin/stubtest ]; then
    bin/stubtest wsd._wsd
    bin/mypy --strict --ignore-missing-imports --allow-subclassing-any --allow-untyped-decorators -p wsd
fi
for example in "$source"/examples/*.py; do
    case $example in
    *lm_eval*) bin/python -c 'import lm_eval' 2>/dev/null || continue ;;
    esac
    echo "== $(basename "$example")"
    bin/python "$example"
done
