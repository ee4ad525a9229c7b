//! How the Models tab looks.

use ratatui::layout::Rect;

use crate::tui::action::Command;
use crate::tui::geometry::{ListId, Target};
use crate::tui::overlays::profile_form;
use crate::tui::state::{Detail, State};
use crate::tui::tab_engines::view::capability;
use crate::tui::tab_models::{self, SortBy, View, chat_view, compare_view};
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::view::{empty, panel_title, split_detail, views_panel};
use crate::tui::widgets::painter::{Emphasis, Painter, below, inset, row};
use crate::tui::widgets::table::{self, Cell, Column, Table, Width};
use crate::types::engine::{Capability, ModelView};
use crate::types::profile::Parameter;
use crate::types::text::escape;

/// Names of the views.
pub(super) const NAMES: [&str; 3] = ["tab.models", "models.chat", "models.compare"];

/// Draws it.
pub fn draw(state: &State, painter: &mut Painter<'_>, area: Rect) {
    match state.models.view {
        View::List => draw_list(state, painter, area),
        View::Chat => chat_view::draw(state, painter, area),
        View::Compare => compare_view::draw(state, painter, area),
    }
}

fn draw_list(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let rows = tab_models::rows(state);
    let selected = tab_models::selected(state, &rows);
    let (list, detail) = split_detail(state, area, selected.is_some());
    if let Some(list) = list {
        let title = panel_title(state, "tab.models", rows.len(), Some(state.world.models.len()));
        let emphasis = Emphasis::when(state.detail == Detail::Closed);
        let inside = views_panel(painter, list, &NAMES, View::List as usize, Some(&title), emphasis);
        if rows.is_empty() {
            empty(state, painter, inside, state.world.models.len(), &["models.empty", "models.empty_hint"]);
        } else {
            draw_table(state, painter, inside, &rows, selected);
        }
    }
    if let (Some(area), Some(at)) = (detail, selected) {
        draw_detail(state, painter, area, rows[at]);
    }
}

/// Capabilities that tell models apart, as one letter each.
const LETTERS: [(Capability, char); 7] = [
    (Capability::Chat, 'C'),
    (Capability::Embeddings, 'E'),
    (Capability::Tools, 'T'),
    (Capability::Vision, 'V'),
    (Capability::Reasoning, 'R'),
    (Capability::AudioIn, 'A'),
    (Capability::Rerank, 'K'),
];

fn letters(model: &ModelView, off: &str) -> String {
    LETTERS.iter().fold(String::new(), |mut line, (capability, letter)| {
        if model.capabilities.contains(capability) {
            line.push(*letter);
        } else {
            line.push_str(off);
        }
        line
    })
}

fn draw_table(state: &State, painter: &mut Painter<'_>, area: Rect, rows: &[&ModelView], selected: Option<usize>) {
    let say = |key| state.words.say(key);
    let sorted = |by: SortBy| (state.models.sort == by).then_some(state.models.order);
    let columns = [
        Column {
            order: sorted(SortBy::Name),
            ..Column::text(say("column.model"), Width::Share { min: 20, weight: 3 }, 0)
        },
        Column {
            order: sorted(SortBy::Engine),
            ..Column::text(say("column.engine"), Width::Share { min: 10, weight: 1 }, 2)
        },
        Column::text(say("column.abilities"), Width::Exact(7), 4),
        Column { order: sorted(SortBy::Context), ..Column::number(say("column.context"), 7, 1) },
        Column { order: sorted(SortBy::Size), ..Column::number(say("column.size"), 8, 3) },
        Column::text(say("column.quantization"), Width::Exact(8), 6),
        Column { order: sorted(SortBy::Loaded), ..Column::text(say("column.loaded"), Width::Exact(10), 2) },
    ];
    let symbols = painter.symbols;
    let table = Table { list: ListId::Models, columns: &columns, rows: rows.len(), selected, target: Target::Row };
    table::draw(painter, area, &table, |index, column| {
        let model = rows[index];
        let main = if model.available { Role::Text } else { Role::Faint };
        let none = || Cell::new(symbols.off, Role::Faint);
        match column {
            // Marked for the comparison.
            0 if state.models.compare.has(&model.listed_as) => {
                Cell::outside(&format!("{} {}", symbols.ok, model.listed_as), Role::Accent)
            }
            0 => Cell::outside(&model.listed_as, main),
            1 => Cell::new(model.name.engine.to_string(), Role::Muted),
            2 => Cell::new(letters(model, symbols.off), Role::Info),
            3 => model.context_length.map_or_else(none, |tokens| Cell::new(text::short_count(tokens.into()), main)),
            4 => model.size_bytes.map_or_else(none, |bytes| Cell::new(text::bytes(bytes), main)),
            5 => model.quantization.as_deref().map_or_else(none, |q| Cell::outside(q, Role::Muted)),
            _ => loaded(state, model),
        }
    });
}

