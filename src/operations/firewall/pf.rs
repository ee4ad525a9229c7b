//! `pf` of macOS: an anchor `com.flm`. A preview, not tried on a Mac.

use super::{Backend, ports, sources};
use crate::types::firewall::FirewallPlan;

pub(super) static BACKEND: Backend = Backend {
    name: "pf",
    system: "macos",
    program: "pfctl",
    apply,
    rollback,
    notes: &[
        "a preview: FLM does not apply it, and it was not tried on a Mac",
        "pf reads the anchor only when /etc/pf.conf has the line: anchor \"com.flm\"",
    ],
    hands: None,
};

fn apply(plan: &FirewallPlan) -> String {
    let ports = ports(plan, ", ");
    let mut rules = String::new();
    for ssh in &plan.ssh {
        rules.push_str(&format!(
            "pass in quick proto tcp from {} to any port {} label \"flm-ssh\"\n",
            ssh.from, ssh.port
        ));
    }
    let sources =
        if plan.networks.is_empty() { "any".to_owned() } else { format!("{{ {} }}", sources(plan).join(", ")) };
    rules.push_str(&format!("pass in quick proto tcp from {sources} to any port {{ {ports} }} label \"flm-allow\"\n"));
    rules.push_str(&format!("block in quick on ! lo0 proto tcp to any port {{ {ports} }} label \"flm-others\"\n"));
    format!("sudo pfctl -a com.flm -f - <<'END'\n{rules}END\nsudo pfctl -E\n")
}

fn rollback(_plan: &FirewallPlan) -> String {
    "sudo pfctl -a com.flm -F rules\n".to_owned()
}
