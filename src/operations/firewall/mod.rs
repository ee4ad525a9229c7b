//! What the machine's firewall is to be told, one file per backend (SPEC §2 `flm firewall`, §11).
//!
//! A backend turns a plan into text, and has hands where FLM also changes the machine. [`preview`] changes nothing and needs
//! no right. What changes the machine is no operation of the owner, which may have no right to and no terminal to ask for it
//! in: it is the [`step`], run as root by a front end through `control`, with the [`watch`] that takes unconfirmed rules
//! back. Rules are named for FLM, so that they are known again. The rules for SSH sessions come first in every backend, and
//! no backend sets a default that closes anything but FLM's own ports.

mod at_start;
mod firewalld;
mod hands;
mod iptables;
mod netsh;
mod nftables;
mod pf;
mod record;
mod sessions;
pub mod step;
mod system;
mod ufw;
pub mod watch;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use self::hands::Hands;
use self::watch::Word;
use super::context::{Context, blocking_panicked};
use crate::config::table;
use crate::types::address::canonical;
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::addresses::NetworkList;
use crate::types::calls::audit::ListAudit;
use crate::types::calls::firewall::{
    DecideFirewall, Decision, FirewallPreview, PreviewFirewall, RecordFirewall, ShowFirewall,
};
use crate::types::clock::UnixMillis;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::firewall::{
    Exactness, FirewallDone, FirewallPhase, FirewallPlan, FirewallRecord, FirewallStatus, SshSession, TakenBackCause,
    Watch,
};
use crate::types::listener::ListenerConfig;
use crate::types::text::escape;

/// Every backend; for each system the one that is taken when a machine has several comes first. ufw and firewalld own the
/// machine's rules where they are, so they come before the tools below them.
static BACKENDS: &[&Backend] =
    &[&ufw::BACKEND, &firewalld::BACKEND, &nftables::BACKEND, &iptables::BACKEND, &pf::BACKEND, &netsh::BACKEND];

/// One kind of firewall.
struct Backend {
    /// As it is named on the command line.
    name: &'static str,
    /// `linux`, `macos` or `windows`.
    system: &'static str,
    /// The program whose presence tells that the machine uses it.
    program: &'static str,
    /// The commands that put a plan in force.
    apply: fn(&FirewallPlan) -> String,
    /// The commands that take it back.
    rollback: fn(&FirewallPlan) -> String,
    /// What to know before.
    notes: &'static [&'static str],
    /// How it changes the machine; `None` where FLM only shows what to do.
    hands: Option<Hands>,
}

/// Addresses that have a connection to this machine's SSH server, as far as this process may see; `own` is the session in which
/// it was started. Reads the system's tables: not for the runtime's threads.
#[must_use]
pub fn ssh_peers(own: Option<SshSession>) -> BTreeSet<IpAddr> {
    sessions::peers(own)
}

/// Where the records of the firewall's changes are, in a home's data folder.
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join(record::FOLDER)
}

/// Shows what FLM did to the firewall.
///
/// # Errors
/// When the records may not be read.
pub async fn show(context: &Context, _call: ShowFirewall) -> Outcome<FirewallStatus> {
    let status = status(&context.paths.data_dir).await?;
    if let Err(failure) = notice_in(context, &status).await {
        tracing::warn!(why = failure.message, "a change of the firewall is not in the audit log yet");
    }
    Ok(status)
}

/// What FLM did to the firewall of this machine, as the records in a data folder say; asks nobody but a watchdog.
///
/// # Errors
/// When the records may not be read.
pub async fn status(data_dir: &Path) -> Outcome<FirewallStatus> {
    let status = recorded(data_dir).await?;
    if status.pending_until().is_none() {
        return Ok(status);
    }
    if watch::counts(&status.folder).await {
        return Ok(FirewallStatus { watch: Watch::Watched, ..status });
    }
    // It may have ended since, and written down how.
    recorded(data_dir).await
}

async fn recorded(data_dir: &Path) -> Outcome<FirewallStatus> {
    let path = folder(data_dir);
    let reading = tokio::task::spawn_blocking(move || record::status(&path)).await;
    reading.map_err(|_| blocking_panicked("reading the firewall's records"))?
}

