//! What translation promises, whatever the content: meaning survives the way there and back, and borders of pieces change
//! nothing, in any dialect.

use std::collections::VecDeque;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::types::clock::{Clock, UnixMillis};
use crate::wire::anthropic_answer::MessagesWriter;
use crate::wire::anthropic_request;
use crate::wire::client::{ClientWriter, ToldError};
use crate::wire::ollama_answer::ChatTranslator;
use crate::wire::ollama_client_answer::OllamaWriter;
use crate::wire::ollama_client_request;
use crate::wire::ollama_request;
use crate::wire::openai_tap::{Tap, UsageForClient};
use crate::wire::pivot::{OllamaCall, Work};
use crate::wire::responses_answer::ResponsesWriter;

/// What a model says.
#[derive(Debug, Clone, PartialEq, Default)]
struct Said {
    reasoning: String,
    content: String,
    /// Name and arguments.
    calls: Vec<(String, Value)>,
    cut: bool,
}

fn text() -> impl Strategy<Value = String> {
    // Quotes, escapes, line separators, characters of two to four bytes, and what looks like the framing.
    "[a-c \"\\\\\n\u{2028}é日🎉{}:]{0,12}|data: \\[DONE\\]\n\n"
}

fn object() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-z]{1,4}", text().prop_map(Value::from), 0..3).prop_map(|fields| json!(fields))
}

fn said() -> impl Strategy<Value = Said> {
    let calls = proptest::collection::vec(("[a-z_]{1,8}", object()), 0..4);
    (text(), text(), calls, any::<bool>()).prop_map(|(reasoning, content, calls, cut)| Said {
        reasoning,
        content,
        cut: cut && calls.is_empty(),
        calls,
    })
}

/// Cuts a text at characters.
fn cut(text: &str, lengths: &[usize]) -> Vec<String> {
    let mut rest: Vec<char> = text.chars().collect();
    let mut out = Vec::new();
    for length in lengths.iter().cycle().take(100) {
        if rest.is_empty() {
            break;
        }
        out.push(rest.drain(..(*length).min(rest.len())).collect());
    }
    out.extend((!rest.is_empty()).then(|| rest.iter().collect::<String>()));
    out
}

/// An OpenAI stream of it; the fragments of its calls come in turns.
fn openai_stream(said: &Said, lengths: &[usize], mixed: bool) -> String {
    let mut deltas = vec![json!({"role": "assistant", "content": null})];
    deltas.extend(cut(&said.reasoning, lengths).into_iter().map(|piece| json!({"reasoning": piece})));
    deltas.extend(cut(&said.content, lengths).into_iter().map(|piece| json!({"content": piece})));
    let mut calls: Vec<VecDeque<Value>> = Vec::new();
    for (index, (name, arguments)) in said.calls.iter().enumerate() {
        let first =
            json!({"index": index, "id": format!("call_{index}"), "type": "function", "function": {"name": name}});
        let mut fragments = VecDeque::from([first]);
        for piece in cut(&arguments.to_string(), lengths) {
            fragments.push_back(json!({"index": index, "function": {"arguments": piece}}));
        }
        calls.push(fragments);
    }
    while calls.iter().any(|fragments| !fragments.is_empty()) {
        for fragments in &mut calls {
            while let Some(fragment) = fragments.pop_front() {
                deltas.push(json!({"tool_calls": [fragment]}));
                if mixed {
                    break;
                }
            }
        }
    }
    let finish = if said.cut {
        "length"
    } else if said.calls.is_empty() {
        "stop"
    } else {
        "tool_calls"
    };
    let chunk =
        |choice: &Value| format!("data: {}\n\n", json!({"object": "chat.completion.chunk", "choices": [choice]}));
    let mut out: String =
        deltas.iter().map(|delta| chunk(&json!({"index": 0, "delta": delta, "finish_reason": null}))).collect();
    out += &chunk(&json!({"index": 0, "delta": {}, "finish_reason": finish}));
    out + "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":5}}\n\ndata: [DONE]\n\n"
}

fn writers() -> [ClientWriter; 4] {
    let clock = Clock::stepped(UnixMillis(1_787_306_400_000));
    [
        ClientWriter::OpenAi,
        ClientWriter::Messages(Box::new(MessagesWriter::new("req_1", "m", Vec::new()))),
        ClientWriter::Responses(Box::new(ResponsesWriter::new("req_1", "m", 7, Map::new()))),
        ClientWriter::Ollama(Box::new(OllamaWriter::new(OllamaCall::Chat, Work::Answer, "m", &clock))),
    ]
}

