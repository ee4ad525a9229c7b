//! Changed cells as bytes for a terminal, as few as there can be: only what differs from the cell before is said.
//!
//! Used by [`super::terminal`]. Ratatui's own writer says both colours whenever one changes and all of them again at the end;
//! over a slow line that is half of every frame.

use std::io::Write as _;

use ratatui::buffer::Cell;
use ratatui::style::{Color, Modifier};

use crate::tui::text;

/// How cells look from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    front: Color,
    back: Color,
    modifier: Modifier,
}

impl Look {
    /// How a terminal writes that was told nothing.
    const PLAIN: Self = Self { front: Color::Reset, back: Color::Reset, modifier: Modifier::empty() };

    fn of(cell: &Cell) -> Self {
        Self { front: cell.fg, back: cell.bg, modifier: cell.modifier }
    }
}

/// What is switched on by which number (ECMA-48 §8.3.117).
const MODIFIERS: [(Modifier, &str); 9] = [
    (Modifier::BOLD, "1"),
    (Modifier::DIM, "2"),
    (Modifier::ITALIC, "3"),
    (Modifier::UNDERLINED, "4"),
    (Modifier::SLOW_BLINK, "5"),
    (Modifier::RAPID_BLINK, "6"),
    (Modifier::REVERSED, "7"),
    (Modifier::HIDDEN, "8"),
    (Modifier::CROSSED_OUT, "9"),
];

/// Appends cells with their places, in the order of rows; what the terminal shows elsewhere stays.
pub(super) fn write<'a>(out: &mut Vec<u8>, cells: impl Iterator<Item = (u16, u16, &'a Cell)>) {
    let mut look = Look::PLAIN;
    // Where the terminal's cursor is, once it was set.
    let mut at: Option<(u16, u16)> = None;
    for (x, y, cell) in cells {
        go(out, at, x, y);
        let wanted = Look::of(cell);
        if wanted != look {
            change(out, look, wanted);
            look = wanted;
        }
        out.extend_from_slice(cell.symbol().as_bytes());
        let width = u16::try_from(text::width(cell.symbol())).unwrap_or(1).max(1);
        at = Some((x.saturating_add(width), y));
    }
    if look != Look::PLAIN {
        out.extend_from_slice(b"\x1b[m");
    }
}

/// Moves the cursor. It is never relied on where it stands after the last column.
fn go(out: &mut Vec<u8>, from: Option<(u16, u16)>, x: u16, y: u16) {
    match from {
        Some((column, row)) if row == y && column == x => {}
        Some((column, row)) if row == y && column < x => {
            let _infallible = match x - column {
                1 => write!(out, "\x1b[C"),
                right => write!(out, "\x1b[{right}C"),
            };
        }
        _ => {
            let _infallible = write!(out, "\x1b[{};{}H", y.saturating_add(1), x.saturating_add(1));
        }
    }
}

/// Says how the next cells look. Writing to a `Vec` cannot fail.
fn change(out: &mut Vec<u8>, from: Look, to: Look) {
    let mut said = Vec::with_capacity(48);
    let mut known = from;
    // What is switched off has no number that every terminal knows but the one for everything.
    if !to.modifier.contains(from.modifier) {
        said.push(b'0');
        known = Look::PLAIN;
    }
    for (modifier, number) in MODIFIERS {
        if to.modifier.contains(modifier) && !known.modifier.contains(modifier) {
            separate(&mut said);
            said.extend_from_slice(number.as_bytes());
        }
    }
    if to.front != known.front {
        separate(&mut said);
        colour(&mut said, to.front, Ground::Front);
    }
    if to.back != known.back {
        separate(&mut said);
        colour(&mut said, to.back, Ground::Back);
    }
    out.extend_from_slice(b"\x1b[");
    if said != b"0" {
        out.extend_from_slice(&said);
    }
    out.push(b'm');
}

