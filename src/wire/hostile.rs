//! Entry points for hostile input: each takes any bytes and must neither panic nor break what it promises.
//!
//! Called by the property tests below, which `cargo test` runs with small inputs, and by the fuzz targets in `tests/fuzz`,
//! which run them for as long as one likes. Nothing of the product calls them.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::types::clock::{Clock, UnixMillis};
use crate::wire::chat_images;
use crate::wire::client::{About, ClientDialect, ClientWriter, ToldError};
use crate::wire::form::{self, FileLimits, Word};
use crate::wire::json_body::JsonBody;
use crate::wire::media_kind::MediaKind;
use crate::wire::multipart::Boundary;
use crate::wire::ndjson::{LineSplitter, lines};
use crate::wire::ollama_answer::{self, ChatTranslator, TimingsForClient};
use crate::wire::ollama_request;
use crate::wire::openai_tap::{StreamFault, Tap, UsageForClient};
use crate::wire::pivot::OllamaCall;
use crate::wire::sse::{Splitter, blocks};

/// Every dialect but the pivot itself.
pub const DIALECTS: [ClientDialect; 7] = [
    ClientDialect::Messages,
    ClientDialect::CountTokens,
    ClientDialect::Responses,
    ClientDialect::Ollama(OllamaCall::Chat),
    ClientDialect::Ollama(OllamaCall::Generate),
    ClientDialect::Ollama(OllamaCall::Embed),
    ClientDialect::Ollama(OllamaCall::Embeddings),
];

/// The dialects that have streams of their own.
const STREAMED: [ClientDialect; 4] = [
    ClientDialect::Messages,
    ClientDialect::Responses,
    ClientDialect::Ollama(OllamaCall::Chat),
    ClientDialect::Ollama(OllamaCall::Generate),
];

/// The pieces in which input arrives: the first byte tells how long they are.
fn pieces(data: &[u8]) -> impl Iterator<Item = Bytes> {
    let (length, rest) = data.split_first().map_or((1, data), |(first, rest)| (usize::from(*first % 40) + 1, rest));
    rest.chunks(length).map(Bytes::copy_from_slice).collect::<Vec<_>>().into_iter()
}

/// The parser of server-sent events: no byte is lost, however the input is cut.
pub fn sse(data: &[u8]) {
    let mut splitter = Splitter::new();
    let mut seen = Vec::new();
    for piece in pieces(data) {
        let Ok(run) = splitter.push(piece) else { return };
        assert_eq!(blocks(&run).map(|block| block.range.len()).sum::<usize>(), run.len());
        seen.extend_from_slice(&run);
    }
    seen.extend_from_slice(&splitter.finish().unwrap_or_default());
    assert_eq!(seen, pieces(data).collect::<Vec<_>>().concat());
}

/// The parser of lines: no byte is lost, however the input is cut.
pub fn ndjson(data: &[u8]) {
    let mut splitter = LineSplitter::new();
    let mut seen = Vec::new();
    for piece in pieces(data) {
        let Ok(run) = splitter.push(&piece) else { return };
        assert!(lines(&run).all(|line| !line.is_empty()));
        seen.extend_from_slice(&run);
    }
    seen.extend_from_slice(&splitter.finish().unwrap_or_default());
    assert_eq!(seen, pieces(data).collect::<Vec<_>>().concat());
}

/// A form: it is read or refused, what is read is a body that the pipeline takes, and what is written of it is read again.
pub fn form(data: &[u8]) {
    let (media_type, body) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(0));
    let Ok(media_type) = std::str::from_utf8(media_type) else { return };
    let body = Bytes::copy_from_slice(body.strip_prefix(b"\n").unwrap_or(body));
    let Ok(Some(boundary)) = Boundary::of_media_type(media_type) else { return };
    let limits = FileLimits { image: 64, audio: 64 };
    for spec in [&form::TRANSCRIPTION, &form::TRANSLATION, &form::IMAGE_EDIT] {
        let Ok(read) = spec.read(&body, &boundary, limits) else { continue };
        let fields = JsonBody::parse(read.body);
        assert!(fields.is_ok(), "a form becomes an object: {fields:?}");
        let Ok(fields) = fields else { return };
        let mut number = 0;
        let (media_type, written, _) = spec.write(&fields, &read.files, "m", Word::Vllm, || {
            number += 1;
            number
        });
        let again = Boundary::of_media_type(&media_type).ok().flatten();
        let again = again.and_then(|boundary| spec.read(&written, &boundary, limits).ok());
        assert_eq!(again.map(|form| form.files), Some(read.files), "what is written is read again");
    }
}

