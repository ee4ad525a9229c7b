//! `iptables`: a chain `FLM` in both families, loaded by iptables-restore as one transaction per family.

use super::{Backend, of_family};
use crate::types::calls::firewall::FirewallPlan;

pub(super) static BACKEND: Backend = Backend {
    name: "iptables",
    system: "linux",
    program: "iptables-restore",
    apply,
    rollback,
    notes: &[
        "rules of iptables are gone after a restart of the machine, unless something such as iptables-persistent saves them",
    ],
};

/// Program prefix, and whether it is of IPv6.
const FAMILIES: [(&str, bool); 2] = [("iptables", false), ("ip6tables", true)];

fn apply(plan: &FirewallPlan) -> String {
    FAMILIES
        .iter()
        .map(|(program, six)| {
            // A jump that is there already is not made twice.
            format!(
                "{program}-restore --noflush <<'END'\n{}END\n\
                 {program} -C INPUT -j FLM 2>/dev/null || {program} -I INPUT 1 -j FLM\n",
                chain(plan, *six)
            )
        })
        .collect::<Vec<_>>()
        .concat()
}

fn rollback(_plan: &FirewallPlan) -> String {
    FAMILIES
        .iter()
        .map(|(program, _)| format!("{program} -D INPUT -j FLM\n{program} -F FLM\n{program} -X FLM\n"))
        .collect::<Vec<_>>()
        .concat()
}

/// The chain of one family; declaring it empties it within the transaction (iptables-restore(8)).
fn chain(plan: &FirewallPlan, six: bool) -> String {
    let mut text = "*filter\n:FLM - [0:0]\n".to_owned();
    let mut rule = |matches: &str, target: &str, why: &str| {
        text.push_str(&format!("-A FLM {matches} -m comment --comment \"flm: {why}\" -j {target}\n"));
    };
    rule("-i lo", "ACCEPT", "this machine");
    if let Some(ssh) = plan.ssh.filter(|ssh| ssh.from.is_ipv6() == six) {
        rule(&format!("-s {} -p tcp --dport {}", ssh.from, ssh.port), "ACCEPT", "the operator's SSH session");
    }
    for port in &plan.ports {
        if plan.networks.is_empty() {
            rule(&format!("-p tcp --dport {port}"), "ACCEPT", "everyone");
            continue;
        }
        for network in of_family(plan, six) {
            rule(&format!("-s {network} -p tcp --dport {port}"), "ACCEPT", "allow list");
        }
        rule(&format!("-p tcp --dport {port}"), "DROP", "everybody else");
    }
    text.push_str("COMMIT\n");
    text
}
