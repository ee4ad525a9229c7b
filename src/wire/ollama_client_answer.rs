//! Answers in OpenAI's shape as Ollama's own API gives them: lines of JSON, or a document (`ollama/ollama`
//! `api/types.go`, `docs/api.md`).
//!
//! Called by [`crate::wire::client`]. Durations are the engine's own where it tells them, else measured here. Must never
//! write a blank line: clients parse each.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::types::clock::Clock;
use crate::wire::client::{ErrorShape, ToldError};
use crate::wire::openai::WholeFault;
use crate::wire::openai_chunk::{Calls, Chunk, Event, Piece, Timings, Usage, json_into, rewrite};
use crate::wire::openai_tap::StreamFault;
use crate::wire::pivot::{OllamaCall, Work};

/// Writes one answer.
#[derive(Debug)]
pub struct OllamaWriter {
    call: OllamaCall,
    work: Work,
    /// The model as the client named it.
    model: String,
    clock: Clock,
    started: Instant,
    first: Option<Instant>,
    calls: Calls,
    finish: Option<String>,
    usage: Option<Usage>,
    timings: Option<Timings>,
    ended: bool,
}

/// A line before the last.
#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    created_at: &'a str,
    #[serde(flatten)]
    said: Said<'a>,
    done: bool,
}

/// What is said, in the place that the call has for it.
#[derive(Serialize)]
#[serde(untagged)]
enum Said<'a> {
    Chat {
        message: Message<'a>,
    },
    Generate {
        response: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        thinking: Option<&'a str>,
    },
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Value>,
}

impl OllamaWriter {
    /// A writer for the answer to one request.
    #[must_use]
    pub fn new(call: OllamaCall, work: Work, model: &str, clock: &Clock) -> Self {
        Self {
            call,
            work,
            model: model.to_owned(),
            clock: clock.clone(),
            started: clock.monotonic(),
            first: None,
            calls: Calls::default(),
            finish: None,
            usage: None,
            timings: None,
            ended: false,
        }
    }

    /// A whole answer.
    ///
    /// # Errors
    /// The document is not what the call answers with, or a tool call of a complete answer has arguments that are no
    /// JSON object.
    pub fn whole(&mut self, document: &[u8]) -> Result<Bytes, WholeFault> {
        if matches!(self.call, OllamaCall::Embed | OllamaCall::Embeddings) {
            return self.embeddings(document);
        }
        let chunk = Chunk::of_document(document, "completion")?;
        let piece = self.take(chunk);
        let wrong = |fault: StreamFault| WholeFault::WrongShape(fault.to_string());
        for call in &piece.calls {
            self.calls.add(call).map_err(wrong)?;
        }
        let calls = self.tool_calls().map_err(wrong)?;
        let mut out = Vec::with_capacity(document.len());
        self.last(piece.content.as_deref().unwrap_or_default(), piece.reasoning.as_deref(), calls, &mut out);
        Ok(Bytes::from(out))
    }

    /// Takes whole events of an OpenAI stream and appends the lines that they make, together.
    ///
    /// # Errors
    /// An event is no chunk, or a complete tool call has arguments that are no JSON object.
    pub fn push(&mut self, events: &[u8], out: &mut VecDeque<Bytes>) -> Result<(), StreamFault> {
        rewrite(events, out, |event, written| match event {
            Event::Chunk(chunk) => self.chunk(*chunk, written),
            // There is no line without meaning.
            Event::Comment => Ok(()),
            Event::Done => self.end(written),
        })
    }

    /// Ends the stream with a line that tells the error.
    pub fn fail(&mut self, error: &ToldError<'_>, out: &mut VecDeque<Bytes>) {
        let mut line = ErrorShape::Ollama.document(error);
        line.push(b'\n');
        out.push_back(Bytes::from(line));
        self.ended = true;
    }

