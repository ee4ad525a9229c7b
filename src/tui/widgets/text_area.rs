//! Text of several lines being typed: undo, selection, wrapping, paste.
//!
//! A thin cover over `ratatui-textarea`: pasted text is cleaned here and the cursor is the terminal's own, where
//! input methods open. Called by the prompt editor, the chat tester and Compare.

use crossterm::event::KeyEvent;
use ratatui::layout::{Position, Rect};
use ratatui::style::Style;
use ratatui::widgets::Widget as _;
use ratatui_textarea::{CursorMove, TextArea, WrapMode};

use crate::tui::theme::Role;
use crate::tui::widgets::painter::{Emphasis, Painter, cells};

/// Text being typed.
#[derive(Debug)]
pub struct TextBox {
    area: TextArea<'static>,
}

impl Default for TextBox {
    fn default() -> Self {
        Self::with("")
    }
}

impl TextBox {
    /// A box that holds `text`, with the cursor at its end. What is there at the beginning cannot be undone.
    #[must_use]
    pub fn with(text: &str) -> Self {
        let mut area = TextArea::new(text.split('\n').map(str::to_owned).collect());
        // Colours come from the ground below.
        area.set_cursor_line_style(Style::new());
        area.set_cursor_style(Style::new());
        area.set_wrap_mode(WrapMode::WordOrGlyph);
        area.move_cursor(CursorMove::Bottom);
        area.move_cursor(CursorMove::End);
        Self { area }
    }

    /// The text as it stands.
    #[must_use]
    pub fn text(&self) -> String {
        self.area.lines().join("\n")
    }

    /// Whether nothing but white space is typed.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.area.lines().iter().all(|line| line.trim().is_empty())
    }

    /// Lines as typed, before wrapping.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.area.lines().len()
    }

    /// Takes a key press: letters, arrows with Shift to select, Ctrl-U undoes, Ctrl-R does again, Ctrl-X cuts, Ctrl-Y
    /// puts what was cut.
    pub fn press(&mut self, key: KeyEvent) {
        self.area.input(key);
    }

    /// Moves the cursor to the beginning.
    pub fn go_to_top(&mut self) {
        self.area.move_cursor(CursorMove::Top);
        self.area.move_cursor(CursorMove::Head);
    }

    /// Begins a new line.
    pub fn break_line(&mut self) {
        self.area.insert_newline();
    }

    /// Takes pasted text. Escape sequences in it stay out; line breaks and tabs are text here.
    pub fn paste(&mut self, text: &str) {
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let kept: String =
            text.chars().filter(|c| matches!(c, '\n' | '\t') || !crate::types::text::is_hostile(*c)).collect();
        self.area.insert_str(kept);
    }

    /// Draws it and, when it has the focus, the terminal's cursor.
    pub fn draw(&self, painter: &mut Painter<'_>, place: Rect, emphasis: Emphasis) {
        (&self.area).render(place, painter.buffer);
        if emphasis != Emphasis::Focused || place.is_empty() {
            return;
        }
        let cursor = self.area.screen_cursor();
        let (top, left) = self.area.scroll_offset();
        let y = place.y.saturating_add(cells(cursor.row)).saturating_sub(top);
        let x = place.x.saturating_add(cells(cursor.col)).saturating_sub(left);
        painter.place_cursor(Position { x: x.min(place.right()), y: y.min(place.bottom()) });
    }

    /// Draws it, or what it is for while nothing is typed.
    pub fn draw_with_hint(&self, painter: &mut Painter<'_>, place: Rect, hint: &str, emphasis: Emphasis) {
        self.draw(painter, place, emphasis);
        if self.area.is_empty() {
            painter.text(Rect { height: 1.min(place.height), ..place }, hint, Role::Faint);
        }
    }
}

#[cfg(test)]
mod tests {
    use crossterm::event::{KeyCode, KeyModifiers};

    use super::*;

    #[test]
    fn what_was_typed_is_undone_and_done_again_and_a_paste_brings_no_escapes() {
        let mut typed = TextBox::with("one");
        typed.press(KeyEvent::new(KeyCode::Char('!'), KeyModifiers::NONE));
        assert_eq!(typed.text(), "one!");
        typed.press(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL));
        assert_eq!(typed.text(), "one");
        typed.press(KeyEvent::new(KeyCode::Char('r'), KeyModifiers::CONTROL));
        typed.break_line();
        typed.paste("two\r\nthree\x1b[31m\u{202e}");
        assert_eq!((typed.text().as_str(), typed.lines()), ("one!\ntwo\nthree[31m", 3));
        assert!(!typed.is_blank() && TextBox::with(" \n ").is_blank());
    }

    #[test]
    fn a_selection_is_cut_put_elsewhere_and_replaced_by_what_is_typed_or_pasted() {
        let mut typed = TextBox::with("one two");
        let press = |typed: &mut TextBox, code, modifiers| typed.press(KeyEvent::new(code, modifiers));
        for _ in 0..4 {
            press(&mut typed, KeyCode::Left, KeyModifiers::SHIFT);
        }
        press(&mut typed, KeyCode::Char('x'), KeyModifiers::CONTROL);
        assert_eq!(typed.text(), "one");
        typed.go_to_top();
        press(&mut typed, KeyCode::Char('y'), KeyModifiers::CONTROL);
        assert_eq!(typed.text(), " twoone");
        for _ in 0..3 {
            press(&mut typed, KeyCode::Left, KeyModifiers::SHIFT);
        }
        press(&mut typed, KeyCode::Char('3'), KeyModifiers::NONE);
        assert_eq!(typed.text(), " 3one");
        press(&mut typed, KeyCode::Left, KeyModifiers::SHIFT);
        typed.paste("four\nfive");
        assert_eq!(typed.text(), " four\nfiveone");
        press(&mut typed, KeyCode::Char('u'), KeyModifiers::CONTROL);
        assert!(typed.text().starts_with(" 3") || typed.text().starts_with(" one"), "{}", typed.text());
    }
}
