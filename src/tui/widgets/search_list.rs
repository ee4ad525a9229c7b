//! A list that is searched by typing: the keys that move and search in it, and how its rows are marked.
//!
//! Used by the boxes that offer commands and models. Must never know what its rows are.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;

use crate::tui::action::Command;
use crate::tui::geometry::{ListGeometry, ListId, Target};
use crate::tui::theme::Role;
use crate::tui::widgets::cursor::moved;
use crate::tui::widgets::input::LineInput;
use crate::tui::widgets::painter::{Emphasis, Painter, below, row};
use crate::tui::widgets::{popup, table};

/// What is searched, and the selected row of what was found.
#[derive(Debug, Default)]
pub struct SearchList {
    search: LineInput,
    selected: usize,
}

impl SearchList {
    /// What is searched.
    #[must_use]
    pub fn text(&self) -> &str {
        self.search.text()
    }

    /// The selected row.
    #[must_use]
    pub fn selected(&self) -> usize {
        self.selected
    }

    /// Takes a key press: one that moves in the `length` rows that were found, or one that is typed. `page` rows are in
    /// view.
    pub fn press(&mut self, key: KeyEvent, page: usize, length: usize) {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let command = match key.code {
            KeyCode::Up | KeyCode::BackTab => Command::Up,
            KeyCode::Down | KeyCode::Tab => Command::Down,
            KeyCode::Char('p') if control => Command::Up,
            KeyCode::Char('n') if control => Command::Down,
            KeyCode::PageUp => Command::PageUp,
            KeyCode::PageDown => Command::PageDown,
            _ => {
                self.search.press(key);
                self.selected = 0;
                return;
            }
        };
        self.selected = moved(self.selected, command, page, length).unwrap_or(0);
    }

    /// Takes pasted text.
    pub fn paste(&mut self, text: &str) {
        self.search.insert(text);
        self.selected = 0;
    }

    /// Selects a row.
    pub fn select(&mut self, row: usize) {
        self.selected = row;
    }

    /// Searches nothing any more.
    pub fn clear(&mut self) {
        self.search.clear();
        self.selected = 0;
    }

    /// Draws the line that is typed into and answers the room for the rows.
    pub fn draw_search(&self, painter: &mut Painter<'_>, area: Rect, hint: &str) -> Rect {
        popup::input(painter, row(area, 0), &self.search, hint, Emphasis::Focused);
        below(area, 2)
    }

    /// The first line in view so that `line` is; `lines` there are.
    pub fn scroll(&self, painter: &mut Painter<'_>, body: Rect, line: usize, lines: usize) -> usize {
        let page = usize::from(body.height);
        let offset = painter.before.scrolled(ListId::Overlay, Some(line), lines, page);
        // What stands above the first row, such as a heading, belongs to it.
        let offset = if self.selected == 0 { 0 } else { offset };
        painter.geometry.lists.insert(ListId::Overlay, ListGeometry { offset, page, base: 0 });
        // On the frame of the box, behind its margin.
        table::scroll_bar(painter, Rect { width: body.width.saturating_add(1), ..body }, offset, page, lines);
        offset
    }

    /// Marks a drawn row when it is the selected one, and lets it be clicked.
    pub fn finish_row(&self, painter: &mut Painter<'_>, line: Rect, number: usize) {
        if number == self.selected {
            painter.tint(line, Role::Selection);
            painter.text(line, painter.symbols.marker, Role::Accent);
        }
        painter.hit(line, Target::OverlayRow(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_move_and_everything_else_is_typed() {
        let mut list = SearchList::default();
        let press = |list: &mut SearchList, code| list.press(KeyEvent::from(code), 4, 10);
        for (code, expected) in [
            (KeyCode::Down, 1),
            (KeyCode::Tab, 2),
            (KeyCode::PageDown, 5),
            (KeyCode::PageDown, 8),
            (KeyCode::PageDown, 9),
            (KeyCode::Up, 8),
            (KeyCode::BackTab, 7),
            (KeyCode::PageUp, 4),
        ] {
            press(&mut list, code);
            assert_eq!(list.selected(), expected, "{code:?}");
        }
        list.press(KeyEvent::new(KeyCode::Char('n'), KeyModifiers::CONTROL), 4, 10);
        assert_eq!((list.selected(), list.text()), (5, ""));
        press(&mut list, KeyCode::Char('p'));
        assert_eq!((list.selected(), list.text()), (0, "p"), "the best match is selected");
        list.paste("ull");
        assert_eq!(list.text(), "pull");
        list.clear();
        assert_eq!((list.selected(), list.text()), (0, ""));
    }
}
