import { parse, render } from "./markdown.js";
import { drawMany, drawOne } from "./chart.js";
import * as store from "./store.js";

const $ = (id) => document.getElementById(id);
const FIELDS = ["max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed"];
const LONG = 600; // tokens of an answer from which on it is drawn less often

let sides = []; // models shown side by side; the conversation continues with the first one's answers
let alone = new Set(); // strategies of one model, which have no switch
let chat = blank(); // {id, title, turns: [{question, answers}]}
let shown = null; // the answer whose curve is drawn
let skips = false; // true where a window that repeats what stands before it does not count
let running = null; // aborts the answers that are being written

// An answer: {model, tokens, text, reasoning, handover, draftEnd, finish, fault, seconds, limit, done}
// and, while it stands on the page, {card, pieces}. A token: {id, text, by, logprob, confidence} and the
// numbers of characters that came with it, {written, thought}: marks of reasoning belong to neither.
function blank() {
  return { id: `${Date.now()}-${Math.random()}`, title: "", turns: [] };
}
function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}
function button(text, act) {
  const node = make("button", "", text);
  node.type = "button";
  node.addEventListener("click", (event) => { event.stopPropagation(); act(node); });
  return node;
}
const rule = () => ({ window: Number($("window").value), threshold: Number($("threshold").value), skips });

// Details of the shown answer -----------------------------------------------------------------------

function draw() {
  const { window, threshold } = rule();
  $("window-value").textContent = window;
  $("threshold-value").textContent = threshold.toFixed(2);
  const tokens = shown ? shown.tokens : [], was = shown && shown.handover ? shown.handover.at : -1;
  const would = drawOne($("curve"), tokens, was, rule());
  if (shown) shown.pieces.forEach((pieces, i) => pieces.forEach((piece) => piece.classList.toggle("here", i === would)));
  $("verdict").textContent = verdict(tokens, was, would);
  if ($("many").open) drawAll();
  $("curl").textContent = curl();
}
function verdict(tokens, was, would) {
  if (!tokens.length) return "No answer yet.";
  if (alone.has(shown.model)) return `${shown.model} wrote alone: there is no switch.`;
  const scored = tokens.map(({ confidence }) => confidence ?? null).filter((confidence) => confidence !== null);
  const highest = scored.length ? `the confidence reached ${Math.max(...scored).toFixed(3)}` : "no window of draft tokens was full";
  const found = was >= 0 ? `Switched after token ${was} (confidence ${shown.handover.confidence.toFixed(3)}). `
    : shown.done ? `${shown.draftEnd ? "The draft ended before any switch" : "No switch in this answer"}: ${highest}. `
    : scored.length ? `No switch yet: ${highest} so far.` : "No switch yet: the window is not full.";
  if (!shown.done) return found;
  return found + (would >= 0 ? `With these settings it would fall at token ${would}.` : "With these settings it would not come.");
}
function drawAll() {
  const mine = chat.turns.flatMap((turn) => turn.answers.map((answer) => ({ answer, question: turn.question })));
  const others = store.all().filter(({ id }) => id !== chat.id).flatMap((other) => other.turns.flatMap((turn) => turn.answers.map((answer) => ({ answer, question: turn.question }))));
  const answers = [...mine, ...others].filter(({ answer }) => !alone.has(answer.model) && answer.tokens.length);
  for (const { answer, question } of answers) answer.question = question;
  const list = answers.map(({ answer }) => answer);
  const places = drawMany($("all"), list, shown, rule());
  $("all").onclick = ({ target }) => { const answer = list[target.dataset.answer]; if (answer && answer.card) choose(answer); };
  const found = places.filter((place) => place >= 0).sort((a, b) => a - b);
  $("all-verdict").textContent = !list.length ? "No answers by two models yet."
    : `${list.length} ${list.length === 1 ? "answer" : "answers"} of this browser; ${found.length} would switch with these settings`
    + (found.length ? `, at token ${found[found.length >> 1]} in the median.` : ".");
}

