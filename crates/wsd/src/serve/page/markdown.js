// Markdown of a model, as nodes of text only: no HTML of the model is ever parsed, and links stay text.
//
// Every leaf keeps its positions in the source, so that a piece of text can be drawn by its author.

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])( +|$)/;
const DIVIDER = /^ *\|? *:?-+:? *(\| *:?-+:? *)*\|? *$/;
const DEPTH = 12; // of nesting; deeper marks are shown as they are
const REACH = 2000; // characters up to the mark that closes another

// Blocks of a text. A leaf is {at: [positions in the source]}, other nodes are {tag, children}.
export function parse(source) {
  const lines = [];
  let start = 0;
  for (const text of source.split("\n")) {
    lines.push({ text, start });
    start += text.length + 1;
  }
  return blocks(lines, 0);
}

const strip = ({ text, start }, count) => ({ text: text.slice(count), start: start + count });
const isBlank = (line) => !line.text.trim();
const begins = (line) => [FENCE, HEADING, RULE, QUOTE].some((form) => form.test(line.text)) || ITEM.test(line.text);

function blocks(lines, depth) {
  const found = [];
  for (let i = 0; i < lines.length;) {
    const line = lines[i], nested = depth < DEPTH;
    let match;
    if (isBlank(line)) {
      i++;
    } else if ((match = FENCE.exec(line.text))) {
      const end = lines.findIndex(({ text }, k) => k > i && text.trim().startsWith(match[1]) && !text.trim().replaceAll(match[1][0], ""));
      const inside = lines.slice(i + 1, end < 0 ? lines.length : end);
      found.push({ tag: "pre", language: match[2], children: [leaf(inside)] });
      i = end < 0 ? lines.length : end + 1;
    } else if ((match = HEADING.exec(line.text))) {
      found.push({ tag: `h${match[1].length}`, children: inline([strip(line, match[0].length)]) });
      i++;
    } else if (RULE.test(line.text)) {
      found.push({ tag: "hr", children: [] });
      i++;
    } else if (nested && QUOTE.test(line.text)) {
      const inside = [];
      for (; i < lines.length && (match = QUOTE.exec(lines[i].text)); i++) inside.push(strip(lines[i], match[0].length));
      found.push({ tag: "blockquote", children: blocks(inside, depth + 1) });
    } else if (nested && ITEM.test(line.text)) {
      const [list, next] = itemList(lines, i, depth);
      found.push(list);
      i = next;
    } else if (line.text.includes("|") && i + 1 < lines.length && lines[i + 1].text.includes("-") && DIVIDER.test(lines[i + 1].text)) {
      const rows = [row(line, "th")];
      for (i += 2; i < lines.length && lines[i].text.includes("|"); i++) rows.push(row(lines[i], "td"));
      found.push({ tag: "table", children: rows });
    } else {
      const inside = [line];
      for (i++; i < lines.length && !isBlank(lines[i]) && !begins(lines[i]); i++) inside.push(lines[i]);
      found.push({ tag: "p", children: inline(inside) });
    }
  }
  return found;
}

function itemList(lines, i, depth) {
  const first = ITEM.exec(lines[i].text), isOrdered = first[2].length > 1;
  const items = [];
  while (i < lines.length) {
    const match = ITEM.exec(lines[i].text);
    if (!match || RULE.test(lines[i].text) || match[1].length > first[1].length + 3 || (match[2].length > 1) !== isOrdered) break;
    const width = match[0].length || 2, inside = [strip(lines[i], match[0].length)];
    for (i++; i < lines.length; i++) {
      const line = lines[i], indent = line.text.length - line.text.trimStart().length;
      if (isBlank(line)) {
        const next = lines.slice(i).find((other) => !isBlank(other));
        if (!next || next.text.search(/\S/) < width) break;
        inside.push(line);
      } else if (indent >= Math.min(width, 2) && (indent >= width || ITEM.test(line.text)) && indent > first[1].length) {
        inside.push(strip(line, Math.min(indent, width)));
      } else if (begins(line)) {
        break;
      } else {
        inside.push(strip(line, indent));
      }
    }
    items.push({ tag: "li", children: blocks(inside, depth + 1) });
    const next = lines.slice(i).findIndex((other) => !isBlank(other));
    if (next > 0 && ITEM.test(lines[i + next].text)) i += next;
  }
  const list = { tag: isOrdered ? "ol" : "ul", children: items };
  if (isOrdered) list.first = parseInt(first[2], 10);
  return [list, i];
}

