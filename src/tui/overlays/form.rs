//! Forms: fields that are checked while they are typed, an answer that is waited for, and failures shown inside.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;

use crate::tui::effect::{Request, Ticket};
use crate::tui::geometry::Target;
use crate::tui::overlays::Stays;
use crate::tui::overlays::forms::FormKind;
use crate::tui::signs::told_within;
use crate::tui::state::State;
use crate::tui::tab_blocklist::transfer;
use crate::tui::tab_models::chat::ChatSettings;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::widgets::input::LineInput;
use crate::tui::widgets::painter::{Emphasis, Painter, cells, row};
use crate::tui::widgets::popup;
use crate::tui::widgets::symbols::Motion;
use crate::types::alert::AlertKind;
use crate::types::calls::models::PullModel;
use crate::types::chat::Sampling;
use crate::types::failure::Failure;

/// A value to pick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What is sent.
    pub value: String,
    /// What is shown.
    pub label: String,
}

/// What a field holds.
#[derive(Debug)]
pub enum Value {
    /// Typed text.
    Text(LineInput),
    /// One of several.
    Choice {
        /// All of them, at least one.
        options: Vec<Choice>,
        /// Which one.
        at: usize,
    },
}

/// Whether the person has changed a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edited {
    /// Not yet: its faults are not told.
    No,
    /// It is theirs.
    Yes,
}

/// Whether a value may be changed by those that it is meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// They may.
    Open,
    /// They may not.
    Set,
}

/// A field.
#[derive(Debug)]
pub struct Field {
    /// The key of its label.
    pub label: &'static str,
    /// The key of the line that explains it.
    pub hint: &'static str,
    /// What it holds.
    pub value: Value,
    /// Whether it was changed by hand.
    pub edited: Edited,
    /// What is wrong with it.
    pub fault: Option<String>,
    /// Its pin, where it has one; Ctrl-T turns it.
    pub pin: Option<Pin>,
}

impl Field {
    /// A field for text.
    #[must_use]
    pub fn text(label: &'static str, hint: &'static str, text: &str) -> Self {
        Self { label, hint, value: Value::Text(LineInput::with(text)), edited: Edited::No, fault: None, pin: None }
    }

    /// What is wrong with it, once it was changed by hand.
    #[must_use]
    pub fn told(&self) -> Option<&str> {
        self.fault.as_deref().filter(|_| self.edited == Edited::Yes)
    }

    /// The field with a pin.
    #[must_use]
    pub fn with_pin(mut self, pin: Pin) -> Self {
        self.pin = Some(pin);
        self
    }

    /// A field with choices.
    #[must_use]
    pub fn choice(label: &'static str, hint: &'static str, options: Vec<Choice>) -> Self {
        Self { label, hint, value: Value::Choice { options, at: 0 }, edited: Edited::No, fault: None, pin: None }
    }

    /// Takes a key press; answers whether the field holds something else now.
    pub fn press(&mut self, key: KeyEvent) -> Edited {
        match &mut self.value {
            Value::Text(input) => {
                let before = input.text().to_owned();
                input.press(key);
                if input.text() == before {
                    return Edited::No;
                }
            }
            Value::Choice { options, at } => {
                let count = options.len().max(1);
                match key.code {
                    KeyCode::Left | KeyCode::Char('h') => *at = (*at + count - 1) % count,
                    KeyCode::Right | KeyCode::Char(' ' | 'l') => *at = (*at + 1) % count,
                    _ => return Edited::No,
                }
            }
        }
        self.edited = Edited::Yes;
        Edited::Yes
    }

    /// Takes pasted text; answers whether the field takes text.
    pub fn paste(&mut self, text: &str) -> Edited {
        let Value::Text(input) = &mut self.value else { return Edited::No };
        input.insert(text.trim());
        self.edited = Edited::Yes;
        Edited::Yes
    }

    /// What is typed or chosen.
    #[must_use]
    pub fn get(&self) -> &str {
        match &self.value {
            Value::Text(input) => input.text().trim(),
            Value::Choice { options, at } => options.get(*at).map_or("", |choice| &choice.value),
        }
    }
}

/// What a correct form does.
#[derive(Debug)]
pub enum Submit {
    /// Runs an operation and waits for its answer.
    Call(Request),
    /// Opens the prompt editor.
    EditPrompt(String),
    /// Begins to fetch a model, in a box of its own.
    Pull(PullModel),
    /// Asks questions of the chat tester this way from now on.
    Chat(Box<ChatSettings>),
    /// Compares models this way from now on.
    Compare {
        /// Runs per model.
        runs: u32,
        /// How the models pick their words.
        sampling: Sampling,
    },
    /// Writes a file.
    Write {
        /// Its name, with or without a folder.
        path: String,
        /// What it is to hold.
        content: String,
    },
    /// Blocks the networks of a file.
    Import {
        /// Its name, with or without a folder.
        path: String,
        /// How long.
        duration: Option<Duration>,
    },
    /// Writes the block list to a file.
    ExportBlocks(String),
    /// Opens the form of a new alert channel of this kind.
    NewChannel(AlertKind),
}

