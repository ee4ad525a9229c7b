//! Boxes in the middle of the screen, inputs and buttons inside them.

use ratatui::layout::{Position, Rect};

use crate::tui::geometry::Target;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::widgets::input::LineInput;
use crate::tui::widgets::painter::{Emphasis, Painter, cells, inset, row};

/// Opens a box of at most `width`×`height` cells in the middle and answers its inside, one column in.
pub fn open(painter: &mut Painter<'_>, screen: Rect, title: &str, width: u16, height: u16) -> Rect {
    let width = width.min(screen.width.saturating_sub(2)).max(10.min(screen.width));
    let height = height.min(screen.height.saturating_sub(1)).max(3.min(screen.height));
    let area =
        Rect { x: screen.x + (screen.width - width) / 2, y: screen.y + (screen.height - height) / 2, width, height };
    free_edges(painter, area);
    painter.clear(area, Role::Popup);
    let inside = painter.panel(area, title, Emphasis::Focused);
    inset(inside, 1)
}

/// A wide character that the box would cut in half is taken away whole.
pub fn free_edges(painter: &mut Painter<'_>, area: Rect) {
    for y in area.top()..area.bottom() {
        if let Some(x) = area.left().checked_sub(1)
            && let Some(cell) = painter.buffer.cell_mut((x, y))
            && text::width(cell.symbol()) > 1
        {
            cell.set_symbol(" ");
        }
    }
}

/// Draws an input with its text and, when it has the focus, the terminal's cursor.
pub fn input(painter: &mut Painter<'_>, place: Rect, input: &LineInput, placeholder: &str, emphasis: Emphasis) {
    painter.clear(place, Role::Input);
    let (shown, column) = input.window(usize::from(place.width));
    if shown.is_empty() {
        let faint = painter.style(Role::Input).patch(painter.style(Role::Faint));
        painter.styled(place, placeholder, faint);
    } else {
        painter.styled(place, &shown, painter.style(Role::Input));
    }
    if emphasis == Emphasis::Focused {
        let x = (place.x + cells(column)).min(place.right().saturating_sub(1));
        painter.place_cursor(Position { x, y: place.y });
    }
}

/// Draws buttons from the right end of a row.
pub fn buttons(painter: &mut Painter<'_>, place: Rect, labels: &[&str], focus: Option<usize>) {
    let wide: u16 = labels.iter().map(|label| cells(text::width(label)) + 4).sum::<u16>()
        + 2 * cells(labels.len().saturating_sub(1));
    let mut x = place.right().saturating_sub(wide).max(place.x);
    for (number, label) in labels.iter().enumerate() {
        let label = format!("  {label}  ");
        let button =
            Rect { x, width: cells(text::width(&label)).min(place.right().saturating_sub(x)), ..row(place, 0) };
        let role = if focus == Some(number) { Role::ButtonFocus } else { Role::Button };
        painter.tint(button, role);
        painter.text(button, &label, role);
        painter.hit(button, Target::Button(number));
        x = x.saturating_add(button.width + 2);
    }
}
