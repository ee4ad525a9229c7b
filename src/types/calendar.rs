//! Days and hours as the operator's wall clock counts them (SPEC §5.7: token days end at local midnight).
//!
//! Pure: the time is handed in, the zone is the system's. Used by the guard's budgets, the accounts and prompts.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

use super::clock::UnixMillis;

/// One local calendar day: from its first millisecond to that of the next day. 23 to 25 hours where clocks are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalDay {
    /// Its first millisecond.
    pub start: UnixMillis,
    /// The first millisecond of the next day.
    pub end: UnixMillis,
}

impl LocalDay {
    /// The day that holds a time. Beyond the calendar's end (the year 9999) it is an empty day.
    #[must_use]
    pub fn of(at: UnixMillis) -> Self {
        let bounds = zoned(at).and_then(|here| {
            let end = here.tomorrow().ok()?.start_of_day().ok()?;
            Some((millis(&here.start_of_day().ok()?), millis(&end)))
        });
        let (start, end) = bounds.unwrap_or((at, at));
        Self { start, end }
    }
}

/// The start of the local hour that holds a time: zones with a half hour begin it at half past in UTC.
#[must_use]
pub fn hour_start(at: UnixMillis) -> UnixMillis {
    const HOUR: i64 = 3_600_000;
    let offset = zoned(at).map_or(0, |here| i64::from(here.offset().seconds()) * 1000);
    let local = at.0.saturating_add(offset);
    UnixMillis(local - local.rem_euclid(HOUR) - offset)
}

/// The local date, as 2026-01-31; empty beyond the calendar's end.
#[must_use]
pub fn date(at: UnixMillis) -> String {
    zoned(at).map(|here| here.date().to_string()).unwrap_or_default()
}

/// Local date and time to the minute, as 2026-01-31 14:05; empty beyond the calendar's end.
#[must_use]
pub fn moment(at: UnixMillis) -> String {
    zoned(at).map(|here| here.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default()
}

fn zoned(at: UnixMillis) -> Option<ZonedDateTime> {
    Some(Timestamp::from_millisecond(at.0).ok()?.to_zoned_datetime(TimeZone::system()))
}

fn millis(here: &ZonedDateTime) -> UnixMillis {
    UnixMillis(here.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_day_holds_its_time_and_the_next_begins_where_it_ends() {
        let now = UnixMillis(1_800_000_000_000);
        let day = LocalDay::of(now);
        assert!(day.start <= now && now < day.end, "{day:?}");
        let hours = day.end.since(day.start).as_secs() / 3600;
        assert!((23..=25).contains(&hours), "{hours}");
        assert_eq!(LocalDay::of(day.end).start, day.end);
        assert_eq!(LocalDay::of(UnixMillis(day.end.0 - 1)), day);
        assert_ne!(date(day.start), date(day.end));
    }

    #[test]
    fn every_day_begins_with_an_hour_of_its_own() {
        let day = LocalDay::of(UnixMillis(1_800_000_000_000));
        assert_eq!(hour_start(day.start), day.start);
        let later = day.start.plus(Duration::from_mins(95));
        assert_eq!(hour_start(later), day.start.plus(Duration::from_hours(1)));
    }

    #[test]
    fn a_time_beyond_the_calendar_is_an_empty_day() {
        let day = LocalDay::of(UnixMillis(i64::MAX));
        assert_eq!(day.start, day.end);
        assert_eq!(date(UnixMillis(i64::MAX)), "");
    }
}
