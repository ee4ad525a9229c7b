//! `nftables`: a table of FLM's own, replaced as one transaction.
//!
//! The table only decides about FLM's ports and lets everything else pass to the tables after it, so it cannot close a way
//! in that was open. What another table drops stays dropped.

use std::collections::BTreeMap;

use super::at_start::{self, Part};
use super::hands::{Hands, Kept, Lasts, Saved};
use super::{Backend, of_family, ports, system};
use crate::types::failure::{Failure, Outcome};
use crate::types::firewall::FirewallPlan;

pub(super) static BACKEND: Backend = Backend {
    name: "nftables",
    system: "linux",
    program: "nft",
    apply,
    rollback,
    notes: &[
        "a packet that another table drops stays dropped: where ufw or firewalld owns the rules, use that backend",
        "loaded by hand these rules are gone after a restart of the machine; 'flm firewall apply' has systemd load them again \
         once they are confirmed",
    ],
    hands: Some(Hands {
        lasts: Lasts::OnceConfirmed(|plan| Box::pin(settle(plan))),
        ready: || Box::pin(async { Ok(()) }),
        save: || Box::pin(save()),
        snapshot: || Box::pin(snapshot()),
        apply: |plan, _| Box::pin(async move { load(&ruleset(&plan)).await }),
        restore: |saved| Box::pin(restore(saved)),
        own: || Box::pin(async { Ok(own().await?.unwrap_or_default()) }),
    }),
};

/// Where the text of FLM's own table is in what was saved.
const TABLE: &str = "table";

fn apply(plan: &FirewallPlan) -> String {
    format!("nft -f - <<'END'\n{}END\n", ruleset(plan))
}

fn rollback(_plan: &FirewallPlan) -> String {
    format!("nft -f - <<'END'\n{REMOVAL}END\n")
}

/// Made first, since taking away what is not there is an error.
const REMOVAL: &str = "add table inet flm\ndelete table inet flm\n";

/// One transaction (nft(8)): the old rules are gone and the new ones there at the same moment. The table itself stays, so
/// that it keeps its place among the others.
fn ruleset(plan: &FirewallPlan) -> String {
    let mut rules = String::new();
    let mut rule = |text: &str| rules.push_str(&format!("    {text}\n"));
    rule("iif lo accept comment \"flm: this machine\"");
    for ssh in &plan.ssh {
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
        "add table inet flm\nflush table inet flm\ntable inet flm {{\n  chain input {{\n    type filter hook input \
         priority filter - 10; policy accept;\n{rules}  }}\n}}\n"
    )
}

/// Loads rules as one transaction: all of them or none.
async fn load(rules: &str) -> Outcome<()> {
    system::run("nft", &["-f", "-"], Some(rules)).await.map(drop)
}

/// Has the machine start with the table of this plan, as it was confirmed.
async fn settle(plan: Option<FirewallPlan>) -> Outcome<Kept> {
    let part = |plan: &FirewallPlan| {
        let nft = system::path("nft")?;
        Ok::<_, Failure>(Part { file: "rules.nft", rules: ruleset(plan), commands: vec![format!("{nft} -f FILE")] })
    };
    at_start::settle(plan.as_ref().map(part).transpose()?.map(|part| vec![part])).await
}

/// FLM's own table as nft writes it; `None` when there is none.
async fn own() -> Outcome<Option<String>> {
    let tables = system::run("nft", &["list", "tables"], None).await?;
    if !tables.lines().any(|line| line.trim() == "table inet flm") {
        return Ok(None);
    }
    Ok(Some(system::run("nft", &["list", "table", "inet", "flm"], None).await?))
}

async fn save() -> Outcome<Saved> {
    let own = own().await?.map(|table| (TABLE.to_owned(), table));
    Ok(Saved { snapshot: snapshot().await?, own: own.into_iter().collect::<BTreeMap<_, _>>() })
}

async fn restore(saved: Saved) -> Outcome<()> {
    match saved.own.get(TABLE) {
        Some(table) => load(&format!("add table inet flm\nflush table inet flm\n{table}")).await,
        None => load(REMOVAL).await,
    }
}

async fn snapshot() -> Outcome<String> {
    Ok(without_counts(&system::run("nft", &["list", "ruleset"], None).await?))
}

/// Rules without what moves by itself: counted packets, and the time that elements of sets have left.
pub(super) fn without_counts(rules: &str) -> String {
    let mut out = String::with_capacity(rules.len());
    for line in rules.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ').peekable();
        let mut kept = Vec::new();
        while let Some(word) = words.next() {
            kept.push(word);
            match word.trim_start() {
                "packets" | "bytes" if words.peek().is_some_and(|next| next.parse::<u64>().is_ok()) => {
                    words.next();
                }
                "expires" => {
                    words.next();
                }
                _ => {}
            }
        }
        out.push_str(&kept.join(" "));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_by_itself_is_no_difference() {
        let rules = "table ip t {\n\t\tcounter packets 12 bytes 900 accept\n\t\telements = { 10.0.0.1 timeout 1m expires 42s }\n}\n";
        let later = rules.replace("12", "13").replace("900", "980").replace("42s", "3s");
        assert_eq!(without_counts(rules), without_counts(&later));
        assert_ne!(without_counts(rules), without_counts(&rules.replace("accept", "drop")));
    }
}
