//! F2: language, theme, mouse and refresh rate. A change works at once and is stored.

use std::borrow::Cow;
use std::ops::ControlFlow;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;

use crate::tui::ConsoleAccess;
use crate::tui::effect::MouseUse;
use crate::tui::geometry::Target;
use crate::tui::overlays::notice::Notice;
use crate::tui::overlays::{self, Overlay, Stays};
use crate::tui::signs::told;
use crate::tui::state::State;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::update::use_mouse;
use crate::tui::widgets::painter::{Painter, below, cells, row};
use crate::tui::widgets::popup;
use crate::types::calls::settings::{SetSetting, SettingSource, SettingView, UnsetSetting};
use crate::types::language;
use crate::types::text::escape;

/// Frames per second on offer, within what the settings table allows.
const REFRESH_RATES: [u8; 7] = [1, 2, 4, 10, 15, 30, 60];

/// Name in the settings table and key of the label, row by row.
const ROWS: [(&str, &str); 6] = [
    ("preferred_language", "settings.language"),
    ("console.theme", "settings.theme"),
    ("console.mouse", "settings.mouse"),
    ("console.refresh", "settings.refresh"),
    (CALL, "settings.call"),
    (LOG_LEVEL, "settings.log_level"),
];

/// How the terminal calls for an alert, and how much the proxy logs; both are the owner's alone.
const CALL: &str = "console.notify";
const LOG_LEVEL: &str = "log.level";
const CALLS: [&str; 4] = ["off", "bell", "message", "both"];
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The box.
#[derive(Debug, Default)]
pub struct Settings {
    focus: usize,
}

/// Which neighbour of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Next,
    Previous,
}

impl Settings {
    /// Takes a key press.
    pub fn press(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        match key.code {
            KeyCode::Up | KeyCode::Char('k') | KeyCode::BackTab => {
                self.focus = (self.focus + ROWS.len() - 1) % ROWS.len();
            }
            KeyCode::Down | KeyCode::Char('j') | KeyCode::Tab => self.focus = (self.focus + 1) % ROWS.len(),
            KeyCode::Left | KeyCode::Char('h') => self.change(state, Step::Previous),
            KeyCode::Right | KeyCode::Char('l' | ' ') | KeyCode::Enter => self.change(state, Step::Next),
            KeyCode::Delete | KeyCode::Backspace => self.unset(state),
            KeyCode::Char('a') => overlays::open(state, Overlay::Notice(all(state))),
            KeyCode::Char('q') | KeyCode::F(2) => return Stays::Closed,
            _ => {}
        }
        Stays::Open
    }

    /// Takes a click on a row.
    pub fn focus_on(&mut self, state: &mut State, row: usize) -> Stays {
        if self.focus == row {
            self.change(state, Step::Next);
        }
        self.focus = row.min(ROWS.len() - 1);
        Stays::Open
    }

    /// The list of all settings that is open shows what was read.
    pub fn refresh(state: &mut State) {
        // Made only for somebody: settings are read at every start and after every change.
        if !state.overlays.iter().any(|overlay| matches!(overlay, Overlay::Notice(_))) {
            return;
        }
        let shown = all(state);
        for overlay in &mut state.overlays {
            if let Overlay::Notice(notice) = overlay {
                notice.renew(&shown);
            }
        }
    }

    fn change(&self, state: &mut State, step: Step) {
        let value = match self.focus {
            0 => neighbour(&owned(language::LANGUAGES), state.words.language(), step),
            1 => neighbour(&state.shelf.names(), &state.theme.name, step),
            2 => (state.mouse == MouseUse::Terminal).to_string(),
            // What is not known yet has no neighbours.
            4 | 5 if state.world.settings.value.is_none() => return,
            4 => stored_neighbour(state, CALL, &CALLS, step),
            5 => stored_neighbour(state, LOG_LEVEL, &LEVELS, step),
            _ => {
                let rates: Vec<String> = REFRESH_RATES.iter().map(u8::to_string).collect();
                neighbour(&rates, &state.refresh.to_string(), step)
            }
        };
        // A read-only console changes itself, and only itself.
        if self.apply(state, &value).is_continue() && state.access == ConsoleAccess::Full && state.is_live() {
            state.read(SetSetting { key: ROWS[self.focus].0.to_owned(), value });
        }
    }

    /// Takes a stored value out again; what a stronger layer sets is not stored here.
    fn unset(&self, state: &mut State) {
        let key = ROWS[self.focus].0;
        let Some(default) = setting(state, key).filter(|setting| setting.source == SettingSource::Database) else {
            return;
        };
        let default = default.default.clone();
        if state.access == ConsoleAccess::Full && state.is_live() && self.apply(state, &default).is_continue() {
            state.read(UnsetSetting { key: key.to_owned() });
        }
    }

