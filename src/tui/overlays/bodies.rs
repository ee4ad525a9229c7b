//! The captured bodies of a request: what the client sent and what it got, escaped, wrapped and scrolled (SPEC §9.3, §5.13).

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;

use crate::tui::geometry::{ListGeometry, ListId, Target};
use crate::tui::overlays::{Stays, moved_focus};
use crate::tui::state::State;
use crate::tui::text::{self, Words};
use crate::tui::theme::Role;
use crate::tui::widgets::painter::{Painter, cells, row};
use crate::tui::widgets::{popup, table};
use crate::types::capture::{Capture, CapturedSize, Kept};
use crate::types::text::escape;

/// Bytes of a body that are shown; the rest is the command line's.
const SHOWN: usize = 256 * 1024;
/// Widest box: longer lines are hard to read.
const WIDEST: u16 = 112;
/// Columns of a box beside its text: borders and a blank at each side.
const FRAME: u16 = 4;

/// The bodies of one exchange.
#[derive(Debug)]
pub struct Bodies {
    capture: Capture,
    part: Part,
    /// Why not all of a body stands there, in words; of request and answer.
    notes: [Option<String>; 2],
    /// The shown body in lines, escaped.
    lines: Vec<String>,
    /// Columns of the screen that the lines were broken for.
    columns: u16,
    scrolled: usize,
}

/// Which body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Request,
    Answer,
}

impl Bodies {
    /// Shows the request of an exchange first.
    #[must_use]
    pub fn new(state: &State, capture: Capture) -> Self {
        let notes = [(capture.entry.request, &capture.request_text), (capture.entry.answer, &capture.answer_text)]
            .map(|(size, text)| note(&state.words, size, text));
        let mut bodies = Self { capture, part: Part::Request, notes, lines: Vec::new(), columns: 0, scrolled: 0 };
        bodies.fit(state.size.0);
        bodies
    }

    /// Breaks the lines anew where the screen has another width.
    pub fn fit(&mut self, columns: u16) {
        if self.columns != columns {
            self.columns = columns;
            self.break_lines();
        }
    }

    fn break_lines(&mut self) {
        let width = usize::from(box_width(self.columns).saturating_sub(FRAME)).max(1);
        let shown = self.text();
        let shown = &shown[..shown.floor_char_boundary(SHOWN)];
        self.lines = if shown.is_empty() { Vec::new() } else { text::outside_lines(shown, width) };
        if let Some(note) = &self.notes[self.part as usize] {
            if !self.lines.is_empty() {
                self.lines.push(String::new());
            }
            self.lines.extend(text::wrap(note, width));
        }
        self.scrolled = 0;
    }

    fn text(&self) -> &str {
        match self.part {
            Part::Request => &self.capture.request_text,
            Part::Answer => &self.capture.answer_text,
        }
    }

    /// Shows request (0) or answer (1).
    pub fn show(&mut self, part: usize) -> Stays {
        self.part = if part == 0 { Part::Request } else { Part::Answer };
        self.break_lines();
        Stays::Open
    }

    /// Takes a key press.
    pub fn press(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        let page = state.geometry.page(ListId::Overlay);
        let most = self.lines.len().saturating_sub(page);
        self.scrolled = match key.code {
            KeyCode::Up | KeyCode::Char('k') => self.scrolled.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => (self.scrolled + 1).min(most),
            KeyCode::PageUp => self.scrolled.saturating_sub(page),
            KeyCode::PageDown => (self.scrolled + page).min(most),
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => most,
            KeyCode::Char('y') => return self.choose(state, 0),
            KeyCode::Enter | KeyCode::Char('q' | ' ') => return Stays::Closed,
            KeyCode::Char('h' | 'l' | 'v') => return self.show(1 - self.part as usize),
            _ => {
                return match moved_focus(self.part as usize, 2, key) {
                    Some(part) => self.show(part),
                    None => Stays::Open,
                };
            }
        };
        Stays::Open
    }

    /// Presses a button: copies the body (0), or closes.
    pub fn choose(&mut self, state: &mut State, button: usize) -> Stays {
        if button != 0 {
            return Stays::Closed;
        }
        let lines: Vec<_> = self.text().lines().map(escape).collect();
        let what = state.words.say(if self.part == Part::Request { "bodies.request" } else { "bodies.answer" });
        state.copy(lines.join("\n"), &what);
        Stays::Open
    }

    /// Draws it.
    pub fn draw(&self, painter: &mut Painter<'_>, screen: Rect) {
        let title = painter.words.fill("bodies.title", &[("id", self.capture.entry.id.as_str())]);
        let height = cells(self.lines.len()).saturating_add(7).clamp(10, screen.height.saturating_sub(2).max(10));
        let area = popup::open(painter, screen, &title, box_width(screen.width), height);
        self.draw_parts(painter, row(area, 0));
        let body = Rect { y: area.y + 2, height: area.height.saturating_sub(4), ..area };
        let page = usize::from(body.height);
        let offset = self.scrolled.min(self.lines.len().saturating_sub(page));
        painter.geometry.lists.insert(ListId::Overlay, ListGeometry { offset, page, base: 0 });
        let text = self.text();
        let noted = text.is_empty() && self.notes[self.part as usize].is_some();
        for (number, line) in self.lines.iter().skip(offset).take(page).enumerate() {
            painter.text(row(body, cells(number)), line, if noted { Role::Muted } else { Role::Popup });
        }
        table::scroll_bar(painter, Rect { width: body.width + 1, ..body }, offset, page, self.lines.len());
        let labels = [painter.say("bodies.copy"), painter.say("button.close")];
        let labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
        popup::buttons(painter, row(area, area.height.saturating_sub(1)), &labels, Some(1));
    }

    /// The names of both bodies with their sizes.
    fn draw_parts(&self, painter: &mut Painter<'_>, line: Rect) {
        let entry = &self.capture.entry;
        let mut x = line.x;
        for (part, name, size) in
            [(Part::Request, "bodies.request", entry.request), (Part::Answer, "bodies.answer", entry.answer)]
        {
            let label = format!(" {} {} ", painter.say(name), size_words(painter.words, size));
            let place = Rect { x, width: cells(text::width(&label)).min(line.right().saturating_sub(x)), ..line };
            painter.text(place, &label, if part == self.part { Role::ButtonFocus } else { Role::Muted });
            painter.hit(place, Target::View(part as usize));
            x = x.saturating_add(place.width + 1);
        }
    }
}

fn box_width(columns: u16) -> u16 {
    columns.saturating_sub(2).min(WIDEST)
}

/// The size of a body, and whether less of it was kept.
#[must_use]
pub fn size_words(words: &Words, size: CapturedSize) -> String {
    let bytes = text::bytes(size.bytes);
    match size.kept {
        Kept::Whole => bytes,
        Kept::Cut => words.fill("bodies.size_cut", &[("size", &bytes)]),
        Kept::Binary => words.fill("bodies.size_binary", &[("size", &bytes)]),
    }
}

/// Why not all of a body is there.
fn note(words: &Words, size: CapturedSize, text: &str) -> Option<String> {
    let shown = text::bytes(text.len().min(SHOWN) as u64);
    match size.kept {
        Kept::Binary => Some(words.say("bodies.binary").into_owned()),
        Kept::Whole if text.is_empty() => Some(words.say("bodies.empty").into_owned()),
        _ if text.len() > SHOWN => Some(words.fill("bodies.longer", &[("size", &shown)])),
        Kept::Cut => Some(words.fill("bodies.cut", &[("size", &shown)])),
        Kept::Whole => None,
    }
}
