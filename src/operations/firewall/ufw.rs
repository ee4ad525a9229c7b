//! `ufw`: rules with the comment `flm`. ufw drops what no rule lets in, so only those who may connect are named.

use super::{Backend, sources};
use crate::types::calls::firewall::FirewallPlan;

pub(super) static BACKEND: Backend = Backend {
    name: "ufw",
    system: "linux",
    program: "ufw",
    apply,
    rollback,
    notes: &["rules count once ufw is active (ufw status); its default must be deny (ufw default deny incoming)"],
};

fn apply(plan: &FirewallPlan) -> String {
    // The session first, and before every other rule of ufw.
    let ssh = plan.ssh.map(|ssh| {
        format!("ufw prepend allow in proto tcp from {} to any port {} comment 'flm ssh'\n", ssh.from, ssh.port)
    });
    let rules = rules(plan).into_iter().map(|rule| format!("ufw allow {rule} comment 'flm'\n"));
    ssh.into_iter().chain(rules).collect()
}

fn rollback(plan: &FirewallPlan) -> String {
    let ssh = plan.ssh.map(|ssh| {
        // Last, so that the session is let in while the others go.
        format!("ufw delete allow in proto tcp from {} to any port {} # flm ssh\n", ssh.from, ssh.port)
    });
    rules(plan).into_iter().map(|rule| format!("ufw delete allow {rule} # flm\n")).chain(ssh).collect()
}

fn rules(plan: &FirewallPlan) -> Vec<String> {
    let rule = |port: &u16| {
        let port = *port;
        sources(plan).into_iter().map(move |source| format!("in proto tcp from {source} to any port {port}"))
    };
    plan.ports.iter().flat_map(rule).collect()
}
