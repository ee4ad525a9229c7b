//! What the writers of other dialects read of OpenAI's shape: chunks of a stream and whole documents, as one type.
//!
//! Called by the answer writers of this room. Text borrows where it has no escapes. Must never fail over a field that
//! nobody reads.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde_json::Value;

use crate::types::request::{TokenSource, TokenUsage};
use crate::wire::openai::{RawUsage, WholeFault};
use crate::wire::openai_tap::StreamFault;
use crate::wire::sse;

/// A chunk of a stream, or a whole answer.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    usage: Option<RawUsage<AnswerDetails>>,
    /// llama.cpp's `return_progress`.
    #[serde(default)]
    prompt_progress: Option<PromptProgress>,
    /// The engine's own measurements, as llama.cpp tells them.
    #[serde(default)]
    pub(crate) timings: Option<Timings>,
}

/// One choice. A chunk has a `delta`, a document a `message`, a text completion a `text`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Choice<'a> {
    #[serde(default)]
    index: Option<u64>,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(borrow, default)]
    message: Option<Delta<'a>>,
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Text<'a>>,
    /// vLLM: the stop sequence that was met, or the number of a token.
    #[serde(default)]
    stop_reason: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<Text<'a>>,
    #[serde(borrow, default)]
    refusal: Option<Text<'a>>,
    #[serde(borrow, default)]
    reasoning_content: Option<Text<'a>>,
    #[serde(borrow, default)]
    reasoning: Option<Text<'a>>,
    #[serde(borrow, default)]
    thinking: Option<Text<'a>>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<RawCall<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
struct RawCall<'a> {
    #[serde(default)]
    index: Option<u64>,
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    function: Option<RawFunction<'a>>,
}

#[derive(Debug, Default, Deserialize)]
struct RawFunction<'a> {
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    arguments: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
struct AnswerDetails {
    reasoning_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct PromptProgress {
    #[serde(default)]
    total: u64,
    #[serde(default)]
    cache: u64,
}

/// How long the engine took, in milliseconds.
#[expect(clippy::struct_field_names, reason = "llama.cpp's names")]
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(crate) struct Timings {
    #[serde(default)]
    pub(crate) prompt_ms: f64,
    #[serde(default)]
    pub(crate) predicted_ms: f64,
    /// Only FLM's own translation of an Ollama engine tells it.
    #[serde(default)]
    pub(crate) load_ms: f64,
}

/// Tokens that the engine told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) tokens: TokenUsage,
    /// Tokens of the answer that were reasoning.
    pub(crate) reasoning: u64,
}

/// What a choice adds to the answer, in the order in which it is told.
#[derive(Debug, Default)]
pub(crate) struct Piece<'a> {
    pub(crate) reasoning: Option<Cow<'a, str>>,
    pub(crate) content: Option<Cow<'a, str>>,
    pub(crate) calls: Vec<CallPiece<'a>>,
    pub(crate) finish: Option<Cow<'a, str>>,
    /// The stop sequence that was met.
    pub(crate) stop: Option<String>,
}

/// A part of a tool call.
#[derive(Debug)]
pub(crate) struct CallPiece<'a> {
    pub(crate) index: u64,
    pub(crate) id: Option<Cow<'a, str>>,
    pub(crate) name: Option<Cow<'a, str>>,
    pub(crate) arguments: Cow<'a, str>,
}

impl<'a> Chunk<'a> {
    /// Reads a whole answer; `kind` completes "it is no …".
    ///
    /// # Errors
    /// It is no such document.
    pub(crate) fn of_document(document: &'a [u8], kind: &str) -> Result<Self, WholeFault> {
        serde_json::from_slice(document).map_err(|fault| WholeFault::WrongShape(format!("it is no {kind}: {fault}")))
    }

    /// Usage, from wherever this chunk tells it.
    pub(crate) fn usage(&self) -> Option<Usage> {
        if let Some(told) = &self.usage {
            let reasoning = told.completion_tokens_details.as_ref().and_then(|details| details.reasoning_tokens);
            return Some(Usage { tokens: told.read(), reasoning: reasoning.unwrap_or(0) });
        }
        let progress = self.prompt_progress.as_ref().filter(|progress| progress.total > 0)?;
        let tokens =
            TokenUsage { prompt: progress.total, completion: 0, cached: progress.cache, source: TokenSource::Engine };
        Some(Usage { tokens, reasoning: 0 })
    }

