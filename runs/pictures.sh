#!/bin/sh
# Makes the README's pictures out of what the built-in pair answers: docs/compare.svg and docs/handover.svg.
set -eu
wsd=${WSD:-target/release/wsd}
"$wsd" compare --quiet --svg docs/compare.svg > /dev/null
python3 scripts/handover_svg.py "$wsd" "${1:-How would you block the chimney?}" docs/handover.svg
