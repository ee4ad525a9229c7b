//! Something to read: a title and lines, closed by any of Enter, Esc, q, Space. It may offer a deed that takes long, with the
//! focus on leaving it.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;

use crate::tui::effect::Request;
use crate::tui::overlays::{Stays, work};
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
    deed: Option<Deed>,
    /// 0 is Cancel, 1 is the deed.
    focus: usize,
}

/// Something that takes long and is done when the person wants it.
#[derive(Debug)]
pub struct Deed {
    /// The key of its button.
    pub button: &'static str,
    /// The key of the title of its box.
    pub title: &'static str,
    /// What it is done to.
    pub what: String,
    /// What does it.
    pub request: Request,
}

impl Notice {
    /// A notice; the title is a key. What is longer than a line goes on below it, with the same indent.
    #[must_use]
    pub fn new(title: &'static str, lines: impl IntoIterator<Item = (String, Role)>) -> Self {
        let lines = lines.into_iter().flat_map(|(line, role)| {
            let text = line.trim_start();
            let indent = " ".repeat(line.len() - text.len());
            let parts = text::wrap(text, TEXT_WIDTH.saturating_sub(indent.len()));
            parts.into_iter().map(move |part| (format!("{indent}{part}"), role))
        });
        Self { title, lines: lines.collect(), scrolled: 0, deed: None, focus: 0 }
    }

    /// The same with something that may be done about it.
    #[must_use]
    pub fn offering(mut self, deed: Deed) -> Self {
        self.deed = Some(deed);
        self
    }

    /// A text that somebody wants whole, made safe and wrapped, with a hint above it.
    #[must_use]
    pub fn of_text(title: &'static str, text: &str, hint: &str) -> Self {
        let mut lines = vec![(hint.to_owned(), Role::Muted), (String::new(), Role::Popup)];
        lines.extend(text::outside_lines(text, TEXT_WIDTH).into_iter().map(|line| (line, Role::Popup)));
        Self::new(title, lines)
    }

    /// Takes over what a newer one of the same title says.
    pub fn renew(&mut self, newer: &Self) {
        if self.title == newer.title {
            self.lines.clone_from(&newer.lines);
        }
    }

    /// Takes a key press.
    pub fn press(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        let page = state.geometry.page(crate::tui::geometry::ListId::Overlay);
        let most = self.lines.len().saturating_sub(page);
        match key.code {
            KeyCode::Up | KeyCode::Char('k') => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.scrolled = (self.scrolled + 1).min(most),
            KeyCode::PageUp => self.scrolled = self.scrolled.saturating_sub(page),
            KeyCode::PageDown => self.scrolled = (self.scrolled + page).min(most),
            KeyCode::Tab | KeyCode::BackTab | KeyCode::Left | KeyCode::Right | KeyCode::Char('h' | 'l')
                if self.deed.is_some() =>
            {
                self.focus = 1 - self.focus;
            }
            KeyCode::Char('y') if self.deed.is_some() => return self.choose(state, 1),
            KeyCode::Enter => return self.choose(state, self.focus),
            KeyCode::Char('q' | ' ') => return Stays::Closed,
            _ => {}
        }
        Stays::Open
    }

    /// Presses a button.
    pub fn choose(&mut self, state: &mut State, button: usize) -> Stays {
        if button == 1
            && let Some(Deed { title, what, request, .. }) = self.deed.take()
        {
            work::begin(state, title, &what, request);
        }
        Stays::Closed
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
        let buttons = row(area, area.height.saturating_sub(1));
        match &self.deed {
            Some(deed) => {
                let (cancel, deed) = (painter.say("button.cancel"), painter.say(deed.button));
                popup::buttons(painter, buttons, &[&cancel, &deed], Some(self.focus));
            }
            None => popup::buttons(painter, buttons, &[&painter.say("button.close")], Some(0)),
        }
    }
}
