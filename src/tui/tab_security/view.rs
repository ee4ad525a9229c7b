//! How the Security tab looks.

use ratatui::layout::Rect;

use crate::tui::action::Command;
use crate::tui::geometry::{ListId, Target};
use crate::tui::signs::{kind, severity};
use crate::tui::state::{Detail, State};
use crate::tui::tab_security::list::Span;
use crate::tui::tab_security::{self, list, overview};
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::view::{ListNote, PanelTitle, list_note, list_without_rows, split_detail};
use crate::tui::widgets::painter::{Emphasis, Painter, below, inset};
use crate::tui::widgets::table::{self, Cell, Column, Table, Width};
use crate::types::audit::{AuditRow, Severity};
use crate::types::calls::audit::AuditColumn;
use crate::types::text::escape;

/// Draws it.
pub fn draw(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let above = if state.detail == Detail::Closed || state.is_wide() { overview::rows(area.height) } else { 0 };
    if above > 0 {
        overview::draw(state, painter, Rect { height: above, ..area });
    }
    let area = below(area, above);
    let rows = tab_security::rows(state);
    let selected = tab_security::selected(state, &rows);
    let (left, detail) = split_detail(state, area, selected.is_some());
    if let Some(left) = left {
        let title = PanelTitle::of_part(state, "tab.security", rows.len(), list::total(state));
        let [name, count, filter] = title.parts();
        let chosen = &state.security.chosen;
        let mut limits = match chosen.least {
            Severity::Low => String::new(),
            least => format!("  {} {}", painter.symbols.at_least, painter.say(severity(least).0)),
        };
        if chosen.span != Span::All {
            limits.push_str(&format!("  {}", painter.say(chosen.span.word())));
        }
        let parts = [name, count, filter, (limits.as_str(), Role::Accent)];
        let inside = painter.panel_with(left, &parts, Emphasis::when(state.detail == Detail::Closed));
        let window = state.security.window();
        let standing = state.security.standing();
        let note = ListNote { reading: "security.loading", standing, follow: Command::FollowAudit };
        list_note(state, painter, left, (window, selected), &note);
        if rows.is_empty() {
            let lines = ["security.empty", "security.empty_hint"];
            list_without_rows(state, painter, inside, window, (state.world.audit.len(), &lines));
        } else {
            draw_table(state, painter, inside, &rows, selected);
        }
    }
    if let (Some(area), Some(at)) = (detail, selected) {
        draw_detail(state, painter, area, rows[at]);
    }
}

fn draw_table(state: &State, painter: &mut Painter<'_>, area: Rect, rows: &[&AuditRow], selected: Option<usize>) {
    let say = |key| state.words.say(key);
    let chosen = &state.security.chosen;
    let sorted = |by: AuditColumn| (chosen.by == by && !chosen.is_live()).then_some(chosen.order);
    let columns = [
        Column { order: sorted(AuditColumn::Time), ..Column::text(say("column.time"), Width::Exact(8), 1) },
        Column { order: sorted(AuditColumn::Severity), ..Column::text(say("column.severity"), Width::Exact(8), 0) },
        Column {
            order: sorted(AuditColumn::Kind),
            ..Column::text(say("column.event"), Width::Share { min: 18, weight: 1 }, 0)
        },
        Column {
            order: sorted(AuditColumn::Address),
            ..Column::text(say("column.address"), Width::Share { min: 15, weight: 0 }, 2)
        },
        Column::text(say("column.details"), Width::Share { min: 14, weight: 4 }, 3),
    ];
    let off = painter.symbols.off;
    let table = Table { list: ListId::Audit, columns: &columns, rows: rows.len(), selected, target: Target::Row };
    table::draw_part(painter, area, &table, list::slide(state), |index, column| {
        let event = &rows[index].event;
        let (word, role) = severity(event.severity);
        match column {
            0 => Cell::new(state.words.time(event.at), Role::Muted),
            1 => Cell::new(state.words.say(word), role),
            2 => Cell::new(state.words.say(kind(event.kind)), if role == Role::Muted { Role::Text } else { role }),
            3 => match event.address {
                Some(address) => Cell::new(address.to_string(), Role::Text),
                None => Cell::new(off, Role::Faint),
            },
            _ => Cell::outside(&event.details, Role::Muted),
        }
    });
}

fn draw_detail(state: &State, painter: &mut Painter<'_>, area: Rect, row_: &AuditRow) {
    let event = &row_.event;
    let title = painter.say(kind(event.kind));
    let inside = inset(painter.panel(area, &title, Emphasis::when(state.detail == Detail::Open)), 1);
    let off = painter.symbols.off.to_owned();
    let or_off = |text: Option<String>| text.map_or_else(|| off.clone(), |text| escape(&text).into_owned());
    let (word, role) = severity(event.severity);
    let pairs = [
        ("column.severity", painter.say(word).into_owned(), role),
        ("column.time", painter.words.exact(event.at), Role::Text),
        ("column.address", or_off(event.address.map(|address| address.to_string())), Role::Text),
        ("column.key", or_off(event.key.map(|key| key.to_string())), Role::Text),
        ("security.endpoint", or_off(event.endpoint.clone()), Role::Text),
        ("column.engine", or_off(event.engine.as_ref().map(ToString::to_string)), Role::Text),
        ("column.status", or_off(event.status.map(|status| status.to_string())), Role::Text),
        ("column.latency", or_off(event.latency_ms.map(|ms| text::millis(f64::from(ms)))), Role::Text),
        ("security.request", or_off(event.request_id.map(|id| id.to_string())), Role::Text),
        ("security.number", text::count(row_.sequence), Role::Text),
    ];
    let used = painter.pairs(inside, inside.height, &pairs);
    painter.paragraph(below(inside, used + 1), &escape(&event.details), Role::Text);
}
