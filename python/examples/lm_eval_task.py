"""lm-evaluation-harness on a local task: a choice among endings, scored by the base, and a short
answer, written by the strategy.

    pip install lm-eval
    python examples/lm_eval_task.py
"""

import json
import tempfile
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager

import wsd.lm_eval  # registers the model `wsd`

FACTS = {"fox": "orange", "frog": "green", "crow": "black", "swan": "white", "bear": "brown", "pig": "pink"}
COLOURS = list(FACTS.values())

DATA = """\
dataset_path: json
dataset_kwargs:
  data_files:
    test: FOLDER/rows.jsonl
test_split: test
"""
CHOICE = """\
task: colour_choice
output_type: multiple_choice
doc_to_text: "A {{animal}} is"
doc_to_choice: "{{choices}}"
doc_to_target: label
metric_list:
  - metric: acc
  - metric: acc_norm
"""
ANSWER = """\
task: colour_answer
output_type: generate_until
doc_to_text: "What colour is a {{animal}}?"
doc_to_target: "{{choices[label]}}"
generation_kwargs:
  until: ["\\n\\n"]
  max_gen_toks: 64
filter_list:
  - name: colour
    filter:
      - function: regex
        regex_pattern: "(orange|green|black|white|brown|pink|red|grey)"
      - function: take_first
metric_list:
  - metric: exact_match
"""

with tempfile.TemporaryDirectory() as folder:
    rows = [{"animal": animal, "choices": COLOURS, "label": i} for i, animal in enumerate(FACTS)]
    Path(folder, "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, task in [("choice", CHOICE), ("answer", ANSWER)]:
        Path(folder, f"{name}.yaml").write_text(task + DATA.replace("FOLDER", folder))
    results = lm_eval.simple_evaluate(
        model="wsd",
        model_args="strategy=wsd,window=6",
        tasks=["colour_choice", "colour_answer"],
        task_manager=TaskManager(include_path=folder, include_defaults=False),
        apply_chat_template=True,
        bootstrap_iters=0,
    )
for task, metrics in results["results"].items():
    print(task, {name: value for name, value in metrics.items() if isinstance(value, float)})
