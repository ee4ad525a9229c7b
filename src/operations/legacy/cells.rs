//! Values of old rows by any of the names that old versions gave them, and what is left as notes.

use crate::storage::{LegacyCell, LegacyRow};
use crate::types::calls::legacy::{LegacyFate, LegacyItem, LegacyKind};
use crate::types::clock::UnixMillis;
use crate::types::secret::Secret;
use crate::types::text::escape;

/// Characters of a value that a note shows.
const SHOWN: usize = 200;
/// Words in a name whose value is not shown.
const SECRET_WORDS: [&str; 8] = ["key", "secret", "token", "passw", "credential", "auth", "cookie", "private"];
/// Times before it are seconds when they are numbers: 1973 in milliseconds, 5138 in seconds.
const MILLISECONDS_FROM: i64 = 100_000_000_000;

/// One old row, from which values are taken.
pub(super) struct Fields {
    table: &'static str,
    left: LegacyRow,
}

impl Fields {
    pub(super) fn of_row(table: &'static str, row: &LegacyRow) -> Self {
        Self { table, left: row.clone() }
    }

    /// Takes the first of these columns that has a value, and the others with it.
    pub(super) fn take(&mut self, names: &[&str]) -> Option<LegacyCell> {
        let mut first = None;
        for name in names {
            let taken = self.left.remove(*name);
            first = first.or(taken);
        }
        first
    }

    /// Takes a value as text; bytes are none.
    pub(super) fn text(&mut self, names: &[&str]) -> Option<String> {
        for name in names {
            let text = match self.left.get(*name) {
                Some(LegacyCell::Whole(number)) => number.to_string(),
                Some(LegacyCell::Real(number)) => number.to_string(),
                Some(LegacyCell::Text(text)) => text.clone(),
                Some(LegacyCell::Bytes(_)) | None => continue,
            };
            self.left.remove(*name);
            return Some(text);
        }
        None
    }

    /// Takes a value that must never be shown.
    pub(super) fn secret(&mut self, names: &[&str]) -> Option<Secret> {
        self.text(names).filter(|text| !text.is_empty()).map(Secret::new)
    }

    /// Leaves out what FLM keeps itself.
    pub(super) fn drop_all(&mut self, names: &[&str]) {
        for name in names {
            self.left.remove(*name);
        }
    }

    /// What nobody took becomes notes.
    pub(super) fn note_rest(self, of: &str, remarks: &mut Vec<LegacyItem>) {
        for (column, cell) in self.left {
            let value = match cell {
                LegacyCell::Whole(number) => number.to_string(),
                LegacyCell::Real(number) => number.to_string(),
                LegacyCell::Text(text) => text,
                LegacyCell::Bytes(bytes) => format!("{} bytes", bytes.len()),
            };
            remarks.push(LegacyItem {
                kind: LegacyKind::Note,
                name: of.to_owned(),
                fate: LegacyFate::Noted,
                detail: format!("{}.{column} = {}", self.table, note_value(&column, &value)),
            });
        }
    }
}

/// A value as a note may show it: cut, made safe, and hidden when its name says that it is a secret.
pub(super) fn note_value(name: &str, value: &str) -> String {
    let name = name.to_ascii_lowercase();
    // Parameters such as max_tokens are no secrets.
    let secret = SECRET_WORDS.iter().any(|word| name.contains(word)) && !name.contains("tokens");
    if secret {
        return format!("(hidden, {} characters)", value.chars().count());
    }
    let mut shown: String = escape(value).chars().take(SHOWN).collect();
    if value.chars().count() > SHOWN {
        shown.push('…');
    }
    shown
}

/// Whether an old switch is on; what was kept as a time is on when it is there.
pub(super) fn is_set(text: &str) -> bool {
    !matches!(text.trim().to_ascii_lowercase().as_str(), "" | "0" | "false" | "no" | "off" | "disabled" | "inactive")
}

/// A time as old versions wrote it: seconds or milliseconds since 1970, RFC 3339, or `2025-01-31 12:00:00` in UTC.
pub(super) fn time(text: &str) -> Option<UnixMillis> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and fractions of a second do not matter")]
        let whole = number as i64;
        return Some(UnixMillis(if whole < MILLISECONDS_FROM { whole.saturating_mul(1000) } else { whole }));
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(UnixMillis(time.as_millisecond()));
    }
    let civil = text.parse::<jiff::civil::DateTime>().ok()?;
    Some(UnixMillis(jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()?.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_old_forms_mean_the_same() {
        let wanted = Some(UnixMillis(1_735_732_800_000));
        for text in [
            "1735732800",
            "1735732800000",
            "1735732800.5",
            "2025-01-01T12:00:00Z",
            "2025-01-01 12:00:00",
            "2025-01-01T21:00:00+09:00",
        ] {
            assert_eq!(time(text), wanted, "{text}");
        }
        assert_eq!(time("2025-01-01"), Some(UnixMillis(1_735_689_600_000)));
        assert_eq!(time("soon"), None);
    }

    #[test]
    fn notes_are_cut_made_safe_and_never_show_a_secret() {
        assert_eq!(note_value("colour", "a\x1b[31m"), "a\\x1b[31m");
        assert_eq!(note_value("x", &"y".repeat(300)).chars().count(), SHOWN + 1);
        for name in ["openai_api_key", "Password", "auth_header", "TOKEN"] {
            assert!(!note_value(name, "hunter2").contains("hunter2"), "{name}");
        }
        assert_eq!(note_value("max_tokens", "5"), "5");
    }

    #[test]
    fn a_value_is_taken_by_any_of_its_names_and_the_rest_is_noted() {
        let row = LegacyRow::from([
            ("label".to_owned(), LegacyCell::Text("x".into())),
            ("colour".to_owned(), LegacyCell::Whole(7)),
            ("blob".to_owned(), LegacyCell::Bytes(vec![1, 2, 3])),
        ]);
        let mut fields = Fields::of_row("apis", &row);
        assert_eq!(fields.text(&["name", "label"]).as_deref(), Some("x"));
        assert_eq!(fields.text(&["name", "label"]), None);
        let mut remarks = Vec::new();
        fields.note_rest("x", &mut remarks);
        let details: Vec<_> = remarks.iter().map(|remark| remark.detail.as_str()).collect();
        assert_eq!(details, ["apis.blob = 3 bytes", "apis.colour = 7"]);
    }
}