/// The messages of a chat: images and sounds are found or refused, and a fetched image takes the place of its address.
pub fn images(data: &[u8]) {
    let Ok(messages) = std::str::from_utf8(data) else { return };
    let Ok(held) = chat_images::check(messages, 64) else { return };
    let images = vec![(MediaKind::Png, b"\x89PNG\r\n\x1a\n".as_slice()); held.remote.len()];
    let put = chat_images::put_in(messages, &held.remote, &images);
    let again = chat_images::check(&put, 64).map(|again| (again.inline, again.remote.len(), again.audio));
    assert_eq!(again, Ok((held.inline + held.remote.len(), 0, held.audio)), "{put}");
}

/// A request of one dialect: what is translated is a body that the pipeline takes, and an Ollama engine's too.
pub fn request(dialect: ClientDialect, data: &[u8]) {
    let Ok(body) = JsonBody::parse(Bytes::copy_from_slice(data)) else { return };
    let Ok(Some(translated)) = dialect.translate(&body, about(&clock())) else { return };
    let pivot = serde_json::from_slice(&translated.body);
    assert!(pivot.is_ok(), "a request becomes an object: {:?}", translated.body);
    let Ok(pivot) = pivot else { return };
    // Either may refuse it; neither may panic.
    drop(ollama_request::chat(&pivot, Some(&translated.extras), "m", translated.streams));
    if let Some(native) = &translated.extras.ollama {
        drop(ollama_request::native(&pivot, &translated.extras, native, "m", translated.streams));
    }
}

/// A chat request of OpenAI's shape for an Ollama engine.
pub fn request_for_ollama(data: &[u8]) {
    if let Ok(fields) = serde_json::from_slice(data) {
        drop(ollama_request::chat(&fields, None, "m", true));
    }
}

/// An OpenAI engine's stream in every dialect: borders of pieces change nothing.
pub fn openai_stream(data: &[u8]) {
    let read = |pieces: &mut dyn Iterator<Item = Bytes>| {
        let mut tap = Tap::new(UsageForClient::Pass, 1);
        events(pieces, |piece, out| tap.push(piece, out)).and_then(|mut out| tap.finish(&mut out).map(|()| out))
    };
    in_every_dialect(data, read);
}

/// An Ollama engine's stream in every dialect: borders of pieces change nothing.
pub fn ollama_stream(data: &[u8]) {
    let read = |pieces: &mut dyn Iterator<Item = Bytes>| {
        let mut translator =
            ChatTranslator::new("chatcmpl-1".to_owned(), UsageForClient::Pass).with_timings(TimingsForClient::Tell);
        events(pieces, |piece, out| translator.push(&piece, out))
            .and_then(|mut out| translator.finish(&mut out).map(|()| out))
    };
    in_every_dialect(data, read);
}

/// A whole answer in every dialect.
pub fn document(data: &[u8]) {
    for dialect in DIALECTS {
        if let Some(mut client) = writer(dialect) {
            drop(client.whole(Bytes::copy_from_slice(data)));
        }
    }
    drop(ChatTranslator::new("chatcmpl-1".to_owned(), UsageForClient::Pass).whole(data));
    drop(ollama_answer::embeddings(data, "m"));
}

fn events(
    pieces: &mut dyn Iterator<Item = Bytes>,
    mut push: impl FnMut(Bytes, &mut Vec<Bytes>) -> Result<(), StreamFault>,
) -> Result<Vec<Bytes>, StreamFault> {
    let mut out = Vec::new();
    for piece in pieces {
        push(piece, &mut out)?;
    }
    Ok(out)
}

