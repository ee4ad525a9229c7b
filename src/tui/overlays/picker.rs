//! Choosing models by name: searched fuzzily, one for the chat tester, several for a comparison.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;

use crate::tui::action::Command;
use crate::tui::geometry::{ListGeometry, ListId, Target};
use crate::tui::overlays::Stays;
use crate::tui::state::State;
use crate::tui::tab_models::{chat, chatting, compare};
use crate::tui::theme::Role;
use crate::tui::widgets::cursor::moved;
use crate::tui::widgets::input::LineInput;
use crate::tui::widgets::painter::{Emphasis, Painter, cells, row};
use crate::tui::widgets::{fuzzy, popup, table};
use crate::types::text::escape;

/// What the choice is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The model of the chat tester.
    ChatModel,
    /// The models of a comparison.
    CompareModels,
    /// The model that is asked what a captured request asked.
    Replay,
}

/// The box.
#[derive(Debug)]
pub struct Picker {
    purpose: Purpose,
    search: LineInput,
    selected: usize,
    /// What was chosen when the box was opened; stays in the list when no engine lists it any more.
    before: Vec<String>,
}

impl Picker {
    /// A box with what is chosen already.
    #[must_use]
    pub fn new(purpose: Purpose, chosen: Vec<String>) -> Self {
        Self { purpose, search: LineInput::default(), selected: 0, before: chosen }
    }

    /// The names that fit, the best first. A name that fits none is offered as it is typed: an alias is one that no
    /// engine lists.
    fn rows(&self, state: &State) -> Vec<String> {
        let mut names = chatting(state);
        names.extend(self.before.iter().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>());
        let found = fuzzy::best(names, self.search.text(), Clone::clone);
        let typed = self.search.text().trim();
        if found.is_empty() && !typed.is_empty() { vec![typed.to_owned()] } else { found }
    }

    fn is_chosen(&self, state: &State, name: &str) -> bool {
        match self.purpose {
            Purpose::ChatModel => state.models.chat.model.as_deref() == Some(name),
            Purpose::CompareModels => state.models.compare.has(name),
            Purpose::Replay => self.before.iter().any(|before| before == name),
        }
    }

    /// Takes a key press.
    pub fn press(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        let command = match key.code {
            KeyCode::Enter if self.purpose == Purpose::CompareModels && self.search.is_empty() => return Stays::Closed,
            // Names of models hold no spaces.
            KeyCode::Enter | KeyCode::Char(' ') => return self.choose(state, self.selected),
            KeyCode::Up | KeyCode::BackTab => Command::Up,
            KeyCode::Down | KeyCode::Tab => Command::Down,
            KeyCode::PageUp => Command::PageUp,
            KeyCode::PageDown => Command::PageDown,
            _ => {
                self.search.press(key);
                self.selected = 0;
                return Stays::Open;
            }
        };
        let page = state.geometry.page(ListId::Overlay);
        let length = self.rows(state).len();
        self.selected = moved(self.selected, command, page, length).unwrap_or(0);
        Stays::Open
    }

    /// Takes pasted text.
    pub fn paste(&mut self, text: &str) {
        self.search.insert(text);
        self.selected = 0;
    }

    /// Chooses a row, or takes the choice back where several may be chosen.
    pub fn choose(&mut self, state: &mut State, number: usize) -> Stays {
        let rows = self.rows(state);
        let Some(name) = rows.get(number) else { return Stays::Open };
        match self.purpose {
            Purpose::ChatModel => {
                state.models.chat.model = Some(name.clone());
                Stays::Closed
            }
            Purpose::Replay => {
                chat::replay(state, name.clone());
                Stays::Closed
            }
            Purpose::CompareModels => {
                compare::mark(state, name);
                self.selected = number;
                if !self.search.is_empty() {
                    self.before.push(name.clone());
                    self.search.clear();
                    self.selected = 0;
                }
                Stays::Open
            }
        }
    }

    /// Draws it.
    pub fn draw(&self, state: &State, painter: &mut Painter<'_>, screen: Rect) {
        let rows = self.rows(state);
        let (title, hint) = match self.purpose {
            Purpose::ChatModel => ("picker.one", "picker.one_hint"),
            Purpose::Replay => ("replay.title", "picker.one_hint"),
            Purpose::CompareModels => ("picker.several", "picker.several_hint"),
        };
        let title = painter.say(title);
        let area = popup::open(painter, screen, &title, 64, cells(rows.len()).saturating_add(6).clamp(10, 22));
        let place = painter.say("picker.search");
        popup::input(painter, row(area, 0), &self.search, &place, Emphasis::Focused);
        let body = Rect { y: area.y + 2, height: area.height.saturating_sub(4), ..area };
        let page = usize::from(body.height);
        let offset = painter.before.scrolled(ListId::Overlay, Some(self.selected), rows.len(), page);
        painter.geometry.lists.insert(ListId::Overlay, ListGeometry { offset, page });
        if rows.is_empty() {
            let none = painter.say("models.empty").into_owned();
            painter.message(body, &[(none, Role::Muted)]);
        }
        for (line, (number, name)) in rows.iter().enumerate().skip(offset).take(page).enumerate() {
            let line = row(body, cells(line));
            if self.is_chosen(state, name) {
                painter.text(Rect { x: line.x + 1, width: 1, ..line }, painter.symbols.ok, Role::Ok);
            }
            let x = line.x + 3;
            painter.text(Rect { x, width: line.right().saturating_sub(x), ..line }, &escape(name), Role::Popup);
            if number == self.selected {
                painter.tint(line, Role::Selection);
                painter.text(line, painter.symbols.marker, Role::Accent);
            }
            painter.hit(line, Target::OverlayRow(number));
        }
        table::scroll_bar(painter, body, offset, page, rows.len());
        let hint = painter.say(hint);
        painter.text(row(area, area.height.saturating_sub(1)), &hint, Role::Muted);
    }
}
