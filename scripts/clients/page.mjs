// The page in headless Chromium: node page.mjs http://127.0.0.1:8080 FOLDER-FOR-SCREENSHOTS
//
// Needs `npm install playwright-core` where it is run, and Chromium at /usr/bin/chromium or $CHROMIUM.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const [server = "http://127.0.0.1:8080", folder = "."] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-dev-shm-usage"],
});
const foreign = [], faults = [];
async function open(options) {
  const page = await browser.newPage(options);
  page.on("request", (request) => { if (!/^(data:|blob:)/.test(request.url()) && !request.url().startsWith(server)) foreign.push(request.url()); });
  page.on("console", (message) => { if (message.type() === "error") faults.push(message.text()); });
  page.on("pageerror", (error) => faults.push(String(error)));
  await page.goto(server);
  return page;
}
const answered = async (page) => {
  await page.waitForSelector("#turns .token, #turns .fault", { state: "attached" });
  await page.waitForSelector("#send:not([hidden])");
};
let count = 0;
const seen = (what) => { count += 1; console.log(`ok     ${what}`); };

const page = await open({ viewport: { width: 1200, height: 800 } });
const { window: tokens, threshold } = (await (await fetch(`${server}/v1/models`)).json()).data[0].wsd.defaults;
assert.equal(await page.locator("#examples button").count(), 3);
assert.match(await page.locator("#models").textContent(), /draft.*parameters.*base.*parameters/);
seen("models with their sizes, questions to try");
await page.keyboard.press("Enter");
assert.equal(await page.locator(".turn").count(), 0);
seen("an empty message is not sent");
for (const id of ["window", "threshold"]) {
  await page.locator(`[aria-label="What is the ${id}?"]`).hover();
  assert.match(await page.locator("#tip").textContent(), /confidence/);
}
seen("window and threshold are explained");
await page.waitForFunction((id) => [...document.getElementById("mode").options].some((option) => option.value === id), "side");
assert.deepEqual([await page.locator("#window").inputValue(), Number(await page.locator("#threshold").inputValue())], [String(tokens), threshold]);
seen("the sliders start where the server does");
await page.locator("#text").pressSequentially("What colour is a fox?");
assert.match(await page.locator("#curl").textContent(), /What colour is a fox\?/);
seen("typed; the request stands there as curl");
await page.keyboard.press("Enter");
await page.waitForSelector(".token.draft");
await answered(page);
seen("streamed");
const drafted = await page.locator(".token.draft").count(), based = await page.locator(".token.base").count();
assert.ok(drafted > 0 && based > 0 && (await page.locator(".turn .switch").count()) === 1);
seen(`coloured by author: ${drafted} tokens by the draft, ${based} by the base, one switch`);
assert.ok((await page.locator("#curve .line").getAttribute("d")).length > 20);
assert.equal(await page.locator("#curve .limit").count(), 1);
const verdict = () => page.locator("#verdict").textContent();
const switched = Number((await verdict()).match(/after token (\d+)/)[1]);
assert.equal(Number((await verdict()).match(/fall at token (\d+)/)[1]), switched);
seen(`the curve, the threshold and the switch at token ${switched}, where the same rule in the page puts it`);
await page.screenshot({ path: `${folder}/page-light.png` });
await page.locator(".token.base").first().hover();
assert.match(await page.locator("#tip").textContent(), /by base: [\d.]+ %/);
seen("hover shows probabilities");
await page.screenshot({ path: `${folder}/page-hover.png` });
await page.locator("#curve").focus();
for (let i = 0; i < 3; i++) await page.keyboard.press("ArrowRight");
assert.match(await page.locator("#tip").textContent(), /by draft: [\d.]+ %/);
await page.keyboard.press("Escape");
assert.ok(await page.locator("#tip").isHidden());
seen("the arrow keys go from token to token");
const before = await verdict();
await page.locator("#threshold").focus();
for (let i = 0; i < 20; i++) await page.keyboard.press("ArrowRight");
assert.equal(await page.locator("#threshold-value").textContent(), "1.00");
assert.notEqual(await verdict(), before);
await page.locator("#threshold").fill("0");
await page.locator("#window").fill("2");
assert.match(await verdict(), /fall at token 1\./);
seen("sliders move the switch that would be");
await page.locator("#window").fill(String(tokens));
await page.locator("#threshold").fill(String(threshold));
assert.equal(await verdict(), before);
await page.getByText("This request as curl").click();
await page.locator("#copy").click();
await page.waitForFunction(() => document.getElementById("copy").textContent !== "Copy");
seen("curl copied");
await page.locator("#mode").selectOption("side");
await page.locator("#text").fill("Where does a duck live?");
await page.keyboard.press("Enter");
await page.waitForFunction(() => document.querySelectorAll(".answers:last-child .turn").length === 3);
await answered(page);
const names = await page.locator(".answers:last-child .who").allTextContents();
assert.deepEqual(names, ["wsd", "base", "draft"]);
seen("side by side");
await page.screenshot({ path: `${folder}/page-side.png` });
const drafts = page.locator(".answers:last-child .turn").nth(2);
await drafts.click();
assert.match(await verdict(), /alone: there is no switch/);
seen("no verdict for one model alone");
await page.getByText("Confidence of all answers").click();
assert.match(await page.locator("#all-verdict").textContent(), /^2 answers of this browser; \d would switch/);
assert.equal(await page.locator("#all .one").count(), 2);
seen("the confidence of all answers");
await page.getByText("Settings", { exact: true }).click();
await page.locator("#max_tokens").fill("4");
await page.locator("#mode").selectOption("wsd");
await page.locator("#text").fill("What colour is a fox?");
await page.keyboard.press("Enter");
await page.waitForFunction(() => document.querySelectorAll(".answers").length === 3);
await answered(page);
const ending = () => page.locator(".end").last().textContent();
assert.match(await ending(), /cut at 4 tokens$/);
assert.match(await verdict(), /no window of draft tokens was full/);
await page.getByRole("button", { name: "Continue" }).click();
await page.waitForFunction(() => /cut at 8 tokens$/.test([...document.querySelectorAll(".end")].at(-1).textContent));
await answered(page);
seen(`an answer that is cut says so and goes on: ${await ending()}`);
const chats = async () => page.evaluate(() => JSON.parse(localStorage.getItem("wsd.chats")));
await page.getByRole("button", { name: "Retry" }).click();
await page.waitForFunction(() => /cut at 4 tokens$/.test([...document.querySelectorAll(".end")].at(-1).textContent));
await answered(page);
assert.equal((await chats())[0].turns.length, 3);
await page.locator(".user").last().getByRole("button", { name: "Edit" }).click();
assert.equal(await page.locator("#text").inputValue(), "What colour is a fox?");
assert.equal(await page.locator(".answers").count(), 2);
seen("retry and edit");
await page.locator("#text").fill("");
await page.reload();
await page.waitForSelector("#chat-list li", { state: "attached" });
assert.equal(await page.locator("#max_tokens").inputValue(), "4");
await page.locator("#chats-open").click();
await page.locator("#chat-list .open").first().click();
assert.equal(await page.locator(".answers").count(), 3);
assert.ok((await page.locator(".token.draft").count()) > 0);
seen("chats and settings outlive a reload");
await page.locator("#new").click();
assert.equal(await page.locator(".turn").count(), 0);
seen("a new chat");

