//! `ufw`: rules with the comment `flm`, before all others.
//!
//! A person is shown ufw's own commands. FLM itself writes the rules into ufw's files, in ufw's own form, and loads each
//! file as ufw does, but as one transaction: `ufw` empties its chains before it fills them again, and for that moment the
//! rule for an SSH session would be absent (ADR 0016).

use std::path::Path;

use super::hands::{Hands, Lasts, Saved};
use super::iptables::{self, FAMILIES, Family};
use super::{Backend, EVERYONE, of_family, sources, system};
use crate::config::files;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::firewall::FirewallPlan;
use crate::types::text::hex;

pub(super) static BACKEND: Backend = Backend {
    name: "ufw",
    system: "linux",
    program: "ufw",
    apply,
    rollback,
    notes: &["rules count once ufw is active: ufw status"],
    hands: Some(Hands {
        lasts: Lasts::OverRestarts,
        ready: || Box::pin(async { ready() }),
        save: || Box::pin(save()),
        snapshot: || Box::pin(snapshot()),
        apply: |plan, _| Box::pin(change(plan)),
        restore: |saved| Box::pin(restore(saved)),
        own: || Box::pin(async { own() }),
    }),
};

/// Comments of FLM's rules, as ufw shows them: of the SSH sessions, and of the listeners.
const COMMENTS: [&str; 2] = ["flm ssh", "flm"];

/// Ports that one rule may name (iptables-extensions(8), multiport; ufw(8)).
const PORTS_OF_A_RULE: usize = 15;

/// What ufw is told is always inserted before the rest, so the last is told first.
fn apply(plan: &FirewallPlan) -> String {
    let mut commands: Vec<String> =
        rules(plan).map(|(verb, rule)| format!("ufw prepend {verb} {rule} comment 'flm'\n")).collect();
    commands.reverse();
    // The session is let in before anything else changes.
    let ssh = plan.ssh.iter().map(|ssh| {
        format!("ufw prepend allow in proto tcp from {} to any port {} comment 'flm ssh'\n", ssh.from, ssh.port)
    });
    ssh.chain(commands).collect()
}

fn rollback(plan: &FirewallPlan) -> String {
    let ssh = plan.ssh.iter().map(|ssh| {
        // Last, so that the session is let in while the others go.
        format!("ufw delete allow in proto tcp from {} to any port {} # flm ssh\n", ssh.from, ssh.port)
    });
    rules(plan).map(|(verb, rule)| format!("ufw delete {verb} {rule} # flm\n")).chain(ssh).collect()
}

/// Verb and rule, in the order in which they are to count.
fn rules(plan: &FirewallPlan) -> impl Iterator<Item = (&'static str, String)> {
    let ports = chunks(plan);
    let allowed = sources(plan).into_iter().flat_map({
        let ports = ports.clone();
        move |source| {
            let rule = move |ports: &String| ("allow", format!("in proto tcp from {source} to any port {ports}"));
            ports.iter().map(rule).collect::<Vec<_>>()
        }
    });
    let denied = if plan.networks.is_empty() { Vec::new() } else { ports };
    allowed.chain(denied.into_iter().map(|ports| ("deny", format!("in proto tcp to any port {ports}"))))
}

/// Ports as ufw writes several in one rule.
fn chunks(plan: &FirewallPlan) -> Vec<String> {
    let text = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    plan.ports.chunks(PORTS_OF_A_RULE).map(text).collect()
}

/// Where ufw keeps what the operator told it.
const RULES: [&str; 2] = ["/etc/ufw/user.rules", "/etc/ufw/user6.rules"];

/// Says whether ufw is active.
pub(super) fn is_active() -> bool {
    has_line("/etc/ufw/ufw.conf", "ENABLED=yes")
}

fn has_line(path: &str, wanted: &str) -> bool {
    let text = files::read_to_string(Path::new(path)).unwrap_or_default();
    text.lines().any(|line| line.trim().replace('"', "").eq_ignore_ascii_case(wanted))
}

fn ready() -> Outcome<()> {
    if is_active() {
        return Ok(());
    }
    Err(Failure::new(ErrorCode::InvalidArgument, "ufw is not active, so its rules would guard nothing")
        .hint("use 'flm firewall apply --backend nftables', or allow your SSH port and activate ufw: ufw allow OpenSSH && ufw enable"))
}

