//! Sparklines, area charts and bars.

use ratatui::layout::Rect;

use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::widgets::painter::{Painter, cells, row};
use crate::tui::widgets::symbols::Symbols;

/// A sparkline of the newest values that fit into `width` cells; the highest value fills a cell.
#[must_use]
pub fn spark(symbols: &Symbols, values: &[u32], width: usize) -> String {
    let shown = &values[values.len().saturating_sub(width)..];
    let highest = shown.iter().copied().max().unwrap_or(0).max(1);
    let mut line = symbols.levels[0].repeat(width - shown.len());
    for value in shown {
        // Something is never drawn as nothing.
        let level = if *value == 0 { 0 } else { (u64::from(*value) * 8).div_ceil(u64::from(highest)) };
        line.push_str(symbols.levels[usize::try_from(level).unwrap_or(8).min(8)]);
    }
    line
}

/// One point of a chart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Point {
    /// A value.
    Value(f64),
    /// A failure.
    Failed,
    /// Nothing is known.
    Unknown,
}

/// Draws an area chart with its highest value at the top left, one column per point, newest right.
pub fn area(painter: &mut Painter<'_>, place: Rect, points: &[Point], unit: fn(f64) -> String) {
    if place.height == 0 || place.width < 12 {
        return;
    }
    let highest =
        points.iter().fold(0.0_f64, |high, point| if let Point::Value(v) = point { high.max(*v) } else { high });
    let label = unit(highest);
    let label_cells = cells(text::width(&label)).max(cells(text::width(&unit(0.0))));
    painter.right(Rect { width: label_cells, ..row(place, 0) }, &label, Role::Faint);
    if place.height > 1 {
        painter.right(Rect { width: label_cells, ..row(place, place.height - 1) }, &unit(0.0), Role::Faint);
    }
    let plot = Rect { x: place.x + label_cells + 1, width: place.width.saturating_sub(label_cells + 1), ..place };
    let columns = buckets(points, usize::from(plot.width));
    for (number, point) in columns.iter().enumerate() {
        let x = plot.x + cells(number);
        match point {
            Point::Unknown => {}
            Point::Failed => {
                let bottom = Rect { x, width: 1, ..row(plot, plot.height - 1) };
                painter.text(bottom, painter.symbols.error, Role::Error);
            }
            Point::Value(value) => column(painter, plot, x, if highest > 0.0 { value / highest } else { 0.0 }),
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 8 per row, rows fit u16")]
fn column(painter: &mut Painter<'_>, plot: Rect, x: u16, fraction: f64) {
    let eighths = ((fraction.clamp(0.0, 1.0) * f64::from(plot.height) * 8.0).round() as usize).max(1);
    for level in 0..plot.height {
        let filled = eighths.saturating_sub(usize::from(level) * 8).min(8);
        if filled == 0 {
            break;
        }
        let place = Rect { x, width: 1, ..row(plot, plot.height - 1 - level) };
        painter.text(place, painter.symbols.levels[filled], Role::Chart);
    }
}

/// Fits points to columns: the newest right, the worst of each bucket kept.
fn buckets(points: &[Point], columns: usize) -> Vec<Point> {
    if points.len() <= columns {
        let mut out = vec![Point::Unknown; columns - points.len()];
        out.extend_from_slice(points);
        return out;
    }
    (0..columns)
        .map(|column| {
            let from = column * points.len() / columns;
            let to = ((column + 1) * points.len() / columns).max(from + 1);
            points[from..to].iter().fold(Point::Unknown, |worst, point| match (worst, *point) {
                (Point::Failed, _) | (_, Point::Failed) => Point::Failed,
                (Point::Value(a), Point::Value(b)) => Point::Value(a.max(b)),
                (known, Point::Unknown) | (Point::Unknown, known) => known,
            })
        })
        .collect()
}

/// Draws a bar from `from` to `to`, both fractions of the width, on the first row.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "fractions of a width in u16")]
pub fn bar(painter: &mut Painter<'_>, place: Rect, from: f64, to: f64, role: Role) {
    let width = f64::from(place.width);
    let start = (from.clamp(0.0, 1.0) * width).floor() as u16;
    let end = ((to.clamp(0.0, 1.0) * width).ceil() as u16).clamp((start + 1).min(place.width), place.width);
    let line = painter.symbols.empty.repeat(usize::from(place.width));
    painter.text(place, &line, Role::Faint);
    let filled = painter.symbols.full.repeat(usize::from(end.saturating_sub(start)));
    painter.text(Rect { x: place.x + start, width: end.saturating_sub(start), ..place }, &filled, role);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::widgets::symbols::CharacterSet;

    #[test]
    fn a_sparkline_is_as_wide_as_asked_and_shows_small_values() {
        let symbols = CharacterSet::Unicode.symbols();
        assert_eq!(spark(symbols, &[0, 1, 800], 5), "   ▁█");
        assert_eq!(spark(symbols, &[1, 2, 3, 4], 2).chars().count(), 2);
        assert_eq!(spark(symbols, &[], 3), "   ");
    }

    #[test]
    fn buckets_keep_the_worst() {
        let points = [Point::Value(1.0), Point::Value(5.0), Point::Failed, Point::Value(2.0)];
        assert_eq!(buckets(&points, 2), [Point::Value(5.0), Point::Failed]);
        assert_eq!(buckets(&points[..1], 3), [Point::Unknown, Point::Unknown, Point::Value(1.0)]);
    }
}