/// A form.
#[derive(Debug)]
pub struct Form {
    /// Which one.
    pub kind: FormKind,
    /// Its fields.
    pub fields: Vec<Field>,
    /// The call that it waits for.
    pub waiting: Option<Ticket>,
    /// Why the last one failed.
    pub failure: Option<Failure>,
    /// A field, then Cancel, then the deed.
    focus: usize,
}

impl Form {
    /// A form with its fields.
    #[must_use]
    pub fn new(kind: FormKind, fields: Vec<Field>) -> Self {
        Self { kind, fields, waiting: None, failure: None, focus: 0 }
    }

    /// Takes a key press.
    pub fn press(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        let count = self.fields.len() + 2;
        match key.code {
            KeyCode::Char('t') if key.modifiers.contains(KeyModifiers::CONTROL) => self.turn_pin(),
            KeyCode::Tab | KeyCode::Down => self.focus = (self.focus + 1) % count,
            KeyCode::BackTab | KeyCode::Up => self.focus = (self.focus + count - 1) % count,
            KeyCode::Enter if self.focus == self.fields.len() => return Stays::Closed,
            KeyCode::Enter => return self.submit(state),
            KeyCode::Left | KeyCode::Right if self.focus >= self.fields.len() => {
                self.focus = if self.focus == self.fields.len() { self.fields.len() + 1 } else { self.fields.len() };
            }
            _ => self.edit(state, key),
        }
        Stays::Open
    }

    fn turn_pin(&mut self) {
        if let Some(pin) = self.fields.get_mut(self.focus).and_then(|field| field.pin.as_mut()) {
            *pin = if *pin == Pin::Set { Pin::Open } else { Pin::Set };
        }
    }

    fn edit(&mut self, state: &State, key: KeyEvent) {
        let Some(field) = self.fields.get_mut(self.focus) else { return };
        if field.press(key) == Edited::No {
            return;
        }
        self.failure = None;
        self.kind.changed(state, self.focus, &mut self.fields);
        self.check(state);
    }

    /// Takes pasted text.
    pub fn paste(&mut self, state: &State, text: &str) {
        if self.fields.get_mut(self.focus).is_some_and(|field| field.paste(text) == Edited::Yes) {
            self.check(state);
        }
    }

    /// Takes a click on a field.
    pub fn focus_on(&mut self, field: usize) -> Stays {
        self.focus = field.min(self.fields.len() + 1);
        Stays::Open
    }

    /// Presses a button.
    pub fn choose(&mut self, state: &mut State, button: usize) -> Stays {
        if button == 0 { Stays::Closed } else { self.submit(state) }
    }

    fn check(&mut self, state: &State) -> Option<Submit> {
        let outcome = self.kind.build(state, &self.fields);
        for field in &mut self.fields {
            field.fault = None;
        }
        match outcome {
            Ok(submit) => Some(submit),
            Err(faults) => {
                for (number, fault) in faults {
                    if let Some(field) = self.fields.get_mut(number) {
                        field.fault = Some(fault);
                    }
                }
                None
            }
        }
    }

    fn submit(&mut self, state: &mut State) -> Stays {
        if self.waiting.is_some() {
            return Stays::Open;
        }
        self.failure = None;
        match self.check(state) {
            Some(Submit::Call(request)) => {
                self.waiting = Some(state.call(request));
                Stays::Open
            }
            Some(Submit::EditPrompt(api_id)) => {
                crate::tui::tab_prompts::edit(state, &api_id);
                Stays::Closed
            }
            Some(Submit::NewChannel(kind)) => {
                let form = crate::tui::overlays::alert_form::add(state, kind);
                crate::tui::overlays::open(state, crate::tui::overlays::Overlay::Form(form));
                Stays::Closed
            }
            Some(Submit::Pull(call)) => {
                let what = call.model.clone();
                crate::tui::overlays::work::begin(state, "work.pull", &what, call);
                Stays::Closed
            }
            Some(Submit::Chat(settings)) => {
                state.models.chat.settings = *settings;
                Stays::Closed
            }
            Some(Submit::Compare { runs, sampling }) => {
                state.models.compare.runs = runs;
                state.models.compare.sampling = sampling;
                Stays::Closed
            }
            Some(Submit::Import { path, duration }) => {
                self.waiting = Some(transfer::import(state, &path, duration));
                Stays::Open
            }
            Some(Submit::ExportBlocks(path)) => {
                transfer::export(state, path);
                Stays::Closed
            }
            Some(Submit::Write { path, content }) => {
                self.waiting = Some(state.write(&path, content));
                Stays::Open
            }
            None => {
                for field in &mut self.fields {
                    field.edited = Edited::Yes;
                }
                let faulty = self.fields.iter().position(|field| field.fault.is_some());
                self.focus = faulty.unwrap_or(self.focus);
                Stays::Open
            }
        }
    }

