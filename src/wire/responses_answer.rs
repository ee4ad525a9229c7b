//! Answers in OpenAI's chat shape as its Responses API gives them, whole and streamed (OpenAI's API reference, The
//! response object and Streaming events).
//!
//! Called by [`crate::wire::client`]. Every event has its `sequence_number`; none is called `[DONE]`. Must never hold back
//! text.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::wire::blocks::{Block, BlockWriter, Blocks, Told};
use crate::wire::client::ToldError;
use crate::wire::openai::WholeFault;
use crate::wire::openai_chunk::{Chunk, Event, Usage, named_event, rewrite};
use crate::wire::openai_tap::StreamFault;
use crate::wire::sse;

/// Writes one answer.
#[derive(Debug)]
pub struct ResponsesWriter {
    /// `resp_…`.
    id: String,
    /// The model as the client named it.
    model: String,
    /// Seconds since 1970.
    created: i64,
    /// Fields of the request that a response repeats.
    echo: Map<String, Value>,
    output: Output,
    blocks: Blocks,
    begun: bool,
    ended: bool,
    finish: Option<String>,
    usage: Option<Usage>,
}

/// What the items need to be written.
#[derive(Debug)]
struct Output {
    /// What makes ids of items, from the response's own.
    stem: String,
    /// The next event's number.
    sequence: u64,
    /// Items that are complete.
    items: Vec<Value>,
    /// The id of the open item.
    open_id: String,
    /// Text of the open item.
    text: String,
    /// Status of items that end now.
    status: &'static str,
}

/// The events of which there are many.
#[derive(Serialize)]
struct DeltaEvent<'a> {
    r#type: &'static str,
    item_id: &'a str,
    output_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_index: Option<u64>,
    delta: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<[(); 0]>,
    sequence_number: u64,
}

impl ResponsesWriter {
    /// A writer for the answer to one request; `created` is in seconds since 1970.
    #[must_use]
    pub fn new(request_id: &str, model: &str, created: i64, echo: Map<String, Value>) -> Self {
        let stem = request_id.trim_start_matches("req_").to_owned();
        Self {
            id: format!("resp_{stem}"),
            model: model.to_owned(),
            created,
            echo,
            output: Output {
                stem,
                sequence: 0,
                items: Vec::new(),
                open_id: String::new(),
                text: String::new(),
                status: "completed",
            },
            blocks: Blocks::default(),
            begun: false,
            ended: false,
            finish: None,
            usage: None,
        }
    }

    /// A whole answer.
    ///
    /// # Errors
    /// The document is no chat completion.
    pub fn whole(&mut self, document: &[u8]) -> Result<Bytes, WholeFault> {
        let chunk = Chunk::of_document(document, "chat completion")?;
        // The same items as a stream would have; their events are not wanted.
        let mut events = Vec::new();
        self.chunk(chunk, &mut events)
            .and_then(|()| self.close(&mut events))
            .map_err(|fault| WholeFault::WrongShape(fault.to_string()))?;
        let response = self.response(self.outcome().1, &Value::Null);
        Ok(Bytes::from(response.to_string()))
    }

    /// Takes whole events of an OpenAI stream and appends the events that they make, together.
    ///
    /// # Errors
    /// An event is no chunk.
    pub fn push(&mut self, events: &[u8], out: &mut VecDeque<Bytes>) -> Result<(), StreamFault> {
        rewrite(events, out, |event, written| match event {
            Event::Chunk(chunk) => self.chunk(*chunk, written),
            Event::Comment => {
                written.extend_from_slice(&sse::COMMENT);
                Ok(())
            }
            Event::Done => self.end(written),
        })
    }

    /// Ends the stream with an error: `response.failed`.
    pub fn fail(&mut self, error: &ToldError<'_>, out: &mut VecDeque<Bytes>) {
        if self.ended {
            return;
        }
        let mut written = Vec::new();
        self.begin(&mut written);
        self.ended = true;
        let told = json!({"code": error.code, "message": error.message, "request_id": error.request_id});
        let response = self.response("failed", &told);
        self.output.event("response.failed", json!({"response": response}), &mut written);
        out.push_back(Bytes::from(written));
    }

