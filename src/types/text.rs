//! Outside text made safe to show (SPEC §5.13): control characters, escape sequences and bidi controls are
//! escaped. Used by console, command line, logs and copies. Also bytes as hexadecimal digits.

use std::borrow::Cow;
use std::fmt::Write as _;

/// True for characters that can move the cursor, change colours or reorder text.
#[must_use]
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}' | '\u{2029}')
        // Bidi embeddings, overrides and isolates (Unicode UAX #9).
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
        // Tag characters and the byte-order mark are invisible.
        || ('\u{e0000}'..='\u{e007f}').contains(&c)
        || c == '\u{feff}'
}

/// Escapes what [`is_hostile`] finds, as `\n`, `\t`, `\x1b` or `\u{202e}`; borrows when nothing is hostile.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_hostile(c) && u32::from(c) < 0x100 => {
                // Writing to a String cannot fail.
                let _infallible = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if is_hostile(c) => {
                let _infallible = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// What API keys begin with: FLM's own, and those of OpenAI's kind, which people paste everywhere.
const KEY_BEGINNINGS: [&str; 2] = ["flm_", "sk-"];
/// Characters of a key that may be shown: beginning and public id (SPEC §5.1).
const SHOWN: usize = 12;
/// A shorter word is no key.
const SHORTEST_KEY: usize = 20;

/// Takes the secret part out of everything that looks like an API key, in text that leaves the home or goes into a log;
/// borrows when there is none. The last resort: nothing that quotes text may hand a key over in the first place.
#[must_use]
pub fn redact_keys(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut copied = 0;
    let mut from = 0;
    while let Some(at) = KEY_BEGINNINGS.iter().filter_map(|word| text[from..].find(word)).min().map(|at| from + at) {
        let rest = &text[at..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
        if end >= SHORTEST_KEY {
            out.push_str(&text[copied..at + SHOWN]);
            out.push('…');
            copied = at + end;
        }
        // A word that is too short is stepped over whole: a key does not begin within it.
        from = at + end.max(1);
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len() * 2);
    push_hex(&mut digits, bytes);
    digits
}

/// Appends what [`hex`] gives; in a string with room for it nothing is moved, so no copy of a secret stays behind.
pub fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _infallible = write!(out, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_two_digits_each() {
        assert_eq!(hex(&[0x00, 0x0f, 0xa0, 0xff]), "000fa0ff");
        assert_eq!(hex(&[]), "");
    }

    #[test]
    fn keys_lose_their_secret_and_nothing_else_changes() {
        let key = format!("flm_Ab12Cd34_{}", "x".repeat(49));
        assert_eq!(redact_keys(&format!("a {key}, {key}é")), "a flm_Ab12Cd34…, flm_Ab12Cd34…é");
        assert_eq!(redact_keys("\"sk-proj-0123456789abcdef\""), "\"sk-proj-0123…\"");
        for plain in
            ["", "flm_", "flm_Ab12Cd34", "a task-force of ask-me", "the key flm_Ab12Cd34 was revoked", "日本語"]
        {
            assert!(matches!(redact_keys(plain), Cow::Borrowed(same) if same == plain), "{plain}");
        }
    }

    #[test]
    fn escape_sequences_and_bidi_controls_become_visible() {
        assert_eq!(escape("a\x1b[31mb"), "a\\x1b[31mb");
        assert_eq!(escape("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(escape("line\nline"), "line\\nline");
    }

    #[test]
    fn ordinary_text_is_borrowed() {
        assert!(matches!(escape("日本語 and emoji 🎉"), Cow::Borrowed(_)));
    }
}
