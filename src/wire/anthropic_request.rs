//! Anthropic's Messages request in OpenAI's shape (Anthropic's API reference, Create a Message).
//!
//! Called by [`crate::wire::client`]. Must never drop a field silently: what the pivot has no word for is named, and
//! what would change the answer's meaning is refused.

use serde_json::{Map, Value, json};

use crate::wire::chat_message::{
    self, content_of, drop_choice_without_tools, function_call, image_part, put_tools, text_part, tool_image_note,
};
use crate::wire::pivot::{Extras, PromptTokens, Thinking};
use crate::wire::translate::{Fields, TranslateFault, count, flag, list, object, path, present, required, text, wrong};

/// A translated request.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatFromMessages {
    /// The body of `/v1/chat/completions`.
    pub body: Value,
    /// What goes beside it.
    pub extras: Extras,
    /// Sequences that end the answer; it tells which one was met.
    pub stop_sequences: Vec<String>,
    /// Fields and tools that were left out; outside text.
    pub dropped: Vec<String>,
}

/// Fields that change nothing about an answer of a local model.
const MEANINGLESS: &[&str] = &["service_tier", "cache_control", "betas", "inference_geo", "speed"];

/// Fields that ask Anthropic's own servers for something.
const SERVER_SIDE: &[&str] = &["container", "context_management", "mcp_servers"];

/// Translates the body of `/v1/messages` or `/v1/messages/count_tokens`.
///
/// # Errors
/// A field has the wrong type, or asks for what no engine can do.
pub fn chat(request: &Fields) -> Result<ChatFromMessages, TranslateFault> {
    let mut messages = Vec::new();
    if let Some(system) = system(request)? {
        messages.push(json!({"role": "system", "content": system}));
    }
    let turns = list(request, "messages", "")?.ok_or_else(|| wrong("", "messages", "an array of messages"))?;
    for (index, turn) in turns.iter().enumerate() {
        let at = format!("messages[{index}]");
        translate_turn(object(turn, &at)?, &at, &mut messages)?;
    }
    let mut body = Map::new();
    let mut dropped = Vec::new();
    let mut extras = Extras { prompt_tokens: PromptTokens::Early, ..Extras::default() };
    let mut stop_sequences = Vec::new();
    for (field, value) in request {
        if value.is_null() {
            continue;
        }
        match field.as_str() {
            "messages" => {
                body.insert("messages".into(), Value::Array(std::mem::take(&mut messages)));
            }
            "system" => {}
            "stop_sequences" => {
                let stops = list(request, field, "")?.unwrap_or_default();
                for stop in stops {
                    let stop = stop.as_str().ok_or_else(|| wrong("", field, "an array of strings"))?;
                    stop_sequences.push(stop.to_owned());
                }
                if !stop_sequences.is_empty() {
                    body.insert("stop".into(), value.clone());
                }
            }
            "max_tokens" => {
                body.insert(field.clone(), count(request, field, "")?.into());
            }
            "tools" => tools(request, &mut body, &mut dropped)?,
            "tool_choice" => tool_choice(object(value, field)?, &mut body)?,
            "thinking" => extras.thinking = thinking(object(value, field)?)?,
            "metadata" => {
                if let Some(user) = text(object(value, field)?, "user_id", field)? {
                    body.insert("user".into(), user.into());
                }
            }
            "output_format" => response_format(object(value, field)?, field, &mut body)?,
            "output_config" => output_config(object(value, field)?, &mut body, &mut extras)?,
            name if MEANINGLESS.contains(&name) => {}
            name if SERVER_SIDE.contains(&name) => dropped.push(field.clone()),
            // The same word in both dialects, or an engine's own, such as `min_p`, which survives where the engine takes
            // it (SPEC §4.5).
            _ => {
                body.insert(field.clone(), value.clone());
            }
        }
    }
    drop_choice_without_tools(&mut body);
    Ok(ChatFromMessages { body: body.into(), extras, stop_sequences, dropped })
}