fn separate(said: &mut Vec<u8>) {
    if !said.is_empty() {
        said.push(b';');
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ground {
    Front,
    Back,
}

fn colour(said: &mut Vec<u8>, colour: Color, ground: Ground) {
    let base = if ground == Ground::Front { 30 } else { 40 };
    let plain = |number: u8| match number {
        0..8 => base + number,
        bright => base + 60 + (bright - 8),
    };
    let number = match colour {
        Color::Reset => base + 9,
        Color::Black => plain(0),
        Color::Red => plain(1),
        Color::Green => plain(2),
        Color::Yellow => plain(3),
        Color::Blue => plain(4),
        Color::Magenta => plain(5),
        Color::Cyan => plain(6),
        Color::Gray => plain(7),
        Color::DarkGray => plain(8),
        Color::LightRed => plain(9),
        Color::LightGreen => plain(10),
        Color::LightYellow => plain(11),
        Color::LightBlue => plain(12),
        Color::LightMagenta => plain(13),
        Color::LightCyan => plain(14),
        Color::White => plain(15),
        Color::Indexed(index) => {
            let _infallible = write!(said, "{};5;{index}", base + 8);
            return;
        }
        Color::Rgb(red, green, blue) => {
            let _infallible = write!(said, "{};2;{red};{green};{blue}", base + 8);
            return;
        }
    };
    let _infallible = write!(said, "{number}");
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use ratatui::backend::{Backend as _, CrosstermBackend};
    use ratatui::buffer::Buffer;
    use ratatui::layout::Rect;
    use ratatui::style::Style;

    use super::*;

    /// A screen with every colour and modifier, wide characters and gaps between what changed.
    fn patchwork() -> Buffer {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 20, 6));
        let plain = Style::new().fg(Color::Rgb(200, 210, 220)).bg(Color::Rgb(1, 2, 3));
        buffer.set_style(buffer.area, plain);
        buffer.set_string(0, 0, "plain text to the end", plain);
        buffer.set_string(2, 1, "日本語", plain.add_modifier(Modifier::BOLD));
        buffer.set_string(14, 1, "x", plain.fg(Color::Indexed(200)));
        buffer.set_string(0, 2, "bold", plain.add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
        buffer.set_string(4, 2, "less", plain.add_modifier(Modifier::BOLD));
        buffer.set_string(8, 2, "none", Style::reset());
        buffer.set_string(1, 3, "reversed", Style::reset().add_modifier(Modifier::REVERSED));
        buffer.set_string(12, 3, "bright", Style::reset().fg(Color::LightGreen).bg(Color::DarkGray));
        buffer.set_string(0, 4, "dim", Style::reset().fg(Color::Red).add_modifier(Modifier::DIM | Modifier::ITALIC));
        buffer.set_string(18, 5, "語", Style::reset().fg(Color::White).bg(Color::Blue));
        buffer
    }

    fn parsed(bytes: &[u8]) -> vt100::Parser {
        let size = |cells| NonZeroU16::new(cells).expect("not 0");
        let mut parser = vt100::Parser::new(size(6), size(20), 0);
        parser.process(bytes);
        parser
    }

    #[test]
    fn a_terminal_shows_the_same_as_with_the_writer_of_ratatui_for_fewer_bytes() {
        crossterm::style::force_color_output(true);
        let buffer = patchwork();
        let changed = Buffer::empty(buffer.area);
        let changed = changed.diff(&buffer);
        let mut ours = Vec::new();
        write(&mut ours, changed.iter().copied());
        let mut theirs = Vec::new();
        CrosstermBackend::new(&mut theirs).draw(changed.iter().copied()).expect("writes");
        let (ours_shown, theirs_shown) = (parsed(&ours), parsed(&theirs));
        for y in 0..6 {
            for x in 0..20 {
                assert_eq!(ours_shown.screen().cell(y, x), theirs_shown.screen().cell(y, x), "row {y}, column {x}");
            }
        }
        assert!(ours.len() < theirs.len(), "{} of {}", ours.len(), theirs.len());
    }

    #[test]
    fn a_row_of_a_table_that_moves_costs_two_thirds() {
        let ground = Style::new().bg(Color::Rgb(16, 20, 27));
        let row = |time: &str, status: &str, took: &str| {
            let mut buffer = Buffer::empty(Rect::new(0, 0, 60, 1));
            buffer.set_style(buffer.area, ground);
            buffer.set_string(0, 0, time, ground.fg(Color::Rgb(149, 156, 167)));
            buffer.set_string(12, 0, status, ground.fg(Color::Rgb(79, 200, 120)));
            buffer.set_string(20, 0, "chat.completions", ground.fg(Color::Rgb(201, 209, 220)));
            buffer.set_string(50, 0, took, ground.fg(Color::Rgb(201, 209, 220)));
            buffer
        };
        let (before, after) = (row("14:03:20", "200", "1.05 s"), row("14:03:21", "503", "18 ms"));
        let changed = before.diff(&after);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        write(&mut ours, changed.iter().copied());
        CrosstermBackend::new(&mut theirs).draw(changed.iter().copied()).expect("writes");
        assert!(ours.len() * 3 <= theirs.len() * 2, "{} of {}", ours.len(), theirs.len());
    }

    #[test]
    fn what_comes_after_a_frame_is_plain() {
        let buffer = patchwork();
        let mut bytes = Vec::new();
        write(&mut bytes, Buffer::empty(buffer.area).diff(&buffer).into_iter());
        bytes.extend_from_slice(b"\x1b[1;1Hy");
        let shown = parsed(&bytes);
        let cell = shown.screen().cell(0, 0).expect("a cell");
        assert_eq!((cell.contents(), cell.bold(), cell.inverse()), ("y", false, false));
        assert_eq!((cell.fgcolor(), cell.bgcolor()), (vt100::Color::Default, vt100::Color::Default));
    }
}
