//! Choosing models by name: searched fuzzily, one for the chat tester, several for a comparison.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;

use crate::tui::geometry::ListId;
use crate::tui::overlays::Stays;
use crate::tui::state::State;
use crate::tui::tab_models::{chat, chatting, compare};
use crate::tui::theme::Role;
use crate::tui::widgets::painter::{Painter, cells, row};
use crate::tui::widgets::search_list::SearchList;
use crate::tui::widgets::{fuzzy, popup};
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
    list: SearchList,
    /// What was chosen when the box was opened; stays in the list when no engine lists it any more.
    before: Vec<String>,
}

impl Picker {
    /// A box with what is chosen already.
    #[must_use]
    pub fn new(purpose: Purpose, chosen: Vec<String>) -> Self {
        Self { purpose, list: SearchList::default(), before: chosen }
    }

    /// The names that fit, the best first. A name that fits none is offered as it is typed: an alias is one that no
    /// engine lists.
    fn rows(&self, state: &State) -> Vec<String> {
        let mut names = chatting(state);
        names.extend(self.before.iter().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>());
        let found = fuzzy::best(names, self.list.text(), Clone::clone);
        let typed = self.list.text().trim();
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
        match key.code {
            KeyCode::Enter if self.purpose == Purpose::CompareModels && self.list.text().is_empty() => Stays::Closed,
            // Names of models hold no spaces.
            KeyCode::Enter | KeyCode::Char(' ') => self.choose(state, self.list.selected()),
            _ => {
                let length = self.rows(state).len();
                self.list.press(key, state.geometry.page(ListId::Overlay), length);
                Stays::Open
            }
        }
    }

    /// Takes pasted text.
    pub fn paste(&mut self, text: &str) {
        self.list.paste(text);
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
                self.list.select(number);
                if !self.list.text().is_empty() {
                    self.before.push(name.clone());
                    self.list.clear();
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
        let body = self.list.draw_search(painter, area, &place);
        let body = Rect { height: body.height.saturating_sub(2), ..body };
        let offset = self.list.scroll(painter, body, self.list.selected(), rows.len());
        if rows.is_empty() {
            let none = painter.say("models.empty").into_owned();
            painter.message(body, &[(none, Role::Muted)]);
        }
        for (line, (number, name)) in rows.iter().enumerate().skip(offset).take(body.height.into()).enumerate() {
            let line = row(body, cells(line));
            if self.is_chosen(state, name) {
                painter.text(Rect { x: line.x + 1, width: 1, ..line }, painter.symbols.ok, Role::Ok);
            }
            let x = line.x + 3;
            painter.text(Rect { x, width: line.right().saturating_sub(x), ..line }, &escape(name), Role::Popup);
            self.list.finish_row(painter, line, number);
        }
        let hint = painter.say(hint);
        painter.text(row(area, area.height.saturating_sub(1)), &hint, Role::Muted);
    }
}