/// `system` is a string or a list of text blocks.
fn system(request: &Fields) -> Result<Option<String>, TranslateFault> {
    match present(request, "system") {
        None => Ok(None),
        Some(Value::String(text)) => Ok((!text.is_empty()).then(|| text.clone())),
        Some(Value::Array(blocks)) => {
            let mut parts = Vec::with_capacity(blocks.len());
            for (index, block) in blocks.iter().enumerate() {
                let at = format!("system[{index}]");
                parts.push(required(object(block, &at)?, "text", &at)?);
            }
            let joined = parts.join("\n");
            Ok((!joined.is_empty()).then_some(joined))
        }
        Some(_) => Err(wrong("", "system", "a string or an array of text blocks")),
    }
}

fn translate_turn(turn: &Fields, at: &str, out: &mut Vec<Value>) -> Result<(), TranslateFault> {
    let role = required(turn, "role", at)?;
    if !matches!(role, "user" | "assistant" | "system") {
        return Err(wrong(at, "role", "user or assistant"));
    }
    let content = match present(turn, "content") {
        Some(Value::String(text)) => {
            out.push(json!({"role": role, "content": text}));
            return Ok(());
        }
        Some(Value::Array(blocks)) => blocks,
        _ => return Err(wrong(at, "content", "a string or an array of content blocks")),
    };
    match role {
        "assistant" => assistant(content, at, out),
        "user" => user(content, at, out),
        _ => {
            let mut parts = Vec::new();
            for (index, block) in content.iter().enumerate() {
                let at = format!("{at}.content[{index}]");
                parts.push(required(object(block, &at)?, "text", &at)?);
            }
            out.push(json!({"role": "system", "content": parts.join("\n")}));
            Ok(())
        }
    }
}

/// The user's blocks: results of tools become messages of their own, which stand before the rest.
fn user(blocks: &[Value], at: &str, out: &mut Vec<Value>) -> Result<(), TranslateFault> {
    let mut parts = Vec::with_capacity(blocks.len());
    for (index, block) in blocks.iter().enumerate() {
        let at = format!("{at}.content[{index}]");
        let fields = object(block, &at)?;
        match required(fields, "type", &at)? {
            "tool_result" => tool_result(fields, &at, out, &mut parts)?,
            _ => parts.push(part(fields, &at)?),
        }
    }
    if let Some(content) = content_of(parts) {
        out.push(json!({"role": "user", "content": content}));
    }
    Ok(())
}

/// A block of text, an image or a document that is text.
fn part(fields: &Fields, at: &str) -> Result<Value, TranslateFault> {
    match required(fields, "type", at)? {
        "text" => Ok(text_part(required(fields, "text", at)?)),
        "image" => Ok(image_part(&image_url(fields, at)?)),
        "document" => document(fields, at),
        other => Err(TranslateFault::unsupported(
            path(at, "type"),
            format!(
                "content blocks of type {other:?} cannot be put to a local model; send text, image, tool_use or tool_result"
            ),
        )),
    }
}

fn image_url(fields: &Fields, at: &str) -> Result<String, TranslateFault> {
    let at = path(at, "source");
    let source = present(fields, "source").ok_or_else(|| TranslateFault::WrongType(at.clone(), "an object"))?;
    let source = object(source, &at)?;
    match required(source, "type", &at)? {
        "base64" => {
            let media_type = required(source, "media_type", &at)?;
            Ok(format!("data:{media_type};base64,{}", required(source, "data", &at)?))
        }
        "url" => Ok(required(source, "url", &at)?.to_owned()),
        other => Err(TranslateFault::unsupported(
            path(&at, "type"),
            format!("images of the source {other:?} are not kept here; send them as base64"),
        )),
    }
}

fn document(fields: &Fields, at: &str) -> Result<Value, TranslateFault> {
    let source_at = path(at, "source");
    let source = present(fields, "source").ok_or_else(|| TranslateFault::WrongType(source_at.clone(), "an object"))?;
    let source = object(source, &source_at)?;
    if required(source, "type", &source_at)? != "text" {
        return Err(TranslateFault::unsupported(
            source_at,
            "documents can be sent as text only: a local model reads no PDF",
        ));
    }
    let data = required(source, "data", &source_at)?;
    let text = match text(fields, "title", at)? {
        Some(title) => format!("{title}\n\n{data}"),
        None => data.to_owned(),
    };
    Ok(text_part(&text))
}

