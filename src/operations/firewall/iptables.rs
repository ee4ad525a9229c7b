//! `iptables`: a chain `FLM` in both families, loaded by iptables-restore as one transaction per family.

use std::path::Path;

use super::at_start;
use super::hands::{Hands, Kept, Lasts, Saved};
use super::{Backend, of_family, system};
use crate::types::failure::{Failure, Outcome};
use crate::types::firewall::FirewallPlan;

pub(super) static BACKEND: Backend = Backend {
    name: "iptables",
    system: "linux",
    program: "iptables-restore",
    apply,
    rollback,
    notes: &[
        "loaded by hand these rules are gone after a restart of the machine, unless something such as iptables-persistent saves \
         them; 'flm firewall apply' has systemd load them again once they are confirmed",
    ],
    hands: Some(Hands {
        lasts: Lasts::OnceConfirmed(|plan| Box::pin(settle(plan))),
        ready: || Box::pin(async { Ok(()) }),
        save: || Box::pin(save()),
        snapshot: || Box::pin(snapshot()),
        apply: |plan, _| Box::pin(change(plan)),
        restore: |saved| Box::pin(restore(saved)),
        own: || Box::pin(own()),
    }),
};

/// One of the two families that iptables has programs for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    /// Name of its programs' beginning.
    pub(super) program: &'static str,
    /// Whether it is IPv6.
    pub(super) six: bool,
}

/// Both.
pub(super) const FAMILIES: [Family; 2] =
    [Family { program: "iptables", six: false }, Family { program: "ip6tables", six: true }];

fn apply(plan: &FirewallPlan) -> String {
    FAMILIES
        .iter()
        .map(|family| {
            let program = family.program;
            // A jump that is there already is not made twice.
            format!(
                "{program}-restore --noflush <<'END'\n*filter\n{}COMMIT\nEND\n\
                 {program} -C INPUT -j FLM 2>/dev/null || {program} -I INPUT 1 -j FLM\n",
                chain(plan, family.six)
            )
        })
        .collect::<Vec<_>>()
        .concat()
}

fn rollback(_plan: &FirewallPlan) -> String {
    FAMILIES
        .iter()
        .map(|Family { program, .. }| format!("{program} -D INPUT -j FLM\n{program} -F FLM\n{program} -X FLM\n"))
        .collect::<Vec<_>>()
        .concat()
}

/// The chain of one family; declaring it empties it within the transaction (iptables-restore(8)).
fn chain(plan: &FirewallPlan, six: bool) -> String {
    let mut text = ":FLM - [0:0]\n".to_owned();
    let mut rule = |matches: &str, target: &str, why: &str| {
        text.push_str(&format!("-A FLM {matches} -m comment --comment \"flm: {why}\" -j {target}\n"));
    };
    rule("-i lo", "ACCEPT", "this machine");
    for ssh in plan.ssh.iter().filter(|ssh| ssh.from.is_ipv6() == six) {
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
    text
}

/// The way into FLM's chain, as iptables-save writes it.
const JUMP: &str = "-A INPUT -j FLM";

/// FLM's part of one family's table.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    /// Places in `INPUT` from which the chain is entered, counted from 1, ascending.
    jumps: Vec<usize>,
    /// The chain's rules; `None` when there is no chain.
    rules: Option<Vec<String>>,
}

impl Part {
    fn of(table: &str) -> Self {
        let input = table.lines().filter(|line| line.starts_with("-A INPUT "));
        let jumps = input.enumerate().filter(|(_, line)| *line == JUMP).map(|(at, _)| at + 1).collect();
        let is_there = table.lines().any(|line| line.starts_with(":FLM "));
        let rules = table.lines().filter(|line| line.starts_with("-A FLM ")).map(str::to_owned);
        Self { jumps, rules: is_there.then(|| rules.collect()) }
    }

    /// The transaction that makes `now` into this.
    fn transaction(&self, now: &Self) -> String {
        let mut text = "*filter\n".to_owned();
        if let Some(rules) = &self.rules {
            text.push_str(":FLM - [0:0]\n");
            text.extend(rules.iter().map(|rule| format!("{rule}\n")));
        }
        if self.jumps != now.jumps {
            text.extend(now.jumps.iter().map(|_| "-D INPUT -j FLM\n"));
            text.extend(self.jumps.iter().map(|at| format!("-I INPUT {at} -j FLM\n")));
        }
        if self.rules.is_none() && now.rules.is_some() {
            text.push_str("-F FLM\n-X FLM\n");
        }
        text.push_str("COMMIT\n");
        text
    }
}

/// Loads rules of one family as one transaction: all of them or none.
pub(super) async fn load(family: Family, rules: &str) -> Outcome<()> {
    // Another program may hold the lock of legacy iptables for a moment.
    system::run(&format!("{}-restore", family.program), &["--noflush", "--wait", "10"], Some(rules)).await.map(drop)
}

/// The filter table of one family, as iptables-save writes it; empty when there is none.
pub(super) async fn table(family: Family) -> Outcome<String> {
    system::run(&format!("{}-save", family.program), &["-t", "filter"], None).await
}

