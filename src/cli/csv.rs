//! Comma-separated lines (RFC 4180) that a spreadsheet takes as text and never as a formula (SPEC §5.13).

use crate::types::text::escape;

/// What makes a spreadsheet read a cell as a formula, when it stands first (OWASP, CSV injection).
const ACTIVE: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// One line with its end.
pub(super) fn line<T: AsRef<str>>(cells: &[T]) -> String {
    let cells: Vec<String> = cells.iter().map(|text| cell(text.as_ref())).collect();
    cells.join(",") + "\r\n"
}

fn cell(text: &str) -> String {
    // Looked at before escaping, which would hide a tab behind a backslash. Full-width signs count as plain ones.
    let first = text.trim_start_matches(' ').chars().next();
    let active =
        first.is_some_and(|c| ACTIVE.contains(&c) || matches!(c, '\u{ff1d}' | '\u{ff0b}' | '\u{ff0d}' | '\u{ff20}'));
    let shown = escape(text);
    let shown = if active { format!("'{shown}") } else { shown.into_owned() };
    if shown.contains([',', '"', '\'', ' ']) { format!("\"{}\"", shown.replace('"', "\"\"")) } else { shown }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_cell_is_a_formula_and_no_cell_leaves_its_line() {
        for (text, written) in [
            ("plain", "plain"),
            ("=1+1", "\"'=1+1\""),
            ("+1", "\"'+1\""),
            ("-2", "\"'-2\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\"'\\t=1\""),
            ("\r=1", "\"'\\r=1\""),
            (" =1", "\"' =1\""),
            ("＝1", "\"'＝1\""),
            ("a,b", "\"a,b\""),
            ("\"=1", "\"\"\"=1\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("two\nlines\u{1b}[2J\u{202e}", "two\\nlines\\x1b[2J\\u{202e}"),
        ] {
            assert_eq!(cell(text), written, "{text:?}");
        }
        assert_eq!(line(&["a", "b"]), "a,b\r\n");
    }

    proptest! {
        #[test]
        fn a_line_is_one_line_and_no_cell_begins_actively(text in any::<String>()) {
            let line = line(&[text.as_str()]);
            let leaves = line[..line.len() - 2].contains(['\n', '\r', '\t', '\u{1b}']);
            prop_assert!(!leaves, "{:?}", line);
            // As a reader takes it: quotes around the cell are none of its text.
            let cell = line[..line.len() - 2].strip_prefix('"').map(|rest| rest.trim_end_matches('"').replace("\"\"", "\""));
            let cell = cell.unwrap_or_else(|| line.clone());
            let first = cell.trim_start_matches(' ').chars().next();
            prop_assert!(!first.is_some_and(|c| ACTIVE[..4].contains(&c)), "{:?}", line);
        }
    }
}