function row(line, tag) {
  const cells = [];
  let from = line.text.startsWith("|") ? 1 : 0;
  const { text } = line, last = text.trimEnd().endsWith("|") ? text.trimEnd().length : text.length + 1;
  for (let k = from; k <= text.length && k < last; k++) {
    if (k !== text.length && k !== last - 1 && (text[k] !== "|" || text[k - 1] === "\\")) continue;
    const cell = text.slice(from, k), lead = cell.length - cell.trimStart().length;
    cells.push({ tag, children: inline([{ text: cell.trim(), start: line.start + from + lead }]) });
    from = k + 1;
  }
  return { tag: "tr", children: cells };
}

// The characters of lines with their positions in the source; a line break stands at its own.
function flat(lines) {
  let text = "";
  const at = [];
  lines.forEach((line, k) => {
    for (let c = 0; c < line.text.length; c++) at.push(line.start + c);
    text += line.text;
    if (k + 1 < lines.length) {
      at.push(line.start + line.text.length);
      text += "\n";
    }
  });
  return { text, at };
}
const leaf = (lines) => ({ at: flat(lines).at });

function inline(lines) {
  const { text, at } = flat(lines);
  return spans(text, at, 0);
}
function spans(text, at, depth) {
  const found = [];
  let plain = [];
  const end = () => { if (plain.length) found.push({ at: plain }); plain = []; };
  const within = (tag, from, to) => {
    end();
    found.push({ tag, children: tag === "code" ? [{ at: at.slice(from, to) }] : spans(text.slice(from, to), at.slice(from, to), depth + 1) });
  };
  for (let i = 0; i < text.length;) {
    const c = text[i];
    if (c === "\\" && /[!-/:-@[-`{-~]/.test(text[i + 1] || "")) {
      plain.push(at[i + 1]);
      i += 2;
      continue;
    }
    if (c === "`") {
      const mark = /^`+/.exec(text.slice(i))[0];
      let close = i;
      do close = text.indexOf(mark, close + mark.length); while (close >= 0 && close < i + REACH && (text[close - 1] === "`" || text[close + mark.length] === "`"));
      if (close > i && close < i + REACH) {
        within("code", i + mark.length, close);
        i = close + mark.length;
        continue;
      }
    }
    const mark = depth < DEPTH ? ["**", "__", "~~", "*", "_"].find((mark) => text.startsWith(mark, i)) : null;
    const close = mark ? closing(text, i, mark) : -1;
    if (close > 0) {
      within({ "**": "strong", "__": "strong", "~~": "del" }[mark] || "em", i + mark.length, close);
      i = close + mark.length;
    } else {
      const count = mark ? mark.length : 1;
      for (let k = 0; k < count; k++) plain.push(at[i + k]);
      i += count;
    }
  }
  end();
  return found;
}
function closing(text, i, mark) {
  const isWord = (c) => /[\p{L}\p{N}]/u.test(c || " ");
  if (/\s/.test(text[i + mark.length] || " ") || (mark[0] === "_" && isWord(text[i - 1]))) return -1;
  for (let k = text.indexOf(mark, i + mark.length + 1); k >= 0 && k < i + REACH; k = text.indexOf(mark, k + 1)) {
    const isDouble = mark.length === 1 && (text[k + 1] === mark || text[k - 1] === mark);
    if (!/\s/.test(text[k - 1]) && text[k - 1] !== "\\" && !isDouble && !(mark[0] === "_" && isWord(text[k + mark.length]))) return k;
  }
  return -1;
}

// Draws nodes below `parent`; `draw(positions, parent)` draws a leaf.
export function render(nodes, parent, draw) {
  for (const node of nodes) {
    if (node.at) {
      draw(node.at, parent);
    } else if (node.tag === "pre") {
      parent.append(codeBlock(node, draw));
    } else {
      const element = document.createElement(node.tag);
      if (node.first !== undefined) element.start = node.first;
      render(node.children, element, draw);
      parent.append(element);
    }
  }
}
function codeBlock(node, draw) {
  const block = document.createElement("div"), pre = document.createElement("pre"), code = document.createElement("code");
  block.className = "block";
  if (node.language) {
    const language = document.createElement("span");
    language.className = "language";
    language.textContent = node.language;
    block.append(language);
  }
  pre.tabIndex = 0;
  render(node.children, code, draw);
  pre.append(code);
  const copy = document.createElement("button");
  copy.type = "button";
  copy.className = "copy-code";
  copy.textContent = "Copy";
  block.append(pre, copy);
  return block;
}