// Answers with marks of every kind, which a server would send.
const markdown = "# Head\n\nA **bold** and `code`.\n\n- one\n- two\n\n```js\nlet x = 1;\n```\n<img src=x onerror=alert(1)> [x](javascript:alert(2))";
const parts = markdown.match(/[^]{1,5}/g).map((text, i) => ({
  choices: [{ index: 0, delta: { content: text }, wsd: { id: i, text, by: i < 6 ? "draft" : "base", logprob: -0.1, confidence: i < 5 ? null : 0.9 } }],
}));
parts.splice(6, 0, { choices: [{ index: 0, delta: {}, wsd: { handover: { at: 5, confidence: 0.9 } } }] });
parts.push({ choices: [{ index: 0, delta: {}, finish_reason: "stop", wsd: {} }] });
const written = await open({ viewport: { width: 1200, height: 800 } });
await written.route("**/v1/chat/completions", (route) => route.fulfill({
  contentType: "text/event-stream", body: [...parts.map((part) => JSON.stringify(part)), "[DONE]"].map((data) => `data: ${data}\n\n`).join(""),
}));
await written.locator("#text").fill("Markdown?");
await written.keyboard.press("Enter");
await answered(written);
await written.waitForSelector(".end");
for (const [name, text] of [["h1", "Head"], ["strong", "bold"], ["p code", "code"], ["li:nth-child(2)", "two"], ["pre code", "let x = 1;"]]) {
  assert.equal((await written.locator(`.text ${name}`).first().textContent()).trim(), text, name);
}
assert.equal(await written.locator(".text img, .text a, .text script").count(), 0);
assert.equal(await written.locator(".text .switch").count(), 1);
assert.match(await written.locator(".text").textContent(), /<img src=x onerror=alert\(1\)> \[x\]\(javascript:alert\(2\)\)/);
await written.screenshot({ path: `${folder}/page-markdown.png` });
seen("Markdown by author, and no element of the model's");

