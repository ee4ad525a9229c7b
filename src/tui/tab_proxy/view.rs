//! How the Proxy tab looks: the proxy's state above, requests, keys or usage below.

use ratatui::layout::Rect;

use crate::tui::action::Command;
use crate::tui::geometry::{ListId, Target};
use crate::tui::state::{Detail, State};
use crate::tui::tab_proxy::{self, View, list, load, requests, usage};
use crate::tui::text;
use crate::tui::theme::Role;
use crate::tui::view::{
    ListNote, PanelTitle, empty_page, list_note, list_without_rows, panel_title, proxy_signs, split_detail, stale,
    views_panel,
};
use crate::tui::widgets::painter::{Emphasis, Painter, below, cells, inset, row};
use crate::tui::widgets::table::{self, Cell, Column, Table, Width};
use crate::types::egress::{EgressState, EgressStatus};
use crate::types::key::{KeyView, Priority, Right};
use crate::types::listener::{ListenerPhase, ListenerStatus, OwnerKind};
use crate::types::text::escape;

/// Names of the views, in their order.
const VIEWS: [&str; 4] = ["proxy.requests", "proxy.keys", "proxy.usage", "proxy.load"];

/// Rows of the panel above, borders included.
const STATUS_ROWS: u16 = 5;

/// Draws it.
pub fn draw(state: &State, painter: &mut Painter<'_>, area: Rect) {
    if state.detail == Detail::Closed || state.is_wide() {
        draw_status(state, painter, Rect { height: STATUS_ROWS.min(area.height), ..area });
    }
    let rest = if state.detail == Detail::Open && !state.is_wide() { area } else { below(area, STATUS_ROWS) };
    match state.proxy.view {
        View::Requests => draw_requests(state, painter, rest),
        View::Keys => draw_keys(state, painter, rest),
        View::Usage => usage::draw(state, painter, rest),
        View::Load => load::draw(state, painter, rest),
    }
}

fn draw_status(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let title = painter.say("tab.proxy");
    let inside = inset(painter.panel(area, &title, Emphasis::Resting), 1);
    let (sign, word, role) = proxy_signs(state);
    let (left, right) = halves(inside);
    let phase = format!("{sign} {}", painter.say(word));
    let label_cells = label_width(painter, &["proxy.state", "proxy.address", "proxy.mode"]);
    let pair =
        |painter: &mut Painter<'_>, area: Rect, y: u16, cells: u16, key: &'static str, value: &str, role: Role| {
            let label = painter.say(key);
            painter.pair(row(area, y), &label, cells, value, role);
        };
    let off = painter.symbols.off;
    let listener = state.world.main_listener();
    pair(painter, left, 0, label_cells, "proxy.state", &phase, role);
    let addresses = listener.map(|l| escape(&l.addresses.join("  ")).into_owned()).filter(|a| !a.is_empty());
    pair(painter, left, 1, label_cells, "proxy.address", addresses.as_deref().unwrap_or(off), Role::Accent);
    if let Some(ListenerPhase::Failed { reason }) = listener.map(|listener| &listener.phase) {
        pair(painter, left, 2, label_cells, "proxy.reason", &escape(reason), Role::Error);
    } else {
        let (mode, role) = listener.map_or((off.to_owned(), Role::Text), |listener| mode_of(painter, listener));
        pair(painter, left, 2, label_cells, "proxy.mode", &mode, role);
    }
    let label_cells = label_width(painter, &["proxy.owner", "proxy.since", "proxy.egress"]);
    let Some(status) = &state.world.status else { return };
    let tls = listener.and_then(|listener| listener.tls.as_ref());
    if let Some(step) = tls.and_then(|tls| tls.progress.as_ref()) {
        let note = painter.words.fill("proxy.certificate_progress", &[("step", &escape(step))]);
        painter.foot_note(area, &note, Role::Info);
    } else if let Some(why) = tls.and_then(|tls| tls.warning.as_ref()) {
        // What is served with a warning matters more than why there is nothing better.
        let note = painter.words.fill("proxy.certificate_warning", &[("why", &escape(why))]);
        painter.foot_note(area, &note, Role::Warn);
    } else if let Some(why) = tls.and_then(|tls| tls.last_error.as_ref()) {
        let note = painter.words.fill("proxy.certificate_failed", &[("why", &escape(why))]);
        painter.foot_note(area, &note, Role::Error);
    } else if let Some(why) = &status.reload_fault {
        let note = painter.words.fill("proxy.reload_refused", &[("why", &escape(why))]);
        painter.foot_note(area, &note, Role::Error);
    } else if !status.needs_restart.is_empty() {
        let keys = escape(&status.needs_restart.join(", ")).into_owned();
        let note = painter.words.fill("toast.needs_restart", &[("keys", &keys)]);
        painter.foot_note(area, &note, Role::Warn);
    }
    let owner = match status.owner {
        OwnerKind::Daemon => "proxy.daemon",
        OwnerKind::InProcess => "proxy.in_process",
    };
    let owner = painter.words.fill(owner, &[("pid", &status.pid.to_string()), ("version", &escape(&status.version))]);
    pair(painter, right, 0, label_cells, "proxy.owner", &owner, Role::Text);
    let since = listener.and_then(|listener| listener.started).unwrap_or(status.started);
    let since = painter.words.date_time(since);
    pair(painter, right, 1, label_cells, "proxy.since", &since, Role::Text);
    let (egress, role) = egress(&status.egress, painter);
    pair(painter, right, 2, label_cells, "proxy.egress", &egress, role);
}

