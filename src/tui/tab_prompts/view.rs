//! How the Prompts tab looks: prompts or versions left, text or editor right.

use ratatui::layout::Rect;

use crate::tui::geometry::{ListId, Target};
use crate::tui::state::{State, WIDE};
use crate::tui::tab_prompts::preview::Preview;
use crate::tui::tab_prompts::{self, Draft, EditorFocus, History, Shows};
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::view::{empty_page, panel_title, stale};
use crate::tui::widgets::painter::{Emphasis, Painter, below, inset, row};
use crate::tui::widgets::table::{self, Cell, Column, Table, Width};
use crate::types::line_diff::{self, Line};
use crate::types::prompt::PromptView;
use crate::types::text::escape;

/// Columns from which two versions stand side by side.
const LEAST_SIDE_BY_SIDE: u16 = 60;

/// Draws it.
pub fn draw(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let editing = state.prompts.focus == EditorFocus::Editor;
    let left = if editing && !state.is_wide() { 0 } else { (area.width * 2 / 5).clamp(28, 56) };
    let list = Rect { width: left, ..area };
    let right = Rect { x: area.x + left, width: area.width - left, ..area };
    if left > 0 {
        match (&state.prompts.focus, &state.prompts.history) {
            (EditorFocus::History, Some(history)) => draw_history(state, painter, list, history),
            _ => draw_list(state, painter, list),
        }
    }
    match (&state.prompts.draft, editing) {
        (Some(draft), true) => match &draft.preview {
            Some(preview) => {
                let (editor, below) = halves(right);
                draw_editor(painter, editor, draft);
                draw_preview(painter, below, preview);
            }
            None => draw_editor(painter, right, draft),
        },
        _ => match tab_prompts::compared(state).filter(|_| state.prompts.shows == Shows::Difference) {
            Some((older, newer)) => draw_difference(painter, right, older, newer),
            None => draw_text(state, painter, right),
        },
    }
}

fn draw_list(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let rows = tab_prompts::rows(state);
    let page = &state.world.prompts;
    let all = page.value.as_ref().map(Vec::len);
    let title = panel_title(state, "tab.prompts", rows.len(), all);
    let emphasis = Emphasis::when(state.prompts.focus == EditorFocus::List);
    let inside = painter.panel_with(area, &title.parts(), emphasis);
    let draft = state.prompts.draft.as_ref().filter(|draft| draft.is_changed());
    // One that was never saved has no row.
    if let Some(draft) = draft.filter(|draft| !rows.iter().any(|prompt| prompt.api_id == draft.api_id)) {
        painter.foot_note(area, &escape(&format!("{} *", draft.api_id)), Role::Warn);
    }
    stale(painter, area, page);
    if rows.is_empty() {
        empty_page(state, painter, inside, page, all.unwrap_or(0), &["prompts.empty", "prompts.empty_hint"]);
        return;
    }
    let say = |key| state.words.say(key);
    let columns = [
        Column::text(say("column.route"), Width::Share { min: 14, weight: 1 }, 0),
        Column::number(say("column.version"), 5, 1),
        Column::text(say("column.changed"), Width::Exact(16), 2),
    ];
    let selected = tab_prompts::selected(state, &rows);
    let table = Table { list: ListId::Prompts, columns: &columns, rows: rows.len(), selected, target: Target::Row };
    table::draw(painter, inside, &table, |index, column| {
        let prompt = rows[index];
        let above = index.checked_sub(1).map(|above| rows[above]);
        match column {
            0 if draft.is_some_and(|draft| draft.api_id == prompt.api_id) => {
                Cell::outside(&format!("{} *", whose(state, prompt, above)), Role::Warn)
            }
            0 => Cell::outside(&whose(state, prompt, above), Role::Text),
            1 => Cell::new(prompt.version.to_string(), Role::Muted),
            _ => Cell::new(state.words.date_time(prompt.updated), Role::Muted),
        }
    });
}

/// The route of a prompt and the label of the key that it is for; below a prompt of the same route the key alone.
fn whose(state: &State, prompt: &PromptView, above: Option<&PromptView>) -> String {
    let Some((route, id)) = prompt.api_id.split_once('@') else { return prompt.api_id.clone() };
    let key = state.world.keys.value.iter().flatten().find(|key| key.id.as_str() == id);
    let key = key.map_or(id, |key| key.label.as_str());
    let same = above.is_some_and(|above| above.api_id.split('@').next() == Some(route));
    if same { format!("  @ {key}") } else { format!("{route} @ {key}") }
}

fn draw_history(state: &State, painter: &mut Painter<'_>, area: Rect, history: &History) {
    let title = painter.words.fill("prompts.history", &[("id", &escape(&history.api_id))]);
    let inside = painter.panel(area, &title, Emphasis::Focused);
    let Some(versions) = &history.versions else {
        let reading = painter.say("link.reading").into_owned();
        painter.message(inside, &[(reading, Role::Muted)]);
        return;
    };
    let say = |key| state.words.say(key);
    let columns = [
        Column::number(say("column.version"), 5, 0),
        Column::text(say("column.changed"), Width::Exact(16), 0),
        Column::text(say("prompts.text"), Width::Share { min: 8, weight: 1 }, 1),
    ];
    let selected = Some(history.selected).filter(|_| !versions.is_empty());
    let table = Table { list: ListId::History, columns: &columns, rows: versions.len(), selected, target: Target::Row };
    table::draw(painter, inside, &table, |index, column| {
        let version: &PromptView = &versions[index];
        match column {
            0 => Cell::new(version.version.to_string(), Role::Text),
            1 => Cell::new(state.words.date_time(version.updated), Role::Muted),
            _ => Cell::outside(version.text.lines().next().unwrap_or_default(), Role::Muted),
        }
    });
}

