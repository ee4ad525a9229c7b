//! Text tables: columns as wide as their widest cell, two spaces between, outside text made safe (SPEC §5.13).

use std::io;

use unicode_width::UnicodeWidthStr as _;

use super::style::{self, Tone};

use crate::types::clock::UnixMillis;
use crate::types::text::escape;

/// Columns whose words tell how good something is.
const TELLING: [&str; 5] = ["", "STATE", "SEVERITY", "STATUS", "OUTCOME"];

/// A table with a line of titles.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(super) fn new(titles: &[&str]) -> Self {
        Self { rows: vec![titles.iter().map(|&title| title.to_owned()).collect()] }
    }

    /// Appends a row; cells are made safe here.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into_iter().map(|cell| escape(&cell).into_owned()).collect());
    }

    /// The table as text, or `empty` when there is no row.
    pub(super) fn or(self, empty: &str) -> String {
        self.drawn(empty, style::shown_by(&io::stdout()))
    }

    fn drawn(self, empty: &str, colour: bool) -> String {
        if self.rows.len() == 1 {
            return empty.to_owned();
        }
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.width()).max().unwrap_or(0))
            .collect();
        let titles = self.rows.first().cloned().unwrap_or_default();
        let tone = |at: usize, column: usize, cell: &str| match at {
            0 => Some(Tone::Heading),
            _ if titles.get(column).is_some_and(|title| TELLING.contains(&title.as_str())) => Tone::of(cell),
            _ => None,
        };
        let line = |(at, row): (usize, &Vec<String>)| {
            let mut line = String::new();
            let mut blanks = 0;
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if !cell.is_empty() {
                    line.extend(std::iter::repeat_n(' ', blanks));
                    blanks = 0;
                    match tone(at, column, cell) {
                        Some(tone) => line.push_str(&style::put_on(cell, tone, colour)),
                        None => line.push_str(cell),
                    }
                }
                // No line ends with blanks.
                blanks += width - cell.width() + 2;
            }
            line
        };
        self.rows.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Facts about one thing, one per line.
pub(super) fn facts<const N: usize>(facts: [(&str, String); N]) -> String {
    let width = facts.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
    let line = |(name, value): (&str, String)| format!("{name:width$}  {}", escape(&value));
    facts.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A time in the person's zone: `2026-11-23 19:24:38`.
pub(super) fn time(at: UnixMillis) -> String {
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(time) => time.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_beyond_the_calendar) => at.0.to_string(),
    }
}

/// Something that may not be there.
pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_by_width_and_escape_sequences_are_visible() {
        let mut table = Table::new(&["NAME", "N"]);
        table.row(["日本".to_owned(), "1".to_owned()]);
        table.row(["a\x1b[31m".to_owned(), "22".to_owned()]);
        assert_eq!(table.or("none"), "NAME       N\n日本       1\na\\x1b[31m  22");
        assert_eq!(Table::new(&["NAME"]).or("none"), "none");
    }

    #[test]
    fn with_colour_the_columns_line_up_as_without() {
        let table = || {
            let mut table = Table::new(&["ID", "STATE", "NOTE"]);
            table.row(["a".to_owned(), "healthy".to_owned(), "error".to_owned()]);
            table.row(["long".to_owned(), "unreachable".to_owned(), String::new()]);
            table
        };
        let painted = table().drawn("none", true);
        assert!(painted.contains("a     \x1b[32mhealthy\x1b[0m      error"), "{painted:?}");
        assert!(painted.starts_with("\x1b[1mID\x1b[0m    \x1b[1mSTATE\x1b[0m"), "{painted:?}");
        let plain =
            ["\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[0m"].iter().fold(painted, |text, code| text.replace(code, ""));
        assert_eq!(plain, table().drawn("none", false));
        assert_eq!(plain.lines().nth(2), Some("long  unreachable"));
    }
}
