//! A new secret, shown once: an API key with a request that is ready to run, or what a webhook is signed with.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::layout::Rect;

use crate::tui::overlays::{Stays, moved_focus};
use crate::tui::state::State;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::widgets::painter::{Painter, below, cells, row};
use crate::tui::widgets::popup;
use crate::types::key::CreatedKey;
use crate::types::secret::Secret;
use crate::types::text::escape;

/// A new secret. Its text lives here and nowhere else, and is cleared from memory when the box closes.
#[derive(Debug)]
pub struct NewKey {
    /// The label of the key, or the name of the channel.
    label: String,
    secret: Secret,
    use_: Use,
    /// A button.
    focus: usize,
}

/// What a secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Calling the proxy.
    Key,
    /// Checking the signature of alerts.
    Signing,
}

/// What a button does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    CopySecret,
    CopyRequest,
    Close,
}

impl NewKey {
    /// Shows a key just made.
    #[must_use]
    pub fn new(created: CreatedKey) -> Self {
        Self { label: created.view.label, secret: created.key, use_: Use::Key, focus: 0 }
    }

    /// Shows the signing secret just made for an alert channel.
    #[must_use]
    pub fn signing(channel: &str, secret: Secret) -> Self {
        Self { label: channel.to_owned(), secret, use_: Use::Signing, focus: 0 }
    }

    fn deeds(&self) -> &'static [Deed] {
        match self.use_ {
            Use::Key => &[Deed::CopySecret, Deed::CopyRequest, Deed::Close],
            Use::Signing => &[Deed::CopySecret, Deed::Close],
        }
    }

    /// Takes a key press.
    pub fn press(&mut self, state: &mut State, key: KeyEvent) -> Stays {
        match key.code {
            KeyCode::Char('y') => self.choose(state, 0),
            KeyCode::Char('c') if self.use_ == Use::Key => self.choose(state, 1),
            KeyCode::Enter => self.choose(state, self.focus),
            KeyCode::Char('q') => Stays::Closed,
            _ => {
                self.focus = moved_focus(self.focus, self.deeds().len(), key).unwrap_or(self.focus);
                Stays::Open
            }
        }
    }

    /// Presses a button.
    pub fn choose(&mut self, state: &mut State, button: usize) -> Stays {
        let (text, what) = match self.deeds().get(button) {
            Some(Deed::CopySecret) => (self.secret.expose().to_owned(), self.words().copied),
            Some(Deed::CopyRequest) => (self.request(state), "key.the_request"),
            Some(Deed::Close) | None => return Stays::Closed,
        };
        let what = state.words.say(what);
        state.copy(text, &what);
        self.focus = self.deeds().len() - 1;
        Stays::Open
    }

    fn words(&self) -> Keys {
        match self.use_ {
            Use::Key => Keys { title: "key.title", once: "key.once", copied: "key.the_key", copy: "key.copy_key" },
            Use::Signing => Keys {
                title: "alerts.secret_title",
                once: "alerts.secret_once",
                copied: "alerts.the_secret",
                copy: "alerts.copy_secret",
            },
        }
    }

    fn request(&self, state: &State) -> String {
        let base = state.world.base_url().unwrap_or("http://127.0.0.1:8484").trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        format!("curl {base}/v1/models -H 'Authorization: Bearer {}'", self.secret.expose())
    }

    /// Draws it.
    pub fn draw(&self, state: &State, painter: &mut Painter<'_>, screen: Rect) {
        let width = 92.min(screen.width.saturating_sub(2));
        let inner = usize::from(width.saturating_sub(4));
        let words = self.words();
        let once = text::wrap(&painter.say(words.once), inner);
        let secret = text::wrap(self.secret.expose(), inner);
        let request = if self.use_ == Use::Key { text::wrap(&self.request(state), inner) } else { Vec::new() };
        let try_it = if request.is_empty() { 0 } else { cells(request.len()) + 2 };
        let height = cells(once.len() + secret.len()) + try_it + 6;
        let label = escape(&self.label).into_owned();
        let title = painter.words.fill(words.title, &[("label", &label)]);
        let area = popup::open(painter, screen, &title, width, height);
        let mut y = 0;
        y += painter.paragraph(below(area, y), &once.join("\n"), Role::Warn) + 1;
        for line in &secret {
            painter.text(row(area, y), line, Role::Accent);
            y += 1;
        }
        if !request.is_empty() {
            y += 1;
            painter.text(row(area, y), &painter.say("key.try_it"), Role::Muted);
            y += 1;
            for line in &request {
                painter.text(row(area, y), line, Role::Popup);
                y += 1;
            }
        }
        let labels: Vec<_> = self
            .deeds()
            .iter()
            .map(|deed| {
                painter.say(match deed {
                    Deed::CopySecret => words.copy,
                    Deed::CopyRequest => "key.copy_request",
                    Deed::Close => "button.close",
                })
            })
            .collect();
        let labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
        popup::buttons(painter, row(area, area.height.saturating_sub(1)), &labels, Some(self.focus));
    }
}

/// The keys of its texts.
struct Keys {
    title: &'static str,
    once: &'static str,
    copied: &'static str,
    copy: &'static str,
}