/// What a client is told of an engine's stream that arrives in these pieces.
fn told(pieces: &[&[u8]], mut client: ClientWriter) -> String {
    let mut tap = Tap::new(UsageForClient::Pass, 1);
    let mut events = Vec::new();
    for piece in pieces {
        tap.push(Bytes::copy_from_slice(piece), &mut events).expect("a stream");
    }
    tap.finish(&mut events).expect("a whole stream");
    let mut out = VecDeque::new();
    for run in events {
        client.push(run, &mut out).expect("chunks");
    }
    String::from_utf8(out.iter().flat_map(|bytes| bytes.to_vec()).collect()).expect("text")
}

fn data(events: &str) -> impl Iterator<Item = Value> {
    events
        .split("\n\n")
        .filter_map(|event| event.split_once("data: "))
        .filter(|(_, data)| *data != "[DONE]")
        .map(|(_, data)| serde_json::from_str(data).expect("JSON"))
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn parsed(arguments: &str) -> Value {
    if arguments.is_empty() { json!({}) } else { serde_json::from_str(arguments).expect("JSON") }
}

fn read_openai(events: &str) -> Said {
    let mut said = Said::default();
    let mut calls: Vec<(String, String)> = Vec::new();
    for chunk in data(events) {
        let choice = &chunk["choices"][0];
        said.reasoning += string(&choice["delta"]["reasoning_content"]);
        said.content += string(&choice["delta"]["content"]);
        for call in choice["delta"]["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let index = usize::try_from(call["index"].as_u64().expect("an index")).expect("small");
            calls.resize_with(calls.len().max(index + 1), Default::default);
            calls[index].0 += string(&call["function"]["name"]);
            calls[index].1 += string(&call["function"]["arguments"]);
        }
        said.cut |= choice["finish_reason"] == "length";
    }
    said.calls = calls.into_iter().map(|(name, arguments)| (name, parsed(&arguments))).collect();
    said
}

fn read_messages(events: &str) -> Said {
    let mut said = Said::default();
    let mut arguments: Vec<String> = Vec::new();
    for event in data(events) {
        let (block, delta) = (&event["content_block"], &event["delta"]);
        if block["type"] == "tool_use" {
            said.calls.push((string(&block["name"]).to_owned(), Value::Null));
            arguments.push(String::new());
        }
        said.reasoning += string(&delta["thinking"]);
        said.content += string(&delta["text"]);
        if let Some(last) = arguments.last_mut() {
            last.push_str(string(&delta["partial_json"]));
        }
        said.cut |= delta["stop_reason"] == "max_tokens";
    }
    for (call, arguments) in said.calls.iter_mut().zip(&arguments) {
        call.1 = parsed(arguments);
    }
    said
}

fn read_responses(events: &str) -> Said {
    let mut said = Said::default();
    for event in data(events) {
        match string(&event["type"]) {
            "response.reasoning_text.delta" => said.reasoning += string(&event["delta"]),
            "response.output_text.delta" => said.content += string(&event["delta"]),
            "response.function_call_arguments.done" => {
                said.calls.push((string(&event["name"]).to_owned(), parsed(string(&event["arguments"]))));
            }
            "response.incomplete" => said.cut = true,
            _ => {}
        }
    }
    said
}

fn read_ollama(lines: &str) -> Said {
    let mut said = Said::default();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        said.reasoning += string(&line["message"]["thinking"]);
        said.content += string(&line["message"]["content"]);
        for call in line["message"]["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default() {
            said.calls.push((string(&call["function"]["name"]).to_owned(), call["function"]["arguments"].clone()));
        }
        said.cut |= line["done_reason"] == "length";
    }
    said
}