    fn chunk(&mut self, chunk: Chunk<'_>, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        if self.ended {
            return Ok(());
        }
        let piece = self.take(chunk);
        for call in &piece.calls {
            self.calls.add(call)?;
        }
        if piece.content.is_some() || piece.reasoning.is_some() {
            self.first.get_or_insert_with(|| self.clock.monotonic());
            let (content, thinking) = (piece.content.as_deref().unwrap_or_default(), piece.reasoning.as_deref());
            self.line(content, thinking, Vec::new(), out);
        } else if !piece.calls.is_empty() {
            self.first.get_or_insert_with(|| self.clock.monotonic());
        }
        Ok(())
    }

    /// Notes what a chunk tells about the answer, and gives what it adds to it.
    fn take<'a>(&mut self, chunk: Chunk<'a>) -> Piece<'a> {
        self.usage = chunk.usage().or(self.usage);
        self.timings = chunk.timings.or(self.timings);
        let mut piece = chunk.piece();
        if let Some(finish) = piece.finish.take() {
            self.finish = Some(finish.into_owned());
        }
        piece
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        if self.ended {
            return Ok(());
        }
        let calls = self.tool_calls()?;
        if !calls.is_empty() {
            self.line("", None, calls, out);
        }
        self.ended = true;
        self.last("", None, Vec::new(), out);
        out.push(b'\n');
        Ok(())
    }

    /// The calls, whole and with objects as arguments, as this API has them. One that the limit of tokens has cut in the
    /// middle cannot be told so and is left out; `done_reason` says `length`.
    fn tool_calls(&self) -> Result<Vec<Value>, StreamFault> {
        let was_cut = self.finish.as_deref() == Some("length");
        let mut calls = Vec::new();
        for (nth, call) in self.calls.iter().enumerate() {
            match call.object() {
                Some(arguments) => {
                    let mut told = json!({"function": {"index": nth, "name": call.name, "arguments": arguments}});
                    if let Some(id) = &call.id {
                        told["id"] = id.as_str().into();
                    }
                    calls.push(told);
                }
                None if was_cut => {}
                None => {
                    let name = crate::types::text::escape(&call.name);
                    let fault = format!("the arguments of its call of {name} are no JSON object");
                    return Err(StreamFault::Garbage(fault));
                }
            }
        }
        Ok(calls)
    }

    fn said<'a>(&self, content: &'a str, thinking: Option<&'a str>, tool_calls: Vec<Value>) -> Said<'a> {
        match self.call {
            OllamaCall::Generate => Said::Generate { response: content, thinking },
            OllamaCall::Chat | OllamaCall::Embed | OllamaCall::Embeddings => {
                Said::Chat { message: Message { role: "assistant", content, thinking, tool_calls } }
            }
        }
    }

    fn line(&self, content: &str, thinking: Option<&str>, calls: Vec<Value>, out: &mut Vec<u8>) {
        let created_at = self.now();
        let line = Line {
            model: &self.model,
            created_at: &created_at,
            said: self.said(content, thinking, calls),
            done: false,
        };
        json_into(out, &line);
        out.push(b'\n');
    }

    /// The last line, which is also the whole of an answer that is no stream.
    fn last(&self, content: &str, thinking: Option<&str>, calls: Vec<Value>, out: &mut Vec<u8>) {
        /// Nanoseconds; zero values are left out, as Ollama does.
        #[derive(Serialize)]
        struct Last<'a> {
            #[serde(flatten)]
            line: Line<'a>,
            done_reason: &'static str,
            total_duration: u64,
            #[serde(skip_serializing_if = "is_zero")]
            load_duration: u64,
            #[serde(skip_serializing_if = "is_zero")]
            prompt_eval_count: u64,
            #[serde(skip_serializing_if = "is_zero")]
            prompt_eval_duration: u64,
            #[serde(skip_serializing_if = "is_zero")]
            eval_count: u64,
            #[serde(skip_serializing_if = "is_zero")]
            eval_duration: u64,
        }
        let created_at = self.now();
        let tokens = self.usage.unwrap_or_default().tokens;
        let now = self.clock.monotonic();
        let (prompt, answer) = if let Some(timings) = self.timings {
            (nanos_of_millis(timings.prompt_ms), nanos_of_millis(timings.predicted_ms))
        } else {
            let first = self.first.unwrap_or(self.started);
            (nanos(first.saturating_duration_since(self.started)), nanos(now.saturating_duration_since(first)))
        };
        let last = Last {
            line: Line {
                model: &self.model,
                created_at: &created_at,
                said: self.said(content, thinking, calls),
                done: true,
            },
            done_reason: self.done_reason(),
            total_duration: nanos(now.saturating_duration_since(self.started)),
            load_duration: self.timings.map_or(0, |timings| nanos_of_millis(timings.load_ms)),
            prompt_eval_count: tokens.prompt,
            prompt_eval_duration: prompt,
            eval_count: tokens.completion,
            eval_duration: if tokens.completion == 0 { 0 } else { answer },
        };
        json_into(out, &last);
    }

    fn done_reason(&self) -> &'static str {
        match (self.work, self.finish.as_deref()) {
            (Work::Load, _) => "load",
            (Work::Unload, _) => "unload",
            (Work::Answer, Some("length")) => "length",
            // A call is an ordinary end here.
            (Work::Answer, _) => "stop",
        }
    }

    fn now(&self) -> String {
        let now = self.clock.wall();
        jiff::Timestamp::from_millisecond(now.0).map(|time| time.to_string()).unwrap_or_default()
    }

    fn embeddings(&self, document: &[u8]) -> Result<Bytes, WholeFault> {
        #[derive(Deserialize)]
        struct Document<'a> {
            #[serde(borrow)]
            data: Vec<Item<'a>>,
            #[serde(default)]
            usage: Option<Tokens>,
        }
        /// The vector stays as the engine wrote it: no digit is lost.
        #[derive(Deserialize)]
        struct Item<'a> {
            #[serde(default)]
            index: usize,
            #[serde(borrow)]
            embedding: &'a RawValue,
        }
        #[derive(Deserialize)]
        struct Tokens {
            #[serde(default)]
            prompt_tokens: u64,
        }
        #[derive(Serialize)]
        struct Embedded<'a> {
            model: &'a str,
            embeddings: Vec<&'a RawValue>,
            total_duration: u64,
            #[serde(skip_serializing_if = "is_zero")]
            prompt_eval_count: u64,
        }
        let wrong =
            |reason: &dyn std::fmt::Display| WholeFault::WrongShape(format!("it is no list of embeddings: {reason}"));
        let mut read: Document<'_> = serde_json::from_slice(document).map_err(|fault| wrong(&fault))?;
        read.data.sort_by_key(|item| item.index);
        let vectors: Vec<&RawValue> = read.data.iter().map(|item| item.embedding).collect();
        let mut out = Vec::with_capacity(document.len() + 128);
        if self.call == OllamaCall::Embeddings {
            let vector: Cow<'_, str> = vectors.first().map_or(Cow::Borrowed("[]"), |vector| vector.get().into());
            out.extend_from_slice(b"{\"embedding\":");
            out.extend_from_slice(vector.as_bytes());
            out.push(b'}');
        } else {
            let answer = Embedded {
                model: &self.model,
                embeddings: vectors,
                total_duration: nanos(self.clock.monotonic().saturating_duration_since(self.started)),
                prompt_eval_count: read.usage.map_or(0, |usage| usage.prompt_tokens),
            };
            json_into(&mut out, &answer);
        }
        Ok(Bytes::from(out))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn nanos_of_millis(millis: f64) -> u64 {
    Duration::try_from_secs_f64(millis / 1000.0).map_or(0, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::clock::UnixMillis;

    fn clock() -> Clock {
        Clock::stepped(UnixMillis(1_787_306_400_000))
    }

    fn delta(delta: &Value) -> String {
        format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]}))
    }

    fn finish(reason: &str) -> String {
        let finish = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]});
        let usage = json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}});
        format!("data: {finish}\n\ndata: {usage}\n\ndata: [DONE]\n\n")
    }

    fn lines(call: OllamaCall, run: &[String]) -> Vec<Value> {
        let clock = clock();
        let mut writer = OllamaWriter::new(call, Work::Answer, "tiny", &clock);
        let mut out = VecDeque::new();
        for piece in run {
            clock.advance(Duration::from_millis(10));
            writer.push(piece.as_bytes(), &mut out).expect("chunks");
        }
        let text = out.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect::<String>();
        assert!(text.ends_with('\n') && !text.contains("\n\n"));
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn a_chat_becomes_lines_with_objects_as_arguments_and_durations_at_the_end() {
        let call = |id: Option<&str>, name: Option<&str>, arguments: &str| {
            delta(&json!({"tool_calls": [{"index": 0, "id": id, "function": {"name": name, "arguments": arguments}}]}))
        };
        let lines = lines(
            OllamaCall::Chat,
            &[
                delta(&json!({"role": "assistant", "content": null})),
                delta(&json!({"reasoning_content": "hm"})),
                delta(&json!({"content": "Hé\u{2028}"})),
                call(Some("c1"), Some("f"), "{\"a\":"),
                call(None, None, "1}"),
                finish("tool_calls"),
            ],
        );
        assert_eq!(
            lines[0],
            json!({"model": "tiny", "created_at": "2026-08-21T10:00:00.02Z",
                   "message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": false})
        );
        assert_eq!(lines[1]["message"], json!({"role": "assistant", "content": "Hé\u{2028}"}));
        assert_eq!(
            lines[2]["message"],
            json!({"role": "assistant", "content": "", "tool_calls": [
                {"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}]})
        );
        assert_eq!(
            lines[3],
            json!({"model": "tiny", "created_at": "2026-08-21T10:00:00.06Z", "message": {"role": "assistant", "content": ""},
                   "done": true, "done_reason": "stop", "total_duration": 60_000_000, "prompt_eval_count": 9,
                   "prompt_eval_duration": 20_000_000, "eval_count": 4, "eval_duration": 40_000_000})
        );
    }

    #[test]
    fn a_completion_becomes_lines_of_generate() {
        let completion =
            "data: {\"choices\":[{\"index\":0,\"text\":\"a\",\"finish_reason\":\"length\"}]}\n\ndata: [DONE]\n\n";
        let lines = lines(OllamaCall::Generate, &[completion.to_owned()]);
        assert_eq!((&lines[0]["response"], &lines[0]["done"]), (&json!("a"), &json!(false)));
        assert_eq!((&lines[1]["response"], &lines[1]["done_reason"]), (&json!(""), &json!("length")));
        assert!(lines[1].get("eval_count").is_none(), "what is not known is left out");
    }

    #[test]
    fn the_engines_own_durations_win() {
        let last = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
                          "timings": {"prompt_ms": 1.5, "predicted_ms": 2.5}});
        let usage = json!({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}});
        let lines = lines(OllamaCall::Chat, &[format!("data: {last}\n\ndata: {usage}\n\ndata: [DONE]\n\n")]);
        assert_eq!(
            (&lines[0]["prompt_eval_duration"], &lines[0]["eval_duration"]),
            (&json!(1_500_000), &json!(2_500_000))
        );
    }

    #[test]
    fn a_call_cut_by_the_limit_is_left_out_and_a_broken_one_is_a_fault() {
        let call = delta(&json!({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{\"a"}}]}));
        let cut = lines(OllamaCall::Chat, &[call.clone(), finish("length")]);
        assert_eq!((cut.len(), &cut[0]["done_reason"]), (1, &json!("length")));
        let mut writer = OllamaWriter::new(OllamaCall::Chat, Work::Answer, "m", &clock());
        let mut out = VecDeque::new();
        writer.push(call.as_bytes(), &mut out).expect("a chunk");
        assert!(writer.push(finish("tool_calls").as_bytes(), &mut out).is_err());
    }

    #[test]
    fn embeddings_keep_every_digit() {
        let document = br#"{"object":"list","data":[{"index":1,"embedding":[2]},{"index":0,"embedding":[0.10000000149011612,-1e-9]}],"usage":{"prompt_tokens":3}}"#;
        let mut writer = OllamaWriter::new(OllamaCall::Embed, Work::Answer, "m", &clock());
        let text = String::from_utf8(writer.whole(document).expect("embeddings").to_vec()).expect("text");
        assert_eq!(
            text,
            r#"{"model":"m","embeddings":[[0.10000000149011612,-1e-9],[2]],"total_duration":0,"prompt_eval_count":3}"#
        );
        let mut writer = OllamaWriter::new(OllamaCall::Embeddings, Work::Answer, "m", &clock());
        assert_eq!(&writer.whole(document).expect("an embedding")[..], br#"{"embedding":[0.10000000149011612,-1e-9]}"#);
    }
}
