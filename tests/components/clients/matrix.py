"""Every case of a plan through one unmodified client library; tests/components/matrix.rs runs it.

usage: matrix.py openai|responses|anthropic|ollama < PLAN

`responses` is the OpenAI library by its Responses API. The plan is a JSON list of cases {name, base, key, model, stream,
tools, words, repeat, retries, timeout, leaves}. Writes one JSON object per case to stdout, a line each: what a program that
uses the library sees. Checks nothing itself.
"""

import concurrent.futures
import importlib
import json
import sys
import time

try:
    # What the current libraries carry.
    import httpx2 as httpx
except ImportError:
    import httpx

API = sys.argv[1]
LIBRARY = "openai" if API == "responses" else API
library = importlib.import_module(LIBRARY)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": SCHEMA}}


class Hooks:
    """Counts what the library sends and keeps the last head that it gets."""

    def __init__(self):
        self.sent, self.headers, self.status = [], {}, None

    def request(self, _request):
        self.sent.append(time.monotonic())

    def response(self, response):
        self.headers, self.status = response.headers, response.status_code

    def options(self):
        return {"event_hooks": {"request": [self.request], "response": [self.response]}, "verify": False}


def parsed(arguments):
    """Arguments as a value; those that a limit has cut stay text."""
    try:
        return json.loads(arguments or "{}")
    except json.JSONDecodeError:
        return arguments


def openai_client(case, hooks):
    return library.OpenAI(
        base_url=case["base"] + "/v1",
        api_key=case["key"],
        max_retries=case["retries"],
        timeout=case["timeout"],
        http_client=httpx.Client(timeout=case["timeout"], **hooks.options()),
    )


class Failed(Exception):
    """A response that says inside its stream that it failed: the library hands it over as an event, it raises nothing."""

    def __init__(self, error):
        super().__init__(error.message)
        self.code = error.code


def responses_case(case, hooks):
    client = openai_client(case, hooks)
    options = {"tools": [FUNCTION["function"] | {"type": "function", "strict": False}]} if case["tools"] else {}
    answer = client.responses.create(model=case["model"], input=case["words"], stream=case["stream"], **options)
    if not case["stream"]:
        return response_said(answer)
    text, types, last = "", [], None
    for event in answer:
        types.append(event.type)
        assert event.sequence_number == len(types) - 1, event
        if event.type == "response.output_text.delta":
            text += event.delta
        elif event.type in ("response.completed", "response.incomplete", "response.failed"):
            last = event.response
        if case["leaves"] and text:
            answer.close()
            return {"left": True}
    assert types[:2] == ["response.created", "response.in_progress"], types
    if last.status == "failed":
        raise Failed(last.error)
    result = response_said(last)
    assert result["content"] == text, (result, text)
    return result


def response_said(response):
    calls = [[item.name, parsed(item.arguments)] for item in response.output if item.type == "function_call"]
    finish = "tool_calls" if calls else "stop"
    if response.status == "incomplete":
        finish = {"max_output_tokens": "length"}.get(response.incomplete_details.reason)
    usage = response.usage
    tokens = (usage.input_tokens, usage.output_tokens) if usage else ()
    return said(response.output_text, calls, finish, *tokens)


def openai_case(case, hooks):
    client = openai_client(case, hooks)
    options = {"tools": [FUNCTION]} if case["tools"] else {}
    if case["stream"]:
        options |= {"stream": True, "stream_options": {"include_usage": True}}
    messages = [{"role": "user", "content": case["words"]}]
    answer = client.chat.completions.create(model=case["model"], messages=messages, **options)
    if not case["stream"]:
        choice = answer.choices[0]
        calls = [[call.function.name, parsed(call.function.arguments)] for call in choice.message.tool_calls or []]
        usage = answer.usage.model_dump(exclude_none=True)
        return said(choice.message.content, calls, choice.finish_reason, usage=usage)
    text, names, finish, usage, ids = "", {}, None, None, set()
    for chunk in answer:
        ids.add((chunk.id, chunk.created))
        if chunk.usage:
            assert chunk.choices == [], chunk
            usage = chunk.usage.model_dump(exclude_none=True)
        for choice in chunk.choices:
            text += choice.delta.content or ""
            for call in choice.delta.tool_calls or []:
                name, arguments = names.get(call.index, ("", ""))
                names[call.index] = (name + (call.function.name or ""), arguments + (call.function.arguments or ""))
            assert finish is None or not choice.finish_reason, "two finishes"
            finish = choice.finish_reason or finish
        if case["leaves"] and text:
            answer.close()
            return {"left": True}
    assert len(ids) == 1, ids
    return said(text, [[name, parsed(arguments)] for name, arguments in names.values()], finish, usage=usage)


