//! SQL as tokens, in whatever quoting a text may land: what detectors compare is the shape, not the letters.
//!
//! A text that is put into a statement lands outside of quotes, inside single or inside double ones; each is a
//! [`Landing`], and in the latter two everything up to the first such quote is the statement's own string. The idea is
//! libinjection's (Galbreath, 2012); the tokens and shapes are FLM's own.

/// Tokens of one text: more is no injection but a program.
const MOST: usize = 400;

/// Where in a statement the text lands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Landing {
    /// Outside of quotes.
    Bare,
    /// Inside a string that begins and ends with this.
    Quoted(u8),
}

/// One token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword, a name or a quoted name.
    Word(&'a str),
    Number,
    /// A string.
    Text(&'a str),
    /// `@name`, `@@name`.
    Variable(&'a str),
    /// One or two signs, such as `=`, `<>`, `||`.
    Sign(&'a str),
    /// Everything after it does not count.
    Comment(&'a str),
}

/// The text as tokens; `None` when it cannot land there.
pub(super) fn tokens(text: &str, landing: Landing) -> Option<Vec<Token<'_>>> {
    let mut found = Vec::new();
    let mut rest = text;
    if let Landing::Quoted(quote) = landing {
        let at = memchr::memchr(quote, text.as_bytes())?;
        found.push(Token::Text(&text[..at]));
        rest = &text[at + 1..];
        // A word right after the quote is an apostrophe's: "don't". Only what continues a statement may stand there.
        let word = word(rest);
        if !word.is_empty() && !CONTINUES.contains(&word) {
            return None;
        }
    }
    while let Some((token, taken)) = next(rest) {
        if let Some(token) = token {
            let ends = matches!(token, Token::Comment(_));
            found.push(token);
            if ends || found.len() == MOST {
                break;
            }
        }
        rest = &rest[taken..];
    }
    Some(found)
}

/// Words that may follow a string's end without a blank.
const CONTINUES: &[&str] = &[
    "or",
    "and",
    "xor",
    "union",
    "having",
    "like",
    "rlike",
    "regexp",
    "limit",
    "order",
    "group",
    "div",
    "mod",
    "in",
    "is",
    "between",
    "procedure",
    "into",
    "not",
    "where",
    "select",
    "exec",
    "execute",
    "waitfor",
    "as",
    "from",
    "when",
    "then",
];

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(text.len());
    &text[..end]
}

/// The next token, if it is one, and how much it took.
fn next(rest: &str) -> Option<(Option<Token<'_>>, usize)> {
    let bytes = rest.as_bytes();
    let first = *bytes.first()?;
    let second = bytes.get(1).copied().unwrap_or(0);
    Some(match first {
        b'-' if second == b'-' => line_comment(rest, 2),
        // `#` begins a comment in MySQL.
        b'#' => line_comment(rest, 1),
        // MySQL runs what stands in `/*! … */`: the marks alone are passed over.
        b'/' if second == b'*' && bytes.get(2) == Some(&b'!') => {
            (None, 3 + bytes[3..].iter().take_while(|b| b.is_ascii_digit()).count())
        }
        b'/' if second == b'*' => match rest[2..].find("*/") {
            Some(end) => (None, end + 4),
            None => (Some(Token::Comment(&rest[2..])), 2),
        },
        b'*' if second == b'/' => (None, 2),
        b'\'' | b'"' => string(rest, first),
        b'`' | b'[' => quoted_name(rest, if first == b'[' { ']' } else { '`' }),
        b'@' => {
            let start = if second == b'@' { 2 } else { 1 };
            let name = word(&rest[start..]);
            (Some(Token::Variable(name)), start + name.len())
        }
        b'0'..=b'9' | b'.' if first != b'.' || second.is_ascii_digit() => number(rest),
        _ if !word(rest).is_empty() => {
            let word = word(rest);
            // `n'text'` and `x'41'` are strings with a mark.
            (Some(Token::Word(word)), word.len())
        }
        b'<' | b'>' | b'!' | b'=' | b'|' | b'&' | b':' | b'~' if sign_pair(first, second) => {
            let length = if rest.starts_with("<=>") { 3 } else { 2 };
            (Some(Token::Sign(&rest[..length])), length)
        }
        b'!' | b'%' | b'&' | b'(' | b')' | b'*' | b'+' | b',' | b'-' | b'.' | b'/' | b':' | b';' | b'<' | b'='
        | b'>' | b'^' | b'|' | b'~' | b'{' | b'}' | b'?' | b'\\' | b']' => (Some(Token::Sign(&rest[..1])), 1),
        _ => (None, rest.chars().next().map_or(1, char::len_utf8)),
    })
}

/// A comment to the end of its line; what stands on the next line counts again.
fn line_comment(rest: &str, mark: usize) -> (Option<Token<'_>>, usize) {
    match rest.find('\n') {
        Some(end) => (None, end + 1),
        None => (Some(Token::Comment(&rest[mark..])), mark),
    }
}

fn sign_pair(first: u8, second: u8) -> bool {
    matches!(
        (first, second),
        (b'<' | b'!', b'=' | b'<' | b'>')
            | (b'>', b'=' | b'>')
            | (b':', b'=' | b':')
            | (b'=', b'=')
            | (b'|', b'|')
            | (b'&', b'&')
    )
}

fn string(rest: &str, quote: u8) -> (Option<Token<'_>>, usize) {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        if bytes[at] == b'\\' {
            at += 2;
        } else if bytes[at] == quote {
            return (Some(Token::Text(&rest[1..at])), at + 1);
        } else {
            at += 1;
        }
    }
    (Some(Token::Text(rest.get(1..).unwrap_or_default())), rest.len())
}

