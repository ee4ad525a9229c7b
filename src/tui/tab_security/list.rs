//! The list of security events: what is looked for, what of it is held, and how it goes on.
//!
//! In the order of time, newest first, it is live: events come at its head. In any other order it is what the store answered.

use std::collections::VecDeque;
use std::time::Duration;

use crate::tui::effect::Ticket;
use crate::tui::signs;
use crate::tui::state::State;
use crate::tui::tabs::Tab;
use crate::tui::widgets::table::Slide;
use crate::tui::window::{Ask, Edge, Listed, PAGE};
use crate::tui::world::KEPT_ROWS;
use crate::types::audit::{AuditEvent, AuditKind, AuditRow, Severity};
use crate::types::calls::audit::{AuditColumn, ListAudit};
use crate::types::failure::Outcome;
use crate::types::order::{Order, Place};
use crate::types::text::mentions;

impl Listed for AuditRow {
    type Key = u64;

    fn key(&self) -> u64 {
        self.sequence
    }
}

/// How far back events are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Span {
    /// All there are.
    #[default]
    All,
    /// The last hour.
    Hour,
    /// The last day.
    Day,
    /// The last seven days.
    Week,
}

impl Span {
    /// The next one, round and round.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::All => Self::Hour,
            Self::Hour => Self::Day,
            Self::Day => Self::Week,
            Self::Week => Self::All,
        }
    }

    /// How long it is.
    #[must_use]
    pub fn length(self) -> Option<Duration> {
        match self {
            Self::All => None,
            Self::Hour => Some(Duration::from_hours(1)),
            Self::Day => Some(Duration::from_hours(24)),
            Self::Week => Some(Duration::from_hours(7 * 24)),
        }
    }

    /// The key of its name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::All => "span.all",
            Self::Hour => "span.hour",
            Self::Day => "span.day",
            Self::Week => "span.week",
        }
    }
}

/// What is looked for, and in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Text in the event, or in the name of its kind.
    pub text: String,
    /// The least severity.
    pub least: Severity,
    /// How far back.
    pub span: Span,
    /// What it is sorted by.
    pub by: AuditColumn,
    /// Which way.
    pub order: Order,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            text: String::new(),
            least: Severity::Low,
            span: Span::All,
            by: AuditColumn::Time,
            order: Order::Descending,
        }
    }
}

impl Query {
    /// Whether what happens comes at its head.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.by == AuditColumn::Time && self.order == Order::Descending
    }

    /// Whether every event of the log is in it.
    fn is_everything(&self) -> bool {
        self.text.is_empty() && self.least == Severity::Low && self.span == Span::All
    }
}

/// Kinds whose name holds the text.
fn named(state: &State, text: &str) -> Vec<AuditKind> {
    let names = |kind: &AuditKind| mentions(&state.words.say(signs::kind(*kind)), text);
    if text.is_empty() { Vec::new() } else { AuditKind::ALL.into_iter().filter(names).collect() }
}

/// Whether an event is among what is looked for.
fn fits(state: &State, query: &Query, event: &AuditEvent) -> bool {
    event.severity >= query.least
        && query.span.length().is_none_or(|span| event.at >= state.now.minus(span))
        && (event.holds(&query.text) || mentions(&state.words.say(signs::kind(event.kind)), &query.text))
}

/// What the tab asks for now.
fn wanted(state: &State) -> Query {
    Query {
        text: state.filters[Tab::Security as usize].input.text().trim().to_owned(),
        ..state.security.chosen.clone()
    }
}

/// Brings the list in line with what is looked for, and asks for the page that is needed next. Called after every change.
pub fn settle(state: &mut State) {
    let query = wanted(state);
    if query != state.security.query {
        state.security.query = query;
        state.security.cursor.top();
        refill(state);
    }
    if state.tab != Tab::Security || !state.is_live() {
        return;
    }
    let selected = super::selected_place(state);
    if let Some(ask) = state.security.window.wanted(selected) {
        request(state, ask, None);
    }
}

/// Asks for a page; `row` is the one to be around.
pub(super) fn request(state: &mut State, ask: Ask, row: Option<u64>) {
    let Query { text, least, span, by, order } = state.security.query.clone();
    let rows = state.security.window.rows();
    let (first, last) = (rows.front().map(|row| row.sequence), rows.back().map(|row| row.sequence));
    let place = match ask {
        Ask::Top => first.map_or(Place::Start, Place::Before),
        Ask::Bottom => last.map_or(Place::Start, Place::Behind),
        Ask::Start => Place::Start,
        Ask::End => Place::End,
        Ask::Around => row.map_or(Place::Start, |row| Place::Behind(row.saturating_add(1))),
    };
    let call = ListAudit {
        severity: (least > Severity::Low).then_some(least),
        since: span.length().map(|span| state.now.minus(span)),
        named: named(state, &text),
        text,
        by,
        order,
        place,
        limit: PAGE,
        ..ListAudit::default()
    };
    if let Some(left) = state.security.window.forget() {
        state.leave(left);
    }
    let ticket = state.read(call);
    state.security.window.ask(ticket, ask);
}

