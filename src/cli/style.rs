//! Colour in text for people: only where a terminal shows it, and nowhere with `NO_COLOR` (no-color.org) or `TERM=dumb`
//! (SPEC §2).
//!
//! Used by [`super::output`] and [`super::table`], and by what marks lines of its own. The meaning never hangs on colour: it is in
//! the words.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, IsTerminal};

/// What a word tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// What follows is of this kind.
    Heading,
    /// All is well.
    Good,
    /// Somebody should look at it.
    Warning,
    /// Something is wrong.
    Bad,
}

impl Tone {
    /// Of the basic colours, which every theme of a terminal makes readable (ECMA-48, SGR).
    fn code(self) -> &'static str {
        match self {
            Self::Heading => "1",
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "31",
        }
    }

    /// What the first word of a state, a severity, a verdict or a status tells.
    pub(super) fn of(text: &str) -> Option<Self> {
        let word = text.split(|c: char| !c.is_ascii_alphanumeric()).next()?.to_ascii_lowercase();
        match word.as_str() {
            "healthy" | "running" | "works" | "arrived" | "ok" => Some(Self::Good),
            "degraded" | "medium" | "warn" | "obtaining" | "expired" | "failing" => Some(Self::Warning),
            "unreachable" | "wrong" | "error" | "fail" | "failed" | "revoked" | "high" | "critical" => Some(Self::Bad),
            status if status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit()) => {
                match status.as_bytes()[0] {
                    b'2' => Some(Self::Good),
                    b'4' => Some(Self::Warning),
                    b'5' => Some(Self::Bad),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// Whether a stream shows colour.
pub(super) fn shown_by(stream: &impl IsTerminal) -> bool {
    shows(stream.is_terminal(), |name| std::env::var_os(name))
}

fn shows(is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    is_terminal
        && variable("NO_COLOR").is_none_or(|value| value.is_empty())
        && variable("TERM").is_none_or(|term| term != "dumb")
}

/// A text for stdout.
pub(super) fn paint(text: &str, tone: Tone) -> Cow<'_, str> {
    put_on(text, tone, shown_by(&io::stdout()))
}

/// The same where it is known whether colour shows.
pub(super) fn put_on(text: &str, tone: Tone, shown: bool) -> Cow<'_, str> {
    if shown { Cow::Owned(format!("\x1b[{}m{text}\x1b[0m", tone.code())) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_shows_on_terminals_that_want_it() {
        let with = |pairs: &'static [(&str, &str)]| {
            move |name: &str| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        assert!(shows(true, with(&[("TERM", "xterm-256color")])));
        assert!(shows(true, with(&[("NO_COLOR", "")])), "empty asks for nothing (no-color.org)");
        assert!(!shows(true, with(&[("NO_COLOR", "1")])));
        assert!(!shows(true, with(&[("TERM", "dumb")])));
        assert!(!shows(false, with(&[("TERM", "xterm-256color")])));
        assert_eq!(put_on("x", Tone::Bad, true), "\x1b[31mx\x1b[0m");
        assert_eq!(put_on("x", Tone::Bad, false), "x");
    }

    #[test]
    fn the_first_word_tells() {
        for (text, tone) in [
            ("healthy, 3 ms", Some(Tone::Good)),
            ("unreachable (3x): refused", Some(Tone::Bad)),
            ("UNREACHABLE, connections fail", Some(Tone::Bad)),
            ("HIGH", Some(Tone::Bad)),
            ("404", Some(Tone::Warning)),
            ("503", Some(Tone::Bad)),
            ("1404", None),
            ("installed, not running", None),
            ("", None),
        ] {
            assert_eq!(Tone::of(text), tone, "{text}");
        }
    }
}
