//! A JSON request body that is read where routing needs it and passed on byte for byte where it does not.
//!
//! Called by `proxy` (body stage) and by the adapters of `engines`.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::DeserializeOwned;

use super::json_scan::{self, MAX_DEPTH, ScanFault, ScannedField};
use super::remote_media;

/// Top-level fields that are accepted: the largest API has about 40. Duplicates are looked for among all of them.
const MAX_FIELDS: usize = 512;

/// A JSON object with the place of each top-level field.
#[derive(Debug, Clone)]
pub struct JsonBody {
    /// Checked to be UTF-8 once.
    text: ByteString,
    fields: Vec<Field>,
    /// Whether a key of any depth may be that of something to fetch.
    may_name_places: bool,
}

#[derive(Debug, Clone)]
struct Field {
    key: Key,
    /// Where key and value stand in the text, from the key's quote to the value's end.
    entry: Range<usize>,
    /// Where the raw value stands in the text.
    value: Range<usize>,
}

#[derive(Debug, Clone)]
enum Key {
    /// Stands in the text as it is.
    Plain(Range<usize>),
    /// Had escapes.
    Unescaped(Box<str>),
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
    /// Nested deeper than 64 levels (`json_scan::MAX_DEPTH`).
    #[error("the body is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A top-level field stands there twice: guard and engine could pick different ones.
    #[error("the field {0:?} stands there twice")]
    Duplicate(String),
    /// More than 512 top-level fields (`MAX_FIELDS`).
    #[error("the body has more than {MAX_FIELDS} fields")]
    TooManyFields,
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
        let text = ByteString::try_from(bytes)
            .map_err(|error| BodyFault::Malformed(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
        let mut fields: Vec<Field> = Vec::with_capacity(16);
        let mut may_name_places = false;
        let each = |scanned: ScannedField| {
            if fields.len() == MAX_FIELDS {
                return Err(BodyFault::TooManyFields);
            }
            let field = Field::read(&scanned, &text)?;
            let name = field.name(&text);
            if fields.iter().any(|other| other.name(&text) == name) {
                return Err(BodyFault::Duplicate(name.chars().take(80).collect()));
            }
            fields.push(field);
            Ok(())
        };
        json_scan::fields_and_keys::<BodyFault>(text.as_bytes().as_ref(), each, |key, escaped| {
            may_name_places |= escaped || remote_media::may_name_a_place(key);
        })?;
        Ok(Self { text, fields, may_name_places })
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether something in it may be there to be fetched; [`remote_media::find`] tells. Most requests have nothing, and know it
    /// from being read.
    #[must_use]
    pub fn may_name_places(&self) -> bool {
        self.may_name_places
    }

    fn field(&self, key: &str) -> Option<&Field> {
        let text = self.text.as_bytes();
        self.fields.iter().find(|field| match &field.key {
            Key::Plain(place) => place.len() == key.len() && text[place.clone()] == *key.as_bytes(),
            Key::Unescaped(name) => **name == *key,
        })
    }

    /// The raw JSON of a top-level field.
    #[must_use]
    pub fn raw(&self, key: &str) -> Option<&str> {
        let field = self.field(key)?;
        self.text.get(field.value.clone())
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
        self.fields.iter().map(|field| field.name(&self.text))
    }

    /// The body as it came.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        self.text.as_bytes()
    }

    /// The body with the edits applied; every other field is kept byte for byte, in order.
    #[must_use]
    pub fn edited(&self, edits: &[Edit<'_>]) -> Bytes {
        if edits.is_empty() {
            return self.bytes().clone();
        }
        self.write(edits, |_| {}).into()
    }

    /// The same as a body that need not be read again: it is known where each field stands.
    #[must_use]
    pub fn with(&self, edits: &[Edit<'_>]) -> Self {
        if edits.is_empty() {
            return self.clone();
        }
        let mut fields = Vec::with_capacity(self.fields.len() + edits.len());
        let text = self.write(edits, |written| {
            fields.push(match written {
                Written::Kept { field, at, value_length } => field.moved(at, value_length),
                Written::Added { key, entry, value } => Field { key: Key::Unescaped(key.into()), entry, value },
            });
        });
        // What an edit puts in was not looked at.
        Self { text: text.into(), fields, may_name_places: true }
    }

    fn write<'e>(&'e self, edits: &'e [Edit<'_>], mut note: impl FnMut(Written<'e>)) -> String {
        let added: usize =
            edits.iter().map(|edit| if let Edit::Set(key, json) = edit { key.len() + json.len() + 8 } else { 0 }).sum();
        let mut out = String::with_capacity(self.text.len() + added);
        out.push('{');
        let mut separate = false;
        for field in &self.fields {
            let name = field.name(&self.text);
            let edit = edits.iter().find(|edit| matches!(edit, Edit::Set(key, _) | Edit::Remove(key) if *key == name));
            match edit {
                Some(Edit::Remove(_)) => {}
                Some(Edit::Set(_, json)) => {
                    comma(&mut out, &mut separate);
                    note(Written::Kept { field, at: out.len(), value_length: json.len() });
                    out.push_str(&self.text[field.entry.start..field.value.start]);
                    out.push_str(json);
                }
                None => {
                    comma(&mut out, &mut separate);
                    note(Written::Kept { field, at: out.len(), value_length: field.value.len() });
                    out.push_str(&self.text[field.entry.clone()]);
                }
            }
        }
        for edit in edits {
            if let Edit::Set(key, json) = edit
                && self.field(key).is_none()
            {
                comma(&mut out, &mut separate);
                let start = out.len();
                out.push_str(&json_string(key));
                out.push(':');
                let value = out.len()..out.len() + json.len();
                out.push_str(json);
                note(Written::Added { key, entry: start..value.end, value });
            }
        }
        out.push('}');
        out
    }
}

/// A field as an edited body has it.
enum Written<'a> {
    /// One that was there, now at this place, with a value of this length.
    Kept { field: &'a Field, at: usize, value_length: usize },
    /// A new one.
    Added { key: &'a str, entry: Range<usize>, value: Range<usize> },
}

/// Writes a text as a JSON string, quotes included.
#[must_use]
pub fn json_string(text: &str) -> String {
    // Serialising a string cannot fail.
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}

fn comma(out: &mut String, separate: &mut bool) {
    if *separate {
        out.push(',');
    }
    *separate = true;
}

impl Field {
    fn read(scanned: &ScannedField, text: &str) -> Result<Self, BodyFault> {
        let ScannedField { key, escaped, value } = scanned;
        let entry = key.start - 1..value.end;
        let key = if *escaped {
            let unescaped: String = serde_json::from_str(&text[key.start - 1..=key.end])
                .map_err(|error| BodyFault::Malformed(format!("a key at byte {}: {error}", key.start)))?;
            Key::Unescaped(unescaped.into())
        } else {
            Key::Plain(key.clone())
        };
        Ok(Self { key, entry, value: value.clone() })
    }

    /// The same field in another body, where its entry begins at `at`.
    fn moved(&self, at: usize, value_length: usize) -> Self {
        let place = |old: usize| at + (old - self.entry.start);
        let key = match &self.key {
            Key::Plain(range) => Key::Plain(place(range.start)..place(range.end)),
            Key::Unescaped(text) => Key::Unescaped(text.clone()),
        };
        let value = place(self.value.start)..place(self.value.start) + value_length;
        Self { key, entry: at..value.end, value }
    }

    fn name<'a>(&'a self, text: &'a str) -> &'a str {
        match &self.key {
            Key::Plain(place) => &text[place.clone()],
            Key::Unescaped(name) => name,
        }
    }
}

impl From<ScanFault> for BodyFault {
    fn from(fault: ScanFault) -> Self {
        match fault {
            ScanFault::Syntax { .. } => Self::Malformed(fault.to_string()),
            ScanFault::NotAnObject => Self::NotAnObject,
            ScanFault::TooDeep => Self::TooDeep,
        }
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
        let many: Vec<_> = (0..=MAX_FIELDS).map(|number| format!("\"{number}\":1")).collect();
        assert_eq!(parse(&format!("{{{}}}", many.join(","))).err(), Some(BodyFault::TooManyFields));
        assert!(parse(&format!("{{{}}}", many[1..].join(","))).is_ok());
        assert!(matches!(parse(r#"{"\ud800":1}"#), Err(BodyFault::Malformed(_))));
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
                let quick = body.with(&[Edit::Set(&key, "7".into()), Edit::Set("a new one", "[1]".into())]);
                let slow = JsonBody::parse(quick.bytes().clone()).expect("JSON");
                prop_assert_eq!(quick.keys().collect::<Vec<_>>(), slow.keys().collect::<Vec<_>>());
                for name in slow.keys() {
                    prop_assert_eq!(quick.raw(name), slow.raw(name));
                }
                prop_assert_eq!(quick.edited(&[Edit::Remove(&key)]), slow.edited(&[Edit::Remove(&key)]));
            }
        }
    }
}
