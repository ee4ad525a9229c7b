//! OpenAI's shapes: usage, error documents in all the dialects that engines speak, whole answers, reasoning fields.
//!
//! Called by [`crate::wire::openai_tap`] and `engines`. Must never change a byte of an answer that needs no change.

use std::fmt::Write as _;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use serde_json::{Map, Value};

use super::json_scan::{self, ScanFault};
use crate::types::request::{TokenSource, TokenUsage};

/// Longest message of an engine that is passed on, in characters. A traceback of a Python server is longer.
const MESSAGE_LIMIT: usize = 2000;

/// The field in which reasoning goes to clients (ENGINES.md §4, Reasoning).
pub const REASONING_OUT: &str = "reasoning_content";

/// The names that engines give to reasoning.
pub const REASONING_IN: [&str; 3] = [REASONING_OUT, "reasoning", "thinking"];

/// Usage as engines tell it. `A` is what is read of the answer's details: for most readers nothing, so that no shape of
/// theirs is an error.
#[derive(Debug, Deserialize)]
pub(super) struct RawUsage<A = IgnoredAny> {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    /// What OpenAI's images call the first.
    input_tokens: Option<u64>,
    /// And the second.
    output_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    pub(super) completion_tokens_details: Option<A>,
}

#[derive(Debug, Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

impl<A> RawUsage<A> {
    pub(super) fn read(&self) -> TokenUsage {
        TokenUsage {
            prompt: self.prompt_tokens.or(self.input_tokens).unwrap_or(0),
            completion: self.completion_tokens.or(self.output_tokens).unwrap_or(0),
            cached: self.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens).unwrap_or(0),
            source: TokenSource::Engine,
        }
    }
}

/// What a chunk with usage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageChunk {
    /// Only usage, `choices` is empty: the client gets it only when it asked.
    Alone(TokenUsage),
    /// Usage beside content (vLLM's `continuous_usage_stats`, LM Studio's last chunk).
    Beside(TokenUsage),
    /// `usage` is null or absent.
    None,
}

/// Reads usage from a chunk; `None` when it is not JSON of a chunk.
#[must_use]
pub fn usage_of_chunk(chunk: &[u8]) -> Option<UsageChunk> {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(default)]
        usage: Option<RawUsage>,
        #[serde(default)]
        choices: Option<Vec<IgnoredAny>>,
    }
    let probe: Probe = serde_json::from_slice(chunk).ok()?;
    let Some(usage) = probe.usage else { return Some(UsageChunk::None) };
    let usage = usage.read();
    let alone = probe.choices.is_none_or(|choices| choices.is_empty());
    Some(if alone { UsageChunk::Alone(usage) } else { UsageChunk::Beside(usage) })
}

/// An engine's error in whatever shape it came (ENGINES.md §5).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorDocument {
    /// The engine's words, cut to 2000 characters; outside text. Empty when it said nothing.
    pub message: String,
    /// The engine's `type`.
    pub kind: Option<String>,
    /// The engine's `code`, numbers as text.
    pub code: Option<String>,
    /// The engine's `param`.
    pub param: Option<String>,
}

impl ErrorDocument {
    /// Reads an error body: OpenAI's object, a bare string, `FastAPI`'s `detail`, or plain text.
    #[must_use]
    pub fn read(body: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(body) {
            Ok(value) => Self::from_value(&value).unwrap_or_else(|| Self::plain(&String::from_utf8_lossy(body))),
            Err(_not_json) => Self::plain(&String::from_utf8_lossy(body)),
        }
    }

    /// The error in a document that should not be one (a chunk of a stream, a 200 answer); `None` when there is none.
    #[must_use]
    pub fn in_answer(body: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let told = value.get("error").is_some_and(|error| match error {
            Value::Null | Value::Bool(false) => false,
            Value::String(text) => !text.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            _ => true,
        });
        let is_error = told || value.get("object").and_then(Value::as_str) == Some("error");
        is_error.then(|| Self::from_value(&value).unwrap_or_default())
    }