function tell(target, text) {
  const tip = $("tip"), box = target.getBoundingClientRect();
  tip.textContent = text;
  tip.hidden = false;
  tip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${box.bottom + tip.offsetHeight + 8 > innerHeight ? Math.max(4, box.top - tip.offsetHeight - 6) : box.bottom + 6}px`;
}
function hideTip() { $("tip").hidden = true; }
function tellToken(target, token) {
  const percent = (logprob) => logprob === null ? "not scored" : `${(100 * Math.exp(logprob)).toFixed(1)} %`;
  const lines = [`${JSON.stringify(token.text)} by ${token.by}: ${percent(token.logprob)}`];
  if (token.confidence !== null && token.confidence !== undefined) lines.push(`confidence over the window: ${token.confidence.toFixed(3)}`);
  if (token.top && token.top.length) lines.push("the base's own choices here:");
  for (const other of token.top || []) lines.push(`  ${percent(other.logprob).padStart(7)} ${JSON.stringify(other.token)}`);
  tell(target, lines.join("\n"));
}
// The arrow keys move along the shown answer, token by token.
let cursor = -1;
function step(by) {
  if (!shown || !shown.tokens.length) return;
  cursor = Math.max(0, Math.min(shown.tokens.length - 1, cursor + by));
  const piece = shown.pieces[cursor].find((piece) => piece.getClientRects().length); // not a folded one
  if (piece) piece.scrollIntoView({ block: "nearest" });
  tellToken(piece || $("curve"), shown.tokens[cursor]);
}

// Requests ------------------------------------------------------------------------------------------

function settings() {
  const given = {};
  for (const name of FIELDS) if ($(name).value !== "" && $(name).validity.valid) given[name] = Number($(name).value);
  return given;
}
function request(model, conversation) {
  const system = $("system").value.trim();
  const messages = system ? [{ role: "system", content: system }, ...conversation] : conversation;
  return { model, messages, stream: true, logprobs: true, top_logprobs: 5, ...settings(), wsd: { window: rule().window, threshold: rule().threshold, tokens: true } };
}
// The messages up to the question of turn `count`. A question that failed is left out, as one too long
// for the context, so that later ones do not fail with it.
function conversation(count) {
  return chat.turns.slice(0, count + 1).flatMap(({ question, answers }, i) => {
    const reply = i < count && answers[0] ? answers[0].text : "";
    if (i < count && answers[0]?.fault && answers[0].fault !== "stopped" && !reply) return [];
    return [{ role: "user", content: question }, ...(reply ? [{ role: "assistant", content: reply }] : [])];
  });
}
function curl() {
  const model = $("mode").value === "side" ? sides[0] : $("mode").value;
  const typed = $("text").value.trim(), last = chat.turns.length - 1;
  const asked = last < 0 ? [] : conversation(typed ? last + 1 : last);
  const messages = typed ? [...asked, { role: "user", content: typed }] : asked.length ? asked : [{ role: "user", content: "Hello" }];
  const body = JSON.stringify(request(model, messages), null, 1).replaceAll("'", "'\\''");
  return `curl ${location.origin}/v1/chat/completions \\\n  -H 'Content-Type: application/json' \\\n  -d '${body}'`;
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
async function refusal(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered with status ${response.status}`;
  }
}

