//! Tables that drop columns by priority instead of squeezing them, and ask only for the cells in view.

use std::borrow::Cow;

use ratatui::layout::Rect;

use crate::tui::geometry::{ListGeometry, ListId, Target};
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::widgets::painter::{Painter, below, cells, row};

/// How wide a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// This many cells (more when its title is longer).
    Exact(u16),
    /// At least `min`, and a share of what is left over.
    Share {
        /// Least cells.
        min: u16,
        /// Parts of what is left.
        weight: u16,
    },
}

/// Where a column's text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

use crate::types::order::Order;

/// Where the rows of a table lie in a list of which they are a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slide {
    /// Place of the first row on a scale that stays when rows come before it or go.
    pub base: i64,
    /// Rows of the list before the first one.
    pub above: usize,
    /// Rows of the list; `None` when they are not counted: then those at hand.
    pub all: Option<usize>,
}

/// A column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its title.
    pub title: Cow<'static, str>,
    /// How wide it is.
    pub width: Width,
    /// Where its text stands.
    pub align: Align,
    /// 0 is always shown; the highest is dropped first when there is no room.
    pub priority: u8,
    /// Whether the table is sorted by it.
    pub order: Option<Order>,
}

impl Column {
    /// A column of text.
    #[must_use]
    pub fn text(title: Cow<'static, str>, width: Width, priority: u8) -> Self {
        Self { title, width, align: Align::Left, priority, order: None }
    }

    /// A column of numbers.
    #[must_use]
    pub fn number(title: Cow<'static, str>, width: u16, priority: u8) -> Self {
        Self { title, width: Width::Exact(width), align: Align::Right, priority, order: None }
    }

    fn least(&self) -> u16 {
        let sign = u16::from(self.order.is_some());
        match self.width {
            Width::Exact(width) => width.max(cells(text::width(&self.title)) + sign),
            Width::Share { min, .. } => min,
        }
    }
}

/// What stands in a cell.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The text, escaped.
    pub text: Cow<'static, str>,
    /// Its colour.
    pub role: Role,
}

impl Cell {
    /// A cell.
    #[must_use]
    pub fn new(text: impl Into<Cow<'static, str>>, role: Role) -> Self {
        Self { text: text.into(), role }
    }

    /// A cell with outside text.
    #[must_use]
    pub fn outside(text: &str, role: Role) -> Self {
        Self::new(crate::types::text::escape(text).into_owned(), role)
    }
}

/// A table to draw.
#[derive(Debug)]
pub struct Table<'a> {
    /// Which list, for scrolling.
    pub list: ListId,
    /// Its columns.
    pub columns: &'a [Column],
    /// How many rows there are.
    pub rows: usize,
    /// The selected row.
    pub selected: Option<usize>,
    /// What a click on a row hits.
    pub target: fn(usize) -> Target,
}

/// Cells between columns.
const GAP: u16 = 2;

/// Draws a table with a title row; `cell` is asked for what is in view.
pub fn draw(painter: &mut Painter<'_>, area: Rect, table: &Table<'_>, cell: impl Fn(usize, usize) -> Cell) {
    draw_part(painter, area, table, Slide::default(), cell);
}

/// Draws a table whose rows are a part of a longer list.
pub fn draw_part(
    painter: &mut Painter<'_>,
    area: Rect,
    table: &Table<'_>,
    slide: Slide,
    cell: impl Fn(usize, usize) -> Cell,
) {
    if area.height < 2 || area.width < 4 {
        return;
    }
    // The first cell of a row is the selection marker.
    let inside = Rect { x: area.x + 1, width: area.width - 2, ..area };
    let places = places(table.columns, inside.width);
    for (column, x, width) in &places {
        draw_title(painter, Rect { x: inside.x + x, width: *width, height: 1, ..inside }, &table.columns[*column]);
    }
    let body = below(area, 1);
    let page = usize::from(body.height);
    let offset = painter.before.scrolled_part(table.list, slide.base, table.selected, table.rows, page);
    painter.geometry.lists.insert(table.list, ListGeometry { offset, page, base: slide.base });
    for number in 0..page.min(table.rows.saturating_sub(offset)) {
        let index = offset + number;
        let line = row(body, cells(number));
        for (column, x, width) in &places {
            let place = Rect { x: inside.x + x, width: *width, ..line };
            let cell = cell(index, *column);
            match table.columns[*column].align {
                Align::Left => painter.text(place, &cell.text, cell.role),
                Align::Right => painter.right(place, &cell.text, cell.role),
            };
        }
        if table.selected == Some(index) {
            painter.tint(line, Role::Selection);
            painter.text(line, painter.symbols.marker, Role::Accent);
        }
        painter.hit(line, (table.target)(index));
    }
    let all = slide.all.unwrap_or(table.rows).max(slide.above + table.rows);
    scroll_bar(painter, body, slide.above + offset, page, all);
}

