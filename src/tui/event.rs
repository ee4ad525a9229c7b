//! From what the terminal reports to what the console does: key presses by focus and key map, clicks, pastes.
//!
//! Called by the loop in `tui`. Pure: it reads the state and changes nothing.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEventKind};

use crate::tui::action::{Action, Command, Context, Wheel, WindowFocus};
use crate::tui::state::{State, Typing};

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