// Writes an answer, or goes on with one that was cut.
async function write(answer, model, messages, signal) {
  const before = answer.tokens.length, started = performance.now();
  Object.assign(answer, { done: false, finish: null, fault: null });
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST", signal, headers: { "Content-Type": "application/json" }, body: JSON.stringify(request(model, messages)),
    });
    if (!response.ok) throw new Error(await refusal(response));
    for await (const chunk of events(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      for (const choice of chunk.choices) take(answer, choice, before);
    }
    if (!answer.finish) throw new Error("the stream ended before the answer did");
  } catch (error) {
    const isGone = error instanceof TypeError;
    answer.fault = error.name === "AbortError" ? "stopped" : isGone ? "The server does not answer. Is `wsd serve` still running?" : error.message;
  }
  answer.seconds = (answer.seconds || 0) + (performance.now() - started) / 1000;
  answer.done = true;
  show(answer);
}
function take(answer, choice, before) {
  const details = choice.wsd || {};
  if (details.handover && !answer.handover) answer.handover = { ...details.handover, at: details.handover.at + before };
  if (details.draft_end && !answer.draftEnd) answer.draftEnd = { ...details.draft_end, at: details.draft_end.at + before };
  if (choice.finish_reason) answer.finish = choice.finish_reason;
  if (typeof details.by === "string") {
    const named = choice.logprobs ? choice.logprobs.content[0] : null;
    const { id, text, by, logprob, confidence } = details;
    answer.tokens.push({ id, text, by, logprob, confidence, top: named ? named.top_logprobs : [], written: 0, thought: 0 });
  }
  // Text may come a few tokens late, where it could have been a mark.
  const { content, reasoning_content: thought } = choice.delta, token = answer.tokens.at(-1);
  if (content) answer.text += content;
  if (thought) answer.reasoning += thought;
  if (token) {
    token.written += (content || "").length;
    token.thought += (thought || "").length;
  }
  later(answer);
}
// Draws an answer at the next picture of the screen, a long one less often.
function later(answer) {
  if (answer.waits) return;
  answer.waits = true;
  const now = () => { answer.waits = false; show(answer); };
  if (answer.tokens.length > LONG) setTimeout(now, 150);
  else requestAnimationFrame(now);
}

// The conversation ----------------------------------------------------------------------------------

function follows() {
  const view = $("chat");
  return view.scrollHeight - view.scrollTop - view.clientHeight < 80;
}
function toEnd() { $("chat").scrollTop = $("chat").scrollHeight; }