type Read<'a> = dyn Fn(&mut dyn Iterator<Item = Bytes>) -> Result<Vec<Bytes>, StreamFault> + 'a;

fn in_every_dialect(data: &[u8], read: impl Fn(&mut dyn Iterator<Item = Bytes>) -> Result<Vec<Bytes>, StreamFault>) {
    let read: &Read<'_> = &read;
    let whole = pieces(data).collect::<Vec<_>>().concat();
    for dialect in STREAMED {
        let at_once = told(dialect, read(&mut std::iter::once(Bytes::from(whole.clone()))));
        let in_pieces = told(dialect, read(&mut pieces(data)));
        if let (Some(at_once), Some(in_pieces)) = (at_once, in_pieces) {
            assert_eq!(at_once, in_pieces, "{dialect:?}");
        }
    }
}

/// What a client is told of events; `None` when they are no answer. Failing afterwards must do no harm.
fn told(dialect: ClientDialect, events: Result<Vec<Bytes>, StreamFault>) -> Option<Vec<u8>> {
    let mut client = writer(dialect)?;
    let mut out = VecDeque::new();
    for run in events.ok()? {
        client.push(run, &mut out).ok()?;
    }
    let complete = out.iter().flat_map(|bytes| bytes.to_vec()).collect();
    let error = ToldError {
        status: 502,
        code: "x",
        kind: "x",
        message: "x",
        param: None,
        request_id: "req_00000000000000000000",
    };
    client.fail(&error, &mut out);
    Some(complete)
}

/// A writer as a plain request of the dialect would have it.
fn writer(dialect: ClientDialect) -> Option<ClientWriter> {
    let plain = br#"{"model":"m","messages":[{"role":"user","content":"x"}],"input":"x","prompt":"x"}"#;
    let body = JsonBody::parse(Bytes::from_static(plain)).ok()?;
    dialect.translate(&body, about(&clock())).ok()?.map(|translated| translated.client)
}

fn clock() -> Clock {
    Clock::stepped(UnixMillis(1_787_306_400_000))
}

