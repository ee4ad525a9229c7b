//! Messages, parts and tool calls of OpenAI's chat requests, as the translators of other dialects write them (OpenAI's API
//! reference, Create chat completion).
//!
//! Called by the request translators of this room, so that each of them only reads its own dialect.

use serde_json::{Map, Value, json};

use crate::wire::openai::REASONING_OUT;
use crate::wire::translate::Fields;

/// A part of text.
pub(crate) fn text_part(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

/// A part that is an image; the URL may be a `data:` one.
pub(crate) fn image_part(url: &str) -> Value {
    json!({"type": "image_url", "image_url": {"url": url}})
}

/// What stands before images that a tool gave: OpenAI's tool messages hold text only, so images follow as the user's.
pub(crate) fn tool_image_note(call_id: &str) -> Value {
    text_part(&format!("Image in the result of the tool call {call_id}:"))
}

/// Parts as a message's content; one text alone is a string, which every chat template takes. `None` without parts.
pub(crate) fn content_of(mut parts: Vec<Value>) -> Option<Value> {
    match parts.as_mut_slice() {
        [] => None,
        [only] if only["type"] == "text" => Some(only["text"].take()),
        _ => Some(parts.into()),
    }
}

/// A call of a function; `arguments` is JSON text.
pub(crate) fn function_call(id: &str, name: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

/// A turn of the model.
pub(crate) fn assistant(content: Option<String>, reasoning: Option<String>, calls: Vec<Value>) -> Value {
    let mut message = Map::new();
    message.insert("role".into(), "assistant".into());
    message.insert("content".into(), content.into());
    if let Some(reasoning) = reasoning {
        message.insert(REASONING_OUT.into(), reasoning.into());
    }
    if !calls.is_empty() {
        message.insert("tool_calls".into(), calls.into());
    }
    message.into()
}

/// Puts function tools into a request, each given by its `function` object.
pub(crate) fn put_tools(functions: Vec<Fields>, body: &mut Fields) {
    if !functions.is_empty() {
        let tools: Vec<Value> =
            functions.into_iter().map(|function| json!({"type": "function", "function": function})).collect();
        body.insert("tools".into(), tools.into());
    }
}

/// Takes a choice among tools away where every tool was left out: it is an error in OpenAI's dialect.
pub(crate) fn drop_choice_without_tools(body: &mut Fields) {
    if !body.contains_key("tools") {
        body.remove("tool_choice");
        body.remove("parallel_tool_calls");
    }
}
