//! Everything the console says: words in the chosen language, numbers, spans and times, and cutting to cells.
//!
//! The only user of `t!`. The language is a value that is passed along, never a global, so that two consoles in
//! one process (and tests running side by side) may speak different languages. Called by every view. Must never
//! cut inside a grapheme or measure by bytes.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rust_i18n::t;
use unicode_linebreak::linebreaks;
use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::UnicodeWidthStr as _;

use crate::types::clock::UnixMillis;
use crate::types::language;
use crate::types::text::escape;

/// Speaks one language in one time zone. Cloned freely.
#[derive(Debug, Clone)]
pub struct Words {
    language: &'static str,
    plural: Plural,
    zone: TimeZone,
}

impl Words {
    /// Speaks the given language where its file exists, its parent (`ja` for `ja-JP`) or English otherwise.
    #[must_use]
    pub fn new(language: &str, zone: TimeZone) -> Self {
        let language = language::spoken(language).unwrap_or(language::FALLBACK);
        Self { language, plural: Plural::named(&t!("language.plural", locale = language)), zone }
    }

    /// The language code, such as `ja`.
    #[must_use]
    pub fn language(&self) -> &'static str {
        self.language
    }

    /// The same zone in another language.
    #[must_use]
    pub fn in_language(&self, language: &str) -> Self {
        Self::new(language, self.zone.clone())
    }

    /// The text of a key; a missing key falls back to English and then to the key itself.
    #[must_use]
    pub fn say(&self, key: &'static str) -> Cow<'static, str> {
        t!(key, locale = self.language)
    }

    /// The text of a key with its placeholders filled in. Values are inserted as they are: escape outside text.
    #[must_use]
    pub fn fill(&self, key: &'static str, values: &[(&str, &str)]) -> String {
        fill(&self.say(key), self.plural, values)
    }

    /// Local time of day, `14:03:59`.
    #[must_use]
    pub fn time(&self, at: UnixMillis) -> String {
        self.local(at).map_or_else(String::new, |t| t.strftime("%H:%M:%S").to_string())
    }

    /// Local date and time, `2026-11-23 14:03`.
    #[must_use]
    pub fn date_time(&self, at: UnixMillis) -> String {
        self.local(at).map_or_else(String::new, |t| t.strftime("%Y-%m-%d %H:%M").to_string())
    }

    /// Local date, time and seconds, `2026-11-23 14:03:59`.
    #[must_use]
    pub fn exact(&self, at: UnixMillis) -> String {
        self.local(at).map_or_else(String::new, |t| t.strftime("%Y-%m-%d %H:%M:%S").to_string())
    }

    /// Local date and time as a part of a file's name, `20261123-140359`.
    #[must_use]
    pub fn stamp(&self, at: UnixMillis) -> String {
        self.local(at).map_or_else(String::new, |t| t.strftime("%Y%m%d-%H%M%S").to_string())
    }

    fn local(&self, at: UnixMillis) -> Option<DateTime> {
        Timestamp::from_millisecond(at.0).ok().map(|time| self.zone.to_datetime(time))
    }
}

/// A language's name in that language.
#[must_use]
pub fn language_name(code: &str) -> String {
    t!("language.name", locale = code).into_owned()
}

/// Which of the forms of a word goes with a count; a language's file names it as `language.plural` (rules: Unicode CLDR).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plural {
    /// One form for all, as in Japanese.
    Same,
    /// One for 1, one for the rest, as in English.
    One,
    /// One for 0 and 1, one for the rest, as in French.
    ZeroOne,
    /// One for 1, 21, 31, …, one for 2 to 4, 22 to 24, …, one for the rest, as in Russian.
    Slavic,
}

impl Plural {
    /// The one of this name; a name that nobody knows is that of English, whose words are spoken then.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name {
            "same" => Self::Same,
            "zero-one" => Self::ZeroOne,
            "slavic" => Self::Slavic,
            _ => Self::One,
        }
    }

    /// How many forms there are.
    #[must_use]
    pub fn forms(self) -> usize {
        match self {
            Self::Same => 1,
            Self::One | Self::ZeroOne => 2,
            Self::Slavic => 3,
        }
    }

    /// The form for a count; what is no whole number, such as `12.3k`, has the last one.
    fn form(self, count: &str) -> usize {
        let Ok(count) = count.replace(',', "").parse::<u64>() else { return self.forms() - 1 };
        match (self, count % 10, count % 100) {
            (Self::Same, ..) => 0,
            (Self::One, ..) => usize::from(count != 1),
            (Self::ZeroOne, ..) => usize::from(count > 1),
            (Self::Slavic, 1, tens) if tens != 11 => 0,
            (Self::Slavic, 2..=4, tens) if !(12..=14).contains(&tens) => 1,
            (Self::Slavic, ..) => 2,
        }
    }
}

