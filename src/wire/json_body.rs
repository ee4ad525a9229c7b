//! A JSON request body that is read where routing needs it and passed on byte for byte where it does not.
//!
//! Called by `proxy` (body stage) and by the adapters of `engines`.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Deserializer as _;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde_json::value::RawValue;

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
    /// The key, unescaped.
    key: String,
    /// Where key and value stand in `bytes`, from the key's quote to the value's end.
    entry: Range<usize>,
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
    ///
    /// # Errors
    /// See [`BodyFault`].
    pub fn parse(bytes: Bytes) -> Result<Self, BodyFault> {
        let text = std::str::from_utf8(&bytes)
            .map_err(|error| BodyFault::Malformed(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
        // Before serde_json: its raw values are skipped without a limit of depth.
        check_depth(text.as_bytes())?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let found = deserializer.deserialize_map(FieldsVisitor).map_err(|error| {
            if error.is_data() && !text.trim_start().starts_with('{') {
                BodyFault::NotAnObject
            } else {
                BodyFault::Malformed(error.to_string())
            }
        })?;
        deserializer.end().map_err(|error| BodyFault::Malformed(error.to_string()))?;
        let base = text.as_ptr() as usize;
        let mut fields: Vec<Field> = Vec::with_capacity(found.len());
        let mut last_end = text.find('{').map_or(0, |at| at + 1);
        for (key, raw) in found {
            let start = raw.get().as_ptr() as usize - base;
            let value = start..start + raw.get().len();
            // Between two entries stand only a comma, white space and the key itself.
            let entry_start = last_end + memchr::memchr(b'"', &bytes[last_end..value.start]).unwrap_or(0);
            last_end = value.end;
            if fields.iter().any(|field| field.key == key) {
                return Err(BodyFault::Duplicate(key.chars().take(80).collect()));
            }
            fields.push(Field { key: key.into_owned(), entry: entry_start..value.end, value });
        }
        Ok(Self { bytes, fields })
    }

    /// The raw JSON of a top-level field.
    #[must_use]
    pub fn raw(&self, key: &str) -> Option<&str> {
        let field = self.fields.iter().find(|field| field.key == key)?;
        // The whole was checked to be UTF-8, and values begin and end at ASCII.
        std::str::from_utf8(&self.bytes[field.value.clone()]).ok()
    }

    /// A string field; `None` when absent or null.
    pub fn string(&self, key: &'static str) -> Result<Option<Cow<'_, str>>, BodyFault> {
        let Some(raw) = self.raw(key) else { return Ok(None) };
        if raw == "null" {
            return Ok(None);
        }
        // The common case has no escapes and borrows.
        if let Some(plain) = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'))
            && memchr::memchr(b'\\', plain.as_bytes()).is_none()
        {
            return Ok(Some(Cow::Borrowed(plain)));
        }
        serde_json::from_str::<String>(raw)
            .map(|text| Some(Cow::Owned(text)))
            .map_err(|_| BodyFault::WrongType(key.to_owned(), "a string"))
    }

    /// A boolean field; `None` when absent or null.
    pub fn boolean(&self, key: &'static str) -> Result<Option<bool>, BodyFault> {
        match self.raw(key) {
            None | Some("null") => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(BodyFault::WrongType(key.to_owned(), "true or false")),
        }
    }

    /// A field of any type; `None` when absent or null. `expected` completes "must be …".
    pub fn value<T: DeserializeOwned>(
        &self,
        key: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, BodyFault> {
        match self.raw(key) {
            None | Some("null") => Ok(None),
            Some(raw) => {
                serde_json::from_str(raw).map(Some).map_err(|_| BodyFault::WrongType(key.to_owned(), expected))
            }
        }
    }

    /// The names of all top-level fields, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.key.as_str())
    }

    /// The body as it came.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The body with the edits applied; every other field is kept byte for byte, in order.
    #[must_use]
    pub fn edited(&self, edits: &[Edit<'_>]) -> Bytes {
        if edits.is_empty() {
            return self.bytes.clone();
        }
        let added: usize =
            edits.iter().map(|edit| if let Edit::Set(key, json) = edit { key.len() + json.len() + 8 } else { 0 }).sum();
        let mut out = BytesMut::with_capacity(self.bytes.len() + added);
        out.put_u8(b'{');
        let mut separate = false;
        for field in &self.fields {
            let edit =
                edits.iter().find(|edit| matches!(edit, Edit::Set(key, _) | Edit::Remove(key) if *key == field.key));
            match edit {
                Some(Edit::Remove(_)) => {}
                Some(Edit::Set(_, json)) => {
                    comma(&mut out, &mut separate);
                    out.put_slice(&self.bytes[field.entry.start..field.value.start]);
                    out.put_slice(json.as_bytes());
                }
                None => {
                    comma(&mut out, &mut separate);
                    out.put_slice(&self.bytes[field.entry.clone()]);
                }
            }
        }
        for edit in edits {
            if let Edit::Set(key, json) = edit
                && !self.fields.iter().any(|field| field.key == *key)
            {
                comma(&mut out, &mut separate);
                out.put_slice(json_string(key).as_bytes());
                out.put_u8(b':');
                out.put_slice(json.as_bytes());
            }
        }
        out.put_u8(b'}');
        out.freeze()
    }
}

/// Writes a text as a JSON string, quotes included.
#[must_use]
pub fn json_string(text: &str) -> String {
    // Serialising a string cannot fail.
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}

fn comma(out: &mut BytesMut, separate: &mut bool) {
    if *separate {
        out.put_u8(b',');
    }
    *separate = true;
}

/// Walks the structure without recursion and without looking into strings.
fn check_depth(bytes: &[u8]) -> Result<(), BodyFault> {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(BodyFault::TooDeep);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                at += 1;
                // To the closing quote; an escaped character is skipped with its backslash.
                loop {
                    match memchr::memchr2(b'"', b'\\', &bytes[at.min(bytes.len())..]) {
                        None => return Ok(()),
                        Some(found) if bytes[at + found] == b'"' => {
                            at += found;
                            break;
                        }
                        Some(found) => at += found + 2,
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::with_capacity(16);
        while let Some(Key(key)) = map.next_key()? {
            fields.push((key, map.next_value()?));
        }
        Ok(fields)
    }
}

/// A key that borrows where it has no escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<JsonBody, BodyFault> {
        JsonBody::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn edited(text: &str, edits: &[Edit<'_>]) -> String {
        String::from_utf8(parse(text).expect("parses").edited(edits).to_vec()).expect("utf-8")
    }

    #[test]
    fn fields_are_read_and_the_rest_is_kept_byte_for_byte() {
        let body = parse(r#" { "model" : "a\u0062" , "stream":true, "x": {"y": [1, 2e400]} } "#).expect("parses");
        assert_eq!(body.string("model").expect("string").as_deref(), Some("ab"));
        assert_eq!(body.boolean("stream"), Ok(Some(true)));
        assert_eq!(body.boolean("absent"), Ok(None));
        assert_eq!(body.raw("x"), Some(r#"{"y": [1, 2e400]}"#));
        assert_eq!(
            String::from_utf8(body.edited(&[Edit::Set("model", r#""b""#.into()), Edit::Set("n", "1".into())]).to_vec()),
            Ok(r#"{"model" : "b","stream":true,"x": {"y": [1, 2e400]},"n":1}"#.to_owned())
        );
    }

    #[test]
    fn fields_can_be_removed_wherever_they_stand() {
        let text = r#"{"a":1,"b":2,"c":3}"#;
        assert_eq!(edited(text, &[Edit::Remove("a")]), r#"{"b":2,"c":3}"#);
        assert_eq!(edited(text, &[Edit::Remove("b"), Edit::Remove("absent")]), r#"{"a":1,"c":3}"#);
        assert_eq!(edited(text, &[Edit::Remove("a"), Edit::Remove("b"), Edit::Remove("c")]), "{}");
        assert_eq!(edited("{}", &[Edit::Set("a", "1".into())]), r#"{"a":1}"#);
    }

    #[test]
    fn hostile_bodies_are_refused_with_the_reason() {
        assert!(matches!(parse(""), Err(BodyFault::Malformed(_))));
        assert!(matches!(parse("{\"a\":NaN}"), Err(BodyFault::Malformed(_))));
        assert!(matches!(parse("\u{feff}{}"), Err(BodyFault::Malformed(_) | BodyFault::NotAnObject)));
        assert!(matches!(parse("{} {}"), Err(BodyFault::Malformed(_))));
        assert!(matches!(parse("{\"a\":1"), Err(BodyFault::Malformed(_))));
        assert!(matches!(JsonBody::parse(Bytes::from_static(b"{\"a\":\"\xff\"}")), Err(BodyFault::Malformed(_))));
        assert_eq!(parse("[1]").err(), Some(BodyFault::NotAnObject));
        assert_eq!(parse("3").err(), Some(BodyFault::NotAnObject));
        assert_eq!(parse(r#"{"model":"a","model":"b"}"#).err(), Some(BodyFault::Duplicate("model".into())));
        assert_eq!(parse(r#"{"model":"a","mod\u0065l":"b"}"#).err(), Some(BodyFault::Duplicate("model".into())));
        for depth in [65, 100_000] {
            let deep = format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
            assert_eq!(parse(&deep).err(), Some(BodyFault::TooDeep));
        }
        let brackets_in_a_string = format!("{{\"a\":\"{}\\\"\"}}", "[".repeat(1000));
        assert!(parse(&brackets_in_a_string).is_ok());
    }

    #[test]
    fn wrong_types_name_the_field_and_what_is_expected() {
        let body = parse(r#"{"model":3,"stream":"yes"}"#).expect("parses");
        assert_eq!(body.string("model"), Err(BodyFault::WrongType("model".into(), "a string")));
        assert_eq!(body.boolean("stream"), Err(BodyFault::WrongType("stream".into(), "true or false")));
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(JsonBody::parse(bytes.into()));
        }

        #[test]
        fn json_like_input_never_panics(text in r#"[{}\[\]",:a\\u0-9 tnrue\.\-]{0,60}"#) {
            drop(parse(&text));
        }

        #[test]
        fn editing_one_field_leaves_every_other_as_it_was(
            pairs in proptest::collection::btree_map("[a-z\"\\\\é]{1,5}", "[ -~é\u{1f389}]{0,8}", 0..8),
            pick in any::<prop::sample::Index>(),
        ) {
            let object: serde_json::Map<String, serde_json::Value> =
                pairs.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
            let text = serde_json::to_string_pretty(&object).expect("serialises");
            let body = parse(&text).expect("parses");
            let mut expected = object.clone();
            if !pairs.is_empty() {
                let key = pairs.keys().nth(pick.index(pairs.len())).expect("a key").clone();
                expected.insert(key.clone(), 7.into());
                let out = body.edited(&[Edit::Set(&key, "7".into())]);
                let back: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&out).expect("json");
                prop_assert_eq!(back, expected);
            }
        }
    }
}
