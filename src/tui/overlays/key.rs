//! A new API key: shown once, with copy and a request that is ready to run.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;

use crate::tui::overlays::{Stays, moved_focus};
use crate::tui::state::State;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::widgets::painter::{Painter, below, cells, row};
use crate::tui::widgets::popup;
use crate::types::key::CreatedKey;
use crate::types::text::escape;

/// A new key. Its text lives here and nowhere else, and is cleared from memory when the box closes.
#[derive(Debug)]
pub struct NewKey {
    created: CreatedKey,
    /// 0 copies the key, 1 copies the request, 2 closes.
    focus: usize,
}

impl NewKey {
    /// Shows a key just made.
    #[must_use]
    pub fn new(created: CreatedKey) -> Self {
        Self { created, focus: 0 }
    }

    /// Takes a key press.
    pub fn press(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        match key.code {
            KeyCode::Char('y') => self.choose(state, 0),
            KeyCode::Char('c') => self.choose(state, 1),
            KeyCode::Enter => self.choose(state, self.focus),
            KeyCode::Char('q') => Stays::Closed,
            _ => {
                self.focus = moved_focus(self.focus, 3, key).unwrap_or(self.focus);
                Stays::Open
            }
        }
    }

    /// Presses a button.
    pub fn choose(&mut self, state: &mut State, button: usize) -> Stays {
        match button {
            0 => {
                let what = state.words.say("key.the_key");
                state.copy(self.created.key.expose().to_owned(), &what);
                self.focus = 2;
                Stays::Open
            }
            1 => {
                let what = state.words.say("key.the_request");
                state.copy(self.request(state), &what);
                self.focus = 2;
                Stays::Open
            }
            _ => Stays::Closed,
        }
    }

    fn request(&self, state: &State) -> String {
        let base = state.world.base_url().unwrap_or("http://127.0.0.1:8484").trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        format!("curl {base}/v1/models -H 'Authorization: Bearer {}'", self.created.key.expose())
    }

    /// Draws it.
    pub fn draw(&self, state: &State, painter: &mut Painter<'_>, screen: Rect) {
        let request = self.request(state);
        let width = 92.min(screen.width.saturating_sub(2));
        let inner = usize::from(width.saturating_sub(4));
        let once = text::wrap(&painter.say("key.once"), inner);
        let key = text::wrap(self.created.key.expose(), inner);
        let lines = text::wrap(&request, inner);
        let height = cells(once.len() + key.len() + lines.len()) + 8;
        let label = escape(&self.created.view.label).into_owned();
        let title = painter.words.fill("key.title", &[("label", &label)]);
        let area = popup::open(painter, screen, &title, width, height);
        let mut y = 0;
        y += painter.paragraph(below(area, y), &once.join("\n"), Role::Warn) + 1;
        for line in &key {
            painter.text(row(area, y), line, Role::Accent);
            y += 1;
        }
        y += 1;
        painter.text(row(area, y), &painter.say("key.try_it"), Role::Muted);
        y += 1;
        for line in &lines {
            painter.text(row(area, y), line, Role::Popup);
            y += 1;
        }
        let (copy, curl, close) =
            (painter.say("key.copy_key"), painter.say("key.copy_request"), painter.say("button.close"));
        popup::buttons(painter, row(area, area.height.saturating_sub(1)), &[&copy, &curl, &close], Some(self.focus));
    }
}
