//! Outside text as an attacker meant it: percent, `+`, `%uXXXX`, overlong UTF-8, HTML, JavaScript and base64 forms undone,
//! full-width letters narrowed, case folded. For detectors only: routing matches the raw path and decodes nothing twice.

/// How often encodings may lie in one another before it is left as it is: each round is one more pass.
const ROUNDS: usize = 4;
/// Longest text that is looked at: a longer one is looked at from both ends, so that padding hides nothing cheaply.
const LONGEST: usize = 8 << 10;

/// What `+` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plus {
    /// A blank, as forms write it.
    Blank,
    /// Itself.
    Plus,
}

/// The text decoded once, and decoded as often as it changes; both in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Views {
    once: String,
    /// `None` when it is the same.
    whole: Option<String>,
    /// What base64 hid.
    hidden: Option<String>,
}

impl Views {
    pub(super) fn of(raw: &[u8], plus: Plus) -> Self {
        let raw: Vec<u8> = if raw.len() > LONGEST {
            [&raw[..LONGEST / 2], b" ", &raw[raw.len() - LONGEST / 2..]].concat()
        } else {
            raw.to_vec()
        };
        let hidden = base64(&raw).map(|bytes| lower(&deep(bytes)));
        let first = percent(&raw, plus);
        let whole = deep(first.clone());
        let once = lower(&narrow(&first));
        let whole = Some(lower(&whole)).filter(|whole| *whole != once);
        Self { once, whole, hidden }
    }

    /// Each view that differs.
    pub(super) fn each(&self) -> impl Iterator<Item = &str> {
        [Some(&self.once), self.whole.as_ref(), self.hidden.as_ref()].into_iter().flatten().map(String::as_str)
    }

    /// What it comes to in the end.
    pub(super) fn final_text(&self) -> &str {
        self.whole.as_ref().unwrap_or(&self.once)
    }
}

fn deep(mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..ROUNDS {
        let next = escapes(&entities(&narrow(&percent(&bytes, Plus::Plus))));
        if next == bytes {
            break;
        }
        bytes = next;
    }
    bytes
}

fn lower(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).to_lowercase()
}

fn digit(byte: Option<&u8>) -> Option<u8> {
    byte.and_then(|byte| char::from(*byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok())
}

fn hex_pair(bytes: &[u8]) -> Option<u8> {
    Some(digit(bytes.first())? << 4 | digit(bytes.get(1))?)
}

fn hex_four(bytes: &[u8]) -> Option<char> {
    let high = u32::from(hex_pair(bytes)?) << 8;
    char::from_u32(high | u32::from(hex_pair(bytes.get(2..)?)?))
}

fn push(out: &mut Vec<u8>, character: char) {
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Undoes `%XX` and `%uXXXX`.
fn percent(bytes: &[u8], plus: Plus) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at + 1..];
        match bytes[at] {
            b'%' => {
                if let Some(byte) = hex_pair(rest) {
                    out.push(byte);
                    at += 3;
                    continue;
                }
                if matches!(rest.first(), Some(b'u' | b'U'))
                    && let Some(character) = hex_four(&rest[1..])
                {
                    push(&mut out, character);
                    at += 6;
                    continue;
                }
                out.push(b'%');
            }
            b'+' if plus == Plus::Blank => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    out
}

/// Overlong UTF-8 (RFC 3629 §10 tells of the attack), full-width letters and look-alike slashes become ASCII; NUL goes.
fn narrow(bytes: &[u8]) -> Vec<u8> {
    if bytes.iter().all(|byte| (1..0x80).contains(byte)) {
        return bytes.to_vec();
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let tail = |n: usize| bytes.get(at + n).filter(|byte| **byte & 0xC0 == 0x80).map(|byte| byte & 0x3F);
        let (character, taken) = match bytes[at] {
            0 => (None, 1),
            first @ (0xC0 | 0xC1) => match (tail(1), bytes.get(at + 1)) {
                (Some(low), _) => (Some((first & 1) << 6 | low), 2),
                // Lenient decoders take the second byte for what it is.
                (None, Some(second @ 0x20..0x7F)) => (Some(*second), 2),
                _ => (Some(b'?'), 1),
            },
            0xE0 if tail(1).is_some_and(|next| next < 2) => (tail(2).map(|low| tail(1).unwrap_or(0) << 6 | low), 3),
            0xF0 if tail(1) == Some(0) && tail(2).is_some_and(|next| next < 2) => {
                (tail(3).map(|low| tail(2).unwrap_or(0) << 6 | low), 4)
            }
            0xF8 if tail(1) == Some(0) && tail(2) == Some(0) => (tail(4), 5),
            0xFC if tail(1) == Some(0) && tail(2) == Some(0) && tail(3) == Some(0) => (tail(5), 6),
            _ => {
                let length = match bytes[at] {
                    0xE1..=0xEF => 3,
                    0xC2..=0xDF => 2,
                    0xF0..=0xF4 => 4,
                    _ => 1,
                };
                let end = (at + length).min(bytes.len());
                match std::str::from_utf8(&bytes[at..end]).ok().and_then(|text| text.chars().next()) {
                    Some(character) => push(&mut out, ascii_twin(character)),
                    None => out.push(bytes[at]),
                }
                at = if std::str::from_utf8(&bytes[at..end]).is_ok() { end } else { at + 1 };
                continue;
            }
        };
        out.extend(character.filter(|character| *character != 0));
        at += taken;
    }
    out
}

/// The ASCII character that a text layer may fold it to.
fn ascii_twin(character: char) -> char {
    match character {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(character) - 0xFEE0).unwrap_or(character),
        '\u{2215}' | '\u{2044}' | '\u{29f8}' => '/',
        '\u{2216}' | '\u{29f5}' | '\u{fe68}' => '\\',
        '\u{2024}' | '\u{fe52}' => '.',
        '\u{2018}' | '\u{2019}' | '\u{02b9}' | '\u{02bc}' | '\u{2032}' => '\'',
        '\u{a0}' | '\u{3000}' | '\u{2000}'..='\u{200a}' => ' ',
        // Their low bytes are CR and LF, which is all that some layers keep.
        '\u{560d}' => '\r',
        '\u{560a}' => '\n',
        '\u{fe64}' | '\u{2039}' => '<',
        '\u{fe65}' | '\u{203a}' => '>',
        other => other,
    }
}

