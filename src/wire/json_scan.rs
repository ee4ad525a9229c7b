//! Walks a JSON text once: checks its grammar (RFC 8259) and its depth, and tells where the fields of the outermost
//! object stand, without building anything.
//!
//! Used by `json_body` for requests and by `openai` for answers. Every request and every answer passes through here,
//! and going through serde's data model twice cost more instructions. What it accepts is what `serde_json`
//! accepts, which a property test compares. Must never recurse: depth is the sender's choice.

use std::ops::Range;

/// Nesting that is accepted, arrays and objects together (SECURITY.md, attack case 28). At most 64, see `Scan::value`.
pub(super) const MAX_DEPTH: usize = 64;

/// A field of the outermost object, by places in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScannedField {
    /// The key between its quotes, as it is written.
    pub(super) key: Range<usize>,
    /// Whether the key has escapes.
    pub(super) escaped: bool,
    /// The value, without white space around it.
    pub(super) value: Range<usize>,
}

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScanFault {
    /// It breaks the grammar.
    #[error("{expected} at byte {at}")]
    Syntax { at: usize, expected: &'static str },
    /// It is another JSON value.
    #[error("it is no object")]
    NotAnObject,
    /// It is nested deeper than [`MAX_DEPTH`].
    #[error("it is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// Walks a text and gives each field of the outermost object, in order, to `each`.
///
/// # Errors
/// See [`ScanFault`]. Bytes above 127 are taken as they are: check UTF-8 before.
pub(super) fn fields<E: From<ScanFault>>(
    text: &[u8],
    each: impl FnMut(ScannedField) -> Result<(), E>,
) -> Result<(), E> {
    fields_and_keys(text, each, |_key, _escaped| {})
}

/// The same, and gives the keys of all depths to `key` on the way, between their quotes and with whether they have escapes.
///
/// # Errors
/// As [`fields`].
pub(super) fn fields_and_keys<E: From<ScanFault>>(
    text: &[u8],
    mut each: impl FnMut(ScannedField) -> Result<(), E>,
    key: impl FnMut(&[u8], bool),
) -> Result<(), E> {
    let mut scan = Scan { text, at: 0, key };
    if scan.peek() != Some(b'{') {
        scan.value(0)?;
        scan.end()?;
        return Err(ScanFault::NotAnObject.into());
    }
    scan.at += 1;
    if scan.peek() == Some(b'}') {
        scan.at += 1;
    } else {
        loop {
            let (key, escaped) = scan.key()?;
            scan.space();
            let begin = scan.at;
            scan.value(1)?;
            each(ScannedField { key, escaped, value: begin..scan.at })?;
            match scan.peek() {
                Some(b',') => scan.at += 1,
                Some(b'}') => {
                    scan.at += 1;
                    break;
                }
                _ => return Err(scan.fault("a comma or } is expected").into()),
            }
        }
    }
    scan.end().map_err(E::from)
}

struct Scan<'a, K> {
    text: &'a [u8],
    at: usize,
    /// Hears of every key.
    key: K,
}

impl<K: FnMut(&[u8], bool)> Scan<'_, K> {
    fn fault(&self, expected: &'static str) -> ScanFault {
        ScanFault::Syntax { at: self.at, expected }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is no white space, not taken.
    fn peek(&mut self) -> Option<u8> {
        self.space();
        self.text.get(self.at).copied()
    }

    fn end(&mut self) -> Result<(), ScanFault> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fault("nothing more is expected")),
        }
    }

    /// A key with its colon; answers where it stands between its quotes, and whether it has escapes.
    #[inline]
    fn key(&mut self) -> Result<(Range<usize>, bool), ScanFault> {
        if self.peek() != Some(b'"') {
            return Err(self.fault("a key is expected"));
        }
        self.at += 1;
        let begin = self.at;
        let escaped = self.string()?;
        let key = begin..self.at - 1;
        (self.key)(&self.text[key.clone()], escaped);
        if self.peek() != Some(b':') {
            return Err(self.fault("a colon is expected"));
        }
        self.at += 1;
        Ok((key, escaped))
    }

    /// A value of any depth, `outer` levels deep already.
    fn value(&mut self, outer: usize) -> Result<(), ScanFault> {
        let mut open = outer;
        // One bit a level, the innermost lowest: set for an object. MAX_DEPTH levels fit.
        let mut objects = 0_u64;
        loop {
            // A value begins.
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    self.string()?;
                }
                Some(bracket @ (b'{' | b'[')) => {
                    if open == MAX_DEPTH {
                        return Err(ScanFault::TooDeep);
                    }
                    self.at += 1;
                    // '}' and ']' stand two places after their opening ones.
                    if self.peek() == Some(bracket + 2) {
                        self.at += 1;
                    } else {
                        open += 1;
                        objects = objects << 1 | u64::from(bracket == b'{');
                        if bracket == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                _ => return Err(self.fault("a value is expected")),
            }
            // A value has ended, and with it maybe what it stands in.
            loop {
                if open == outer {
                    return Ok(());
                }
                let in_object = objects & 1 == 1;
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        if in_object {
                            self.key()?;
                        }
                        break;
                    }
                    Some(b'}') if in_object => self.at += 1,
                    Some(b']') if !in_object => self.at += 1,
                    _ if in_object => return Err(self.fault("a comma or } is expected")),
                    _ => return Err(self.fault("a comma or ] is expected")),
                }
                objects >>= 1;
                open -= 1;
            }
        }
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<(), ScanFault> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.fault("a value is expected"))
    }

    fn digits(&mut self) -> Result<(), ScanFault> {
        let begin = self.at;
        while let Some(b'0'..=b'9') = self.text.get(self.at) {
            self.at += 1;
        }
        if self.at == begin { Err(self.fault("a digit is expected")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), ScanFault> {
        if self.text[self.at] == b'-' {
            self.at += 1;
        }
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// The rest of a string after its opening quote; answers whether it has escapes.
    #[inline]
    fn string(&mut self) -> Result<bool, ScanFault> {
        self.skip_plain();
        if self.text.get(self.at) == Some(&b'"') {
            self.at += 1;
            return Ok(false);
        }
        self.rest_of_string()
    }

    /// The same from a byte on that is not plain, or where the text ends. Few strings come here.
    #[inline(never)]
    fn rest_of_string(&mut self) -> Result<bool, ScanFault> {
        let mut escaped = false;
        loop {
            self.skip_plain();
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.fault("an escape instead of a control character is expected")),
                None => return Err(self.fault("a closing quote is expected")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), ScanFault> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let digits = self.text.get(self.at + 2..self.at + 6);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(self.fault("four hexadecimal digits after \\u are expected"));
                }
                self.at += 6;
            }
            _ => return Err(self.fault("an escape is expected")),
        }
        Ok(())
    }

    /// To the next quote, backslash or control character, eight bytes at a time.
    #[inline]
    fn skip_plain(&mut self) {
        const ONES: u64 = u64::from_ne_bytes([1; 8]);
        const HIGHS: u64 = ONES << 7;
        // Bit 7 of the lowest byte that is zero, and maybe of bytes above it ("Bit Twiddling Hacks", haszero).
        let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
        let plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..0x20);
        while let Some(bytes) = self.text[self.at..].first_chunk::<8>() {
            let word = u64::from_le_bytes(*bytes);
            // Below 0x20: the subtraction borrows into bit 7 of a byte that had it clear.
            let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
            let stops = control | zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\')));
            if stops != 0 {
                // Little-endian: the first byte is the lowest. A borrow only spoils bytes above a true stop.
                self.at += (stops.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        while self.text.get(self.at).is_some_and(plain) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use std::collections::BTreeMap;

    fn scanned(text: &str) -> Result<Vec<ScannedField>, ScanFault> {
        let mut found = Vec::new();
        fields(text.as_bytes(), |field| {
            found.push(field);
            Ok(())
        })
        .map(|()| found)
    }

    /// The same by `serde_json`; keys that repeat are left to the caller, so only texts without them are compared.
    fn by_serde(text: &str) -> Result<Vec<(String, String)>, String> {
        let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Ok(fields.into_iter().map(|(key, value)| (key, value.get().to_owned())).collect())
    }

    fn compare(text: &str) {
        match (scanned(text), by_serde(text)) {
            (Ok(found), Ok(expected)) => {
                let mut found: Vec<_> = found
                    .into_iter()
                    .map(|field| {
                        let key = serde_json::from_str(&format!("\"{}\"", &text[field.key])).expect("a key");
                        (key, text[field.value].to_owned())
                    })
                    .collect::<BTreeMap<String, String>>()
                    .into_iter()
                    .collect();
                found.sort();
                assert_eq!(found, expected, "{text:?}");
            }
            (Err(_), Err(_)) => {}
            // A lone surrogate in a key is the caller's to refuse: it unescapes the key.
            (Ok(found), Err(_)) if found.iter().any(|field| field.escaped) => {}
            (ours, theirs) => panic!("{text:?}: {ours:?} against {theirs:?}"),
        }
    }

    #[test]
    fn it_accepts_what_the_grammar_accepts() {
        for value in [
            "0",
            "-0",
            "12",
            "1.5",
            "-1.50e+10",
            "1E5",
            "1e-5",
            "01",
            "1.",
            ".5",
            "-",
            "+1",
            "1e",
            "1e+",
            "0x1",
            "NaN",
            "Infinity",
            "true",
            "tru",
            "truex",
            "null",
            "nul",
            "\"\"",
            "\"a",
            "\"\\\"\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12ag\"",
            "\"\\u00e9\"",
            "\"\t\"",
            "\"\u{7f}\"",
            "\"é\u{2028}\u{1f389}\"",
            "[]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[[],[{}],{\"a\":[]}]",
            "{}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "[}",
            "{]",
            "/**/1",
            "",
            "\"abcdefgh\"",
            "\"abcdefg\\\"\"",
            "\"abcdefgh\u{1}\"",
            "\"0123456789abcde\\u0041\"",
            "\"!\"",
            "\"\u{1f}\"",
        ] {
            compare(&format!("{{\"key\":{value}}}"));
            compare(&format!(" {{ \"key\" : {value} , \"other\" : {value} }} \n"));
            compare(value);
        }
    }

    #[test]
    fn depth_is_counted_over_arrays_and_objects() {
        let nested = |depth: usize| format!("{{\"a\":{}1{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(scanned(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(scanned(&nested(MAX_DEPTH + 1)), Err(ScanFault::TooDeep));
        let objects = format!("{}1{}", "{\"a\":".repeat(MAX_DEPTH), "}".repeat(MAX_DEPTH));
        assert!(scanned(&objects).is_ok());
        assert_eq!(scanned(&format!("{{\"a\":{objects}}}")), Err(ScanFault::TooDeep));
        // What is only opened is refused before its end is looked for.
        assert_eq!(scanned(&"[".repeat(100_000)), Err(ScanFault::TooDeep));
    }

    #[test]
    fn other_values_are_no_object_and_garbage_is_told_by_its_place() {
        for text in ["[1]", "3", "\"a\"", "null"] {
            assert_eq!(scanned(text), Err(ScanFault::NotAnObject), "{text}");
        }
        let fault = scanned("{\"a\":1,\"b\":oops}").expect_err("garbage");
        assert_eq!(fault.to_string(), "a value is expected at byte 11");
    }

    proptest! {
        #[test]
        fn it_agrees_with_serde_json_on_anything_that_looks_like_json(
            text in r#"[{}\[\]",:a\\u0-9 \ntruefals.\-eE+]{0,60}"#,
        ) {
            compare(&text);
            compare(&format!("{{\"k\":{text}}}"));
        }

        #[test]
        fn it_agrees_with_serde_json_on_strings(text in "[ -~\u{0}-\u{1f}é\u{2028}\u{1f389}]{0,40}") {
            compare(&format!("{{\"k\":\"{text}\"}}"));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _either = fields::<ScanFault>(&bytes, |_| Ok(()));
        }
    }
}
