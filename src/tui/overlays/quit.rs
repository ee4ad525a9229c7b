//! Leaving: what becomes of the proxy.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;

use crate::tui::effect::Effect;
use crate::tui::overlays::{Overlay, Stays, moved_focus};
use crate::tui::state::State;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::widgets::painter::{Painter, cells, row};
use crate::tui::widgets::popup;
use crate::tui::{ConsoleAccess, ConsoleEnd, OwnerOrigin};
use crate::types::listener::{ListenerPhase, OwnerKind};

/// The question.
#[derive(Debug)]
pub struct Quit {
    kind: OwnerKind,
    focus: usize,
}

/// Asks, where there is something to ask; a second request leaves with the safe answer.
pub fn ask(state: &mut State) {
    let kind = owner(state);
    let end = match kind {
        OwnerKind::Daemon => ConsoleEnd::LeaveProxyRunning,
        OwnerKind::InProcess => ConsoleEnd::StopProxy,
    };
    let asked = state.overlays.iter().any(|overlay| matches!(overlay, Overlay::Quit(_)));
    let listeners = state.world.status.as_ref().map_or(&[] as &[_], |status| &status.listeners);
    let serves = listeners.iter().any(|listener| listener.phase != ListenerPhase::Stopped);
    // A daemon that serves nothing and was started for this console has no reason to stay.
    let idle_end = if kind == OwnerKind::Daemon && state.origin == Some(OwnerOrigin::StartedHere) {
        ConsoleEnd::StopProxy
    } else {
        end
    };
    if asked || state.access == ConsoleAccess::ReadOnly || !state.is_live() {
        state.ask(Effect::End(end));
    } else if !serves && !state.prompts.has_unsaved() {
        state.ask(Effect::End(idle_end));
    } else {
        let focus = usize::from(kind == OwnerKind::InProcess);
        crate::tui::overlays::open(state, Overlay::Quit(Quit { kind, focus }));
    }
}

fn owner(state: &State) -> OwnerKind {
    match (&state.world.status, state.origin) {
        (Some(status), _) => status.owner,
        (None, Some(OwnerOrigin::InProcess)) => OwnerKind::InProcess,
        _ => OwnerKind::Daemon,
    }
}

impl Quit {
    fn buttons(&self) -> &'static [&'static str] {
        match self.kind {
            OwnerKind::Daemon => &["quit.leave", "quit.stop", "button.cancel"],
            OwnerKind::InProcess => &["quit.stop_and_quit", "button.cancel"],
        }
    }

    /// Takes a key press.
    pub fn press(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        match key.code {
            KeyCode::Enter => self.choose(state, self.focus),
            KeyCode::Char('q' | 'n') => Stays::Closed,
            KeyCode::Char('s') => self.press_named(state, "quit.stop"),
            KeyCode::Char('l') if self.kind == OwnerKind::Daemon => self.press_named(state, "quit.leave"),
            _ => {
                self.focus = moved_focus(self.focus, self.buttons().len(), key).unwrap_or(self.focus);
                Stays::Open
            }
        }
    }

    fn press_named(&mut self, state: &mut State, name: &str) -> Stays {
        match self.buttons().iter().position(|button| button.starts_with(name)) {
            Some(button) => self.choose(state, button),
            None => Stays::Open,
        }
    }

    /// Presses a button.
    pub fn choose(&mut self, state: &mut State, button: usize) -> Stays {
        match self.buttons().get(button) {
            Some(&"quit.leave") => state.ask(Effect::End(ConsoleEnd::LeaveProxyRunning)),
            Some(&("quit.stop" | "quit.stop_and_quit")) => state.ask(Effect::End(ConsoleEnd::StopProxy)),
            _ => {}
        }
        Stays::Closed
    }

    /// Draws it.
    pub fn draw(&self, state: &State, painter: &mut Painter<'_>, screen: Rect) {
        let width = 66.min(screen.width.saturating_sub(2));
        let traffic = &state.world.traffic;
        let body = match self.kind {
            OwnerKind::Daemon => painter.say("quit.daemon").into_owned(),
            OwnerKind::InProcess => painter.say("quit.in_process").into_owned(),
        };
        let mut lines: Vec<(String, Role)> =
            text::wrap(&body, usize::from(width.saturating_sub(4))).into_iter().map(|l| (l, Role::Popup)).collect();
        if traffic.in_flight > 0 {
            let running = traffic.in_flight.to_string();
            lines.push((painter.words.fill("quit.in_flight", &[("count", &running)]), Role::Warn));
        }
        if state.prompts.has_unsaved() {
            lines.push((painter.say("quit.unsaved").into_owned(), Role::Warn));
        }
        let title = painter.say("quit.title");
        let area = popup::open(painter, screen, &title, width, cells(lines.len()) + 5);
        for (number, (line, role)) in lines.iter().enumerate() {
            painter.text(row(area, 1 + cells(number)), line, *role);
        }
        let labels: Vec<_> = self.buttons().iter().map(|key| painter.say(key)).collect();
        let labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
        popup::buttons(painter, row(area, area.height.saturating_sub(1)), &labels, Some(self.focus));
    }
}
