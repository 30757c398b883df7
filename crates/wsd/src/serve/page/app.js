"use strict";
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const TIE = 1e-12; // logarithms nearer than this are equal, as in the server

let sides = []; // models shown side by side; the conversation continues with the first one's answers
let messages = [];
let shown = null; // the answer whose curve is drawn: {tokens, handover, card}
let running = null; // aborts the answers that are being written

// The switch rule: the geometric mean of the last `window` probabilities reaches the threshold.
function confidences(tokens, window) {
  return tokens.map((_, i) => {
    if (i + 1 < window) return null;
    let sum = 0;
    for (let k = i + 1 - window; k <= i; k++) sum += tokens[k].logprob;
    return sum / window;
  });
}
function switchAt(tokens, window, threshold) {
  return confidences(tokens, window).findIndex((mean) => mean !== null && mean >= Math.log(threshold) - TIE);
}

function element(name, attributes = {}, text = "") {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

function draw() {
  const window = Number($("window").value), threshold = Number($("threshold").value);
  $("window-value").textContent = window;
  $("threshold-value").textContent = threshold.toFixed(2);
  const svg = $("curve"), tokens = shown ? shown.tokens : [];
  const left = 36, right = 590, top = 14, bottom = 226;
  const x = (i) => left + (right - left) * (tokens.length < 2 ? 0.5 : i / (tokens.length - 1));
  const y = (p) => bottom - (bottom - top) * p;
  svg.replaceChildren();
  for (const p of [0, 0.5, 1]) {
    svg.append(element("line", { class: "grid", x1: left, x2: right, y1: y(p), y2: y(p) }));
    svg.append(element("text", { x: 4, y: y(p) + 4 }, String(p)));
  }
  svg.append(element("line", { class: "limit", x1: left, x2: right, y1: y(threshold), y2: y(threshold) }));
  const points = confidences(tokens, window).map((mean, i) => (mean === null ? null : [x(i), y(Math.exp(mean))]));
  const path = points.filter(Boolean).map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");
  svg.append(element("path", { class: "line", d: path || "M0 0" }));
  tokens.forEach((token, i) => {
    const dot = element("circle", { class: `by-${token.by}`, cx: x(i), cy: bottom + 12, r: tokens.length > 80 ? 2 : 4 });
    dot.addEventListener("mouseenter", () => showTip(dot, token));
    dot.addEventListener("mouseleave", hideTip);
    svg.append(dot);
  });
  const would = switchAt(tokens, window, threshold);
  const was = shown && shown.handover ? shown.handover.at : -1;
  if (was >= 0) {
    svg.append(element("line", { class: "was", x1: x(was), x2: x(was), y1: top, y2: bottom }));
    svg.append(element("text", { x: Math.min(x(was) + 4, right - 90), y: bottom - 6 }, `switched: ${was}`));
  }
  if (would >= 0) {
    svg.append(element("line", { class: "would", x1: x(would), x2: x(would), y1: top, y2: bottom }));
    svg.append(element("text", { x: Math.min(x(would) + 4, right - 90), y: top + 10 }, `would: ${would}`));
  }
  if (shown) for (const [i, span] of shown.spans.entries()) span.classList.toggle("here", i === would);
  $("verdict").textContent = !tokens.length ? "No answer yet."
    : (was >= 0 ? `Switched after token ${was} (confidence ${shown.handover.confidence.toFixed(3)}). ` : "No switch in this answer. ")
    + (would >= 0 ? `With these settings it would fall at token ${would}.` : "With these settings it would not come.");
  $("curl").textContent = curl();
}

function showTip(target, token) {
  const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`;
  const lines = [`${JSON.stringify(token.text)} by ${token.by}: ${percent(token.logprob)}`];
  if (token.confidence !== null) lines.push(`window: ${token.confidence.toFixed(3)}`);
  for (const other of token.top || []) lines.push(`  ${percent(other.logprob).padStart(7)} ${JSON.stringify(other.token)}`);
  const tip = $("tip"), box = target.getBoundingClientRect();
  tip.textContent = lines.join("\n");
  tip.hidden = false;
  tip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${box.bottom + tip.offsetHeight + 8 > innerHeight ? box.top - tip.offsetHeight - 6 : box.bottom + 6}px`;
}
function hideTip() { $("tip").hidden = true; }

// The arrow keys move along the shown answer, token by token.
let cursor = -1;
function step(by) {
  if (!shown || !shown.tokens.length) return;
  cursor = Math.max(0, Math.min(shown.tokens.length - 1, cursor + by));
  shown.spans[cursor].scrollIntoView({ block: "nearest" });
  showTip(shown.spans[cursor], shown.tokens[cursor]);
}

function request(model, conversation) {
  return {
    model, messages: conversation, stream: true, logprobs: true, top_logprobs: 5,
    wsd: { window: Number($("window").value), threshold: Number($("threshold").value), tokens: true },
  };
}
function curl() {
  const model = $("mode").value === "side" ? sides[0] : $("mode").value;
  const asked = messages.filter((message, i) => i < messages.length - 1 || message.role === "user");
  const typed = $("text").value.trim();
  const conversation = typed ? [...messages, { role: "user", content: typed }]
    : asked.length ? asked : [{ role: "user", content: $("text").placeholder }];
  const body = JSON.stringify(request(model, conversation), null, 1).replaceAll("'", "'\\''");
  return `curl ${location.origin}/v1/chat/completions \\\n  -H 'Content-Type: application/json' \\\n  -d '${body}'`;
}

function card(parent, name) {
  const node = document.createElement("article");
  node.className = "turn";
  const who = document.createElement("span");
  who.className = "who";
  who.textContent = name;
  node.append(who);
  parent.append(node);
  return node;
}
function choose(answer) {
  if (shown) {
    shown.card.classList.remove("chosen");
    for (const span of shown.spans) span.classList.remove("here");
  }
  shown = answer;
  cursor = -1;
  answer.card.classList.add("chosen");
  draw();
}

// Yields the events of a stream as they arrive.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("\n");
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
  }
}