/// Named entities that hide a sign; others are left.
const NAMED: &[(&[u8], u8)] = &[
    (b"lt;", b'<'),
    (b"gt;", b'>'),
    (b"quot;", b'"'),
    (b"apos;", b'\''),
    (b"amp;", b'&'),
    (b"colon;", b':'),
    (b"lpar;", b'('),
    (b"rpar;", b')'),
    (b"sol;", b'/'),
    (b"bsol;", b'\\'),
    (b"period;", b'.'),
    (b"newline;", b'\n'),
    (b"tab;", b'\t'),
    (b"nbsp;", b' '),
    (b"grave;", b'`'),
    (b"lcub;", b'{'),
    (b"rcub;", b'}'),
    (b"dollar;", b'$'),
    (b"num;", b'#'),
    (b"equals;", b'='),
];

/// Undoes `&lt;`, `&#60;` and `&#x3c;`, the semicolon missing or not.
fn entities(bytes: &[u8]) -> Vec<u8> {
    if memchr::memchr(b'&', bytes).is_none() {
        return bytes.to_vec();
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at + 1..];
        if bytes[at] != b'&' {
            out.push(bytes[at]);
            at += 1;
        } else if let Some((character, length)) = numbered(rest) {
            push(&mut out, character);
            at += 1 + length;
        } else if let Some((name, byte)) =
            NAMED.iter().find(|(name, _)| rest.get(..name.len()).is_some_and(|text| text.eq_ignore_ascii_case(name)))
        {
            out.push(*byte);
            at += 1 + name.len();
        } else {
            out.push(b'&');
            at += 1;
        }
    }
    out
}

fn numbered(rest: &[u8]) -> Option<(char, usize)> {
    let digits = rest.strip_prefix(b"#")?;
    let (digits, radix, head) = match digits.first() {
        Some(b'x' | b'X') => (&digits[1..], 16, 2),
        _ => (digits, 10, 1),
    };
    let length = digits.iter().take(8).take_while(|byte| char::from(**byte).is_digit(radix)).count();
    let value = u32::from_str_radix(std::str::from_utf8(&digits[..length]).ok()?, radix).ok()?;
    let semicolon = usize::from(digits.get(length) == Some(&b';'));
    Some((char::from_u32(value)?, head + length + semicolon))
}

