#!/usr/bin/env python3
"""Golden renderings of chat templates, and golden ids of tokenizers.

chat_templates.json: every template of the data folder rendered by transformers (apply_chat_template on a
fast tokenizer that has nothing but the template and its special tokens), for five conversations; case `e`, with
variables, only where they change the text of case `a`.
tokenizers.json: ids and decoded texts by the tokenizers package.

Rerun from the repository root, with DATA the folder that has chat_templates/, tokenizers/ and weights/:

    python scripts/chat_goldens.py --data DATA --out crates/core/tests/goldens
"""

import argparse
import datetime
import json
from pathlib import Path

import tokenizers
import transformers
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

NOW = datetime.datetime(2026, 7, 26, 12, 0, 0)
PLAIN_TOKENS = {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>"}

USER = {"role": "user", "content": "What is the capital of France?"}
CASES = {
    "a": {"messages": [USER], "add_generation_prompt": True},
    "b": {"messages": [{"role": "system", "content": "Answer in one word."}, USER], "add_generation_prompt": True},
    "c": {
        "messages": [
            USER,
            {"role": "assistant", "content": "Paris."},
            {"role": "user", "content": "And of Italy?\nSay <b>why</b> & don't \"quote\"."},
        ],
        "add_generation_prompt": True,
    },
    "d": {
        "messages": [USER, {"role": "assistant", "content": "Sure, here "}],
        "add_generation_prompt": False,
        "continue_final_message": True,
    },
    "e": {"messages": [USER], "add_generation_prompt": True, "enable_thinking": False, "reasoning_effort": "low"},
}

TOKENIZERS = [
    "tokenizers/smollm2_135m/tokenizer.json",
    "tokenizers/llama2/tokenizer.json",
    "tokenizers/mistral_7b_v0.2/tokenizer.json",
    "tokenizers/gpt_neox_20b_pythia/20B_tokenizer.json",
    "tokenizers/phi-2/tokenizer.json",
    "tokenizers/phi-3-mini/tokenizer.json",
    "tokenizers/minimind_6400/tokenizer.json",
    "tokenizers/gpt2/roberta-base_tokenizer.json",
    "weights/hf_stories260k/tokenizer.json",
    "weights/hf_babyllama_tok105/tokenizer.json",
    "weights/random_llama/tokenizer.json",
]
TEXTS = [
    "Once upon a time, there was a cat.",
    "Family \U0001f468\u200d\U0001f469\u200d\U0001f467 and a flag \U0001f3f3\ufe0f\u200d\U0001f308, thumbs \U0001f44d\U0001f3fd.",
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u516c\u56ed\u3002\u3053\u3093\u306b\u3061\u306f \ud55c\uad6d\uc5b4",
    "Cafe\u0301 na\u00efve, e\u0300\u0301 and Zalgo z\u0323\u0307a\u0335.",
    "def f(x):\n    if x > 1:\n\t\treturn x ** 2  # done\n\n    return None\n",
    "   three spaces first, two  inside, one at the end ",
    "\n\n leading line breaks\n",
    "one\r\ntwo\r\n\r\nthree\rfour",
    "<s>not a start</s> <|im_start|>user<|im_end|> [INST] <unk> <|endoftext|> <0x41>",
    "In 1999 it was 3.14159, then 1,234,567 and 0x1F; 2026-07-26.",
    "\u00c4rger \u00fcber Stra\u00dfe, \u00bfqu\u00e9 ni\u00f1o? \u0141\u00f3d\u017a \u0395\u03bb\u03bb\u03ac\u03b4\u03b1 \u041f\u0440\u0438\u0432\u0435\u0442 \u0639\u0631\u0628\u064a \u0928\u092e\u0938\u094d\u0924\u0947",
    "don't WON'T I'll we've \u2581low line\u00a0nbsp\u200bzero\ufeffbom\u2028sep",
]


class FrozenDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


def token_text(value):
    return value["content"] if isinstance(value, dict) else value


def load_template(path):
    """(template, special tokens) of a .jinja file or a tokenizer_config.json; None without a template."""
    if path.suffix == ".jinja":
        config_path = path.with_name("tokenizer_config.json")
        template = path.read_text(encoding="utf-8")
        if not config_path.exists():
            return template, PLAIN_TOKENS
        config = json.loads(config_path.read_text(encoding="utf-8"))
    else:
        config = json.loads(path.read_text(encoding="utf-8"))
        template = config.get("chat_template")
        if isinstance(template, list):
            template = {t["name"]: t["template"] for t in template}["default"]
        if template is None:
            return None
    return template, {k: token_text(config.get(f"{k}_token")) for k in PLAIN_TOKENS}


def render(template, tokens, case):
    given = {f"{k}_token": v for k, v in tokens.items() if v is not None}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **given)
    tokenizer.chat_template = template
    try:
        return {"text": tokenizer.apply_chat_template(case["messages"], tokenize=False, **{
            k: v for k, v in case.items() if k != "messages"
        })}
    except Exception as error:  # whatever a template does is part of the result
        return {"error": f"{type(error).__name__}: {error}"}