/// Families that ufw looks after, each with its file.
fn families() -> impl Iterator<Item = (Family, &'static Path)> {
    let with_six = has_line("/etc/default/ufw", "IPV6=yes");
    FAMILIES.into_iter().zip(RULES.map(Path::new)).filter(move |(family, _)| !family.six || with_six)
}

/// Begins the operator's rules in ufw's file; ended by [`END`].
const BEGIN: &str = "### RULES ###\n";
const END: &str = "### END RULES ###";

/// A file of ufw, with FLM's rules taken apart from the others'.
#[derive(Debug, PartialEq, Eq)]
struct Rules {
    /// Up to and with the line that begins the rules.
    head: String,
    /// FLM's blocks.
    own: Vec<String>,
    /// All other blocks, and what follows the rules.
    rest: String,
}

impl Rules {
    fn parse(text: &str) -> Option<Self> {
        let at = text.find(BEGIN)? + BEGIN.len();
        let (head, body) = text.split_at(at);
        // The file that comes with ufw has no end yet.
        let (body, tail) = body.split_at(body.find(END).unwrap_or(0));
        let body = body.strip_prefix('\n').unwrap_or(body);
        let (mut own, mut rest) = (Vec::new(), String::new());
        // Blocks are a comment that ufw reads, its rules, and an empty line before.
        for block in body.split_inclusive("\n\n") {
            if COMMENTS.iter().any(|comment| is_commented(block, comment)) {
                own.push(block.to_owned());
            } else {
                rest.push_str(block);
            }
        }
        Some(Self { head: head.to_owned(), own, rest: rest + tail })
    }

    /// The file with these as FLM's blocks. They come first, after the empty line that ufw puts there.
    fn with_own(&self, own: &[String]) -> String {
        format!("{}\n{}{}", self.head, own.concat(), self.rest)
    }
}

/// ufw writes comments in hexadecimal.
fn is_commented(block: &str, comment: &str) -> bool {
    let wanted = format!(" comment={}", hex(comment.as_bytes()));
    block.lines().any(|line| line.starts_with("### tuple ###") && line.ends_with(&wanted))
}

/// FLM's blocks of one family, in ufw's own form (`ufw/backend_iptables.py`, `_write_rules`).
fn blocks(plan: &FirewallPlan, family: Family) -> Vec<String> {
    let everyone = EVERYONE[usize::from(family.six)];
    let chain = if family.six { "ufw6-user-input" } else { "ufw-user-input" };
    let block = |action: &str, ports: &str, source: Option<&str>, comment: &str| {
        let matches =
            if ports.contains(',') { format!("-m multiport --dports {ports}") } else { format!("--dport {ports}") };
        let from = source.map(|source| format!(" -s {source}")).unwrap_or_default();
        let target = if action == "allow" { "ACCEPT" } else { "DROP" };
        format!(
            "### tuple ### {action} tcp {ports} {everyone} any {} in comment={}\n-A {chain} -p tcp {matches}{from} -j {target}\n\n",
            source.unwrap_or(everyone),
            hex(comment.as_bytes())
        )
    };
    let ssh = plan.ssh.iter().filter(|ssh| ssh.from.is_ipv6() == family.six);
    let mut blocks: Vec<String> =
        ssh.map(|ssh| block("allow", &ssh.port.to_string(), Some(&ssh.from.to_string()), COMMENTS[0])).collect();
    for ports in chunks(plan) {
        if plan.networks.is_empty() {
            blocks.push(block("allow", &ports, None, COMMENTS[1]));
            continue;
        }
        let networks = of_family(plan, family.six);
        blocks.extend(networks.iter().map(|network| block("allow", &ports, Some(network), COMMENTS[1])));
        blocks.push(block("deny", &ports, None, COMMENTS[1]));
    }
    blocks
}

fn parsed(path: &Path, text: &str) -> Outcome<Rules> {
    Rules::parse(text).ok_or_else(|| {
        Failure::new(ErrorCode::IoError, format!("{} has another form than FLM knows", path.display()))
            .hint("nothing was changed; give the commands of 'flm firewall preview --backend ufw' to ufw yourself")
    })
}

async fn change(plan: FirewallPlan) -> Outcome<()> {
    for (family, path) in families() {
        let now = parsed(path, &files::read_to_string(path)?)?;
        put(family, path, &now.with_own(&blocks(&plan, family))).await?;
    }
    Ok(())
}

