//! The six tabs and their order (SPEC §9): adding one is a folder `tab_<name>/` and its lines here.
//!
//! Called by `update` and `view`, which hand everything on to the tab in front. Must never hold a tab's behaviour.

use crossterm::event::KeyEvent;
use ratatui::layout::Rect;

use crate::tui::action::{Command, Context};
use crate::tui::state::State;
use crate::tui::update::show_tab;
use crate::tui::widgets::painter::Painter;
use crate::tui::{tab_blocklist, tab_engines, tab_models, tab_prompts, tab_proxy, tab_security};

/// A tab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tab {
    /// Engines and their health.
    Engines,
    /// Models of all engines.
    Models,
    /// Listeners, live requests, keys.
    Proxy,
    /// Security events.
    Security,
    /// Blocked, allowed and trusted addresses.
    Blocklist,
    /// System prompts per route.
    Prompts,
}

impl Tab {
    /// All tabs in their order.
    pub const ALL: [Self; 6] =
        [Self::Engines, Self::Models, Self::Proxy, Self::Security, Self::Blocklist, Self::Prompts];

    /// The key of its name.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Engines => "tab.engines",
            Self::Models => "tab.models",
            Self::Proxy => "tab.proxy",
            Self::Security => "tab.security",
            Self::Blocklist => "tab.blocklist",
            Self::Prompts => "tab.prompts",
        }
    }

    /// The tab after this one, round and round.
    #[must_use]
    pub fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }

    /// The tab before this one, round and round.
    #[must_use]
    pub fn previous(self) -> Self {
        Self::ALL[(self as usize + Self::ALL.len() - 1) % Self::ALL.len()]
    }

    /// The contexts of its keys, the most specific first.
    #[must_use]
    pub fn contexts(self, state: &State) -> Vec<Context> {
        let mut chain = match self {
            Self::Engines => vec![Context::Engines],
            Self::Models => tab_models::contexts(state),
            Self::Proxy => tab_proxy::contexts(state),
            Self::Security => vec![Context::Security],
            Self::Blocklist => tab_blocklist::contexts(state),
            Self::Prompts => vec![Context::Prompts],
        };
        chain.extend([Context::List, Context::Global]);
        chain
    }

    /// The context of what takes text here, when it has the keyboard: its keys come first, letters are typed.
    #[must_use]
    pub fn editor(self, state: &State) -> Option<Context> {
        match self {
            Self::Models => tab_models::editor(state),
            Self::Prompts => tab_prompts::is_editing(state).then_some(Context::Editor),
            _ => None,
        }
    }

    /// Takes a key press for what takes text here.
    pub fn type_key(self, state: &mut State, key: KeyEvent) {
        match self {
            Self::Models => tab_models::type_key(state, key),
            Self::Prompts => tab_prompts::type_key(state, key),
            _ => {}
        }
    }

    /// Takes pasted text for what takes text here.
    pub fn paste(self, state: &mut State, text: &str) {
        match self {
            Self::Models => tab_models::paste(state, text),
            Self::Prompts => tab_prompts::paste(state, text),
            _ => {}
        }
    }

    /// Carries a command out.
    pub fn run(self, state: &mut State, command: Command) {
        match self {
            Self::Engines => tab_engines::run(state, command),
            Self::Models => tab_models::run(state, command),
            Self::Proxy => tab_proxy::run(state, command),
            Self::Security => tab_security::run(state, command),
            Self::Blocklist => tab_blocklist::run(state, command),
            Self::Prompts => tab_prompts::run(state, command),
        }
    }

    /// Selects a row that was clicked.
    pub fn select(self, state: &mut State, row: usize) {
        match self {
            Self::Engines => tab_engines::select(state, row),
            Self::Models => tab_models::select(state, row),
            Self::Proxy => tab_proxy::select(state, row),
            Self::Security => tab_security::select(state, row),
            Self::Blocklist => tab_blocklist::select(state, row),
            Self::Prompts => tab_prompts::select(state, row),
        }
    }

    /// Shows another view of the tab, by a click on its title.
    pub fn show_view(self, state: &mut State, view: usize) {
        match self {
            Self::Models => tab_models::show_view(state, view),
            Self::Proxy => tab_proxy::show_view(state, view),
            Self::Blocklist => tab_blocklist::show_view(state, view),
            _ => {}
        }
    }

    /// Draws it.
    pub fn draw(self, state: &State, painter: &mut Painter<'_>, area: Rect) {
        match self {
            Self::Engines => tab_engines::view::draw(state, painter, area),
            Self::Models => tab_models::view::draw(state, painter, area),
            Self::Proxy => tab_proxy::view::draw(state, painter, area),
            Self::Security => tab_security::view::draw(state, painter, area),
            Self::Blocklist => tab_blocklist::view::draw(state, painter, area),
            Self::Prompts => tab_prompts::view::draw(state, painter, area),
        }
    }
}

/// Goes where commands of a context are valid; contexts without a place of their own are everywhere.
pub fn go_to(state: &mut State, context: Context) {
    let (tab, view) = match context {
        Context::Global | Context::List | Context::Editor => return,
        Context::Engines => (Tab::Engines, 0),
        Context::Models => (Tab::Models, 0),
        Context::Chat => (Tab::Models, 1),
        Context::Compare => (Tab::Models, 2),
        Context::Proxy | Context::Requests => (Tab::Proxy, 0),
        Context::Keys => (Tab::Proxy, 1),
        Context::Usage => (Tab::Proxy, 2),
        Context::Security => (Tab::Security, 0),
        Context::Lists | Context::Blocks => (Tab::Blocklist, 0),
        Context::Networks => (Tab::Blocklist, 1),
        Context::Prompts => (Tab::Prompts, 0),
    };
    show_tab(state, tab);
    tab.show_view(state, view);
}
