//! Requests of Ollama's own API in OpenAI's shape, for clients that speak it in front of any engine (`ollama/ollama`
//! `api/types.go`, `docs/api.md`).
//!
//! Called by [`crate::wire::client`]. What an Ollama engine would make of the request goes beside it in the client's own
//! words, so that nothing is lost when one answers. Must never drop a field silently.

use serde_json::{Map, Value, json};

use crate::wire::chat_message::{function_call, image_part, text_part};
use crate::wire::openai::{Document, REASONING_OUT};
use crate::wire::pivot::{Extras, OllamaCall, OllamaNative, Thinking, Work};
use crate::wire::translate::{Fields, TranslateFault, flag, list, object, present, required, text, wrong};

/// A translated request.
#[derive(Debug, Clone, PartialEq)]
pub struct FromOllama {
    /// The body of the pivot's route.
    pub body: Value,
    /// The pivot's route.
    pub route: Document,
    /// What goes beside it.
    pub extras: Extras,
    /// As in [`OllamaNative`].
    pub work: Work,
}

/// Options that OpenAI's shape, or most engines beside it, know by the same word.
const SHARED_OPTIONS: &[&str] =
    &["temperature", "top_p", "top_k", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty"];

/// The option that becomes `max_tokens`.
const NUM_PREDICT: &str = "num_predict";

/// Whether the pivot carries an option under a word of its own.
#[must_use]
pub fn carries_option(option: &str) -> bool {
    option == NUM_PREDICT || SHARED_OPTIONS.contains(&option)
}

/// Fields that the pivot carries under a word of its own.
const CARRIED: &[&str] = &["model", "messages", "tools", "stream", "options", "keep_alive", "think"];

/// Translates the body of one of Ollama's inference calls.
///
/// # Errors
/// A field has the wrong type.
pub fn translate(call: OllamaCall, request: &Fields) -> Result<FromOllama, TranslateFault> {
    let mut body = Map::new();
    body.insert("model".into(), required(request, "model", "")?.into());
    for field in ["options", "keep_alive"] {
        if let Some(value) = present(request, field) {
            body.insert(field.into(), value.clone());
        }
    }
    let mut extras = Extras { thinking: thinking(request)?, ..Extras::default() };
    let mut own: Map<String, Value> = request.clone();
    own.retain(|field, value| !CARRIED.contains(&field.as_str()) && !value.is_null());
    let (route, has_words) = match call {
        OllamaCall::Chat => {
            let has_words = chat(request, &mut body)?;
            own.remove("format");
            (Document::Chat, has_words)
        }
        OllamaCall::Generate => generate(request, &mut body)?,
        OllamaCall::Embed => {
            let input = present(request, "input").cloned().unwrap_or_else(|| json!([]));
            if !matches!(&input, Value::String(_) | Value::Array(_)) {
                return Err(wrong("", "input", "a string or an array of strings"));
            }
            body.insert("input".into(), input);
            if let Some(dimensions) = present(request, "dimensions") {
                body.insert("dimensions".into(), dimensions.clone());
            }
            (Document::Embeddings, true)
        }
        OllamaCall::Embeddings => {
            body.insert("input".into(), text(request, "prompt", "")?.unwrap_or_default().into());
            (Document::Embeddings, true)
        }
    };
    if route != Document::Embeddings {
        options(request, &mut body)?;
        for field in ["logprobs", "top_logprobs"] {
            if let Some(value) = present(request, field) {
                body.insert(field.into(), value.clone());
                own.remove(field);
            }
        }
    }
    let work = match present(request, "keep_alive") {
        _ if has_words => Work::Answer,
        Some(Value::Number(number)) if number.as_f64() == Some(0.0) => Work::Unload,
        Some(Value::String(text)) if text.starts_with('0') => Work::Unload,
        _ => Work::Load,
    };
    extras.ollama = Some(OllamaNative { call, fields: own, work });
    Ok(FromOllama { body: body.into(), route, extras, work })
}

/// `think` is true, false or a level.
fn thinking(request: &Fields) -> Result<Option<Thinking>, TranslateFault> {
    match present(request, "think") {
        None => Ok(None),
        Some(Value::Bool(true)) => Ok(Some(Thinking::Enabled { budget: None })),
        Some(Value::Bool(false)) => Ok(Some(Thinking::Disabled)),
        Some(Value::String(level)) => Ok(Some(Thinking::Effort(level.clone()))),
        Some(_) => Err(wrong("", "think", "true, false, or low, medium or high")),
    }
}

/// Options that other engines have words for. All of them go to an Ollama engine as they came.
fn options(request: &Fields, body: &mut Fields) -> Result<(), TranslateFault> {
    let Some(options) = present(request, "options") else { return Ok(()) };
    let options = object(options, "options")?;
    for option in SHARED_OPTIONS {
        if let Some(value) = present(options, option) {
            body.insert((*option).into(), value.clone());
        }
    }
    // Ollama's -1 and -2 mean no limit, which is what no word means.
    if let Some(limit) = present(options, NUM_PREDICT).and_then(Value::as_i64)
        && limit >= 0
    {
        body.insert("max_tokens".into(), limit.into());
    }
    Ok(())
}

/// `format` is `json` or a schema.
fn response_format(request: &Fields, body: &mut Fields) -> Result<(), TranslateFault> {
    let format = match present(request, "format") {
        None => return Ok(()),
        Some(Value::String(word)) if word.is_empty() => return Ok(()),
        Some(Value::String(word)) if word == "json" => json!({"type": "json_object"}),
        Some(schema @ Value::Object(_)) => {
            json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}})
        }
        Some(_) => return Err(wrong("", "format", "json or a JSON schema")),
    };
    body.insert("response_format".into(), format);
    Ok(())
}