// Draws a text by author, with the switch where it falls into it. `count` tells the characters of a token.
function paint(answer, source, count) {
  const owner = []; // the token of each character
  answer.tokens.forEach((token, i) => { for (let k = count(token); k > 0; k--) owner.push(i); });
  const edge = answer.handover ? answer.handover.at : Infinity;
  const text = make("div", "text");
  render(parse(source), text, (positions, parent) => {
    for (let i = 0; i < positions.length;) {
      const index = owner[positions[i]];
      let piece = "";
      for (; i < positions.length && owner[positions[i]] === index; i++) piece += source[positions[i]];
      if (index > edge && !answer.isMarked) {
        answer.isMarked = true;
        parent.append(Object.assign(make("span", "switch"), { title: "the base takes over" }));
      }
      const span = make("span", `token ${answer.tokens[index].by}`, piece);
      span.dataset.index = index;
      answer.pieces[index].push(span);
      parent.append(span);
    }
  });
  return text;
}
// The reasoning of an answer, folded until it is opened.
function thoughts(answer) {
  const part = make("details", "reasoning");
  part.open = answer.isOpen;
  part.addEventListener("toggle", () => { answer.isOpen = part.open; });
  part.append(make("summary", "", answer.text || answer.done ? "Reasoning" : "Reasoning …"));
  part.append(paint(answer, answer.reasoning, ({ thought }) => thought));
  return part;
}
// Draws an answer: its text by author, the switch, how it ended, and what can be done with it.
function show(answer) {
  if (!answer.card) return;
  const follow = follows(), { card, tokens } = answer;
  answer.pieces = tokens.map(() => []);
  answer.isMarked = false;
  const reasoning = answer.reasoning ? [thoughts(answer)] : [];
  const text = paint(answer, answer.text, ({ written, text }) => written ?? text.length);
  if (answer.handover && !answer.isMarked) text.append(make("span", "switch"));
  text.classList.toggle("dots", !answer.done);
  card.replaceChildren(make("span", "who", answer.model), ...reasoning, text);
  if (answer.done) {
    const ending = endOf(answer);
    if (ending.length) {
      const line = make("p", "end");
      ending.forEach((part, i) => line.append(i ? " · " : "", part));
      card.append(line);
    }
    if (answer.fault) card.append(Object.assign(make("p", "fault", answer.fault), { role: "alert" }));
    card.append(tools(answer));
  }
  if (shown === answer) draw();
  if (follow) toEnd();
}
function endOf({ tokens, handover, draftEnd, finish, seconds, limit }) {
  const parts = [];
  const drafted = tokens.filter(({ by }) => by === "draft").length, by = [];
  if (drafted) by.push(`draft ${drafted}`);
  if (tokens.length - drafted) by.push(`base ${tokens.length - drafted}`);
  if (handover) parts.push(`switch at token ${handover.at}`);
  if (draftEnd) parts.push(draftEnd.reason === "stop" ? `the draft ended its answer at token ${draftEnd.at}` : `the draft reached its limit at token ${draftEnd.at}`);
  if (by.length) parts.push(`${by.join(" + ")} tokens`);
  if (tokens.length && seconds) parts.push(`${(tokens.length / seconds).toFixed(1)} tokens/s`, `${seconds.toFixed(1)} s`);
  if (finish === "length") parts.push(make("strong", "", !limit || tokens.length >= limit ? `cut at ${tokens.length} tokens` : `cut at ${tokens.length} tokens: the context is full`));
  return parts;
}
function tools(answer) {
  const row = make("div", "tools");
  if (answer.text) row.append(button("Copy", (node) => copy(answer.text, node)));
  const turn = chat.turns.at(-1);
  if (running || !turn || !turn.answers.includes(answer)) return row;
  row.append(button("Retry", () => ask(chat.turns.pop().question)));
  if (answer.finish === "length" || answer.fault === "stopped") row.append(button("Continue", () => goOn(answer)));
  return row;
}
async function copy(text, node) {
  const before = node.textContent;
  try {
    await navigator.clipboard.writeText(text);
    node.textContent = "Copied";
  } catch {
    const range = document.createRange();
    range.selectNodeContents(node.id === "copy" ? $("curl") : node.closest(".block")?.querySelector("pre") ?? node.closest(".turn").querySelector(":scope > .text"));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    node.textContent = "Selected: press Ctrl-C";
  }
  setTimeout(() => { node.textContent = before; }, 2000);
}
function choose(answer) {
  if (shown && shown.card) {
    shown.card.classList.remove("chosen");
    for (const piece of shown.pieces.flat()) piece.classList.remove("here");
  }
  shown = answer;
  cursor = -1;
  if (answer) answer.card.classList.add("chosen");
  draw();
}
function cardOf(answer) {
  const card = make("article", "turn");
  Object.assign(answer, { card, pieces: answer.tokens.map(() => []) });
  card.tabIndex = 0;
  card.addEventListener("click", () => choose(answer));
  card.addEventListener("keydown", (event) => { if (event.key === "Enter" && event.target === card) choose(answer); });
  card.addEventListener("mouseover", ({ target }) => { if (target.dataset.index) tellToken(target, answer.tokens[target.dataset.index]); });
  card.addEventListener("mouseout", hideTip);
  return card;
}
function showTurn(turn, index) {
  const user = make("article", "turn user");
  user.append(make("span", "who", "you"), turn.question);
  const row = make("div", "tools");
  row.append(button("Edit", () => edit(index)), button("Copy", (node) => copy(turn.question, node)));
  user.append(row);
  const answers = make("div", "answers");
  answers.append(...turn.answers.map(cardOf));
  $("turns").append(user, answers);
  turn.answers.forEach(show);
}
// Shows the whole chat anew.
function showChat() {
  $("turns").replaceChildren();
  chat.turns.forEach(showTurn);
  $("hint").hidden = chat.turns.length > 0;
  choose(chat.turns.at(-1)?.answers[0] ?? null);
  toEnd();
  listChats();
}
function edit(index) {
  if (running) return;
  $("text").value = chat.turns[index].question;
  chat.turns.length = index;
  showChat();
  fit();
  $("text").focus();
}