fn draw_text(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let draft = state.prompts.draft.as_ref().filter(|draft| draft.is_changed());
    let (title, text) = match (tab_prompts::shown_version(state), draft) {
        (Some(prompt), _) => (format!("{} v{}", prompt.api_id, prompt.version), prompt.text.clone()),
        (None, Some(draft)) => (format!("{} *", draft.api_id), draft.text()),
        (None, None) => {
            let inside = inset(painter.panel(area, &painter.say("prompts.text"), Emphasis::Resting), 1);
            // Beside versions that are being read there is none yet.
            if state.prompts.focus != EditorFocus::History {
                let about = painter.say("prompts.about").into_owned();
                painter.message(inside, &[(about, Role::Muted)]);
            }
            return;
        }
    };
    let inside = inset(painter.panel(area, &escape(&title), Emphasis::Resting), 1);
    draw_lines(painter, inside, &text);
}

/// Side by side where there is room, else one above the other.
fn halves(area: Rect) -> (Rect, Rect) {
    if area.width >= WIDE {
        let left = area.width / 2;
        return (Rect { width: left, ..area }, Rect { x: area.x + left, width: area.width - left, ..area });
    }
    let top = area.height.div_ceil(2);
    (Rect { height: top, ..area }, below(area, top))
}

fn draw_preview(painter: &mut Painter<'_>, area: Rect, preview: &Preview) {
    let title = painter.say("prompts.preview");
    let inside = inset(painter.panel(area, &title, Emphasis::Resting), 1);
    match &preview.shown {
        None => {
            let reading = painter.say("link.reading");
            painter.text(row(inside, 0), &reading, Role::Muted);
        }
        Some(Ok(text)) => draw_lines(painter, inside, text),
        Some(Err(failure)) => {
            let used = painter.paragraph(inside, &escape(&failure.message), Role::Error);
            painter.paragraph(below(inside, used), &escape(failure.hint.as_deref().unwrap_or_default()), Role::Muted);
        }
    }
}

fn draw_lines(painter: &mut Painter<'_>, inside: Rect, text: &str) {
    let mut y = 0;
    for line in text.split('\n') {
        if y >= inside.height {
            break;
        }
        y += painter.paragraph(below(inside, y), &escape(line), Role::Text).max(1);
    }
}

/// Two versions side by side, the older one left; one above the other where the columns would be too narrow to read.
fn draw_difference(painter: &mut Painter<'_>, area: Rect, older: &PromptView, newer: &PromptView) {
    let values = [("older", older.version.to_string()), ("newer", newer.version.to_string())];
    let title =
        painter.words.fill("prompts.difference", &values.each_ref().map(|(name, value)| (*name, value.as_str())));
    let inside = inset(painter.panel(area, &title, Emphasis::Resting), 1);
    let lines = line_diff::diff(&older.text, &newer.text);
    if inside.width < LEAST_SIDE_BY_SIDE {
        for (y, line) in (0..inside.height).zip(&lines) {
            let (sign, text, role) = match line {
                Line::Same(text) => ("  ", text, Role::Muted),
                Line::Old(text) => ("- ", text, Role::Error),
                Line::New(text) => ("+ ", text, Role::Ok),
            };
            let used = painter.text(row(inside, y), sign, role);
            painter.outside(Rect { x: inside.x + used, width: inside.width - used, ..row(inside, y) }, text, role);
        }
        return;
    }
    let half = inside.width / 2;
    let bar = painter.symbols.bar;
    for (y, (left, right)) in (0..inside.height).zip(line_diff::side_by_side(&lines)) {
        let line = row(inside, y);
        let same = left == right;
        let role = |changed| if same { Role::Muted } else { changed };
        painter.outside(Rect { width: half.saturating_sub(2), ..line }, left.unwrap_or_default(), role(Role::Error));
        painter.text(Rect { x: line.x + half - 1, width: 1, ..line }, bar, Role::Border);
        let place = Rect { x: line.x + half + 1, width: line.width - half - 1, ..line };
        painter.outside(place, right.unwrap_or_default(), role(Role::Ok));
    }
}

fn draw_editor(painter: &mut Painter<'_>, area: Rect, draft: &Draft) {
    let changed = if draft.is_changed() { " *" } else { "" };
    let title = escape(&draft.api_id).into_owned();
    let parts = [(title.as_str(), Role::Title), (changed, Role::Warn)];
    let inside = painter.panel_with(area, &parts, Emphasis::Focused);
    let note = match (&draft.failure, draft.saving) {
        (Some(failure), _) => (escape(&failure.message).into_owned(), Role::Error),
        (None, Some(_)) => (painter.say("prompts.saving").into_owned(), Role::Info),
        (None, None) => (text::count(draft.text().len() as u64) + " B", Role::Faint),
    };
    painter.foot_note(area, &note.0, note.1);
    let inside = inset(inside, 1);
    let hint = painter.say("prompts.placeholders");
    painter.text(row(inside, inside.height.saturating_sub(1)), &hint, Role::Faint);
    let place = Rect { height: inside.height.saturating_sub(2), ..inside };
    draft.area.draw(painter, place, Emphasis::Focused);
}
