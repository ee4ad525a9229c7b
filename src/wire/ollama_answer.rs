//! Ollama's answers to `/api/chat` in OpenAI's shape, whole and streamed (ENGINES.md §4, Native chat).
//!
//! Called by `engines::ollama`. Must never need a clock: `created` is the time that the engine tells.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::types::request::{TokenSource, TokenUsage};
use crate::wire::ndjson::{LineSplitter, lines};
use crate::wire::openai::{ErrorDocument, REASONING_OUT};
use crate::wire::openai_tap::{StreamFault, UsageForClient};
use crate::wire::sse;

/// One line of the stream, or the whole answer. Zero values are omitted by Ollama.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default)]
    model: String,
    #[serde(default)]
    created_at: String,
    #[serde(default)]
    message: Option<Message>,
    /// `/api/generate` says it here.
    #[serde(default)]
    response: Option<String>,
    #[serde(default)]
    thinking: String,
    #[serde(default)]
    logprobs: Option<Vec<Value>>,
    #[serde(default)]
    done: bool,
    #[serde(default)]
    done_reason: Option<String>,
    #[serde(default)]
    prompt_eval_count: u64,
    #[serde(default)]
    eval_count: u64,
    /// Nanoseconds, like the other durations.
    #[serde(default)]
    load_duration: u64,
    #[serde(default)]
    prompt_eval_duration: u64,
    #[serde(default)]
    eval_duration: u64,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
struct Message {
    #[serde(default)]
    content: String,
    #[serde(default)]
    thinking: String,
    #[serde(default)]
    tool_calls: Vec<ToolCall>,
}

#[derive(Debug, Deserialize)]
struct ToolCall {
    #[serde(default)]
    id: String,
    #[serde(default)]
    function: Function,
}

#[derive(Debug, Default, Deserialize)]
struct Function {
    #[serde(default)]
    name: String,
    #[serde(default)]
    arguments: Value,
}

impl Line {
    /// Puts what `/api/generate` says where `/api/chat` says it.
    fn message_of_generate(&mut self) {
        if self.message.is_none()
            && let Some(content) = self.response.take()
        {
            let thinking = std::mem::take(&mut self.thinking);
            self.message = Some(Message { content, thinking, tool_calls: Vec::new() });
        }
    }

    /// Durations in milliseconds, under llama.cpp's names.
    #[expect(clippy::cast_precision_loss, reason = "a duration below 104 days is exact")]
    fn timings(&self) -> Value {
        let millis = |nanos: u64| nanos as f64 / 1e6;
        json!({
            "prompt_ms": millis(self.prompt_eval_duration), "predicted_ms": millis(self.eval_duration),
            "load_ms": millis(self.load_duration),
        })
    }
}

/// Whether the engine's durations are told, as llama.cpp tells its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimingsForClient {
    /// They are not part of OpenAI's shape.
    Leave,
    /// In `timings`: the client's dialect has words for them.
    Tell,
}

/// Translates one answer.
#[derive(Debug)]
pub struct ChatTranslator {
    /// `chatcmpl-…`, the same on every chunk.
    id: String,
    usage_for_client: UsageForClient,
    timings: TimingsForClient,
    splitter: LineSplitter,
    /// `created` and `model` of the first line: the same on every chunk.
    head: Option<(i64, String)>,
    tool_calls: u64,
    deltas: u64,
    usage: Option<TokenUsage>,
    done: bool,
}

impl ChatTranslator {
    /// A translator whose answer gets this id.
    #[must_use]
    pub fn new(id: String, usage_for_client: UsageForClient) -> Self {
        Self {
            id,
            usage_for_client,
            timings: TimingsForClient::Leave,
            splitter: LineSplitter::new(),
            head: None,
            tool_calls: 0,
            deltas: 0,
            usage: None,
            done: false,
        }
    }

    /// The same, telling durations or not.
    #[must_use]
    pub fn with_timings(mut self, timings: TimingsForClient) -> Self {
        self.timings = timings;
        self
    }

    /// Chunks that carried content, reasoning or tool calls so far.
    #[must_use]
    pub fn deltas(&self) -> u64 {
        self.deltas
    }

    /// Usage, known at the end.
    #[must_use]
    pub fn usage(&self) -> Option<TokenUsage> {
        self.usage
    }

    /// Whether `done:true` was seen.
    #[must_use]
    pub fn done(&self) -> bool {
        self.done
    }

