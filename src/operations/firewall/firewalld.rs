//! `firewalld`: rich rules of the default zone, those who may connect before everybody else.

use super::hands::{Hands, Kept, Lasts, Saved};
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
        "these commands are for the running firewalld only, and the same with --permanent for its next start; 'flm firewall apply' \
         makes its rules permanent once they are confirmed",
        "rules are of the default zone; an interface in another zone needs them there",
        "rich rules carry no name: those with the log prefix \"flm \" are FLM's",
    ],
    hands: Some(Hands {
        lasts: Lasts::OnceConfirmed(|plan| Box::pin(settle(plan))),
        ready: || Box::pin(ready()),
        save: || Box::pin(save()),
        snapshot: || Box::pin(snapshot()),
        apply: |plan, _| Box::pin(change(Of::Running, rules(&plan))),
        restore: |saved| Box::pin(change(Of::Running, saved.own.values().flat_map(|text| lines(text)).collect())),
        own: || Box::pin(own(Of::Running)),
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

/// Which of firewalld's two configurations (firewall-cmd(1)).
#[derive(Debug, Clone, Copy)]
enum Of {
    /// The one in force.
    Running,
    /// The one that it starts with.
    NextStart,
}

/// Tells firewalld something about one of its configurations.
async fn tell(of: Of, word: &str) -> Outcome<String> {
    let words: &[&str] = match of {
        Of::Running => &[word],
        Of::NextStart => &["--permanent", word],
    };
    system::run("firewall-cmd", words, None).await
}

/// FLM's rich rules of the default zone, as firewalld writes them.
async fn own(of: Of) -> Outcome<String> {
    let all = lines(&tell(of, "--list-rich-rules").await?);
    let own = all.into_iter().filter(|rule| rule.contains("log prefix=\"flm "));
    Ok(own.map(|rule| format!("{rule}\n")).collect::<Vec<_>>().concat())
}

/// Makes FLM's rules these: what is new comes before what is old goes, and SSH sessions come first and go last. Each
/// command is a transaction of firewalld.
async fn change(of: Of, wanted: Vec<String>) -> Outcome<()> {
    let now = lines(&own(of).await?);
    let is_ssh = |rule: &&String| rule.contains("\"flm ssh \"");
    let (ssh, others): (Vec<_>, Vec<_>) = wanted.iter().filter(|rule| !now.contains(rule)).partition(is_ssh);
    for rule in ssh.into_iter().chain(others) {
        tell(of, &format!("--add-rich-rule={rule}")).await?;
    }
    let (ssh, others): (Vec<_>, Vec<_>) = now.iter().filter(|rule| !wanted.contains(rule)).partition(is_ssh);
    for rule in others.into_iter().chain(ssh) {
        tell(of, &format!("--remove-rich-rule={rule}")).await?;
    }
    Ok(())
}

/// Has firewalld start with the rules of this plan. A rule of somebody else's in the running configuration stays where it is.
async fn settle(plan: Option<FirewallPlan>) -> Outcome<Kept> {
    change(Of::NextStart, plan.as_ref().map(rules).unwrap_or_default()).await.map(|()| Kept::ByFirewall)
}

async fn save() -> Outcome<Saved> {
    let own = std::collections::BTreeMap::from([("rules".to_owned(), own(Of::Running).await?)]);
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
