//! Outside text made safe to show (SPEC §5.13): control characters, escape sequences and bidi controls are
//! escaped. Used by console, command line, logs and copies.

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

#[cfg(test)]
mod tests {
    use super::*;

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
