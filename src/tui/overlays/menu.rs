//! `?` help and the `:` palette: the commands that are valid here, searched, and run by Enter.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;

use crate::tui::ConsoleAccess;
use crate::tui::action::{COMMANDS, Command, CommandRow, Context, Safety};
use crate::tui::geometry::ListId;
use crate::tui::overlays::Stays;
use crate::tui::state::State;
use crate::tui::tabs::{self, Tab};
use crate::tui::theme::Role;
use crate::tui::update;
use crate::tui::widgets::painter::{Painter, cells, row};
use crate::tui::widgets::search_list::SearchList;
use crate::tui::widgets::{fuzzy, popup};

/// Which menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Grouped by where a command is valid, in the table's order.
    Help,
    /// Best match first.
    Palette,
}

/// Help or palette.
#[derive(Debug)]
pub struct Menu {
    kind: Kind,
    list: SearchList,
}

/// A line of the menu.
#[derive(Debug, Clone, Copy)]
enum Entry {
    Heading(&'static str),
    Row(&'static CommandRow),
}

/// Where commands are valid now, the most specific place first.
fn contexts(state: &State) -> Vec<Context> {
    let mut contexts = state.tab.contexts(state);
    if state.tab == Tab::Prompts {
        contexts.insert(1, Context::Editor);
    }
    contexts
}

impl Menu {
    /// Help of what can be done here.
    #[must_use]
    pub fn help() -> Self {
        Self { kind: Kind::Help, list: SearchList::default() }
    }

    /// The palette.
    #[must_use]
    pub fn palette() -> Self {
        Self { kind: Kind::Palette, list: SearchList::default() }
    }

    /// The commands in their order.
    fn rows(&self, state: &State) -> Vec<&'static CommandRow> {
        let contexts = contexts(state);
        // What is typed into has its keys there and nowhere else.
        let elsewhere = |row: &CommandRow| {
            self.kind == Kind::Palette && !matches!(row.context, Context::Editor | Context::Chat | Context::Compare)
        };
        let offered = |row: &&CommandRow| {
            (contexts.contains(&row.context) || elsewhere(row))
                && (state.access == ConsoleAccess::Full || row.safety == Safety::Looks)
                && !(self.kind == Kind::Palette && row.command == Command::Palette)
        };
        let mut rows: Vec<&CommandRow> = COMMANDS.iter().filter(offered).collect();
        // Those of other places come last.
        let place = |row: &CommandRow| contexts.iter().position(|context| *context == row.context);
        rows.sort_by_key(|row| place(row).unwrap_or(contexts.len()));
        let text = |row: &&CommandRow| {
            let words = &state.words;
            let keys = state.keymap.written(row.command);
            format!("{} {} {keys} {}", words.say(row.text), row.name, words.say(row.context.title()))
        };
        match self.kind {
            Kind::Palette => fuzzy::best(rows, self.list.text(), text),
            Kind::Help => fuzzy::fitting(rows, self.list.text(), text).into_iter().map(|(_, row)| row).collect(),
        }
    }

    /// Takes a key press.
    pub fn press(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        match key.code {
            KeyCode::Enter => self.choose(state, self.list.selected()),
            KeyCode::Char('?' | 'q') if self.list.text().is_empty() && self.kind == Kind::Help => Stays::Closed,
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

    /// Runs a row's command.
    pub fn choose(&mut self, state: &mut State, number: usize) -> Stays {
        let rows = self.rows(state);
        let Some(row) = rows.get(number) else { return Stays::Open };
        if !contexts(state).contains(&row.context) {
            tabs::go_to(state, row.context);
        }
        update::run(state, row.command);
        Stays::Closed
    }

    /// Draws it.
    pub fn draw(&self, state: &State, painter: &mut Painter<'_>, screen: Rect) {
        let rows = self.rows(state);
        let here = contexts(state);
        let grouped = self.kind == Kind::Help && self.list.text().is_empty();
        let mut entries = Vec::with_capacity(rows.len() + 4);
        let mut selected_line = 0;
        let mut context = None;
        for (number, command) in rows.iter().enumerate() {
            if grouped && context != Some(command.context) {
                context = Some(command.context);
                entries.push((Entry::Heading(command.context.title()), usize::MAX));
            }
            if number == self.list.selected() {
                selected_line = entries.len();
            }
            entries.push((Entry::Row(command), number));
        }
        let title = painter.say(if self.kind == Kind::Help { "help.title" } else { "palette.title" });
        let high = if self.kind == Kind::Help { screen.height.saturating_sub(2) } else { 20 };
        let area = popup::open(painter, screen, &title, 76, high);
        let hint = painter.say("menu.search");
        let body = self.list.draw_search(painter, area, &hint);
        let offset = self.list.scroll(painter, body, selected_line, entries.len());
        if rows.is_empty() {
            let none = painter.say("menu.nothing").into_owned();
            painter.message(body, &[(none, Role::Muted)]);
        }
        let keys_width = 18.min(body.width / 3);
        for (line_number, (entry, number)) in entries.iter().skip(offset).take(body.height.into()).enumerate() {
            let line = row(body, cells(line_number));
            match entry {
                Entry::Heading(key) => {
                    let heading = painter.say(key);
                    painter.text(line, &heading, Role::Title);
                }
                Entry::Row(command) => {
                    let keys = state.keymap.written(command.command);
                    let place = Rect { x: line.x + 2, width: keys_width, ..line };
                    painter.text(place, &keys, Role::Key);
                    let x = line.x + 3 + keys_width;
                    let text = painter.say(command.text);
                    painter.text(Rect { x, width: line.right().saturating_sub(x), ..line }, &text, Role::Popup);
                    if self.kind == Kind::Palette && !here.contains(&command.context) {
                        let place = painter.say(command.context.title());
                        painter.right(Rect { width: line.width.saturating_sub(3), ..line }, &place, Role::Faint);
                    }
                    if command.safety == Safety::Dangerous {
                        painter.right(line, painter.symbols.warn, Role::Warn);
                    }
                    self.list.finish_row(painter, line, *number);
                }
            }
        }
    }
}
