//! A guess at how many tokens a text has, for engines that cannot count or do not tell.
//!
//! Called by `proxy` for `/v1/messages/count_tokens`, which says that it is a guess, and by `engines` for what an engine leaves out
//! of its count, which is marked as estimated.

use serde_json::Value;

/// Tokens that an image costs on the vision models in use: between 256 (small tiles) and some 1500 (Anthropic's own
/// largest); the middle.
const IMAGE: u64 = 800;
/// Tokens that a message's role and borders cost in common chat templates (`ChatML` has 4 to 5).
const MESSAGE: u64 = 4;

/// The prompt of a chat request in OpenAI's shape: four ASCII letters or one other character a token, which is what
/// byte-pair vocabularies come to on English text and on Chinese or Japanese.
#[must_use]
pub fn prompt_tokens(chat: &Value) -> u64 {
    let messages = chat.get("messages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let spoken: u64 = messages.iter().map(|message| MESSAGE + value_tokens(message)).sum();
    spoken + chat.get("tools").map_or(0, value_tokens)
}

/// Prompts of a text completion without the first: a text, or the tokens themselves.
#[must_use]
pub fn prompts_beyond_the_first(prompts: &Value) -> u64 {
    let list = prompts.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().skip(1).map(value_tokens).sum()
}

/// Answers of a whole document without the first, each of which is at least one token.
#[must_use]
pub fn answers_beyond_the_first(document: &Value) -> u64 {
    let choices = document.get("choices").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let said = |choice: &Value| choice.get("message").or_else(|| choice.get("text")).map_or(0, value_tokens);
    choices.iter().skip(1).map(|choice| said(choice).max(1)).sum()
}

fn value_tokens(value: &Value) -> u64 {
    match value {
        Value::String(text) => text_tokens(text),
        Value::Array(items) => items.iter().map(value_tokens).sum(),
        Value::Object(fields) if fields.contains_key("image_url") => IMAGE,
        Value::Object(fields) => {
            let own = fields.iter().filter(|(name, _)| !matches!(name.as_str(), "role" | "type"));
            own.map(|(name, value)| if name == "content" { 0 } else { text_tokens(name) } + value_tokens(value)).sum()
        }
        Value::Number(_) | Value::Bool(_) => 1,
        Value::Null => 0,
    }
}

fn text_tokens(text: &str) -> u64 {
    let ascii = text.bytes().filter(u8::is_ascii).count() as u64;
    let others = text.chars().filter(|character| !character.is_ascii()).count() as u64;
    ascii.div_ceil(4) + others
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_images_and_tools_count() {
        let with = |content: Value| prompt_tokens(&json!({"messages": [{"role": "user", "content": content}]}));
        assert_eq!(with(json!("twelve chars")), MESSAGE + 3);
        assert_eq!(with(json!("日本語")), MESSAGE + 3);
        let image = json!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAAAAAAAAAAAAAA"}}]);
        assert_eq!(with(image), MESSAGE + IMAGE);
        assert!(prompt_tokens(&json!({"messages": [], "tools": [{"function": {"name": "get_weather"}}]})) > 2);
        assert_eq!(prompt_tokens(&json!({})), 0);
    }

    #[test]
    fn what_comes_after_the_first_counts_and_the_first_does_not() {
        assert_eq!(prompts_beyond_the_first(&json!(["not counted", "twelve chars", [1, 2, 3, 4]])), 3 + 4);
        assert_eq!(prompts_beyond_the_first(&json!("one prompt")), 0);
        let choices = |list: Value| answers_beyond_the_first(&json!({"choices": list}));
        assert_eq!(choices(json!([{"text": "not counted"}, {"text": "twelve chars"}, {"text": ""}])), 3 + 1);
        let message = json!({"role": "assistant", "content": "twelve chars"});
        assert_eq!(choices(json!([{"message": message}, {"message": message}])), 3);
        assert_eq!(answers_beyond_the_first(&json!({})), 0);
    }
}