fn draw_title(painter: &mut Painter<'_>, place: Rect, column: &Column) {
    let sign = match column.order {
        None => "",
        Some(Order::Ascending) => painter.symbols.ascending,
        Some(Order::Descending) => painter.symbols.descending,
    };
    let title = format!("{}{sign}", column.title);
    let role = if column.order.is_some() { Role::Accent } else { Role::Column };
    match column.align {
        Align::Left => painter.text(place, &title, role),
        Align::Right => painter.right(place, &title, role),
    };
}

/// Draws a scroll bar over the right border beside `body` when not everything is in view.
pub fn scroll_bar(painter: &mut Painter<'_>, body: Rect, offset: usize, page: usize, rows: usize) {
    if rows <= page || page == 0 {
        return;
    }
    let length = (page * page / rows).clamp(1, page);
    let start = offset * (page - length) / (rows - page).max(1);
    for number in start..start + length {
        let place = Rect { x: body.right(), width: 1, ..row(body, cells(number)) };
        painter.text(place, painter.symbols.thumb, Role::Muted);
    }
}

/// Which columns fit, where they start and how wide they are.
fn places(columns: &[Column], room: u16) -> Vec<(usize, u16, u16)> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let needed = |shown: &[usize]| -> u16 {
        let widths: u16 = shown.iter().map(|index| columns[*index].least()).sum();
        widths + GAP * cells(shown.len().saturating_sub(1))
    };
    while shown.len() > 1 && needed(&shown) > room {
        let Some(dropped) = (0..shown.len()).rev().max_by_key(|place| columns[shown[*place]].priority) else { break };
        shown.remove(dropped);
    }
    let spare = room.saturating_sub(needed(&shown));
    let weights: u16 = shown.iter().map(|index| weight(&columns[*index])).sum();
    let mut x = 0;
    let mut places = Vec::with_capacity(shown.len());
    for index in shown {
        let share =
            if weights == 0 { 0 } else { u32::from(spare) * u32::from(weight(&columns[index])) / u32::from(weights) };
        let width = (columns[index].least() + u16::try_from(share).unwrap_or(0)).min(room.saturating_sub(x));
        places.push((index, x, width));
        x += width + GAP;
    }
    places
}

fn weight(column: &Column) -> u16 {
    match column.width {
        Width::Exact(_) => 0,
        Width::Share { weight, .. } => weight,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_important_columns_go_first_and_the_rest_fills_the_room() {
        let columns = [
            Column::text("Name".into(), Width::Share { min: 8, weight: 1 }, 0),
            Column::number("Size".into(), 6, 2),
            Column::text("State".into(), Width::Exact(7), 1),
        ];
        let shown = |room| places(&columns, room).iter().map(|(index, ..)| *index).collect::<Vec<_>>();
        assert_eq!(shown(40), [0, 1, 2]);
        assert_eq!(shown(20), [0, 2]);
        assert_eq!(shown(10), [0]);
        for room in 8..60 {
            let used = places(&columns, room).iter().map(|(_, x, width)| x + width).max().unwrap_or(0);
            assert!(used <= room, "{used} of {room}");
        }
        assert_eq!(places(&columns, 40).iter().map(|(_, x, w)| x + w).max(), Some(40));
    }
}