/// The families of this machine: a kernel may have no IPv6.
pub(super) fn families() -> impl Iterator<Item = Family> {
    FAMILIES.into_iter().filter(|family| !family.six || Path::new("/proc/sys/net/ipv6").exists())
}

async fn change(plan: FirewallPlan) -> Outcome<()> {
    for family in families() {
        let now = Part::of(&table(family).await?);
        let enter = if now.jumps.is_empty() { "-I INPUT 1 -j FLM\n" } else { "" };
        load(family, &format!("*filter\n{}{enter}COMMIT\n", chain(&plan, family.six))).await?;
    }
    Ok(())
}

/// Has the machine start with the chains of this plan, as they were confirmed.
async fn settle(plan: Option<FirewallPlan>) -> Outcome<Kept> {
    let part = |family: Family, plan: &FirewallPlan| {
        let program = system::path(family.program)?;
        Ok::<_, Failure>(at_start::Part {
            file: if family.six { "rules.v6" } else { "rules.v4" },
            rules: format!("*filter\n{}COMMIT\n", chain(plan, family.six)),
            commands: vec![
                format!("{} --noflush --wait=10 FILE", system::path(&format!("{}-restore", family.program))?),
                // A jump that is there already is not made twice.
                format!(
                    "/bin/sh -c '{program} -w 10 -C INPUT -j FLM 2>/dev/null || {program} -w 10 -I INPUT 1 -j FLM'"
                ),
            ],
        })
    };
    let parts = |plan: FirewallPlan| families().map(|family| part(family, &plan)).collect::<Outcome<Vec<_>>>();
    at_start::settle(plan.map(parts).transpose()?).await
}

async fn save() -> Outcome<Saved> {
    let mut saved = Saved { snapshot: snapshot().await?, own: std::collections::BTreeMap::new() };
    for family in families() {
        saved.own.insert(family.program.to_owned(), table(family).await?);
    }
    Ok(saved)
}

async fn restore(saved: Saved) -> Outcome<()> {
    for family in families() {
        let before = saved.own.get(family.program).map_or("", String::as_str);
        let now = table(family).await?;
        load(family, &Part::of(before).transaction(&Part::of(&now))).await?;
        if before.is_empty() {
            remove_empty_table(family).await?;
        }
    }
    Ok(())
}

/// iptables over nftables makes a table when it is first used; where there was none, there shall be none.
async fn remove_empty_table(family: Family) -> Outcome<()> {
    let now = table(family).await?;
    let untouched = |line: &str| {
        line.starts_with('#')
            || line == "*filter"
            || line == "COMMIT"
            || (line.starts_with(':') && line.contains(" ACCEPT "))
    };
    if now.is_empty() || !now.lines().all(untouched) || system::find("nft").is_none() {
        return Ok(());
    }
    let kind = if family.six { "ip6" } else { "ip" };
    // Legacy iptables has no such table: there it stays, empty, as part of the kernel.
    if system::run("nft", &["list", "tables", kind], None)
        .await?
        .lines()
        .any(|line| line == format!("table {kind} filter"))
    {
        system::run("nft", &["delete", "table", kind, "filter"], None).await?;
    }
    Ok(())
}

async fn snapshot() -> Outcome<String> {
    let mut all = String::new();
    for family in families() {
        all.push_str(&without_counts(&table(family).await?));
    }
    Ok(all)
}

async fn own() -> Outcome<String> {
    let mut all = String::new();
    for family in families() {
        let rules = table(family).await?;
        all.extend(rules.lines().filter(|line| line.starts_with("-A FLM ")).map(|line| format!("{line}\n")));
    }
    Ok(all)
}

/// A table without the time in its comments and the counters of its chains.
pub(super) fn without_counts(table: &str) -> String {
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| format!("{}\n", line.split(" [").next().filter(|_| line.starts_with(':')).unwrap_or(line)))
        .collect::<Vec<_>>()
        .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# Generated\n*filter\n:INPUT DROP [3:180]\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n";
    const AFTER: &str = "*filter\n:INPUT DROP [9:180]\n:FLM - [0:0]\n-A INPUT -j FLM\n-A INPUT -p tcp --dport 22 -j ACCEPT\n\
         -A FLM -i lo -j ACCEPT\nCOMMIT\n";

    #[test]
    fn a_rollback_is_one_transaction_of_flms_part_only() {
        let (before, after) = (Part::of(BEFORE), Part::of(AFTER));
        assert_eq!(before.transaction(&after), "*filter\n-D INPUT -j FLM\n-F FLM\n-X FLM\nCOMMIT\n");
        assert_eq!(
            after.transaction(&before),
            "*filter\n:FLM - [0:0]\n-A FLM -i lo -j ACCEPT\n-I INPUT 1 -j FLM\nCOMMIT\n"
        );
        assert_eq!(before.transaction(&before), "*filter\nCOMMIT\n");
    }

    #[test]
    fn counters_are_no_difference_and_policies_are() {
        assert_eq!(without_counts(BEFORE), without_counts(&BEFORE.replace("[3:180]", "[4:9]").replace("Gen", "gen")));
        assert_ne!(without_counts(BEFORE), without_counts(&BEFORE.replace("DROP", "ACCEPT")));
    }
}