/// Whether the machine has the rules now that are said to be in force; `None` when there are none, or this process may not look:
/// it takes root.
pub async fn loaded(status: &FirewallStatus) -> Option<bool> {
    let pending = status.last.as_ref().filter(|_| status.pending_until().is_some());
    let record = pending.or(status.in_force.as_ref())?;
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    step::are_loaded(&record.backend, &record.plan).await.ok()
}

/// Has it in the audit log when the watchdog took rules back by itself, which knows no home. Answers when a change that is
/// being watched over will be decided.
///
/// # Errors
/// When the records cannot be read, or this home takes no changes.
pub async fn notice(context: &Context) -> Outcome<Option<UnixMillis>> {
    let status = status(&context.paths.data_dir).await?;
    notice_in(context, &status).await?;
    Ok(status.pending_until().filter(|_| status.watch == Watch::Watched))
}

async fn notice_in(context: &Context, status: &FirewallStatus) -> Outcome<()> {
    let Some((at, told)) = status.last.as_ref().and_then(by_itself) else { return Ok(()) };
    // Rows that are older than what is kept may be archived.
    if context.clock.wall().since(at) > context.settings.load().get(table::AUDIT_KEEP) {
        return Ok(());
    }
    let _changing = context.begin_change().await?;
    let kind = Some(AuditKind::FirewallChanged);
    let rows = ListAudit { kind, since: Some(at), limit: NOTICED, ..ListAudit::default() };
    let rows = context.stores.security.audit_page(rows).await?;
    if rows.iter().all(|row| row.event.details != told) {
        context.record(AuditKind::FirewallChanged, Severity::High, told).await;
    }
    Ok(())
}

/// Rows among which one about an automatic change is looked for: more than the changes after it that a home keeps.
const NOTICED: u32 = 200;

/// What is told of a change that nobody asked for in this way, and since when.
fn by_itself(last: &FirewallRecord) -> Option<(UnixMillis, String)> {
    let id = &last.id;
    match &last.phase {
        FirewallPhase::TakenBack { at, cause, exactness } if *cause != TakenBackCause::Asked => {
            Some((*at, format!("change {id} of the firewall: {}", record::taken_back(*cause, *exactness))))
        }
        FirewallPhase::Stuck { at, why } => {
            Some((*at, format!("change {id} of the firewall could not be taken back: {}", escape(why))))
        }
        FirewallPhase::TakenBack { .. }
        | FirewallPhase::Pending { .. }
        | FirewallPhase::InForce { .. }
        | FirewallPhase::Gone => None,
    }
}

/// Keeps the rules of a pending change, or takes them back.
///
/// # Errors
/// `NOT_FOUND` when none is pending, `IO_ERROR` when the watchdog could not do it.
pub async fn decide(context: &Context, call: DecideFirewall) -> Outcome<FirewallStatus> {
    let _changing = context.begin_change().await?;
    let folder = folder(&context.paths.data_dir);
    let done = match watch::decide(&folder, call.decision).await {
        Some(Word::Kept) => "the firewall's new rules were confirmed",
        Some(Word::Back { .. }) => "the firewall's new rules were taken back",
        Some(Word::Stuck { why }) => {
            return Err(Failure::new(ErrorCode::IoError, why)
                .hint("see what is in force with 'flm firewall status'; 'flm firewall rollback' tries again"));
        }
        Some(Word::Armed | Word::Counting { .. }) | None => {
            return Err(nothing_pending(&status(&context.paths.data_dir).await?, call.decision));
        }
    };
    context.record(AuditKind::FirewallChanged, Severity::High, done).await;
    status(&context.paths.data_dir).await
}

fn nothing_pending(status: &FirewallStatus, decision: Decision) -> Failure {
    if status.pending_until().is_some() {
        return Failure::new(ErrorCode::NotFound, "nothing watches over the pending rules any more: it was killed")
            .hint("they stay until you take them back, as root: flm firewall rollback");
    }
    let failure = Failure::new(ErrorCode::NotFound, "no rules wait for a confirmation");
    match decision {
        Decision::Keep => failure.hint("see what became of them with: flm firewall status"),
        Decision::TakeBack => failure.hint("take back what was confirmed with: flm firewall rollback"),
    }
}