    /// What the first choice adds; other dialects have only one.
    pub(crate) fn piece(self) -> Piece<'a> {
        let choices = self.choices.unwrap_or_default();
        let Some(choice) = choices.into_iter().find(|choice| choice.index.unwrap_or(0) == 0) else {
            return Piece::default();
        };
        let delta = choice.delta.or(choice.message).unwrap_or_default();
        let said = |text: Option<Text<'a>>| text.map(|text| text.0).filter(|text| !text.is_empty());
        let calls = delta.tool_calls.unwrap_or_default();
        Piece {
            reasoning: said(delta.reasoning_content).or_else(|| said(delta.reasoning)).or_else(|| said(delta.thinking)),
            content: said(delta.content).or_else(|| said(delta.refusal)).or_else(|| said(choice.text)),
            calls: calls.into_iter().enumerate().map(|(nth, call)| CallPiece::read(nth, call)).collect(),
            finish: said(choice.finish_reason),
            stop: choice.stop_reason.and_then(|stop| stop.as_str().map(str::to_owned)),
        }
    }
}

impl<'a> CallPiece<'a> {
    fn read(nth: usize, call: RawCall<'a>) -> Self {
        let function = call.function.unwrap_or_default();
        let said = |text: Option<Text<'a>>| text.map(|text| text.0).filter(|text| !text.is_empty());
        Self {
            // A document has no indices: the place counts.
            index: call.index.unwrap_or(nth as u64),
            id: said(call.id),
            name: said(function.name),
            arguments: function.arguments.map(|text| text.0).unwrap_or_default(),
        }
    }
}

impl Piece<'_> {
    /// Whether it holds something that a client sees.
    pub(crate) fn says_something(&self) -> bool {
        self.reasoning.is_some() || self.content.is_some() || !self.calls.is_empty() || self.finish.is_some()
    }
}

/// An event of a stream.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// A chunk.
    Chunk(Box<Chunk<'a>>),
    /// A sign of life without content.
    Comment,
    /// `[DONE]`.
    Done,
}

/// Gives the events of a run, as a reader of `engines` appends it, to a writer, and appends what it wrote for all of them
/// together, also when one is a fault.
pub(crate) fn rewrite(
    run: &[u8],
    out: &mut VecDeque<Bytes>,
    mut write: impl FnMut(Event<'_>, &mut Vec<u8>) -> Result<(), StreamFault>,
) -> Result<(), StreamFault> {
    let mut written = Vec::with_capacity(run.len());
    let result = each_event(run, |event| write(event, &mut written));
    if !written.is_empty() {
        out.push_back(Bytes::from(written));
    }
    result
}

/// Whole events, each with at most one line of data.
fn each_event(run: &[u8], mut take: impl FnMut(Event<'_>) -> Result<(), StreamFault>) -> Result<(), StreamFault> {
    for block in sse::blocks(run) {
        let Some(data) = block.data.as_deref().map(<[u8]>::trim_ascii) else {
            // A blank line too many is no sign of life.
            if run[block.range].starts_with(b":") {
                take(Event::Comment)?;
            }
            continue;
        };
        if data.starts_with(b"[DONE]") {
            take(Event::Done)?;
            continue;
        }
        let chunk = serde_json::from_slice(data).map_err(|fault| StreamFault::Garbage(fault.to_string()))?;
        take(Event::Chunk(Box::new(chunk)))?;
    }
    Ok(())
}

/// A string that borrows where it has no escapes. An object is taken as its JSON: some servers write the arguments of
/// tool calls so.
#[derive(Debug)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Text<'de>, A::Error> {
                let value = Value::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Text(Cow::Owned(value.to_string())))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

/// Tool calls as they come: fragments by index, in any order.
#[derive(Debug, Default)]
pub(crate) struct Calls(Vec<Call>);

/// One tool call so far.
#[derive(Debug)]
pub(crate) struct Call {
    index: u64,
    pub(crate) id: Option<String>,
    pub(crate) name: String,
    pub(crate) arguments: String,
    /// How much of the arguments was written to the client.
    pub(crate) written: usize,
    pub(crate) state: CallState,
}

/// How far a call was told to the client. Only one is told at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallState {
    /// Nothing yet.
    Waiting,
    /// Its fragments pass as they come.
    Open,
    /// All of it.
    Closed,
}