    fn plain(text: &str) -> Self {
        Self { message: cut(text.trim()), ..Self::default() }
    }

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::plain(text)),
            Value::Object(fields) => match fields.get("error") {
                Some(Value::String(text)) => Some(Self { code: scalar(fields.get("code")), ..Self::plain(text) }),
                Some(Value::Object(inner)) => Some(Self::from_fields(inner)),
                _ if fields.contains_key("message") => Some(Self::from_fields(fields)),
                _ => fields.get("detail").map(|detail| Self::plain(&detail_text(detail))),
            },
            _ => None,
        }
    }

    fn from_fields(fields: &Map<String, Value>) -> Self {
        let message = fields.get("message").map(detail_text).unwrap_or_default();
        Self {
            message: cut(&message),
            kind: scalar(fields.get("type")),
            code: scalar(fields.get("code")),
            param: scalar(fields.get("param")),
        }
    }
}

/// `FastAPI`'s `detail` is a string or a list of `{loc, msg}`.
fn detail_text(detail: &Value) -> String {
    match detail {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let mut out = String::new();
            for item in items.iter().take(5) {
                let place = item.get("loc").and_then(Value::as_array).map(|loc| {
                    loc.iter().map(|part| scalar(Some(part)).unwrap_or_default()).collect::<Vec<_>>().join(".")
                });
                let said = item.get("msg").and_then(Value::as_str).map_or_else(|| item.to_string(), str::to_owned);
                let separator = if out.is_empty() { "" } else { "; " };
                // Writing to a String cannot fail.
                let _infallible = match place {
                    Some(place) => write!(out, "{separator}{place}: {said}"),
                    None => write!(out, "{separator}{said}"),
                };
            }
            out
        }
        other => other.to_string(),
    }
}

fn scalar(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) if !text.is_empty() => Some(cut(text)),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MESSAGE_LIMIT).collect()
}

/// Which document a route answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// `choices` with `message`.
    Chat,
    /// `choices` with `text`.
    Completion,
    /// `data` with `embedding`.
    Embeddings,
    /// `results` with `relevance_score`.
    Rerank,
    /// `data` with `b64_json` or `url`.
    Images,
}

/// Why a whole answer is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WholeFault {
    /// An error document under status 200 (LM Studio does that).
    #[error("{}", .0.message)]
    Error(ErrorDocument),
    /// Not the document that was asked for.
    #[error("{0}")]
    WrongShape(String),
}

/// Checks a whole answer, reads its usage, and adds [`REASONING_OUT`] where the engine uses another name.
/// Every other answer is given back byte for byte.
pub fn read_whole(document: Document, body: Bytes) -> Result<(Bytes, Option<TokenUsage>), WholeFault> {
    let wrong = |reason: String| WholeFault::WrongShape(reason);
    let no_document =
        |fault: &dyn std::fmt::Display| wrong(format!("it answered with something that is no such document: {fault}"));
    let text = std::str::from_utf8(&body).map_err(|fault| no_document(&fault))?;
    let list_name = match document {
        Document::Chat | Document::Completion => "choices",
        Document::Embeddings | Document::Images => "data",
        Document::Rerank => "results",
    };
    let (mut error, mut usage, mut list) = ("null", "null", "null");
    json_scan::fields::<ScanFault>(text.as_bytes(), |field| {
        let value = &text[field.value];
        match &text[field.key] {
            "error" => error = value,
            "usage" => usage = value,
            name if name == list_name => list = value,
            _ => {}
        }
        Ok(())
    })
    .map_err(|fault| no_document(&fault))?;
    if error != "null"
        && let Some(error) = ErrorDocument::in_answer(&body)
    {
        return Err(WholeFault::Error(error));
    }
    if !list.starts_with('[') {
        return Err(wrong(format!("its answer has no list {list_name:?}")));
    }
    let usage = if let Some(usage) = plain_usage(usage) {
        Some(usage)
    } else {
        let usage: Option<RawUsage> = serde_json::from_str(usage).map_err(|fault| no_document(&fault))?;
        usage.as_ref().map(RawUsage::read)
    };
    let body = if document == Document::Chat { with_reasoning(&body, "message").unwrap_or(body) } else { body };
    Ok((body, usage))
}