    /// Translates a whole answer.
    pub fn whole(&mut self, body: &[u8]) -> Result<Bytes, StreamFault> {
        let mut line = read(body)?;
        if !line.done {
            return Err(StreamFault::Cut);
        }
        line.message_of_generate();
        let message =
            line.message.as_ref().ok_or_else(|| StreamFault::Garbage("an answer without a message".into()))?;
        let calls = self.translate_calls(&message.tool_calls);
        let mut out = Map::new();
        out.insert("role".into(), "assistant".into());
        let content =
            if message.content.is_empty() && !calls.is_empty() { Value::Null } else { message.content.as_str().into() };
        out.insert("content".into(), content);
        insert_reasoning(&message.thinking, &mut out);
        if !calls.is_empty() {
            out.insert("tool_calls".into(), calls.into());
        }
        self.end(&line);
        let mut choice = json!({"index": 0, "message": out, "finish_reason": self.finish_reason(&line)});
        if let Some(logprobs) = &line.logprobs {
            choice["logprobs"] = json!({"content": logprobs});
        }
        let (created, model) = head_of(&line);
        let mut answer = json!({
            "id": self.id, "object": "chat.completion", "created": created, "model": model,
            "system_fingerprint": "fp_ollama", "choices": [choice], "usage": self.usage_json(),
        });
        if self.timings == TimingsForClient::Tell {
            answer["timings"] = line.timings();
        }
        Ok(Bytes::from(answer.to_string()))
    }

    /// Takes a piece of a stream and appends the chunks it makes, together.
    pub fn push(&mut self, piece: &Bytes, out: &mut Vec<Bytes>) -> Result<(), StreamFault> {
        let run = self.splitter.push(piece)?;
        self.pass(&run, out)
    }

    /// The body has ended.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), StreamFault> {
        if let Some(rest) = self.splitter.finish() {
            // A line that was cut in the middle is a cut stream, not garbage.
            if rest.trim_ascii().ends_with(b"}") {
                self.pass(&rest, out)?;
            }
        }
        if self.done { Ok(()) } else { Err(StreamFault::Cut) }
    }

    fn pass(&mut self, run: &[u8], out: &mut Vec<Bytes>) -> Result<(), StreamFault> {
        let mut events = Vec::new();
        let mut result = Ok(());
        for line in lines(run) {
            if self.done {
                break;
            }
            result = self.line(line, &mut events);
            if result.is_err() {
                break;
            }
        }
        if !events.is_empty() {
            out.push(Bytes::from(events));
        }
        result
    }

    fn line(&mut self, line: &[u8], events: &mut Vec<u8>) -> Result<(), StreamFault> {
        let mut line = read(line)?;
        line.message_of_generate();
        let first = self.head.is_none();
        if first {
            self.head = Some(head_of(&line));
        }
        let mut delta = Map::new();
        if first {
            delta.insert("role".into(), "assistant".into());
            delta.insert("content".into(), "".into());
        }
        let mut carries = false;
        if let Some(message) = &line.message {
            if !message.content.is_empty() {
                delta.insert("content".into(), message.content.as_str().into());
                carries = true;
            }
            carries |= insert_reasoning(&message.thinking, &mut delta);
            if !message.tool_calls.is_empty() {
                let calls = self.translate_calls(&message.tool_calls);
                delta.insert("tool_calls".into(), calls.into());
                carries = true;
            }
        }
        self.deltas += u64::from(carries);
        if !delta.is_empty() {
            let mut choice = json!({"index": 0, "delta": delta, "finish_reason": null});
            if let Some(logprobs) = &line.logprobs {
                choice["logprobs"] = json!({"content": logprobs});
            }
            self.chunk(&json!([choice]), None, None, events);
        }
        if line.done {
            self.end(&line);
            let reason = self.finish_reason(&line);
            let timings = (self.timings == TimingsForClient::Tell).then(|| line.timings());
            self.chunk(&json!([{"index": 0, "delta": {}, "finish_reason": reason}]), None, timings, events);
            if self.usage_for_client == UsageForClient::Pass {
                self.chunk(&json!([]), Some(self.usage_json()), None, events);
            }
            events.extend_from_slice(&sse::DONE);
        }
        Ok(())
    }

    fn chunk(&self, choices: &Value, usage: Option<Value>, timings: Option<Value>, events: &mut Vec<u8>) {
        let (created, model) = self.head.as_ref().map_or((0, ""), |(created, model)| (*created, model.as_str()));
        let mut chunk = json!({
            "id": self.id, "object": "chat.completion.chunk", "created": created, "model": model,
            "system_fingerprint": "fp_ollama", "choices": choices,
        });
        // Who wants usage gets `null` on every other chunk, as from OpenAI's own API (CLIENTS.md).
        if self.usage_for_client == UsageForClient::Pass {
            chunk["usage"] = usage.unwrap_or_default();
        }
        if let Some(timings) = timings {
            chunk["timings"] = timings;
        }
        events.extend_from_slice(&sse::event(chunk.to_string().as_bytes()));
    }

    fn translate_calls(&mut self, calls: &[ToolCall]) -> Vec<Value> {
        let mut out = Vec::with_capacity(calls.len());
        for call in calls {
            let index = self.tool_calls;
            self.tool_calls += 1;
            let id = if call.id.is_empty() {
                // Older Ollama gives no id; clients need one to answer the call.
                format!("call_{}_{index}", self.id.trim_start_matches("chatcmpl-"))
            } else {
                call.id.clone()
            };
            let arguments = match &call.function.arguments {
                Value::Null => "{}".to_owned(),
                Value::String(text) => text.clone(),
                object => object.to_string(),
            };
            out.push(json!({
                "index": index, "id": id, "type": "function",
                "function": {"name": call.function.name, "arguments": arguments},
            }));
        }
        out
    }

    fn end(&mut self, line: &Line) {
        self.done = true;
        self.usage = Some(TokenUsage {
            prompt: line.prompt_eval_count,
            completion: line.eval_count,
            cached: 0,
            source: TokenSource::Engine,
        });
    }

    fn finish_reason(&self, line: &Line) -> &'static str {
        match line.done_reason.as_deref() {
            Some("length") => "length",
            _ if self.tool_calls > 0 => "tool_calls",
            _ => "stop",
        }
    }

    fn usage_json(&self) -> Value {
        let usage = self.usage.unwrap_or_default();
        json!({
            "prompt_tokens": usage.prompt, "completion_tokens": usage.completion, "total_tokens": usage.total(),
        })
    }
}

