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
const answered = (page) => page.waitForSelector("#send:not([hidden])");
let count = 0;
const seen = (what) => { count += 1; console.log(`ok     ${what}`); };

const page = await open({ viewport: { width: 1200, height: 800 } });
const { window: tokens, threshold } = (await (await fetch(`${server}/v1/models`)).json()).data[0].wsd.defaults;
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
const drafted = await page.locator(".token.draft").count(), written = await page.locator(".token.base").count();
assert.ok(drafted > 0 && written > 0 && (await page.locator(".turn .switch").count()) === 1);
seen(`coloured by author: ${drafted} tokens by the draft, ${written} by the base, one switch`);
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
await page.locator("summary").click();
await page.locator("#copy").click();
await page.waitForFunction(() => document.getElementById("copy").textContent !== "Copy");
seen("curl copied");
await page.locator("#mode").selectOption("side");
await page.locator("#text").fill("Where does a duck live?");
await page.keyboard.press("Enter");
await page.waitForFunction(() => document.querySelectorAll(".answers:last-child .turn").length === 3);
await answered(page);
const names = await page.locator(".answers:last-of-type .who").allTextContents();
assert.deepEqual(names, ["wsd", "base", "draft"]);
seen("side by side");
await page.screenshot({ path: `${folder}/page-side.png` });
await page.locator("#new").click();
assert.equal(await page.locator(".turn").count(), 0);
seen("a new chat");

const phone = await open({ viewport: { width: 390, height: 844 }, colorScheme: "dark", isMobile: true, hasTouch: true });
await phone.locator("#text").fill("What does a cow eat?");
await phone.locator("#send").tap();
await answered(phone);
const width = await phone.evaluate(() => document.documentElement.scrollWidth);
assert.ok(width <= 390, `${width} wide`);
await phone.screenshot({ path: `${folder}/page-phone-dark.png`, fullPage: true });
seen("a phone, dark");
const tabs = await open({ viewport: { width: 1200, height: 800 } });
const reached = [];
for (let i = 0; i < 12; i++) {
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