/// Reads usage as most engines write it, under the names of OpenAI's chats. `None` for every other, which takes the longer way.
fn plain_usage(usage: &str) -> Option<TokenUsage> {
    let names = ["prompt_tokens", "completion_tokens", "prompt_tokens_details", "input_tokens", "output_tokens"];
    let [prompt, completion, details, None, None] = raw_fields(usage, names)? else { return None };
    let count = |raw: Option<&str>| raw.map_or(Some(0), |raw| raw.parse().ok());
    let cached = match details {
        None | Some("null") => 0,
        Some(details) => {
            let [cached] = raw_fields(details, ["cached_tokens"])?;
            count(cached)?
        }
    };
    Some(TokenUsage { prompt: count(prompt)?, completion: count(completion)?, cached, source: TokenSource::Engine })
}

/// Fields of an object, as they are written. `None` when the text is none, or one stands there twice, or a key has escapes.
fn raw_fields<'a, const N: usize>(object: &'a str, names: [&str; N]) -> Option<[Option<&'a str>; N]> {
    let mut found = [None; N];
    let read = json_scan::fields::<ScanFault>(object.as_bytes(), |field| {
        let strange = ScanFault::Syntax { at: field.key.start, expected: "a plain key, once" };
        if field.escaped {
            return Err(strange);
        }
        let Some(place) = names.iter().position(|name| *name == &object[field.key.clone()]) else { return Ok(()) };
        if found[place].replace(&object[field.value]).is_some() { Err(strange) } else { Ok(()) }
    });
    read.ok().map(|()| found)
}

/// Whether a JSON text may hold reasoning under a name other than [`REASONING_OUT`]. A quote inside a string is
/// escaped, so this finds real keys (and whole-string values) only.
#[must_use]
pub fn may_hold_foreign_reasoning(json: &[u8]) -> bool {
    REASONING_KEY.find(json).is_some() || THINKING_KEY.find(json).is_some()
}

static REASONING_KEY: std::sync::LazyLock<memchr::memmem::Finder<'static>> =
    std::sync::LazyLock::new(|| memchr::memmem::Finder::new(b"\"reasoning\""));
static THINKING_KEY: std::sync::LazyLock<memchr::memmem::Finder<'static>> =
    std::sync::LazyLock::new(|| memchr::memmem::Finder::new(b"\"thinking\""));

/// Adds [`REASONING_OUT`] to each choice whose `part` (`message` or `delta`) has reasoning under another name only.
/// `None` when nothing needs to change.
#[must_use]
pub fn with_reasoning(json: &[u8], part: &str) -> Option<Bytes> {
    if !may_hold_foreign_reasoning(json) {
        return None;
    }
    if let Some(chunk) = spliced_reasoning(json) {
        return Some(chunk);
    }
    let mut value: Value = serde_json::from_slice(json).ok()?;
    let mut changed = false;
    for choice in value.get_mut("choices")?.as_array_mut()? {
        if let Some(Value::Object(fields)) = choice.get_mut(part) {
            changed |= add_reasoning(fields);
        }
    }
    changed.then(|| serde_json::to_vec(&value).map(Bytes::from).ok()).flatten()
}

