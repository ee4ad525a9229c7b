//! API prompts in force and how one is put into a request: a system message before the client's own (SPEC §8.1).
//!
//! Pure rendering; the console's preview uses the same function through `operations`.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::engines::inference_route::InferenceRoute;
use crate::types::calendar;
use crate::types::clock::UnixMillis;
use crate::types::ids::KeyId;
use crate::types::prompt::PromptView;
use crate::wire::json_body::{BodyFault, Edit, JsonBody, json_string};

/// The variables of a template.
pub const VARIABLES: &[&str] = &["date", "model", "key_label"];

/// The routes that take a prompt, by name: those whose requests are messages, whatever the client's dialect.
#[must_use]
pub fn routes() -> Vec<&'static str> {
    super::route::names(InferenceRoute::Chat).collect()
}

/// Prompts by route and key.
#[derive(Debug, Clone, Default)]
pub struct PromptTable {
    routes: HashMap<String, RoutePrompts>,
}

/// The prompts of one route.
#[derive(Debug, Clone, Default)]
struct RoutePrompts {
    every_key: Option<String>,
    keys: HashMap<KeyId, String>,
}

/// What a template's variables stand for.
#[derive(Debug, Clone, Copy)]
pub struct PromptVariables<'a> {
    /// `{{date}}`: the local date, as 2026-01-31.
    pub now: UnixMillis,
    /// `{{model}}`: as the client named it.
    pub model: &'a str,
    /// `{{key_label}}`.
    pub key_label: &'a str,
}

impl PromptTable {
    /// A table of the given prompts.
    #[must_use]
    pub fn new(prompts: Vec<PromptView>) -> Self {
        let mut routes: HashMap<String, RoutePrompts> = HashMap::new();
        for PromptView { api_id, text, .. } in prompts {
            let (route, key) = match api_id.split_once('@') {
                Some((route, key)) => (route, Some(key)),
                None => (api_id.as_str(), None),
            };
            let prompts = routes.entry(route.to_owned()).or_default();
            match key.map(KeyId::parse) {
                None => prompts.every_key = Some(text),
                Some(Ok(key)) => {
                    prompts.keys.insert(key, text);
                }
                // Refused when it is saved; an older version may have stored it.
                Some(Err(error)) => tracing::warn!(%error, route, "a stored prompt is for no key"),
            }
        }
        Self { routes }
    }

    /// The template for a route and key: the key's own before the route's.
    #[must_use]
    pub fn find(&self, route: &str, key: KeyId) -> Option<&str> {
        if self.routes.is_empty() {
            return None;
        }
        let prompts = self.routes.get(route)?;
        prompts.keys.get(&key).or(prompts.every_key.as_ref()).map(String::as_str)
    }
}

/// The first variable of a template that FLM does not know.
#[must_use]
pub fn unknown_variable(template: &str) -> Option<&str> {
    let mut rest = template;
    while let Some((_, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}")?;
        if !VARIABLES.contains(&name.trim()) {
            return Some(name.trim());
        }
        rest = after;
    }
    None
}

/// Fills in the variables; each value once, so that a value never acts as a template.
#[must_use]
pub fn render(template: &str, variables: PromptVariables<'_>) -> String {
    let mut out = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some(start) = rest.find("{{") {
        let (before, after) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = after.find("}}") else {
            rest = after;
            break;
        };
        match after[2..end].trim() {
            "date" => out.push_str(&calendar::date(variables.now)),
            "model" => out.push_str(variables.model),
            "key_label" => out.push_str(variables.key_label),
            // Of a version that was saved before variables were checked.
            _ => out.push_str(&after[..end + 2]),
        }
        rest = &after[end + 2..];
    }
    out.push_str(rest);
    out
}

/// The edit that places a system message before the client's own messages.
pub(super) fn injection(body: &JsonBody, text: &str) -> Result<Edit<'static>, BodyFault> {
    let message = format!("{{\"role\":\"system\",\"content\":{}}}", json_string(text));
    let raw = body.raw("messages").unwrap_or("[]").trim();
    let Some(inner) = raw.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        return Err(BodyFault::WrongType("messages".to_owned(), "an array of messages"));
    };
    let comma = if inner.trim().is_empty() { "" } else { "," };
    Ok(Edit::Set("messages", Cow::Owned(format!("[{message}{comma}{inner}]"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> PromptVariables<'static> {
        PromptVariables { now: UnixMillis(1_800_000_000_000), model: "{{key_label}}", key_label: "laptop" }
    }

    #[test]
    fn variables_are_filled_in_once_and_unknown_ones_kept() {
        assert_eq!(render("Hi {{ key_label }}, {{model}}.", variables()), "Hi laptop, {{key_label}}.");
        assert_eq!(render("{{unknown}} {{", variables()), "{{unknown}} {{");
        assert!(render("{{date}}", variables()).starts_with("2027-01-1"));
    }

    #[test]
    fn every_variable_is_known_and_filled_in_and_the_first_unknown_one_is_named() {
        for name in VARIABLES {
            let template = format!("a {{{{ {name} }}}} b");
            assert_eq!(unknown_variable(&template), None);
            assert_ne!(render(&template, variables()), template);
        }
        assert_eq!(unknown_variable("{{date}} {{ user }} {{x}}"), Some("user"));
        assert_eq!(unknown_variable("{{}}"), Some(""));
        assert_eq!(unknown_variable("{{date}} {{ and { } no end"), None);
    }

    #[test]
    fn the_message_stands_before_the_clients_own() {
        for (messages, expected) in [
            ("[]", r#"[{"role":"system","content":"a\"b"}]"#),
            (r#"[ {"role":"user"}]"#, r#"[{"role":"system","content":"a\"b"}, {"role":"user"}]"#),
        ] {
            let body = JsonBody::parse(format!("{{\"messages\":{messages}}}").into()).expect("parses");
            let edit = injection(&body, "a\"b").expect("an array");
            assert_eq!(body.edited(&[edit]), format!("{{\"messages\":{expected}}}"));
        }
        let body = JsonBody::parse(r#"{"messages":"x"}"#.into()).expect("parses");
        assert!(injection(&body, "x").is_err());
    }

    #[test]
    fn a_keys_own_prompt_comes_before_the_routes() {
        let prompt = |api_id: &str, text: &str| PromptView {
            api_id: api_id.into(),
            text: text.into(),
            version: 1,
            updated: UnixMillis(0),
        };
        let table =
            PromptTable::new(vec![prompt("chat.completions", "all"), prompt("chat.completions@Ab12Cd34", "one")]);
        assert_eq!(table.find("chat.completions", KeyId::parse("Ab12Cd34").expect("id")), Some("one"));
        assert_eq!(table.find("chat.completions", KeyId::parse("Xb12Cd34").expect("id")), Some("all"));
        assert_eq!(table.find("embeddings", KeyId::parse("Xb12Cd34").expect("id")), None);
    }
}