/// The running rules first, then the file that the next start reads.
async fn put(family: Family, path: &Path, text: &str) -> Outcome<()> {
    iptables::load(family, text).await?;
    system::rewrite(path, text)
}

async fn save() -> Outcome<Saved> {
    let mut saved = Saved { snapshot: snapshot().await?, own: std::collections::BTreeMap::new() };
    for (_, path) in families() {
        saved.own.insert(path.display().to_string(), files::read_to_string(path)?);
    }
    Ok(saved)
}

async fn restore(saved: Saved) -> Outcome<()> {
    for (family, path) in families() {
        let Some(before) = saved.own.get(&path.display().to_string()) else { continue };
        let text = files::read_to_string(path)?;
        let (now, then) = (parsed(path, &text)?, parsed(path, before)?);
        let without = |rules: &Rules| rules.with_own(&[]);
        // What others told ufw meanwhile stays; where nobody did, the file is what it was, byte for byte.
        let wanted = if without(&now) == without(&then) { before.clone() } else { now.with_own(&then.own) };
        put(family, path, &wanted).await?;
    }
    Ok(())
}

async fn snapshot() -> Outcome<String> {
    let mut all = String::new();
    for (family, path) in families() {
        all.push_str(&files::read_to_string(path)?);
        all.push_str(&iptables::without_counts(&iptables::table(family).await?));
    }
    Ok(all)
}

fn own() -> Outcome<String> {
    let mut all = String::new();
    for (_, path) in families() {
        all.push_str(&parsed(path, &files::read_to_string(path)?)?.own.concat());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::address::parse_network;
    use crate::types::firewall::SshSession;

    // As ufw 0.36.2 wrote it.
    const FILE: &str = "*filter\n:ufw-user-input - [0:0]\n### RULES ###\n\n\
        ### tuple ### allow tcp 22 0.0.0.0/0 any 203.0.113.7 in comment=666c6d20737368\n\
        -A ufw-user-input -p tcp --dport 22 -s 203.0.113.7 -j ACCEPT\n\n\
        ### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\n-A ufw-user-input -p tcp --dport 22 -j ACCEPT\n\n\
        ### tuple ### allow tcp 8484,9000 0.0.0.0/0 any 192.168.1.0/24 in comment=666c6d\n\
        -A ufw-user-input -p tcp -m multiport --dports 8484,9000 -s 192.168.1.0/24 -j ACCEPT\n\n\
        ### tuple ### deny tcp 8484,9000 0.0.0.0/0 any 0.0.0.0/0 in comment=666c6d\n\
        -A ufw-user-input -p tcp -m multiport --dports 8484,9000 -j DROP\n\n\
        ### END RULES ###\n\n### LOGGING ###\n-A ufw-after-logging-input -j LOG\n### END LOGGING ###\nCOMMIT\n";
    const NEW: &str = "*filter\n:ufw-user-input - [0:0]\n### RULES ###\n\n### END RULES ###\nCOMMIT\n";

    #[test]
    fn the_blocks_are_those_that_ufw_writes_and_go_without_a_trace() {
        let plan = FirewallPlan {
            ports: vec![8484, 9000],
            networks: vec![parse_network("192.168.1.0/24").expect("a network")],
            ssh: vec![SshSession::parse("203.0.113.7 50022 198.51.100.1 22").expect("a session")],
        };
        let rules = Rules::parse(FILE).expect("the form");
        assert_eq!(rules.own, blocks(&plan, FAMILIES[0]));
        let without = rules.with_own(&[]);
        assert!(!without.contains("comment=") && without.contains("--dport 22 -j ACCEPT\n\n### END"), "{without}");
        let again = Rules::parse(&without).expect("the form").with_own(&rules.own);
        assert_eq!(Rules::parse(&again).expect("the form").with_own(&[]), without);
        assert!(again.find("203.0.113.7").expect("there") < again.find("--dport 22 -j ACCEPT").expect("there"));
        assert_eq!(Rules::parse(NEW).expect("the form").with_own(&[]), NEW, "a file without rules stays as it is");
    }

    #[test]
    fn a_comment_of_somebody_else_is_not_flms() {
        let other = FILE.replace("comment=666c6d\n", "comment=666c6d34\n");
        assert_eq!(Rules::parse(&other).expect("the form").own.len(), 1);
    }
}
