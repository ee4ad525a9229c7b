//! OpenAI's Responses request in the shape of its chat completions (OpenAI's API reference, Create a model response).
//!
//! Called by [`crate::wire::client`]. FLM keeps no responses: what needs one that was kept is refused, and so is nothing
//! else that a client such as Codex sends along. Must never drop a field silently.

use serde_json::{Map, Value, json};

use crate::wire::chat_message::{
    self, content_of, drop_choice_without_tools, function_call, image_part, put_tools, text_part, tool_image_note,
};
use crate::wire::pivot::{Extras, Thinking};
use crate::wire::translate::{Fields, TranslateFault, count, flag, list, object, path, present, required, text, wrong};

/// A translated request.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatFromResponses {
    /// The body of `/v1/chat/completions`.
    pub body: Value,
    /// What goes beside it.
    pub extras: Extras,
    /// Fields of the request that a response repeats.
    pub echo: Map<String, Value>,
    /// Fields and tools that were left out; outside text.
    pub dropped: Vec<String>,
}

/// Fields that are repeated in the response and their value when the request has none.
const ECHOED: &[(&str, &str)] = &[
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("max_tool_calls", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("reasoning", r#"{"effort":null,"summary":null}"#),
    ("temperature", "1.0"),
    ("text", r#"{"format":{"type":"text"}}"#),
    ("tool_choice", "\"auto\""),
    ("tools", "[]"),
    ("top_p", "1.0"),
    ("truncation", "\"disabled\""),
    ("user", "null"),
];

/// Fields that change nothing about an answer of a local model.
const MEANINGLESS: &[&str] = &[
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "include",
    "metadata",
    "stream_options",
    "store",
    "client_metadata",
];

/// Fields that ask OpenAI's own servers for something.
const SERVER_SIDE: &[&str] = &["max_tool_calls", "truncation", "top_logprobs", "context_management", "moderation"];

/// Fields that need a response, conversation or template that was kept, and what to do without.
const STATE: &[(&str, &str)] = &[
    ("previous_response_id", "send the whole conversation as input"),
    ("conversation", "send the whole conversation as input"),
    ("prompt", "send its text as instructions and input"),
];

/// Translates the body of `/v1/responses`.
///
/// # Errors
/// A field has the wrong type, or needs something that FLM would have to keep.
pub fn chat(request: &Fields) -> Result<ChatFromResponses, TranslateFault> {
    refuse_state(request)?;
    let mut dropped = Vec::new();
    let mut turns = Turns::default();
    if let Some(instructions) = text(request, "instructions", "")? {
        turns.system(instructions);
    }
    match present(request, "input") {
        None => {}
        Some(Value::String(text)) => turns.push(json!({"role": "user", "content": text})),
        Some(Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                let at = format!("input[{index}]");
                translate_item(object(item, &at)?, &at, &mut turns, &mut dropped)?;
            }
        }
        Some(_) => return Err(wrong("", "input", "a string or an array of items")),
    }
    let mut body = Map::new();
    body.insert("messages".into(), turns.finish().into());
    let mut extras = Extras::default();
    for (field, value) in request {
        if value.is_null() {
            continue;
        }
        match field.as_str() {
            "input" | "instructions" => {}
            "max_output_tokens" => {
                body.insert("max_tokens".into(), count(request, field, "")?.into());
            }
            "tools" => tools(request, &mut body, &mut dropped)?,
            "tool_choice" => tool_choice(value, &mut body, &mut dropped)?,
            "text" => text_format(object(value, field)?, &mut body, &mut dropped)?,
            "reasoning" => {
                if let Some(effort) = text(object(value, field)?, "effort", field)? {
                    extras.thinking = Some(Thinking::Effort(effort.to_owned()));
                }
            }
            name if MEANINGLESS.contains(&name) || STATE.iter().any(|(field, _)| *field == name) => {}
            "background" => {}
            name if SERVER_SIDE.contains(&name) => {
                // Its default is what happens anyway.
                if value != "disabled" {
                    dropped.push(field.clone());
                }
            }
            // The same word in both dialects, or an engine's own (SPEC §4.5).
            _ => {
                body.insert(field.clone(), value.clone());
            }
        }
    }
    drop_choice_without_tools(&mut body);
    Ok(ChatFromResponses { body: body.into(), extras, echo: echo(request), dropped })
}

fn refuse_state(request: &Fields) -> Result<(), TranslateFault> {
    for (field, instead) in STATE {
        if present(request, field).is_some() {
            return Err(TranslateFault::unsupported(
                *field,
                format!("FLM keeps no responses, so {field} cannot be used; {instead}"),
            ));
        }
    }
    if flag(request, "background", "")? == Some(true) {
        return Err(TranslateFault::unsupported(
            "background",
            "FLM keeps no responses, so nothing can be answered in the background; leave background out and stream",
        ));
    }
    Ok(())
}

fn echo(request: &Fields) -> Map<String, Value> {
    let given = |field: &str, default: &str| match present(request, field) {
        Some(value) => value.clone(),
        None => serde_json::from_str(default).unwrap_or_default(),
    };
    let mut echo: Map<String, Value> =
        ECHOED.iter().map(|(field, default)| ((*field).to_owned(), given(field, default))).collect();
    // What FLM does whatever was asked.
    for (field, value) in [("background", json!(false)), ("previous_response_id", Value::Null), ("store", json!(false))]
    {
        echo.insert(field.to_owned(), value);
    }
    echo
}

/// The messages so far. What belongs to one turn of the model stands in items of its own and comes together here.
#[derive(Default)]
struct Turns {
    messages: Vec<Value>,
    /// The model's turn that is being put together.
    assistant: Option<Assistant>,
}

#[derive(Default)]
struct Assistant {
    content: Option<String>,
    reasoning: Option<String>,
    calls: Vec<Value>,
}

impl Turns {
    /// Many chat templates take one system message, at the start: those that stand there become one.
    fn system(&mut self, text: &str) {
        self.end_turn();
        if let [first] = self.messages.as_mut_slice()
            && first["role"] == "system"
            && let Value::String(earlier) = &mut first["content"]
        {
            earlier.push_str("\n\n");
            earlier.push_str(text);
            return;
        }
        self.messages.push(json!({"role": "system", "content": text}));
    }

    fn push(&mut self, message: Value) {
        self.end_turn();
        self.messages.push(message);
    }

    fn said(&mut self, text: &str) {
        if self.assistant.as_ref().is_some_and(|turn| turn.content.is_some() || !turn.calls.is_empty()) {
            self.end_turn();
        }
        self.assistant.get_or_insert_default().content = Some(text.to_owned());
    }

    fn reasoned(&mut self, text: &str) {
        if self.assistant.as_ref().is_some_and(|turn| turn.content.is_some() || !turn.calls.is_empty()) {
            self.end_turn();
        }
        if !text.is_empty() {
            self.assistant.get_or_insert_default().reasoning = Some(text.to_owned());
        }
    }

    fn called(&mut self, id: &str, name: &str, arguments: &str) {
        self.assistant.get_or_insert_default().calls.push(function_call(id, name, arguments));
    }

    fn end_turn(&mut self) {
        let Some(turn) = self.assistant.take() else { return };
        if turn.content.is_none() && turn.calls.is_empty() {
            // Reasoning alone is no turn: its answer was cut away.
            return;
        }
        self.messages.push(chat_message::assistant(turn.content, turn.reasoning, turn.calls));
    }

    /// A conversation without a word: Codex asks so, to see whether the model answers.
    fn finish(mut self) -> Vec<Value> {
        self.end_turn();
        if self.messages.iter().all(|message| message["role"] == "system") {
            self.messages.push(json!({"role": "user", "content": ""}));
        }
        self.messages
    }
}

fn translate_item(item: &Fields, at: &str, turns: &mut Turns, dropped: &mut Vec<String>) -> Result<(), TranslateFault> {
    match text(item, "type", at)?.unwrap_or("message") {
        "message" => message(item, at, turns),
        "function_call" => {
            let arguments = text(item, "arguments", at)?.unwrap_or("{}");
            turns.called(required(item, "call_id", at)?, required(item, "name", at)?, arguments);
            Ok(())
        }
        // A tool that took free text; the model sees what it wrote.
        "custom_tool_call" => {
            let arguments = json!({"input": required(item, "input", at)?}).to_string();
            turns.called(required(item, "call_id", at)?, required(item, "name", at)?, &arguments);
            Ok(())
        }
        "function_call_output" | "custom_tool_call_output" => output(item, at, turns),
        "reasoning" => {
            // What the model thought, else its summary; encrypted content is for OpenAI's servers only.
            let thought = joined(item, "content", at)?;
            let thought = if thought.is_empty() { joined(item, "summary", at)? } else { thought };
            turns.reasoned(&thought);
            Ok(())
        }
        "item_reference" => Err(TranslateFault::unsupported(
            path(at, "type"),
            "FLM keeps no responses, so items cannot be referred to; send them whole",
        )),
        other => {
            dropped.push(format!("{at} ({other})"));
            Ok(())
        }
    }
}

/// The texts of a list of parts.
fn joined(item: &Fields, key: &str, at: &str) -> Result<String, TranslateFault> {
    let mut texts = Vec::new();
    for (index, part) in list(item, key, at)?.unwrap_or_default().iter().enumerate() {
        let at = format!("{at}.{key}[{index}]");
        texts.push(text(object(part, &at)?, "text", &at)?.unwrap_or_default());
    }
    Ok(texts.join("\n"))
}

fn message(item: &Fields, at: &str, turns: &mut Turns) -> Result<(), TranslateFault> {
    let role = required(item, "role", at)?;
    let content = parts(present(item, "content"), at, "content")?;
    match role {
        "system" | "developer" => turns.system(&texts_of(&content)),
        "assistant" => turns.said(&texts_of(&content)),
        "user" => turns.push(json!({"role": "user", "content": content_of(content).unwrap_or_else(|| "".into())})),
        _ => return Err(wrong(at, "role", "user, assistant, system or developer")),
    }
    Ok(())
}

/// The result of a call.
fn output(item: &Fields, at: &str, turns: &mut Turns) -> Result<(), TranslateFault> {
    let id = required(item, "call_id", at)?;
    let (texts, images): (Vec<Value>, Vec<Value>) =
        parts(present(item, "output"), at, "output")?.into_iter().partition(|part| part["type"] == "text");
    turns.push(json!({"role": "tool", "tool_call_id": id, "content": texts_of(&texts)}));
    if !images.is_empty() {
        let mut content = vec![tool_image_note(id)];
        content.extend(images);
        turns.push(json!({"role": "user", "content": content}));
    }
    Ok(())
}

/// A string or a list of parts, as the parts of chat completions.
fn parts(value: Option<&Value>, at: &str, key: &str) -> Result<Vec<Value>, TranslateFault> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text_part(text)]),
        Some(Value::Array(items)) => {
            let mut parts = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                let at = format!("{at}.{key}[{index}]");
                parts.push(part(object(item, &at)?, &at)?);
            }
            Ok(parts)
        }
        Some(_) => Err(wrong(at, key, "a string or an array of parts")),
    }
}

