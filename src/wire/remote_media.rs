//! Finds where a request names something that an engine would fetch by itself: a URL of an image, a file or a server.
//!
//! Called by `proxy` before a body goes to an engine (SPEC §4.6, §4.11). Must never be quieter than an engine is liberal:
//! keys are compared without case and after their escapes, and a key that stands there twice is looked at twice.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Where in a JSON text a remote reference stands, such as `messages[0].content[1].image_url.url`; `None` when there is
/// none. The text must be JSON already, nested no deeper than `json_scan` allows.
///
/// Text of prompts, arguments of tool calls and schemas may name URLs: nothing fetches those.
#[must_use]
pub fn find(json: &str) -> Option<String> {
    let mut walk = Walk { path: String::new(), found: None };
    let mut deserializer = serde_json::Deserializer::from_str(json);
    // A text that is no JSON was refused before; what was found until then stands.
    let _walked = Value { walk: &mut walk, under: Under::Plain }.deserialize(&mut deserializer);
    walk.found
}

/// Whether a key without escapes can be that of a remote reference: it ends in `url`, `urls` or `uri`, or is one of the others, in
/// any case. Every key of every request is asked, so it is a look at a few bytes.
#[must_use]
pub(super) fn may_name_a_place(key: &[u8]) -> bool {
    let ends = |word: &[u8]| key.len() >= word.len() && key[key.len() - word.len()..].eq_ignore_ascii_case(word);
    match key.last() {
        Some(b'l' | b'L') => ends(b"url"),
        Some(b'i' | b'I') => ends(b"uri"),
        Some(b's' | b'S') => ends(b"urls") || key.eq_ignore_ascii_case(b"images"),
        Some(b'e' | b'E') => key.eq_ignore_ascii_case(b"remote"),
        Some(b't' | b'T') => key.eq_ignore_ascii_case(b"remote_host"),
        _ => false,
    }
}

/// Whether a value names a place to fetch from: it has a scheme other than `data`, or none but a host.
#[must_use]
pub fn is_remote(value: &str) -> bool {
    // URL parsers strip leading control characters and spaces (WHATWG URL, basic URL parser).
    let value = value.trim_start_matches(|c: char| c <= ' ');
    if value.starts_with("//") || value.starts_with("\\\\") {
        return true;
    }
    let Some((scheme, _)) = value.split_once(':') else { return false };
    let is_scheme = scheme.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        // Tabs and line ends inside are stripped as well.
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'\t' | b'\n' | b'\r'));
    is_scheme && !scheme.eq_ignore_ascii_case("data")
}

/// What the key above says about a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Under {
    /// Nothing.
    Plain,
    /// A string here is fetched when it is a URL.
    Fetched,
    /// A string here is a place to connect to, whatever it looks like.
    Place,
    /// Nothing below is fetched: what a model wrote as the arguments of a call.
    Arguments,
    /// The same when it is an object: a tool's input (Anthropic); lists under this name are messages (Responses).
    Input,
}

fn under(key: &str) -> Under {
    let key = key.to_ascii_lowercase();
    match key.as_str() {
        "arguments" => Under::Arguments,
        "input" => Under::Input,
        // vLLM's kv_transfer_params; Ollama's create.
        "remote_host" | "remote_url" | "remote" => Under::Place,
        // Ollama's own: bare base64.
        "images" => Under::Fetched,
        _ if key.ends_with("url") || key.ends_with("uri") || key.ends_with("urls") => Under::Fetched,
        _ => Under::Plain,
    }
}

struct Walk {
    path: String,
    found: Option<String>,
}

struct Value<'a> {
    walk: &'a mut Walk,
    under: Under,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.under == Under::Arguments {
            return IgnoredAny::deserialize_any(deserializer);
        }
        deserializer.deserialize_any(self)
    }
}

/// Skips a value.
trait Skip {
    fn deserialize_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error>;
}