/// Mode and endpoint of the way out, whether the proxy was negotiated with, whether it is ready, and its last error.
fn egress(status: &EgressStatus, painter: &Painter<'_>) -> (String, Role) {
    let (word, role) = match (status.state, status.ready) {
        (EgressState::Direct, _) => return (status.mode.name().to_owned(), Role::Text),
        (EgressState::Untried, _) => ("egress.untried", Role::Muted),
        (EgressState::Reached, None) => ("egress.negotiated", Role::Info),
        (EgressState::Reached, Some(_)) => ("egress.ready", Role::Ok),
        (EgressState::Unreachable, _) => ("egress.unreachable", Role::Error),
        (EgressState::FallenBack, _) => ("egress.fallen_back", Role::Error),
    };
    let mut told = status.mode.name().to_owned();
    if let Some(endpoint) = &status.endpoint {
        told.push_str(&format!(" {}", escape(endpoint)));
    }
    told.push_str(&format!(", {}", painter.say(word)));
    if let Some(error) = &status.last_error {
        told.push_str(&format!(": {}", escape(error)));
    }
    (told, role)
}

/// The mode, whether it hides what is sent, and the certificate: until when, by whom.
fn mode_of(painter: &Painter<'_>, listener: &ListenerStatus) -> (String, Role) {
    let mode = escape(&listener.config.mode.0).into_owned();
    let Some(tls) = &listener.tls else {
        let (role, word) = if listener.config.insecure_plain_http {
            (Role::Error, "proxy.in_clear")
        } else {
            (Role::Text, "proxy.this_machine_only")
        };
        return (format!("{mode} ({})", painter.say(word)), role);
    };
    let Some(certificate) = &tls.certificate else {
        return (format!("{mode} ({})", painter.say("proxy.no_certificate")), Role::Info);
    };
    let until = painter.words.date_time(certificate.not_after);
    let issuer = escape(&certificate.issuer);
    let told = painter.words.fill("proxy.certificate", &[("until", &until), ("issuer", &issuer)]);
    let role = if tls.warning.is_some() { Role::Warn } else { Role::Text };
    (format!("{mode} ({told})"), role)
}

fn halves(area: Rect) -> (Rect, Rect) {
    let left = area.width / 2;
    (Rect { width: left.saturating_sub(2), ..area }, Rect { x: area.x + left, width: area.width - left, ..area })
}

fn label_width(painter: &Painter<'_>, keys: &[&'static str]) -> u16 {
    cells(keys.iter().map(|key| text::width(&painter.say(key))).max().unwrap_or(0))
}

