//! The last day above the timeline: events by hour as a heat strip, and the addresses with the most of them (SPEC §9.4).

use std::time::Duration;

use ratatui::layout::Rect;

use crate::tui::signs::{self, unread};
use crate::tui::state::State;
use crate::tui::tabs::Tab;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::view::stale;
use crate::tui::widgets::chart::{self, Bar};
use crate::tui::widgets::painter::{Emphasis, Painter, below, cells, inset, row};
use crate::types::audit::{AuditEvent, Severity};
use crate::types::calls::replay::{HourOfEvents, SecurityStats};
use crate::types::clock::UnixMillis;

/// How far back.
const DAY: Duration = Duration::from_hours(24);
/// Hours of the strip.
const HOURS: i64 = 24;
/// Milliseconds of an hour.
const HOUR: i64 = 3_600_000;
/// While events come, the counts are read again this often; in between they are kept up from the events themselves.
const FRESH: Duration = Duration::from_mins(1);
/// Columns from which the addresses stand beside the strip.
const BESIDE: u16 = 76;

/// Rows of the panel on a screen of this height, borders included.
#[must_use]
pub fn rows(height: u16) -> u16 {
    match height {
        0..16 => 0,
        16..30 => 5,
        _ => 7,
    }
}

/// Reads the counts.
pub fn read(state: &mut State) {
    state.security.counts_asked = Some(state.now);
    state.read(SecurityStats { since: Some(state.now.minus(DAY)) });
}

/// An event came: it is counted, and the counts are read again when they are in view and no longer fresh.
pub fn count(state: &mut State, event: &AuditEvent) {
    if let Some(counts) = &mut state.world.security_counts.value {
        counts.count(event.at, event.kind, event.severity);
        if let Some(address) = event.address.filter(|_| event.severity > Severity::Low)
            && let Some((_, known)) = counts.sources.iter_mut().find(|(source, _)| *source == address)
        {
            *known += 1;
        }
    }
    let stale = state.security.counts_asked.is_none_or(|asked| state.now.since(asked) >= FRESH);
    if state.tab == Tab::Security && stale {
        read(state);
    }
}

/// The 24 hours up to now, oldest first, those without events included.
fn hours(known: &[HourOfEvents], now: UnixMillis) -> Vec<(UnixMillis, u64, Severity)> {
    let newest = now.0 - now.0.rem_euclid(HOUR);
    (0..HOURS)
        .rev()
        .map(|back| {
            let start = UnixMillis(newest - back * HOUR);
            let found = known.iter().find(|hour| hour.start == start);
            found.map_or((start, 0, Severity::Low), |hour| (start, hour.events, hour.worst))
        })
        .collect()
}

/// Draws it.
pub(super) fn draw(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let page = &state.world.security_counts;
    let shown = page.value.as_ref().map(|counts| hours(&counts.hours, state.now));
    let events = shown.as_ref().map(|hours| hours.iter().map(|(_, events, _)| events).sum());
    let events = events.map_or_else(|| painter.symbols.ellipsis.to_owned(), text::count);
    let title = painter.words.fill("security.day", &[("count", &events)]);
    let panel = painter.panel(area, &title, Emphasis::Resting);
    stale(painter, area, page);
    let inside = inset(panel, 1);
    let Some(hours) = shown else {
        let mut y = 0;
        for (line, role) in unread(painter.words, page).into_iter().flatten() {
            y += painter.paragraph(below(inside, y), &line, role);
        }
        return;
    };
    let beside = inside.width >= BESIDE;
    // Two cells for an hour at least, more where there is room.
    let strip_cells = if beside { (inside.width * 3 / 5).max(48) } else { inside.width };
    let strip = Rect { width: strip_cells, ..inside };
    let high = if inside.height >= 5 { 3 } else { inside.height.saturating_sub(1).max(1) };
    let fields: Vec<_> = hours.iter().map(|(_, events, worst)| (*events, signs::severity(*worst).1)).collect();
    let width = chart::heat(painter, Rect { height: high, ..strip }, &fields);
    draw_hours(state, painter, row(strip, high), &hours, width);
    if inside.height > high + 1 {
        draw_legend(painter, row(strip, inside.height - 1));
    }
    if beside {
        let x = inside.x + (width * 24).max(24) + 3;
        draw_sources(state, painter, Rect { x, width: inside.right().saturating_sub(x), ..inside });
    }
}

/// The local hour below every third field.
fn draw_hours(state: &State, painter: &mut Painter<'_>, line: Rect, hours: &[(UnixMillis, u64, Severity)], width: u16) {
    for (number, (start, ..)) in hours.iter().enumerate().filter(|(number, _)| number % 3 == 2) {
        let time = state.words.time(*start);
        let hour = time.get(..2).unwrap_or_default();
        let x = line.x + cells(number) * width;
        painter.text(Rect { x, width: 2.min(line.right().saturating_sub(x)), ..line }, hour, Role::Faint);
    }
}

fn draw_legend(painter: &mut Painter<'_>, line: Rect) {
    let mut parts = Vec::new();
    for severity in [Severity::Low, Severity::Medium, Severity::High, Severity::Critical] {
        let (word, role) = signs::severity(severity);
        parts.push((painter.symbols.shades[3].to_owned(), role));
        parts.push((format!(" {}  ", painter.say(word)), Role::Faint));
    }
    let parts: Vec<(&str, Role)> = parts.iter().map(|(text, role)| (text.as_str(), *role)).collect();
    painter.parts(line, &parts);
}

fn draw_sources(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let title = painter.say("security.sources");
    painter.text(row(area, 0), &title, Role::Muted);
    let sources =
        state.world.security_counts.value.as_ref().map(|counts| counts.sources.as_slice()).unwrap_or_default();
    if sources.is_empty() {
        let none = painter.say("security.no_sources");
        painter.text(row(area, 1), &none, Role::Faint);
    }
    let bars: Vec<Bar> = sources
        .iter()
        .map(|(address, count)| Bar {
            label: address.to_string(),
            value: *count,
            shown: text::short_count(*count),
            role: Role::Warn,
        })
        .collect();
    chart::bars(painter, below(area, 1), &bars);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strip_has_every_hour_of_the_day_up_to_now() {
        let now = UnixMillis(100 * HOUR + 5);
        let hour = |start: i64, events| HourOfEvents { start: UnixMillis(start * HOUR), events, worst: Severity::High };
        let strip = hours(&[hour(3, 9), hour(77, 2), hour(100, 5)], now);
        assert_eq!(strip.len(), 24);
        assert_eq!(strip[0], (UnixMillis(77 * HOUR), 2, Severity::High));
        assert_eq!((strip[23].1, strip[1].1), (5, 0), "older ones are left out, empty ones are shown");
    }
}