def chat_goldens(data):
    chat_template_utils.datetime = FrozenDatetime
    files = sorted(data.glob("chat_templates/**/*.jinja"))
    files += sorted(data.glob("tokenizers/*/tokenizer_config.json")) + sorted(data.glob("tokenizers/*/*.jinja"))
    templates = []
    for path in files:
        found = load_template(path)
        if found is None:
            continue
        template, tokens = found
        cases = {name: render(template, tokens, case) for name, case in CASES.items()}
        if cases["e"] == cases["a"]:
            del cases["e"]
        templates.append({"source": path.relative_to(data).as_posix(), **tokens, "cases": cases})
    return {
        "made_with": {"transformers": transformers.__version__},
        "now": NOW.isoformat(),
        "what": "bos, eos, pad and unk are the special tokens given to the template, null where it got none. "
        "An error is transformers' own, type first",
        "conversations": CASES,
        "templates": templates,
    }


def tokenizer_goldens(data):
    rows = []
    for source in TOKENIZERS:
        try:
            tok = Tokenizer.from_file(str(data / source))
        except Exception as error:  # the package raises nothing more special
            rows.append({"source": source, "error": str(error)})
            print(f"  {source}: {error}")
            continue
        cases = []
        for text in TEXTS:
            ids = tok.encode(text, add_special_tokens=False).ids
            cases.append({"ids": ids, "decoded": tok.decode(ids, skip_special_tokens=True)})
        prefix = tok.encode(TEXTS[0], add_special_tokens=True).ids
        rows.append({"source": source, "with_special_ids": prefix, "cases": cases})
    return {
        "made_with": {"tokenizers": tokenizers.__version__},
        "what": "cases[i] belongs to texts[i]: ids without added special tokens, and their decoding with special "
        "tokens skipped. with_special_ids: texts[0] with the tokenizer's own special tokens added. "
        "error: the package refuses the file",
        "texts": TEXTS,
        "tokenizers": rows,
    }


def write(path, golden, key):
    """The list under `key` with one entry to a line, the rest indented."""
    head = json.dumps({k: v for k, v in golden.items() if k != key}, indent=1, ensure_ascii=False)
    rows = ",\n".join("  " + json.dumps(r, ensure_ascii=False, separators=(",", ":")) for r in golden[key])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head[:-2] + f',\n "{key}": [\n{rows}\n ]\n}}\n', encoding="utf-8", newline="\n")
    print(f"{path.name}: {path.stat().st_size} bytes, {len(golden[key])} entries")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    chat = chat_goldens(args.data)
    write(args.out / "chat_templates.json", chat, "templates")
    for t in chat["templates"]:
        for name, result in t["cases"].items():
            if "error" in result:
                print(f"  {t['source']} {name}: {result['error'][:150]}")
    write(args.out / "tokenizers.json", tokenizer_goldens(args.data), "tokenizers")


if __name__ == "__main__":
    main()