    /// Draws it.
    pub fn draw(&self, state: &State, painter: &mut Painter<'_>, screen: Rect) {
        let width = 74.min(screen.width.saturating_sub(2));
        let inner = usize::from(width.saturating_sub(4));
        let mut notes: Vec<(String, Role)> = Vec::new();
        if let Some(failure) = &self.failure {
            notes.extend(told_within(failure, inner));
        } else if let Some(field) =
            self.fields.get(self.focus).or_else(|| self.fields.iter().find(|f| f.told().is_some()))
        {
            // On a button stands what is wrong elsewhere.
            let note = match field.told() {
                Some(fault) => (fault.to_owned(), Role::Error),
                None => (painter.say(field.hint).into_owned(), Role::Muted),
            };
            notes.extend(text::wrap(&note.0, inner).into_iter().map(|line| (line, note.1)));
        }
        let note_rows = cells(notes.len()).max(2);
        let title = painter.say(self.kind.title());
        let area = popup::open(painter, screen, &title, width, cells(self.fields.len()) + note_rows + 6);
        // A short screen shows the part of the form that has the focus.
        let room = area.height.saturating_sub(note_rows + 4).max(1);
        let first = self.focus.min(self.fields.len().saturating_sub(1)).saturating_sub(usize::from(room) - 1);
        let label_cells =
            self.fields.iter().map(|f| text::width(&painter.say(f.label))).max().unwrap_or(0).min(inner / 2);
        for (place, (number, field)) in self.fields.iter().enumerate().skip(first).take(usize::from(room)).enumerate() {
            let emphasis = Emphasis::when(number == self.focus);
            draw_field(painter, row(area, 1 + cells(place)), number, field, cells(label_cells), emphasis);
        }
        for (number, (line, role)) in notes.iter().enumerate() {
            painter.text(row(area, room + 2 + cells(number)), line, *role);
        }
        let buttons = row(area, area.height.saturating_sub(1));
        if let Some(pending) = self.waiting.and_then(|ticket| state.pending.get(&ticket)) {
            let waiting = format!("{} {}", spinner(state), text::span(state.now.since(pending.since)));
            painter.text(buttons, &waiting, Role::Info);
        }
        let (cancel, deed) = (painter.say("button.cancel"), painter.say(self.kind.deed()));
        let focus = self.focus.checked_sub(self.fields.len());
        popup::buttons(painter, buttons, &[&cancel, &deed], focus);
    }
}

/// Draws a field on one row: label, what it holds, its pin, and a sign when something is wrong with it.
pub fn draw_field(
    painter: &mut Painter<'_>,
    line: Rect,
    number: usize,
    field: &Field,
    label_cells: u16,
    emphasis: Emphasis,
) {
    let focused = emphasis == Emphasis::Focused;
    let label = painter.say(field.label);
    let role = if focused { Role::Accent } else { Role::Muted };
    painter.text(Rect { width: label_cells, ..line }, &label, role);
    let x = line.x + label_cells + 2;
    let mut place = Rect { x, width: line.right().saturating_sub(x + 2), ..line };
    if let Some(pin) = field.pin {
        let (word, role) = match pin {
            Pin::Set => ("form.pinned", Role::Accent),
            Pin::Open => ("form.open", Role::Faint),
        };
        let word = painter.say(word);
        let most = ["form.pinned", "form.open"].map(|word| text::width(&painter.say(word))).into_iter().max();
        let width = cells(most.unwrap_or(0));
        place.width = place.width.saturating_sub(width + 1);
        painter.text(Rect { x: place.right() + 1, width, ..line }, &word, role);
    }
    match &field.value {
        Value::Text(input) => popup::input(painter, place, input, "", emphasis),
        Value::Choice { options, at } => {
            let label = options.get(*at).map_or("", |choice| &choice.label);
            let shown = if focused { format!("< {label} >") } else { format!("  {label}") };
            painter.outside(place, &shown, if focused { Role::Accent } else { Role::Popup });
        }
    }
    if field.told().is_some() {
        painter.right(line, painter.symbols.error, Role::Error);
    }
    painter.hit(line, Target::OverlayRow(number));
}

/// The frame of the spinner for this moment.
#[must_use]
pub fn spinner(state: &State) -> &'static str {
    if state.motion == Motion::Reduced {
        return state.symbols().running;
    }
    let frames = state.symbols().spinner;
    let step = i64::try_from(crate::tui::SPINNER_STEP.as_millis()).unwrap_or(i64::MAX);
    let frame = usize::try_from(state.now.0.rem_euclid(step * 1000) / step).unwrap_or(0);
    frames[frame % frames.len()]
}