    /// Shows what a value of the focused row does, where the console itself does it; breaks off when it cannot.
    fn apply(&self, state: &mut State, value: &str) -> ControlFlow<()> {
        match self.focus {
            // The language of the system is asked for at the next start.
            0 if value != "auto" => state.words = state.words.in_language(value),
            1 => match state.shelf.load(value, state.depth) {
                Ok(theme) => state.theme = theme,
                Err(error) => {
                    state.toast(crate::tui::overlays::toasts::Level::Error, error.to_string());
                    return ControlFlow::Break(());
                }
            },
            2 => use_mouse(state, if value == "true" { MouseUse::Console } else { MouseUse::Terminal }),
            3 => state.refresh = value.parse().unwrap_or(crate::tui::DEFAULT_REFRESH),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    /// Draws it.
    pub fn draw(&self, state: &State, painter: &mut Painter<'_>, screen: Rect) {
        // What the owner alone knows.
        let page = &state.world.settings;
        let unknown = match (&page.value, &page.failure) {
            (None, Some(_)) => painter.symbols.off.into(),
            _ => painter.say("link.reading"),
        };
        let values = [
            text::language_name(state.words.language()),
            state.theme.title.clone(),
            painter
                .say(if state.mouse == MouseUse::Console {
                    "settings.mouse_console"
                } else {
                    "settings.mouse_terminal"
                })
                .into_owned(),
            painter.words.fill("settings.per_second", &[("count", &state.refresh.to_string())]),
            match stored(state, CALL) {
                "" => unknown.clone(),
                "off" => painter.say("settings.call_off"),
                "bell" => painter.say("settings.call_bell"),
                "message" => painter.say("settings.call_message"),
                _ => painter.say("settings.call_both"),
            }
            .into_owned(),
            match stored(state, LOG_LEVEL) {
                "" => unknown.into_owned(),
                level => level.to_owned(),
            },
        ];
        let title = painter.say("settings.title");
        let area = popup::open(painter, screen, &title, 68, 13);
        let label_cells = ROWS.iter().map(|(_, label)| text::width(&painter.say(label))).max().unwrap_or(0);
        for (number, ((key, label), value)) in ROWS.iter().zip(&values).enumerate() {
            let line = row(area, 1 + cells(number));
            let focused = number == self.focus;
            let label = painter.say(label);
            painter.text(Rect { x: line.x + 2, width: line.width.saturating_sub(2), ..line }, &label, Role::Muted);
            let x = line.x + cells(label_cells) + 4;
            let place = Rect { x, width: line.right().saturating_sub(x), ..line };
            let shown = if focused { format!("< {value} >") } else { format!("  {value}") };
            painter.text(place, &shown, if focused { Role::Accent } else { Role::Popup });
            if let Some(source) = source(state, key) {
                painter.right(line, &painter.say(source), Role::Faint);
            }
            if focused {
                painter.tint(line, Role::Selection);
                painter.text(line, painter.symbols.marker, Role::Accent);
            }
            painter.hit(line, Target::OverlayRow(number));
        }
        if let (None, Some(failure)) = (&page.value, &page.failure) {
            painter.paragraphs(below(area, 8), &told(failure));
            return;
        }
        let hints = format!("{}\n{}", painter.say("settings.hint"), painter.say("settings.keys_file"));
        painter.paragraph(below(area, 8), &hints, Role::Faint);
    }
}

fn setting<'a>(state: &'a State, key: &str) -> Option<&'a SettingView> {
    state.world.settings.value.as_deref()?.iter().find(|setting| setting.key == key)
}

/// The value that the owner has.
fn stored<'a>(state: &'a State, key: &str) -> &'a str {
    setting(state, key).map_or("", |setting| &setting.value)
}

fn stored_neighbour(state: &State, key: &str, all: &[&str], step: Step) -> String {
    neighbour(&owned(all), stored(state, key), step)
}

fn owned(all: &[&str]) -> Vec<String> {
    all.iter().map(|&value| value.to_owned()).collect()
}

/// Where the value comes from (SPEC §1.4).
fn source(state: &State, key: &str) -> Option<&'static str> {
    setting(state, key).map(|setting| source_name(setting.source))
}

fn source_name(source: SettingSource) -> &'static str {
    match source {
        SettingSource::Flag => "settings.from_flag",
        SettingSource::Environment => "settings.from_environment",
        SettingSource::File => "settings.from_file",
        SettingSource::Database => "settings.from_database",
        SettingSource::Default => "settings.from_default",
    }
}

/// Every setting with its value and where that comes from.
fn all(state: &State) -> Notice {
    let page = &state.world.settings;
    let Some(settings) = &page.value else {
        let reading = || vec![(state.words.say("link.reading").into_owned(), Role::Muted)];
        return Notice::new("settings.all_title", page.failure.as_ref().map_or_else(reading, told));
    };
    let widest = |width: fn(&SettingView) -> usize| settings.iter().map(width).max().unwrap_or(0);
    let key_cells = widest(|setting| text::width(&setting.key));
    let mut lines = Vec::with_capacity(settings.len());
    for setting in settings {
        let role = match setting.source {
            SettingSource::Default => Role::Muted,
            _ => Role::Popup,
        };
        let (key, value) = (escape(&setting.key), escape(&setting.value));
        let source = state.words.say(source_name(setting.source));
        let value = if value.is_empty() { Cow::Borrowed("-") } else { value };
        let unit = if setting.unit.is_empty() { String::new() } else { format!(" {}", setting.unit) };
        lines.push((format!("{}  {value}{unit}  ({source})", text::pad(&key, key_cells)), role));
    }
    Notice::new("settings.all_title", lines)
}

fn neighbour(all: &[String], current: &str, step: Step) -> String {
    let at = all.iter().position(|value| value == current).unwrap_or(0);
    let to = match step {
        Step::Next => (at + 1) % all.len().max(1),
        Step::Previous => (at + all.len().max(1) - 1) % all.len().max(1),
    };
    all.get(to).cloned().unwrap_or_else(|| current.to_owned())
}