    fn chunk(&mut self, chunk: Chunk<'_>, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        if self.ended {
            return Ok(());
        }
        self.begin(out);
        self.usage = chunk.usage().or(self.usage);
        let piece = chunk.piece();
        self.blocks.add(&piece, &mut self.output, out)?;
        if let Some(finish) = piece.finish {
            self.finish = Some(finish.into_owned());
        }
        Ok(())
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.begun {
            return;
        }
        self.begun = true;
        let response = self.response("in_progress", &Value::Null);
        self.output.event("response.created", json!({"response": response}), out);
        self.output.event("response.in_progress", json!({"response": response}), out);
    }

    /// Closes what is open.
    fn close(&mut self, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        self.output.status = self.outcome().1;
        self.blocks.end(&mut self.output, out)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        if self.ended {
            return Ok(());
        }
        self.begin(out);
        self.close(out)?;
        self.ended = true;
        let (event, status) = self.outcome();
        let response = self.response(status, &Value::Null);
        self.output.event(event, json!({"response": response}), out);
        Ok(())
    }

    /// The last event and the status that goes with it.
    fn outcome(&self) -> (&'static str, &'static str) {
        match self.finish.as_deref() {
            Some("length" | "content_filter") => ("response.incomplete", "incomplete"),
            _ => ("response.completed", "completed"),
        }
    }

    fn response(&self, status: &str, error: &Value) -> Value {
        let reason = match self.finish.as_deref() {
            Some("length") => Some("max_output_tokens"),
            Some("content_filter") => Some("content_filter"),
            _ => None,
        };
        let mut response = json!({
            "id": self.id, "object": "response", "created_at": self.created, "status": status, "error": error,
            "incomplete_details": reason.filter(|_| status == "incomplete").map(|reason| json!({"reason": reason})),
            "model": self.model, "output": self.output.items, "usage": self.usage_json(status),
        });
        if let Value::Object(fields) = &mut response {
            fields.extend(self.echo.clone());
        }
        response
    }

    fn usage_json(&self, status: &str) -> Value {
        let Some(usage) = self.usage.filter(|_| status != "in_progress") else { return Value::Null };
        json!({
            "input_tokens": usage.tokens.prompt,
            "input_tokens_details": {"cached_tokens": usage.tokens.cached},
            "output_tokens": usage.tokens.completion,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.tokens.total(),
        })
    }
}

impl Output {
    /// Writes an event with its name and number.
    fn event(&mut self, name: &'static str, mut data: Value, out: &mut Vec<u8>) {
        data["type"] = name.into();
        data["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        named_event(out, name, &data);
    }

    /// The id of the next item.
    fn next_id(&self, block: Block) -> String {
        let kind = match block {
            Block::Reasoning => "rs",
            Block::Text => "msg",
            Block::Call(_) => "fc",
        };
        format!("{kind}_{}_{}", self.stem, self.items.len())
    }

    /// An item as it stands.
    fn item(&self, told: Told<'_>, status: &str, content: &[Value]) -> Value {
        let id = &self.open_id;
        match (told.block, told.call) {
            (Block::Reasoning, _) => {
                json!({"id": id, "type": "reasoning", "summary": [], "content": content, "status": status})
            }
            (Block::Call(_), Some(call)) => json!({
                "id": id, "type": "function_call", "status": status, "name": call.name, "arguments": self.text,
                // Clients answer by id; an engine that gives none gets one.
                "call_id": call.id.clone().unwrap_or_else(|| format!("call_{}_{}", self.stem, call.index())),
            }),
            (Block::Text | Block::Call(_), _) => {
                json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
            }
        }
    }

    fn part(&self, block: Block) -> Value {
        match block {
            Block::Reasoning => json!({"type": "reasoning_text", "text": self.text}),
            Block::Text | Block::Call(_) => {
                json!({"type": "output_text", "text": self.text, "annotations": [], "logprobs": []})
            }
        }
    }
}

impl BlockWriter for Output {
    fn open(&mut self, told: Told<'_>, out: &mut Vec<u8>) {
        self.text.clear();
        self.open_id = self.next_id(told.block);
        let (index, id) = (self.items.len(), self.open_id.clone());
        let item = self.item(told, "in_progress", &[]);
        self.event("response.output_item.added", json!({"output_index": index, "item": item}), out);
        if !matches!(told.block, Block::Call(_)) {
            let part = self.part(told.block);
            let added = json!({"item_id": id, "output_index": index, "content_index": 0, "part": part});
            self.event("response.content_part.added", added, out);
        }
    }

    fn piece(&mut self, block: Block, text: &str, out: &mut Vec<u8>) {
        self.text.push_str(text);
        let (name, content_index) = match block {
            Block::Reasoning => ("response.reasoning_text.delta", Some(0)),
            Block::Text => ("response.output_text.delta", Some(0)),
            Block::Call(_) => ("response.function_call_arguments.delta", None),
        };
        let event = DeltaEvent {
            r#type: name,
            item_id: &self.open_id,
            output_index: self.items.len(),
            content_index,
            delta: text,
            logprobs: (block == Block::Text).then_some([]),
            sequence_number: self.sequence,
        };
        named_event(out, name, &event);
        self.sequence += 1;
    }

