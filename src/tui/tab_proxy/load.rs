//! The Proxy tab's fourth view: how the load lies. Latency histogram, who waits for which engine, top models and keys as
//! bars (SPEC §9.3).

use ratatui::layout::Rect;

use crate::tui::signs::unread;
use crate::tui::state::State;
use crate::tui::tab_proxy::view;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::widgets::chart::{self, Bar};
use crate::tui::widgets::painter::{Painter, below, cells, inset, row};
use crate::tui::world::Page;
use crate::types::engine::EngineView;
use crate::types::spread::Spread;
use crate::types::text::escape;
use crate::types::usage::UsageBy;

/// Upper ends of the histogram's classes in milliseconds: 1, 2 and 5 of each power of ten, up to where requests are given
/// up.
const CLASSES: [f64; 17] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 10e3, 20e3, 50e3, 100e3, 200e3];
/// Rows of the rates, a blank one below them included.
const RATES: u16 = 4;
/// Rows that the queue has to be left with beside them.
const ROOM_FOR_RATES: u16 = 6;
/// Fewest rows of a part that show more than its title.
const LEAST: u16 = 3;

/// How many latencies lie in each class; the last count is of those beyond all classes.
fn histogram(latencies: &[f64]) -> [u64; CLASSES.len() + 1] {
    let mut counts = [0; CLASSES.len() + 1];
    for latency in latencies {
        let class = CLASSES.iter().position(|end| latency <= end).unwrap_or(CLASSES.len());
        counts[class] += 1;
    }
    counts
}

/// Draws it.
pub(super) fn draw(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let inside = inset(view::draw_frame(state, painter, area, 0, None), 1);
    let half = inside.width / 2;
    let left = Rect { width: half.saturating_sub(1), ..inside };
    let right = Rect { x: inside.x + half + 1, width: inside.width.saturating_sub(half + 1), ..inside };
    // The histogram has the most to say.
    let top = (inside.height * 3 / 5).max(LEAST.min(inside.height));
    // A blank row stands between the parts.
    let above = top.saturating_sub(1);
    draw_histogram(state, painter, Rect { height: above, ..left });
    // On a small screen who waits matters more.
    let rates = if above >= RATES + ROOM_FOR_RATES { RATES } else { 0 };
    draw_rates(state, painter, Rect { height: rates, ..right });
    draw_queue(state, painter, below(Rect { height: above, ..right }, rates));
    draw_top(state, painter, below(left, top), UsageBy::Model);
    draw_top(state, painter, below(right, top), UsageBy::Key);
}

fn draw_histogram(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let latencies: Vec<f64> =
        state.world.requests.iter().filter_map(crate::types::request::RequestRow::latency_ms).collect();
    let count = text::count(latencies.len() as u64);
    let title = painter.words.fill("load.latency", &[("count", &count)]);
    painter.text(row(area, 0), &title, Role::Muted);
    let Some(spread) = Spread::of(latencies.iter().copied()) else {
        let none = painter.say("proxy.no_requests");
        painter.text(row(area, 1), &none, Role::Faint);
        return;
    };
    let figures = [("p50", spread.p50), ("p95", spread.p95), ("p99", spread.p99)];
    let figures: Vec<_> = figures.iter().map(|(name, value)| format!("{name} {}", text::millis(*value))).collect();
    painter.text(row(area, 1), &figures.join("  "), Role::Text);
    let counts = histogram(&latencies);
    let first = counts.iter().position(|count| *count > 0).unwrap_or(0);
    let last = counts.iter().rposition(|count| *count > 0).unwrap_or(0);
    let place = below(area, 2);
    // Neighbours are put together until all rows fit.
    let at_most = painter.symbols.at_most;
    let step = (last + 1 - first).div_ceil(usize::from(place.height).max(1)).max(1);
    let bars: Vec<Bar> = (first..=last)
        .step_by(step)
        .map(|from| {
            let to = (from + step - 1).min(last);
            let label = match CLASSES.get(to) {
                Some(end) => format!("{at_most} {}", text::millis(*end)),
                None => format!("> {}", text::millis(CLASSES[CLASSES.len() - 1])),
            };
            let count: u64 = counts[from..=to].iter().sum();
            Bar { label, value: count, shown: text::count(count), role: Role::Chart }
        })
        .collect();
    chart::bars(painter, place, &bars);
}

