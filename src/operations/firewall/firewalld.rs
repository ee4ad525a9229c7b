//! `firewalld`: rich rules of the default zone. It drops what no rule lets in, so only those who may connect are named.

use super::{Backend, sources};
use crate::types::calls::firewall::FirewallPlan;

pub(super) static BACKEND: Backend = Backend {
    name: "firewalld",
    system: "linux",
    program: "firewall-cmd",
    apply,
    rollback,
    notes: &[
        "rules are of the running firewalld only; keep them with: firewall-cmd --runtime-to-permanent",
        "rich rules carry no name: those with the log prefix \"flm \" are FLM's",
    ],
};

fn apply(plan: &FirewallPlan) -> String {
    rules(plan).iter().map(|rule| format!("firewall-cmd --add-rich-rule='{rule}'\n")).collect::<Vec<_>>().concat()
}

fn rollback(plan: &FirewallPlan) -> String {
    // The session's rule was added first and goes last.
    rules(plan)
        .iter()
        .rev()
        .map(|rule| format!("firewall-cmd --remove-rich-rule='{rule}'\n"))
        .collect::<Vec<_>>()
        .concat()
}

fn rules(plan: &FirewallPlan) -> Vec<String> {
    let mut rules = Vec::new();
    if let Some(ssh) = plan.ssh {
        rules.push(rule(&ssh.from.to_string(), ssh.port, "flm ssh "));
    }
    for port in &plan.ports {
        rules.extend(sources(plan).iter().map(|source| rule(source, *port, "flm ")));
    }
    rules
}

/// firewalld.richlanguage(5). At most one line a minute is logged.
fn rule(source: &str, port: u16, prefix: &str) -> String {
    let family = if source.contains(':') { "ipv6" } else { "ipv4" };
    format!(
        "rule family=\"{family}\" source address=\"{source}\" port port=\"{port}\" protocol=\"tcp\" \
         log prefix=\"{prefix}\" level=\"info\" limit value=\"1/m\" accept"
    )
}