    fn close(&mut self, told: Told<'_>, out: &mut Vec<u8>) {
        let (index, id) = (self.items.len(), self.open_id.clone());
        let mut content = Vec::new();
        match (told.block, told.call) {
            (Block::Call(_), call) => {
                let name = call.map(|call| call.name.as_str());
                let done = json!({"item_id": id, "output_index": index, "name": name, "arguments": self.text});
                self.event("response.function_call_arguments.done", done, out);
            }
            (block, _) => {
                let place = json!({"item_id": id, "output_index": index, "content_index": 0});
                let mut done = place.clone();
                done["text"] = self.text.as_str().into();
                if block == Block::Text {
                    done["logprobs"] = json!([]);
                    self.event("response.output_text.done", done, out);
                } else {
                    self.event("response.reasoning_text.done", done, out);
                }
                let part = self.part(block);
                let mut done = place;
                done["part"] = part.clone();
                self.event("response.content_part.done", done, out);
                content.push(part);
            }
        }
        let item = self.item(told, self.status, &content);
        self.event("response.output_item.done", json!({"output_index": index, "item": item}), out);
        self.items.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(delta: &Value) -> String {
        format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]}))
    }

    fn finish(reason: &str) -> String {
        let finish = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]});
        let usage = json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4,
            "completion_tokens_details": {"reasoning_tokens": 1}}});
        format!("data: {finish}\n\ndata: {usage}\n\ndata: [DONE]\n\n")
    }

    fn call(index: u64, id: Option<&str>, name: Option<&str>, arguments: &str) -> String {
        delta(&json!({"tool_calls": [{"index": index, "id": id, "function": {"name": name, "arguments": arguments}}]}))
    }

    fn writer() -> ResponsesWriter {
        let echo = json!({"instructions": "x", "tools": []});
        ResponsesWriter::new("req_1", "m", 7, echo.as_object().cloned().unwrap_or_default())
    }

    fn read(out: &VecDeque<Bytes>) -> Vec<Value> {
        let text = out.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect::<String>();
        let events: Vec<Value> = text
            .split_terminator("\n\n")
            .map(|event| {
                let (name, data) =
                    event.strip_prefix("event: ").and_then(|rest| rest.split_once("\ndata: ")).expect("a named event");
                let data: Value = serde_json::from_str(data).expect("JSON");
                assert_eq!(data["type"], name);
                data
            })
            .collect();
        for (number, event) in events.iter().enumerate() {
            assert_eq!(event["sequence_number"], number);
        }
        events
    }

    fn events(run: &[String]) -> Vec<Value> {
        let mut writer = writer();
        let mut out = VecDeque::new();
        for piece in run {
            writer.push(piece.as_bytes(), &mut out).expect("chunks");
        }
        read(&out)
    }

    #[test]
    fn reasoning_text_and_a_call_come_as_items_in_the_order_of_the_api() {
        let events = events(&[
            delta(&json!({"role": "assistant", "content": ""})),
            delta(&json!({"reasoning": "hm"})),
            delta(&json!({"content": "Hé"})),
            delta(&json!({"content": "llo"})),
            call(0, Some("c1"), Some("f"), "{\"a\""),
            call(0, None, None, ":1}"),
            finish("tool_calls"),
        ]);
        let names: Vec<&str> = events.iter().map(|event| event["type"].as_str().expect("a type")).collect();
        assert_eq!(
            names,
            [
                "response.created",
                "response.in_progress",
                "response.output_item.added",
                "response.content_part.added",
                "response.reasoning_text.delta",
                "response.reasoning_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.output_item.added",
                "response.content_part.added",
                "response.output_text.delta",
                "response.output_text.delta",
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.output_item.added",
                "response.function_call_arguments.delta",
                "response.function_call_arguments.delta",
                "response.function_call_arguments.done",
                "response.output_item.done",
                "response.completed",
            ]
        );
        assert_eq!(events[0]["response"]["status"], "in_progress");
        assert_eq!(events[0]["response"]["usage"], Value::Null);
        assert_eq!((&events[10]["delta"], &events[10]["output_index"]), (&json!("Hé"), &json!(1)));
        assert_eq!(events[10]["item_id"], events[8]["item"]["id"]);
        assert_eq!(events[12]["text"], "Héllo");
        assert_eq!(events[18]["arguments"], "{\"a\":1}");
        let response = &events[20]["response"];
        assert_eq!(response["status"], "completed");
        assert_eq!(response["id"], "resp_1");
        assert_eq!(response["instructions"], "x");
        assert_eq!(
            response["output"],
            json!([
                {"id": "rs_1_0", "type": "reasoning", "summary": [], "status": "completed",
                 "content": [{"type": "reasoning_text", "text": "hm"}]},
                {"id": "msg_1_1", "type": "message", "status": "completed", "role": "assistant",
                 "content": [{"type": "output_text", "text": "Héllo", "annotations": [], "logprobs": []}]},
                {"id": "fc_1_2", "type": "function_call", "status": "completed", "name": "f", "arguments": "{\"a\":1}",
                 "call_id": "c1"},
            ])
        );
        assert_eq!(
            response["usage"],
            json!({"input_tokens": 9, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 4,
                   "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 13})
        );
    }

    #[test]
    fn fragments_of_parallel_calls_that_come_mixed_become_items_one_after_the_other() {
        let events = events(&[
            call(0, Some("c0"), Some("f"), "{\"a\":"),
            call(1, Some("c1"), Some("g"), "{\"b\":"),
            call(0, None, None, "1}"),
            call(1, None, None, "2}"),
            finish("stop"),
        ]);
        let output = &events.last().expect("an event")["response"]["output"];
        let calls: Vec<(&str, &str)> = output
            .as_array()
            .expect("items")
            .iter()
            .map(|item| (item["name"].as_str().expect("a name"), item["arguments"].as_str().expect("text")))
            .collect();
        assert_eq!(calls, [("f", "{\"a\":1}"), ("g", "{\"b\":2}")]);
        let mut open = None;
        for event in &events {
            match event["type"].as_str().expect("a type") {
                "response.output_item.added" => assert_eq!(open.replace(&event["output_index"]), None),
                "response.function_call_arguments.delta" => assert_eq!(open, Some(&event["output_index"])),
                "response.output_item.done" => assert_eq!(open.take(), Some(&event["output_index"])),
                _ => {}
            }
        }
    }

    #[test]
    fn an_answer_cut_by_the_limit_is_incomplete_and_its_arguments_stay_so() {
        let events = events(&[call(0, Some("c0"), Some("f"), "{\"city\":\"K"), finish("length")]);
        let last = events.last().expect("an event");
        assert_eq!(last["type"], "response.incomplete");
        assert_eq!(last["response"]["incomplete_details"], json!({"reason": "max_output_tokens"}));
        assert_eq!(last["response"]["output"][0]["arguments"], "{\"city\":\"K");
        assert_eq!(last["response"]["output"][0]["status"], "incomplete");
    }

    #[test]
    fn a_failure_ends_with_failed_whether_or_not_anything_came() {
        let error = ToldError {
            status: 502,
            code: "engine_error",
            kind: "server_error",
            message: "it broke off",
            param: None,
            request_id: "req_1",
        };
        for before in [None, Some(delta(&json!({"content": "a"})))] {
            let mut writer = writer();
            let mut out = VecDeque::new();
            if let Some(before) = &before {
                writer.push(before.as_bytes(), &mut out).expect("a chunk");
            }
            writer.fail(&error, &mut out);
            let events = read(&out);
            assert_eq!(
                (&events[0]["type"], &events[1]["type"]),
                (&json!("response.created"), &json!("response.in_progress"))
            );
            let last = events.last().expect("an event");
            assert_eq!((&last["type"], &last["response"]["status"]), (&json!("response.failed"), &json!("failed")));
            assert_eq!(last["response"]["error"]["code"], "engine_error");
        }
    }

    #[test]
    fn a_whole_answer_has_the_same_items_as_a_stream() {
        let document = json!({
            "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
                "content": "\u{2028}hi", "thinking": "hm",
                "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}],
            }}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        });
        let whole: Value =
            serde_json::from_slice(&writer().whole(document.to_string().as_bytes()).expect("an answer")).expect("JSON");
        assert_eq!(
            (&whole["object"], &whole["status"], &whole["created_at"]),
            (&json!("response"), &json!("completed"), &json!(7))
        );
        let kinds: Vec<&Value> = whole["output"].as_array().expect("items").iter().map(|item| &item["type"]).collect();
        assert_eq!(kinds, ["reasoning", "message", "function_call"]);
        assert_eq!(whole["output"][1]["content"][0]["text"], "\u{2028}hi");
        assert_eq!(whole["usage"]["total_tokens"], 5);
    }
}