fn part(fields: &Fields, at: &str) -> Result<Value, TranslateFault> {
    match required(fields, "type", at)? {
        "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" => {
            Ok(text_part(required(fields, "text", at)?))
        }
        "refusal" => Ok(text_part(required(fields, "refusal", at)?)),
        "input_image" => {
            let Some(url) = text(fields, "image_url", at)? else {
                return Err(TranslateFault::unsupported(
                    path(at, "file_id"),
                    "no files are kept here; send the image as a data: URL in image_url",
                ));
            };
            Ok(image_part(url))
        }
        other => Err(TranslateFault::unsupported(
            path(at, "type"),
            format!("parts of type {other:?} cannot be put to a local model; send input_text or input_image"),
        )),
    }
}

fn texts_of(parts: &[Value]) -> String {
    parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n")
}

/// Function tools; the others run on OpenAI's servers, or take text that is no JSON.
fn tools(request: &Fields, body: &mut Fields, dropped: &mut Vec<String>) -> Result<(), TranslateFault> {
    let mut functions = Vec::new();
    for (index, tool) in list(request, "tools", "")?.unwrap_or_default().iter().enumerate() {
        let at = format!("tools[{index}]");
        let fields = object(tool, &at)?;
        let kind = required(fields, "type", &at)?;
        if kind != "function" {
            dropped.push(format!("{at} ({kind})"));
            continue;
        }
        let mut function = Map::new();
        function.insert("name".into(), required(fields, "name", &at)?.into());
        for field in ["description", "parameters", "strict"] {
            if let Some(value) = present(fields, field) {
                function.insert(field.into(), value.clone());
            }
        }
        functions.push(function);
    }
    put_tools(functions, body);
    Ok(())
}

