//! The Proxy tab's third view: which models and keys were used most (SPEC §9.3).

use std::time::Duration;

use ratatui::layout::Rect;

use crate::tui::geometry::{ListId, Target};
use crate::tui::state::State;
use crate::tui::tab_proxy::view;
use crate::tui::tabs::Tab;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::view::{empty_page, stale};
use crate::tui::widgets::painter::{Painter, below, row};
use crate::tui::widgets::table::{self, Cell, Column, Table, Width};
use crate::tui::world::Page;
use crate::types::calls::usage::ShowUsage;
use crate::types::clock::UnixMillis;
use crate::types::failure::Outcome;
use crate::types::usage::{UsageBy, UsageReport};

/// While requests come, the sums are read again this often.
const FRESH: Duration = Duration::from_secs(5);

/// How far back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UsageSpan {
    /// 24 hours.
    #[default]
    Day,
    /// 7 days.
    Week,
    /// 30 days.
    Month,
}

impl UsageSpan {
    fn next(self) -> Self {
        match self {
            Self::Day => Self::Week,
            Self::Week => Self::Month,
            Self::Month => Self::Day,
        }
    }

    fn length(self) -> Duration {
        Duration::from_hours(match self {
            Self::Day => 24,
            Self::Week => 7 * 24,
            Self::Month => 30 * 24,
        })
    }

    /// The key of its name.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Day => "usage.day",
            Self::Week => "usage.week",
            Self::Month => "usage.month",
        }
    }
}

/// What the view remembers.
#[derive(Debug, Default)]
pub struct UsageView {
    /// How far back.
    pub span: UsageSpan,
    /// When the sums were asked for.
    asked: Option<UnixMillis>,
}

/// Shows the next span.
pub fn next_span(state: &mut State) {
    state.proxy.usage.span = state.proxy.usage.span.next();
    state.world.usage.clear();
    read(state);
}

/// Reads the sums.
pub fn read(state: &mut State) {
    let since = state.proxy.usage.span.length();
    state.proxy.usage.asked = Some(state.now);
    for by in [UsageBy::Model, UsageBy::Key] {
        state.read(ShowUsage { by, since });
    }
}

/// Requests came: reads the sums again when they are in view and no longer fresh.
pub fn keep_fresh(state: &mut State) {
    let in_view = state.tab == Tab::Proxy && state.proxy.view.shows_usage();
    if in_view && state.proxy.usage.asked.is_none_or(|asked| state.now.since(asked) >= FRESH) {
        read(state);
    }
}

/// Sums arrived; those of another span are late.
pub fn take(state: &mut State, call: &ShowUsage, outcome: Outcome<UsageReport>) {
    if call.since == state.proxy.usage.span.length() {
        state.world.usage.entry(call.by).or_default().take(outcome);
    }
}

/// Draws it.
pub(super) fn draw(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let unasked = Page::default();
    let page = state.world.usage.get(&UsageBy::Model).unwrap_or(&unasked);
    let report = page.value.as_ref();
    let count = report.map(|report| report.rows.len());
    let inside = view::draw_frame(state, painter, area, count.unwrap_or(0), count);
    if let Some(failed) = state.world.usage.values().find(|page| page.failure.is_some()) {
        stale(painter, area, failed);
    } else if let Some(report) = report {
        let total = &report.total;
        let values = [
            ("span", &*painter.say(state.proxy.usage.span.title())),
            ("requests", &text::count(total.requests)),
            ("in", &text::count(total.prompt_tokens)),
            ("out", &text::count(total.completion_tokens)),
        ];
        let note = painter.words.fill("usage.total", &values);
        painter.foot_note(area, &note, Role::Muted);
    }
    if count.unwrap_or(0) == 0 {
        empty_page(state, painter, inside, page, 0, &["usage.empty"]);
        return;
    }
    let (first, second) = if state.is_wide() {
        let half = inside.width / 2;
        let left = Rect { width: half.saturating_sub(1), ..inside };
        (left, Rect { x: inside.x + half + 1, width: inside.width - half - 1, ..inside })
    } else {
        let half = inside.height / 2;
        (Rect { height: half, ..inside }, below(inside, half))
    };
    draw_sums(state, painter, first, UsageBy::Model);
    draw_sums(state, painter, second, UsageBy::Key);
}

fn draw_sums(state: &State, painter: &mut Painter<'_>, area: Rect, by: UsageBy) {
    let Some(report) = state.world.usage.get(&by).and_then(|page| page.value.as_ref()) else { return };
    let (title, list) = match by {
        UsageBy::Key => ("column.key", ListId::UsageKeys),
        _ => ("column.model", ListId::UsageModels),
    };
    let say = |key| state.words.say(key);
    let columns = [
        Column::text(say(title), Width::Share { min: 16, weight: 1 }, 0),
        Column::number(say("column.requests"), 9, 1),
        Column::number(say("column.tokens_in"), 8, 2),
        Column::number(say("column.tokens_out"), 8, 0),
        Column::number(say("column.token_rate"), 7, 3),
        Column::number(say("column.ttft"), 8, 4),
    ];
    let table = Table { list, columns: &columns, rows: report.rows.len(), selected: None, target: Target::Row };
    let off = painter.symbols.off;
    table::draw(painter, Rect { height: area.height.max(1), ..row(area, 0) }, &table, |index, column| {
        let usage = &report.rows[index];
        let sums = &usage.sums;
        match column {
            0 => Cell::outside(usage.label.as_deref().unwrap_or(&usage.name), Role::Text),
            1 => Cell::new(text::count(sums.requests), Role::Text),
            2 => Cell::new(text::short_count(sums.prompt_tokens), Role::Text),
            // What was counted as it came is marked, as on the command line.
            3 if sums.estimated > 0 => Cell::new(format!("~{}", text::short_count(sums.completion_tokens)), Role::Text),
            3 => Cell::new(text::short_count(sums.completion_tokens), Role::Text),
            4 => Cell::new(usage.tokens_per_second.map_or_else(|| off.to_owned(), text::rate), Role::Muted),
            _ => Cell::new(usage.ttft_ms.map_or_else(|| off.to_owned(), text::millis), Role::Muted),
        }
    });
}
