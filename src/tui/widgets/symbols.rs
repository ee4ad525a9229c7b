//! The signs that the console draws with, in Unicode and in ASCII.
//!
//! Chosen once from the options. Signs that are ambiguous in East Asian width or shown as emoji are avoided
//! where a neutral one exists (UAX #11; TUI.md §5).

use ratatui::symbols::border;

/// Whether signs turn while something is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    /// They do.
    Full,
    /// They stand still; the seconds beside them go on.
    Reduced,
}

/// Which characters the terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CharacterSet {
    /// Everything.
    Unicode,
    /// ASCII in frames and signs; names of models and people may still hold more.
    Ascii,
}

/// The signs.
#[derive(Debug)]
pub struct Symbols {
    /// Borders of panels.
    pub border: border::Set<'static>,
    /// Ends a cut text.
    pub ellipsis: &'static str,
    /// Good.
    pub ok: &'static str,
    /// Worth a look.
    pub warn: &'static str,
    /// Wrong.
    pub error: &'static str,
    /// Off or absent.
    pub off: &'static str,
    /// Not known yet.
    pub unknown: &'static str,
    /// In motion.
    pub running: &'static str,
    /// Marks the selected row, so that it shows without colour.
    pub marker: &'static str,
    /// Sorted upwards.
    pub ascending: &'static str,
    /// Sorted downwards.
    pub descending: &'static str,
    /// Between parts of a line.
    pub dot: &'static str,
    /// Between segments of the header.
    pub bar: &'static str,
    /// Degrees Celsius.
    pub celsius: &'static str,
    /// Heights of a sparkline, empty to full.
    pub levels: [&'static str; 9],
    /// Before the highest value of a class.
    pub at_most: &'static str,
    /// Before the least value of a choice.
    pub at_least: &'static str,
    /// Shades of a heat strip, light to dark.
    pub shades: [&'static str; 4],
    /// A filled part of a bar.
    pub full: &'static str,
    /// An empty part of a bar.
    pub empty: &'static str,
    /// Frames of the spinner.
    pub spinner: &'static [&'static str],
    /// The part of a scroll bar that is in view.
    pub thumb: &'static str,
    /// A horizontal line.
    pub line: &'static str,
}

static UNICODE: Symbols = Symbols {
    border: border::ROUNDED,
    ellipsis: "…",
    ok: "✓",
    warn: "!",
    error: "✗",
    off: "-",
    unknown: "?",
    running: "»",
    marker: "▌",
    ascending: "↑",
    descending: "↓",
    dot: "·",
    bar: "│",
    celsius: "°C",
    levels: [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"],
    at_most: "≤",
    at_least: "≥",
    shades: ["░", "▒", "▓", "█"],
    full: "━",
    empty: "─",
    spinner: &["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"],
    thumb: "┃",
    line: "─",
};

static ASCII: Symbols = Symbols {
    border: border::Set {
        top_left: "+",
        top_right: "+",
        bottom_left: "+",
        bottom_right: "+",
        vertical_left: "|",
        vertical_right: "|",
        horizontal_top: "-",
        horizontal_bottom: "-",
    },
    ellipsis: "~",
    ok: "+",
    warn: "!",
    error: "x",
    off: "-",
    unknown: "?",
    running: ">",
    marker: ">",
    ascending: "^",
    descending: "v",
    dot: "-",
    bar: "|",
    celsius: "C",
    levels: [" ", "_", "_", ".", "-", "-", "=", "=", "#"],
    at_most: "<",
    at_least: ">",
    shades: [".", ":", "+", "#"],
    full: "=",
    empty: "-",
    spinner: &["|", "/", "-", "\\"],
    thumb: "#",
    line: "-",
};

impl CharacterSet {
    /// Unicode unless the terminal is the kernel's, is dumb, or the locale is not UTF-8.
    #[must_use]
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Self {
        let term = variable("TERM").unwrap_or_default();
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| variable(name).filter(|v| !v.is_empty()));
        let utf8 = locale.is_none_or(|locale| {
            let locale = locale.to_ascii_lowercase();
            // "C" and "POSIX" are what containers and SSH sessions often have in terminals that do show UTF-8.
            locale.contains("utf-8") || locale.contains("utf8") || locale == "c" || locale == "posix"
        });
        if term == "linux" || term == "dumb" || !utf8 { Self::Ascii } else { Self::Unicode }
    }

    /// Its signs.
    #[must_use]
    pub fn symbols(self) -> &'static Symbols {
        match self {
            Self::Unicode => &UNICODE,
            Self::Ascii => &ASCII,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::text;

    #[test]
    fn every_sign_takes_one_cell() {
        for set in [CharacterSet::Unicode, CharacterSet::Ascii] {
            let s = set.symbols();
            let mut signs = vec![
                s.ellipsis,
                s.ok,
                s.warn,
                s.error,
                s.off,
                s.unknown,
                s.running,
                s.marker,
                s.ascending,
                s.descending,
                s.dot,
                s.bar,
                s.at_most,
                s.at_least,
                s.full,
                s.empty,
                s.thumb,
                s.line,
            ];
            signs.extend(s.levels);
            signs.extend(s.shades);
            signs.extend(s.spinner);
            // The one that is two characters: a degree sign and its letter.
            assert!(text::width(s.celsius) <= 2 && (set == CharacterSet::Unicode || s.celsius.is_ascii()));
            for sign in signs {
                assert_eq!(text::width(sign), 1, "{sign:?}");
                assert!(set == CharacterSet::Unicode || sign.is_ascii(), "{sign:?}");
            }
        }
    }

    #[test]
    fn a_locale_that_is_not_utf_8_gets_ascii() {
        let set = |pairs: &[(&str, &str)]| {
            CharacterSet::detect(|name| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned()))
        };
        assert_eq!(set(&[("LANG", "de_DE.ISO-8859-1")]), CharacterSet::Ascii);
        assert_eq!(set(&[("TERM", "linux"), ("LANG", "en_US.UTF-8")]), CharacterSet::Ascii);
        assert_eq!(set(&[("LANG", "ja_JP.UTF-8"), ("TERM", "xterm")]), CharacterSet::Unicode);
    }
}