/// Writes into the audit log what the privileged step did.
///
/// # Errors
/// `READ_ONLY` when this home takes no changes.
pub async fn note(context: &Context, call: RecordFirewall) -> Outcome<FirewallStatus> {
    let _changing = context.begin_change().await?;
    if let (FirewallDone::Applied { .. }, Some(live)) = (call.done, &context.live) {
        live.firewall_applied.notify_one();
    }
    let details = match call.done {
        FirewallDone::Applied { .. } => "rules were put in force in the firewall and wait for their confirmation",
        FirewallDone::TakenBack { exactness: Exactness::Exact } => "the firewall's rules of FLM were taken back",
        FirewallDone::TakenBack { exactness: Exactness::OthersChanged } => {
            "the firewall's rules of FLM were taken back; others changed theirs meanwhile"
        }
        FirewallDone::Unchanged | FirewallDone::NothingToTakeBack => return status(&context.paths.data_dir).await,
    };
    context.record(AuditKind::FirewallChanged, Severity::High, details).await;
    status(&context.paths.data_dir).await
}

/// Writes down what a firewall would be told.
///
/// # Errors
/// `NOT_FOUND` for an unknown system or backend, or when this machine has none of those that FLM knows.
pub async fn preview(context: &Context, call: PreviewFirewall) -> Outcome<FirewallPreview> {
    let backend = choose(&call).await?;
    let listeners: Vec<ListenerConfig> = match &context.live {
        Some(live) => live.host.status().listeners.into_iter().map(|listener| listener.config).collect(),
        None => context.stores.config.listeners().await?,
    };
    let mut ports: Vec<u16> =
        listeners.iter().flat_map(|listener| [Some(listener.port), listener.https_port]).flatten().collect();
    if ports.is_empty() {
        let port = context.settings.load().get(table::PROXY_PORT);
        ports.push(u16::try_from(port).unwrap_or(ListenerConfig::DEFAULT_PORT));
    }
    ports.sort_unstable();
    ports.dedup();
    let listed = context.stores.security.networks(NetworkList::Allow).await?;
    let networks = IpNet::aggregate(&listed.into_iter().map(|entry| entry.network).collect());
    let ssh = call.ssh.map(|ssh| SshSession { from: canonical(ssh.from), ..ssh });
    let plan = FirewallPlan { ports, networks, ssh: ssh.into_iter().collect() };
    Ok(FirewallPreview {
        backend: backend.name.to_owned(),
        system: backend.system.to_owned(),
        apply: (backend.apply)(&plan),
        rollback: (backend.rollback)(&plan),
        notes: notes(backend, &plan),
        plan,
    })
}

async fn choose(call: &PreviewFirewall) -> Outcome<&'static Backend> {
    let names = |of: &str| {
        let fitting = BACKENDS.iter().filter(|backend| of.is_empty() || backend.system == of);
        fitting.map(|backend| backend.name).collect::<Vec<_>>().join(", ")
    };
    let here = std::env::consts::OS;
    if let Some(name) = &call.backend {
        let found = BACKENDS.iter().find(|backend| backend.name == name);
        let found = found.filter(|backend| call.system.as_ref().is_none_or(|system| backend.system == system));
        return found.copied().ok_or_else(|| {
            Failure::new(ErrorCode::NotFound, format!("there is no firewall backend {:?}", escape(name)))
                .hint(format!("backends: {}", names(call.system.as_deref().unwrap_or_default())))
        });
    }
    let system = call.system.as_deref().unwrap_or(here);
    let fitting: Vec<_> = BACKENDS.iter().copied().filter(|backend| backend.system == system).collect();
    let Some(first) = fitting.first().copied() else {
        return Err(Failure::new(ErrorCode::NotFound, format!("FLM knows no firewall of {:?}", escape(system)))
            .hint("systems: linux, macos, windows"));
    };
    if system != here {
        return Ok(first);
    }
    let there: Vec<_> = fitting.into_iter().filter(|backend| system::find(backend.program).is_some()).collect();
    for backend in &there {
        if counts(backend.name).await {
            return Ok(backend);
        }
    }
    // None of them is in use: the rules can be looked at all the same.
    there.first().copied().ok_or_else(|| {
        Failure::new(ErrorCode::NotFound, "this machine has no firewall program that FLM knows")
            .hint(format!("install one (apt-get install nftables), or name one to see its rules: {}", names(system)))
    })
}