/// The common case without parsing: one delta that begins with `reasoning`, as vLLM writes it. A model that thinks
/// sends thousands of these.
fn spliced_reasoning(chunk: &[u8]) -> Option<Bytes> {
    let mut found = DELTA_REASONING.find_iter(chunk);
    let (at, None) = (found.next()?, found.next()) else { return None };
    let others = REASONING_KEY.find_iter(chunk).count() > 1 || THINKING_KEY.find(chunk).is_some();
    if others || memchr::memmem::find(chunk, b"\"reasoning_content\"").is_some() {
        return None;
    }
    let start = at + DELTA_REASONING.needle().len();
    let mut end = start;
    loop {
        end += memchr::memchr2(b'"', b'\\', chunk.get(end..)?)?;
        if chunk[end] == b'"' {
            break;
        }
        end += 2;
    }
    let text = &chunk[start..end];
    let mut out = Vec::with_capacity(chunk.len() + text.len() + 24);
    out.extend_from_slice(&chunk[..=end]);
    out.extend_from_slice(b",\"reasoning_content\":\"");
    out.extend_from_slice(text);
    out.extend_from_slice(&chunk[end..]);
    Some(Bytes::from(out))
}

static DELTA_REASONING: std::sync::LazyLock<memchr::memmem::Finder<'static>> =
    std::sync::LazyLock::new(|| memchr::memmem::Finder::new(b"\"delta\":{\"reasoning\":\""));

/// Adds [`REASONING_OUT`] to assistant messages of a request that use another name, so that every engine
/// understands them. `None` when nothing needs to change.
#[must_use]
pub fn messages_with_reasoning(messages: &str) -> Option<String> {
    if !may_hold_foreign_reasoning(messages.as_bytes()) {
        return None;
    }
    let mut list: Vec<Value> = serde_json::from_str(messages).ok()?;
    let mut changed = false;
    for message in &mut list {
        if let Value::Object(fields) = message {
            changed |= add_reasoning(fields);
        }
    }
    changed.then(|| serde_json::to_string(&list).ok()).flatten()
}

