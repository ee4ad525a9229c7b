//! The Proxy tab: the listener and its addresses, live requests with their timing, API keys, and what was used.

use crate::tui::action::{Command, Context};
use crate::tui::effect::Ticket;
use crate::tui::geometry::ListId;
use crate::tui::overlays::confirm::{Confirm, Then};
use crate::tui::overlays::toasts::Level;
use crate::tui::overlays::{self, Overlay, forms};
use crate::tui::state::{Detail, State};
use crate::tui::tabs::Tab;
use crate::tui::update::read_store;
use crate::tui::widgets::cursor::Cursor;
use crate::tui::window::{Ask, Edge, Flow};
use crate::types::calls::keys::{RevokeKey, RotateKey};
use crate::types::calls::proxy::{Reload, StartListener, StopListener};
use crate::types::ids::{KeyId, RequestId};
use crate::types::key::KeyView;
use crate::types::live::Noun;
use crate::types::request::RequestRow;
use crate::types::text::escape;

pub mod bodies;
pub mod leak;
pub mod list;
pub mod load;
pub mod requests;
pub mod usage;
pub mod view;

/// Which list the tab shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    /// Live requests.
    #[default]
    Requests,
    /// API keys.
    Keys,
    /// Top models and keys.
    Usage,
    /// How the load lies.
    Load,
}

impl View {
    /// All views in their order.
    const ALL: [Self; 4] = [Self::Requests, Self::Keys, Self::Usage, Self::Load];

    /// Whether it shows sums of what was used.
    #[must_use]
    pub fn shows_usage(self) -> bool {
        matches!(self, Self::Usage | Self::Load)
    }
}

/// What the tab remembers.
#[derive(Debug)]
pub struct ProxyTab {
    /// Which list is in front.
    pub view: View,
    /// The list of requests.
    pub requests: list::Requests,
    keys: Cursor<KeyId>,
    /// A start that the console began by itself.
    pub starting: Option<Ticket>,
    /// The setup wizard as it was left.
    pub wizard: Option<Box<overlays::wizard::Wizard>>,
    /// The security policy as it was left, changed and not saved.
    pub policy: Option<Box<overlays::policy::Policy>>,
    /// The sums of what was used.
    pub usage: usage::UsageView,
    /// A captured exchange that is on its way, and what for.
    pub wanted: Option<(Ticket, bodies::Wanted)>,
}

impl Default for ProxyTab {
    fn default() -> Self {
        Self {
            view: View::Requests,
            requests: list::Requests::default(),
            keys: Cursor::default(),
            starting: None,
            wizard: None,
            policy: None,
            usage: usage::UsageView::default(),
            wanted: None,
        }
    }
}

impl ProxyTab {
    /// Whether the selection stays at the newest request.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.requests.follows()
    }
}

/// The contexts of the tab's keys.
#[must_use]
pub fn contexts(state: &State) -> Vec<Context> {
    match state.proxy.view {
        View::Requests => vec![Context::Requests, Context::Proxy],
        View::Keys => vec![Context::Keys, Context::Proxy],
        View::Usage | View::Load => vec![Context::Usage, Context::Proxy],
    }
}

fn wanted(state: &State) -> String {
    state.filters[Tab::Proxy as usize].input.text().trim().to_lowercase()
}

/// The keys to show.
#[must_use]
pub fn key_rows(state: &State) -> Vec<&KeyView> {
    let wanted = wanted(state);
    let fits = |key: &&KeyView| {
        wanted.is_empty()
            || key.label.to_lowercase().contains(&wanted)
            || key.id.as_str().to_lowercase().contains(&wanted)
    };
    state.world.keys.value.iter().flatten().filter(fits).collect()
}

fn request_key(row: &RequestRow) -> RequestId {
    row.id
}

fn key_key(key: &KeyView) -> KeyId {
    key.id
}

/// The selected request.
#[must_use]
pub fn selected_request(state: &State, rows: &[&RequestRow]) -> Option<usize> {
    (!rows.is_empty()).then(|| state.proxy.requests.cursor.place(rows, request_key))
}

/// The selected key.
#[must_use]
pub fn selected_key(state: &State, rows: &[&KeyView]) -> Option<usize> {
    (!rows.is_empty()).then(|| state.proxy.keys.place(rows, key_key))
}

/// Selects a clicked row.
pub fn select(state: &mut State, row: usize) {
    match state.proxy.view {
        View::Requests => {
            let row = state.geometry.row_now(ListId::Requests, state.proxy.requests.window.base(), row);
            let mut cursor = state.proxy.requests.cursor.clone();
            cursor.select(row, &list::rows(state), request_key);
            state.proxy.requests.cursor = cursor;
        }
        View::Keys => {
            let mut cursor = state.proxy.keys.clone();
            cursor.select(row, &key_rows(state), key_key);
            state.proxy.keys = cursor;
        }
        View::Usage | View::Load => {}
    }
}

/// Shows requests (0), keys (1), usage (2) or load (3).
pub fn show_view(state: &mut State, view: usize) {
    state.proxy.view = View::ALL[view % View::ALL.len()];
    state.detail = Detail::Closed;
    match state.proxy.view {
        View::Requests => {}
        // What they have used today changes with every request.
        View::Keys => read_store(state, Noun::Keys),
        View::Usage | View::Load => usage::read(state),
    }
}

