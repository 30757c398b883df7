#!/usr/bin/env bash
# Schemathesis against a running `wsd serve`: schemathesis.sh http://127.0.0.1:8080 [path to st] [examples]
#
# Needs `pip install schemathesis`. Whether a valid request must be accepted is left out: an answer may not fit the model's
# context, and a chat must end with someone to answer, which no schema says.
set -euo pipefail
server=${1:-http://127.0.0.1:8080}
exec "${2:-st}" run "$server/openapi.json" --continue-on-failure --max-examples "${3:-200}" --checks all \
    --exclude-checks positive_data_acceptance
