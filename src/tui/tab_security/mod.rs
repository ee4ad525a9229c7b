//! The Security tab: security events as they happen, and older ones page by page.

use std::net::IpAddr;

use crate::tui::action::Command;
use crate::tui::geometry::ListId;
use crate::tui::overlays::toasts::Level;
use crate::tui::overlays::{self, Overlay, forms};
use crate::tui::state::{Detail, State};
use crate::tui::tab_blocklist;
use crate::tui::tab_security::list::Query;
use crate::tui::tabs::Tab;
use crate::tui::widgets::cursor::Cursor;
use crate::tui::window::{Ask, Edge, Flow, Standing, Window};
use crate::types::address::BlockEntry;
use crate::types::audit::{AuditRow, Severity};
use crate::types::calls::audit::AuditColumn;
use crate::types::clock::UnixMillis;

pub mod list;
pub mod overview;
pub mod view;

/// What the tab remembers.
#[derive(Debug)]
pub struct SecurityTab {
    cursor: Cursor<u64>,
    window: Window<AuditRow>,
    /// What the person chose: severity, span and order; the text is in the tab's filter.
    pub chosen: Query,
    /// What is in force for what is held.
    query: Query,
    flow: Flow,
    /// Number of the oldest event of the log, once it was met.
    oldest: Option<u64>,
    /// When the counts of the last day were asked for.
    pub counts_asked: Option<UnixMillis>,
    /// The event that is looked for, while its page is read.
    sought: Option<u64>,
}

impl Default for SecurityTab {
    fn default() -> Self {
        Self {
            cursor: Cursor::following(),
            window: Window::default(),
            chosen: Query::default(),
            query: Query::default(),
            flow: Flow::Runs,
            oldest: None,
            counts_asked: None,
            sought: None,
        }
    }
}

impl SecurityTab {
    /// Whether the timeline stands still.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.flow == Flow::Paused
    }

    /// Whether the selection stays at the newest event.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.query.is_live() && self.window.top() == Edge::Reached && self.cursor.follows()
    }

    /// What it does while events come.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing::of(self.flow, self.follows())
    }

    /// What is held of the list.
    #[must_use]
    pub fn window(&self) -> &Window<AuditRow> {
        &self.window
    }

    /// What is read will not come any more.
    pub fn forget_calls(&mut self) {
        // The owner that would have answered is gone, and the call with it.
        let _gone = self.window.forget();
        self.sought = None;
    }
}

/// The events to show, in their order.
#[must_use]
pub fn rows(state: &State) -> Vec<&AuditRow> {
    state.security.window.rows().iter().collect()
}

fn key(row: &AuditRow) -> u64 {
    row.sequence
}

fn selected_place(state: &State) -> usize {
    state.security.cursor.place(&rows(state), key)
}

/// The selected row.
#[must_use]
pub fn selected(state: &State, rows: &[&AuditRow]) -> Option<usize> {
    (!rows.is_empty()).then(|| state.security.cursor.place(rows, key))
}

/// Selects a clicked row.
pub fn select(state: &mut State, row: usize) {
    let row = state.geometry.row_now(ListId::Audit, state.security.window.base(), row);
    let mut cursor = state.security.cursor.clone();
    cursor.select(row, &rows(state), key);
    state.security.cursor = cursor;
}

/// Shows an event of the audit log, whatever the filters hide. One that is older than what is held is read.
pub fn jump(state: &mut State, sequence: u64) {
    crate::tui::update::show_tab(state, Tab::Security);
    state.filters[Tab::Security as usize].input.clear();
    state.security.chosen = Query::default();
    state.security.flow = Flow::Runs;
    list::settle(state);
    state.security.sought = Some(sequence);
    if state.security.window.find(&sequence).is_some() {
        land(state);
    } else {
        list::request(state, Ask::Around, Some(sequence));
    }
}

