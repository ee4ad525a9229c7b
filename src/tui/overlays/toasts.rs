//! News in the lower right corner: what was done, what failed and why. They never take the keyboard.

use std::time::Duration;

use ratatui::layout::Rect;

use crate::tui::state::State;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::widgets::painter::{Emphasis, Painter, cells, inset, row};
use crate::tui::widgets::popup;
use crate::types::clock::UnixMillis;
use crate::types::text::escape;

/// How much news matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For information.
    Info,
    /// Done.
    Ok,
    /// Not done, and no harm.
    Warn,
    /// Failed.
    Error,
}

impl Level {
    /// How long it is shown: what must be read and acted on stays longer.
    #[must_use]
    pub fn lasts(self) -> Duration {
        match self {
            Self::Info | Self::Ok => Duration::from_secs(4),
            Self::Warn => Duration::from_secs(6),
            Self::Error => Duration::from_secs(12),
        }
    }

    fn role(self) -> Role {
        match self {
            Self::Info => Role::Info,
            Self::Ok => Role::Ok,
            Self::Warn => Role::Warn,
            Self::Error => Role::Error,
        }
    }
}

/// News.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toast {
    /// How much it matters.
    pub level: Level,
    /// What it says; line breaks part what happened from what to do.
    pub text: String,
    /// When it goes.
    pub expires: UnixMillis,
}

/// Draws the newest lowest.
pub fn draw(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let mut bottom = area.bottom();
    for toast in state.toasts.iter().rev() {
        let most = usize::from(area.width.saturating_sub(8)).min(64);
        let lines: Vec<String> =
            toast.text.split('\n').flat_map(|line| text::wrap(&escape(line), most)).take(6).collect();
        let wide = cells(lines.iter().map(|line| text::width(line)).max().unwrap_or(0)) + 6;
        let high = cells(lines.len()) + 2;
        if high > bottom.saturating_sub(area.y) || wide > area.width {
            return;
        }
        bottom -= high;
        let place = Rect { x: area.right() - wide - 1, y: bottom, width: wide, height: high };
        popup::free_edges(painter, place);
        painter.clear(place, Role::Popup);
        let inside = painter.panel(place, "", Emphasis::Resting);
        let sign = match toast.level {
            Level::Ok => painter.symbols.ok,
            Level::Info => painter.symbols.dot,
            Level::Warn => painter.symbols.warn,
            Level::Error => painter.symbols.error,
        };
        let inside = inset(inside, 1);
        painter.text(row(inside, 0), sign, toast.level.role());
        for (number, line) in lines.iter().enumerate() {
            let role = if number == 0 { Role::Popup } else { Role::Muted };
            let place = row(Rect { x: inside.x + 2, width: inside.width - 2, ..inside }, cells(number));
            painter.text(place, line, role);
        }
    }
}