fn chat(request: &Fields, body: &mut Fields) -> Result<bool, TranslateFault> {
    let messages = list(request, "messages", "")?.unwrap_or_default();
    let mut out = Vec::with_capacity(messages.len());
    // Calls that wait for their answer: Ollama's clients answer by name and order, OpenAI's dialect by id.
    let mut open: Vec<(String, String)> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let at = format!("messages[{index}]");
        out.push(translate_message(object(message, &at)?, index, &at, &mut open)?);
    }
    let has_words = !out.is_empty();
    body.insert("messages".into(), out.into());
    if let Some(tools) = list(request, "tools", "")?.filter(|tools| !tools.is_empty()) {
        body.insert("tools".into(), tools.into());
    }
    response_format(request, body)?;
    Ok(has_words)
}

fn translate_message(
    fields: &Fields,
    index: usize,
    at: &str,
    open: &mut Vec<(String, String)>,
) -> Result<Value, TranslateFault> {
    let role = required(fields, "role", at)?;
    let content = text(fields, "content", at)?.unwrap_or_default();
    let images = list(fields, "images", at)?.unwrap_or_default();
    let mut message = Map::new();
    message.insert("role".into(), role.into());
    message.insert("content".into(), content_with_images(content, images, at)?);
    if let Some(thinking) = text(fields, "thinking", at)?.filter(|thinking| !thinking.is_empty()) {
        message.insert(REASONING_OUT.into(), thinking.into());
    }
    let mut calls = Vec::new();
    for (nth, call) in list(fields, "tool_calls", at)?.unwrap_or_default().iter().enumerate() {
        let at = format!("{at}.tool_calls[{nth}]");
        let call = object(call, &at)?;
        let function = present(call, "function").ok_or_else(|| wrong(&at, "function", "an object"))?;
        let function = object(function, &format!("{at}.function"))?;
        let name = required(function, "name", &at)?;
        let arguments = match present(function, "arguments") {
            None => "{}".to_owned(),
            Some(object @ Value::Object(_)) => object.to_string(),
            // Some clients keep OpenAI's spelling.
            Some(Value::String(text)) => text.clone(),
            Some(_) => return Err(wrong(&at, "function.arguments", "an object")),
        };
        let id = text(call, "id", &at)?.map_or_else(|| format!("call_{index}_{nth}"), str::to_owned);
        calls.push(function_call(&id, name, &arguments));
        open.push((id, name.to_owned()));
    }
    if !calls.is_empty() {
        if content.is_empty() {
            message.insert("content".into(), Value::Null);
        }
        message.insert("tool_calls".into(), calls.into());
    }
    if role == "tool" {
        let id = answered_call(fields, at, open)?;
        message.insert("tool_call_id".into(), id.into());
    }
    Ok(message.into())
}

