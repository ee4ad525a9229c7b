//! Something to read: a title and lines, closed by any of Enter, Esc, q, Space.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;

use crate::tui::overlays::Stays;
use crate::tui::state::State;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::widgets::painter::{Painter, cells, row};
use crate::tui::widgets::{popup, table};

/// Columns of a text that is shown whole; its box fits 80.
const TEXT_WIDTH: usize = 72;

/// Something to read.
#[derive(Debug)]
pub struct Notice {
    title: &'static str,
    /// Escaped where they come from outside.
    lines: Vec<(String, Role)>,
    scrolled: usize,
}

impl Notice {
    /// A notice; the title is a key.
    #[must_use]
    pub fn new(title: &'static str, lines: Vec<(String, Role)>) -> Self {
        Self { title, lines, scrolled: 0 }
    }

    /// A text that somebody wants whole, made safe and wrapped, with a hint above it.
    #[must_use]
    pub fn of_text(title: &'static str, text: &str, hint: &str) -> Self {
        let mut lines: Vec<_> = text::wrap(hint, TEXT_WIDTH).into_iter().map(|line| (line, Role::Muted)).collect();
        lines.push((String::new(), Role::Popup));
        lines.extend(text::outside_lines(text, TEXT_WIDTH).into_iter().map(|line| (line, Role::Popup)));
        Self::new(title, lines)
    }

    /// Takes a key press.
    pub fn press(&mut self, state: &State, key: KeyEvent) -> Stays {
        let page = state.geometry.page(crate::tui::geometry::ListId::Overlay);
        let most = self.lines.len().saturating_sub(page);
        match key.code {
            KeyCode::Up | KeyCode::Char('k') => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.scrolled = (self.scrolled + 1).min(most),
            KeyCode::PageUp => self.scrolled = self.scrolled.saturating_sub(page),
            KeyCode::PageDown => self.scrolled = (self.scrolled + page).min(most),
            KeyCode::Enter | KeyCode::Char('q' | ' ') => return Stays::Closed,
            _ => {}
        }
        Stays::Open
    }

    /// Draws it.
    pub fn draw(&self, painter: &mut Painter<'_>, screen: Rect) {
        let widest = self.lines.iter().map(|(line, _)| text::width(line)).max().unwrap_or(0);
        let width = cells(widest + 4).clamp(40, 96);
        let title = painter.say(self.title);
        let area = popup::open(painter, screen, &title, width, cells(self.lines.len()) + 5);
        let body = Rect { y: area.y + 1, height: area.height.saturating_sub(3), ..area };
        let page = usize::from(body.height);
        let list = crate::tui::geometry::ListGeometry { offset: self.scrolled, page, base: 0 };
        painter.geometry.lists.insert(crate::tui::geometry::ListId::Overlay, list);
        for (number, (line, role)) in self.lines.iter().skip(self.scrolled).take(page).enumerate() {
            painter.text(row(body, cells(number)), line, *role);
        }
        let bar = Rect { width: body.width + 1, ..body };
        table::scroll_bar(painter, bar, self.scrolled, page, self.lines.len());
        let close = painter.say("button.close");
        popup::buttons(painter, row(area, area.height.saturating_sub(1)), &[&close], Some(0));
    }
}