fn quoted_name(rest: &str, close: char) -> (Option<Token<'_>>, usize) {
    match rest[1..].find(close) {
        Some(end) => (Some(Token::Word(&rest[1..=end])), end + 2),
        None => (None, 1),
    }
}

fn number(rest: &str) -> (Option<Token<'_>>, usize) {
    let bytes = rest.as_bytes();
    let hex = bytes[0] == b'0' && matches!(bytes.get(1), Some(b'x' | b'b'));
    let length = if hex {
        2 + bytes[2..].iter().take_while(|b| b.is_ascii_hexdigit()).count()
    } else {
        let digits = bytes.iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
        match bytes.get(digits) {
            // `1e5`, and `1e0union`, which MySQL reads as a number and a word.
            Some(b'e') if bytes.get(digits + 1).is_some_and(u8::is_ascii_digit) => {
                digits + 1 + bytes[digits + 1..].iter().take_while(|b| b.is_ascii_digit()).count()
            }
            _ => digits,
        }
    };
    (Some(Token::Number), length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn comments_blanks_and_marks_do_not_change_the_tokens() {
        let plain = tokens("1 union select 2", Landing::Bare);
        for form in
            ["1/**/union/* x */select\n2", "1\tunion\u{b}select 2", "1/*!50000union*/select 2", "1 union(select 2"]
        {
            let got: Vec<_> =
                tokens(form, Landing::Bare).expect("lands").into_iter().filter(|t| *t != Token::Sign("(")).collect();
            assert_eq!(Some(got), plain, "{form}");
        }
    }

    #[test]
    fn an_apostrophe_is_no_end_of_a_string() {
        assert_eq!(tokens("don't or won't", Landing::Quoted(b'\'')), None);
        assert_eq!(tokens("no quote", Landing::Quoted(b'\'')), None);
        assert_eq!(
            tokens("x'or'1'='1", Landing::Quoted(b'\'')).expect("lands"),
            [Token::Text("x"), Token::Word("or"), Token::Text("1"), Token::Sign("="), Token::Text("1")]
        );
    }

    #[test]
    fn every_kind_of_token_ends_where_it_ends() {
        use Token::{Comment, Number, Sign, Text, Variable, Word};
        let cases: &[(&str, &[Token<'_>])] = &[
            ("1.5e3x", &[Number, Word("x")]),
            ("1ex", &[Number, Word("ex")]),
            ("1e0union", &[Number, Word("union")]),
            ("0x1fg", &[Number, Word("g")]),
            ("0b1", &[Number]),
            ("1x1f", &[Number, Word("x1f")]),
            (".5", &[Number]),
            (".a", &[Sign("."), Word("a")]),
            ("a_$1 b", &[Word("a_$1"), Word("b")]),
            ("n'x'", &[Word("n"), Text("x")]),
            ("'a\\'b'c", &[Text("a\\'b"), Word("c")]),
            ("\"a'b\"", &[Text("a'b")]),
            ("'open", &[Text("open")]),
            ("'", &[Text("")]),
            ("'\\", &[Text("\\")]),
            ("`a b`c", &[Word("a b"), Word("c")]),
            ("[a b]c", &[Word("a b"), Word("c")]),
            ("`a", &[Word("a")]),
            ("@a @@b @", &[Variable("a"), Variable("b"), Variable("")]),
            ("--x", &[Comment("x")]),
            ("a--x\nb", &[Word("a"), Word("b")]),
            ("#x", &[Comment("x")]),
            ("a#x\nb", &[Word("a"), Word("b")]),
            ("- -", &[Sign("-"), Sign("-")]),
            ("a/*x", &[Word("a"), Comment("x")]),
            ("a/*x*/b", &[Word("a"), Word("b")]),
            ("/*!123a*/b", &[Word("a"), Word("b")]),
            ("/x", &[Sign("/"), Word("x")]),
            ("*x", &[Sign("*"), Word("x")]),
            ("<=>a", &[Sign("<=>"), Word("a")]),
            ("<=a", &[Sign("<="), Word("a")]),
            ("<>!=!<!>>=>><<", &["<>", "!=", "!<", "!>", ">=", ">>", "<<"].map(Sign)),
            (
                "a:=b::c==d||e&&f",
                &[
                    Word("a"),
                    Sign(":="),
                    Word("b"),
                    Sign("::"),
                    Word("c"),
                    Sign("=="),
                    Word("d"),
                    Sign("||"),
                    Word("e"),
                    Sign("&&"),
                    Word("f"),
                ],
            ),
            ("=<|&~!%^", &["=", "<", "|", "&", "~", "!", "%", "^"].map(Sign)),
            ("(),;{}?\\]+", &["(", ")", ",", ";", "{", "}", "?", "\\", "]", "+"].map(Sign)),
            ("é \u{1}x", &[Word("é"), Word("x")]),
        ];
        for (text, wanted) in cases {
            assert_eq!(tokens(text, Landing::Bare).expect("lands"), *wanted, "{text:?}");
        }
        assert_eq!(tokens(&"1 ".repeat(MOST + 1), Landing::Bare).expect("lands").len(), MOST);
        let quoted = tokens("a\"b' or c", Landing::Quoted(b'"'));
        assert_eq!(quoted, None, "an apostrophe's word");
        let quoted = tokens("a\" b", Landing::Quoted(b'"')).expect("lands");
        assert_eq!(quoted, [Text("a"), Word("b")]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_run_for_ever(text in "\\PC{0,60}|['\"/*#()=a-z0-9 -]{0,60}") {
            for landing in [Landing::Bare, Landing::Quoted(b'\''), Landing::Quoted(b'"')] {
                let _tokens = tokens(&text, landing);
            }
        }
    }
}
