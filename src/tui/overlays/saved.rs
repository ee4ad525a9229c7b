//! Saved comparisons: seen, opened, deleted.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;

use crate::tui::action::Command;
use crate::tui::geometry::{ListId, Target};
use crate::tui::overlays::confirm::{Confirm, Then};
use crate::tui::overlays::{self, Overlay, Stays};
use crate::tui::signs::unread;
use crate::tui::state::State;
use crate::tui::theme::Role;
use crate::tui::widgets::cursor::moved;
use crate::tui::widgets::painter::{Painter, row};
use crate::tui::widgets::popup;
use crate::tui::widgets::table::{self, Cell, Column, Table, Width};
use crate::types::calls::comparisons::{DeleteComparison, ShowComparison};
use crate::types::comparison::ComparisonEntry;
use crate::types::text::escape;

/// The box.
#[derive(Debug, Default)]
pub struct Saved {
    selected: usize,
}

fn entries(state: &State) -> &[ComparisonEntry] {
    state.world.comparisons.value.as_deref().unwrap_or_default()
}

impl Saved {
    fn entry<'a>(&self, state: &'a State) -> Option<&'a ComparisonEntry> {
        let all = entries(state);
        all.get(self.selected.min(all.len().saturating_sub(1)))
    }

    /// Takes a key press.
    pub fn press(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        let command = match key.code {
            KeyCode::Enter => return self.choose(state, self.selected),
            KeyCode::Char('x') | KeyCode::Delete => {
                self.ask_to_delete(state);
                return Stays::Open;
            }
            KeyCode::Char('q') => return Stays::Closed,
            KeyCode::Up | KeyCode::Char('k') => Command::Up,
            KeyCode::Down | KeyCode::Char('j') => Command::Down,
            KeyCode::PageUp => Command::PageUp,
            KeyCode::PageDown => Command::PageDown,
            _ => return Stays::Open,
        };
        let page = state.geometry.page(ListId::Overlay);
        self.selected = moved(self.selected, command, page, entries(state).len()).unwrap_or(0);
        Stays::Open
    }

    /// Opens a row.
    pub fn choose(&mut self, state: &mut State, number: usize) -> Stays {
        self.selected = number;
        let Some(id) = self.entry(state).map(|entry| entry.id) else { return Stays::Open };
        state.call(ShowComparison { id });
        Stays::Closed
    }

    fn ask_to_delete(&self, state: &mut State) {
        let Some(entry) = self.entry(state) else { return };
        let (id, number) = (entry.id, entry.id.to_string());
        let body = state
            .words
            .fill("compare.delete_body", &[("number", &number), ("models", &escape(&entry.models.join(", ")))]);
        let then = Then::call(DeleteComparison { id });
        overlays::open(state, Overlay::Confirm(Confirm::new("compare.delete_title", body, "button.delete", then)));
    }

    /// Draws it.
    pub fn draw(&self, state: &State, painter: &mut Painter<'_>, screen: Rect) {
        let all = entries(state);
        let title = painter.say("compare.history");
        let area = popup::open(painter, screen, &title, 96, screen.height.saturating_sub(4).min(24));
        let body = Rect { y: area.y + 1, height: area.height.saturating_sub(3), ..area };
        let page = &state.world.comparisons;
        if all.is_empty() {
            let none = || vec![(painter.say("compare.none_saved").into_owned(), Role::Muted)];
            let lines = unread(painter.words, page).unwrap_or_else(none);
            painter.message(body, &lines);
        } else {
            let say = |key| state.words.say(key);
            let columns = [
                Column::number(say("security.number"), 6, 0),
                Column::text(say("column.time"), Width::Exact(16), 1),
                Column::number(say("compare.runs_column"), 4, 3),
                Column::text(say("column.models"), Width::Share { min: 20, weight: 1 }, 0),
                Column::text(say("compare.prompt"), Width::Share { min: 12, weight: 1 }, 2),
            ];
            let selected = Some(self.selected.min(all.len() - 1));
            let table = Table {
                list: ListId::Overlay,
                columns: &columns,
                rows: all.len(),
                selected,
                target: Target::OverlayRow,
            };
            table::draw(painter, body, &table, |index, column| {
                let entry = &all[index];
                match column {
                    0 => Cell::new(entry.id.to_string(), Role::Popup),
                    1 => Cell::new(state.words.date_time(entry.created), Role::Muted),
                    2 => Cell::new(entry.runs.to_string(), Role::Muted),
                    3 => Cell::outside(&entry.models.join(", "), Role::Popup),
                    _ => Cell::outside(&entry.prompt, Role::Muted),
                }
            });
        }
        let hint = painter.say("compare.history_hint");
        painter.text(row(area, area.height.saturating_sub(1)), &hint, Role::Muted);
    }
}
