//! What `flm expose-check` finds, as a box to read.

use std::net::IpAddr;

use crate::tui::overlays::notice::Notice;
use crate::tui::overlays::{self, Overlay};
use crate::tui::signs::severity;
use crate::tui::state::State;
use crate::tui::text;
use crate::tui::theme::Role;
use crate::types::calls::expose::{AddressReach, ExposeReport, KeyNeed, Problem, Service};
use crate::types::text::escape;

/// Shows a report.
pub fn show(state: &mut State, report: &ExposeReport) {
    let say = |key| state.words.say(key).into_owned();
    let mut lines = Vec::new();
    for port in &report.ports {
        let what = service(state, &port.service);
        lines.push((format!("{}  {what}", port.port), Role::Title));
        for answer in &port.answers {
            let reach = say(match answer.at.reach {
                AddressReach::Loopback => "expose.loopback",
                AddressReach::Private => "expose.private",
                AddressReach::Public => "expose.public",
            });
            let (key, role) = match answer.key {
                KeyNeed::None if answer.at.reach > AddressReach::Loopback => ("expose.no_key", Role::Error),
                KeyNeed::None => ("expose.no_key", Role::Muted),
                KeyNeed::Key => ("expose.key", Role::Ok),
                KeyNeed::Unknown => ("expose.key_unknown", Role::Muted),
            };
            let address = text::pad(&answer.at.address.to_string(), 24);
            lines.push((format!("  {address} {reach}, {}", say(key)), role));
        }
    }
    if report.ports.is_empty() {
        lines.push((say("expose.nothing_answers"), Role::Muted));
    }
    lines.push((String::new(), Role::Popup));
    for finding in &report.findings {
        let (word, role) = severity(finding.severity);
        let at = finding.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
        let what = service(state, &finding.service);
        let port = finding.port.to_string();
        let values = [("what", what.as_str()), ("port", port.as_str()), ("at", at.as_str())];
        let told = match finding.problem {
            Problem::EngineOpen => state.words.fill("expose.engine_open", &values),
            Problem::EngineReachable => state.words.fill("expose.engine_reachable", &values),
            Problem::ProxyInClear => state.words.fill("expose.proxy_in_clear", &values),
            Problem::ProxyOpen => state.words.fill("expose.proxy_open", &values),
            Problem::UnknownService => state.words.fill("expose.unknown_service", &values),
        };
        lines.push((format!("{}: {told}", say(word)), role));
        for step in &finding.mend {
            lines.push((format!("    {}", escape(step)), Role::Accent));
        }
    }
    if report.findings.is_empty() {
        lines.push((say("expose.fine"), Role::Ok));
    }
    lines.push((say("expose.from_inside"), Role::Faint));
    overlays::open(state, Overlay::Notice(Notice::new("expose.title", lines)));
}

fn service(state: &State, service: &Service) -> String {
    match service {
        Service::Proxy => "FLM".to_owned(),
        Service::Engine { kind, id: None } => kind.to_string(),
        Service::Engine { kind, id: Some(id) } => format!("{id} ({kind})"),
        Service::Unknown => state.words.say("expose.something").into_owned(),
    }
}