impl Calls {
    /// Adds a fragment; answers the call's place.
    ///
    /// # Errors
    /// The call was already told to its end: the client could not be given the rest.
    pub(crate) fn add(&mut self, piece: &CallPiece<'_>) -> Result<usize, StreamFault> {
        let known = self.0.iter().position(|call| call.index == piece.index);
        let place = known.unwrap_or(self.0.len());
        if known.is_none() {
            self.0.push(Call {
                index: piece.index,
                id: None,
                name: String::new(),
                arguments: String::new(),
                written: 0,
                state: CallState::Waiting,
            });
        }
        let call = &mut self.0[place];
        if call.state == CallState::Closed && !piece.arguments.trim_ascii().is_empty() {
            return Err(StreamFault::Garbage("a piece of a tool call after its end".to_owned()));
        }
        if call.id.is_none() {
            call.id = piece.id.as_deref().map(str::to_owned);
        }
        if call.name.is_empty() {
            call.name.push_str(piece.name.as_deref().unwrap_or_default());
        }
        call.arguments.push_str(&piece.arguments);
        Ok(place)
    }

    /// Whether there is any.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order in which they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Call> {
        self.0.iter()
    }

    /// The call at a place, to be changed.
    pub(crate) fn at(&mut self, place: usize) -> Option<&mut Call> {
        self.0.get_mut(place)
    }

    /// The call at a place.
    pub(crate) fn get(&self, place: usize) -> Option<&Call> {
        self.0.get(place)
    }

    /// The first call that was not told to its end.
    pub(crate) fn unfinished(&self) -> Option<usize> {
        self.0.iter().position(|call| call.state != CallState::Closed)
    }

    /// Whether a call before this place still waits to be told; the open one is about to be closed.
    pub(crate) fn unfinished_before(&self, place: usize, open: Option<usize>) -> bool {
        self.0[..place].iter().enumerate().any(|(at, call)| call.state != CallState::Closed && Some(at) != open)
    }
}

impl Call {
    /// The engine's index for it.
    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// Whether its arguments are a whole JSON value: then no more of them comes, and the next call may be told.
    pub(crate) fn is_whole(&self) -> bool {
        self.arguments.trim_ascii_end().ends_with('}')
            && serde_json::from_str::<serde::de::IgnoredAny>(&self.arguments).is_ok()
    }

    /// The arguments as an object; `None` when they are none. No arguments at all are an empty object.
    pub(crate) fn object(&self) -> Option<Value> {
        if self.arguments.trim_ascii().is_empty() {
            return Some(Value::Object(serde_json::Map::new()));
        }
        serde_json::from_str::<Value>(&self.arguments).ok().filter(Value::is_object)
    }
}

/// Writes a named event.
pub(crate) fn named_event(out: &mut Vec<u8>, name: &str, data: &impl serde::Serialize) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    json_into(out, data);
    out.extend_from_slice(b"\n\n");
}

/// Writes a value as JSON on one line.
pub(crate) fn json_into(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    // Writing to memory cannot fail, nor can serialising strings, numbers and maps with string keys.
    if let Err(fault) = serde_json::to_writer(&mut *out, value) {
        tracing::error!(%fault, "a value could not be written as JSON");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(json: &str) -> Piece<'_> {
        serde_json::from_str::<Chunk<'_>>(json).expect("a chunk").piece()
    }

    #[test]
    fn reasoning_is_read_under_all_three_names() {
        for name in ["reasoning_content", "reasoning", "thinking"] {
            let json = format!(r#"{{"choices":[{{"delta":{{"{name}":"hm"}}}}]}}"#);
            assert_eq!(piece(&json).reasoning.as_deref(), Some("hm"), "{name}");
        }
    }

    #[test]
    fn a_chunk_a_document_and_a_completion_are_read_alike() {
        for json in [
            r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"index":0,"text":"a","finish_reason":"stop"}]}"#,
        ] {
            let piece = piece(json);
            assert_eq!((piece.content.as_deref(), piece.finish.as_deref()), (Some("a"), Some("stop")), "{json}");
        }
    }

    #[test]
    fn nulls_and_other_choices_are_nothing() {
        for json in [
            r#"{"choices":null,"usage":null}"#,
            r#"{"choices":[{"delta":null,"finish_reason":null}]}"#,
            r#"{"choices":[{"index":1,"delta":{"content":"b"}}]}"#,
            r#"{"choices":[{"delta":{"content":"","tool_calls":null}}]}"#,
        ] {
            assert!(!piece(json).says_something(), "{json}");
        }
    }

    #[test]
    fn the_prompts_tokens_are_known_early_from_llama_cpps_progress() {
        let json = r#"{"choices":[],"prompt_progress":{"total":31,"cache":30,"processed":30,"time_ms":0}}"#;
        let usage = serde_json::from_str::<Chunk<'_>>(json).expect("a chunk").usage().expect("usage");
        assert_eq!((usage.tokens.prompt, usage.tokens.cached), (31, 30));
    }
}
