//! One line of typed text with a cursor that moves by graphemes.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use unicode_segmentation::UnicodeSegmentation as _;

use crate::tui::text;

/// Longest text that an input takes, in bytes; a paste beyond it is cut.
const LONGEST: usize = 4096;

/// A line being typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineInput {
    text: String,
    /// Byte offset of the cursor, always at a grapheme's edge.
    cursor: usize,
}

/// Whether a key was meant for the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It edited or moved.
    Yes,
    /// It is somebody else's.
    No,
}

impl LineInput {
    /// An input that holds `text`, with the cursor at its end.
    #[must_use]
    pub fn with(text: &str) -> Self {
        Self { text: text.to_owned(), cursor: text.len() }
    }

    /// What was typed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether nothing is typed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.text.clear();
        self.cursor = 0;
    }

    /// Inserts text at the cursor; line breaks and control characters are left out.
    pub fn insert(&mut self, pasted: &str) {
        for letter in pasted.chars().filter(|letter| !crate::types::text::is_hostile(*letter)) {
            if self.text.len() + letter.len_utf8() > LONGEST {
                break;
            }
            self.text.insert(self.cursor, letter);
            self.cursor += letter.len_utf8();
        }
        self.settle();
    }

    /// Takes a key press.
    pub fn press(&mut self, key: KeyEvent) -> Taken {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('a') if control => self.cursor = 0,
            KeyCode::Char('e') if control => self.cursor = self.text.len(),
            KeyCode::Char('u') if control => {
                self.text.drain(..self.cursor);
                self.cursor = 0;
            }
            KeyCode::Char('k') if control => self.text.truncate(self.cursor),
            KeyCode::Char('w') if control => self.delete_word(),
            KeyCode::Char('h') if control => self.delete_before(),
            KeyCode::Char(letter) if !control && !key.modifiers.contains(KeyModifiers::ALT) => {
                self.insert(letter.encode_utf8(&mut [0; 4]));
            }
            KeyCode::Backspace => self.delete_before(),
            KeyCode::Delete => {
                let end = self.next_edge();
                self.text.drain(self.cursor..end);
            }
            KeyCode::Left => self.cursor = self.previous_edge(),
            KeyCode::Right => self.cursor = self.next_edge(),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = self.text.len(),
            _ => return Taken::No,
        }
        self.settle();
        Taken::Yes
    }

    /// The part that fits into `cells`, with the column of the cursor in it.
    #[must_use]
    pub fn window(&self, cells: usize) -> (String, usize) {
        let before = text::width(&self.text[..self.cursor]);
        let mut skipped = 0;
        let mut start = 0;
        // One cell is kept for the cursor behind the last letter.
        for grapheme in self.text.graphemes(true) {
            if before - skipped < cells.max(1) {
                break;
            }
            skipped += text::width(grapheme);
            start += grapheme.len();
        }
        (text::fit(&self.text[start..], cells, "").into_owned(), before - skipped)
    }

    fn delete_before(&mut self) {
        let start = self.previous_edge();
        self.text.drain(start..self.cursor);
        self.cursor = start;
    }

    fn delete_word(&mut self) {
        let before = &self.text[..self.cursor];
        let kept = before
            .trim_end()
            .rfind(char::is_whitespace)
            .map_or(0, |at| at + before[at..].chars().next().map_or(0, char::len_utf8));
        self.text.drain(kept..self.cursor);
        self.cursor = kept;
    }

    fn previous_edge(&self) -> usize {
        self.text[..self.cursor].grapheme_indices(true).next_back().map_or(0, |(at, _)| at)
    }

    fn next_edge(&self) -> usize {
        self.text[self.cursor..].graphemes(true).next().map_or(self.text.len(), |grapheme| self.cursor + grapheme.len())
    }

    /// Editing may join graphemes; the cursor goes to the next edge then.
    fn settle(&mut self) {
        let edge = self.text.grapheme_indices(true).map(|(at, _)| at).find(|at| *at >= self.cursor);
        self.cursor = edge.unwrap_or(self.text.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(input: &mut LineInput, code: KeyCode) {
        input.press(KeyEvent::new(code, KeyModifiers::NONE));
    }

    #[test]
    fn editing_moves_by_graphemes() {
        let mut input = LineInput::with("日e\u{301}x");
        press(&mut input, KeyCode::Left);
        press(&mut input, KeyCode::Backspace);
        assert_eq!(input.text(), "日x");
        press(&mut input, KeyCode::Home);
        press(&mut input, KeyCode::Delete);
        assert_eq!(input.text(), "x");
        press(&mut input, KeyCode::Char('本'));
        assert_eq!(input.text(), "本x");
    }

    #[test]
    fn a_paste_loses_line_breaks_and_escapes() {
        let mut input = LineInput::default();
        input.insert("a\nb\x1b[31mc");
        assert_eq!(input.text(), "ab[31mc");
    }

    #[test]
    fn the_window_keeps_the_cursor_in_view() {
        let mut input = LineInput::with("0123456789日本");
        let (shown, column) = input.window(6);
        assert!(text::width(&shown) <= 6 && column < 6, "{shown:?} {column}");
        press(&mut input, KeyCode::Home);
        assert_eq!(input.window(6), ("012345".to_owned(), 0));
    }

    #[test]
    fn control_w_deletes_the_word_before() {
        let mut input = LineInput::with("one two ");
        input.press(KeyEvent::new(KeyCode::Char('w'), KeyModifiers::CONTROL));
        assert_eq!(input.text(), "one ");
    }
}