/// Draws a frame whose title names all views and answers its inside.
pub(super) fn draw_frame(
    state: &State,
    painter: &mut Painter<'_>,
    area: Rect,
    shown: usize,
    all: Option<usize>,
) -> Rect {
    let front = state.proxy.view as usize;
    let title = panel_title(state, VIEWS[front], shown, all);
    let emphasis = Emphasis::when(state.detail == Detail::Closed);
    let counted = state.proxy.view != View::Load;
    views_panel(painter, area, &VIEWS, front, counted.then_some(&title), emphasis)
}

fn draw_requests(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let rows = list::rows(state);
    let selected = tab_proxy::selected_request(state, &rows);
    let (left, detail) = split_detail(state, area, selected.is_some());
    if let Some(left) = left {
        let title = PanelTitle::of_part(state, "proxy.requests", rows.len(), list::total(state));
        let emphasis = Emphasis::when(state.detail == Detail::Closed);
        let inside = views_panel(painter, left, &VIEWS, View::Requests as usize, Some(&title), emphasis);
        let window = &state.proxy.requests.window;
        let standing = state.proxy.requests.standing();
        let note = ListNote { reading: "proxy.loading", standing, follow: Command::FollowRequests };
        list_note(state, painter, left, (window, selected), &note);
        if rows.is_empty() {
            let all = if state.filter().input.is_empty() { 0 } else { state.world.requests.len() };
            let lines = ["proxy.no_requests", "proxy.no_requests_hint"];
            list_without_rows(state, painter, inside, window, (all, &lines));
        } else {
            requests::draw_table(state, painter, inside, &rows, selected);
        }
    }
    if let (Some(area), Some(at)) = (detail, selected) {
        requests::draw_detail(state, painter, area, rows[at]);
    }
}

fn draw_keys(state: &State, painter: &mut Painter<'_>, area: Rect) {
    let rows = tab_proxy::key_rows(state);
    let page = &state.world.keys;
    let all = page.value.as_ref().map(Vec::len);
    let selected = tab_proxy::selected_key(state, &rows);
    let (list, detail) = split_detail(state, area, selected.is_some());
    if let Some(list) = list {
        let inside = draw_frame(state, painter, list, rows.len(), all);
        stale(painter, list, page);
        if rows.is_empty() {
            empty_page(state, painter, inside, page, all.unwrap_or(0), &["keys.empty", "keys.empty_hint"]);
        } else {
            draw_key_table(state, painter, inside, &rows, selected);
        }
    }
    if let (Some(area), Some(at)) = (detail, selected) {
        draw_key_detail(state, painter, area, rows[at]);
    }
}

fn key_state(state: &State, key: &KeyView) -> (&'static str, &'static str, Role) {
    let symbols = state.symbols();
    if key.revoked.is_some() {
        (symbols.error, "keys.revoked", Role::Faint)
    } else if key.expires.is_some_and(|expires| expires <= state.now) {
        (symbols.warn, "keys.expired", Role::Warn)
    } else if key.captures_at(state.now).is_some() {
        (symbols.warn, "keys.capturing", Role::Warn)
    } else {
        (symbols.ok, "keys.active", Role::Ok)
    }
}

