//! Answers in OpenAI's shape as Anthropic's Messages API gives them, whole and streamed (its API reference, Messages
//! and Streaming).
//!
//! Called by [`crate::wire::client`]. Must never hold back text.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use crate::types::request::TokenUsage;
use crate::wire::blocks::{Block, BlockWriter, Blocks, Told};
use crate::wire::client::{ErrorShape, ToldError};
use crate::wire::openai::WholeFault;
use crate::wire::openai_chunk::{Call, Chunk, Event, Piece, named_event, rewrite};
use crate::wire::openai_tap::StreamFault;

/// A sign of life inside a stream; clients skip it (anthropic-sdk-python `_streaming.py`).
pub(crate) const PING: Bytes = Bytes::from_static(b"event: ping\ndata: {\"type\":\"ping\"}\n\n");

/// Writes one answer.
#[derive(Debug)]
pub struct MessagesWriter {
    message: Message,
    blocks: Blocks,
    stop_sequences: Vec<String>,
    begun: bool,
    ended: bool,
    finish: Option<String>,
    stop: Option<String>,
    usage: TokenUsage,
}

/// What the blocks need to be written.
#[derive(Debug)]
struct Message {
    /// `msg_…`.
    id: String,
    /// The model as the client named it.
    model: String,
    /// Index of the next block.
    next: u64,
}