def anthropic_case(case, hooks):
    client = library.Anthropic(
        base_url=case["base"],
        api_key=case["key"],
        max_retries=case["retries"],
        timeout=case["timeout"],
        http_client=httpx.Client(timeout=case["timeout"], **hooks.options()),
    )
    options = {"tools": [{"name": "get_weather", "input_schema": SCHEMA}]} if case["tools"] else {}
    messages = [{"role": "user", "content": case["words"]}]
    answer = client.messages.create(
        model=case["model"], max_tokens=100, messages=messages, stream=case["stream"], **options
    )
    if not case["stream"]:
        text = "".join(block.text for block in answer.content if block.type == "text")
        calls = [[block.name, block.input] for block in answer.content if block.type == "tool_use"]
        return anthropic_said(text, calls, answer.stop_reason, answer.usage)
    text, calls, stop, usage, types = "", [], None, None, []
    for event in answer:
        types.append(event.type)
        if event.type == "content_block_start" and event.content_block.type == "tool_use":
            calls.append([event.content_block.name, ""])
        elif event.type == "content_block_delta" and event.delta.type == "text_delta":
            text += event.delta.text
        elif event.type == "content_block_delta" and event.delta.type == "input_json_delta":
            calls[-1][1] += event.delta.partial_json
        elif event.type == "message_delta":
            stop, usage = event.delta.stop_reason, event.usage
        if case["leaves"] and text:
            answer.close()
            return {"left": True}
    assert (types[0], types[-1]) == ("message_start", "message_stop"), types
    return anthropic_said(text, [[name, parsed(arguments)] for name, arguments in calls], stop, usage)


def anthropic_said(text, calls, stop, usage):
    finish = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls"}.get(stop, stop)
    prompt = (usage.input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    return said(text, calls, finish, prompt, usage.output_tokens)


def ollama_case(case, hooks):
    client = library.Client(
        host=case["base"],
        headers={"Authorization": "Bearer " + case["key"]},
        timeout=case["timeout"],
        **hooks.options(),
    )
    tools = [FUNCTION] if case["tools"] else None
    messages = [{"role": "user", "content": case["words"]}]
    answer = client.chat(case["model"], messages=messages, tools=tools, stream=case["stream"])
    text, calls, last = "", [], None
    for part in answer if case["stream"] else [answer]:
        assert last is None or not last.done, "something after the end"
        last = part
        text += part.message.content or ""
        calls += [[call.function.name, dict(call.function.arguments)] for call in part.message.tool_calls or []]
        if case["leaves"] and text:
            answer.close()
            return {"left": True}
    assert last.done, last
    # Ollama has no reason of its own for calls.
    finish = "tool_calls" if calls and last.done_reason == "stop" else last.done_reason
    return said(text, calls, finish, last.prompt_eval_count, last.eval_count)


def said(text, calls, finish, prompt=None, completion=None, usage=None):
    if usage:
        prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    tokens = {"prompt": prompt, "completion": completion, "details": usage}
    return {"content": text or "", "calls": calls, "finish": finish, "tokens": tokens}


def told(error):
    """An exception as a program sees it."""
    body = getattr(error, "body", None)
    if LIBRARY == "anthropic" and isinstance(body, dict):
        code = (body.get("error") or {}).get("type")
    else:
        code = getattr(error, "code", None)
    return {
        "class": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "code": code,
        "param": getattr(error, "param", None),
        "message": str(error),
    }


def run(case):
    hooks = Hooks()
    seen = {"name": case["name"]}
    case["words"] *= case["repeat"]
    try:
        answer = globals()[API + "_case"](case, hooks)
        seen |= answer if "left" in answer else {"said": answer}
    except AssertionError:
        raise
    except Exception as error:  # what a library raises is what is looked at
        seen["error"] = told(error)
    names = ["retry-after", "x-should-retry", "x-request-id", "x-ratelimit-limit-requests"]
    seen["headers"] = {name: hooks.headers.get(name) for name in names}
    seen["attempts"] = len(hooks.sent)
    seen["waited"] = round(hooks.sent[-1] - hooks.sent[0], 3) if hooks.sent else 0
    return seen


with concurrent.futures.ThreadPoolExecutor(8) as pool:
    for seen in pool.map(run, json.load(sys.stdin)):
        print(json.dumps(seen))
