#!/usr/bin/env python3
"""Checks the tree's written style and fails where a limit is passed.

    scripts/style.py          print each figure beside its limit; exit 1 if one is passed
    scripts/style.py -v       list the first offenders of each figure too
    scripts/style.py --fix    wrap the prose of all markdown files, then check

Markdown may be longer than its limit in table rows, code blocks, lines that are one link or image
(badges), headings, front matter, blocks between `<!-- name -->` and `<!-- /name -->`, which programs
write, and in the files of `SKIPPED`. Closures are not counted as functions, nor are properties of
proptest, whose arguments are bindings (`name in strategy`).
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

MARKDOWN_COLUMNS = 100
RUST_COLUMNS = 120
ARGUMENTS = 5  # of a function, self included
OPENER_SHARE = 0.01  # of all doc comments; the share must stay below
DOC_EXAMPLES = 40  # at least
SHOWN = 20  # offenders listed by -v

OPENERS = "what how whether where why of which who that when so as".split()

# Markdown that is a program's output or its template.
SKIPPED = {"docs/lab/results.md", "crates/lab/src/world/card.md", "crates/wsd/src/cli/lab/pairs.md"}

# Fence attributes of a block that rustdoc runs. Rustdoc sees libraries only, so not `src/cli`.
RUNNABLE = {"rust", "should_panic", "edition2021", "edition2024"}


def files(suffix):
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", f"*{suffix}"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\n")
    return [name for name in sorted(set(listed)) if name and (ROOT / name).is_file()]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


# Markdown ---------------------------------------------------------------------------------------

ITEM = re.compile(r"(\s*)([-*+]|\d+[.)])\s+(?=\S)")
FENCE = re.compile(r"\s*(```+|~~~+)")
LINK_LINE = re.compile(r"\s*(\[?!?\[[^\]]*\]\([^)]*\)(\]\([^)]*\))?\s*)+$")
KEPT_LINE = re.compile(r"\s*(\||<!--|#{1,6}\s|\[[^\]]+\]:\s)")
# A code span is one word; so is everything without a space.
WORD = re.compile(r"(?:(`+)(?!`).+?(?<!`)\1(?!`)|\S)+")
# Words that stay behind the one before: at the beginning of a line they would begin a block of
# another kind; `%` belongs to its number.
GLUED = re.compile(r"([-+*>|=]+|#{1,6}|\d+[.)])$|[|>%]|```|~~~|<!--")


def markdown_lines(text):
    """Yields each line with whether it is prose, which is what may be wrapped."""
    lines = text.split("\n")
    fence, block, front = None, None, lines[0] == "---"
    indented = False
    for index, line in enumerate(lines):
        prose = False
        if front:
            front = index == 0 or line != "---"
        elif block:
            block = None if line.strip() == f"<!-- /{block} -->" else block
        elif fence:
            fence = None if line.strip() == fence else fence
        elif match := FENCE.match(line):
            fence = match[1]
        elif (match := re.match(r"<!-- (\S+) -->$", line)) and f"<!-- /{match[1]} -->" in lines:
            block = match[1]
        elif line.startswith("    ") and (indented or index == 0 or not lines[index - 1].strip()):
            indented = True
            yield line, False
            continue
        else:
            prose = bool(line.strip()) and not KEPT_LINE.match(line) and not LINK_LINE.match(line)
        indented = indented and not line.strip()
        yield line, prose


def fill(text, first, rest):
    """Returns `text` as lines of at most `MARKDOWN_COLUMNS`, the first one behind `first`."""
    words = []
    for match in WORD.finditer(text):
        word = match[0]
        parts = word.split() if len(rest) + len(word) > MARKDOWN_COLUMNS else [word]
        for part in parts:
            if words and GLUED.match(part):
                words[-1] += f" {part}"
            else:
                words.append(part)
    lines, line = [], first
    for number, word in enumerate(words):
        if number == 0:
            line += word
        elif len(line) + 1 + len(word) <= MARKDOWN_COLUMNS:
            line += f" {word}"
        else:
            lines.append(line)
            line = rest + word
    return lines + [line]


def wrapped(text):
    """Returns `text` with its paragraphs and list items filled; the same text when applied twice."""
    out, words, first, rest, number = [], [], "", "", None

    def flush():
        if words:
            out.extend(fill(" ".join(words), first, rest))
            words.clear()

    for line, prose in markdown_lines(text):
        if not prose:
            flush()
            out.append(line)
            continue
        item = ITEM.match(line)
        # A number inside a paragraph is an item only where it begins or continues a list.
        this = int(item[2][:-1]) if item and item[2][0].isdigit() else None
        if item and (not words or this in (None, 1) or this == (number or 0) + 1):
            flush()
            first, number = item[0], this
            rest = " " * len(first)
            line = line[len(first):]
        elif not words:
            first = rest = re.match(r"\s*", line)[0]
            number = None
        words.append(line.strip())
        if line.endswith(("  ", "\\")):
            flush()
            out[-1] += "  " if line.endswith("  ") else ""
    flush()
    return "\n".join(out)


# Rust -------------------------------------------------------------------------------------------

OPAQUE = re.compile(
    r"//[^\n]*|/\*.*?\*/|\bb?r(#*)\".*?\"\1|\"(?:\\.|[^\"\\])*\"|'(?:\\[^']+|\\'|[^'\\\n])'", re.DOTALL
)
FUNCTION = re.compile(r"\bfn\s+(\w+)\s*")


def blank(match):
    return re.sub(r"[^\n]", " ", match[0])


def end_of_group(code, start):
    """Returns the index behind the bracket that closes the one at `start`, and the top commas inside."""
    depth, commas, last = 0, 0, ""
    for index in range(start, len(code)):
        char = code[index]
        if char in "([{<":
            depth += 1
        elif char in ")]}" or (char == ">" and code[index - 1] not in "-="):
            depth -= 1
            if depth == 0:
                return index + 1, commas + (last not in ("", ","))
        elif char == "," and depth == 1:
            commas += 1
        if not char.isspace():
            last = char if index > start else last
    return len(code), 0


def functions(text):
    """Yields line, name and number of arguments of each function in `text`."""
    code = OPAQUE.sub(blank, text)
    for match in FUNCTION.finditer(code):
        at = match.end()
        if code[at : at + 1] == "<":
            at, _ = end_of_group(code, at)
        if code[at : at + 1] == "(":
            end, count = end_of_group(code, at)
            if not re.search(r"\sin\s", code[at:end]):
                yield code.count("\n", 0, match.start()) + 1, match[1], count


def doc_comments(text):
    """Yields line and text of each doc comment: a run of lines that begin with `///` or `//!`."""
    start, kind, body = 0, None, []
    for number, line in enumerate(text.split("\n") + [""], 1):
        match = re.match(r"\s*(///|//!)(?!/) ?(.*)", line)
        if body and (not match or match[1] != kind):
            yield start, "\n".join(body)
            body = []
        if match:
            start, kind = (start, kind) if body else (number, match[1])
            body.append(match[2])


def missing_from_tree():
    """Returns source files that the README's tree lacks, and files in it that do not exist."""
    tree = read("README.md").split("## The tree")[-1]
    parts = {part.split("\n")[0].strip(): part for part in re.split(r"\n(?=crates/)", tree)[1:]}
    offenders = []
    for crate in sorted((ROOT / "crates").glob("*/src")):
        folder = f"crates/{crate.parent.name}/src/"
        named = set(re.findall(r"(?<![\w/])\w+\.rs\b", parts.get(folder, "")))
        there = {path.name for path in (ROOT / folder).glob("*.rs")} - {"lib.rs"}
        offenders += [f"README.md: {folder}{name} is not in the tree" for name in sorted(there - named)]
        offenders += [f"README.md: {folder}{name} does not exist" for name in sorted(named - there)]
    return offenders


