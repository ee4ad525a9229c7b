"""One step of a conversation with FLM by the unmodified Anthropic, Ollama or OpenAI client; tests/components/dialects.rs
runs it.

usage: dialects_e2e.py BASE_URL KEY STEP CHAT_MODEL EMBEDDING_MODEL

Writes one JSON object to stdout: what a program that uses the client sees. Checks nothing itself.
"""

import json
import sys

import anthropic
import ollama
import openai

base_url, key, step, chat_model, embedding_model = sys.argv[1:]
words = [{"role": "user", "content": "Say a few words."}]
weather = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Oslo"]}}, "required": ["city"]}
# Forces the random model into a whole tool call (scripts/mk_gguf.py: 7 opens a call, 4 ends the answer).
force = {"logit_bias": {"7": 100, "4": 200}}


def claude(api_key=key):
    return anthropic.Anthropic(base_url=base_url, api_key=api_key, max_retries=0, timeout=60)


def responses(api_key=key):
    return openai.OpenAI(base_url=base_url + "/v1", api_key=api_key, max_retries=0, timeout=60).responses


def local(api_key=key):
    return ollama.Client(host=base_url, headers={"Authorization": f"Bearer {api_key}"}, timeout=60)


def message():
    answer = claude().messages.create(model=chat_model, max_tokens=16, system="Be brief.", messages=words)
    return {"text": answer.content[0].text, "stop_reason": answer.stop_reason, "usage": answer.usage.model_dump()}


def message_stream():
    with claude().messages.stream(model=chat_model, max_tokens=16, messages=words) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_message()
    return {
        "first": events[0],
        "last": events[-1],
        "pieces": events.count("text"),
        "text": final.content[0].text,
        "stop_reason": final.stop_reason,
        "usage": final.usage.model_dump(),
    }


def message_tool():
    tools = [{"name": "get_weather", "input_schema": weather}]
    choice = {"type": "any", "disable_parallel_tool_use": True}
    with claude().messages.stream(
        model=chat_model, max_tokens=200, messages=words, tools=tools, tool_choice=choice, extra_body=force
    ) as stream:
        call = next(block for block in stream.get_final_message().content if block.type == "tool_use")
        reason = stream.get_final_message().stop_reason
    return {"name": call.name, "input": call.input, "id": call.id, "stop_reason": reason}


def message_models():
    page = claude().models.list()
    one = claude().models.retrieve(chat_model)
    return {
        "ids": [model.id for model in page],
        "one": [one.id, one.type, one.display_name],
        "created": one.created_at.isoformat(),
        "more": page.has_more,
    }


def message_count():
    raw = claude().messages.with_raw_response.count_tokens(model=chat_model, messages=words)
    return {"tokens": raw.parse().input_tokens, "by": raw.headers.get("x-flm-token-count")}


def message_refused():
    seen = []
    for call in [
        lambda: claude("flm_wrong").messages.create(model=chat_model, max_tokens=1, messages=words),
        lambda: claude().messages.create(model="none", max_tokens=1, messages=words),
        lambda: claude().messages.create(model=chat_model, max_tokens=1, messages=[{"role": "robot", "content": "x"}]),
    ]:
        try:
            call()
            seen.append(None)
        except anthropic.APIStatusError as error:
            seen.append([type(error).__name__, error.status_code, error.request_id[:4], error.body["error"]["type"]])
    return {"seen": seen}


def response():
    answer = responses().create(model=chat_model, input="Say a few words.", max_output_tokens=16)
    return {"text": answer.output_text, "status": answer.status, "usage": answer.usage.model_dump()}


def response_stream():
    with responses().stream(model=chat_model, input="Say a few words.", max_output_tokens=16) as stream:
        events = [event for event in stream]
    return {
        "numbers": [event.sequence_number for event in events if hasattr(event, "sequence_number")],
        "first": events[0].type,
        "last": events[-1].type,
        "pieces": sum(1 for event in events if event.type == "response.output_text.delta"),
        "usage": events[-1].response.usage.model_dump(),
    }


def response_tool():
    tools = [{"type": "function", "name": "get_weather", "parameters": weather, "strict": False}]
    answer = responses().create(
        model=chat_model, input="x", tools=tools, tool_choice="required", parallel_tool_calls=False, extra_body=force
    )
    call = next(item for item in answer.output if item.type == "function_call")
    return {"name": call.name, "arguments": json.loads(call.arguments), "call_id": call.call_id}


def chat():
    answer = local().chat(chat_model, messages=words, options={"num_predict": 16})
    return {"text": answer.message.content, "done_reason": answer.done_reason, "tokens": answer.eval_count}


def chat_stream():
    parts = list(local().chat(chat_model, messages=words, options={"num_predict": 16}, stream=True))
    last = parts[-1]
    return {
        "pieces": sum(1 for part in parts if part.message.content),
        "done": last.done,
        "done_reason": last.done_reason,
        "tokens": last.eval_count,
        "durations": [last.total_duration, last.prompt_eval_duration, last.eval_duration],
    }


def generate():
    parts = list(local().generate(chat_model, "one two", options={"num_predict": 8}, stream=True))
    return {"text": "".join(part.response for part in parts), "tokens": parts[-1].eval_count}


def embed():
    answer = local().embed(embedding_model, ["hello", "world"])
    return {"vectors": [len(vector) for vector in answer.embeddings], "tokens": answer.prompt_eval_count}


def listed():
    client = local()
    shown = client.show(chat_model)
    return {
        "models": [model.model for model in client.list().models],
        "running": [model.model for model in client.ps().models],
        "capabilities": shown.capabilities,
    }


def chat_refused():
    seen = []
    for call in [
        lambda: local("flm_wrong").chat(chat_model, messages=words),
        lambda: local().chat("none", messages=words),
        lambda: list(local().chat("none", messages=words, stream=True)),
    ]:
        try:
            call()
            seen.append(None)
        except ollama.ResponseError as error:
            seen.append([error.status_code, error.error])
    return {"seen": seen}


print(json.dumps(globals()[step]()))