fn tool_choice(value: &Value, body: &mut Fields, dropped: &mut Vec<String>) -> Result<(), TranslateFault> {
    let translated = match value {
        Value::String(word) if matches!(word.as_str(), "auto" | "none" | "required") => value.clone(),
        Value::Object(choice) => match required(choice, "type", "tool_choice")? {
            "function" => json!({"type": "function", "function": {"name": required(choice, "name", "tool_choice")?}}),
            "allowed_tools" => {
                dropped.push("tool_choice.tools".to_owned());
                text(choice, "mode", "tool_choice")?.unwrap_or("auto").into()
            }
            other => {
                dropped.push(format!("tool_choice ({other})"));
                return Ok(());
            }
        },
        _ => return Err(wrong("", "tool_choice", "auto, none, required or an object")),
    };
    body.insert("tool_choice".into(), translated);
    Ok(())
}

fn text_format(fields: &Fields, body: &mut Fields, dropped: &mut Vec<String>) -> Result<(), TranslateFault> {
    if present(fields, "verbosity").is_some() {
        dropped.push("text.verbosity".to_owned());
    }
    let Some(format) = present(fields, "format") else { return Ok(()) };
    let at = "text.format";
    let format = object(format, at)?;
    let translated = match required(format, "type", at)? {
        "text" => return Ok(()),
        "json_object" => json!({"type": "json_object"}),
        "json_schema" => {
            let mut schema = format.clone();
            schema.remove("type");
            object(present(format, "schema").unwrap_or(&Value::Null), &path(at, "schema"))?;
            schema.entry("name").or_insert_with(|| "answer".into());
            json!({"type": "json_schema", "json_schema": schema})
        }
        _ => return Err(wrong(at, "type", "text, json_object or json_schema")),
    };
    body.insert("response_format".into(), translated);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translate(request: Value) -> Result<ChatFromResponses, TranslateFault> {
        let Value::Object(fields) = request else { panic!("an object") };
        chat(&fields)
    }

    #[test]
    fn parameters_get_the_names_of_chat_completions() {
        let chat = translate(json!({
            "model": "m", "input": "hi", "instructions": "be brief", "max_output_tokens": 9, "temperature": 0.5,
            "stream": true, "store": false, "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k",
            "reasoning": {"effort": "low", "summary": "auto"}, "min_p": 0.1, "truncation": "auto",
            "text": {"verbosity": "low",
                     "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true}},
        }))
        .expect("translates");
        assert_eq!(
            chat.body,
            json!({
                "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
                "model": "m", "max_tokens": 9, "temperature": 0.5, "stream": true, "min_p": 0.1,
                "response_format": {"type": "json_schema",
                                    "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": true}},
            })
        );
        assert_eq!(chat.extras.thinking, Some(Thinking::Effort("low".into())));
        assert_eq!(chat.dropped, ["truncation", "text.verbosity"]);
        assert_eq!((&chat.echo["instructions"], &chat.echo["store"]), (&json!("be brief"), &json!(false)));
    }

    #[test]
    fn items_of_one_turn_come_together_and_leading_instructions_become_one_message() {
        let chat = translate(json!({
            "instructions": "a",
            "input": [
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "b"}]},
                {"role": "user", "content": [{"type": "input_text", "text": "look"},
                                             {"type": "input_image", "image_url": "data:image/png;base64,AA"}]},
                {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}],
                 "encrypted_content": "x"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}"},
                {"type": "custom_tool_call", "call_id": "c2", "name": "apply_patch", "input": "*** Begin"},
                {"type": "function_call_output", "call_id": "c1", "output": "4"},
                {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "done"}]},
                {"type": "web_search_call", "id": "ws"},
                {"type": "message", "role": "assistant", "content": "one"},
                {"type": "message", "role": "assistant", "content": "two"},
            ],
        }))
        .expect("translates");
        assert_eq!(
            chat.body["messages"],
            json!([
                {"role": "system", "content": "a\n\nb"},
                {"role": "user", "content": [{"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]},
                {"role": "assistant", "content": "I look.", "reasoning_content": "hm", "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
                    {"id": "c2", "type": "function",
                     "function": {"name": "apply_patch", "arguments": "{\"input\":\"*** Begin\"}"}},
                ]},
                {"role": "tool", "tool_call_id": "c1", "content": "4"},
                {"role": "tool", "tool_call_id": "c2", "content": "done"},
                {"role": "assistant", "content": "one"},
                {"role": "assistant", "content": "two"},
            ])
        );
        assert_eq!(chat.dropped, ["input[8] (web_search_call)"]);
    }

    #[test]
    fn tools_that_are_no_functions_are_left_out() {
        let chat = translate(json!({
            "input": "x",
            "tools": [
                {"type": "function", "name": "shell", "description": "d", "strict": false, "parameters": {"type": "object"}},
                {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}},
                {"type": "web_search"},
            ],
            "tool_choice": {"type": "function", "name": "shell"}, "parallel_tool_calls": false,
        }))
        .expect("translates");
        assert_eq!(
            chat.body["tools"],
            json!([{"type": "function",
                    "function": {"name": "shell", "description": "d", "parameters": {"type": "object"}, "strict": false}}])
        );
        assert_eq!(chat.body["tool_choice"], json!({"type": "function", "function": {"name": "shell"}}));
        assert_eq!(chat.dropped, ["tools[1] (custom)", "tools[2] (web_search)"]);
        let none = translate(json!({"input": "x", "tools": [{"type": "web_search"}], "tool_choice": "auto",
                                    "parallel_tool_calls": true}));
        let none = none.expect("translates").body;
        assert!(none.get("tool_choice").is_none() && none.get("parallel_tool_calls").is_none(), "{none}");
    }

    #[test]
    fn an_empty_input_is_a_question_without_words() {
        for request in
            [json!({}), json!({"input": []}), json!({"input": ""}), json!({"instructions": "a", "input": []})]
        {
            let body = translate(request).expect("translates").body;
            let messages = body["messages"].as_array().expect("messages");
            assert_eq!(messages.last(), Some(&json!({"role": "user", "content": ""})));
        }
    }

    #[test]
    fn what_needs_state_is_refused_by_name() {
        for (request, field) in [
            (json!({"input": "x", "previous_response_id": "resp_1"}), "previous_response_id"),
            (json!({"input": "x", "conversation": "conv_1"}), "conversation"),
            (json!({"prompt": {"id": "p"}}), "prompt"),
            (json!({"input": "x", "background": true}), "background"),
            (json!({"input": [{"type": "item_reference", "id": "i"}]}), "input[0].type"),
            (
                json!({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}),
                "input[0].content[0].file_id",
            ),
            (json!({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}), "input[0].content[0].type"),
        ] {
            match translate(request) {
                Err(TranslateFault::Unsupported { param, message }) => {
                    assert_eq!(param, field);
                    assert!(message.contains("; "), "says what to do: {message}");
                }
                other => panic!("{field}: {other:?}"),
            }
        }
        assert!(
            translate(json!({"input": "x", "previous_response_id": null, "background": false, "store": true})).is_ok()
        );
    }

    #[test]
    fn wrong_types_name_the_field() {
        for (request, field) in [
            (json!({"input": 1}), "input"),
            (json!({"input": ["x"]}), "input[0]"),
            (json!({"input": [{"role": "robot", "content": "x"}]}), "input[0].role"),
            (json!({"input": [{"role": "user", "content": 1}]}), "input[0].content"),
            (json!({"input": [{"type": "function_call", "name": "f"}]}), "input[0].call_id"),
            (json!({"input": "x", "instructions": []}), "instructions"),
            (json!({"input": "x", "tools": [{}]}), "tools[0].type"),
            (json!({"input": "x", "tool_choice": 1}), "tool_choice"),
            (json!({"input": "x", "text": {"format": {"type": "xml"}}}), "text.format.type"),
            (json!({"input": "x", "reasoning": "much"}), "reasoning"),
        ] {
            match translate(request) {
                Err(TranslateFault::WrongType(name, _)) => assert_eq!(name, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }
}