/// Whether a backend's rules count now: ufw and firewalld may be there and not be in use.
async fn counts(name: &str) -> bool {
    match name {
        "ufw" => ufw::is_active(),
        "firewalld" => firewalld::is_active().await,
        _ => true,
    }
}

fn notes(backend: &Backend, plan: &FirewallPlan) -> Vec<String> {
    let mut notes: Vec<String> = backend.notes.iter().map(|note| (*note).to_owned()).collect();
    if plan.networks.is_empty() {
        notes.push(
            "the allow list is empty, so everyone is let in; name who may connect with: \
             flm security ip-allowlist add CIDR"
                .to_owned(),
        );
    }
    for ssh in &plan.ssh {
        notes.push(format!("the first rule keeps your SSH session from {ssh} open"));
    }
    notes
}

/// The networks of one family, as text.
fn of_family(plan: &FirewallPlan, six: bool) -> Vec<String> {
    plan.networks.iter().filter(|network| matches!(network, IpNet::V6(_)) == six).map(ToString::to_string).collect()
}

/// Ports as text, with this between them.
fn ports(plan: &FirewallPlan, between: &str) -> String {
    plan.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(between)
}

/// A family's everyone.
const EVERYONE: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// Who may connect, both families, everyone written out.
fn sources(plan: &FirewallPlan) -> Vec<String> {
    if plan.networks.is_empty() {
        return EVERYONE.map(str::to_owned).to_vec();
    }
    plan.networks.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::address::parse_network;

    fn plan(networks: &[&str]) -> FirewallPlan {
        FirewallPlan {
            ports: vec![8484, 9000],
            networks: networks.iter().map(|text| parse_network(text).expect("a network")).collect(),
            ssh: SshSession::parse("203.0.113.7 50022 198.51.100.1 2222").into_iter().collect(),
        }
    }

    #[test]
    fn every_backend_names_every_port_every_network_and_flm_and_keeps_the_ssh_session_first() {
        for backend in BACKENDS {
            for networks in [&["192.0.2.0/24", "2001:db8::/32"][..], &[]] {
                let plan = plan(networks);
                let text = (backend.apply)(&plan);
                for wanted in ["8484", "9000", "203.0.113.7", "2222"].iter().chain(networks) {
                    assert!(text.contains(wanted), "{}: no {wanted} in\n{text}", backend.name);
                }
                assert!(text.to_lowercase().contains("flm"), "{}", backend.name);
                let ssh = text.find("203.0.113.7").expect("there");
                let first_port = text.find("8484").expect("there");
                assert!(ssh < first_port || backend.name == "nftables", "{}:\n{text}", backend.name);
                let rollback = (backend.rollback)(&plan);
                assert!(!rollback.is_empty() && rollback.to_lowercase().contains("flm"), "{}", backend.name);
            }
        }
    }

    #[test]
    fn an_ssh_connection_is_read_as_sshd_writes_it() {
        let six = SshSession::parse("2001:db8::9 50022 2001:db8::1 22").expect("parses");
        assert_eq!((six.from.to_string().as_str(), six.port), ("2001:db8::9", 22));
        for bad in ["", "203.0.113.7", "203.0.113.7 1 198.51.100.1", "a b c d", "203.0.113.7 1 198.51.100.1 ssh"] {
            assert_eq!(SshSession::parse(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn an_unknown_backend_or_one_of_another_system_is_refused_with_those_that_there_are() {
        let call = |system: Option<&str>, backend: Option<&str>| PreviewFirewall {
            system: system.map(str::to_owned),
            backend: backend.map(str::to_owned),
            ssh: None,
        };
        for wrong in [call(None, Some("ipfw")), call(Some("macos"), Some("ufw")), call(Some("plan9"), None)] {
            let failure = choose(&wrong).await.map(|backend| backend.name).expect_err("refused");
            assert_eq!(failure.code, ErrorCode::NotFound);
            assert!(failure.hint.is_some());
        }
        assert_eq!(choose(&call(Some("windows"), None)).await.map(|backend| backend.name).ok(), Some("netsh"));
    }
}
