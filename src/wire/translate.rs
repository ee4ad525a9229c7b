//! What all translators of requests share: why a request cannot be translated, and how JSON fields are read with the
//! field's path in the complaint.
//!
//! Called by the request translators of this room. Must never drop a field silently: what has no word in the other
//! dialect is named.

use serde_json::{Map, Value};

/// Why a request cannot be put into another dialect's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TranslateFault {
    /// JSON by its grammar, but not readable as values: half a surrogate pair, a number beyond 64 bits.
    #[error("{0}")]
    Unreadable(String),
    /// A field has the wrong type; the second part completes "must be …".
    #[error("the field {0:?} must be {1}")]
    WrongType(String, &'static str),
    /// The field asks for something that cannot be done.
    #[error("{message}")]
    Unsupported {
        /// The field.
        param: String,
        /// Why, and what to do.
        message: String,
    },
}

impl TranslateFault {
    /// A field that asks for what cannot be done.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Unsupported { param: param.into(), message: message.into() }
    }
}

/// A JSON object.
pub(crate) type Fields = Map<String, Value>;

/// A field that is there and not null.
pub(crate) fn present<'a>(fields: &'a Fields, key: &str) -> Option<&'a Value> {
    fields.get(key).filter(|value| !value.is_null())
}

/// A string field; `None` when absent or null.
pub(crate) fn text<'a>(fields: &'a Fields, key: &str, at: &str) -> Result<Option<&'a str>, TranslateFault> {
    match present(fields, key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(at, key, "a string")),
    }
}

/// A string field that must be there.
pub(crate) fn required<'a>(fields: &'a Fields, key: &str, at: &str) -> Result<&'a str, TranslateFault> {
    text(fields, key, at)?.ok_or_else(|| wrong(at, key, "a string"))
}

/// An array field; `None` when absent or null.
pub(crate) fn list<'a>(fields: &'a Fields, key: &str, at: &str) -> Result<Option<&'a [Value]>, TranslateFault> {
    match present(fields, key) {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items)),
        Some(_) => Err(wrong(at, key, "an array")),
    }
}

/// A boolean field; `None` when absent or null.
pub(crate) fn flag(fields: &Fields, key: &str, at: &str) -> Result<Option<bool>, TranslateFault> {
    match present(fields, key) {
        None => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(wrong(at, key, "true or false")),
    }
}

/// A field that is a whole number from 0 up; `None` when absent or null.
pub(crate) fn count(fields: &Fields, key: &str, at: &str) -> Result<Option<u64>, TranslateFault> {
    match present(fields, key) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| wrong(at, key, "a whole number from 0 up")),
    }
}

/// The object that an item of a list must be.
pub(crate) fn object<'a>(value: &'a Value, at: &str) -> Result<&'a Fields, TranslateFault> {
    value.as_object().ok_or_else(|| TranslateFault::WrongType(at.to_owned(), "an object"))
}

/// A complaint about `key` inside `at` (empty at the top).
pub(crate) fn wrong(at: &str, key: &str, expected: &'static str) -> TranslateFault {
    TranslateFault::WrongType(path(at, key), expected)
}

/// `messages[0].content`, or `messages` at the top.
pub(crate) fn path(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}
