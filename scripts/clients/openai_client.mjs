// Cases of OpenAI's own Node client against a running `wsd serve`: node openai_client.mjs http://127.0.0.1:8080
//
// Needs `npm install openai` where it is run; the server must run without a key, over the built-in pair.
import assert from "node:assert/strict";
import OpenAI from "openai";

const server = process.argv[2] ?? "http://127.0.0.1:8080";
const client = new OpenAI({ baseURL: `${server}/v1`, apiKey: "none", maxRetries: 0 });
const fox = [{ role: "user", content: "What colour is a fox?" }];
const chat = (more = {}) => client.chat.completions.create({ model: "wsd", messages: fox, ...more });
const text = (more = {}) => client.completions.create({ model: "base", prompt: "A fox is", ...more });
const said = (reply) => reply.choices[0].message.content;
const all = async (stream) => { const chunks = []; for await (const chunk of await stream) chunks.push(chunk); return chunks; };
const refused = (promise, status, param) => assert.rejects(promise, (error) => error.status === status && error.param === param);

const cases = {
  "models are strategies": async () => {
    const names = (await all(client.models.list())).map((model) => model.id);
    assert.deepEqual(names.slice(0, 3), ["wsd", "base", "draft"]);
  },
  "one model": async () => assert.equal((await client.models.retrieve("draft")).id, "draft"),
  "chat answers": async () => assert.ok(said(await chat()).length > 5),
  "chat counts": async () => {
    const { usage } = await chat();
    assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
  },
  "chat says where the base took over": async () => assert.ok((await chat()).wsd.handover.confidence >= 0.8),
  "chat streams the same text": async () => {
    const chunks = await all(chat({ stream: true }));
    assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), said(await chat()));
  },
  "chat stream helper": async () => {
    const stream = client.chat.completions.stream({ model: "wsd", messages: fox });
    assert.equal(await stream.finalContent(), said(await chat()));
  },
  "chat stream counts when asked": async () => {
    const chunks = await all(chat({ stream: true, stream_options: { include_usage: true } }));
    assert.deepEqual(chunks.at(-1).usage, (await chat()).usage);
  },
  "chat stream can be aborted": async () => {
    const stream = await chat({ stream: true });
    for await (const _ of stream) { stream.controller.abort(); break; }
    assert.ok(said(await chat({ max_tokens: 2 })));
  },
  "chat max_tokens": async () => assert.equal((await chat({ max_tokens: 3 })).usage.completion_tokens, 3),
  "chat stop": async () => assert.ok(!said(await chat({ stop: ["!"] })).includes("!")),
  "chat seed": async () => {
    const ask = async () => said(await chat({ temperature: 1, seed: 5, max_tokens: 12 }));
    assert.equal(await ask(), await ask());
  },
  "chat n": async () => assert.equal((await chat({ n: 3, temperature: 1 })).choices.length, 3),
  "chat logprobs": async () => {
    const { content } = (await chat({ logprobs: true, top_logprobs: 3 })).choices[0].logprobs;
    assert.ok(content.every((token) => token.top_logprobs.length === 3 && token.logprob <= 0));
  },
  "chat parts and prefill": async () => {
    const parts = [{ role: "user", content: [{ type: "text", text: "What colour is a fox?" }] }];
    assert.equal(said(await chat({ messages: parts })), said(await chat()));
    assert.ok(said(await chat({ messages: [...fox, { role: "assistant", content: "A fox is" }] })));
  },
  "chat strategies": async () => {
    assert.equal(said(await chat({ model: "draft" })), said(await chat({ wsd: { strategy: "draft" } })));
  },
  "unknown parameter": () => refused(chat({ temprature: 1 }), 400, "temprature"),
  "unsupported parameter": () => refused(chat({ tools: [{ type: "web_search" }] }), 400, "tools[0].type"),
  "forced call": async () => {
    const tools = [{ type: "function", function: { name: "f", parameters: { type: "object", maxProperties: 0 } } }];
    const reply = await chat({ tools, tool_choice: "required", parallel_tool_calls: false });
    assert.equal(reply.choices[0].finish_reason, "tool_calls");
    assert.equal(reply.choices[0].message.tool_calls[0].function.name, "f");
  },
  "unknown model": () => refused(chat({ model: "gpt-4" }), 404, "model"),
  "limits": () => refused(chat({ n: 99 }), 400, "n"),
  "text answers": async () => assert.ok((await text()).choices[0].text),
  "text streams": async () => {
    const chunks = await all(text({ stream: true }));
    assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(""), (await text()).choices[0].text);
  },
  "text echo and logprobs": async () => {
    const { logprobs } = (await text({ echo: true, logprobs: 1, max_tokens: 0 })).choices[0];
    assert.equal(logprobs.token_logprobs[0], null);
  },
  "text lists": async () => assert.equal((await text({ prompt: ["A fox", "A duck"], n: 2 })).choices.length, 4),
};

let failed = 0;
for (const [name, run] of Object.entries(cases)) {
  try {
    await run();
    console.log(`ok     ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED ${name}: ${error.stack}`);
  }
}
const count = Object.keys(cases).length;
console.log(`openai-node: ${count - failed} of ${count} cases passed`);
process.exit(failed > 0 ? 1 : 0);