/// Fills `%{name}` placeholders in one pass, so that a value that looks like a placeholder stays a value. `%{name?one|more}`
/// is the form that goes with the value of that name.
#[must_use]
pub fn fill(template: &str, plural: Plural, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(template.len() + 16);
    let mut rest = template;
    while let Some(start) = rest.find("%{") {
        let Some(length) = rest[start..].find('}') else { break };
        let inside = &rest[start + 2..start + length];
        let (name, forms) = inside.split_once('?').map_or((inside, None), |(name, forms)| (name, Some(forms)));
        out.push_str(&rest[..start]);
        match (values.iter().find(|(known, _)| *known == name), forms) {
            (Some((_, value)), None) => out.push_str(value),
            (Some((_, value)), Some(forms)) => {
                let chosen = forms.split('|').nth(plural.form(value));
                out.push_str(chosen.or_else(|| forms.split('|').next_back()).unwrap_or_default());
            }
            (None, _) => out.push_str(&rest[start..=start + length]),
        }
        rest = &rest[start + length + 1..];
    }
    out.push_str(rest);
    out
}

/// Cells that a text takes in a terminal.
#[must_use]
pub fn width(text: &str) -> usize {
    text.width()
}

/// Fills a text up with blanks to so many cells; what `format!` counts are characters.
#[must_use]
pub fn pad(text: &str, cells: usize) -> String {
    format!("{text}{}", " ".repeat(cells.saturating_sub(text.width())))
}

/// Cuts a text to at most `cells`, ending in `ellipsis` when something was cut. Never cuts inside a grapheme.
#[must_use]
pub fn fit<'a>(text: &'a str, cells: usize, ellipsis: &str) -> Cow<'a, str> {
    if text.width() <= cells {
        return Cow::Borrowed(text);
    }
    let room = cells.saturating_sub(ellipsis.width());
    let mut used = 0;
    let mut end = 0;
    for grapheme in text.graphemes(true) {
        let wide = grapheme.width();
        if used + wide > room {
            break;
        }
        used += wide;
        end += grapheme.len();
    }
    if cells < ellipsis.width() {
        return Cow::Borrowed(&text[..end]);
    }
    Cow::Owned(format!("{}{ellipsis}", &text[..end]))
}

/// Breaks a text into lines of at most `cells`, where the Unicode line breaking algorithm allows it (UAX #14: a full stop
/// begins no line, also not a Japanese one), and inside a piece that is longer than a line.
#[must_use]
pub fn wrap(text: &str, cells: usize) -> Vec<String> {
    let cells = cells.max(1);
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        let mut used = 0;
        let mut from = 0;
        for (to, _) in linebreaks(paragraph) {
            let piece = &paragraph[from..to];
            from = to;
            // Spaces at the end of a line need no room.
            if used > 0 && used + piece.trim_end().width() > cells {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
                used = 0;
            }
            for grapheme in piece.graphemes(true) {
                let wide = grapheme.width();
                if used > 0 && used + wide > cells && !grapheme.trim().is_empty() {
                    lines.push(std::mem::take(&mut line).trim_end().to_owned());
                    used = 0;
                }
                line.push_str(grapheme);
                used += wide;
            }
        }
        lines.push(line.trim_end().to_owned());
    }
    lines
}

/// Outside text of several lines, made safe to show, broken into lines of at most `cells`.
#[must_use]
pub fn outside_lines(text: &str, cells: usize) -> Vec<String> {
    text.trim_end()
        .split('\n')
        .flat_map(|line| wrap(&escape(&line.trim_end_matches('\r').replace('\t', "    ")), cells))
        .collect()
}

/// A count with thin groups: `1,234,567`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count in at most five cells: `999`, `12.3k`, `4.5M`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
pub fn short_count(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => short(number as f64 / 1e3, "k"),
        1_000_000..1_000_000_000 => short(number as f64 / 1e6, "M"),
        _ => short(number as f64 / 1e9, "G"),
    }
}

