//! `firewalld`: rich rules of the default zone, those who may connect before everybody else.

use super::hands::{Hands, Lasts, Saved};
use super::{Backend, nftables, sources, system};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::firewall::FirewallPlan;

pub(super) static BACKEND: Backend = Backend {
    name: "firewalld",
    system: "linux",
    program: "firewall-cmd",
    apply,
    rollback,
    notes: &[
        "rules are of the running firewalld only; keep them with: firewall-cmd --runtime-to-permanent",
        "rules are of the default zone; an interface in another zone needs them there",
        "rich rules carry no name: those with the log prefix \"flm \" are FLM's",
    ],
    hands: Some(Hands {
        lasts: Lasts::UntilRestart,
        ready: || Box::pin(ready()),
        save: || Box::pin(save()),
        snapshot: || Box::pin(snapshot()),
        apply: |plan, _| Box::pin(change(rules(&plan))),
        restore: |saved| Box::pin(change(saved.own.values().flat_map(|text| lines(text)).collect())),
        own: || Box::pin(own()),
    }),
};

/// Where rules stand among others (firewalld.richlanguage(5)): below zero they count before the zone's ports and services,
/// lower ones first.
const SSH: i16 = -300;
const ALLOWED: i16 = -200;
const OTHERS: i16 = -100;

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
    let mut rules: Vec<String> =
        plan.ssh.iter().map(|ssh| rule(SSH, Some(&ssh.from.to_string()), ssh.port, "flm ssh ", "accept")).collect();
    for port in &plan.ports {
        rules.extend(sources(plan).iter().map(|source| rule(ALLOWED, Some(source), *port, "flm ", "accept")));
        if !plan.networks.is_empty() {
            rules.push(rule(OTHERS, None, *port, "flm others ", "drop"));
        }
    }
    rules
}

/// In the words and order in which firewalld answers it (firewalld.richlanguage(5)). At most one line a minute is logged.
fn rule(priority: i16, source: Option<&str>, port: u16, prefix: &str, action: &str) -> String {
    // Without an address a rule is of both families.
    let from = source.map_or_else(String::new, |source| {
        let family = if source.contains(':') { "ipv6" } else { "ipv4" };
        format!(" family=\"{family}\" source address=\"{source}\"")
    });
    format!(
        "rule priority=\"{priority}\"{from} port port=\"{port}\" protocol=\"tcp\" \
         log prefix=\"{prefix}\" level=\"info\" limit value=\"1/m\" {action}"
    )
}

/// Whether firewalld runs.
pub(super) async fn is_active() -> bool {
    system::run("firewall-cmd", &["--state"], None).await.is_ok()
}

async fn ready() -> Outcome<()> {
    system::run("firewall-cmd", &["--state"], None).await.map(drop).map_err(|failure| {
        Failure::new(ErrorCode::InvalidArgument, format!("firewalld does not run: {}", failure.message))
            .hint("use 'flm firewall apply --backend nftables', or start it: systemctl start firewalld")
    })
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// All rich rules of the default zone, as firewalld writes them.
async fn all() -> Outcome<Vec<String>> {
    Ok(lines(&system::run("firewall-cmd", &["--list-rich-rules"], None).await?))
}

async fn own() -> Outcome<String> {
    let own = all().await?.into_iter().filter(|rule| rule.contains("log prefix=\"flm "));
    Ok(own.map(|rule| format!("{rule}\n")).collect::<Vec<_>>().concat())
}

/// Makes FLM's rules these: what is new comes before what is old goes, and SSH sessions come first and go last. Each
/// command is a transaction of firewalld.
async fn change(wanted: Vec<String>) -> Outcome<()> {
    let now = lines(&own().await?);
    let is_ssh = |rule: &&String| rule.contains("\"flm ssh \"");
    let (ssh, others): (Vec<_>, Vec<_>) = wanted.iter().filter(|rule| !now.contains(rule)).partition(is_ssh);
    for rule in ssh.into_iter().chain(others) {
        system::run("firewall-cmd", &[&format!("--add-rich-rule={rule}")], None).await?;
    }
    let (ssh, others): (Vec<_>, Vec<_>) = now.iter().filter(|rule| !wanted.contains(rule)).partition(is_ssh);
    for rule in others.into_iter().chain(ssh) {
        system::run("firewall-cmd", &[&format!("--remove-rich-rule={rule}")], None).await?;
    }
    Ok(())
}

async fn save() -> Outcome<Saved> {
    let own = std::collections::BTreeMap::from([("rules".to_owned(), own().await?)]);
    Ok(Saved { snapshot: snapshot().await?, own })
}

/// What firewalld says of the zone, and the rules of the kernel where nft is there to tell them.
async fn snapshot() -> Outcome<String> {
    let mut all = system::run("firewall-cmd", &["--list-all"], None).await?;
    if system::find("nft").is_some() {
        all.push_str(&nftables::without_counts(&system::run("nft", &["list", "ruleset"], None).await?));
    }
    Ok(all)
}
