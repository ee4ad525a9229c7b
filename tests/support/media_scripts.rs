//! Scripts of an OpenAI-compatible server for sounds and images, after OpenAI's API reference (Images, Audio) and vLLM's protocol: strict, it
//! refuses what the real ones would refuse.
//!
//! Included by test binaries with `#[path]`, beside `fake_engine`.

use bytes::Bytes;
use flm::wire::multipart::{self, Boundary, IsFile, Part};
use http::Method;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::fake_engine::{Asked, Reply, Script, Step};

/// A WAV file of no length.
pub(crate) const WAV: &[u8] =
    b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\0\0\0";
/// The beginning of a PNG.
pub(crate) const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";
/// What the server says.
pub(crate) const SRT: &str = "1\n00:00:00,000 --> 00:00:01,000\nhello there\n";

/// Models of the server.
pub(crate) const MODEL: &str = "media";

/// The parts of a form that the engine got.
pub(crate) fn parts(asked: &Asked) -> Option<Vec<Part>> {
    let media_type = asked.headers.get(CONTENT_TYPE)?.to_str().ok()?;
    multipart::parse(&asked.body, &Boundary::of_media_type(media_type).ok()??).ok()
}

/// A text of a form.
pub(crate) fn text(asked: &Asked, name: &str) -> Option<String> {
    let part = parts(asked)?.into_iter().find(|part| part.name == name && part.is_file == IsFile::Text)?;
    String::from_utf8(part.content.to_vec()).ok()
}

fn files(asked: &Asked, name: &str) -> usize {
    let is_one = |part: &&Part| part.name.trim_end_matches("[]") == name && part.is_file == IsFile::File;
    parts(asked).map_or(0, |parts| parts.iter().filter(is_one).count())
}

fn refuses(message: &str) -> Reply {
    Reply::json(
        400,
        &json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": null}}),
    )
}

/// A reply with another media type.
pub(crate) fn reply(media_type: &'static str, pieces: &[&[u8]]) -> Reply {
    let mut reply = Reply::json(200, &Value::Null);
    reply.headers.insert(CONTENT_TYPE, media_type.parse().expect("a value"));
    reply.steps = pieces.iter().map(|piece| Step::Send(Bytes::copy_from_slice(piece))).collect();
    reply
}

/// Events of a transcription (OpenAI's API reference, Create transcription, Streaming).
pub(crate) const TRANSCRIPT_EVENTS: &[&str] = &[
    "data: {\"type\":\"transcript.text.delta\",\"delta\":\"hello\",\"logprobs\":[]}\n\n",
    "data: {\"type\":\"transcript.text.delta\",\"delta\":\" there\"}\n\ndata: {\"type\":\"transcript.te",
    "xt.done\",\"text\":\"hello there\",\"usage\":{\"type\":\"tokens\",\"input_tokens\":14,\"output_tokens\":4,\"total_tokens\":18}}\n\n",
];

/// Events of an image (OpenAI's API reference, Image streaming).
pub(crate) const IMAGE_EVENTS: &[&str] = &[
    "event: image_generation.partial_image\ndata: {\"type\":\"image_generation.partial_image\",\"partial_image_index\":0,\"b64_json\":\"iVBORw0KGgo=\"}\n\n",
    "event: image_generation.completed\ndata: {\"type\":\"image_generation.completed\",\"b64_json\":\"iVBORw0KGgo=\",\"usage\":{\"total_tokens\":100,\"input_tokens\":50,\"output_tokens\":50}}\n\n",
];

