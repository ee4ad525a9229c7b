//! The brush: text cut to cells, panels, hit areas, in the colours of a theme.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Widget as _};

use crate::tui::geometry::{Geometry, Target};
use crate::tui::text::{self, Words};
use crate::tui::theme::{Role, Theme};
use crate::tui::widgets::symbols::Symbols;
use crate::types::text::escape;

/// Whether a panel has the keyboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emphasis {
    /// It has.
    Focused,
    /// Another one has.
    Resting,
}

impl Emphasis {
    /// Focused when `focused` holds.
    #[must_use]
    pub fn when(focused: bool) -> Self {
        if focused { Self::Focused } else { Self::Resting }
    }
}

/// Draws on a buffer.
#[derive(Debug)]
pub struct Painter<'a> {
    /// What is drawn on.
    pub buffer: &'a mut Buffer,
    /// The colours.
    pub theme: &'a Theme,
    /// The signs.
    pub symbols: &'static Symbols,
    /// The words.
    pub words: &'a Words,
    /// Where things are, filled while drawing.
    pub geometry: Geometry,
    /// Where things were in the last drawing, for scroll positions.
    pub before: &'a Geometry,
}

/// A number of cells as the terminal counts them; what exceeds `u16` is off every screen.
#[must_use]
pub fn cells(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// The rows of an area from `from` on.
#[must_use]
pub fn below(area: Rect, from: u16) -> Rect {
    let skipped = from.min(area.height);
    Rect { y: area.y + skipped, height: area.height - skipped, ..area }
}

/// One row of an area; empty when it has no such row.
#[must_use]
pub fn row(area: Rect, number: u16) -> Rect {
    Rect { y: area.y.saturating_add(number), height: u16::from(number < area.height), ..area }
}

/// An area without `columns` cells at its left and right.
#[must_use]
pub fn inset(area: Rect, columns: u16) -> Rect {
    let cut = columns.min(area.width / 2);
    Rect { x: area.x + cut, width: area.width - 2 * cut, ..area }
}

impl Painter<'_> {
    /// The style of a role.
    #[must_use]
    pub fn style(&self, role: Role) -> Style {
        self.theme.style(role)
    }

    /// The text of a key.
    #[must_use]
    pub fn say(&self, key: &'static str) -> std::borrow::Cow<'static, str> {
        self.words.say(key)
    }

    /// Colours an area without touching its text.
    pub fn tint(&mut self, area: Rect, role: Role) {
        self.buffer.set_style(area, self.theme.style(role));
    }

    /// Empties an area and gives it the ground of a role.
    pub fn clear(&mut self, area: Rect, role: Role) {
        let area = area.intersection(self.buffer.area);
        for y in area.top()..area.bottom() {
            for x in area.left()..area.right() {
                if let Some(cell) = self.buffer.cell_mut((x, y)) {
                    cell.reset();
                }
            }
        }
        self.tint(area, role);
    }

    /// Draws text on the first row of an area, cut with an ellipsis; answers the cells used. The text must be
    /// escaped already when it comes from outside; a stray control character is dropped by the buffer.
    pub fn text(&mut self, area: Rect, text: &str, role: Role) -> u16 {
        self.styled(area, text, self.theme.style(role))
    }

    /// Draws outside text, escaped.
    pub fn outside(&mut self, area: Rect, text: &str, role: Role) -> u16 {
        self.text(area, &escape(text), role)
    }

    /// Draws text with a style of its own.
    pub fn styled(&mut self, area: Rect, text: &str, style: Style) -> u16 {
        let area = area.intersection(self.buffer.area);
        if area.is_empty() {
            return 0;
        }
        let cut = text::fit(text, usize::from(area.width), self.symbols.ellipsis);
        let (end, _) = self.buffer.set_stringn(area.x, area.y, &cut, usize::from(area.width), style);
        end - area.x
    }

    /// Draws text at the right end of the first row.
    pub fn right(&mut self, area: Rect, text: &str, role: Role) -> u16 {
        let wide = cells(text::width(text)).min(area.width);
        self.text(Rect { x: area.right() - wide, width: wide, ..area }, text, role)
    }

    /// Draws text in the middle of the first row.
    pub fn centre(&mut self, area: Rect, text: &str, role: Role) {
        let wide = cells(text::width(text)).min(area.width);
        self.text(Rect { x: area.x + (area.width - wide) / 2, width: wide, ..area }, text, role);
    }

    /// Draws parts one after another on the first row; answers the cells used.
    pub fn parts(&mut self, area: Rect, parts: &[(&str, Role)]) -> u16 {
        let mut used = 0;
        for (part, role) in parts {
            let rest = Rect { x: area.x + used, width: area.width.saturating_sub(used), ..area };
            used += self.text(rest, part, *role);
        }
        used
    }

    /// Draws wrapped text from the top; answers the rows used.
    pub fn paragraph(&mut self, area: Rect, text: &str, role: Role) -> u16 {
        let lines = text::wrap(text, usize::from(area.width));
        for (number, line) in lines.iter().enumerate() {
            self.text(row(area, cells(number)), line, role);
        }
        cells(lines.len()).min(area.height)
    }

    /// Paragraphs one below the other.
    pub fn paragraphs(&mut self, area: Rect, paragraphs: &[(String, Role)]) {
        let mut y = 0;
        for (text, role) in paragraphs {
            y += self.paragraph(below(area, y), text, *role);
        }
    }

    /// Draws wrapped lines in the middle of an area: for empty lists and errors.
    pub fn message(&mut self, area: Rect, lines: &[(String, Role)]) {
        let area = inset(area, 2);
        let wrapped: Vec<(String, Role)> = lines
            .iter()
            .flat_map(|(line, role)| text::wrap(line, usize::from(area.width)).into_iter().map(|line| (line, *role)))
            .collect();
        let top = area.height.saturating_sub(cells(wrapped.len())) / 2;
        for (number, (line, role)) in wrapped.iter().enumerate() {
            self.centre(row(area, top + cells(number)), line, *role);
        }
    }

    /// Draws a frame with a title and answers its inside.
    pub fn panel(&mut self, area: Rect, title: &str, emphasis: Emphasis) -> Rect {
        let titles = [(title, Role::Title)];
        self.panel_with(area, &titles, emphasis)
    }

    /// Draws a frame whose title has several parts and answers its inside.
    pub fn panel_with(&mut self, area: Rect, title: &[(&str, Role)], emphasis: Emphasis) -> Rect {
        let area = area.intersection(self.buffer.area);
        let role = match emphasis {
            Emphasis::Focused => Role::BorderFocus,
            Emphasis::Resting => Role::Border,
        };
        let block = Block::bordered().border_set(self.symbols.border).border_style(self.style(role));
        let inside = block.inner(area);
        block.render(area, self.buffer);
        if area.width > 6 && area.height > 0 {
            let room = usize::from(area.width) - 5;
            let mut spans = vec![Span::raw(" ")];
            let mut used = 0;
            for (part, part_role) in title.iter().filter(|(part, _)| !part.is_empty()) {
                let cut = text::fit(part, room - used, self.symbols.ellipsis).into_owned();
                used += text::width(&cut);
                spans.push(Span::styled(cut, self.style(*part_role)));
            }
            spans.push(Span::raw(" "));
            if used > 0 {
                self.buffer.set_line(area.x + 1, area.y, &Line::from(spans), area.width - 2);
            }
        }
        inside
    }

    /// Draws a note at the right end of a panel's lower border.
    pub fn foot_note(&mut self, panel: Rect, note: &str, role: Role) {
        if panel.height < 2 || panel.width < 8 || note.is_empty() {
            return;
        }
        let room = Rect { x: panel.x + 2, y: panel.bottom() - 1, width: panel.width - 4, height: 1 };
        let note = format!(" {} ", text::fit(note, usize::from(room.width).saturating_sub(2), self.symbols.ellipsis));
        self.right(room, &note, role);
    }

    /// Draws a label and its value in two columns; answers nothing when the row is outside.
    pub fn pair(&mut self, area: Rect, label: &str, label_cells: u16, value: &str, role: Role) {
        let label_cells = label_cells.min(area.width);
        self.text(Rect { width: label_cells, ..area }, label, Role::Muted);
        let gap = (label_cells + 1).min(area.width);
        self.text(Rect { x: area.x + gap, width: area.width - gap, ..area }, value, role);
    }

    /// Draws labels with their values below each other, or in two columns where `rows` are too few for them;
    /// answers the rows used.
    pub fn pairs(&mut self, area: Rect, rows: u16, pairs: &[(&'static str, String, Role)]) -> u16 {
        let columns = if pairs.len() > usize::from(rows) && area.width >= 70 { 2 } else { 1 };
        let used = pairs.len().div_ceil(columns);
        let (width, gap) = (area.width / cells(columns), cells(columns) - 1);
        let widest = |pairs: &[(&'static str, String, Role)]| {
            pairs.iter().map(|(key, ..)| text::width(&self.words.say(key))).max().unwrap_or(0)
        };
        // The values stand below each other all over, unless one would be cut for it.
        let common = widest(pairs);
        let room = usize::from(width.saturating_sub(gap)).saturating_sub(common + 1);
        let all_fit = pairs.iter().all(|(_, value, _)| text::width(value) <= room);
        let labels: Vec<usize> =
            pairs.chunks(used.max(1)).map(|pairs| if all_fit { common } else { widest(pairs) }).collect();
        for ((column, pairs), labels) in (0..).zip(pairs.chunks(used.max(1))).zip(labels) {
            let column = Rect { x: area.x + column * width, width: width.saturating_sub(gap), ..area };
            for (y, (key, value, role)) in (0..).zip(pairs) {
                let label = self.say(key);
                self.pair(row(column, y), &label, cells(labels), value, *role);
            }
        }
        cells(used)
    }

    /// Says that a click into an area hits a target.
    pub fn hit(&mut self, area: Rect, target: Target) {
        self.geometry.targets.push((area, target));
    }

    /// Puts the terminal's own cursor somewhere.
    pub fn place_cursor(&mut self, position: Position) {
        self.geometry.cursor = Some(position);
    }
}