/// The result of a tool: a message of its own.
fn tool_result(fields: &Fields, at: &str, out: &mut Vec<Value>, parts: &mut Vec<Value>) -> Result<(), TranslateFault> {
    let id = required(fields, "tool_use_id", at)?;
    let mut texts: Vec<String> = Vec::new();
    match present(fields, "content") {
        None => {}
        Some(Value::String(text)) => texts.push(text.clone()),
        Some(Value::Array(blocks)) => {
            for (index, block) in blocks.iter().enumerate() {
                let at = format!("{at}.content[{index}]");
                let mut part = part(object(block, &at)?, &at)?;
                if let Some(Value::String(text)) = part.get_mut("text").map(Value::take) {
                    texts.push(text);
                } else {
                    parts.push(tool_image_note(id));
                    parts.push(part);
                }
            }
        }
        Some(_) => return Err(wrong(at, "content", "a string or an array of content blocks")),
    }
    let mut content = texts.join("\n");
    if flag(fields, "is_error", at)? == Some(true) {
        content.insert_str(0, ERROR_MARK);
    }
    out.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
    Ok(())
}

/// OpenAI's dialect has no `is_error`: the model is told in words.
pub(crate) const ERROR_MARK: &str = "Error: ";

fn assistant(blocks: &[Value], at: &str, out: &mut Vec<Value>) -> Result<(), TranslateFault> {
    let mut texts: Vec<&str> = Vec::new();
    let mut thoughts: Vec<&str> = Vec::new();
    let mut calls = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        let at = format!("{at}.content[{index}]");
        let fields = object(block, &at)?;
        match required(fields, "type", &at)? {
            "text" => texts.push(required(fields, "text", &at)?),
            "thinking" => thoughts.push(required(fields, "thinking", &at)?),
            // Encrypted for Anthropic's own servers: no other model can read it.
            "redacted_thinking" => {}
            "tool_use" => {
                let input = match present(fields, "input") {
                    None => "{}".to_owned(),
                    Some(input @ Value::Object(_)) => input.to_string(),
                    Some(_) => return Err(wrong(&at, "input", "an object")),
                };
                calls.push(function_call(required(fields, "id", &at)?, required(fields, "name", &at)?, &input));
            }
            other => {
                return Err(TranslateFault::unsupported(
                    path(&at, "type"),
                    format!(
                        "content blocks of type {other:?} come from tools of Anthropic's servers, which are not here"
                    ),
                ));
            }
        }
    }
    let content = (!texts.is_empty() || calls.is_empty()).then(|| texts.join("\n"));
    let reasoning = (!thoughts.is_empty()).then(|| thoughts.join("\n"));
    out.push(chat_message::assistant(content, reasoning, calls));
    Ok(())
}

/// Tools with a schema become functions. The others run on Anthropic's servers or are known to its models only.
fn tools(request: &Fields, body: &mut Fields, dropped: &mut Vec<String>) -> Result<(), TranslateFault> {
    let mut functions = Vec::new();
    for (index, tool) in list(request, "tools", "")?.unwrap_or_default().iter().enumerate() {
        let at = format!("tools[{index}]");
        let fields = object(tool, &at)?;
        let Some(schema) = present(fields, "input_schema") else {
            let kind = text(fields, "type", &at)?.ok_or_else(|| wrong(&at, "input_schema", "an object"))?;
            dropped.push(format!("{at} ({kind})"));
            continue;
        };
        object(schema, &path(&at, "input_schema"))?;
        let mut function = Map::new();
        function.insert("name".into(), required(fields, "name", &at)?.into());
        if let Some(description) = text(fields, "description", &at)? {
            function.insert("description".into(), description.into());
        }
        function.insert("parameters".into(), schema.clone());
        if let Some(strict) = flag(fields, "strict", &at)? {
            function.insert("strict".into(), strict.into());
        }
        functions.push(function);
    }
    put_tools(functions, body);
    Ok(())
}

