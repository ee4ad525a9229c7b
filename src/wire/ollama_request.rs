//! OpenAI's chat request in the words of Ollama's `/api/chat` (ENGINES.md §4; `ollama/ollama` `api/types.go`).
//!
//! Called by `engines::ollama`. Must never drop a field silently: what Ollama has no word for is named.

use serde_json::{Map, Value, json};

use crate::wire::openai::REASONING_IN;
use crate::wire::pivot::{Extras, OllamaCall, OllamaNative, Thinking};
use crate::wire::translate::TranslateFault;

/// A translated request.
#[derive(Debug, Clone, PartialEq)]
pub struct OllamaChat {
    /// The body of `/api/chat`.
    pub body: Value,
    /// Fields that Ollama has no word for; outside text.
    pub dropped: Vec<String>,
}

/// Fields that go into `options` under Ollama's name for them.
const OPTIONS: &[(&str, &str)] = &[
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("seed", "seed"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    // `max_completion_tokens` is OpenAI's newer name and wins when both stand there.
    ("max_tokens", "num_predict"),
    ("max_completion_tokens", "num_predict"),
    // Ollama's own, which its clients send over OpenAI's route too.
    ("top_k", "top_k"),
    ("min_p", "min_p"),
    ("repeat_penalty", "repeat_penalty"),
    ("num_ctx", "num_ctx"),
];

/// Fields that mean the same in `/api/chat`.
const SAME: &[&str] = &["keep_alive", "logprobs", "top_logprobs"];

/// Fields that are read elsewhere or mean nothing to an answer; dropping them changes nothing.
const HANDLED: &[&str] = &["model", "messages", "stream", "stream_options", "n", "user", "metadata", "store"];

/// Translates the body of `/v1/chat/completions`.
///
/// # Errors
/// A field has the wrong type, or asks for what Ollama cannot do.
pub fn chat(
    request: &Map<String, Value>,
    extras: Option<&Extras>,
    model: &str,
    stream: bool,
) -> Result<OllamaChat, TranslateFault> {
    let Some(Value::Array(messages)) = request.get("messages") else {
        return Err(TranslateFault::WrongType("messages".into(), "an array of messages"));
    };
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert("messages".into(), translate_messages(messages)?.into());
    body.insert("stream".into(), stream.into());
    let mut dropped = Vec::new();
    for (field, value) in request {
        if value.is_null() || HANDLED.contains(&field.as_str()) || field == "options" {
            continue;
        }
        if SAME.contains(&field.as_str()) {
            body.insert(field.clone(), value.clone());
        } else if !OPTIONS.iter().any(|(name, _)| name == field) && !translate_field(field, value, request, &mut body)?
        {
            dropped.push(field.clone());
        }
    }
    let options = options(request)?;
    if !options.is_empty() {
        body.insert("options".into(), options.into());
    }
    if let Some(extras) = extras {
        insert_thinking(extras, &mut body)?;
        if let Some(native) = &extras.ollama {
            // The client's own words that the pivot has none for.
            for (field, value) in &native.fields {
                body.entry(field.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    Ok(OllamaChat { body: body.into(), dropped })
}

/// The client's own request of `/api/generate`, `/api/embed` or `/api/embeddings`, for an Ollama engine: its words stand
/// as they came, and what FLM has put into the pivot since (options, system prompts) stands with them.
///
/// # Errors
/// A field has the wrong type.
pub fn native(
    request: &Map<String, Value>,
    extras: &Extras,
    native: &OllamaNative,
    model: &str,
    stream: bool,
) -> Result<Value, TranslateFault> {
    let mut body = native.fields.clone();
    body.insert("model".into(), model.into());
    if native.call == OllamaCall::Generate {
        body.insert("stream".into(), stream.into());
        if let Some(Value::Array(messages)) = request.get("messages") {
            let systems = messages.iter().filter(|message| message["role"] == "system");
            let systems: Vec<&str> = systems.filter_map(|message| message["content"].as_str()).collect();
            if !systems.is_empty() {
                body.insert("system".into(), systems.join("\n").into());
            }
        }
        insert_thinking(extras, &mut body)?;
    }
    let options = options(request)?;
    if !options.is_empty() {
        body.insert("options".into(), options.into());
    }
    if let Some(keep_alive) = request.get("keep_alive") {
        body.insert("keep_alive".into(), keep_alive.clone());
    }
    Ok(body.into())
}

/// All that goes into `options`.
fn options(request: &Map<String, Value>) -> Result<Map<String, Value>, TranslateFault> {
    let mut options = match request.get("options") {
        Some(Value::Object(options)) => options.clone(),
        None | Some(Value::Null) => Map::new(),
        Some(_) => return Err(TranslateFault::WrongType("options".into(), "an object")),
    };
    for (field, option) in OPTIONS {
        match request.get(*field) {
            None | Some(Value::Null) => {}
            Some(Value::Number(number)) => {
                let value = if *field == "temperature" { clamp_temperature(number) } else { number.clone().into() };
                options.insert((*option).into(), value);
            }
            Some(_) => return Err(TranslateFault::WrongType((*field).into(), "a number")),
        }
    }
    match request.get("stop") {
        None | Some(Value::Null) => {}
        Some(Value::String(stop)) => {
            options.insert("stop".into(), json!([stop]));
        }
        Some(Value::Array(stops)) if stops.iter().all(Value::is_string) => {
            options.insert("stop".into(), stops.clone().into());
        }
        Some(_) => return Err(TranslateFault::WrongType("stop".into(), "a string or an array of strings")),
    }
    Ok(options)
}

fn insert_thinking(extras: &Extras, body: &mut Map<String, Value>) -> Result<(), TranslateFault> {
    match &extras.thinking {
        Some(Thinking::Enabled { .. }) => {
            body.insert("think".into(), true.into());
        }
        Some(Thinking::Disabled) => {
            body.insert("think".into(), false.into());
        }
        Some(Thinking::Effort(effort)) => insert_effort(&effort.as_str().into(), body)?,
        None => {}
    }
    Ok(())
}

/// SPEC §4.5: out of range means the nearest value in range.
fn clamp_temperature(number: &serde_json::Number) -> Value {
    match number.as_f64() {
        Some(value) if !(0.0..=2.0).contains(&value) => json!(value.clamp(0.0, 2.0)),
        _ => number.clone().into(),
    }
}

/// Translates a field with a word of its own; false when there is none.
fn translate_field(
    field: &str,
    value: &Value,
    request: &Map<String, Value>,
    body: &mut Map<String, Value>,
) -> Result<bool, TranslateFault> {
    match field {
        "stop" => {}
        "tools" => {
            let choice = request.get("tool_choice");
            if choice.and_then(Value::as_str) != Some("none") {
                let name_of = |value: &Value| value.pointer("/function/name").cloned();
                let named = choice.and_then(name_of);
                let one =
                    named.and_then(|name| value.as_array()?.iter().find(|tool| name_of(tool).as_ref() == Some(&name)));
                body.insert("tools".into(), one.map_or_else(|| value.clone(), |tool| json!([tool])));
            }
        }
        // `auto` is what Ollama does anyway; it has no way to force a call. Of a named tool it sees no other.
        "tool_choice" => return Ok(matches!(value.as_str(), Some("auto" | "none"))),
        "response_format" => {
            if let Some(format) = response_format(value)? {
                body.insert("format".into(), format);
            }
        }
        "format" | "think" => {
            body.insert(field.into(), value.clone());
        }
        "reasoning_effort" => insert_effort(value, body)?,
        "reasoning" => {
            if let Some(effort) = value.get("effort") {
                insert_effort(effort, body)?;
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn insert_effort(effort: &Value, body: &mut Map<String, Value>) -> Result<(), TranslateFault> {
    let think = match effort.as_str() {
        Some("none") => json!(false),
        // Ollama knows low, medium, high and (newer) max.
        Some("minimal") => json!("low"),
        Some("xhigh") => json!("high"),
        Some(level @ ("low" | "medium" | "high" | "max")) => json!(level),
        _ => return Err(TranslateFault::WrongType("reasoning_effort".into(), "none, low, medium or high")),
    };
    body.insert("think".into(), think);
    Ok(())
}

fn response_format(value: &Value) -> Result<Option<Value>, TranslateFault> {
    match value.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(json!("json"))),
        Some("json_schema") => match value.pointer("/json_schema/schema") {
            Some(schema @ Value::Object(_)) => Ok(Some(schema.clone())),
            _ => Err(TranslateFault::WrongType("response_format.json_schema.schema".into(), "an object")),
        },
        _ => Err(TranslateFault::WrongType("response_format.type".into(), "text, json_object or json_schema")),
    }
}

fn translate_messages(messages: &[Value]) -> Result<Vec<Value>, TranslateFault> {
    // Ollama wants the name of the tool in its answer, OpenAI tells only the id of the call.
    let mut tool_names: Vec<(&str, &str)> = Vec::new();
    let mut out = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let Value::Object(fields) = message else {
            return Err(TranslateFault::WrongType(format!("messages[{index}]"), "an object"));
        };
        let Some(role) = fields.get("role").and_then(Value::as_str) else {
            return Err(TranslateFault::WrongType(format!("messages[{index}].role"), "a string"));
        };
        let mut translated = Map::new();
        // OpenAI renamed its system role; Ollama's templates know only the first name.
        translated.insert("role".into(), if role == "developer" { "system" } else { role }.into());
        translate_content(index, fields.get("content"), &mut translated)?;
        if let Some(thinking) = REASONING_IN.iter().find_map(|name| fields.get(*name).filter(|v| v.is_string())) {
            translated.insert("thinking".into(), thinking.clone());
        }
        if let Some(Value::Array(calls)) = fields.get("tool_calls") {
            let mut list = Vec::with_capacity(calls.len());
            for (nth, call) in calls.iter().enumerate() {
                let id = call.get("id").and_then(Value::as_str).unwrap_or_default();
                let name = call.pointer("/function/name").and_then(Value::as_str).unwrap_or_default();
                tool_names.push((id, name));
                let arguments = object_arguments(call.pointer("/function/arguments")).ok_or_else(|| {
                    let field = format!("messages[{index}].tool_calls[{nth}].function.arguments");
                    TranslateFault::WrongType(field, "a JSON object written as a string")
                })?;
                list.push(json!({"id": id, "function": {"index": nth, "name": name, "arguments": arguments}}));
            }
            translated.insert("tool_calls".into(), list.into());
        }
        if let Some(id) = fields.get("tool_call_id").and_then(Value::as_str) {
            translated.insert("tool_call_id".into(), id.into());
            if let Some((_, name)) = tool_names.iter().rev().find(|(known, _)| *known == id) {
                translated.insert("tool_name".into(), (*name).into());
            }
        }
        out.push(translated.into());
    }
    Ok(out)
}

/// OpenAI writes arguments as a string, Ollama as an object.
fn object_arguments(arguments: Option<&Value>) -> Option<Value> {
    match arguments {
        None | Some(Value::Null) => Some(json!({})),
        Some(Value::String(text)) if text.trim().is_empty() => Some(json!({})),
        Some(Value::String(text)) => serde_json::from_str::<Value>(text).ok().filter(Value::is_object),
        Some(object @ Value::Object(_)) => Some(object.clone()),
        Some(_) => None,
    }
}

fn translate_content(
    index: usize,
    content: Option<&Value>,
    translated: &mut Map<String, Value>,
) -> Result<(), TranslateFault> {
    let wrong = || TranslateFault::WrongType(format!("messages[{index}].content"), "a string or an array of parts");
    match content {
        None | Some(Value::Null) => {
            translated.insert("content".into(), "".into());
        }
        Some(Value::String(text)) => {
            translated.insert("content".into(), text.as_str().into());
        }
        Some(Value::Array(parts)) => {
            let mut texts = Vec::new();
            let mut images = Vec::new();
            for part in parts {
                match part.get("type").and_then(Value::as_str) {
                    Some("text" | "input_text") => {
                        texts.push(part.get("text").and_then(Value::as_str).ok_or_else(wrong)?);
                    }
                    Some("image_url") => {
                        let url = part.pointer("/image_url/url").or_else(|| part.get("image_url"));
                        images.push(Value::from(inline_image(url.and_then(Value::as_str).ok_or_else(wrong)?)?));
                    }
                    Some(other) => {
                        return Err(TranslateFault::unsupported(
                            "messages",
                            format!("Ollama takes text and images in a message, not parts of type {other:?}"),
                        ));
                    }
                    None => return Err(wrong()),
                }
            }
            translated.insert("content".into(), texts.join("\n").into());
            if !images.is_empty() {
                translated.insert("images".into(), images.into());
            }
        }
        Some(_) => return Err(wrong()),
    }
    Ok(())
}

/// The base64 part of a `data:` URL.
fn inline_image(url: &str) -> Result<&str, TranslateFault> {
    let inline = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    inline.map(|(_media_type, base64)| base64).ok_or_else(|| {
        TranslateFault::unsupported(
            "messages",
            "Ollama takes images only inline: send a data: URL with base64 in place of an address",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translate(request: Value) -> Result<OllamaChat, TranslateFault> {
        let Value::Object(fields) = request else { panic!("an object") };
        chat(&fields, None, "m", true)
    }

    #[test]
    fn parameters_become_options() {
        let chat = translate(json!({
            "messages": [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "hi"}],
            "temperature": 3, "top_p": 0.5, "max_tokens": 5, "max_completion_tokens": 7, "stop": "x", "seed": 1,
            "frequency_penalty": 0.1, "presence_penalty": 0.2, "response_format": {"type": "json_object"},
            "reasoning_effort": "minimal", "logit_bias": {}, "user": "u", "keep_alive": "5m",
        }))
        .expect("translates");
        assert_eq!(
            chat.body,
            json!({
                "model": "m",
                "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
                "stream": true, "format": "json", "think": "low", "keep_alive": "5m",
                "options": {"temperature": 2.0, "top_p": 0.5, "seed": 1, "presence_penalty": 0.2,
                            "frequency_penalty": 0.1, "num_predict": 7, "stop": ["x"]},
            })
        );
        assert_eq!(chat.dropped, ["logit_bias"]);
    }

    #[test]
    fn tool_calls_and_their_answers_keep_their_names() {
        let chat = translate(json!({
            "messages": [
                {"role": "assistant", "content": null, "reasoning_content": "hm",
                 "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]},
                {"role": "tool", "tool_call_id": "c1", "content": "4"},
            ],
            "tools": [{"type": "function"}], "tool_choice": "auto",
        }))
        .expect("translates");
        assert_eq!(
            chat.body["messages"],
            json!([
                {"role": "assistant", "content": "", "thinking": "hm",
                 "tool_calls": [{"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}]},
                {"role": "tool", "content": "4", "tool_call_id": "c1", "tool_name": "f"},
            ])
        );
        assert_eq!(chat.body["tools"], json!([{"type": "function"}]));
        assert!(chat.dropped.is_empty());
    }

    #[test]
    fn images_must_be_inline() {
        let with = |url: &str| {
            translate(json!({"messages": [{"role": "user", "content": [
                {"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url}},
            ]}]}))
        };
        let chat = with("data:image/png;base64,AAAA").expect("translates");
        assert_eq!(chat.body["messages"][0], json!({"role": "user", "content": "look", "images": ["AAAA"]}));
        assert!(
            matches!(with("https://x/y.png"), Err(TranslateFault::Unsupported { param, .. }) if param == "messages")
        );
    }

    #[test]
    fn wrong_types_name_the_field() {
        for (request, field) in [
            (json!({}), "messages"),
            (json!({"messages": ["x"]}), "messages[0]"),
            (json!({"messages": [{"role": "user", "content": 1}]}), "messages[0].content"),
            (json!({"messages": [], "temperature": "hot"}), "temperature"),
            (json!({"messages": [], "stop": 1}), "stop"),
            (
                json!({"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}]}),
                "messages[0].tool_calls[0].function.arguments",
            ),
        ] {
            match translate(request) {
                Err(TranslateFault::WrongType(name, _)) => assert_eq!(name, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }
}