def examples(doc):
    """Returns how many code blocks of a doc comment rustdoc runs."""
    count, fence = 0, None
    for line in doc.split("\n"):
        if fence:
            fence = None if line.strip() == fence else fence
        elif match := re.match(r"\s*(```+|~~~+)(.*)", line):
            fence = match[1]
            count += set(re.findall(r"[^\s,]+", match[2])) <= RUNNABLE
    return count


# The figures ------------------------------------------------------------------------------------


def check(verbose):
    markdown, rust, many, openers = [], [], [], []
    comments = run = 0
    for name in files(".md"):
        if name not in SKIPPED:
            for number, (line, prose) in enumerate(markdown_lines(read(name)), 1):
                if prose and len(line) > MARKDOWN_COLUMNS:
                    markdown.append(f"{name}:{number}: {len(line)} columns")
    for name in files(".rs"):
        text = read(name)
        for number, line in enumerate(text.split("\n"), 1):
            if len(line) > RUST_COLUMNS:
                rust.append(f"{name}:{number}: {len(line)} columns")
        for number, function, arguments in functions(text):
            if arguments > ARGUMENTS:
                many.append(f"{name}:{number}: {function} has {arguments} arguments")
        for number, doc in doc_comments(text):
            comments += 1
            word = re.match(r"\W*([A-Za-z'-]*)", doc)[1].lower()
            if word in OPENERS:
                openers.append(f"{name}:{number}: {doc.split(chr(10))[0]}")
            if "/src/" in name and "/src/cli/" not in name and not name.endswith("main.rs"):
                run += examples(doc)
    share = len(openers) / max(comments, 1)
    tree = missing_from_tree()
    figures = [
        (not markdown, f"markdown lines over {MARKDOWN_COLUMNS} columns: {len(markdown)}", markdown),
        (not tree, f"differences between the README's tree and the source files: {len(tree)}", tree),
        (not rust, f"Rust lines over {RUST_COLUMNS} columns: {len(rust)}", rust),
        (not many, f"functions with more than {ARGUMENTS} arguments: {len(many)}", many),
        (share < OPENER_SHARE,
         f"doc comments that open with a clause: {len(openers)} of {comments}, {share:.1%} (below {OPENER_SHARE:.0%})",
         openers),
        (run >= DOC_EXAMPLES, f"doc examples that run: {run} (at least {DOC_EXAMPLES})", []),
    ]
    for holds, figure, offenders in figures:
        print(f"{'ok    ' if holds else 'FAILED'} {figure}")
        if verbose:
            for offender in offenders[:SHOWN]:
                print(f"         {offender}")
            if len(offenders) > SHOWN:
                print(f"         and {len(offenders) - SHOWN} more")
    return all(holds for holds, _, _ in figures)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-v", "--verbose", action="store_true", help="list the first offenders")
    parser.add_argument("--fix", action="store_true", help="wrap the prose of markdown files")
    arguments = parser.parse_args()
    if arguments.fix:
        for name in files(".md"):
            before = read(name)
            after = before if name in SKIPPED else wrapped(before)
            if after != before:
                (ROOT / name).write_text(after, encoding="utf-8")
                print(f"wrapped {name}")
    sys.exit(0 if check(arguments.verbose) else 1)


if __name__ == "__main__":
    main()