fn tool_choice(choice: &Fields, body: &mut Fields) -> Result<(), TranslateFault> {
    let at = "tool_choice";
    let translated = match required(choice, "type", at)? {
        "auto" => json!("auto"),
        "any" => json!("required"),
        "none" => json!("none"),
        "tool" => json!({"type": "function", "function": {"name": required(choice, "name", at)?}}),
        _ => return Err(wrong(at, "type", "auto, any, tool or none")),
    };
    body.insert("tool_choice".into(), translated);
    if flag(choice, "disable_parallel_tool_use", at)? == Some(true) {
        body.insert("parallel_tool_calls".into(), false.into());
    }
    Ok(())
}

fn thinking(fields: &Fields) -> Result<Option<Thinking>, TranslateFault> {
    match required(fields, "type", "thinking")? {
        "enabled" => {
            let budget = match present(fields, "budget_tokens") {
                None => None,
                Some(value) => {
                    Some(value.as_u64().ok_or_else(|| wrong("thinking", "budget_tokens", "a whole number"))?)
                }
            };
            Ok(Some(Thinking::Enabled { budget }))
        }
        "disabled" => Ok(Some(Thinking::Disabled)),
        // The model decides, as it does without a word.
        "adaptive" => Ok(None),
        _ => Err(wrong("thinking", "type", "enabled, disabled or adaptive")),
    }
}

fn output_config(fields: &Fields, body: &mut Fields, extras: &mut Extras) -> Result<(), TranslateFault> {
    let at = "output_config";
    if let Some(format) = present(fields, "format") {
        let at = path(at, "format");
        response_format(object(format, &at)?, &at, body)?;
    }
    if let Some(effort) = text(fields, "effort", at)?
        && extras.thinking.is_none()
    {
        extras.thinking = Some(Thinking::Effort(effort.to_owned()));
    }
    Ok(())
}