/// Prompt and answer tokens as the last word of a stream tells them.
fn usage_in(dialect: usize, events: &str) -> Option<(u64, u64)> {
    let documents: Vec<Value> = if dialect < 3 {
        data(events).collect()
    } else {
        events.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    documents.iter().rev().find_map(|document| {
        let places = [
            (&document["usage"], "prompt_tokens", "completion_tokens"),
            (&document["usage"], "input_tokens", "output_tokens"),
            (&document["response"]["usage"], "input_tokens", "output_tokens"),
            (document, "prompt_eval_count", "eval_count"),
        ];
        places
            .into_iter()
            .find_map(|(usage, prompt, completion)| Some((usage[prompt].as_u64()?, usage[completion].as_u64()?)))
    })
}

/// What a stream that broke off says last, as each API does (SPEC §4.3).
fn error_in(dialect: usize, events: &str) -> Option<String> {
    let error = match dialect {
        0 => {
            let events = events.strip_suffix("data: [DONE]\n\n")?;
            data(events).last()?["error"]["message"].clone()
        }
        1 => {
            let (_, last) = events.trim_end().rsplit_once("event: error\n")?;
            serde_json::from_str::<Value>(last.strip_prefix("data: ")?).ok()?["error"]["message"].clone()
        }
        2 => {
            let last = data(events).last()?;
            if last["type"] != "response.failed" {
                return None;
            }
            last["response"]["error"]["message"].clone()
        }
        _ => serde_json::from_str::<Value>(events.lines().last()?).ok()?["error"].clone(),
    };
    error.as_str().map(str::to_owned)
}

/// A request of OpenAI's shape in which nothing is said in two ways.
fn openai_request() -> impl Strategy<Value = Value> {
    let message = prop_oneof![
        text().prop_map(|text| vec![json!({"role": "user", "content": text})]),
        text().prop_map(|text| vec![json!({"role": "system", "content": text})]),
        "[a-z]{1,9}".prop_map(|text| {
            vec![json!({"role": "user", "content": [
                {"type": "text", "text": text},
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/AAAA"}},
            ]})]
        }),
        ("[a-z]{1,6}", object(), text(), "[a-z]{1,9}").prop_map(|(name, arguments, answer, id)| {
            vec![
                json!({"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
                    {"id": id, "type": "function", "function": {"name": name, "arguments": arguments.to_string()}}]}),
                json!({"role": "tool", "content": answer, "tool_call_id": id}),
            ]
        }),
    ];
    let messages = proptest::collection::vec(message, 1..6).prop_map(|turns| turns.concat());
    (messages, 0_u32..200, 1_u32..5000, proptest::collection::vec("[a-z]{1,4}", 1..3), any::<bool>(), object()).prop_map(
        |(messages, temperature, max_tokens, stop, schema, properties)| {
            let mut request = json!({
                "model": "m", "messages": messages, "temperature": f64::from(temperature) / 100.0, "top_p": 0.5,
                "seed": 7, "presence_penalty": 0.5, "frequency_penalty": 0.25, "max_tokens": max_tokens, "stop": stop,
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
                "keep_alive": "5m",
            });
            if schema {
                request["response_format"] =
                    json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": {"properties": properties}}});
            }
            request
        },
    )
}

