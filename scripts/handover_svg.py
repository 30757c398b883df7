"""Draw docs/handover.svg: one question answered by the base, the draft and both, coloured by author, with the confidence curve.

    python scripts/handover_svg.py target/release/wsd "Where does a duck live?" docs/handover.svg
"""

import html
import json
import subprocess
import sys

DRAFT, BASE, INK, MUTED, PAPER = "#c2410c", "#0f766e", "#1f2937", "#6b7280", "#ffffff"
WIDTH, MARGIN, LINE, CHARACTER = 860, 28, 24, 8.43
CURVE_HEIGHT = 92


def answer(program, strategy, question):
    command = [program, "generate", "--json", "--strategy", strategy, "--max-tokens", "60", question]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def wrapped(tokens):
    """Lines of (text, author), broken at spaces so that they fit."""
    limit = int((WIDTH - 2 * MARGIN - 90) / CHARACTER)
    lines, length = [[]], 0
    for token in tokens:
        text = token["text"].replace("\n", " ")
        if length + len(text) > limit and text.startswith(" "):
            lines.append([])
            text, length = text[1:], 0
        lines[-1].append((text, token["by"]))
        length += len(text)
    return lines


def text(x, y, content, colour=INK, extra=""):
    return f'<text x="{x:.1f}" y="{y}" fill="{colour}" {extra}>{html.escape(content)}</text>'


def curve(done, y):
    """The windowed confidence by token, the threshold, and the switch."""
    points = [(i, token["confidence"]) for i, token in enumerate(done["tokens"]) if token["confidence"] is not None]
    step = 22
    left = MARGIN + 90

    def at(i, value):
        return left + i * step, y + CURVE_HEIGHT * (1 - value)

    threshold = done["handover"]["threshold"]
    right = left + (points[-1][0] + 2) * step
    _, line = at(0, threshold)
    parts = [
        text(MARGIN, y + 14, "confidence", MUTED),
        f'<line x1="{left}" x2="{right}" y1="{line:.1f}" y2="{line:.1f}" stroke="{MUTED}" stroke-dasharray="4 4"/>',
        text(right + 8, line + 5, f"threshold {threshold}", MUTED),
        f'<line x1="{left}" x2="{right}" y1="{y + CURVE_HEIGHT}" y2="{y + CURVE_HEIGHT}" stroke="{MUTED}" stroke-width="0.6"/>',
    ]
    path = " ".join(f"{x:.1f},{y_:.1f}" for x, y_ in (at(i, value) for i, value in points))
    parts.append(f'<polyline points="{path}" fill="none" stroke="{DRAFT}" stroke-width="2"/>')
    parts += [f'<circle cx="{at(i, v)[0]:.1f}" cy="{at(i, v)[1]:.1f}" r="3" fill="{DRAFT}"/>' for i, v in points]
    x, top = at(*points[-1])
    parts.append(f'<circle cx="{x:.1f}" cy="{top:.1f}" r="6" fill="none" stroke="{BASE}" stroke-width="2"/>')
    parts.append(text(x + 12, top - 8, f"the base takes over after token {done['handover']['at']}", BASE))
    return parts


def main(program, question, out):
    rows = [(name, answer(program, name, question)) for name in ("base", "draft", "wsd")]
    y = 44
    parts = [text(MARGIN, y, question, INK, 'font-weight="bold"')]
    parts.append(text(WIDTH - 265, y, "■ draft wrote it", DRAFT) + text(WIDTH - 130, y, "■ base", BASE))
    for name, done in rows:
        y += 44
        parts.append(text(MARGIN, y, name, MUTED))
        for line in wrapped(done["tokens"]):
            x = MARGIN + 90
            spans = "".join(
                f'<tspan fill="{DRAFT if by == "draft" else BASE}">{html.escape(piece)}</tspan>' for piece, by in line
            )
            parts.append(f'<text x="{x}" y="{y}" xml:space="preserve">{spans}</text>')
            y += LINE
        y -= LINE
    y += 40
    parts += curve(rows[-1][1], y)
    height = y + CURVE_HEIGHT + 28
    style = 'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="14"'
    with open(out, "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {style}>\n')
        file.write(f'<rect width="{WIDTH}" height="{height}" rx="10" fill="{PAPER}" stroke="#d1d5db"/>\n')
        file.write("\n".join(parts) + "\n</svg>\n")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