/// The id of the call that a tool's message answers: by id, else by name, else the first that waits.
fn answered_call(fields: &Fields, at: &str, open: &mut Vec<(String, String)>) -> Result<String, TranslateFault> {
    let told = text(fields, "tool_call_id", at)?;
    let name = text(fields, "tool_name", at)?.or(text(fields, "name", at)?);
    let found = match (told, name) {
        (Some(id), _) => open.iter().position(|(known, _)| known == id),
        (None, Some(name)) => open.iter().position(|(_, known)| known == name),
        (None, None) => (!open.is_empty()).then_some(0),
    };
    let waiting = found.map(|place| open.remove(place).0);
    Ok(told.map(str::to_owned).or(waiting).unwrap_or_else(|| "call_unknown".to_owned()))
}

/// Text alone, or text and images as parts.
fn content_with_images(content: &str, images: &[Value], at: &str) -> Result<Value, TranslateFault> {
    if images.is_empty() {
        return Ok(content.into());
    }
    let mut parts = Vec::with_capacity(images.len() + 1);
    if !content.is_empty() {
        parts.push(text_part(content));
    }
    for image in images {
        let base64 = image.as_str().ok_or_else(|| wrong(at, "images", "an array of base64 strings"))?;
        parts.push(image_part(&format!("data:{};base64,{base64}", media_type(base64))));
    }
    Ok(parts.into())
}

/// The media type that an image's first bytes tell; Ollama's clients send none.
fn media_type(base64: &str) -> &'static str {
    // The beginnings of the three formats' magic numbers in base64.
    if base64.starts_with("/9j/") {
        "image/jpeg"
    } else if base64.starts_with("UklGR") {
        "image/webp"
    } else {
        "image/png"
    }
}