#[derive(Serialize)]
struct BlockDelta<'a> {
    r#type: &'static str,
    index: u64,
    delta: Added<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Added<'a> {
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "signature_delta")]
    Signature { signature: &'static str },
    #[serde(rename = "input_json_delta")]
    Input { partial_json: &'a str },
}

impl MessagesWriter {
    /// A writer for the answer to one request.
    #[must_use]
    pub fn new(request_id: &str, model: &str, stop_sequences: Vec<String>) -> Self {
        Self {
            message: Message {
                id: format!("msg_{}", request_id.trim_start_matches("req_")),
                model: model.to_owned(),
                next: 0,
            },
            blocks: Blocks::default(),
            stop_sequences,
            begun: false,
            ended: false,
            finish: None,
            stop: None,
            usage: TokenUsage::default(),
        }
    }

    /// A whole answer.
    ///
    /// # Errors
    /// The document is no chat completion, or a tool call of a complete answer has arguments that are no JSON object.
    pub fn whole(&mut self, document: &[u8]) -> Result<Bytes, WholeFault> {
        let chunk = Chunk::of_document(document, "chat completion")?;
        if let Some(usage) = chunk.usage() {
            self.usage = usage.tokens;
        }
        let Piece { reasoning, content, calls, finish, stop } = chunk.piece();
        let mut blocks = Vec::new();
        if let Some(thinking) = reasoning {
            blocks.push(json!({"type": "thinking", "thinking": thinking, "signature": ""}));
        }
        if let Some(text) = content {
            blocks.push(json!({"type": "text", "text": text}));
        }
        self.finish = finish.map(Into::into);
        self.stop = stop;
        for call in &calls {
            self.blocks.calls.add(call).map_err(|fault| WholeFault::WrongShape(fault.to_string()))?;
        }
        let was_cut = self.finish.as_deref() == Some("length");
        for call in self.blocks.calls.iter() {
            // Cut by max_tokens, arguments end in the middle: `stop_reason` tells so.
            let input = call.object().or_else(|| was_cut.then(|| json!({}))).ok_or_else(|| {
                WholeFault::WrongShape(format!("the arguments of its call of {:?} are no JSON object", call.name))
            })?;
            blocks
                .push(json!({"type": "tool_use", "id": self.message.call_id(call), "name": call.name, "input": input}));
        }
        let (reason, sequence) = self.stop_reason();
        let answer = json!({
            "id": self.message.id, "type": "message", "role": "assistant", "model": self.message.model, "content": blocks,
            "stop_reason": reason, "stop_sequence": sequence, "usage": self.usage_json(),
        });
        Ok(Bytes::from(answer.to_string()))
    }

    /// Takes whole events of an OpenAI stream and appends the events that they make, together.
    ///
    /// # Errors
    /// An event is no chunk.
    pub fn push(&mut self, events: &[u8], out: &mut VecDeque<Bytes>) -> Result<(), StreamFault> {
        rewrite(events, out, |event, written| match event {
            Event::Chunk(chunk) => self.chunk(*chunk, written),
            Event::Comment => {
                if self.begun && !self.ended {
                    written.extend_from_slice(&PING);
                }
                Ok(())
            }
            Event::Done => self.end(written),
        })
    }

    /// Ends the stream with an error.
    pub fn fail(&mut self, error: &ToldError<'_>, out: &mut VecDeque<Bytes>) {
        let mut written = Vec::new();
        named_event(&mut written, "error", &ErrorShape::Anthropic.shaped(error));
        out.push_back(Bytes::from(written));
        self.ended = true;
    }

    /// Whether `message_start` was written.
    #[must_use]
    pub fn begun(&self) -> bool {
        self.begun
    }

    fn chunk(&mut self, chunk: Chunk<'_>, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        let usage = chunk.usage();
        if let Some(usage) = usage {
            self.usage = usage.tokens;
        }
        let piece = chunk.piece();
        if self.ended || (usage.is_none() && !piece.says_something()) {
            return Ok(());
        }
        self.begin(out);
        self.blocks.add(&piece, &mut self.message, out)?;
        if let Some(finish) = piece.finish {
            self.finish = Some(finish.into_owned());
        }
        self.stop = piece.stop.or(self.stop.take());
        Ok(())
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.begun {
            return;
        }
        self.begun = true;
        let message = json!({"type": "message_start", "message": {
            "id": self.message.id, "type": "message", "role": "assistant", "model": self.message.model, "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": self.usage_json(),
        }});
        named_event(out, "message_start", &message);
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        if self.ended {
            return Ok(());
        }
        self.begin(out);
        self.blocks.end(&mut self.message, out)?;
        self.ended = true;
        let (reason, sequence) = self.stop_reason();
        let delta = json!({
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": sequence},
            "usage": self.usage_json(),
        });
        named_event(out, "message_delta", &delta);
        named_event(out, "message_stop", &json!({"type": "message_stop"}));
        Ok(())
    }

    /// Why it stopped, and at which of the client's sequences. A call decides, not the engine's word for it: vLLM says
    /// `stop` after a named choice (ENGINES.md §4, Tools).
    fn stop_reason(&self) -> (&'static str, Option<&str>) {
        let met = self.stop.as_deref().filter(|stop| self.stop_sequences.iter().any(|asked| asked == stop));
        match self.finish.as_deref() {
            Some("length") => ("max_tokens", None),
            Some("content_filter") => ("refusal", None),
            _ if !self.blocks.calls.is_empty() => ("tool_use", None),
            _ if met.is_some() => ("stop_sequence", met),
            _ => ("end_turn", None),
        }
    }

    fn usage_json(&self) -> Value {
        // Anthropic counts what was read from a cache apart.
        json!({
            "input_tokens": self.usage.prompt.saturating_sub(self.usage.cached),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": self.usage.cached,
            "output_tokens": self.usage.completion,
        })
    }
}

impl Message {
    fn call_id(&self, call: &Call) -> String {
        // Clients answer by id; an engine that gives none gets one.
        call.id.clone().unwrap_or_else(|| format!("toolu_{}_{}", self.id.trim_start_matches("msg_"), call.index()))
    }

    fn open_index(&self) -> u64 {
        self.next.saturating_sub(1)
    }
}

impl BlockWriter for Message {
    fn open(&mut self, told: Told<'_>, out: &mut Vec<u8>) {
        let content = match (told.block, told.call) {
            (Block::Reasoning, _) => json!({"type": "thinking", "thinking": "", "signature": ""}),
            (Block::Call(_), Some(call)) => {
                json!({"type": "tool_use", "id": self.call_id(call), "name": call.name, "input": {}})
            }
            (Block::Text | Block::Call(_), _) => json!({"type": "text", "text": ""}),
        };
        let start = json!({"type": "content_block_start", "index": self.next, "content_block": content});
        named_event(out, "content_block_start", &start);
        if self.next == 0 {
            // Where Anthropic's own API has its first.
            out.extend_from_slice(&PING);
        }
        self.next += 1;
    }

    fn piece(&mut self, block: Block, text: &str, out: &mut Vec<u8>) {
        let delta = match block {
            Block::Reasoning => Added::Thinking { thinking: text },
            Block::Text => Added::Text { text },
            Block::Call(_) => Added::Input { partial_json: text },
        };
        write_delta(delta, self.open_index(), out);
    }

    fn close(&mut self, told: Told<'_>, out: &mut Vec<u8>) {
        let index = self.open_index();
        if told.block == Block::Reasoning {
            // Only Anthropic can sign; clients want the field all the same.
            write_delta(Added::Signature { signature: "" }, index, out);
        }
        named_event(out, "content_block_stop", &json!({"type": "content_block_stop", "index": index}));
    }
}

fn write_delta(delta: Added<'_>, index: u64, out: &mut Vec<u8>) {
    named_event(out, "content_block_delta", &BlockDelta { r#type: "content_block_delta", index, delta });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(choice: &Value) -> String {
        format!("data: {}\n\n", json!({"choices": [choice]}))
    }

    fn delta(delta: &Value) -> String {
        chunk(&json!({"index": 0, "delta": delta, "finish_reason": null}))
    }

    fn finish(reason: &str) -> String {
        chunk(&json!({"index": 0, "delta": {}, "finish_reason": reason})) + "data: [DONE]\n\n"
    }

    fn call(index: u64, id: Option<&str>, name: Option<&str>, arguments: &str) -> String {
        delta(&json!({"tool_calls": [{"index": index, "id": id, "function": {"name": name, "arguments": arguments}}]}))
    }

    /// Each event's name and data, pings left out.
    fn events(run: &[&str]) -> (Vec<(String, Value)>, Result<(), StreamFault>) {
        let mut writer = MessagesWriter::new("req_1", "claude", vec!["END".into()]);
        let mut out = VecDeque::new();
        let mut result = Ok(());
        for piece in run {
            result = writer.push(piece.as_bytes(), &mut out);
            if result.is_err() {
                break;
            }
        }
        let text = out.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect::<String>();
        let read = |event: &str| {
            let (name, data) = event.strip_prefix("event: ")?.split_once("\ndata: ")?;
            Some((name.to_owned(), serde_json::from_str(data).expect("JSON")))
        };
        let all: Vec<_> = text.split_terminator("\n\n").map(|event| read(event).expect("a named event")).collect();
        (all.into_iter().filter(|(name, _)| name != "ping").collect(), result)
    }

    fn names(events: &[(String, Value)]) -> Vec<&str> {
        events.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The inputs of the tool blocks, put together from their fragments by block index.
    fn inputs(events: &[(String, Value)]) -> Vec<(String, String)> {
        let mut blocks: Vec<(u64, String, String)> = Vec::new();
        let mut open = None;
        for (name, data) in events {
            match name.as_str() {
                "content_block_start" => {
                    assert_eq!(open, None, "blocks never overlap");
                    open = data["index"].as_u64();
                    let tool = data["content_block"]["name"].as_str().unwrap_or_default();
                    blocks.push((open.expect("an index"), tool.to_owned(), String::new()));
                }
                "content_block_delta" => {
                    assert_eq!(data["index"].as_u64(), open);
                    let fragment = data["delta"]["partial_json"].as_str().unwrap_or_default();
                    blocks.last_mut().expect("a start before").2.push_str(fragment);
                }
                "content_block_stop" => {
                    assert_eq!(data["index"].as_u64(), open.take());
                }
                _ => {}
            }
        }
        blocks.into_iter().filter(|block| !block.1.is_empty()).map(|(_, name, input)| (name, input)).collect()
    }

    #[test]
    fn thinking_text_and_a_call_come_as_blocks_in_the_order_of_the_api() {
        let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4,\"prompt_tokens_details\":{\"cached_tokens\":2}}}\n\n";
        let run = [
            delta(&json!({"role": "assistant", "content": null})),
            delta(&json!({"reasoning_content": "hm"})),
            delta(&json!({"content": "Héllo"})),
            call(0, Some("c1"), Some("f"), "{\"a\":"),
            call(0, None, None, "1}"),
            chunk(&json!({"index": 0, "delta": {}, "finish_reason": "tool_calls"})),
            usage.to_owned() + "data: [DONE]\n\n",
        ];
        let (events, result) = events(&run.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(result, Ok(()));
        assert_eq!(
            names(&events),
            [
                "message_start",
                "content_block_start",
                "content_block_delta",
                "content_block_delta",
                "content_block_stop",
                "content_block_start",
                "content_block_delta",
                "content_block_stop",
                "content_block_start",
                "content_block_delta",
                "content_block_delta",
                "content_block_stop",
                "message_delta",
                "message_stop",
            ]
        );
        assert_eq!(events[0].1["message"]["id"], "msg_1");
        assert_eq!(events[0].1["message"]["model"], "claude");
        assert_eq!(events[2].1["delta"], json!({"type": "thinking_delta", "thinking": "hm"}));
        assert_eq!(events[3].1["delta"], json!({"type": "signature_delta", "signature": ""}));
        assert_eq!(events[6].1["delta"], json!({"type": "text_delta", "text": "Héllo"}));
        assert_eq!(events[8].1["content_block"], json!({"type": "tool_use", "id": "c1", "name": "f", "input": {}}));
        assert_eq!(inputs(&events), [("f".to_owned(), "{\"a\":1}".to_owned())]);
        let end = &events[12].1;
        assert_eq!(end["delta"], json!({"stop_reason": "tool_use", "stop_sequence": null}));
        assert_eq!(
            end["usage"],
            json!({"input_tokens": 7, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 2, "output_tokens": 4})
        );
    }

    #[test]
    fn fragments_of_parallel_calls_that_come_mixed_become_blocks_one_after_the_other() {
        let run = [
            call(0, Some("c0"), Some("f"), ""),
            call(1, Some("c1"), Some("g"), "{\"b\""),
            call(0, None, None, "{\"a\":"),
            call(1, None, None, ":2}"),
            call(0, None, None, "1}"),
            call(2, Some("c2"), Some("h"), "{}"),
            finish("tool_calls"),
        ];
        let (events, result) = events(&run.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(result, Ok(()));
        let told: Vec<(String, String)> =
            [("f", "{\"a\":1}"), ("g", "{\"b\":2}"), ("h", "{}")].map(|(n, i)| (n.to_owned(), i.to_owned())).into();
        assert_eq!(inputs(&events), told);
    }

    #[test]
    fn arguments_cut_by_max_tokens_stay_incomplete_and_the_stop_reason_says_so() {
        let run = [call(0, Some("c0"), Some("f"), "{\"city\":\"Kö"), finish("length")];
        let (events, result) = events(&run.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(result, Ok(()));
        assert_eq!(inputs(&events), [("f".to_owned(), "{\"city\":\"Kö".to_owned())]);
        assert_eq!(events[events.len() - 2].1["delta"]["stop_reason"], "max_tokens");
        let document = json!({"choices": [{"index": 0, "finish_reason": "length", "message": {"content": null,
            "tool_calls": [{"id": "c0", "function": {"name": "f", "arguments": "{\"city\":\"Kö"}}]}}]});
        let mut writer = MessagesWriter::new("req_1", "m", Vec::new());
        let whole: Value =
            serde_json::from_slice(&writer.whole(document.to_string().as_bytes()).expect("an answer")).expect("JSON");
        assert_eq!((&whole["stop_reason"], &whole["content"][0]["input"]), (&json!("max_tokens"), &json!({})));
    }

    #[test]
    fn a_finish_with_the_last_content_loses_neither() {
        let last = chunk(&json!({"index": 0, "delta": {"content": "end"}, "finish_reason": "length"}));
        let (events, _) = events(&[&last, "data: [DONE]\n\n"]);
        assert_eq!(events[2].1["delta"]["text"], "end");
        assert_eq!(events[4].1["delta"]["stop_reason"], "max_tokens");
    }

    #[test]
    fn a_met_stop_sequence_is_told_when_the_engine_tells_it() {
        let last = chunk(&json!({"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}));
        let (events, _) = events(&[&delta(&json!({"content": "a"})), &last, "data: [DONE]\n\n"]);
        let end = &events[events.len() - 2].1["delta"];
        assert_eq!(*end, json!({"stop_reason": "stop_sequence", "stop_sequence": "END"}));
    }

    #[test]
    fn an_empty_answer_has_a_start_and_an_end() {
        let (events, _) = events(&["data: [DONE]\n\n"]);
        assert_eq!(names(&events), ["message_start", "message_delta", "message_stop"]);
    }

    #[test]
    fn a_piece_of_a_call_after_its_end_is_a_fault_and_never_lost() {
        let run =
            [call(0, Some("c0"), Some("f"), "{\"a\":"), delta(&json!({"content": "text"})), call(0, None, None, "1}")];
        let (_, result) = events(&run.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(matches!(result, Err(StreamFault::Garbage(_))));
    }

    #[test]
    fn a_whole_answer_has_thinking_text_and_calls() {
        let document = json!({
            "choices": [{"index": 0, "finish_reason": "stop", "message": {
                "role": "assistant", "content": "\u{2028}line", "reasoning": "hm",
                "tool_calls": [{"function": {"name": "f", "arguments": ""}}],
            }}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        });
        let mut writer = MessagesWriter::new("req_1", "m", Vec::new());
        let whole: Value =
            serde_json::from_slice(&writer.whole(document.to_string().as_bytes()).expect("an answer")).expect("JSON");
        assert_eq!(
            whole,
            json!({
                "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": ""},
                    {"type": "text", "text": "\u{2028}line"},
                    {"type": "tool_use", "id": "toolu_1_0", "name": "f", "input": {}},
                ],
                "stop_reason": "tool_use", "stop_sequence": null,
                "usage": {"input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                          "output_tokens": 2},
            })
        );
        let broken = json!({"choices": [{"finish_reason": "tool_calls", "message": {
            "tool_calls": [{"function": {"name": "f", "arguments": "{oops"}}]}}]});
        assert!(MessagesWriter::new("req_1", "m", Vec::new()).whole(broken.to_string().as_bytes()).is_err());
    }
}