/// Requests and tokens of each second of the last minute.
fn draw_rates(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let title = painter.say("load.rates");
    painter.text(row(area, 0), &title, Role::Muted);
    let traffic = &state.world.traffic;
    let rates = [
        ("header.per_second", traffic.requests_per_second, &traffic.history, Role::Chart),
        ("header.tokens", traffic.tokens_per_second, &traffic.token_history, Role::ChartAlt),
    ];
    let label_cells = cells(rates.iter().map(|(key, ..)| text::width(&painter.say(key))).max().unwrap_or(0));
    for (number, (key, now, history, role)) in (1..).zip(rates) {
        let line = row(area, number);
        let label = painter.say(key);
        painter.text(Rect { width: label_cells.min(line.width), ..line }, &label, Role::Text);
        painter.right(line, &text::rate(f64::from(now)), Role::Muted);
        // Room for a figure of six cells and the gaps around it.
        let place = Rect { x: line.x + label_cells + 1, width: line.width.saturating_sub(label_cells + 8), ..line };
        let spark = chart::spark(painter.symbols, history, usize::from(place.width).min(history.len()));
        painter.text(place, &spark, role);
    }
}

/// Requests that run and wait, engine by engine, the busiest first.
fn draw_queue(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let waiting: u64 = state.world.engines.iter().map(|engine| u64::from(engine.queued)).sum();
    let title = painter.words.fill("load.queue", &[("count", &text::count(waiting))]);
    painter.text(row(area, 0), &title, if waiting > 0 { Role::Warn } else { Role::Muted });
    let mut engines: Vec<&EngineView> = state.world.engines.iter().collect();
    engines.sort_by_key(|engine| (std::cmp::Reverse((engine.queued, engine.in_flight)), engine.record.id.clone()));
    if engines.is_empty() {
        let none = painter.say("engines.empty");
        painter.text(row(area, 1), &none, Role::Faint);
    }
    let place = below(area, 1);
    let label_cells = engines.iter().map(|engine| text::width(engine.record.id.as_str())).max().unwrap_or(0);
    // The figure of three digits each, and a bar that still says something.
    let label_cells = cells(label_cells).min(place.width.saturating_sub(1 + 12 + 4));
    for (line, engine) in engines.iter().take(usize::from(place.height)).enumerate() {
        let line = row(place, cells(line));
        painter.text(Rect { width: label_cells, ..line }, engine.record.id.as_str(), Role::Text);
        let slots = if engine.slots == 0 { painter.symbols.unknown.to_owned() } else { engine.slots.to_string() };
        let waits = if engine.queued > 0 { format!(" +{}", engine.queued) } else { String::new() };
        let figure = format!("{}/{slots}{waits}", engine.in_flight);
        let role = if engine.queued > 0 { Role::Warn } else { Role::Muted };
        painter.right(line, &figure, role);
        let x = line.x + label_cells + 1;
        let bar = Rect { x, width: line.right().saturating_sub(x + 12), ..line };
        if bar.width > 3 && engine.slots > 0 {
            let part = f64::from(engine.in_flight) / f64::from(engine.slots);
            let role = if engine.queued > 0 { Role::Warn } else { Role::Chart };
            chart::gauge(painter, bar, part, role);
        }
    }
}

fn draw_top(state: &State, painter: &mut Painter<'_>, area: Rect, by: UsageBy) {
    let span = painter.say(state.proxy.usage.span.title());
    let key = if by == UsageBy::Key { "load.top_keys" } else { "load.top_models" };
    let title = painter.words.fill(key, &[("span", &span)]);
    painter.text(row(area, 0), &title, Role::Muted);
    let unasked = Page::default();
    let page = state.world.usage.get(&by).unwrap_or(&unasked);
    let Some(report) = &page.value else {
        let mut y = 1;
        for (line, role) in unread(painter.words, page).into_iter().flatten() {
            y += painter.paragraph(below(area, y), &line, role);
        }
        return;
    };
    if report.rows.is_empty() {
        let none = painter.say("usage.empty");
        painter.text(row(area, 1), &none, Role::Faint);
        return;
    }
    let bars: Vec<Bar> = report
        .rows
        .iter()
        .map(|usage| Bar {
            label: escape(usage.label.as_deref().unwrap_or(&usage.name)).into_owned(),
            value: usage.sums.requests,
            shown: painter.words.fill(
                "load.requests_tokens",
                &[
                    ("requests", &text::short_count(usage.sums.requests)),
                    ("tokens", &text::short_count(usage.sums.completion_tokens)),
                ],
            ),
            role: Role::ChartAlt,
        })
        .collect();
    chart::bars(painter, below(area, 1), &bars);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_lies_in_the_first_class_that_holds_it() {
        let counts = histogram(&[0.4, 1.0, 1.1, 90.0, 100.0, 1e9]);
        assert_eq!((counts[0], counts[1], counts[6], counts[CLASSES.len()]), (2, 1, 2, 1));
        assert_eq!(counts.iter().sum::<u64>(), 6);
        assert!(CLASSES.is_sorted());
    }
}
