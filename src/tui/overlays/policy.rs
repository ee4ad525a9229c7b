//! The security policy: what each rule does, and the whole of it as JSON (SPEC §9.3).
//!
//! What was changed and not saved stays when the box is closed. What is wrong with the JSON is told while it is typed.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;

use crate::tui::action::Command;
use crate::tui::effect::Ticket;
use crate::tui::geometry::{ListId, Target};
use crate::tui::overlays::form::spinner;
use crate::tui::overlays::toasts::Level;
use crate::tui::overlays::{self, Overlay, Stays};
use crate::tui::signs::told;
use crate::tui::state::State;
use crate::tui::theme::Role;
use crate::tui::widgets::cursor::moved;
use crate::tui::widgets::painter::{Emphasis, Painter, below, row};
use crate::tui::widgets::popup;
use crate::tui::widgets::table::{self, Cell, Column, Table, Width};
use crate::tui::widgets::text_area::TextBox;
use crate::types::calls::policy::{SetPolicy, ShowPolicy};
use crate::types::failure::{Failure, Outcome};
use crate::types::policy::{Mode, RuleName, SecurityPolicy};
use crate::types::text::escape;

/// How the policy is edited.
#[derive(Debug)]
enum Editing {
    /// Rule by rule.
    Rules,
    /// As JSON.
    Json(Box<TextBox>),
}

/// The box.
#[derive(Debug)]
pub struct Policy {
    /// As it is in force; `None` while it is read.
    stored: Option<SecurityPolicy>,
    /// As it is to be.
    wanted: SecurityPolicy,
    editing: Editing,
    selected: usize,
    /// A reading or a saving on its way.
    waiting: Option<Ticket>,
    /// Why the last one failed.
    failure: Option<Failure>,
}

/// Opens the policy as it was left, or reads it.
pub fn open(state: &mut State) {
    let mut policy = state.proxy.policy.take().unwrap_or_else(|| {
        Box::new(Policy {
            stored: None,
            wanted: SecurityPolicy::default(),
            editing: Editing::Rules,
            selected: 0,
            waiting: None,
            failure: None,
        })
    });
    policy.waiting = Some(state.read(ShowPolicy {}));
    overlays::open(state, Overlay::Policy(policy));
}

/// Keeps what was changed and not saved.
pub fn closed(state: &mut State, policy: Box<Policy>) {
    if policy.is_changed() {
        state.proxy.policy = Some(policy);
    }
}

/// Takes the policy as it is in force, read or saved; answers it back when no box waits for it.
pub fn take(state: &mut State, ticket: Ticket, outcome: Outcome<SecurityPolicy>) -> Option<Outcome<SecurityPolicy>> {
    let waits = state.overlays.iter_mut().find_map(|overlay| match overlay {
        Overlay::Policy(policy) if policy.waiting == Some(ticket) => Some(policy),
        _ => None,
    });
    let Some(policy) = waits else { return Some(outcome) };
    policy.waiting = None;
    match outcome {
        Ok(stored) => policy.settle(stored),
        Err(failure) => policy.failure = Some(failure),
    }
    None
}

/// A policy was saved: its box goes, unless something was typed meanwhile.
pub fn saved(state: &mut State, ticket: Ticket, outcome: Outcome<SecurityPolicy>) {
    let fine = outcome.is_ok();
    match take(state, ticket, outcome) {
        None if fine => {
            state.overlays.retain(|overlay| !matches!(overlay, Overlay::Policy(policy) if !policy.is_changed()));
            state.toast(Level::Ok, state.words.say("policy.saved").into_owned());
        }
        Some(Err(failure)) => state.complain(&failure),
        _ => {}
    }
}

impl Policy {
    /// Whether something would be lost.
    fn is_changed(&self) -> bool {
        let typed = match &self.editing {
            Editing::Rules => false,
            Editing::Json(text) => parsed(text).ok().as_ref() != Some(&self.wanted),
        };
        typed || self.stored.as_ref().is_some_and(|stored| *stored != self.wanted)
    }