impl Skip for IgnoredAny {
    fn deserialize_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_ignored_any(IgnoredAny).map(|_ignored| ())
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        let remote = match self.under {
            Under::Fetched => is_remote(text),
            Under::Place => !text.trim().is_empty(),
            Under::Plain | Under::Arguments | Under::Input => false,
        };
        if remote && self.walk.found.is_none() {
            self.walk.found = Some(self.walk.path.clone());
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let under = if self.under == Under::Input { Under::Plain } else { self.under };
        let length = self.walk.path.len();
        for index in 0_usize.. {
            self.walk.path.push_str(&format!("[{index}]"));
            let more = items.next_element_seed(Value { walk: &mut *self.walk, under })?;
            self.walk.path.truncate(length);
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        if self.under == Under::Input {
            while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        let length = self.walk.path.len();
        while let Some(key) = fields.next_key::<String>()? {
            if length > 0 {
                self.walk.path.push('.');
            }
            self.walk.path.extend(key.chars().take(80));
            fields.next_value_seed(Value { walk: &mut *self.walk, under: under(&key) })?;
            self.walk.path.truncate(length);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json_body::{BodyFault, JsonBody};
    use proptest::prelude::*;

    #[test]
    fn every_way_to_name_a_remote_thing_is_found_with_its_path() {
        for (json, path) in [
            (
                r#"{"messages":[{"content":[{"type":"text"},{"type":"image_url","image_url":{"url":"http://a/b.png"}}]}]}"#,
                "messages[0].content[1].image_url.url",
            ),
            (r#"{"image_url":"https://a"}"#, "image_url"),
            (r#"{"IMAGE_URL":{"URL":"https://a"}}"#, "IMAGE_URL.URL"),
            (r#"{"im\u0061ge_url":"https://a"}"#, "image_url"),
            (r#"{"source":{"type":"url","url":"https://a"}}"#, "source.url"),
            (
                r#"{"input":[{"content":[{"type":"input_image","image_url":"https://a"}]}]}"#,
                "input[0].content[0].image_url",
            ),
            (r#"{"input":[{"type":"input_file","file_url":"ftp://a"}]}"#, "input[0].file_url"),
            (r#"{"images":["aGk=","http://169.254.169.254/"]}"#, "images[1]"),
            (r#"{"tools":[{"type":"mcp","server_url":"http://127.0.0.1:1"}]}"#, "tools[0].server_url"),
            (r#"{"url":"data:image/png;base64,aGk=","url":"file:///etc/passwd"}"#, "url"),
            (r#"{"url":"file:///etc/passwd","url":"data:image/png;base64,aGk="}"#, "url"),
            (r#"{"url":" \thttp://a"}"#, "url"),
            (r#"{"url":"ht\ntp://a"}"#, "url"),
            (r#"{"url":"//a/b"}"#, "url"),
            (r#"{"kv_transfer_params":{"remote_host":"10.0.0.1"}}"#, "kv_transfer_params.remote_host"),
            (r#"{"Remote_Host":"10.0.0.1"}"#, "Remote_Host"),
            (r#"{"IMAGES":["http://a"]}"#, "IMAGES[0]"),
            (r#"{"image_uri":"http://a"}"#, "image_uri"),
        ] {
            assert_eq!(find(json).as_deref(), Some(path), "{json}");
            let body = JsonBody::parse(json.as_bytes().into()).map(|body| body.may_name_places());
            assert!(matches!(body, Ok(true) | Err(BodyFault::Duplicate(_))), "{json}");
        }
    }

    #[test]
    fn what_nobody_fetches_is_left_alone() {
        for json in [
            r#"{"messages":[{"role":"user","content":"look at https://example.org/a.png"}]}"#,
            r#"{"image_url":{"url":"data:image/png;base64,aGk="}}"#,
            r#"{"image_url":{"url":"DATA:image/png;base64,aGk="}}"#,
            r#"{"images":["/9j/4AAQ","iVBORw0KGgo="]}"#,
            r#"{"tool_calls":[{"function":{"name":"open","arguments":{"url":"https://example.org"}}}]}"#,
            r#"{"content":[{"type":"tool_use","name":"open","input":{"url":"https://example.org"}}]}"#,
            r#"{"parameters":{"properties":{"url":{"type":"string","description":"http://x"}}}}"#,
            r#"{"input":"https://example.org"}"#,
            r#"{"url":null,"uri":3,"image_url":true}"#,
        ] {
            assert_eq!(find(json), None, "{json}");
        }
    }

    #[test]
    fn requests_without_media_are_known_when_they_are_read() {
        let may = |json: &'static str| JsonBody::parse(json.as_bytes().into()).expect("JSON").may_name_places();
        assert!(!may(
            r#"{"messages":[{"role":"user","content":"see http://url.example, \u00e9 \u3042"}],"model":"curl"}"#
        ));
        assert!(may(r#"{"x":{"Url":"data:"}}"#));
        assert!(may(r#"{"x":[[{"\u0075rl":"data:"}]]}"#));
        assert!(may(r#"{"image_URLS":[]}"#));
    }

    proptest! {
        #[test]
        fn no_key_is_looked_for_that_reading_does_not_notice(key in "(im|remote_|server_|x|)(images|url|URLs|uri|Remote|host|input)") {
            prop_assert!(under(&key) == Under::Plain || under(&key) == Under::Input || may_name_a_place(key.as_bytes()));
        }
    }
}