proptest! {
    #[test]
    fn borders_of_pieces_never_change_a_stream_in_any_dialect(
        said in said(), lengths in proptest::collection::vec(1_usize..6, 1..4), mixed in any::<bool>(),
        borders in proptest::collection::vec(any::<prop::sample::Index>(), 0..24),
    ) {
        let stream = openai_stream(&said, &lengths, mixed);
        let mut borders: Vec<usize> = borders.iter().map(|border| border.index(stream.len())).collect();
        borders.extend([0, stream.len()]);
        borders.sort_unstable();
        let pieces: Vec<&[u8]> = borders.windows(2).map(|pair| &stream.as_bytes()[pair[0]..pair[1]]).collect();
        for (whole, cut) in writers().into_iter().zip(writers()) {
            prop_assert_eq!(told(&[stream.as_bytes()], whole), told(&pieces, cut));
        }
    }

    #[test]
    fn every_dialect_tells_what_the_model_said(
        said in said(), lengths in proptest::collection::vec(1_usize..6, 1..4), mixed in any::<bool>(),
    ) {
        let stream = openai_stream(&said, &lengths, mixed);
        let readers = [read_openai, read_messages, read_responses, read_ollama];
        for (writer, read) in writers().into_iter().zip(readers) {
            let kind = format!("{writer:?}");
            prop_assert_eq!(read(&told(&[stream.as_bytes()], writer)), said.clone(), "{}", kind);
        }
    }

    #[test]
    fn every_dialect_tells_the_tokens_that_the_engine_counted(
        said in said(), lengths in proptest::collection::vec(1_usize..6, 1..4), mixed in any::<bool>(),
    ) {
        let stream = openai_stream(&said, &lengths, mixed);
        for (dialect, writer) in writers().into_iter().enumerate() {
            let kind = format!("{writer:?}");
            prop_assert_eq!(usage_in(dialect, &told(&[stream.as_bytes()], writer)), Some((3, 5)), "{}", kind);
        }
    }

    #[test]
    fn a_stream_that_breaks_off_anywhere_ends_with_an_error_in_every_dialect_and_says_nothing_that_was_not_said(
        said in said(), lengths in proptest::collection::vec(1_usize..6, 1..4), mixed in any::<bool>(),
        border in any::<prop::sample::Index>(), message in "[a-z é\"\\\\]{1,20}",
    ) {
        let stream = openai_stream(&said, &lengths, mixed);
        // Before the finish reason: after it nothing is missing.
        let last = stream.find("\"finish_reason\":\"").expect("an end");
        let cut = &stream.as_bytes()[..border.index(last)];
        let error = ToldError {
            status: 502, code: "engine_error", kind: "server_error", message: &message, param: None, request_id: "req_1",
        };
        let readers = [read_openai, read_messages, read_responses, read_ollama];
        for (dialect, (mut client, read)) in writers().into_iter().zip(readers).enumerate() {
            let mut tap = Tap::new(UsageForClient::Pass, 1);
            let mut events = Vec::new();
            tap.push(Bytes::copy_from_slice(cut), &mut events).expect("a stream");
            prop_assert!(tap.finish(&mut Vec::new()).is_err(), "it was cut");
            let mut out = VecDeque::new();
            for run in events {
                client.push(run, &mut out).expect("chunks");
            }
            let before = out.len();
            client.fail(&error, &mut out);
            let text = String::from_utf8(out.iter().flat_map(|bytes| bytes.to_vec()).collect()).expect("text");
            prop_assert_eq!(error_in(dialect, &text), Some(message.clone()), "{}", text);
            let begun: String =
                out.iter().take(before).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
            // Arguments that broke off are no JSON and are never told as a whole call.
            if said.calls.is_empty() {
                let part = read(&begun);
                prop_assert!(said.content.starts_with(&part.content) && said.reasoning.starts_with(&part.reasoning));
                prop_assert!(!part.cut, "what broke off was not cut by a limit");
            }
        }
    }

    #[test]
    fn an_answer_keeps_its_meaning_from_openai_to_ollama_and_back(
        said in said(), lengths in proptest::collection::vec(1_usize..6, 1..4), mixed in any::<bool>(),
    ) {
        let [_, _, _, ollama] = writers();
        let lines = told(&[openai_stream(&said, &lengths, mixed).as_bytes()], ollama);
        let mut translator = ChatTranslator::new("chatcmpl-1".into(), UsageForClient::Pass);
        let mut events = Vec::new();
        translator.push(&Bytes::from(lines), &mut events).expect("lines");
        translator.finish(&mut events).expect("a whole stream");
        let back = String::from_utf8(events.concat()).expect("text");
        prop_assert_eq!(read_openai(&back), said);
        prop_assert_eq!(translator.usage().map(|usage| (usage.prompt, usage.completion)), Some((3, 5)));
    }

    #[test]
    fn a_request_keeps_its_meaning_from_openai_to_ollama_and_back(request in openai_request()) {
        let Value::Object(fields) = &request else { unreachable!("an object") };
        let ollama = ollama_request::chat(fields, None, "m", true).expect("translates");
        prop_assert!(ollama.dropped.is_empty(), "{:?}", ollama.dropped);
        let Value::Object(body) = &ollama.body else { unreachable!("an object") };
        let back = ollama_client_request::translate(OllamaCall::Chat, body).expect("translates");
        for (field, value) in fields {
            prop_assert_eq!(&back.body[field], value, "{}", field);
        }
    }

    #[test]
    fn a_turn_keeps_its_meaning_from_anthropic_to_openai_and_back(said in said()) {
        let mut blocks = Vec::new();
        if !said.reasoning.is_empty() {
            blocks.push(json!({"type": "thinking", "thinking": said.reasoning, "signature": ""}));
        }
        if !said.content.is_empty() {
            blocks.push(json!({"type": "text", "text": said.content}));
        }
        for (nth, (name, input)) in said.calls.iter().enumerate() {
            blocks.push(json!({"type": "tool_use", "id": format!("toolu_{nth}"), "name": name, "input": input}));
        }
        let request = json!({"model": "m", "messages": [{"role": "assistant", "content": blocks}]});
        let Value::Object(fields) = &request else { unreachable!("an object") };
        let pivot = anthropic_request::chat(fields).expect("translates").body;
        let document = json!({"choices": [{"index": 0, "message": pivot["messages"][0], "finish_reason": "stop"}]});
        let mut writer = MessagesWriter::new("req_1", "m", Vec::new());
        let back: Value =
            serde_json::from_slice(&writer.whole(document.to_string().as_bytes()).expect("an answer")).expect("JSON");
        prop_assert_eq!(&back["content"], &json!(blocks));
    }
}
