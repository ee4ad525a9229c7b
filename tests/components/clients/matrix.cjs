// Every case of a plan through the unmodified OpenAI JavaScript library; tests/components/matrix.rs runs it.
//
// usage: NODE_PATH=… node matrix.cjs < PLAN
//
// The same plan and the same results as matrix.py. Checks nothing itself.
"use strict";

const assert = require("node:assert");
const { text } = require("node:stream/consumers");
const OpenAI = require("openai");

const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tool = { type: "function", function: { name: "get_weather", description: "Weather", parameters: schema } };

// Arguments as a value; those that a limit has cut stay text.
function parsed(words) {
  try {
    return JSON.parse(words || "{}");
  } catch {
    return words;
  }
}

function said(content, calls, finish, usage) {
  const { prompt_tokens: prompt = null, completion_tokens: completion = null } = usage ?? {};
  const tokens = { prompt, completion, details: present(usage) };
  return { content: content || "", calls, finish, tokens };
}

// The value without its nulls.
function present(value) {
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== null).map(([n, v]) => [n, present(v)]));
}

async function chat(spec, hooks) {
  const client = new OpenAI({
    baseURL: spec.base + "/v1",
    apiKey: spec.key,
    maxRetries: spec.retries,
    timeout: spec.timeout * 1000,
    fetch: async (url, init) => {
      hooks.sent.push(performance.now() / 1000);
      const response = await fetch(url, init);
      hooks.headers = response.headers;
      return response;
    },
  });
  const body = { model: spec.model, messages: [{ role: "user", content: spec.words.repeat(spec.repeat) }] };
  if (spec.tools) body.tools = [tool];
  if (!spec.stream) {
    const answer = await client.chat.completions.create(body);
    const { message, finish_reason } = answer.choices[0];
    const calls = (message.tool_calls || []).map((call) => [call.function.name, parsed(call.function.arguments)]);
    return { said: said(message.content, calls, finish_reason, answer.usage) };
  }
  const stream = await client.chat.completions.create({
    ...body,
    stream: true,
    stream_options: { include_usage: true },
  });
  let content = "";
  let finish = null;
  let usage = null;
  const calls = [];
  const ids = new Set();
  for await (const chunk of stream) {
    ids.add(`${chunk.id} ${chunk.created}`);
    if (chunk.usage) {
      assert.deepStrictEqual(chunk.choices, []);
      usage = chunk.usage;
    }
    for (const choice of chunk.choices) {
      content += choice.delta.content || "";
      for (const call of choice.delta.tool_calls || []) {
        const one = (calls[call.index] ??= ["", ""]);
        one[0] += call.function.name || "";
        one[1] += call.function.arguments || "";
      }
      assert(!(finish && choice.finish_reason), "two finishes");
      finish = choice.finish_reason || finish;
    }
    // Leaving the loop ends the request.
    if (spec.leaves && content) return { left: true };
  }
  assert.strictEqual(ids.size, 1);
  return { said: said(content, calls.map(([name, words]) => [name, parsed(words)]), finish, usage) };
}

async function run(spec) {
  const hooks = { sent: [], headers: new Headers() };
  const seen = { name: spec.name };
  try {
    Object.assign(seen, await chat(spec, hooks));
  } catch (error) {
    if (error instanceof assert.AssertionError) throw error;
    seen.error = {
      class: error.constructor.name,
      status: error.status ?? null,
      code: error.code ?? null,
      param: error.param ?? null,
      message: error.message,
    };
  }
  const names = ["retry-after", "x-should-retry", "x-request-id", "x-ratelimit-limit-requests"];
  seen.headers = Object.fromEntries(names.map((name) => [name, hooks.headers.get(name)]));
  seen.attempts = hooks.sent.length;
  seen.waited = hooks.sent.length ? hooks.sent.at(-1) - hooks.sent[0] : 0;
  return seen;
}

async function main() {
  const plan = JSON.parse(await text(process.stdin));
  const results = new Array(plan.length);
  let next = 0;
  const worker = async () => {
    while (next < plan.length) {
      const at = next++;
      results[at] = await run(plan[at]);
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  for (const seen of results) console.log(JSON.stringify(seen));
}

main();