/// Fills the list anew: from what is known here when it is live, else from the store.
pub(super) fn refill(state: &mut State) {
    let query = state.security.query.clone();
    let (rows, bottom) = if query.is_live() {
        let rows: VecDeque<AuditRow> =
            state.world.audit.iter().filter(|row| fits(state, &query, &row.event)).cloned().collect();
        // The first event of all is known, or there is none.
        let whole = state.world.audit.back().is_none_or(|oldest| oldest.sequence == 1);
        (rows, if whole { Edge::Reached } else { Edge::More })
    } else {
        (VecDeque::new(), Edge::More)
    };
    if let Some(left) = state.security.window.replace(rows, Edge::Reached, bottom) {
        state.leave(left);
    }
}

/// An event happened.
pub fn arrived(state: &mut State, row: &AuditRow) {
    let tab = &state.security;
    let shown = tab.query.is_live()
        && !tab.is_paused()
        && tab.window.top() == Edge::Reached
        && tab.window.rows().front().is_none_or(|newest| newest.sequence < row.sequence)
        && fits(state, &tab.query, &row.event);
    if shown {
        let selected = super::selected_place(state);
        let most = if state.security.cursor.follows() { KEPT_ROWS } else { usize::MAX };
        state.security.window.arrive(row.clone(), selected, most, |known| known.sequence < row.sequence);
    }
}

/// The console was attached, or missed something, or the list stood still: what is known here goes on from it.
pub fn catch_up(state: &mut State) {
    if !state.security.query.is_live() || state.security.is_paused() {
        return;
    }
    let newest = state.security.window.rows().front().map(|row| row.sequence);
    let oldest_known = state.world.audit.back().map(|row| row.sequence);
    match (newest, oldest_known) {
        (Some(newest), Some(oldest)) if !state.security.cursor.follows() => {
            if state.security.window.top() != Edge::Reached {
                return;
            }
            if oldest > newest + 1 {
                state.security.window.cut_off();
                return;
            }
            let missed: Vec<AuditRow> =
                state.world.audit.iter().take_while(|row| row.sequence > newest).cloned().collect();
            for row in missed.iter().rev() {
                arrived(state, row);
            }
        }
        _ => refill(state),
    }
}

/// Takes a page.
pub fn take(state: &mut State, ticket: Ticket, outcome: Outcome<Vec<AuditRow>>) {
    let full = PAGE as usize;
    let Some(ask) = state.security.window.take(ticket, outcome, full) else { return };
    let newest_known = state.world.audit.front().map(|row| row.sequence);
    let tab = &mut state.security;
    match ask {
        Ask::End => tab.cursor.at_last(),
        Ask::Around => {
            if tab.window.rows().front().map(|row| row.sequence) == newest_known {
                // Nothing is newer: it goes on live.
                tab.window.at_start();
            }
            super::land(state);
        }
        Ask::Top | Ask::Bottom | Ask::Start => {}
    }
    let tab = &mut state.security;
    if tab.window.bottom() == Edge::Reached && tab.query.is_everything() && tab.query.is_live() {
        tab.oldest = tab.window.rows().back().map(|row| row.sequence);
    }
    if ask == Ask::Top && state.security.window.top() == Edge::Reached {
        // Events came while the page was read.
        catch_up(state);
    }
}

/// How many events there are, where that is known: all of them, or those that are held when that is all.
#[must_use]
pub fn total(state: &State) -> Option<u64> {
    let tab = &state.security;
    if tab.window.top() == Edge::Reached && tab.window.bottom() == Edge::Reached {
        return u64::try_from(tab.window.rows().len()).ok();
    }
    let newest = state.world.audit.front()?.sequence;
    let oldest = tab.oldest?;
    tab.query.is_everything().then(|| (newest + 1).saturating_sub(oldest))
}

/// Where what is held lies in the whole list, for the scroll bar.
#[must_use]
pub fn slide(state: &State) -> Slide {
    let tab = &state.security;
    let base = tab.window.base();
    let place = tab.window.rows().front().zip(state.world.audit.front());
    match place.filter(|_| tab.query.is_live() && tab.query.is_everything()) {
        Some((first, newest)) => {
            let above = usize::try_from(newest.sequence.saturating_sub(first.sequence)).unwrap_or(0);
            let all = usize::try_from((newest.sequence + 1).saturating_sub(tab.oldest.unwrap_or(1))).unwrap_or(0);
            Slide { base, above, all: Some(all) }
        }
        None => Slide { base, above: 0, all: None },
    }
}