async function answer(model, parent, signal) {
  const node = card(parent, model);
  const got = { tokens: [], spans: [], handover: null, card: node, text: "" };
  node.tabIndex = 0;
  node.addEventListener("click", () => choose(got));
  node.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(got); });
  if (model === sides[0] || !shown || shown.done) choose(got);
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(request(model, messages)),
    });
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const chunk of events(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      for (const choice of chunk.choices) take(got, choice);
    }
  } catch (error) {
    const fault = document.createElement("p");
    fault.className = "fault";
    fault.textContent = error.name === "AbortError" ? "stopped" : error.message;
    node.append(fault);
  }
  got.done = true;
  return got;
}
function take(got, choice) {
  const details = choice.wsd || {};
  if (details.handover && !got.handover) {
    got.handover = details.handover;
    const mark = document.createElement("span");
    mark.className = "switch";
    mark.title = "the base takes over";
    got.card.append(mark);
  }
  if (choice.delta.content === undefined || !details.by || typeof details.by !== "string") {
    if (shown === got) draw();
    return;
  }
  const named = choice.logprobs ? choice.logprobs.content[0] : null;
  const token = { ...details, top: named ? named.top_logprobs : [] };
  const span = document.createElement("span");
  span.className = `token ${token.by}`;
  span.textContent = token.text;
  span.addEventListener("mouseenter", () => showTip(span, token));
  span.addEventListener("mouseleave", hideTip);
  const chat = $("chat"), follows = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 40;
  got.card.append(span);
  if (follows) chat.scrollTop = chat.scrollHeight;
  got.tokens.push(token);
  got.spans.push(span);
  got.text += token.text;
  if (shown === got) draw();
}

async function send(event) {
  event.preventDefault();
  const text = $("text").value.trim() || (messages.length ? "" : $("text").placeholder);
  if (!text || running) return;
  $("hint").hidden = true;
  $("text").value = "";
  messages.push({ role: "user", content: text });
  const user = card($("chat"), "you");
  user.classList.add("user");
  user.append(text);
  const row = document.createElement("div");
  row.className = "answers";
  $("chat").append(row);
  $("chat").scrollTop = $("chat").scrollHeight;
  running = new AbortController();
  $("send").hidden = true;
  $("stop").hidden = false;
  const models = $("mode").value === "side" ? sides : [$("mode").value];
  const answers = await Promise.all(models.map((model) => answer(model, row, running.signal)));
  running = null;
  $("send").hidden = false;
  $("stop").hidden = true;
  const reply = answers[0].text;
  if (reply) messages.push({ role: "assistant", content: reply });
  else messages.pop();
  draw();
  $("text").focus();
}

$("ask").addEventListener("submit", send);
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
});
$("text").addEventListener("input", () => { $("curl").textContent = curl(); });
$("stop").addEventListener("click", () => running && running.abort());
$("new").addEventListener("click", () => {
  if (running) running.abort();
  messages = [];
  shown = null;
  for (const node of [...$("chat").children]) if (node.id !== "hint") node.remove();
  $("hint").hidden = false;
  draw();
  $("text").focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { hideTip(); if (running) running.abort(); }
});
for (const id of ["window", "threshold", "mode"]) $(id).addEventListener("input", draw);
$("curve").addEventListener("keydown", (event) => {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by) { event.preventDefault(); step(by); }
});
$("curve").addEventListener("blur", hideTip);
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(curl());
    $("copy").textContent = "Copied";
  } catch {
    const range = document.createRange();
    range.selectNodeContents($("curl"));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    $("copy").textContent = "Selected: press Ctrl-C";
  }
  setTimeout(() => { $("copy").textContent = "Copy"; }, 2000);
});

// Reads the server's settings and strategies. The first one is shown beside the models alone.
async function configure() {
  const { data } = await (await fetch("v1/models")).json();
  const { strategy, window, threshold } = data[0].wsd.defaults;
  $("window").max = Math.max($("window").max, window);
  $("window").value = window;
  $("threshold").value = threshold;
  const isAlone = ({ wsd }) => Object.keys(wsd.models).length === 1;
  sides = [data[0], ...data.slice(1).filter(isAlone)].map(({ id }) => id);
  const options = data.map(({ id, wsd }) => Object.assign(new Option(id, id), { title: wsd.about }));
  $("mode").replaceChildren(...options, new Option(`${sides.join(", ")} side by side`, "side"));
  $("mode").value = strategy;
}
configure().catch((error) => { $("hint").textContent = `The server does not answer: ${error.message}`; }).finally(draw);