async function working(work) {
  const own = chat; // another chat may be open at the end
  running = new AbortController();
  $("send").hidden = true;
  $("stop").hidden = false;
  await work(running.signal);
  running = null;
  $("send").hidden = false;
  $("stop").hidden = true;
  if (chat === own) own.turns.at(-1)?.answers.forEach(show);
  remember(own);
  draw();
}
async function ask(question) {
  const models = $("mode").value === "side" ? sides : [$("mode").value];
  const limit = settings().max_tokens ?? Number($("max_tokens").placeholder);
  const answers = models.map((model) => ({ model, tokens: [], text: "", reasoning: "", handover: null, draftEnd: null, finish: null, fault: null, seconds: 0, limit, done: false }));
  chat.turns.push({ question, answers });
  chat.title ||= question;
  await working((signal) => {
    showChat();
    const messages = conversation(chat.turns.length - 1);
    return Promise.all(answers.map((answer) => write(answer, answer.model, messages, signal)));
  });
}
// Goes on with an answer; after the switch, by the base.
async function goOn(answer) {
  const messages = [...conversation(chat.turns.length - 1), { role: "assistant", content: answer.text }];
  answer.limit += settings().max_tokens ?? Number($("max_tokens").placeholder);
  await working((signal) => write(answer, answer.handover ? "base" : answer.model, messages, signal));
}
function send(event) {
  event.preventDefault();
  const question = $("text").value.trim();
  if (!question || running) return;
  $("text").value = "";
  fit();
  ask(question).then(() => $("text").focus({ preventScroll: true }));
}
// Grows the message field with its text.
function fit() {
  $("text").style.height = "auto";
  $("text").style.height = `${$("text").scrollHeight + 2}px`;
}

// Chats in this browser -----------------------------------------------------------------------------

function remember(own) {
  const plain = ({ model, tokens, text, reasoning, handover, draftEnd, finish, fault, seconds, limit }) =>
    ({ model, text, reasoning, handover, draftEnd, finish, fault, seconds, limit, done: true, tokens: tokens.map(({ top, ...token }) => token) });
  store.save({ ...own, turns: own.turns.map(({ question, answers }) => ({ question, answers: answers.map(plain) })) });
  listChats();
}
function listChats() {
  $("chat-list").replaceChildren(...store.all().map((other) => {
    const row = make("li"), open = button(other.title || "empty", () => {
      if (running) running.abort();
      chat = structuredClone(other);
      showChat();
      if (innerWidth <= 900) toggle("chats", false);
    });
    open.classList.add("open");
    open.setAttribute("aria-current", other.id === chat.id);
    const remove = button("✕", () => { store.remove(other.id); listChats(); });
    remove.setAttribute("aria-label", `Delete ${other.title}`);
    row.append(open, remove);
    return row;
  }));
}
function toggle(id, isOpen) {
  if (id === "chats") $(id).hidden = !isOpen;
  else $(id).classList.toggle("open", isOpen);
  $(`${id}-open`).setAttribute("aria-expanded", isOpen);
}

// Events --------------------------------------------------------------------------------------------