/// Undoes `\x3c` and `\u003c`.
fn escapes(bytes: &[u8]) -> Vec<u8> {
    if memchr::memchr(b'\\', bytes).is_none() {
        return bytes.to_vec();
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        match rest {
            [b'\\', b'x' | b'X', digits @ ..] if hex_pair(digits).is_some() => {
                out.extend(hex_pair(digits));
                at += 4;
            }
            [b'\\', b'u' | b'U', digits @ ..] if hex_four(digits).is_some() => {
                push(&mut out, hex_four(digits).unwrap_or(' '));
                at += 6;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

/// Least length of base64 that could hide something, and how much of what comes out must be text.
const BASE64_LEAST: usize = 12;

/// What a text that is nothing but base64 (RFC 4648, either alphabet) holds, when that is text.
fn base64(bytes: &[u8]) -> Option<Vec<u8>> {
    let bytes = bytes.strip_suffix(b"==").or_else(|| bytes.strip_suffix(b"=")).unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"%3D").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"%3D").unwrap_or(bytes);
    if bytes.len() < BASE64_LEAST {
        return None;
    }
    let mut out = Vec::with_capacity(bytes.len() * 3 / 4);
    let (mut held, mut bits) = (0_u32, 0);
    for byte in bytes {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            let byte = u8::try_from(held >> bits & 0xFF).unwrap_or(0);
            // Words are base64 too: what comes out of them is no text.
            if !(byte == b'\t' || byte == b'\n' || (0x20..0x7F).contains(&byte)) {
                return None;
            }
            out.push(byte);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_of_the_same_text_comes_to_the_same() {
        for form in [
            "../ETC",
            "%2e%2e%2fetc",
            "%252e%252e%252fetc",
            "%25252e%25252e%25252fetc",
            "..%c0%afetc",
            "%c0%ae%c0%ae%c0%afetc",
            "..%e0%80%afetc",
            "..%f0%80%80%afetc",
            "%u002e%u002e%u002fetc",
            "%uff0e%uff0e%u2215etc",
            "&#46;&#x2e;&sol;etc",
            "\\x2e\\u002e/etc",
            "%%32%65%%32%65/etc",
            "..%00/etc",
            "%EF%BC%8E%EF%BC%8E/etc",
        ] {
            assert_eq!(Views::of(form.as_bytes(), Plus::Blank).final_text(), "../etc", "{form}");
        }
    }

    #[test]
    fn base64_is_undone_only_where_text_comes_out() {
        let views = Views::of(b"PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==", Plus::Blank);
        assert_eq!(views.each().last(), Some("<script>alert(1)</script>"));
        assert_eq!(Views::of(b"organization", Plus::Blank).each().count(), 1);
    }

    #[test]
    fn what_is_no_encoding_is_left_and_what_is_one_ends_where_it_ends() {
        for (form, wanted) in [
            ("%4", "%4"),
            ("%", "%"),
            ("%zz", "%zz"),
            ("%4x", "%4x"),
            ("%41b", "ab"),
            ("%u0041b", "ab"),
            ("%U0041b", "ab"),
            ("%u004", "%u004"),
            ("%ud800x", "%ud800x"),
            ("%u65e5x", "日x"),
            ("a+b", "a b"),
            ("&lt;b", "<b"),
            ("&LT;b", "<b"),
            ("&ltb", "&ltb"),
            ("&#60b", "<b"),
            ("&#60;b", "<b"),
            ("&#x3c;g", "<g"),
            ("&#X3Cg", "<g"),
            ("&#xg", "&#xg"),
            ("&#;", "&#;"),
            ("&#x110000;", "&#x110000;"),
            ("&#0000060;", "<"),
            ("&#000000060;", "\u{6}0;"),
            ("a&b", "a&b"),
            ("&amp;lt;", "<"),
            (r"\x3cb", "<b"),
            (r"\X3Cb", "<b"),
            (r"\x3", r"\x3"),
            (r"\u003cb", "<b"),
            (r"\U003Cb", "<b"),
            (r"\u003", r"\u003"),
            (r"\ud800", r"\ud800"),
            (r"a\b", r"a\b"),
        ] {
            let views = Views::of(form.as_bytes(), Plus::Blank);
            assert_eq!(views.final_text().replace('\0', "NUL"), wanted, "{form}");
        }
        assert_eq!(Views::of(b"a+b", Plus::Plus).final_text(), "a+b");
        let five = Views::of(b"%25252525252541", Plus::Plus);
        assert_eq!((five.each().next(), five.final_text()), (Some("%252525252541"), "%2541"), "so deep and no deeper");
    }

    /// RFC 3629 §3 on the left, what lenient decoders make of the rest.
    #[test]
    fn overlong_and_broken_utf8_is_read_as_lenient_decoders_do() {
        let cases: &[(&[u8], &str)] = &[
            (b"a\xC0\xAFb", "a/b"),
            (b"\xC1\x81", "a"),
            (b"\xC0/x", "/x"),
            (b"\xC0~x", "~x"),
            (b"\xC0 x", " x"),
            (b"\xC0\x7Fx", "?\u{7f}x"),
            (b"\xC0\x1Fx", "?\u{1f}x"),
            (b"x\xC0", "x?"),
            (b"x\xC0\x80y", "xy"),
            (b"\xE0\x80\xAFx", "/x"),
            (b"\xE0\x81\x81x", "ax"),
            (b"\xE0\x82\x80x", "\u{fffd}\u{fffd}\u{fffd}x"),
            (b"\xE0\x80xy", "y"),
            (b"\xF0\x80\x80\xAFx", "/x"),
            (b"\xF0\x80\x81\x81x", "ax"),
            (b"\xF0\x80\x82\x80x", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}x"),
            (b"\xF0\x81\x80\x80x", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}x"),
            (b"\xF8\x80\x80\x80\xAFx", "/x"),
            (b"\xF8\x81\x80\x80\xAFx", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}x"),
            (b"\xF8\x80\x81\x80\xAFx", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}x"),
            (b"\xFC\x80\x80\x80\x80\xAFx", "/x"),
            (b"\xFC\x80\x80\x81\x80\xAFx", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}x"),
            (b"a\0b", "ab"),
            ("é日😀x".as_bytes(), "é日😀x"),
            (b"\xE6\x97x", "\u{fffd}x"),
            (b"x\xE6\x97", "x\u{fffd}"),
            (b"\x80x", "\u{fffd}x"),
        ];
        for (bytes, wanted) in cases {
            assert_eq!(Views::of(bytes, Plus::Plus).final_text(), *wanted, "{bytes:x?}");
        }
    }

    #[test]
    fn letters_that_look_like_signs_become_them() {
        for (letters, sign) in [
            ("\u{ff0e}", "."),
            ("\u{ff01}", "!"),
            ("\u{ff5e}", "~"),
            ("\u{2215}\u{2044}\u{29f8}", "/"),
            ("\u{2216}\u{29f5}\u{fe68}", "\\"),
            ("\u{2024}\u{fe52}", "."),
            ("\u{2018}\u{2019}\u{02b9}\u{02bc}\u{2032}", "'"),
            ("\u{a0}\u{3000}\u{2000}\u{200a}", " "),
            ("\u{560d}", "\r"),
            ("\u{560a}", "\n"),
            ("\u{fe64}\u{2039}", "<"),
            ("\u{fe65}\u{203a}", ">"),
            ("\u{ff5f}", "\u{ff5f}"),
            ("\u{200b}", "\u{200b}"),
        ] {
            for letter in letters.chars() {
                assert_eq!(Views::of(letter.to_string().as_bytes(), Plus::Plus).final_text(), sign, "{letter:?}");
            }
        }
    }

    #[test]
    fn a_long_text_is_looked_at_from_both_ends() {
        let whole = "a".repeat(LONGEST / 2) + &"b".repeat(LONGEST / 2);
        assert_eq!(Views::of(whole.as_bytes(), Plus::Plus).final_text(), whole);
        let longer = "a".repeat(LONGEST / 2) + "x" + &"b".repeat(LONGEST / 2);
        let wanted = longer.replace('x', " ");
        assert_eq!(Views::of(longer.as_bytes(), Plus::Plus).final_text(), wanted);
    }

    #[test]
    fn both_alphabets_of_base64_are_read_and_nothing_shorter_than_twelve() {
        let hidden = |text: &str| Views::of(text.as_bytes(), Plus::Plus).hidden;
        let lines = |text: &str| Some(text.to_owned());
        assert_eq!(hidden("YWJjZGVmZ2hp"), lines("abcdefghi"));
        assert_eq!(hidden("YWJjZGVmZ2g"), None, "eleven");
        assert_eq!(hidden("YWJjZGVmZ2hpag=="), lines("abcdefghij"));
        assert_eq!(hidden("YWJjZGVmZ2hpag%3D%3D"), lines("abcdefghij"));
        assert_eq!(hidden("YWJjZGVmZ2hpams="), lines("abcdefghijk"));
        assert_eq!(hidden("YWJjZGVmZ2hpams%3D"), lines("abcdefghijk"));
        assert_eq!(hidden("fn5+Pz8/fn5+Pz8/"), lines("~~~???~~~???"));
        assert_eq!(hidden("fn5-Pz8_fn5-Pz8_"), lines("~~~???~~~???"));
        assert_eq!(hidden("CQoJCgkKICB+fiAg"), lines("\t\n\t\n\t\n  ~~  "));
        assert_eq!(hidden("f39/f39/f39/f39/"), None, "DEL is no text");
        assert_eq!(hidden("DQ0NDQ0NDQ0NDQ0N"), None);
        assert_eq!(hidden("MDEyMzQ1Njc4OTAx"), lines("012345678901"));
        assert_eq!(hidden("YWJj ZGVmZ2hpamts"), None);
    }

    #[test]
    fn ordinary_text_has_one_view() {
        let views = Views::of("日本語 and más".as_bytes(), Plus::Plus);
        assert_eq!(views.each().collect::<Vec<_>>(), ["日本語 and más"]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _views = Views::of(&bytes, Plus::Blank);
        }

        #[test]
        fn percent_encoded_text_comes_back(text in "[ -~]{0,40}") {
            let encoded = text.bytes().fold(String::new(), |encoded, byte| format!("{encoded}%{byte:02X}"));
            let views = Views::of(encoded.as_bytes(), Plus::Plus);
            let wanted = text.to_lowercase();
            prop_assert_eq!(views.each().next(), Some(wanted.as_str()));
        }
    }
}
