//! Entry points for hostile input: each takes any bytes and must neither panic nor break what it promises.
//!
//! Called by the property tests below, which `cargo test` runs with small inputs, and by the fuzz targets in `tests/fuzz`,
//! which run them for as long as one likes. Nothing of the product calls them.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::types::clock::{Clock, UnixMillis};
use crate::wire::client::{About, ClientDialect, ClientWriter, ToldError};
use crate::wire::json_body::JsonBody;
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

    proptest! {
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
