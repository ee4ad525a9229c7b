//! The list of requests: what is looked for, what of it is held, and how it goes on in the request log.
//!
//! In the order of time, newest first, it is live: requests come at its head as they start and end. In any other order it is
//! what the store answered.

use std::collections::VecDeque;

use crate::tui::effect::Ticket;
use crate::tui::state::{Dirty, State};
use crate::tui::tab_proxy::View;
use crate::tui::tabs::Tab;
use crate::tui::widgets::cursor::Cursor;
use crate::tui::widgets::table::Slide;
use crate::tui::window::{Ask, Edge, Flow, Listed, PAGE, Standing, Window};
use crate::tui::world::KEPT_ROWS;
use crate::types::calls::requests::{PageRequests, RequestColumn, RequestKey, RequestPage};
use crate::types::failure::Outcome;
use crate::types::ids::RequestId;
use crate::types::order::{Order, Place};
use crate::types::request::RequestRow;

/// A request of the list.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Its number in the log; one that came live has none that is known here.
    number: Option<u64>,
    /// The request.
    pub row: RequestRow,
}

impl Listed for Listing {
    type Key = RequestId;

    fn key(&self) -> RequestId {
        self.row.id
    }
}

impl Listing {
    fn place(&self) -> RequestKey {
        self.number.map_or(RequestKey::Time(self.row.at), RequestKey::Number)
    }
}

/// What is looked for, and in which order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// Text in the request.
    pub text: String,
    /// What it is sorted by.
    pub by: RequestColumn,
    /// Which way.
    pub order: Order,
}

impl Query {
    /// Whether what happens comes at its head.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.by == RequestColumn::Time && self.order == Order::Descending
    }
}

/// The list.
#[derive(Debug)]
pub struct Requests {
    /// Where the person is in it.
    pub cursor: Cursor<RequestId>,
    /// What is held of it.
    pub window: Window<Listing>,
    /// Whether it takes what happens.
    pub flow: Flow,
    /// The order that the person chose.
    pub by: RequestColumn,
    /// Which way.
    pub order: Order,
    query: Query,
    /// Numbers of the oldest and of the newest request of the log, as last heard.
    known: Option<(u64, u64)>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            cursor: Cursor::following(),
            window: Window::default(),
            flow: Flow::Runs,
            by: RequestColumn::Time,
            order: Order::Descending,
            query: Query::default(),
            known: None,
        }
    }
}

impl Requests {
    /// Whether the selection stays at the newest request.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.query.is_live() && self.window.top() == Edge::Reached && self.cursor.follows()
    }

    /// What it does while requests come.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing::of(self.flow, self.follows())
    }

    /// What the list is sorted by, and which way.
    #[must_use]
    pub fn sorted(&self) -> (RequestColumn, Order) {
        (self.query.by, self.query.order)
    }
}

/// The column after this one, round and round.
#[must_use]
pub fn next_column(by: RequestColumn) -> RequestColumn {
    match by {
        RequestColumn::Time => RequestColumn::Status,
        RequestColumn::Status => RequestColumn::Tokens,
        RequestColumn::Tokens => RequestColumn::FirstToken,
        RequestColumn::FirstToken => RequestColumn::Latency,
        RequestColumn::Latency => RequestColumn::Time,
    }
}

/// The requests to show, in their order.
#[must_use]
pub fn rows(state: &State) -> Vec<&RequestRow> {
    state.proxy.requests.window.rows().iter().map(|listing| &listing.row).collect()
}

/// Where the selection is.
#[must_use]
pub fn selected_place(state: &State) -> usize {
    state.proxy.requests.cursor.place(&rows(state), |row| row.id)
}

/// Brings the list in line with what is looked for, and asks for the page that is needed next. Called after every change.
pub fn settle(state: &mut State) {
    let list = &state.proxy.requests;
    let text = state.filters[Tab::Proxy as usize].input.text().trim().to_owned();
    let query = Query { text, by: list.by, order: list.order };
    if query != list.query {
        state.proxy.requests.query = query;
        state.proxy.requests.cursor.top();
        refill(state);
    }
    if state.tab != Tab::Proxy || state.proxy.view != View::Requests || !state.is_live() {
        return;
    }
    let selected = selected_place(state);
    if let Some(ask) = state.proxy.requests.window.wanted(selected) {
        request(state, ask);
    }
}