/// The server.
pub(crate) fn media() -> Script {
    let (transcriptions, translations) = ("/v1/audio/transcriptions", "/v1/audio/translations");
    let (generations, edits) = ("/v1/images/generations", "/v1/images/edits");
    let (speech, rerank) = ("/v1/audio/speech", "/v1/rerank");
    let format = |word: &'static str| move |asked: &Asked| text(asked, "response_format").as_deref() == Some(word);
    let models = json!({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "me"}]});
    let said = json!({"text": "hello there", "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 4, "total_tokens": 18}});
    let verbose = json!({"task": "transcribe", "language": "english", "duration": 1.0, "text": "hello there",
        "segments": [{"id": 0, "start": 0.0, "end": 1.0, "text": "hello there", "tokens": [1, 2]}], "usage": {"type": "duration", "seconds": 1}});
    let image = json!({"created": 1, "data": [{"b64_json": "iVBORw0KGgo="}],
        "usage": {"total_tokens": 100, "input_tokens": 50, "output_tokens": 50, "input_tokens_details": {"text_tokens": 10, "image_tokens": 40}}});
    let ranked = json!({"id": "score-1", "model": MODEL, "usage": {"prompt_tokens": 20, "total_tokens": 20},
        "results": [{"index": 1, "relevance_score": 0.18}, {"index": 0, "relevance_score": -0.1}]});
    let streams = |asked: &Asked| text(asked, "stream").as_deref() == Some("true");
    let mut script =
        Script::new(Reply::json(404, &json!({"error": {"message": "Invalid URL", "type": "invalid_request_error"}})))
            .get("/v1/models", Reply::json(200, &models));
    for path in [transcriptions, translations] {
        script = script
            .when(Method::POST, path, |asked| parts(asked).is_none(), refuses("Could not parse multipart form"))
            .when(Method::POST, path, |asked| files(asked, "file") != 1, refuses("Missing required parameter: 'file'"))
            .when(
                Method::POST,
                path,
                |asked| text(asked, "model").as_deref() != Some(MODEL),
                refuses("invalid model ID"),
            )
            .when(Method::POST, path, streams, Reply::stream(TRANSCRIPT_EVENTS))
            .when(Method::POST, path, format("verbose_json"), Reply::json(200, &verbose))
            .when(Method::POST, path, format("text"), reply("text/plain; charset=utf-8", &[b"hello there\n"]))
            .when(Method::POST, path, format("srt"), reply("text/plain; charset=utf-8", &[SRT.as_bytes()]))
            .when(Method::POST, path, format("vtt"), reply("text/vtt", &[b"WEBVTT\n\n", b"hello there\n"]))
            .when(Method::POST, path, |_| true, Reply::json(200, &said));
    }
    script
        .when(Method::POST, edits, |asked| parts(asked).is_none(), refuses("Could not parse multipart form"))
        .when(Method::POST, edits, |asked| files(asked, "image") == 0, refuses("Missing required parameter: 'image'"))
        .when(Method::POST, edits, |asked| text(asked, "prompt").is_none(), refuses("Missing required parameter: 'prompt'"))
        .when(Method::POST, edits, streams, Reply::stream(IMAGE_EVENTS))
        .when(Method::POST, edits, |_| true, Reply::json(200, &image))
        .post_when(generations, |body| body["model"] != MODEL || !body["prompt"].is_string(), refuses("invalid request"))
        .post_when(generations, |body| body["stream"] == true, Reply::stream(IMAGE_EVENTS))
        .post(generations, Reply::json(200, &image))
        .post_when(speech, |body| body["model"] != MODEL || !body["input"].is_string() || body.get("voice").is_none(), refuses("invalid request"))
        .post_when(
            speech,
            |body| body["stream_format"] == "sse",
            Reply::stream(&[
                "data: {\"type\":\"speech.audio.delta\",\"audio\":\"SUQz\"}\n\n",
                "data: {\"type\":\"speech.audio.done\",\"usage\":{\"input_tokens\":3,\"output_tokens\":9,\"total_tokens\":12}}\n\n",
            ]),
        )
        .post(speech, reply("audio/mpeg", &[b"ID3\x04\0\n\n", b"\xff\xfb\n\x90", b"\0\n"]))
        .post_when(rerank, |body| !body["query"].is_string() || !body["documents"].is_array(), refuses("invalid request"))
        .post(rerank, Reply::json(200, &ranked))
}
