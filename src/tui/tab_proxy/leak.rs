//! A key that leaked: one key press shows what it did and who would be blocked, a second does it (SPEC §5.7).

use crate::tui::overlays::confirm::{Confirm, Then};
use crate::tui::overlays::{self, Overlay};
use crate::tui::state::State;
use crate::tui::tab_proxy::{key_rows, selected_key};
use crate::types::calls::keys::{LeakAddress, LeakReport, LeftOut, PreviewLeak, RevokeLeaked};
use crate::types::text::escape;

/// Addresses that the box names of those that are blocked, and of those that are not: it fits 24 rows.
const NAMED: usize = 4;

/// Asks for what the selected key did; the answer opens the box.
pub fn look(state: &mut State) {
    let rows = key_rows(state);
    let Some(id) = selected_key(state, &rows).map(|at| rows[at].id) else { return };
    let operator = state.ssh.map(|ssh| ssh.from);
    state.call(PreviewLeak { id, operator });
}

/// Shows it, and asks.
pub fn ask(state: &mut State, call: &PreviewLeak, report: &LeakReport) {
    let body = body(state, report);
    let then = RevokeLeaked { id: call.id, networks: report.to_block(), operator: call.operator };
    let confirm = Confirm::new("leak.title", body, "button.revoke_and_block", Then::call(then));
    overlays::open(state, Overlay::Confirm(confirm));
}

fn body(state: &State, report: &LeakReport) -> String {
    let words = &state.words;
    let (label, id) = (escape(&report.key.label).into_owned(), report.key.id.to_string());
    let (requests, since) = (report.requests.to_string(), words.date_time(report.since));
    let mut lines =
        vec![words.fill("leak.did", &[("label", &label), ("id", &id), ("count", &requests), ("since", &since)])];
    let (spared, blocked): (Vec<_>, Vec<_>) = report.addresses.iter().partition(|address| address.left_out.is_some());
    list(state, &mut lines, "leak.blocked", &blocked);
    list(state, &mut lines, "leak.left_out", &spared);
    if blocked.is_empty() {
        lines.push(words.say("leak.nobody").into_owned());
    }
    lines.push(words.say("leak.final").into_owned());
    lines.join("\n")
}

fn list(state: &State, lines: &mut Vec<String>, title: &'static str, addresses: &[&LeakAddress]) {
    if addresses.is_empty() {
        return;
    }
    lines.push(state.words.fill(title, &[("count", &addresses.len().to_string())]));
    for address in addresses.iter().take(NAMED) {
        let why =
            address.left_out.as_ref().map_or_else(String::new, |left_out| format!(": {}", reason(state, left_out)));
        lines.push(format!("  {} ({}){why}", address.network, address.requests));
    }
    if addresses.len() > NAMED {
        let more = (addresses.len() - NAMED).to_string();
        lines.push(format!("  {}", state.words.fill("leak.more", &[("count", &more)])));
    }
}

fn reason(state: &State, left_out: &LeftOut) -> String {
    match left_out {
        LeftOut::OtherKey { label, .. } => state.words.fill("leak.other_key", &[("label", &escape(label))]),
        LeftOut::Trusted => state.words.say("leak.trusted").into_owned(),
        LeftOut::ThisMachine => state.words.say("leak.this_machine").into_owned(),
        LeftOut::Operator => state.words.say("leak.operator").into_owned(),
        LeftOut::Blocked => state.words.say("leak.blocked_already").into_owned(),
    }
}
