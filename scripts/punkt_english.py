#!/usr/bin/env python3
"""Writes crates/eval/src/text/punkt_english.txt: the English parameters of NLTK's sentence tokenizer.

    NLTK_DATA=FOLDER venv/bin/python scripts/punkt_english.py       # needs nltk and its punkt_tab

Four lines of words separated by spaces: abbreviations; pairs of words around a period that ends no
sentence (word+word); frequent first words of sentences; words seen in lower case. A word of the last
line is followed by /s if it never stands capitalized within a sentence, and by /l if it is never
capitalized and has begun a sentence in lower case. These two marks are all that the algorithm asks of the
orthographic contexts (Kiss and Strunk 2006, section 4.1.1).
"""

from pathlib import Path

from nltk.tokenize.punkt import PunktTokenizer

MID_UC, UC, BEG_LC, LC = 4, 14, 16, 112
params = PunktTokenizer("english")._params


def mark(flags):
    """Returns the marks of a word."""
    return ("/s" if not flags & MID_UC else "") + ("/l" if not flags & UC and flags & BEG_LC else "")


lines = [
    sorted(word for word in params.abbrev_types if " " not in word),
    sorted("+".join(pair) for pair in params.collocations),
    sorted(params.sent_starters),
    sorted(word + mark(flags) for word, flags in params.ortho_context.items() if flags & LC),
]
path = Path(__file__).resolve().parent.parent / "crates/eval/src/text/punkt_english.txt"
path.write_text("".join(" ".join(line) + "\n" for line in lines))
print(path, path.stat().st_size, "bytes")
