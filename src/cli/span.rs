//! Spans of time as people type them: `30s`, `45m`, `12h`, `90d`, `2w`.

use std::time::Duration;

/// Longest span: a hundred years, so that sums with a time never overflow.
const LONGEST: u64 = 100 * 365 * 86_400;

/// Parses a span; a bare number is refused, since nobody knows its unit.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let rule = || "write a number with a unit: 30s, 45m, 12h, 90d or 2w".to_owned();
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(rule)?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| rule())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(rule()),
    };
    match number.checked_mul(seconds) {
        Some(0) => Err("a span of nothing makes no sense here".to_owned()),
        Some(span) if span <= LONGEST => Ok(Duration::from_secs(span)),
        _ => Err("that is more than a hundred years".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_need_a_unit_and_a_value() {
        for (text, seconds) in [("30s", 30), ("45m", 2_700), ("2h", 7_200), ("90d", 7_776_000), ("1w", 604_800)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "90", "d", "0h", "-1h", "1.5h", "1 h", "3y", "99999999999999999999s", "36501d"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