fn about(clock: &Clock) -> About<'_> {
    About { request_id: "req_00000000000000000000", model: "m", clock }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Words of all dialects: much more of what they make gets past the first parser than random bytes do.
    const WORDS: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\n",
        "\n\n",
        "\r\n\r\n",
        "data: ",
        "data: [DONE]\n\n",
        ": ping\n\n",
        "event: error\n",
        "null",
        "true",
        "1",
        "-1",
        "1e9",
        "\"\"",
        "\"x\"",
        "\"é\u{2028}\"",
        "\"model\":\"m\"",
        "\"messages\":",
        "\"role\":",
        "\"user\"",
        "\"assistant\"",
        "\"content\":",
        "\"type\":",
        "\"text\"",
        "\"tool_use\"",
        "\"tool_result\"",
        "\"input\":",
        "\"tools\":",
        "\"options\":",
        "\"choices\":",
        "\"delta\":",
        "\"index\":0",
        "\"tool_calls\":",
        "\"function\":",
        "\"arguments\":",
        "\"name\":",
        "\"finish_reason\":",
        "\"usage\":",
        "\"done\":true",
        "\"message\":",
        "\"error\":",
        "{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}",
        "{\"message\":{\"content\":\"a\"},\"done\":false}",
        "{\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1,\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]}}]}",
    ];

    fn input() -> impl Strategy<Value = Vec<u8>> {
        let words = proptest::collection::vec(proptest::sample::select(WORDS), 0..24).prop_map(|words| words.concat());
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            (any::<char>(), words).prop_map(|(first, rest)| format!("{first}{rest}").into_bytes()),
        ]
    }

    fn json_object() -> impl Strategy<Value = Vec<u8>> {
        let keys = [
            "model",
            "messages",
            "input",
            "system",
            "tools",
            "tool_choice",
            "role",
            "content",
            "type",
            "text",
            "source",
            "id",
            "name",
            "arguments",
            "tool_use_id",
            "is_error",
            "thinking",
            "options",
            "format",
            "think",
            "images",
            "tool_calls",
            "function",
            "prompt",
            "suffix",
            "raw",
            "instructions",
            "reasoning",
            "stop_sequences",
            "call_id",
            "output",
            "summary",
            "budget_tokens",
            "stream",
            "num_predict",
            "keep_alive",
            "dimensions",
            "effort",
        ];
        let values = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("0".to_owned()),
            Just("1.5".to_owned()),
            proptest::sample::select(vec![
                "user",
                "assistant",
                "tool",
                "system",
                "developer",
                "text",
                "image",
                "tool_use",
                "tool_result",
                "function",
                "function_call",
                "function_call_output",
                "enabled",
                "auto",
                "any",
                "base64",
                "json",
                "low",
                "message",
                "{",
            ])
            .prop_map(|word| format!("{word:?}")),
        ];
        let tree = values.prop_recursive(5, 48, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
                proptest::collection::btree_map(proptest::sample::select(keys.to_vec()), inner, 0..5).prop_map(
                    |fields| {
                        let fields: Vec<String> =
                            fields.iter().map(|(key, value)| format!("{key:?}:{value}")).collect();
                        format!("{{{}}}", fields.join(","))
                    }
                ),
            ]
        });
        proptest::collection::btree_map(proptest::sample::select(keys.to_vec()), tree, 0..8).prop_map(|mut fields| {
            fields.insert("model", "\"m\"".to_owned());
            let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{key:?}:{value}")).collect();
            format!("{{{}}}", fields.join(",")).into_bytes()
        })
    }

    const FORM_WORDS: &[&str] = &[
        "--x",
        "--",
        "\r\n",
        "\r\n\r\n",
        "Content-Disposition: form-data; ",
        "name=\"file\"",
        "name=\"model\"",
        "name=\"stream\"",
        "name=\"image[]\"",
        "name=\"temperature\"",
        "; filename=\"a\"",
        "RIFF0000WAVE",
        "\u{fe}",
        "true",
        "0.5",
        "\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nRIFF0000WAVE",
        "\r\n--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm",
        "\r\n--x\r\nContent-Disposition: form-data; name=\"seed\"\r\n\r\n1",
        "\r\n--x--\r\n",
    ];

    fn form_input() -> impl Strategy<Value = Vec<u8>> {
        let words = proptest::collection::vec(proptest::sample::select(FORM_WORDS), 0..12);
        words.prop_map(|words| format!("multipart/form-data; boundary=x\n{}", words.concat()).into_bytes())
    }

    const IMAGE_WORDS: &[&str] = &[
        r#"{"content":["#,
        r#"{"image_url":"http://a/b"}"#,
        r#"{"image_url":{"url":"https:\/\/a"}}"#,
        r#"{"im\u0061ge_url":{"url":"data:;base64,iVBORw0KGgoAAAANSUhEUg=="}}"#,
        r#"{"input_audio":{}}"#,
        r#"{"image_url":{"url":"//a","url":"//b"}}"#,
        "3",
        ",",
        "]}",
        "\u{fe}",
    ];

    fn images_input() -> impl Strategy<Value = Vec<u8>> {
        let words = proptest::collection::vec(proptest::sample::select(IMAGE_WORDS), 0..10);
        words.prop_map(|words| format!("[{}]", words.concat()).into_bytes())
    }

    proptest! {
        #[test]
        fn no_input_breaks_the_reader_of_forms(data in prop_oneof![input(), form_input()]) {
            form(&data);
        }

        #[test]
        fn no_messages_break_the_finder_of_images(data in prop_oneof![input(), images_input()]) {
            images(&data);
        }

        #[test]
        fn no_input_breaks_a_parser(data in input()) {
            sse(&data);
            ndjson(&data);
        }

        #[test]
        fn no_input_breaks_a_request_translator(data in prop_oneof![input(), json_object()]) {
            for dialect in DIALECTS {
                request(dialect, &data);
            }
            request_for_ollama(&data);
        }

        #[test]
        fn no_input_breaks_a_stream_translator(data in input()) {
            openai_stream(&data);
            ollama_stream(&data);
        }

        #[test]
        fn no_input_breaks_a_document_translator(data in prop_oneof![input(), json_object()]) {
            document(&data);
        }
    }
}
