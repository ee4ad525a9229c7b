"""One step of a conversation with FLM by the unmodified OpenAI client; tests/components/main.rs runs it.

usage: openai_e2e.py BASE_URL KEY STEP CHAT_MODEL EMBEDDING_MODEL

Writes one JSON object to stdout: what a program that uses the client sees. Checks nothing itself.
"""

import json
import sys

import openai

base_url, key, step, chat_model, embedding_model = sys.argv[1:]
client = openai.OpenAI(base_url=base_url + "/v1", api_key=key, max_retries=0, timeout=60)
messages = [{"role": "user", "content": "Say a few words."}]


def stream(**options):
    with client.chat.completions.with_streaming_response.create(
        model=chat_model, messages=messages, max_tokens=16, stream=True, **options
    ) as response:
        chunks = [chunk for chunk in response.parse()]
        choices = [choice for chunk in chunks for choice in chunk.choices]
        return {
            "request_id": response.headers.get("x-request-id"),
            "text": "".join(choice.delta.content or "" for choice in choices),
            "pieces": sum(1 for choice in choices if choice.delta.content),
            "finish_reasons": [choice.finish_reason for choice in choices if choice.finish_reason],
            "ids": sorted({chunk.id for chunk in chunks}),
            "without_choices": sum(1 for chunk in chunks if not chunk.choices),
            "usages": [chunk.usage.model_dump() for chunk in chunks if chunk.usage],
        }


def models():
    return {"ids": [model.id for model in client.models.list()]}


def chat():
    raw = client.chat.completions.with_raw_response.create(model=chat_model, messages=messages, max_tokens=16)
    answer = raw.parse()
    return {
        "request_id": raw.headers.get("x-request-id"),
        "text": answer.choices[0].message.content,
        "finish_reason": answer.choices[0].finish_reason,
        "usage": answer.usage.model_dump(),
    }


def completion():
    raw = client.completions.with_raw_response.create(model=chat_model, prompt="one two", max_tokens=8)
    answer = raw.parse()
    return {"request_id": raw.headers.get("x-request-id"), "text": answer.choices[0].text}


def stream_without_usage():
    return stream()


def stream_with_usage():
    return stream(stream_options={"include_usage": True})


def embed():
    raw = client.embeddings.with_raw_response.create(model=embedding_model, input=["hello", "world"])
    answer = raw.parse()
    return {
        "request_id": raw.headers.get("x-request-id"),
        "vectors": [len(item.embedding) for item in answer.data],
        "prompt_tokens": answer.usage.prompt_tokens,
    }


def refused(call):
    try:
        call()
    except openai.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "message": error.message,
            "param": error.param,
            "request_id": error.request_id,
        }
    return {"class": None}


def wrong_key():
    last = "a" if key[-1] != "a" else "b"
    stranger = openai.OpenAI(base_url=base_url + "/v1", api_key=key[:-1] + last, max_retries=0)
    return refused(lambda: stranger.models.list())


def unknown_model():
    return refused(lambda: client.chat.completions.create(model=chat_model[:-1], messages=messages))


def refused_chat():
    return refused(chat)


def leave():
    """Reads the first words of a very long answer and goes away."""
    answer = client.chat.completions.create(
        model=chat_model, messages=messages, max_tokens=100_000, stream=True, extra_body={"ignore_eos": True}
    )
    seen = 0
    for chunk in answer:
        seen += 1
        if seen == 5:
            break
    answer.close()
    return {"pieces": seen}


WAV = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\0\0\0"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0"


def ranked(model):
    """The client has no word for ranking, but a way to say it."""
    body = {"model": model, "query": "hello", "documents": ["word", "hello there", "one two"]}
    return client.post("/rerank", cast_to=object, body=body, options={"headers": {"x-stainless-raw-response": "true"}})


def rerank():
    raw = ranked("flm://rank/" + embedding_model)
    answer = json.loads(raw.content)
    return {"request_id": raw.headers.get("x-request-id"), "results": answer["results"], "usage": answer["usage"]}


def rerank_without():
    return refused(lambda: ranked("flm://embed/" + embedding_model))


def media_refused():
    """Every way in which the client sends files and asks for media, at a model that has neither eyes nor ears."""
    sound = ("who cares.wav", WAV, "text/plain")
    calls = [
        lambda: client.audio.transcriptions.create(
            model=chat_model, file=sound, response_format="verbose_json", timestamp_granularities=["word", "segment"]
        ),
        lambda: client.audio.transcriptions.create(model=chat_model, file=sound, stream=True, temperature=0.5),
        lambda: client.audio.translations.create(model=chat_model, file=sound, prompt="ü"),
        lambda: client.audio.speech.create(model=chat_model, input="hello", voice="alloy"),
        lambda: client.images.generate(model=chat_model, prompt="a cat"),
        lambda: client.images.edit(model=chat_model, image=[PNG, PNG], mask=PNG, prompt="a hat", n=2),
    ]
    return {"seen": [refused(call) for call in calls]}


def wrong_audio():
    told = refused(lambda: client.audio.transcriptions.create(model=chat_model, file=("a.wav", PNG, "audio/wav")))
    return {name: told[name] for name in ("class", "status", "code", "param")}


print(json.dumps(globals()[step]()))
