#!/usr/bin/env python3
"""Counts contaminated prompts by a second implementation of the rule of `wsd data filter --against`.

    scripts/contamination_check.py N PROMPTS.jsonl EVALUATION.jsonl...

Reads files that `wsd data read` wrote. Prints `{"NAME": [ids]}`: the prompts, one of whose runs of N words
stands in the evaluation set, or which as a whole are one of its shorter texts.
"""

import json
import re
import sys
import unicodedata

# A character of Chinese or Japanese writing is a word by itself.
SPACELESS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U000323af"
WORD = re.compile(rf"[{SPACELESS}]|[^\W_{SPACELESS}]+")


def words(text):
    return WORD.findall(unicodedata.normalize("NFKC", text).lower())


def rows(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield row["id"], words("\n".join(message["content"] for message in row["messages"]))


def main(n, prompts, *sets):
    n = int(n)
    found = {}
    for path in sets:
        texts = [" ".join(text) for _, text in rows(path)]
        grams = {" ".join(t[i : i + n]) for t in (text.split() for text in texts) for i in range(len(t) - n + 1)}
        short = {text for text in texts if len(text.split()) < n}
        found[path] = [
            name for name, text in rows(prompts)
            if " ".join(text) in short or any(" ".join(text[i : i + n]) in grams for i in range(len(text) - n + 1))
        ]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