fn draw_key_table(state: &State, painter: &mut Painter<'_>, area: Rect, rows: &[&KeyView], selected: Option<usize>) {
    let say = |key| state.words.say(key);
    let columns = [
        Column::text(say("column.state"), Width::Exact(9), 0),
        Column::text(say("column.label"), Width::Share { min: 12, weight: 2 }, 0),
        Column::text(say("column.key"), Width::Exact(20), 2),
        Column::number(say("column.rpm"), 7, 3),
        Column::text(say("column.expires"), Width::Exact(16), 1),
        Column::text(say("column.last_used"), Width::Exact(16), 4),
        Column::text(say("column.created"), Width::Exact(16), 5),
    ];
    let off = painter.symbols.off;
    let dots = painter.symbols.ellipsis;
    let table = Table { list: ListId::Keys, columns: &columns, rows: rows.len(), selected, target: Target::Row };
    table::draw(painter, area, &table, |index, column| {
        let key = rows[index];
        let main = if key.revoked.is_some() { Role::Faint } else { Role::Text };
        let time = |at: Option<_>, none: &'static str| match at {
            Some(at) => Cell::new(state.words.date_time(at), main),
            None => Cell::new(state.words.say(none), Role::Faint),
        };
        match column {
            0 => {
                let (sign, word, role) = key_state(state, key);
                Cell::new(format!("{sign} {}", state.words.say(word)), role)
            }
            1 => Cell::outside(&key.label, main),
            2 => Cell::new(format!("flm_{}{dots}{}", key.id, escape(&key.last4)), Role::Muted),
            3 if key.limits.requests_per_minute == 0 => Cell::new(off, Role::Faint),
            3 => Cell::new(text::count(key.limits.requests_per_minute.into()), main),
            4 => time(key.expires, "keys.never"),
            5 => time(key.last_used, "keys.never_used"),
            _ => time(Some(key.created), "keys.never"),
        }
    });
}

fn draw_key_detail(state: &State, painter: &mut Painter<'_>, area: Rect, key: &KeyView) {
    let title = escape(&key.label).into_owned();
    let inside = inset(painter.panel(area, &title, Emphasis::when(state.detail == Detail::Open)), 1);
    let (sign, word, role) = key_state(state, key);
    let off = painter.symbols.off.to_owned();
    let say = |key| painter.say(key).into_owned();
    let limit = |limit: Option<u64>| limit.map_or_else(|| say("keys.no_limit"), text::count);
    let limits = &key.limits;
    let priority = match limits.priority {
        Priority::Low => "form.key.low",
        Priority::Normal => "form.key.normal",
        Priority::High => "form.key.high",
    };
    let rights: Vec<_> = limits.rights.iter().map(|right| say(right_name(*right))).collect();
    let globs =
        |globs: &[String]| if globs.is_empty() { say("keys.all") } else { escape(&globs.join(", ")).into_owned() };
    let mut pairs = vec![
        ("column.state", format!("{sign} {}", say(word)), role),
        ("column.key", format!("flm_{}", key.id), Role::Text),
        ("column.created", painter.words.exact(key.created), Role::Text),
        ("column.expires", key.expires.map_or_else(|| say("keys.never"), |at| painter.words.exact(at)), Role::Text),
        ("column.last_used", key.last_used.map_or_else(|| off.clone(), |at| painter.words.date_time(at)), Role::Text),
        ("form.key.rpm", limit(Some(limits.requests_per_minute.into()).filter(|rpm| *rpm != 0)), Role::Text),
        ("form.key.burst", text::count(limits.burst.into()), Role::Text),
        ("form.key.tokens", limit(limits.tokens_per_day), Role::Text),
        ("keys.tokens_today", key.tokens_today.map_or_else(|| off.clone(), text::count), Role::Text),
        ("form.key.parallel", limit(limits.max_parallel.map(u64::from)), Role::Text),
        ("form.key.priority", say(priority), Role::Text),
        ("form.key.models", globs(&limits.models), Role::Text),
        ("keys.routes", globs(&limits.routes), Role::Text),
        ("keys.rights", rights.join(", "), Role::Text),
    ];
    match key.captures_at(state.now) {
        Some(until) => {
            let until = painter.words.date_time(until);
            pairs.insert(1, ("keys.bodies", painter.words.fill("keys.captured", &[("until", &until)]), Role::Warn));
        }
        None => pairs.push(("keys.bodies", say("keys.not_captured"), Role::Text)),
    }
    painter.pairs(inside, inside.height, &pairs);
}

fn right_name(right: Right) -> &'static str {
    match right {
        Right::Infer => "right.infer",
        Right::Metrics => "right.metrics",
        Right::Manage => "right.manage",
        Right::Passthrough => "right.passthrough",
    }
}