/// An answer of `/api/embed` or `/api/embeddings` as OpenAI's list of embeddings. Vectors stay as they were written.
///
/// # Errors
/// It is an error document, or no embeddings.
pub fn embeddings(body: &[u8], model: &str) -> Result<(Bytes, TokenUsage), StreamFault> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow, default)]
        embeddings: Option<Vec<&'a RawValue>>,
        #[serde(borrow, default)]
        embedding: Option<&'a RawValue>,
        #[serde(default)]
        prompt_eval_count: u64,
    }
    if let Some(error) = ErrorDocument::in_answer(body) {
        return Err(StreamFault::Error(error));
    }
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|fault| StreamFault::Garbage(fault.to_string()))?;
    let vectors = answer.embeddings.or_else(|| answer.embedding.map(|vector| vec![vector]));
    let vectors = vectors.ok_or_else(|| StreamFault::Garbage("an answer without embeddings".into()))?;
    let usage = TokenUsage { prompt: answer.prompt_eval_count, completion: 0, cached: 0, source: TokenSource::Engine };
    let mut out = Vec::with_capacity(body.len() + 64 * vectors.len());
    out.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
    for (index, vector) in vectors.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let item = format!("{comma}{{\"object\":\"embedding\",\"index\":{index},\"embedding\":{vector}}}");
        out.extend_from_slice(item.as_bytes());
    }
    let rest = json!({"model": model, "usage": {"prompt_tokens": usage.prompt, "total_tokens": usage.prompt}});
    out.extend_from_slice(b"],");
    out.extend_from_slice(&rest.to_string().as_bytes()[1..]);
    Ok((Bytes::from(out), usage))
}

fn read(json: &[u8]) -> Result<Line, StreamFault> {
    let line: Line = serde_json::from_slice(json).map_err(|fault| StreamFault::Garbage(fault.to_string()))?;
    if line.error.is_some()
        && let Some(error) = ErrorDocument::in_answer(json)
    {
        return Err(StreamFault::Error(error));
    }
    Ok(line)
}

fn head_of(line: &Line) -> (i64, String) {
    let created = line.created_at.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
    (created, line.model.clone())
}

