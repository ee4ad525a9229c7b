//! Something that takes long: what it is, how far it is, and a way to end it.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;

use crate::tui::effect::{Request, Ticket};
use crate::tui::overlays::toasts::Level;
use crate::tui::overlays::{self, Overlay, Stays, form};
use crate::tui::state::State;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::widgets::painter::{Painter, cells, row};
use crate::tui::widgets::popup;
use crate::types::clock::UnixMillis;
use crate::types::engine::TransferProgress;
use crate::types::text::escape;

/// Something that takes long.
#[derive(Debug)]
pub struct Work {
    /// The key of its title.
    title: &'static str,
    /// What it is done to; escaped.
    what: String,
    ticket: Ticket,
    since: UnixMillis,
    progress: Option<TransferProgress>,
    leaving: Leaving,
}

/// Whether it can still be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// Nothing has come of it yet.
    Possible,
    /// It brings itself to an end.
    TooLate,
}

/// Begins work and opens its box. A read-only console only says that it may not.
pub fn begin(state: &mut State, title: &'static str, what: &str, request: impl Into<Request>) {
    let ticket = state.call(request);
    if state.pending.contains_key(&ticket) {
        let work = Work {
            title,
            what: escape(what).into_owned(),
            ticket,
            since: state.now,
            progress: None,
            leaving: Leaving::Possible,
        };
        overlays::open(state, Overlay::Work(work));
    }
}

/// The box of a call, if it is still open.
fn find(state: &mut State, ticket: Ticket) -> Option<&mut Work> {
    state.overlays.iter_mut().find_map(|overlay| match overlay {
        Overlay::Work(work) if work.ticket == ticket => Some(work),
        _ => None,
    })
}

/// Takes how far some work is.
pub fn progressed(state: &mut State, ticket: Ticket, progress: TransferProgress) {
    if let Some(work) = find(state, ticket) {
        work.progress = Some(progress);
    }
}

/// Some work is so far that it is not broken off any more.
pub fn settle(state: &mut State, ticket: Ticket) {
    if let Some(work) = find(state, ticket) {
        work.leaving = Leaving::TooLate;
    }
}

/// Closes the box of work that has ended.
pub fn ended(state: &mut State, ticket: Ticket) {
    state.overlays.retain(|overlay| !matches!(overlay, Overlay::Work(work) if work.ticket == ticket));
}

impl Work {
    /// Takes a key press.
    pub fn press(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        match key.code {
            KeyCode::Esc | KeyCode::Enter => self.leave(state),
            _ => Stays::Open,
        }
    }

    /// Ends it, as long as that can be.
    pub fn leave(&mut self, state: &mut State) -> Stays {
        if self.leaving == Leaving::TooLate {
            return Stays::Open;
        }
        state.leave(self.ticket);
        let note = state.words.fill("work.left", &[("what", &self.what)]);
        state.toast(Level::Warn, note);
        Stays::Closed
    }

    /// Draws it.
    pub fn draw(&self, state: &State, painter: &mut Painter<'_>, screen: Rect) {
        let width = 64.min(screen.width.saturating_sub(4));
        let title = painter.say(self.title);
        let area = popup::open(painter, screen, &title, width, 9);
        painter.text(row(area, 1), &self.what, Role::Popup);
        let spent = format!("{} {}", form::spinner(state), text::span(state.now.since(self.since)));
        painter.right(row(area, 1), &spent, Role::Info);
        let known =
            self.progress.as_ref().and_then(|told| Some((told.completed, told.total.filter(|total| *total > 0)?)));
        if let Some((completed, total)) = known {
            let done = completed.min(total);
            let share = |of: u64| u64::try_from(u128::from(done) * u128::from(of) / u128::from(total)).unwrap_or(0);
            let wide = area.width.saturating_sub(6);
            let filled = usize::try_from(share(u64::from(wide))).unwrap_or(0);
            let full = painter.symbols.levels[8].repeat(filled);
            painter.text(row(area, 3), &full, Role::Accent);
            let rest = Rect { x: area.x + cells(filled), width: wide - cells(filled), ..row(area, 3) };
            painter.text(rest, &painter.symbols.off.repeat(usize::from(rest.width)), Role::Faint);
            painter.right(row(area, 3), &format!("{}%", share(100)), Role::Popup);
            let sums = format!("{} / {}", text::bytes(done), text::bytes(total));
            painter.right(row(area, 4), &sums, Role::Muted);
        }
        let stage = self.progress.as_ref().map(|told| escape(&told.stage).into_owned()).unwrap_or_default();
        painter.text(Rect { width: area.width / 2, ..row(area, 4) }, &stage, Role::Muted);
        if self.leaving == Leaving::Possible {
            let cancel = painter.say("work.leave");
            popup::buttons(painter, row(area, area.height.saturating_sub(1)), &[&cancel], Some(0));
        }
    }
}