// An answer with reasoning: the marks come with tokens of their own, and text may come late.
const steps = [
  ["<think>", "draft", {}], ["Hm, ", "draft", { reasoning_content: "Hm, " }], ["red or **blue**?", "draft", { reasoning_content: "red or **blue**?" }],
  ["</", "draft", {}], ["think>", "draft", {}], ["\n\nIt is", "draft", {}], [" red", "base", { content: "It is red" }], [".", "base", { content: "." }],
];
const reasoned = steps.map(([text, by, delta], id) => ({ choices: [{ index: 0, delta, wsd: { id, text, by, logprob: -0.1, confidence: id < 5 ? null : 0.9 } }] }));
reasoned.splice(6, 0, { choices: [{ index: 0, delta: {}, wsd: { handover: { at: 5, confidence: 0.9 } } }] });
reasoned.push({ choices: [{ index: 0, delta: {}, finish_reason: "stop", wsd: {} }] });
await written.route("**/v1/chat/completions", (route) => route.fulfill({
  contentType: "text/event-stream", body: [...reasoned.map((part) => JSON.stringify(part)), "[DONE]"].map((data) => `data: ${data}\n\n`).join(""),
}));
await written.locator("#text").fill("Which colour?");
await written.keyboard.press("Enter");
await answered(written);
const card = written.locator(".answers").last().locator(".turn"), fold = card.locator(".reasoning");
await card.locator(".end").waitFor();
assert.equal(await card.locator(":scope > .text").textContent(), "It is red.");
assert.equal(await fold.locator(".text").textContent(), "Hm, red or blue?");
assert.equal(await fold.locator("strong").textContent(), "blue");
assert.ok(!(await fold.locator(".text").isVisible()));
assert.match(await card.locator(".end").textContent(), /draft 6 \+ base 2 tokens/);
assert.equal(await card.locator(".switch").count(), 1);
await fold.locator("summary").click();
assert.ok(await fold.locator(".text").isVisible());
await written.screenshot({ path: `${folder}/page-reasoning.png` });
const saved = await written.evaluate(() => JSON.parse(localStorage.getItem("wsd.chats"))[0].turns.at(-1).answers[0]);
assert.deepEqual([saved.text, saved.reasoning, saved.tokens.length], ["It is red.", "Hm, red or **blue**?", 8]);
await written.reload();
await written.locator("#chats-open").click();
await written.locator("#chat-list .open").first().click();
assert.equal(await written.locator(".answers").last().locator(".turn > .text .token.base").first().textContent(), "It is red");
assert.equal(await written.locator(".answers").last().locator(".reasoning .token.draft").first().textContent(), "Hm, ");
seen("reasoning is folded above the answer, and outlives a reload");
await written.route("**/v1/chat/completions", (route) => route.abort());
await written.locator("#text").fill("Anyone?");
await written.keyboard.press("Enter");
await written.waitForSelector(".fault");
assert.match(await written.locator(".fault").textContent(), /does not answer/);
assert.ok(await written.locator(".fault").isVisible());
faults.splice(0, faults.length, ...faults.filter((fault) => !/ERR_FAILED/.test(fault)));
seen("a server that is gone is told in words");
await written.unroute("**/v1/chat/completions");
await written.getByRole("button", { name: "New" }).click();
await written.locator("#text").fill("too long ".repeat(2000));
await written.keyboard.press("Enter");
await written.waitForSelector(".fault");
assert.match(await written.locator(".fault").textContent(), /the prompt has \d+ tokens/);
await written.waitForSelector("#send:not([hidden])");
await written.locator("#text").fill("What colour is a fox?");
await written.keyboard.press("Enter");
await written.waitForFunction(() => document.querySelectorAll(".answers").length === 2);
await answered(written);
await written.waitForSelector(".end");
assert.equal(await written.locator(".fault").count(), 1);
faults.splice(0, faults.length, ...faults.filter((fault) => !/status of 400/.test(fault)));
seen("a question that failed does not fail the next one");

const phone = await open({ viewport: { width: 390, height: 844 }, colorScheme: "dark", isMobile: true, hasTouch: true });
assert.ok(await phone.locator("#text").evaluate((node) => node.scrollHeight <= node.clientHeight));
await phone.locator("#text").fill("What does a cow eat?");
await phone.locator("#send").tap();
await answered(phone);
for (let i = 0; i < 6; i++) {
  await phone.locator("#text").fill(`What colour is a fox, ${i}?`);
  await phone.locator("#send").tap();
  await phone.waitForFunction((count) => document.querySelectorAll(".answers").length === count, i + 2);
  await answered(phone);
}
const inView = (selector) => phone.locator(selector).last().evaluate((node) => node.getBoundingClientRect().bottom <= innerHeight);
assert.ok(await inView(".end") && await inView("#ask"), "the last answer and the message field are on the screen");
const width = await phone.evaluate(() => document.documentElement.scrollWidth);
assert.ok(width <= 390, `${width} wide`);
await phone.screenshot({ path: `${folder}/page-phone-dark.png` });
seen("a phone, dark: the page follows the answers");
await phone.locator("#panel-open").tap();
assert.ok(await phone.locator("#curve").isVisible());
await phone.screenshot({ path: `${folder}/page-phone-details.png` });
seen("the details on a phone");
const tabs = await open({ viewport: { width: 1200, height: 800 } });
const reached = [];
for (let i = 0; i < 24; i++) {
  reached.push(await tabs.evaluate(() => document.activeElement.id || document.activeElement.tagName));
  await tabs.keyboard.press("Tab");
}
for (const id of ["text", "mode", "new", "curve", "window", "threshold"]) assert.ok(reached.includes(id), `${id} not among ${reached}`);
seen("everything is reached by Tab");
assert.deepEqual(foreign, []);
assert.deepEqual(faults, []);
seen("no request to anyone else, no error in the console");
await browser.close();
console.log(`page: ${count} of ${count} checks passed`);