/// The common name, and the name that Ollama's own `/v1` uses.
fn insert_reasoning(thinking: &str, fields: &mut Map<String, Value>) -> bool {
    if thinking.is_empty() {
        return false;
    }
    fields.insert(REASONING_OUT.into(), thinking.into());
    fields.insert("reasoning".into(), thinking.into());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str = concat!(
        r#"{"model":"q","created_at":"2026-08-21T10:00:00.5Z","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}"#,
        "\n",
        r#"{"model":"q","created_at":"2026-08-21T10:00:01Z","message":{"role":"assistant","content":"Hé"},"done":false}"#,
        "\n",
        r#"{"model":"q","created_at":"2026-08-21T10:00:02Z","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]},"done":false}"#,
        "\n",
        r#"{"model":"q","created_at":"2026-08-21T10:00:03Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","eval_count":4}"#,
        "\n",
    );

    fn run(pieces: &[&[u8]], usage: UsageForClient) -> (String, Result<(), StreamFault>, ChatTranslator) {
        let mut translator = ChatTranslator::new("chatcmpl-1".into(), usage);
        let mut out = Vec::new();
        let mut result = Ok(());
        for piece in pieces {
            result = translator.push(&Bytes::copy_from_slice(piece), &mut out);
            if result.is_err() {
                break;
            }
        }
        if result.is_ok() {
            result = translator.finish(&mut out);
        }
        (String::from_utf8(out.concat()).expect("text"), result, translator)
    }

    #[test]
    fn a_stream_becomes_chunks_with_one_id_and_one_time() {
        let (out, result, translator) = run(&[STREAM.as_bytes()], UsageForClient::Pass);
        assert_eq!(result, Ok(()));
        let chunks: Vec<Value> = out
            .split("\n\n")
            .filter_map(|event| event.strip_prefix("data: "))
            .filter_map(|data| serde_json::from_str(data).ok())
            .collect();
        assert!(out.ends_with("data: [DONE]\n\n"));
        for chunk in &chunks {
            assert_eq!(chunk["id"], "chatcmpl-1");
            assert_eq!(chunk["created"], 1_787_306_400);
            assert_eq!(chunk["object"], "chat.completion.chunk");
        }
        assert_eq!(
            chunks[0]["choices"][0]["delta"],
            json!({"role": "assistant", "content": "", "reasoning_content": "hm", "reasoning": "hm"})
        );
        assert_eq!(chunks[1]["choices"][0]["delta"], json!({"content": "Hé"}));
        assert_eq!(
            chunks[2]["choices"][0]["delta"]["tool_calls"],
            json!([{"index": 0, "id": "call_1_0", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}])
        );
        assert_eq!(chunks[3]["choices"][0]["finish_reason"], "tool_calls");
        // Ollama leaves a count of zero out.
        assert_eq!(chunks[4]["usage"], json!({"prompt_tokens": 0, "completion_tokens": 4, "total_tokens": 4}));
        assert_eq!(chunks[4]["choices"], json!([]));
        assert_eq!((translator.deltas(), translator.done()), (3, true));
    }

    #[test]
    fn an_error_line_under_status_200_is_a_fault() {
        let stream =
            format!("{}\n{{\"error\":\"model runner has crashed\"}}\n", STREAM.lines().next().expect("a line"));
        let (out, result, _) = run(&[stream.as_bytes()], UsageForClient::Strip);
        assert!(out.contains("reasoning_content"));
        assert!(matches!(result, Err(StreamFault::Error(error)) if error.message == "model runner has crashed"));
    }

    #[test]
    fn a_stream_without_its_last_line_is_cut() {
        let first = STREAM.lines().next().expect("a line");
        assert_eq!(run(&[first.as_bytes()], UsageForClient::Strip).1, Err(StreamFault::Cut));
        assert_eq!(run(&[&first.as_bytes()[..40]], UsageForClient::Strip).1, Err(StreamFault::Cut));
        assert!(matches!(run(&[b"<html>\n"], UsageForClient::Strip).1, Err(StreamFault::Garbage(_))));
    }

    #[test]
    fn a_whole_answer_is_translated() {
        let mut translator = ChatTranslator::new("chatcmpl-2".into(), UsageForClient::Pass);
        let body = br#"{"model":"q","created_at":"2026-08-21T10:00:00Z","message":{"role":"assistant","content":"hi"},"done":true,"done_reason":"length","prompt_eval_count":3,"eval_count":1}"#;
        let answer: Value = serde_json::from_slice(&translator.whole(body).expect("an answer")).expect("json");
        assert_eq!(
            answer,
            json!({
                "id": "chatcmpl-2", "object": "chat.completion", "created": 1_787_306_400, "model": "q",
                "system_fingerprint": "fp_ollama",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "length"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
            })
        );
    }

    proptest! {
        #[test]
        fn borders_of_pieces_never_change_the_answer(cuts in proptest::collection::vec(0..STREAM.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &STREAM.as_bytes()[w[0]..w[1]]).collect();
            prop_assert_eq!(
                run(&pieces, UsageForClient::Strip).0,
                run(&[STREAM.as_bytes()], UsageForClient::Strip).0
            );
        }

        #[test]
        fn no_input_makes_the_translator_panic(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..20)) {
            let (out, _, _) = run(&pieces.iter().map(Vec::as_slice).collect::<Vec<_>>(), UsageForClient::Pass);
            prop_assert!(!out.contains("[DONE]"));
        }
    }
}