$("ask").addEventListener("submit", send);
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
});
$("text").addEventListener("input", () => { fit(); $("curl").textContent = curl(); });
$("stop").addEventListener("click", () => running && running.abort());
$("new").addEventListener("click", () => {
  if (running) running.abort();
  chat = blank();
  showChat();
  $("text").focus();
});
$("chats-open").addEventListener("click", () => toggle("chats", $("chats").hidden));
$("panel-open").addEventListener("click", () => toggle("panel", !$("panel").classList.contains("open")));
$("forget").addEventListener("click", () => { store.remove(); listChats(); });
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  hideTip();
  if (running) running.abort();
  else toggle("panel", false);
});
for (const id of ["window", "threshold", "mode"]) $(id).addEventListener("input", draw);
for (const id of ["system", ...FIELDS]) {
  $(id).addEventListener("input", () => {
    store.saveSettings(Object.fromEntries(["system", ...FIELDS].map((id) => [id, $(id).value])));
    draw();
  });
}
for (const info of document.querySelectorAll(".info")) {
  for (const event of ["mouseenter", "focus", "click"]) info.addEventListener(event, () => tell(info, info.dataset.info));
  for (const event of ["mouseleave", "blur"]) info.addEventListener(event, hideTip);
}
$("curve").addEventListener("keydown", (event) => {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by) { event.preventDefault(); step(by); }
});
$("curve").addEventListener("mouseover", ({ target }) => { if (target.dataset.index) tellToken(target, shown.tokens[target.dataset.index]); });
for (const event of ["mouseout", "blur"]) $("curve").addEventListener(event, hideTip);
$("many").addEventListener("toggle", draw);
$("copy").addEventListener("click", () => copy(curl(), $("copy")));
$("turns").addEventListener("click", ({ target }) => {
  if (target.classList.contains("copy-code")) copy(target.parentElement.querySelector("pre").textContent, target);
});

// The server's models, settings and strategies ------------------------------------------------------

async function json(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(await refusal(response));
  return response.json();
}
function number(value, units) {
  let unit = 0;
  for (; value >= 999.5 && unit + 1 < units.length; unit++) value /= 1000;
  return `${value.toFixed(unit && value < 9.95 ? 1 : 0)} ${units[unit]}`.trim();
}
function describe({ models, about, examples }) {
  const terms = Object.entries(models).flatMap(([seat, model]) => {
    const facts = [model.name];
    if (model.parameters) facts.push(`${number(model.parameters, ["", "k", "M", "B", "T"])} parameters`, number(model.bytes, ["B", "kB", "MB", "GB", "TB"]));
    facts.push(`context of ${model.max_len.toLocaleString("en")} tokens`);
    return [make("dt", seat, seat), make("dd", "", facts.join(" · "))];
  });
  $("models").replaceChildren(...terms);
  if (models.draft && models.base) {
    const named = (seat) => make("span", seat, models[seat].name);
    $("pair").replaceChildren(named("draft"), " opens, ", named("base"), " takes over");
  }
  $("toy").hidden = !about;
  $("toy").textContent = about ? `${about[0].toUpperCase()}${about.slice(1)}. \`wsd pairs\` lists real models.` : "";
  $("examples").replaceChildren(...examples.map((text) => button(text, () => { if (!running) ask(text); })));
}
async function configure() {
  const [{ data }, page] = await Promise.all([json("v1/models"), json("page.json")]);
  const { strategy, window, threshold, skip_repetitions } = data[0].wsd.defaults;
  skips = skip_repetitions === true;
  $("window").max = Math.max($("window").max, window);
  $("window").value = window;
  $("threshold").value = threshold;
  for (const name of FIELDS.filter((name) => name !== "seed")) $(name).placeholder = data[0].wsd.defaults[name];
  for (const [name, value] of Object.entries(store.settings())) if ($(name)) $(name).value = value;
  const isAlone = ({ wsd }) => Object.keys(wsd.models).length === 1;
  alone = new Set(data.filter(isAlone).map(({ id }) => id));
  sides = [data[0], ...data.slice(1).filter(isAlone)].map(({ id }) => id);
  const options = data.map(({ id, wsd }) => Object.assign(new Option(`${id}: ${wsd.about}`, id), { title: wsd.about }));
  for (const option of options) option.label = option.value;
  $("mode").replaceChildren(...options, new Option(`${sides.join(", ")} side by side`, "side"));
  $("mode").value = strategy;
  describe(page);
}
fit();
addEventListener("resize", fit);
listChats();
configure().catch((error) => {
  $("toy").hidden = false;
  $("toy").textContent = error instanceof TypeError ? "The server does not answer. Is `wsd serve` still running?" : `The server does not answer: ${error.message}`;
}).finally(draw);
