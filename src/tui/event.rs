//! From what the terminal reports to what the console does: key presses by focus and key map, clicks, pastes.
//!
//! Called by the loop in `tui`. Pure: it reads the state and changes nothing.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEventKind};

use crate::tui::action::{Action, Command, Context, Wheel, WindowFocus};
use crate::tui::state::{State, Typing};
use crate::tui::terminal::Keyboard;

/// What a terminal event asks for; `None` when nothing.
#[must_use]
pub fn translate(state: &State, event: Event) -> Option<Action> {
    match event {
        Event::Key(key) if key.kind == KeyEventKind::Release => None,
        Event::Key(key) => press(state, key),
        Event::Paste(text) => Some(Action::Paste(text)),
        Event::Resize(columns, rows) => Some(Action::Resize { columns, rows }),
        Event::FocusGained => Some(Action::Focus(WindowFocus::Focused)),
        Event::FocusLost => Some(Action::Focus(WindowFocus::Unfocused)),
        Event::Mouse(mouse) => match mouse.kind {
            MouseEventKind::Down(MouseButton::Left) => Some(Action::Click { column: mouse.column, row: mouse.row }),
            MouseEventKind::ScrollUp => Some(Action::Turn { wheel: Wheel::Up, column: mouse.column, row: mouse.row }),
            MouseEventKind::ScrollDown => {
                Some(Action::Turn { wheel: Wheel::Down, column: mouse.column, row: mouse.row })
            }
            _ => None,
        },
    }
}

/// Esc and the key behind it, where a press is both: they look like that key with Alt when they come together, as over a slow
/// line, or from GNU screen while it is asked for the mouse. `None` where it is what it looks like: the terminal tells keys
/// apart, the key map knows the chord, or text is typed, which has uses for Alt.
#[must_use]
pub fn apart(state: &State, keyboard: Keyboard, key: KeyEvent) -> Option<[KeyEvent; 2]> {
    let types = match state.overlays.last() {
        Some(overlay) => overlay.takes_text(),
        None => state.filter().typing == Typing::Yes || state.tab.editor(state).is_some(),
    };
    let looks_alike = keyboard == Keyboard::Classic
        && key.kind == KeyEventKind::Press
        && key.modifiers.contains(KeyModifiers::ALT)
        && !types
        && state.keymap.find(&state.tab.contexts(state), key).is_none();
    let behind = KeyEvent::new(key.code, key.modifiers - KeyModifiers::ALT);
    looks_alike.then(|| [KeyEvent::from(KeyCode::Esc), behind])
}

/// What a key press does where the keyboard is now.
#[must_use]
pub fn press(state: &State, key: KeyEvent) -> Option<Action> {
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    if control_c {
        // The way out that works everywhere, whatever the key map says.
        return Some(Action::Run(Command::Quit));
    }
    let editor = state.tab.editor(state);
    let takes_text = !state.overlays.is_empty() || state.filter().typing == Typing::Yes || editor.is_some();
    if !takes_text {
        return state.keymap.find(&state.tab.contexts(state), key).map(Action::Run);
    }
    let everywhere = state.keymap.find(&[Context::Global], key);
    if matches!(everywhere, Some(Command::Repaint | Command::Suspend)) {
        return everywhere.map(Action::Run);
    }
    if let Some(editor) = editor.filter(|_| state.overlays.is_empty()) {
        if let Some(command) = state.keymap.find(&[editor], key) {
            return Some(Action::Run(command));
        }
        if let (KeyCode::F(_), Some(command)) = (key.code, everywhere) {
            return Some(Action::Run(command));
        }
    }
    Some(Action::Type(key))
}