    /// The policy in force is this one; what was changed before it was known stays changed.
    fn settle(&mut self, stored: SecurityPolicy) {
        let own = self.is_changed();
        self.failure = None;
        // What was typed while it was being saved is newer.
        let typed_on = matches!(&self.editing, Editing::Json(text) if parsed(text).ok().as_ref() != Some(&self.wanted));
        let saved = self.wanted == stored && !typed_on;
        if !own || saved {
            self.wanted = stored.clone();
            if let Editing::Json(text) = &mut self.editing {
                *text = written(&stored);
            }
        }
        self.stored = Some(stored);
    }

    /// Takes a key press.
    pub fn press(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('s') if control => self.save(state),
            KeyCode::F(10) => self.save(state),
            KeyCode::F(9) => self.turn(),
            KeyCode::Esc => return Stays::Closed,
            _ => match &mut self.editing {
                Editing::Json(text) => {
                    text.press(key);
                    self.failure = None;
                }
                Editing::Rules => return self.press_rules(state, key),
            },
        }
        Stays::Open
    }

    fn press_rules(&mut self, state: &State, key: KeyEvent) -> Stays {
        let command = match key.code {
            KeyCode::Char('q') => return Stays::Closed,
            KeyCode::Right | KeyCode::Char('l' | ' ') | KeyCode::Enter => {
                self.change(1);
                return Stays::Open;
            }
            KeyCode::Left | KeyCode::Char('h') => {
                self.change(MODES.len() - 1);
                return Stays::Open;
            }
            KeyCode::Up | KeyCode::Char('k') | KeyCode::BackTab => Command::Up,
            KeyCode::Down | KeyCode::Char('j') | KeyCode::Tab => Command::Down,
            KeyCode::Home => Command::First,
            KeyCode::End => Command::Last,
            _ => return Stays::Open,
        };
        let page = state.geometry.page(ListId::Overlay);
        self.selected = moved(self.selected, command, page, RuleName::ALL.len()).unwrap_or(0);
        Stays::Open
    }

    /// Takes pasted text.
    pub fn paste(&mut self, text: &str) {
        if let Editing::Json(typed) = &mut self.editing {
            typed.paste(text);
        }
    }

    /// Takes a click on a rule: selects it, and changes the one that was selected.
    pub fn focus_on(&mut self, rule: usize) -> Stays {
        if self.selected == rule {
            self.change(1);
        }
        self.selected = rule.min(RuleName::ALL.len() - 1);
        Stays::Open
    }

    /// Presses a button.
    pub fn choose(&mut self, state: &mut State, button: usize) -> Stays {
        match button {
            0 => return Stays::Closed,
            1 => self.turn(),
            _ => self.save(state),
        }
        Stays::Open
    }

    fn change(&mut self, steps: usize) {
        let Some(rule) = RuleName::ALL.get(self.selected).copied().filter(|_| self.stored.is_some()) else { return };
        let now = self.wanted.rules.scoring(rule).mode;
        let at = MODES.iter().position(|(mode, ..)| *mode == now).unwrap_or(0);
        self.wanted.rules.put(rule, MODES[(at + steps) % MODES.len()].0);
        self.failure = None;
    }

    /// From rules to JSON and back; JSON that is wrong stays JSON.
    fn turn(&mut self) {
        match &self.editing {
            Editing::Rules if self.stored.is_some() => self.editing = Editing::Json(written(&self.wanted)),
            Editing::Rules => {}
            Editing::Json(text) => {
                if let Ok(policy) = parsed(text) {
                    self.wanted = policy;
                    self.editing = Editing::Rules;
                }
            }
        }
    }

    fn save(&mut self, state: &mut State) {
        if self.waiting.is_some() || self.stored.is_none() {
            return;
        }
        if let Editing::Json(text) = &self.editing {
            // What is wrong stands below.
            let Ok(policy) = parsed(text) else { return };
            self.wanted = policy;
        }
        let Ok(json) = serde_json::to_string(&self.wanted) else { return };
        let ticket = state.call(SetPolicy { json });
        self.waiting = state.pending.contains_key(&ticket).then_some(ticket);
    }

    /// The owner is gone: nothing that was waited for will come.
    pub fn forget(&mut self, failure: &Failure) {
        if self.waiting.take().is_some() {
            self.failure = Some(failure.clone());
        }
    }

    /// Draws it.
    pub fn draw(&self, state: &State, painter: &mut Painter<'_>, screen: Rect) {
        let title = painter.say("policy.title");
        let area = popup::open(painter, screen, &title, 84, 21);
        let body = Rect { height: area.height.saturating_sub(4), ..area };
        match (&self.stored, &self.editing) {
            (None, _) => {
                let reading = || vec![(painter.say("link.reading").into_owned(), Role::Muted)];
                let lines = self.failure.as_ref().map_or_else(reading, told);
                painter.message(body, &lines);
            }
            (Some(stored), Editing::Rules) => self.draw_rules(painter, body, stored),
            (Some(_), Editing::Json(text)) => text.draw(painter, body, Emphasis::Focused),
        }
        let note = Rect { height: 2.min(area.height), ..below(area, area.height.saturating_sub(3)) };
        let notes = match (&self.failure, &self.editing) {
            (Some(_), _) if self.stored.is_none() => Vec::new(),
            (Some(failure), _) => told(failure),
            (None, Editing::Json(text)) => match parsed(text) {
                Ok(_) => vec![(painter.say("policy.json_hint").into_owned(), Role::Muted)],
                Err(fault) => vec![(escape(&fault).into_owned(), Role::Error)],
            },
            (None, Editing::Rules) => vec![(painter.say("policy.hint").into_owned(), Role::Muted)],
        };
        painter.paragraphs(note, &notes);
        let buttons = row(area, area.height.saturating_sub(1));
        if self.waiting.is_some() {
            painter.text(buttons, spinner(state), Role::Info);
        } else if self.is_changed() {
            let changed = painter.say("policy.changed");
            painter.text(buttons, &changed, Role::Warn);
        }
        let other =
            painter.say(if matches!(self.editing, Editing::Rules) { "policy.as_json" } else { "policy.as_rules" });
        let (close, save) = (painter.say("button.close"), painter.say("policy.save"));
        popup::buttons(painter, buttons, &[&close, &other, &save], None);
    }

    fn draw_rules(&self, painter: &mut Painter<'_>, area: Rect, stored: &SecurityPolicy) {
        let say = |painter: &Painter<'_>, key| painter.say(key);
        let columns = [
            Column::text(say(painter, "policy.rule"), Width::Share { min: 18, weight: 1 }, 0),
            Column::text(say(painter, "policy.mode"), Width::Exact(14), 0),
            Column::number(say(painter, "policy.points"), 7, 1),
            Column::number(say(painter, "policy.per_minute"), 9, 2),
        ];
        let names: Vec<_> = MODES.iter().map(|(mode, key, role)| (*mode, painter.say(key), *role)).collect();
        let table = Table {
            list: ListId::Overlay,
            columns: &columns,
            rows: RuleName::ALL.len(),
            selected: Some(self.selected),
            target: Target::OverlayRow,
        };
        table::draw(painter, area, &table, |index, column| {
            let rule = RuleName::ALL[index];
            let wanted = self.wanted.rules.scoring(rule);
            let changed = wanted.mode != stored.rules.scoring(rule).mode;
            match column {
                0 => Cell::new(rule.as_str(), Role::Popup),
                1 => {
                    let found = names.iter().find(|(mode, ..)| *mode == wanted.mode);
                    let (name, role) = found.map_or(("", Role::Popup), |(_, name, role)| (name.as_ref(), *role));
                    let mark = if changed { " *" } else { "" };
                    Cell::new(format!("{name}{mark}"), if changed { Role::Accent } else { role })
                }
                2 => Cell::new(wanted.points.to_string(), Role::Muted),
                _ => Cell::new(wanted.per_minute.to_string(), Role::Muted),
            }
        });
    }
}

/// The modes in their order, with the keys of their names and their colours.
const MODES: [(Mode, &str, Role); 3] = [
    (Mode::Off, "policy.off", Role::Muted),
    (Mode::Simulate, "policy.simulate", Role::Warn),
    (Mode::Enforce, "policy.enforce", Role::Ok),
];

fn parsed(text: &TextBox) -> Result<SecurityPolicy, String> {
    SecurityPolicy::parse(&text.text()).map_err(|fault| fault.to_string())
}

fn written(policy: &SecurityPolicy) -> Box<TextBox> {
    // A policy is plain data: it can always be written.
    let mut text = TextBox::with(&serde_json::to_string_pretty(policy).unwrap_or_default());
    text.go_to_top();
    Box::new(text)
}
