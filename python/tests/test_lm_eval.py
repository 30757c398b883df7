"""The model class for lm-evaluation-harness, beside `wsd eval`."""

import json
import os
from pathlib import Path

import pytest

harness = pytest.importorskip("lm_eval", reason="lm-eval is not installed")

from lm_eval.tasks import TaskManager  # noqa: E402

import wsd.lm_eval as subject  # noqa: E402

ITEMS = 12
ARC = """\
task: arc_items
dataset_path: json
dataset_kwargs:
  data_files:
    test: FOLDER/rows.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{choices.label.index(answerKey)}}"
doc_to_choice: "{{choices.text}}"
metric_list:
  - metric: acc
  - metric: acc_norm
"""
GSM8K = """\
task: gsm8k_items
dataset_path: json
dataset_kwargs:
  data_files:
    test: FOLDER/questions.jsonl
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs:
  until: ["\\n\\n"]
  max_gen_toks: 32
metric_list:
  - metric: exact_match
"""


class Request:
    """The part of the harness's requests that models read."""

    def __init__(self, *args):
        self.args = args


@pytest.fixture(scope="module")
def model():
    return subject.WsdLM(batch_size=4)


def evaluate(folder, task, text, **arguments):
    """Runs one task and returns its metrics and samples."""
    Path(folder, f"{task}.yaml").write_text(text.replace("FOLDER", str(folder)))
    results = harness.simple_evaluate(
        model="wsd",
        tasks=[task],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        **arguments,
    )
    return results["results"][task], results["samples"][task]


def test_choices_are_those_of_wsd_eval(tmp_path, program):
    data = os.environ.get("WSD_DATA")
    if not data:
        pytest.skip("WSD_DATA does not name the benchmark files")
    lines = Path(data, "arc/arc_easy_test.jsonl").read_text().splitlines()[:ITEMS]
    Path(tmp_path, "arc.jsonl").write_text("\n".join(lines) + "\n")
    rows = []
    for line in lines:
        row = json.loads(line)
        choices = row["question"]["choices"]
        columns = {key: [choice[key] for choice in choices] for key in ("text", "label")}
        rows.append({"question": row["question"]["stem"], "choices": columns, "answerKey": row["answerKey"]})
    Path(tmp_path, "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics, samples = evaluate(tmp_path, "arc_items", ARC, model_args="strategy=base")

    out = tmp_path / "run"
    program("eval", f"arc_easy={tmp_path}/arc.jsonl", "--out", str(out), "--strategy", "base", "--quiet")
    records = {}
    for path in out.rglob("*.jsonl"):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if isinstance(record.get("scores"), list):
                records[record["id"]] = [score["logprob"] for score in record["scores"]]
    assert len(records) == ITEMS
    ids = [json.loads(line)["id"] for line in lines]
    for sample in samples:
        ours = [float(response[0][0]) for response in sample["resps"]]
        assert ours == pytest.approx(records[ids[sample["doc_id"]]], abs=1e-9)
    right = sum(
        max(range(len(row["choices"]["text"])), key=lambda i: records[item][i])
        == row["choices"]["label"].index(row["answerKey"])
        for item, row in zip(ids, rows)
    )
    assert metrics["acc,none"] == pytest.approx(right / ITEMS)


@pytest.mark.parametrize("chat", [False, True])
def test_answers_are_those_of_the_strategy(tmp_path, strategy, chat):
    questions = ["Where does the bread come from?", "Where does the duck live?"]
    rows = [{"question": question, "answer": "x"} for question in questions]
    Path(tmp_path, "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, samples = evaluate(tmp_path, "gsm8k_items", GSM8K, apply_chat_template=chat)
    answers = {sample["doc"]["question"]: sample["resps"][0][0] for sample in samples}
    for question in questions:
        expected = strategy.generate(question, raw=not chat, stop=["\n\n"], max_tokens=32)
        assert answers[question] == expected.text


def test_rolling_windows_score_each_token_once(model):
    engine = model.model
    [short] = model.loglikelihood_rolling([Request("The duck lives here.")], disable_tqdm=True)
    tokens = [model.prefix_token_id, *engine.tokenize("The duck lives here.")]
    assert short == pytest.approx(engine.logprobs(tokens).sum(), abs=1e-9)
    [long] = model.loglikelihood_rolling([Request("The duck lives. " * engine.max_len)], disable_tqdm=True)
    assert long < short


def test_an_empty_context_and_sampling(model):
    [(empty, _)] = model.loglikelihood([Request("", "The duck")], disable_tqdm=True)
    expected = model.model.logprobs([model.prefix_token_id, *model.model.tokenize("The duck")]).sum()
    assert empty == pytest.approx(expected, abs=1e-9)
    parameters = {"until": "\n", "do_sample": True, "temperature": 0.9, "seed": 3, "max_gen_toks": 16}
    sampled = [model.generate_until([Request("The duck", dict(parameters))], disable_tqdm=True) for _ in range(2)]
    assert sampled[0] == sampled[1]
    greedy = model.generate_until([Request("The duck", {"until": [], "max_gen_toks": 16})], disable_tqdm=True)
    assert greedy == [model.strategy.generate("The duck", raw=True, max_tokens=16).text]


def test_a_context_that_is_too_long_keeps_its_end(model):
    text = "The duck lives in the river. " * model.max_length
    [answer] = model.generate_until([Request(text, {"until": ["."], "max_gen_toks": 8})], disable_tqdm=True)
    assert isinstance(answer, str)
