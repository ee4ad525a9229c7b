//! A JSON request body that is read where routing needs it and passed on byte for byte where it does not.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

/// Nesting that is accepted, arrays and objects together (SECURITY.md, attack case 28).
pub const MAX_DEPTH: usize = 64;

/// A JSON object with the place of each top-level field.
#[derive(Debug, Clone)]
pub struct JsonBody {
    bytes: Bytes,
    fields: Vec<Field>,
}

#[derive(Debug, Clone)]
struct Field {
    key: String,
    /// Where the raw value stands in `bytes`.
    value: Range<usize>,
}

/// Why a body is not acceptable: told to the client with 400 `invalid_request`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// Not JSON, or not UTF-8.
    #[error("the body is not valid JSON: {0}")]
    Malformed(String),
    /// JSON, but no object.
    #[error("the body must be a JSON object")]
    NotAnObject,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("the body is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A top-level field stands there twice: guard and engine could pick different ones.
    #[error("the field {0:?} stands there twice")]
    Duplicate(String),
    /// A field has the wrong type; the second part says what is expected.
    #[error("the field {0:?} must be {1}")]
    WrongType(String, &'static str),
}

/// A change to one top-level field.
#[derive(Debug, Clone)]
pub enum Edit<'a> {
    /// Replaces the value, or adds the field; the text is JSON.
    Set(&'a str, Cow<'a, str>),
    /// Removes the field.
    Remove(&'a str),
}

impl JsonBody {
    /// Parses a body.
    pub fn parse(bytes: Bytes) -> Result<Self, BodyFault> {
        let _ = bytes;
        todo!()
    }
    /// The raw JSON of a top-level field.
    pub fn raw(&self, key: &str) -> Option<&str> {
        let _ = key;
        todo!()
    }
    /// A string field; `None` when absent or null.
    pub fn string(&self, key: &'static str) -> Result<Option<Cow<'_, str>>, BodyFault> {
        let _ = key;
        todo!()
    }
    /// A boolean field; `None` when absent or null.
    pub fn boolean(&self, key: &'static str) -> Result<Option<bool>, BodyFault> {
        let _ = key;
        todo!()
    }
    /// The body as it came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// The body with the edits applied and every other byte kept.
    pub fn edited(&self, edits: &[Edit<'_>]) -> Bytes {
        let _ = (edits, &self.fields, |f: &Field| (f.key.clone(), f.value.clone()));
        todo!()
    }
}