fn response_format(fields: &Fields, at: &str, body: &mut Fields) -> Result<(), TranslateFault> {
    if required(fields, "type", at)? != "json_schema" {
        return Err(wrong(at, "type", "json_schema"));
    }
    let schema = present(fields, "schema").ok_or_else(|| wrong(at, "schema", "an object"))?;
    object(schema, &path(at, "schema"))?;
    let format = json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": true}});
    body.insert("response_format".into(), format);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translate(request: Value) -> Result<ChatFromMessages, TranslateFault> {
        let Value::Object(fields) = request else { panic!("an object") };
        chat(&fields)
    }

    #[test]
    fn parameters_get_openais_names_and_unknown_ones_survive() {
        let chat = translate(json!({
            "model": "m", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "stop_sequences": ["\n\n"],
            "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}},
                       {"type": "text", "text": "and kind"}],
            "metadata": {"user_id": "u1"}, "min_p": 0.1, "service_tier": "auto", "context_management": {"edits": []},
            "thinking": {"type": "enabled", "budget_tokens": 2048}, "stream": true,
            "messages": [{"role": "user", "content": "hi"}],
        }))
        .expect("translates");
        assert_eq!(
            chat.body,
            json!({
                "model": "m", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "stop": ["\n\n"],
                "user": "u1", "min_p": 0.1, "stream": true,
                "messages": [{"role": "system", "content": "be brief\nand kind"}, {"role": "user", "content": "hi"}],
            })
        );
        assert_eq!(chat.extras.thinking, Some(Thinking::Enabled { budget: Some(2048) }));
        assert_eq!(chat.stop_sequences, ["\n\n"]);
        assert_eq!(chat.dropped, ["context_management"]);
    }

    #[test]
    fn tool_calls_and_their_results_become_messages_of_their_own() {
        let chat = translate(json!({
            "messages": [
                {"role": "user", "content": "weather?"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "redacted_thinking", "data": "xx"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "t1", "name": "get", "input": {"city": "Köln"}},
                    {"type": "tool_use", "id": "t2", "name": "get", "input": {}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [
                        {"type": "text", "text": "rain"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                    ]},
                    {"type": "tool_result", "tool_use_id": "t2", "content": "no such city", "is_error": true},
                    {"type": "text", "text": "and now?"},
                ]},
            ],
        }))
        .expect("translates");
        assert_eq!(
            chat.body["messages"],
            json!([
                {"role": "user", "content": "weather?"},
                {"role": "assistant", "content": "I look.", "reasoning_content": "hm", "tool_calls": [
                    {"id": "t1", "type": "function", "function": {"name": "get", "arguments": "{\"city\":\"Köln\"}"}},
                    {"id": "t2", "type": "function", "function": {"name": "get", "arguments": "{}"}},
                ]},
                {"role": "tool", "tool_call_id": "t1", "content": "rain"},
                {"role": "tool", "tool_call_id": "t2", "content": "Error: no such city"},
                {"role": "user", "content": [
                    {"type": "text", "text": "Image in the result of the tool call t1:"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                    {"type": "text", "text": "and now?"},
                ]},
            ])
        );
    }

    #[test]
    fn tools_and_choices_are_translated_and_server_tools_left_out() {
        let with = |choice: Value| {
            translate(json!({
                "messages": [],
                "tools": [
                    {"name": "f", "description": "d", "input_schema": {"type": "object"}},
                    {"type": "web_search_20250305", "name": "web_search"},
                ],
                "tool_choice": choice,
            }))
            .expect("translates")
        };
        let auto = with(json!({"type": "auto"}));
        assert_eq!(
            auto.body["tools"],
            json!([{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}])
        );
        assert_eq!(auto.dropped, ["tools[1] (web_search_20250305)"]);
        for (choice, expected) in [
            (json!({"type": "auto"}), json!("auto")),
            (json!({"type": "any"}), json!("required")),
            (json!({"type": "none"}), json!("none")),
            (json!({"type": "tool", "name": "f"}), json!({"type": "function", "function": {"name": "f"}})),
        ] {
            assert_eq!(with(choice).body["tool_choice"], expected);
        }
        let alone = with(json!({"type": "any", "disable_parallel_tool_use": true}));
        assert_eq!(alone.body["parallel_tool_calls"], false);
        let none = translate(json!({"messages": [], "tools": [{"type": "bash_20250124", "name": "bash"}],
                                    "tool_choice": {"type": "auto"}}));
        let none = none.expect("translates").body;
        assert!(none.get("tools").is_none() && none.get("tool_choice").is_none(), "{none}");
    }

    #[test]
    fn wrong_types_and_what_cannot_be_done_name_the_field() {
        let user = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
        for (request, field) in [
            (json!({}), "messages"),
            (json!({"messages": "x"}), "messages"),
            (json!({"messages": [1]}), "messages[0]"),
            (json!({"messages": [{"content": "x"}]}), "messages[0].role"),
            (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
            (json!({"messages": [{"role": "robot", "content": []}]}), "messages[0].role"),
            (json!({"messages": [{"role": "robot", "content": "x"}]}), "messages[0].role"),
            (json!({"messages": [], "system": 1}), "system"),
            (json!({"messages": [], "stop_sequences": "x"}), "stop_sequences"),
            (json!({"messages": [], "tools": [{"name": "f"}]}), "tools[0].input_schema"),
            (json!({"messages": [], "tool_choice": {"type": "some"}}), "tool_choice.type"),
            (json!({"messages": [], "thinking": {"type": "deep"}}), "thinking.type"),
            (user(json!({"type": "text"})), "messages[0].content[0].text"),
            (user(json!({"type": "tool_result"})), "messages[0].content[0].tool_use_id"),
            (user(json!({"type": "image"})), "messages[0].content[0].source"),
        ] {
            match translate(request.clone()) {
                Err(TranslateFault::WrongType(name, _)) => assert_eq!(name, field, "{request}"),
                other => panic!("{field}: {other:?}"),
            }
        }
        for (block, field) in [
            (json!({"type": "video"}), "messages[0].content[0].type"),
            (
                json!({"type": "image", "source": {"type": "file", "file_id": "f"}}),
                "messages[0].content[0].source.type",
            ),
            (
                json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": ""}}),
                "messages[0].content[0].source",
            ),
        ] {
            match translate(user(block)) {
                Err(TranslateFault::Unsupported { param, .. }) => assert_eq!(param, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }
}