/// Carries a command out.
pub fn run(state: &mut State, command: Command) {
    match command {
        Command::NextView | Command::Right => show_view(state, state.proxy.view as usize + 1),
        Command::PreviousView | Command::Left => {
            show_view(state, state.proxy.view as usize + View::ALL.len() - 1);
        }
        Command::UsageSpan => usage::next_span(state),
        Command::EditPolicy => overlays::policy::open(state),
        Command::SetUp => overlays::wizard::open(state),
        Command::StartProxy => start(state),
        Command::StopProxy => ask_to_stop(state),
        Command::ReloadProxy => {
            state.call(Reload { port: None });
        }
        Command::Firewall => overlays::firewall::open(state),
        Command::CopyAddress => match state.world.base_url().map(str::to_owned) {
            Some(url) => {
                let shown = escape(&url).into_owned();
                state.copy(url, &shown);
            }
            None => state.toast(Level::Warn, state.words.say("toast.not_running").into_owned()),
        },
        Command::CreateKey => {
            let form = forms::create_key(state);
            overlays::open(state, Overlay::Form(form));
        }
        Command::RotateKey => ask_about_key(state, KeyDeed::Rotate),
        Command::RevokeKey => ask_about_key(state, KeyDeed::Revoke),
        Command::RevokeLeaked => leak::look(state),
        Command::PauseRequests => {
            state.proxy.requests.flow = state.proxy.requests.flow.toggled();
            list::catch_up(state);
        }
        Command::FollowRequests => {
            let requests = &mut state.proxy.requests;
            requests.flow = Flow::Runs;
            (requests.by, requests.order) = Default::default();
            list::settle(state);
            state.proxy.requests.cursor.top();
            list::refill(state);
        }
        Command::SortRequests => state.proxy.requests.by = list::next_column(state.proxy.requests.by),
        Command::ReverseRequests => state.proxy.requests.order = state.proxy.requests.order.reversed(),
        Command::Open if state.proxy.view.shows_usage() => {}
        Command::Open => state.detail = Detail::Open,
        Command::Copy => copy(state),
        Command::ReplayRequest => requests::replay(state),
        Command::CopyCurl => requests::copy_as_curl(state),
        Command::ShowBodies => bodies::look(state),
        Command::ClearCaptures => bodies::ask_to_clear(state),
        Command::CaptureKey => bodies::ask_how_long(state),
        _ => step(state, command),
    }
}

fn step(state: &mut State, command: Command) {
    match state.proxy.view {
        View::Requests => step_requests(state, command),
        View::Keys => {
            let page = state.geometry.page(ListId::Keys);
            let mut cursor = state.proxy.keys.clone();
            cursor.step(command, page, &key_rows(state), key_key);
            state.proxy.keys = cursor;
        }
        View::Usage | View::Load => {}
    }
}

fn step_requests(state: &mut State, command: Command) {
    let window = &state.proxy.requests.window;
    match command {
        Command::First if window.top() != Edge::Reached => {
            state.proxy.requests.cursor.top();
            list::refill(state);
        }
        Command::Last if window.bottom() != Edge::Reached && state.is_live() => list::request(state, Ask::End),
        _ => {
            state.proxy.requests.window.retry();
            let page = state.geometry.page(ListId::Requests);
            let mut cursor = state.proxy.requests.cursor.clone();
            cursor.step(command, page, &list::rows(state), request_key);
            state.proxy.requests.cursor = cursor;
        }
    }
}

fn copy(state: &mut State) {
    let text = match state.proxy.view {
        View::Requests => {
            let rows = list::rows(state);
            selected_request(state, &rows).map(|at| rows[at].id.to_string())
        }
        View::Keys => {
            let rows = key_rows(state);
            selected_key(state, &rows).map(|at| rows[at].id.to_string())
        }
        View::Usage | View::Load => None,
    };
    if let Some(text) = text {
        state.copy(text.clone(), &text);
    }
}

fn start(state: &mut State) {
    if state.proxy.starting.is_some() {
        return;
    }
    // A stopped listener starts again as it was; without one the stored profile or the default is used.
    let stopped = state.world.main_listener().filter(|listener| !listener.phase.is_up());
    let config = stopped.map(|listener| listener.config.clone());
    state.call(StartListener { config, unnamed: Vec::new() });
}

fn ask_to_stop(state: &mut State) {
    let Some(listener) = state.world.main_listener().filter(|listener| listener.phase.is_up()) else {
        state.toast(Level::Warn, state.words.say("toast.not_running").into_owned());
        return;
    };
    let port = listener.config.port;
    let address = listener.addresses.first().map(|address| escape(address).into_owned()).unwrap_or_default();
    let streams = state.world.traffic.in_flight.to_string();
    let body = state.words.fill("proxy.stop_body", &[("address", &address), ("count", &streams)]);
    let then = Then::call(StopListener { port: Some(port) });
    overlays::open(state, Overlay::Confirm(Confirm::new("proxy.stop_title", body, "button.stop", then)));
}

#[derive(Clone, Copy)]
enum KeyDeed {
    Rotate,
    Revoke,
}

fn ask_about_key(state: &mut State, deed: KeyDeed) {
    let rows = key_rows(state);
    let Some(key) = selected_key(state, &rows).map(|at| rows[at]) else { return };
    if key.revoked.is_some() {
        state.toast(Level::Warn, state.words.say("keys.already_revoked").into_owned());
        return;
    }
    let (id, label) = (key.id, escape(&key.label).into_owned());
    let values = [("label", label.as_str()), ("id", id.as_str())];
    let confirm = match deed {
        KeyDeed::Rotate => {
            let then = Then::call(RotateKey { id });
            Confirm::new("keys.rotate_title", state.words.fill("keys.rotate_body", &values), "button.rotate", then)
        }
        KeyDeed::Revoke => {
            let then = Then::call(RevokeKey { id });
            Confirm::new("keys.revoke_title", state.words.fill("keys.revoke_body", &values), "button.revoke", then)
        }
    };
    overlays::open(state, Overlay::Confirm(confirm));
}