fn add_reasoning(fields: &mut Map<String, Value>) -> bool {
    if fields.get(REASONING_OUT).is_some_and(Value::is_string) {
        return false;
    }
    let found = REASONING_IN.iter().find_map(|name| fields.get(*name).filter(|value| value.is_string()).cloned());
    let Some(text) = found else { return false };
    fields.insert(REASONING_OUT.to_owned(), text);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engines_error_shape_is_read() {
        let read = |text: &str| {
            let document = ErrorDocument::read(text.as_bytes());
            (document.message, document.kind, document.code, document.param)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            read(r#"{"error":{"code":400,"message":"too long","type":"exceed_context_size_error"}}"#),
            ("too long".into(), some("exceed_context_size_error"), some("400"), None)
        );
        assert_eq!(read(r#"{"error":"model 'x' not found"}"#).0, "model 'x' not found");
        assert_eq!(read(r#"{"detail":"Not Found"}"#).0, "Not Found");
        assert_eq!(read(r#"{"detail":[{"loc":["body","n"],"msg":"bad"}]}"#).0, "body.n: bad");
        assert_eq!(read(r#"{"object":"error","message":"old","code":40301}"#).2, some("40301"));
        assert_eq!(read(r#"{"type":"error","error":{"type":"t","message":"m"}}"#).1, some("t"));
        assert_eq!(read("Internal Server Error\n").0, "Internal Server Error");
        assert_eq!(read("").0, "");
    }

    #[test]
    fn an_answer_with_a_null_error_is_no_error() {
        assert_eq!(ErrorDocument::in_answer(br#"{"error":null,"choices":[]}"#), None);
        assert!(ErrorDocument::in_answer(br#"{"error":"Unexpected endpoint or method. (GET /x)"}"#).is_some());
    }

    #[test]
    fn a_whole_answer_is_kept_byte_for_byte_and_its_usage_read() {
        let body = Bytes::from_static(br#"{ "choices":[{"message":{"content":"a"}}], "usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}} }"#);
        let (out, usage) = read_whole(Document::Chat, body.clone()).expect("an answer");
        assert_eq!(out, body);
        assert_eq!(usage, Some(TokenUsage { prompt: 3, completion: 2, cached: 1, source: TokenSource::Engine }));
    }

    #[test]
    fn usage_read_the_short_way_is_what_the_long_way_reads() {
        for (usage, short) in [
            (r#"{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}"#, true),
            (r#"{"completion_tokens":2}"#, true),
            ("{}", true),
            (r#"{ "prompt_tokens" : 3 , "prompt_tokens_details" : { "cached_tokens" : 1 , "x" : [] } }"#, true),
            (
                r#"{"prompt_tokens":3,"prompt_tokens_details":null,"completion_tokens_details":{"reasoning_tokens":7}}"#,
                true,
            ),
            (r#"{"prompt_tokens":3,"prompt_tokens_details":{}}"#, true),
            (r#"{"input_tokens":3,"output_tokens":2}"#, false),
            (r#"{"prompt_tokens":null,"completion_tokens":2}"#, false),
            (r#"{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":null}}"#, false),
            (r#"{"prompt\u005ftokens":3}"#, false),
            (r#"{"prompt_tokens":3,"prompt_tokens":4}"#, false),
            (r#"{"prompt_tokens":"3"}"#, false),
            (r#"{"prompt_tokens":-3}"#, false),
            (r#"{"prompt_tokens":3.5}"#, false),
            ("null", false),
            ("[]", false),
        ] {
            let long = serde_json::from_str::<RawUsage>(usage).ok().map(|usage| usage.read());
            let read = plain_usage(usage);
            assert_eq!(read.is_some(), short, "{usage}");
            assert!(read.is_none() || read == long, "{usage}");
        }
    }

    #[test]
    fn reasoning_gets_its_common_name_and_keeps_the_engines() {
        let body = Bytes::from_static(br#"{"choices":[{"message":{"reasoning":"because","content":"a"}}]}"#);
        let (out, _) = read_whole(Document::Chat, body).expect("an answer");
        assert_eq!(
            std::str::from_utf8(&out).expect("text"),
            r#"{"choices":[{"message":{"reasoning":"because","content":"a","reasoning_content":"because"}}]}"#
        );
    }

    #[test]
    fn splicing_reasoning_into_a_chunk_is_the_same_as_parsing_it() {
        for text in ["", "a", "\\\"", "\\\\", "tab\\t \\\"reasoning\\\"", "é\\u00e9"] {
            let chunk = format!(r#"{{"choices":[{{"delta":{{"reasoning":"{text}"}},"finish_reason":null}}],"x":1}}"#);
            let spaced = chunk.replacen(r#""delta":{"#, r#""delta": {"#, 1);
            let spliced = spliced_reasoning(chunk.as_bytes()).expect("spliced");
            assert_eq!(spliced_reasoning(spaced.as_bytes()), None);
            let parsed = with_reasoning(spaced.as_bytes(), "delta").expect("changed");
            let value = |json: &[u8]| serde_json::from_slice::<Value>(json).expect("json");
            assert_eq!(value(&spliced), value(&parsed), "{text}");
        }
        let cut = br#"{"choices":[{"delta":{"reasoning":"a\"#;
        assert_eq!(spliced_reasoning(cut), None);
    }

    #[test]
    fn an_error_under_status_200_is_a_fault() {
        let body = Bytes::from_static(br#"{"error":"Unexpected endpoint or method."}"#);
        assert!(matches!(read_whole(Document::Chat, body), Err(WholeFault::Error(_))));
        let page = Bytes::from_static(b"<html>");
        assert!(matches!(read_whole(Document::Chat, page), Err(WholeFault::WrongShape(_))));
        let empty = Bytes::from_static(b"{}");
        assert!(matches!(read_whole(Document::Embeddings, empty), Err(WholeFault::WrongShape(_))));
    }
}
