#!/usr/bin/env bash
# lm-evaluation-harness against a running `wsd serve`: lm_eval.sh http://127.0.0.1:8080 [python]
#
# Needs `pip install "lm-eval[api]"`. The tasks are local: a choice among endings (log-likelihood, scored by the base) and an
# answer that must hold a word (generation), through local-completions and local-chat-completions.
set -euo pipefail
server=${1:-http://127.0.0.1:8080}
python=${2:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"$python" - "$folder" <<'PYTHON'
import json, pathlib, sys

folder = pathlib.Path(sys.argv[1])
facts = [("fox", "orange"), ("frog", "green"), ("crow", "black"), ("swan", "white"), ("bear", "brown"), ("pig", "pink")]
colours = [colour for _, colour in facts]
rows = [{"animal": animal, "choices": colours, "label": i} for i, (animal, _) in enumerate(facts)]
(folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
data = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {folder}/rows.jsonl\ntest_split: test\n"
(folder / "choice.yaml").write_text(
    "task: colour_choice\n" + data + "output_type: multiple_choice\n"
    'doc_to_text: "A {{animal}} is"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: label\n'
    "metric_list:\n  - metric: acc\n  - metric: acc_norm\n"
)
(folder / "answer.yaml").write_text(
    "task: colour_answer\n" + data + "output_type: generate_until\n"
    'doc_to_text: "What colour is a {{animal}}?"\ndoc_to_target: "{{choices[label]}}"\n'
    'generation_kwargs:\n  until: ["\\n\\n"]\n  max_gen_toks: 64\n  do_sample: false\n  temperature: 0\n'
    "filter_list:\n  - name: colour\n    filter:\n      - function: regex\n"
    '        regex_pattern: "(orange|green|black|white|brown|pink|red|grey)"\n      - function: take_first\n'
    "metric_list:\n  - metric: exact_match\n"
)
PYTHON

run() { "$python" -m lm_eval run --include_path "$folder" --batch_size 1 "$@"; }
for model in wsd base; do
    completions="model=$model,base_url=$server/v1/completions,tokenizer_backend=remote,num_concurrent=4,max_length=512"
    run --model local-completions --model_args "$completions" --tasks colour_choice,colour_answer
done
chat="model=wsd,base_url=$server/v1/chat/completions,num_concurrent=4"
run --model local-chat-completions --model_args "$chat" --tasks colour_answer --apply_chat_template
