//! Where things were drawn: what a click hits, how long a page is, how far lists are scrolled.
//!
//! Made anew by every drawing and kept by the state, so that `update` knows the screen without drawing and `view`
//! needs no mutable state.

use std::collections::BTreeMap;

use ratatui::layout::{Position, Rect};

use crate::tui::action::Command;
use crate::tui::tabs::Tab;

/// Which list; one at a time of each is on screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListId {
    /// Engines.
    Engines,
    /// Models.
    Models,
    /// Live requests.
    Requests,
    /// API keys.
    Keys,
    /// Usage by model.
    UsageModels,
    /// Usage by key.
    UsageKeys,
    /// Security events.
    Audit,
    /// Blocks.
    Blocks,
    /// Allow list or trusted list.
    Networks,
    /// Prompts.
    Prompts,
    /// Versions of a prompt.
    History,
    /// The list inside the top overlay.
    Overlay,
    /// A scrolled text, row by row.
    Detail,
}

/// What a click hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A tab's name.
    Tab(Tab),
    /// A view's name inside a tab.
    View(usize),
    /// A row of the tab's list.
    Row(usize),
    /// A key hint.
    Command(Command),
    /// A row or field of the top overlay.
    OverlayRow(usize),
    /// A button of the top overlay.
    Button(usize),
}

/// A list as drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListGeometry {
    /// First row in view.
    pub offset: usize,
    /// Rows in view.
    pub page: usize,
    /// Place of the first row of the list on a scale that stays when rows come before it (`widgets::table::Slide`).
    pub base: i64,
}

/// A screen as drawn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Geometry {
    /// Hit areas; later ones lie on top.
    pub targets: Vec<(Rect, Target)>,
    /// Lists by name.
    pub lists: BTreeMap<ListId, ListGeometry>,
    /// Where the terminal's own cursor belongs (input methods open there).
    pub cursor: Option<Position>,
}

impl Geometry {
    /// What lies at a cell.
    #[must_use]
    pub fn target(&self, column: u16, row: u16) -> Option<Target> {
        let at = Position { x: column, y: row };
        self.targets.iter().rev().find(|(area, _)| area.contains(at)).map(|(_, target)| *target)
    }

    /// Rows of a list in view; 10 when it was not drawn yet.
    #[must_use]
    pub fn page(&self, list: ListId) -> usize {
        self.lists.get(&list).map_or(10, |list| list.page)
    }

    /// The row that stands where row `number` was drawn, now that the list begins at `base`.
    #[must_use]
    pub fn row_now(&self, list: ListId, base: i64, number: usize) -> usize {
        let drawn = self.lists.get(&list).map_or(base, |list| list.base);
        let come = isize::try_from(drawn.saturating_sub(base)).unwrap_or(0);
        number.saturating_add_signed(come)
    }

    /// First row in view that keeps `selected` in view and moves as little as possible.
    #[must_use]
    pub fn scrolled(&self, list: ListId, selected: Option<usize>, rows: usize, page: usize) -> usize {
        self.scrolled_part(list, 0, selected, rows, page)
    }

    /// The same of a list that begins at `base` now: rows that came before the others move nothing on the screen.
    #[must_use]
    pub fn scrolled_part(&self, list: ListId, base: i64, selected: Option<usize>, rows: usize, page: usize) -> usize {
        let before = self.lists.get(&list).map_or(0, |known| self.row_now(list, base, known.offset));
        let highest = rows.saturating_sub(page);
        let wanted = match selected {
            Some(row) if row < before => row,
            Some(row) if row >= before + page => (row + 1).saturating_sub(page),
            _ => before,
        };
        wanted.min(highest)
    }
}
