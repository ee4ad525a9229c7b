//! A question before something is removed or ended. The focus starts on Cancel; the worst need a typed word.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;

use crate::tui::effect::Request;
use crate::tui::overlays::{Stays, moved_focus};
use crate::tui::state::State;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::widgets::input::{LineInput, Taken};
use crate::tui::widgets::painter::{Emphasis, Painter, cells, row};
use crate::tui::widgets::popup;

/// What a yes does.
#[derive(Debug)]
pub enum Then {
    /// Runs an operation.
    Call(Box<Request>),
    /// Gives up what was typed into the prompt editor.
    DiscardDraft,
    /// Forgets the conversation of the chat tester.
    NewChat,
    /// Opens the chat tester to ask another model than this one.
    AskAnother(Option<String>),
}

impl Then {
    /// Runs this operation.
    pub fn call(request: impl Into<Request>) -> Self {
        Self::Call(Box::new(request.into()))
    }
}

/// A word that must be typed before a yes counts.
#[derive(Debug)]
pub struct Typed {
    word: String,
    input: LineInput,
}

/// A question.
#[derive(Debug)]
pub struct Confirm {
    title: &'static str,
    body: String,
    yes: &'static str,
    then: Option<Then>,
    typed: Option<Typed>,
    /// 0 is Cancel, 1 is yes.
    focus: usize,
}

impl Confirm {
    /// A question with a title, an explanation and the name of the deed; title and deed are keys.
    #[must_use]
    pub fn new(title: &'static str, body: String, yes: &'static str, then: Then) -> Self {
        Self { title, body, yes, then: Some(then), typed: None, focus: 0 }
    }

    /// Asks for a word to be typed as well.
    #[must_use]
    pub fn typed(mut self, word: &str) -> Self {
        self.typed = Some(Typed { word: word.to_owned(), input: LineInput::default() });
        self
    }

    /// Takes a key press.
    pub fn press(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        if key.code == KeyCode::Enter {
            // The typed word is itself the decision.
            let button = if self.typed.is_some() { 1 } else { self.focus };
            return self.choose(state, button);
        }
        if let Some(typed) = &mut self.typed
            && typed.input.press(key) == Taken::Yes
        {
            return Stays::Open;
        }
        match key.code {
            KeyCode::Char('y') => self.choose(state, 1),
            KeyCode::Char('n' | 'q') => Stays::Closed,
            _ => {
                let letters = match key.code {
                    KeyCode::Char('h') => KeyEvent::from(KeyCode::Left),
                    KeyCode::Char('l') => KeyEvent::from(KeyCode::Right),
                    _ => key,
                };
                self.focus = moved_focus(self.focus, 2, letters).unwrap_or(self.focus);
                Stays::Open
            }
        }
    }

    /// Takes pasted text.
    pub fn paste(&mut self, text: &str) {
        if let Some(typed) = &mut self.typed {
            typed.input.insert(text);
        }
    }

    /// Presses a button.
    pub fn choose(&mut self, state: &mut State, button: usize) -> Stays {
        if button == 0 {
            return Stays::Closed;
        }
        if self.typed.as_ref().is_some_and(|typed| typed.input.text() != typed.word) {
            return Stays::Open;
        }
        match self.then.take() {
            Some(Then::Call(request)) => {
                state.call(*request);
            }
            Some(Then::NewChat) => crate::tui::tab_models::chat::begin_anew(state),
            Some(Then::AskAnother(model)) => crate::tui::update::ask_another(state, model),
            Some(Then::DiscardDraft) => crate::tui::tab_prompts::discard(state),
            None => {}
        }
        Stays::Closed
    }

    /// Draws it.
    pub fn draw(&self, painter: &mut Painter<'_>, screen: Rect) {
        let width = 62.min(screen.width.saturating_sub(4));
        let lines = text::wrap(&self.body, usize::from(width.saturating_sub(4)));
        let typed_rows = if self.typed.is_some() { 3 } else { 0 };
        let title = painter.say(self.title);
        let area = popup::open(painter, screen, &title, width, cells(lines.len()) + 5 + typed_rows);
        let mut y = 1;
        for line in &lines {
            painter.text(row(area, y), line, Role::Popup);
            y += 1;
        }
        if let Some(typed) = &self.typed {
            let ask = painter.words.fill("confirm.type_word", &[("word", &typed.word)]);
            painter.text(row(area, y + 1), &ask, Role::Muted);
            popup::input(painter, row(area, y + 2), &typed.input, "", Emphasis::Focused);
        }
        let (cancel, yes) = (painter.say("button.cancel"), painter.say(self.yes));
        let focus =
            if self.typed.as_ref().is_some_and(|typed| typed.input.text() == typed.word) { 1 } else { self.focus };
        popup::buttons(painter, row(area, area.height.saturating_sub(1)), &[&cancel, &yes], Some(focus));
    }
}
