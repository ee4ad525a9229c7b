//! `nftables`: a table of FLM's own, replaced as one transaction.
//!
//! The table only decides about FLM's ports and lets everything else pass to the tables after it, so it cannot close a way
//! in that was open. What another table drops stays dropped.

use super::{Backend, of_family, ports};
use crate::types::calls::firewall::FirewallPlan;

pub(super) static BACKEND: Backend = Backend {
    name: "nftables",
    system: "linux",
    program: "nft",
    apply,
    rollback,
    notes: &[
        "a packet that another table drops stays dropped: where ufw or firewalld owns the rules, use that backend",
    ],
};

fn apply(plan: &FirewallPlan) -> String {
    format!("nft -f - <<'END'\n{}END\n", ruleset(plan))
}

fn rollback(_plan: &FirewallPlan) -> String {
    "nft -f - <<'END'\ntable inet flm {}\ndelete table inet flm\nEND\n".to_owned()
}

/// One transaction (nft(8)): the old table is gone and the new one there at the same moment.
fn ruleset(plan: &FirewallPlan) -> String {
    let mut rules = String::new();
    let mut rule = |text: &str| rules.push_str(&format!("    {text}\n"));
    rule("iif lo accept comment \"flm: this machine\"");
    if let Some(ssh) = plan.ssh {
        let family = if ssh.from.is_ipv6() { "ip6" } else { "ip" };
        rule(&format!(
            "{family} saddr {} tcp dport {} accept comment \"flm: the operator's SSH session\"",
            ssh.from, ssh.port
        ));
    }
    let ports = ports(plan, ", ");
    if plan.networks.is_empty() {
        rule(&format!("tcp dport {{ {ports} }} accept comment \"flm: everyone\""));
    } else {
        for (family, six) in [("ip", false), ("ip6", true)] {
            let networks = of_family(plan, six);
            if !networks.is_empty() {
                rule(&format!(
                    "{family} saddr {{ {} }} tcp dport {{ {ports} }} accept comment \"flm: allow list\"",
                    networks.join(", ")
                ));
            }
        }
        rule(&format!("tcp dport {{ {ports} }} drop comment \"flm: everybody else\""));
    }
    format!(
        "table inet flm {{}}\ndelete table inet flm\ntable inet flm {{\n  chain input {{\n    type filter hook input \
         priority filter - 10; policy accept;\n{rules}  }}\n}}\n"
    )
}