fn loaded(state: &State, model: &ModelView) -> Cell {
    let symbols = state.symbols();
    let (sign, key, role) = match (model.available, model.loaded) {
        (false, _) => (symbols.error, "model.unavailable", Role::Error),
        (true, Some(true)) => (symbols.ok, "model.loaded", Role::Ok),
        (true, Some(false)) => (symbols.off, "model.not_loaded", Role::Muted),
        (true, None) => (symbols.unknown, "model.unknown", Role::Muted),
    };
    Cell::new(format!("{sign} {}", state.words.say(key)), role)
}

fn draw_detail(state: &State, painter: &mut Painter<'_>, area: Rect, model: &ModelView) {
    let title = escape(&model.listed_as).into_owned();
    let inside = painter.panel(area, &title, Emphasis::when(state.detail == Detail::Open));
    let inside = inset(inside, 1);
    let off = painter.symbols.off.to_owned();
    let loaded = loaded(state, model);
    let context = model.context_length.map_or_else(|| off.clone(), |tokens| text::count(tokens.into()));
    let size = model.size_bytes.map_or_else(|| off.clone(), text::bytes);
    let pairs = [
        ("column.loaded", loaded.text.into_owned(), loaded.role),
        ("column.engine", model.name.engine.to_string(), Role::Text),
        ("column.kind", escape(model.kind.as_str()).into_owned(), Role::Text),
        ("column.context", context, Role::Text),
        ("column.size", size, Role::Text),
        ("model.parameters", escape(model.parameters.as_deref().unwrap_or(&off)).into_owned(), Role::Text),
        ("column.quantization", escape(model.quantization.as_deref().unwrap_or(&off)).into_owned(), Role::Text),
    ];
    let mut y = painter.pairs(inside, inside.height, &pairs);
    let label = painter.say("model.canonical");
    painter.text(row(inside, y + 1), &label, Role::Muted);
    y += 2 + painter.paragraph(below(inside, y + 2), &escape(&model.name.to_string()), Role::Text);
    let label = painter.say("engine.capabilities");
    painter.text(row(inside, y + 1), &label, Role::Muted);
    let abilities: Vec<_> = model.capabilities.iter().map(|c| painter.say(capability(*c))).collect();
    let abilities = if abilities.is_empty() { off } else { abilities.join(", ") };
    y += 2 + painter.paragraph(below(inside, y + 2), &abilities, Role::Text);
    draw_profile(state, painter, below(inside, y + 1), model);
}

/// Label and values of the model's profile, or how to make one.
fn draw_profile(state: &State, painter: &mut Painter<'_>, area: Rect, model: &ModelView) {
    let label = painter.say("model.profile");
    painter.text(row(area, 0), &label, Role::Muted);
    let Some(profile) = profile_form::profile_of(state, &model.name) else {
        let key = state.keymap.first(Command::EditProfile);
        let hint = painter.words.fill("model.profile_none", &[("key", &key)]);
        painter.paragraph(below(area, 1), &hint, Role::Faint);
        return;
    };
    painter.outside(row(area, 1), &profile.label, Role::Text);
    let pinned = painter.say("form.pinned");
    let told = |value: &Parameter| {
        let pinned = if value.pinned { format!(" ({pinned})") } else { String::new() };
        format!("{} {}{pinned}", value.name, value.value)
    };
    let values: Vec<_> = profile.parameters.iter().map(told).collect();
    painter.paragraph(below(area, 2), &escape(&values.join(", ")), Role::Text);
}
