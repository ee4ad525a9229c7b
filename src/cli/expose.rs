//! `flm expose-check`.

use std::net::IpAddr;

use clap::Args;

use super::audit_logs::name;
use super::output::Output;
use super::session::Session;
use super::table::Table;
use crate::types::calls::expose::{ExposeCheck, ExposeFinding, ExposeReport, KeyNeed, Problem, Service};
use crate::types::failure::Outcome;

#[derive(Debug, Args)]
pub(super) struct ExposeArguments {}

impl ExposeArguments {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        let report = session.call(ExposeCheck {}).await?;
        let output = Output::new(&report, describe(&report));
        Ok(output.note(
            "seen from inside: what a router, a container or a firewall lets through from elsewhere is not in it",
        ))
    }
}

fn describe(report: &ExposeReport) -> String {
    let mut table = Table::new(&["PORT", "WHAT", "ADDRESS", "REACHED BY", "ENCRYPTED", "KEY"]);
    for port in &report.ports {
        for answer in &port.answers {
            table.row([
                port.port.to_string(),
                service(&port.service),
                answer.at.address.to_string(),
                name(&answer.at.reach),
                if port.encrypted { "yes" } else { "no" }.to_owned(),
                match answer.key {
                    KeyNeed::None => "none needed",
                    KeyNeed::Key => "needed",
                    KeyNeed::Unknown => "not known",
                }
                .to_owned(),
            ]);
        }
    }
    let mut text = table.or("no engine and no listener of FLM answers on this machine");
    text.push('\n');
    for finding in &report.findings {
        text.push_str(&format!("\n{}: {}\n", name(&finding.severity), told(finding)));
        for step in &finding.mend {
            text.push_str(&format!("  {step}\n"));
        }
    }
    if report.findings.is_empty() {
        text.push_str("\nnothing is exposed that should not be");
    }
    if !report.elsewhere.is_empty() {
        let ids: Vec<_> = report.elsewhere.iter().map(ToString::to_string).collect();
        text.push_str(&format!("\non other machines, not asked: {}", ids.join(", ")));
    }
    text.trim_end().to_owned()
}

fn service(service: &Service) -> String {
    match service {
        Service::Proxy => "FLM".to_owned(),
        Service::Engine { kind, id: None } => kind.to_string(),
        Service::Engine { kind, id: Some(id) } => format!("{id} ({kind})"),
        Service::Unknown => "something else".to_owned(),
    }
}

fn told(finding: &ExposeFinding) -> String {
    let at = finding.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    let (what, port) = (service(&finding.service), finding.port);
    match finding.problem {
        Problem::EngineOpen => {
            format!("{what} on port {port} serves everybody who reaches {at}, past FLM and without a key")
        }
        Problem::EngineReachable => {
            format!("{what} on port {port} can be reached at {at}, past FLM; it asks for a key")
        }
        Problem::ProxyInClear => {
            format!("FLM on port {port} is reached at {at} without encryption: keys can be read on the way")
        }
        Problem::ProxyOpen => format!("FLM on port {port} serves without a key at {at}"),
        Problem::UnknownService => format!("{what} listens on port {port} at {at}, where an engine would"),
    }
}