/// A prompt is a conversation of one message, unless it must reach the model as it is.
fn generate(request: &Fields, body: &mut Fields) -> Result<(Document, bool), TranslateFault> {
    let prompt = text(request, "prompt", "")?.unwrap_or_default();
    let suffix = text(request, "suffix", "")?.filter(|suffix| !suffix.is_empty());
    let images = list(request, "images", "")?.unwrap_or_default();
    let has_words = !prompt.is_empty() || suffix.is_some() || !images.is_empty();
    response_format(request, body)?;
    if flag(request, "raw", "")? == Some(true) || suffix.is_some() {
        body.insert("prompt".into(), prompt.into());
        if let Some(suffix) = suffix {
            body.insert("suffix".into(), suffix.into());
        }
        return Ok((Document::Completion, has_words));
    }
    let mut messages = Vec::new();
    let system = text(request, "system", "")?;
    if has_words {
        if let Some(system) = system.filter(|system| !system.is_empty()) {
            messages.push(json!({"role": "system", "content": system}));
        }
        messages.push(json!({"role": "user", "content": content_with_images(prompt, images, "")?}));
    }
    body.insert("messages".into(), messages.into());
    Ok((Document::Chat, has_words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(call: OllamaCall, request: Value) -> Result<FromOllama, TranslateFault> {
        let Value::Object(fields) = request else { panic!("an object") };
        translate(call, &fields)
    }

    #[test]
    fn a_chat_gets_openais_words_and_keeps_its_options_for_an_ollama_engine() {
        let chat = from(
            OllamaCall::Chat,
            json!({
                "model": "m", "think": "low", "format": {"type": "object"}, "keep_alive": "10m", "truncate": false,
                "options": {"temperature": 0.5, "num_predict": 7, "num_ctx": 8192, "stop": ["x"], "mirostat": 1},
                "messages": [{"role": "user", "content": "look", "images": ["iVBORw0", "/9j/4AA"]}],
            }),
        )
        .expect("translates");
        assert_eq!(
            chat.body,
            json!({
                "model": "m", "keep_alive": "10m",
                "options": {"temperature": 0.5, "num_predict": 7, "num_ctx": 8192, "stop": ["x"], "mirostat": 1},
                "messages": [{"role": "user", "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0"}},
                    {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/4AA"}},
                ]}],
                "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}},
                "temperature": 0.5, "stop": ["x"], "max_tokens": 7,
            })
        );
        assert_eq!(chat.extras.thinking, Some(Thinking::Effort("low".into())));
        let own = json!({"truncate": false});
        assert_eq!(chat.extras.ollama.expect("its own words").fields, *own.as_object().expect("an object"));
    }

    #[test]
    fn tool_calls_without_ids_find_their_answers() {
        let chat = from(
            OllamaCall::Chat,
            json!({"model": "m", "messages": [
                {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [
                    {"function": {"name": "f", "arguments": {"a": 1}}}, {"function": {"name": "g", "arguments": {}}}]},
                {"role": "tool", "tool_name": "g", "content": "2"},
                {"role": "tool", "content": "1"},
            ]}),
        )
        .expect("translates");
        assert_eq!(
            chat.body["messages"],
            json!([
                {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
                    {"id": "call_0_0", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
                    {"id": "call_0_1", "type": "function", "function": {"name": "g", "arguments": "{}"}}]},
                {"role": "tool", "content": "2", "tool_call_id": "call_0_1"},
                {"role": "tool", "content": "1", "tool_call_id": "call_0_0"},
            ])
        );
    }

    #[test]
    fn a_prompt_is_a_message_unless_it_must_stay_as_it_is() {
        let plain = from(OllamaCall::Generate, json!({"model": "m", "system": "be brief", "prompt": "hi"}));
        let plain = plain.expect("translates");
        assert_eq!(plain.route, Document::Chat);
        assert_eq!(
            plain.body["messages"],
            json!([{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}])
        );
        for request in
            [json!({"model": "m", "prompt": "a", "raw": true}), json!({"model": "m", "prompt": "a", "suffix": "b"})]
        {
            let raw = from(OllamaCall::Generate, request).expect("translates");
            assert_eq!((raw.route, &raw.body["prompt"]), (Document::Completion, &json!("a")));
        }
    }

    #[test]
    fn a_request_without_words_loads_or_unloads() {
        for (request, work) in [
            (json!({"model": "m", "messages": []}), Work::Load),
            (json!({"model": "m", "keep_alive": 0}), Work::Unload),
            (json!({"model": "m", "keep_alive": "0s"}), Work::Unload),
            (json!({"model": "m", "keep_alive": 0, "messages": [{"role": "user", "content": "x"}]}), Work::Answer),
        ] {
            assert_eq!(from(OllamaCall::Chat, request).expect("translates").work, work);
        }
    }

    #[test]
    fn wrong_types_name_the_field() {
        for (request, field) in [
            (json!({}), "model"),
            (json!({"model": "m", "messages": "x"}), "messages"),
            (json!({"model": "m", "messages": [{"content": "x"}]}), "messages[0].role"),
            (json!({"model": "m", "messages": [{"role": "user", "content": []}]}), "messages[0].content"),
            (json!({"model": "m", "messages": [{"role": "user", "images": [1]}]}), "messages[0].images"),
            (json!({"model": "m", "options": 1}), "options"),
            (json!({"model": "m", "format": "xml"}), "format"),
            (json!({"model": "m", "think": 1}), "think"),
        ] {
            match from(OllamaCall::Chat, request) {
                Err(TranslateFault::WrongType(name, _)) => assert_eq!(name, field),
                other => panic!("{field}: {other:?}"),
            }
        }
        assert!(from(OllamaCall::Embed, json!({"model": "m", "input": 1})).is_err());
        assert!(from(OllamaCall::Generate, json!({"model": "m", "prompt": 1})).is_err());
    }
}