/// Selects the event that was looked for, or the next older one.
fn land(state: &mut State) {
    let Some(sequence) = state.security.sought.take() else { return };
    let found = state.security.window.rows().iter().find(|row| row.sequence <= sequence);
    match found.map(|row| row.sequence) {
        Some(found) => {
            state.security.cursor.at(found);
            state.detail = Detail::Open;
        }
        // Archived meanwhile.
        None => state.toast(Level::Warn, state.words.say("alerts.event_gone").into_owned()),
    }
}

/// Carries a command out.
pub fn run(state: &mut State, command: Command) {
    match command {
        Command::PauseAudit => {
            state.security.flow = state.security.flow.toggled();
            list::catch_up(state);
        }
        Command::FollowAudit => {
            state.security.flow = Flow::Runs;
            let chosen = &mut state.security.chosen;
            (chosen.by, chosen.order) = Default::default();
            list::settle(state);
            state.security.cursor.top();
            list::refill(state);
        }
        Command::SeverityFilter => {
            state.security.chosen.least = match state.security.chosen.least {
                Severity::Low => Severity::Medium,
                Severity::Medium => Severity::High,
                Severity::High => Severity::Critical,
                Severity::Critical => Severity::Low,
            };
        }
        Command::EventSpan => state.security.chosen.span = state.security.chosen.span.next(),
        Command::SortEvents => {
            state.security.chosen.by = match state.security.chosen.by {
                AuditColumn::Time => AuditColumn::Severity,
                AuditColumn::Severity => AuditColumn::Kind,
                AuditColumn::Kind => AuditColumn::Address,
                AuditColumn::Address => AuditColumn::Time,
            };
        }
        Command::ReverseEvents => state.security.chosen.order = state.security.chosen.order.reversed(),
        Command::BlockSource => block_source(state),
        Command::UnblockSource => unblock_source(state),
        Command::AllowSource => {
            if let Some(address) = source(state) {
                overlays::open(state, Overlay::Form(forms::allow(state, address)));
            }
        }
        Command::Open => state.detail = Detail::Open,
        Command::Copy => copy(state),
        Command::First if state.security.window.top() != Edge::Reached => {
            state.security.cursor.top();
            list::refill(state);
        }
        Command::Last if state.security.window.bottom() != Edge::Reached && state.is_live() => {
            list::request(state, Ask::End, None);
        }
        _ => {
            state.security.window.retry();
            let page = state.geometry.page(ListId::Audit);
            let mut cursor = state.security.cursor.clone();
            cursor.step(command, page, &rows(state), key);
            state.security.cursor = cursor;
        }
    }
}

/// The address of the selected event; says so when it has none.
fn source(state: &mut State) -> Option<IpAddr> {
    let rows = rows(state);
    let address = selected(state, &rows).and_then(|at| rows[at].event.address);
    if address.is_none() {
        state.toast(Level::Warn, state.words.say("security.no_address").into_owned());
    }
    address
}

/// Asks whether the block that holds the address is to be lifted; says so when there is none.
fn unblock_source(state: &mut State) {
    let Some(address) = source(state) else { return };
    let holds = |entry: &&BlockEntry| {
        entry.network.contains(&address) && entry.expires.is_none_or(|expires| expires > state.now)
    };
    let known = state.world.blocks.value.iter().flatten().filter(holds).max_by_key(|entry| entry.network.prefix_len());
    if let Some(network) = known.map(|entry| entry.network) {
        overlays::open(state, Overlay::Confirm(tab_blocklist::unblock(state, network)));
    } else {
        let text = state.words.fill("security.not_blocked", &[("address", &address.to_string())]);
        state.toast(Level::Warn, text);
    }
}

fn block_source(state: &mut State) {
    let Some(address) = source(state) else { return };
    let reason = state.words.say("security.block_reason");
    overlays::open(state, Overlay::Form(forms::block(Some(address), &reason)));
}

fn copy(state: &mut State) {
    let rows = rows(state);
    let Some(event) = selected(state, &rows).map(|at| &rows[at].event) else { return };
    let text = match (event.request_id, event.address) {
        (Some(id), _) => id.to_string(),
        (None, Some(address)) => address.to_string(),
        (None, None) => event.details.clone(),
    };
    let shown = crate::types::text::escape(&text).into_owned();
    state.copy(text, &shown);
}
