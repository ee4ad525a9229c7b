//! The Security tab: security events as they happen, and older ones page by page.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::tui::action::Command;
use crate::tui::geometry::ListId;
use crate::tui::overlays::toasts::Level;
use crate::tui::overlays::{self, Overlay, forms};
use crate::tui::signs;
use crate::tui::state::{Detail, State};
use crate::tui::tab_blocklist;
use crate::tui::tabs::Tab;
use crate::tui::widgets::cursor::Cursor;
use crate::tui::world::AuditEnd;
use crate::types::address::BlockEntry;
use crate::types::audit::{AuditRow, Severity};
use crate::types::calls::audit::ListAudit;
use crate::types::clock::UnixMillis;
use crate::types::failure::Outcome;

pub mod overview;
pub mod view;

/// Rows of an older page.
const PAGE: u32 = 200;

/// What the tab remembers.
#[derive(Debug)]
pub struct SecurityTab {
    cursor: Cursor<u64>,
    /// The least severity that is shown.
    pub least: Severity,
    frozen: Option<VecDeque<AuditRow>>,
    /// When the counts of the last day were asked for.
    pub counts_asked: Option<UnixMillis>,
    /// The event that is looked for, while its page is read.
    sought: Option<u64>,
}

impl Default for SecurityTab {
    fn default() -> Self {
        Self { cursor: Cursor::following(), least: Severity::Low, frozen: None, counts_asked: None, sought: None }
    }
}

impl SecurityTab {
    /// Whether the timeline stands still.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// Whether the selection stays at the newest event.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.cursor.follows()
    }
}

/// The events to show, newest first.
#[must_use]
pub fn rows(state: &State) -> Vec<&AuditRow> {
    let wanted = state.filters[Tab::Security as usize].input.text().trim().to_lowercase();
    let all = state.security.frozen.as_ref().unwrap_or(&state.world.audit);
    let fits = |row: &&AuditRow| {
        let event = &row.event;
        let has = |text: &str| text.to_lowercase().contains(&wanted);
        event.severity >= state.security.least
            && (wanted.is_empty()
                || has(&event.details)
                || has(&state.words.say(signs::kind(event.kind)))
                || event.address.is_some_and(|address| has(&address.to_string()))
                || event.endpoint.as_deref().is_some_and(has)
                || event.request_id.as_ref().is_some_and(|id| has(id.as_str()))
                || event.key.as_ref().is_some_and(|key| has(key.as_str())))
    };
    all.iter().filter(fits).collect()
}

fn key(row: &AuditRow) -> u64 {
    row.sequence
}

/// The selected row.
#[must_use]
pub fn selected(state: &State, rows: &[&AuditRow]) -> Option<usize> {
    (!rows.is_empty()).then(|| state.security.cursor.place(rows, key))
}

/// Selects a clicked row.
pub fn select(state: &mut State, row: usize) {
    let mut cursor = state.security.cursor.clone();
    cursor.select(row, &rows(state), key);
    state.security.cursor = cursor;
}

/// Shows an event of the audit log, whatever the filters hide. One that is older than what is kept here is read: the
/// timeline stands still at it then.
pub fn jump(state: &mut State, sequence: u64) {
    crate::tui::update::show_tab(state, Tab::Security);
    state.filters[Tab::Security as usize].input.clear();
    state.security.least = Severity::Low;
    state.security.frozen = None;
    if state.world.audit.iter().any(|row| row.sequence == sequence) {
        land(state, sequence);
    } else {
        state.security.sought = Some(sequence);
        state.read(ListAudit { before: Some(sequence.saturating_add(1)), limit: PAGE, ..ListAudit::default() });
    }
}

fn land(state: &mut State, sequence: u64) {
    let mut cursor = state.security.cursor.clone();
    let rows = rows(state);
    let place = rows.iter().position(|row| row.sequence <= sequence).unwrap_or(0);
    cursor.select(place, &rows, key);
    state.security.cursor = cursor;
    state.detail = Detail::Open;
}

/// Takes a page of the audit log: older rows, or those around the event that is looked for.
pub fn take_page(state: &mut State, call: &ListAudit, outcome: Outcome<Vec<AuditRow>>) {
    let sought = state.security.sought.filter(|sequence| call.before == Some(sequence.saturating_add(1)));
    let Some(sequence) = sought else { return state.world.add_older_audit(outcome) };
    state.security.sought = None;
    match outcome {
        Ok(page) if !page.is_empty() => {
            state.security.frozen = Some(page.into());
            land(state, sequence);
        }
        // Archived meanwhile.
        Ok(_) => state.toast(Level::Warn, state.words.say("alerts.event_gone").into_owned()),
        Err(failure) => state.complain(&failure),
    }
}

/// Carries a command out.
pub fn run(state: &mut State, command: Command) {
    match command {
        Command::PauseAudit => {
            state.security.frozen = if state.security.is_paused() { None } else { Some(state.world.audit.clone()) };
        }
        Command::FollowAudit => {
            state.security.frozen = None;
            state.security.cursor.top();
        }
        Command::SeverityFilter => {
            state.security.least = match state.security.least {
                Severity::Low => Severity::Medium,
                Severity::Medium => Severity::High,
                Severity::High => Severity::Critical,
                Severity::Critical => Severity::Low,
            };
        }
        Command::BlockSource => block_source(state),
        Command::UnblockSource => unblock_source(state),
        Command::AllowSource => {
            if let Some(address) = source(state) {
                overlays::open(state, Overlay::Form(forms::allow(state, address)));
            }
        }
        Command::Open => state.detail = Detail::Open,
        Command::Copy => copy(state),
        _ => {
            let page = state.geometry.page(ListId::Audit);
            let mut cursor = state.security.cursor.clone();
            let rows = rows(state);
            cursor.step(command, page, &rows, key);
            let at_end = rows.is_empty() || cursor.place(&rows, key) + 1 == rows.len();
            state.security.cursor = cursor;
            if at_end && !state.security.is_paused() {
                read_older(state);
            }
        }
    }
}

/// Asks for the page before the oldest row.
fn read_older(state: &mut State) {
    let Some(before) = state.world.audit.back().map(|row| row.sequence) else { return };
    if state.world.audit_end == AuditEnd::More && state.is_live() {
        state.world.audit_end = AuditEnd::Loading;
        state.read(ListAudit { before: Some(before), limit: PAGE, ..ListAudit::default() });
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
