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

/// Columns that [`area`] has for points: what is left beside the labels.
#[must_use]
pub fn plot_width(place: Rect, points: &[Point], unit: fn(f64) -> String) -> usize {
    usize::from(place.width.saturating_sub(labels(highest(points), unit) + 1))
}

fn highest(points: &[Point]) -> f64 {
    points.iter().fold(0.0_f64, |high, point| if let Point::Value(v) = point { high.max(*v) } else { high })
}

fn labels(highest: f64, unit: fn(f64) -> String) -> u16 {
    cells(text::width(&unit(highest))).max(cells(text::width(&unit(0.0))))
}

/// Draws an area chart with its highest value at the top left, one column per point, newest right.
pub fn area(painter: &mut Painter<'_>, place: Rect, points: &[Point], unit: fn(f64) -> String) {
    if place.height == 0 || place.width < 12 {
        return;
    }
    let highest = highest(points);
    let label = unit(highest);
    let label_cells = labels(highest, unit);
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

/// Puts points into columns by their place, 0 being the left end and 1 the right one: the highest value of each column, and
/// which part of its points failed. A column is [`Point::Failed`] only when nothing in it succeeded.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "columns of a screen"
)]
pub fn by_place(points: &[(f64, Point)], columns: usize) -> (Vec<Point>, Vec<Option<f64>>) {
    let mut shown = vec![Point::Unknown; columns];
    let mut counts = vec![(0_u32, 0_u32); columns];
    for (place, point) in points {
        let column = ((place.clamp(0.0, 1.0) * columns as f64) as usize).min(columns.saturating_sub(1));
        let (Some(known), Some((all, failed))) = (shown.get_mut(column), counts.get_mut(column)) else { continue };
        match point {
            Point::Unknown => continue,
            Point::Failed => *failed += 1,
            Point::Value(_) => {}
        }
        *all += 1;
        *known = match (*known, *point) {
            (Point::Value(a), Point::Value(b)) => Point::Value(a.max(b)),
            (Point::Value(a), _) | (_, Point::Value(a)) => Point::Value(a),
            (_, point) => point,
        };
    }
    let rates = counts.iter().map(|(all, failed)| (*all > 0).then(|| f64::from(*failed) / f64::from(*all)));
    (shown, rates.collect())
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

/// A row of a bar chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// What it is; escaped.
    pub label: String,
    /// How long it is beside the others.
    pub value: u64,
    /// What stands behind it; escaped.
    pub shown: String,
    /// Its colour.
    pub role: Role,
}

/// Draws as many bars as there are rows, on one scale that begins at nothing; the longest fills its room.
#[expect(clippy::cast_precision_loss, reason = "a fraction of a width")]
pub fn bars(painter: &mut Painter<'_>, place: Rect, bars: &[Bar]) {
    let shown = &bars[..bars.len().min(usize::from(place.height))];
    let widest = |text: fn(&Bar) -> &str| cells(shown.iter().map(|bar| text::width(text(bar))).max().unwrap_or(0));
    let figure_cells = widest(|bar| &bar.shown).min(place.width / 2);
    // A name that is cut may be any; a short bar still compares.
    let least = (place.width / 6).max(4);
    let label_cells = widest(|bar| &bar.label).min(place.width.saturating_sub(figure_cells + 2 + least));
    let highest = shown.iter().map(|bar| bar.value).max().unwrap_or(0).max(1) as f64;
    for (number, bar) in shown.iter().enumerate() {
        let line = row(place, cells(number));
        painter.text(Rect { width: label_cells, ..line }, &bar.label, Role::Text);
        painter.right(line, &text::fit(&bar.shown, usize::from(figure_cells), ""), Role::Muted);
        let x = line.x + label_cells + 1;
        let room = Rect { x, width: line.right().saturating_sub(x + figure_cells + 1), ..line };
        if room.width > 2 && bar.value > 0 {
            self::bar(painter, room, 0.0, bar.value as f64 / highest, bar.role);
        }
    }
}

/// Draws how much of something is taken; nothing taken is drawn as nothing.
pub fn gauge(painter: &mut Painter<'_>, place: Rect, part: f64, role: Role) {
    if part > 0.0 {
        bar(painter, place, 0.0, part, role);
    } else {
        let line = painter.symbols.empty.repeat(usize::from(place.width));
        painter.text(place, &line, Role::Faint);
    }
}

/// Draws a strip of fields of equal width, each as dark as its value is high beside the highest; answers the cells of a
/// field.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 4")]
pub fn heat(painter: &mut Painter<'_>, place: Rect, fields: &[(u64, Role)]) -> u16 {
    const WIDEST: u16 = 5;
    let width = (place.width / cells(fields.len().max(1))).clamp(1, WIDEST);
    let highest = fields.iter().map(|(value, _)| *value).max().unwrap_or(0).max(1);
    // Few and very many are told apart when each shade stands for the same factor.
    let scale = (highest as f64 + 1.0).ln();
    for (number, (value, role)) in fields.iter().enumerate() {
        let x = place.x + cells(number) * width;
        if x >= place.right() {
            break;
        }
        let field = Rect { x, width: width.min(place.right() - x), ..place };
        let shades = painter.symbols.shades;
        let (shade, role) = match value {
            0 => (painter.symbols.dot, Role::Faint),
            value => {
                let level = ((*value as f64 + 1.0).ln() / scale * shades.len() as f64).ceil() as usize;
                (shades[level.clamp(1, shades.len()) - 1], *role)
            }
        };
        for line in 0..place.height {
            painter.text(row(field, line), &shade.repeat(usize::from(field.width)), role);
        }
    }
    width
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
    fn points_of_a_span_stand_where_their_time_is() {
        let at = |at: f64, value| (at, value);
        let points = [at(0.0, Point::Value(2.0)), at(0.95, Point::Value(9.0)), at(0.99, Point::Failed)];
        let (columns, failed) = by_place(&points, 4);
        assert_eq!(columns, [Point::Value(2.0), Point::Unknown, Point::Unknown, Point::Value(9.0)]);
        assert_eq!(failed, [Some(0.0), None, None, Some(0.5)]);
        assert_eq!(by_place(&[(1.0, Point::Failed)], 2).0, [Point::Unknown, Point::Failed]);
    }

    #[test]
    fn buckets_keep_the_worst() {
        let points = [Point::Value(1.0), Point::Value(5.0), Point::Failed, Point::Value(2.0)];
        assert_eq!(buckets(&points, 2), [Point::Value(5.0), Point::Failed]);
        assert_eq!(buckets(&points[..1], 3), [Point::Unknown, Point::Unknown, Point::Value(1.0)]);
    }
}
