// The switch rule and its pictures.

const SVG = "http://www.w3.org/2000/svg";
const TIE = 1e-12; // logarithms nearer than this are equal, as in the server
const PERIOD = 64; // the longest period of a repetition, as in the server
const LEFT = 40, RIGHT = 590, TOP = 14, BOTTOM = 226;

// The logarithm of the geometric mean of the last `window` probabilities, at each token.
export function confidences(tokens, window) {
  return tokens.map((_, i) => {
    if (i + 1 < window) return null;
    let sum = 0;
    for (let k = i + 1 - window; k <= i; k++) {
      if (tokens[k].logprob === null) return null; // not scored
      sum += tokens[k].logprob;
    }
    return sum / window;
  });
}
export function switchAt(tokens, { window, threshold, skips }) {
  const passes = (mean, i) => mean !== null && mean >= Math.log(threshold) - TIE && !(skips && repeats(tokens, i + 1, window));
  return confidences(tokens, window).findIndex(passes);
}
// True if the `window` tokens before `end` repeat what stands just before them.
function repeats(tokens, end, window) {
  const start = end - window;
  for (let period = 1; period <= Math.min(PERIOD, start); period++) {
    let at = start;
    while (at < end && tokens[at].id === tokens[at - period].id) at++;
    if (at === end) return true;
  }
  return false;
}

export function element(name, attributes = {}, text = "") {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}
const y = (p) => BOTTOM - (BOTTOM - TOP) * p;
const path = (points) => points.filter(Boolean).map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("") || "M0 0";

// The axes, with their names, and the threshold.
function frame(svg, count, threshold) {
  const x = (i) => LEFT + (RIGHT - LEFT) * (count < 2 ? 0.5 : i / (count - 1));
  svg.replaceChildren();
  for (const p of [0, 0.5, 1]) {
    svg.append(element("line", { class: "grid", x1: LEFT, x2: RIGHT, y1: y(p), y2: y(p) }));
    svg.append(element("text", { x: 10, y: y(p) + 5 }, String(p)));
  }
  svg.append(element("text", { x: RIGHT, y: 272, "text-anchor": "end" }, count > 1 ? `token (0 to ${count - 1})` : "token"));
  svg.append(element("text", { x: LEFT, y: 272 }, "confidence over the window"));
  svg.append(element("line", { class: "limit", x1: LEFT, x2: RIGHT, y1: y(threshold), y2: y(threshold) }));
  return x;
}

function mark(svg, x, place, kind, text, height) {
  svg.append(element("line", { class: kind, x1: x, x2: x, y1: TOP, y2: BOTTOM }));
  const anchor = x > (LEFT + RIGHT) / 2 ? "end" : "start";
  svg.append(element("text", { class: "label", x: x + (anchor === "end" ? -6 : 6), y: height, "text-anchor": anchor }, text));
}

// One answer: its curve, its tokens by author, the switch that was and the one that would be.
export function drawOne(svg, tokens, was, rule) {
  const { window, threshold } = rule;
  const x = frame(svg, tokens.length, threshold);
  const points = confidences(tokens, window).map((mean, i) => (mean === null ? null : [x(i), y(Math.exp(mean))]));
  svg.append(element("path", { class: "line", d: path(points) }));
  tokens.forEach((token, i) => {
    svg.append(element("circle", { class: `by-${token.by}`, "data-index": i, cx: x(i), cy: BOTTOM + 14, r: tokens.length > 80 ? 2 : 4 }));
  });
  const would = switchAt(tokens, rule);
  if (was >= 0) mark(svg, x(was), was, "was", `switched at ${was}`, BOTTOM - 8);
  if (would >= 0) mark(svg, x(would), would, "would", `would switch at ${would}`, TOP + 14);
  return would;
}

// Many answers in one picture; returns the tokens at which they would switch.
export function drawMany(svg, answers, chosen, rule) {
  const { window, threshold } = rule;
  const x = frame(svg, Math.max(0, ...answers.map(({ tokens }) => tokens.length)), threshold);
  return answers.map((answer, k) => {
    const means = confidences(answer.tokens, window);
    const points = means.map((mean, i) => (mean === null ? null : [x(i), y(Math.exp(mean))]));
    const line = element("path", { class: answer === chosen ? "one chosen" : "one", "data-answer": k, d: path(points) });
    line.append(element("title", {}, answer.question || ""));
    svg.append(line);
    const would = switchAt(answer.tokens, rule);
    if (would >= 0) svg.append(element("circle", { class: "dot", cx: x(would), cy: y(Math.exp(means[would])), r: 4 }));
    return would;
  });
}