/// A rate with one decimal below 100.
#[must_use]
pub fn rate(value: f64) -> String {
    if value >= 1_000.0 {
        short(value / 1e3, "k")
    } else if value >= 99.95 || value == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

fn short(value: f64, unit: &str) -> String {
    if value >= 99.95 { format!("{value:.0}{unit}") } else { format!("{value:.1}{unit}") }
}

/// Milliseconds for people: `0.04 ms`, `4.2 ms`, `87 ms`, `1.24 s`, `2m 05s`.
#[must_use]
pub fn millis(ms: f64) -> String {
    if ms <= 0.0 {
        "0 ms".to_owned()
    } else if ms < 0.995 {
        format!("{ms:.2} ms")
    } else if ms < 9.95 {
        format!("{ms:.1} ms")
    } else if ms < 999.5 {
        format!("{ms:.0} ms")
    } else if ms < 59_995.0 {
        format!("{:.2} s", ms / 1000.0)
    } else {
        span(Duration::from_secs_f64(ms / 1000.0))
    }
}

/// Bytes in binary units: `512 B`, `4.1 GiB`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value >= 99.95 { format!("{value:.0} {}", UNITS[unit]) } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A span in its two largest units: `45s`, `12m 05s`, `3h 20m`, `4d 02h`.
#[must_use]
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Parses a span as people type it: `90s`, `15m`, `1h`, `7d`; a bare number is minutes.
#[must_use]
pub fn parse_span(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().ok()?;
    let unit = match text[split..].trim() {
        "s" => 1,
        "" | "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    number.checked_mul(unit).filter(|seconds| (1..=315_360_000).contains(seconds)).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_keeps_graphemes_whole_and_never_exceeds_the_cells() {
        for (text, cells, expected) in [
            ("hello", 5, "hello"),
            ("hello!", 5, "hell…"),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("日本語", 1, "…"),
            ("e\u{301}e\u{301}e\u{301}", 2, "e\u{301}…"),
            ("abc", 0, ""),
        ] {
            let cut = fit(text, cells, "…");
            assert_eq!(cut, expected, "{text:?} in {cells}");
            assert!(width(&cut) <= cells);
        }
    }

    #[test]
    fn what_is_padded_has_its_cells_also_with_wide_letters() {
        for (text, cells) in [("", 3), ("abc", 5), ("日本", 6), ("e\u{301}", 2), ("日本語", 4)] {
            assert_eq!(width(&pad(text, cells)), cells.max(width(text)), "{text}");
        }
    }

    #[test]
    fn wrapping_fills_lines_and_splits_what_has_no_spaces() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("a system message. Press a", 16), ["a system", "message. Press a"]);
        assert_eq!(wrap("日本語です。次", 10), ["日本語で", "す。次"], "a full stop begins no line");
        assert_eq!(wrap("one  two", 4), ["one", "two"]);
        assert_eq!(wrap("", 4), [""]);
        for line in wrap("日本語のとても長い文章です", 5) {
            assert!(width(&line) <= 5, "{line}");
        }
    }

    #[test]
    fn text_of_a_model_keeps_its_lines_and_loses_its_escapes() {
        assert_eq!(outside_lines("a\tb\r\n\nc\x1b[31m\n\n", 20), ["a    b", "", "c\\x1b[31m"]);
        assert_eq!(outside_lines("", 20), [""]);
    }

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(short_count(12_345), "12.3k");
        assert_eq!(millis(0.42), "0.42 ms");
        assert_eq!(millis(4.2), "4.2 ms");
        assert_eq!(millis(1240.0), "1.24 s");
        assert_eq!(bytes(4_402_341_478), "4.1 GiB");
        assert_eq!(span(Duration::from_secs(725)), "12m 05s");
        assert_eq!(rate(0.0), "0");
        assert_eq!(rate(12.34), "12.3");
    }

    #[test]
    fn spans_parse_with_units_and_reject_the_rest() {
        assert_eq!(parse_span("90s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_span("15"), Some(Duration::from_secs(900)));
        assert_eq!(parse_span(" 2 h"), Some(Duration::from_secs(7200)));
        for bad in ["", "x", "0s", "5 years", "99999999999999999999d"] {
            assert_eq!(parse_span(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_value_that_looks_like_a_placeholder_is_not_filled_again() {
        assert_eq!(fill("%{a} and %{b}", Plural::One, &[("a", "%{b}"), ("b", "x")]), "%{b} and x");
        assert_eq!(fill("100%{", Plural::One, &[]), "100%{");
    }

    #[test]
    fn a_word_has_the_form_that_goes_with_its_count() {
        let forms = |plural, template: &str, counts: [&str; 8]| {
            counts.map(|count| fill(template, plural, &[("n", count)])).join(" ")
        };
        let counts = ["0", "1", "2", "5", "11", "21", "1,001", "1.0k"];
        assert_eq!(forms(Plural::Same, "%{n?a}", counts), "a a a a a a a a");
        assert_eq!(forms(Plural::One, "%{n?a|b}", counts), "b a b b b b b b");
        assert_eq!(forms(Plural::ZeroOne, "%{n?a|b}", counts), "a a b b b b b b");
        assert_eq!(forms(Plural::Slavic, "%{n?a|b|c}", counts), "c a b c c a a c");
        assert_eq!(fill("%{n} %{n?egg|eggs}", Plural::One, &[("n", "1")]), "1 egg");
        assert_eq!(fill("%{n?egg}", Plural::One, &[("n", "2")]), "egg", "a form that is missing is the last one");
    }

    /// SPEC §9.9: the chosen language, then English, then the key; whole files are compared in tests/console/words.rs.
    #[test]
    fn a_text_that_no_language_has_is_its_key() {
        for language in language::LANGUAGES {
            let words = Words::new(language, TimeZone::UTC);
            assert_eq!(words.say("nobody.says_this"), "nobody.says_this", "{language}");
            assert_ne!(words.say("tab.engines"), "tab.engines", "{language}");
        }
        assert_eq!(Words::new("ja", TimeZone::UTC).say("tab.engines"), "エンジン");
        assert_eq!(Words::new("tlh", TimeZone::UTC).say("tab.engines"), "Engines");
    }
}