/// Asks for a page.
pub fn request(state: &mut State, ask: Ask) {
    let list = &mut state.proxy.requests;
    let rows = list.window.rows();
    let place = match ask {
        Ask::Top => rows.front().map_or(Place::Start, |first| Place::Before(first.place())),
        Ask::Bottom => rows.back().map_or(Place::Start, |last| Place::Behind(last.place())),
        Ask::End => Place::End,
        Ask::Start | Ask::Around => Place::Start,
    };
    let Query { text, by, order } = list.query.clone();
    if let Some(left) = list.window.forget() {
        state.leave(left);
    }
    let ticket = state.read(PageRequests { text, by, order, place, limit: PAGE });
    state.proxy.requests.window.ask(ticket, ask);
}

/// Fills the list anew: from what is known here when it is live, else from the store.
pub fn refill(state: &mut State) {
    let query = &state.proxy.requests.query;
    let rows: VecDeque<Listing> = if query.is_live() {
        let fitting = state.world.requests.iter().filter(|row| row.holds(&query.text));
        fitting.map(|row| Listing { number: None, row: row.clone() }).collect()
    } else {
        VecDeque::new()
    };
    if let Some(left) = state.proxy.requests.window.replace(rows, Edge::Reached, Edge::More) {
        state.leave(left);
    }
}

/// A request started or ended.
pub fn arrived(state: &mut State, row: &RequestRow) {
    let in_view = state.tab == Tab::Proxy && state.proxy.view == View::Requests;
    let list = &mut state.proxy.requests;
    if list.flow == Flow::Paused {
        return;
    }
    if let Some(known) = list.window.row_mut(&row.id) {
        known.row.clone_from(row);
        if in_view {
            state.soil(Dirty::Data);
        }
        return;
    }
    let shown = list.query.is_live() && list.window.top() == Edge::Reached && row.holds(&list.query.text);
    if shown {
        let most = if list.cursor.follows() { KEPT_ROWS } else { usize::MAX };
        let selected = selected_place(state);
        let listing = Listing { number: None, row: row.clone() };
        // Long requests are told late; the list stays in the order of their heads.
        state.proxy.requests.window.arrive(listing, selected, most, |known| known.row.at <= row.at);
        if in_view {
            state.soil(Dirty::Data);
        }
    }
}

/// The console was attached, or missed something, or the list stood still: what is known here goes on from it.
pub fn catch_up(state: &mut State) {
    let list = &state.proxy.requests;
    if !list.query.is_live() || list.flow == Flow::Paused {
        return;
    }
    let newest = list.window.rows().front().map(|listing| listing.row.at);
    let oldest_known = state.world.requests.back().map(|row| row.at);
    match newest.zip(oldest_known) {
        Some((newest, oldest)) if !list.cursor.follows() => {
            if list.window.top() != Edge::Reached {
                return;
            }
            if oldest > newest {
                state.proxy.requests.window.cut_off();
                return;
            }
            let missed: Vec<RequestRow> =
                state.world.requests.iter().take_while(|row| row.at >= newest).cloned().collect();
            for row in missed.iter().rev() {
                arrived(state, row);
            }
        }
        _ => refill(state),
    }
}

/// Takes a page.
pub fn take(state: &mut State, ticket: Ticket, outcome: Outcome<RequestPage>) {
    if let Ok(page) = &outcome {
        state.proxy.requests.known = (page.newest > 0).then_some((page.oldest, page.newest));
    }
    let rows = outcome.map(|page| {
        let rows = page.rows.into_iter();
        rows.map(|request| Listing { number: Some(request.number), row: request.row }).collect()
    });
    match state.proxy.requests.window.take(ticket, rows, PAGE as usize) {
        Some(Ask::End) => state.proxy.requests.cursor.at_last(),
        // Requests came while the page was read.
        Some(Ask::Top) if state.proxy.requests.window.top() == Edge::Reached => catch_up(state),
        _ => {}
    }
}

/// How many requests there are, where that is known: those of the log, or those that are held when that is all.
#[must_use]
pub fn total(state: &State) -> Option<u64> {
    let list = &state.proxy.requests;
    let rows = list.window.rows();
    if list.window.top() == Edge::Reached && list.window.bottom() == Edge::Reached {
        return u64::try_from(rows.len()).ok();
    }
    let (oldest, newest) = list.known?;
    list.query.text.is_empty().then(|| (newest + 1).saturating_sub(oldest))
}

/// Where what is held lies in the whole list, for the scroll bar.
#[must_use]
pub fn slide(state: &State) -> Slide {
    let list = &state.proxy.requests;
    let base = list.window.base();
    let all = total(state).and_then(|total| usize::try_from(total).ok());
    let first = list.window.rows().front().and_then(|listing| listing.number);
    let above = match (list.known, first) {
        (Some((_, newest)), Some(first)) if list.query.is_live() && list.query.text.is_empty() => {
            usize::try_from(newest.saturating_sub(first)).unwrap_or(0)
        }
        _ => 0,
    };
    Slide { base, above, all }
}
