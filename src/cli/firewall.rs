//! `flm firewall`.

use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};

use super::Launch;
use super::output::{self, Format, Output, ProgressLine};
use super::session::Session;
use super::table::{facts, time};
use crate::control::firewall::{self, Asking, STEP_COMMAND, WATCH_COMMAND};
use crate::types::calls::firewall::{
    DecideFirewall, Decision, FirewallPreview, PreviewFirewall, RecordFirewall, ShowFirewall,
};
use crate::types::clock::{Clock, UnixMillis};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::firewall::{
    DEADLINE_SECONDS, Exactness, FirewallDone, FirewallOrder, FirewallPhase, FirewallRecord, FirewallStatus,
    FirewallStep, Lasting, Reach, TakenBackCause, Watch,
};
use crate::types::text::escape;

/// Between two looks of the prompt at what became of the rules: somebody may have decided elsewhere.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long after the deadline the watchdog may still be taking the rules back.
const LATE: Duration = Duration::from_secs(30);

#[derive(Debug, Subcommand)]
pub(super) enum FirewallCommand {
    /// Show what a firewall would be told for the listeners' ports and the allow list; changes nothing
    #[command(after_help = "Examples:\n  flm firewall preview\n  flm firewall preview --backend nftables\n  \
            flm firewall preview --os macos")]
    Preview {
        /// Of which system [default: this one]
        #[arg(long, value_name = "SYSTEM", value_parser = ["linux", "macos", "windows"])]
        os: Option<String>,
        /// Which firewall [default: the one that this machine uses]
        #[arg(long, value_parser = ["ufw", "nftables", "firewalld", "iptables", "pf", "netsh"])]
        backend: Option<String>,
    },
    /// Put the rules in force; they are taken back after 60 seconds unless you confirm them
    ///
    /// Takes root, for this step only: as root it is done at once, else sudo is asked. The state before is saved, and the
    /// rule that lets your own SSH session in is there at every moment.
    #[command(after_help = "Examples:\n  flm firewall apply\n  flm firewall apply --backend nftables\n\n\
            In a script, open a second SSH session to prove that you can still get in, and confirm from there:\n  \
            flm firewall apply --format json\n  flm firewall confirm")]
    Apply {
        /// Which firewall [default: the one that this machine uses]
        #[arg(long, value_parser = ["ufw", "nftables", "firewalld", "iptables"])]
        backend: Option<String>,
        /// Seconds until unconfirmed rules are taken back; for tests
        #[arg(long, hide = true, value_name = "SECONDS", default_value_t = DEADLINE_SECONDS)]
        deadline: u32,
    },
    /// Keep the rules that were applied within the last 60 seconds; needs no root
    #[command(after_help = "Example:\n  flm firewall confirm")]
    Confirm,
    /// Take FLM's rules back: what was in force before the last apply is in force again
    #[command(after_help = "Examples:\n  flm firewall rollback\n  flm firewall rollback --all")]
    Rollback {
        /// Every apply, not only the last: no rule of FLM is left
        #[arg(long)]
        all: bool,
    },
    /// Show what FLM did to the firewall, whether it waits for a confirmation, and the log
    #[command(after_help = "Example:\n  flm firewall status")]
    Status,
}

impl FirewallCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::Preview { os, backend } => {
                let preview = preview(session, os, backend).await?;
                Ok(Output::new(&preview, describe_preview(&preview)))
            }
            Self::Apply { backend, deadline } => apply(session, backend, deadline).await,
            Self::Confirm => {
                let status = session.call(DecideFirewall { decision: Decision::Keep }).await?;
                Ok(Output::new(&status, describe(&status)))
            }
            Self::Rollback { all } => rollback(session, if all { Reach::All } else { Reach::Last }).await,
            Self::Status => {
                let mut status = session.call(ShowFirewall {}).await?;
                // Of this terminal's user, who may be root where the owner is not.
                status.loaded = firewall::loaded(&status).await;
                Ok(Output::new(&status, describe(&status)))
            }
        }
    }
}

/// What root runs; it is no command for people.
pub(super) fn hidden(word: &OsStr) -> Option<Launch> {
    let is_step = word == STEP_COMMAND;
    if !is_step && word != WATCH_COMMAND {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let is_done = runtime.is_ok_and(|runtime| {
        runtime
            .block_on(async { if is_step { firewall::step_as_root().await } else { firewall::watch_as_root().await } })
    });
    Some(Launch::Done(if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
}

async fn preview(session: &Session, system: Option<String>, backend: Option<String>) -> Outcome<FirewallPreview> {
    // Of this terminal, not of the daemon's.
    let ssh = firewall::ssh_of_this_terminal();
    session.call(PreviewFirewall { system, backend, ssh }).await
}

/// Whether a person sits in front of this command.
fn is_attended(session: &Session) -> bool {
    session.format == Format::Text && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Lets root do a step, and has it written into the audit log.
async fn carry_out(session: &Session, step: FirewallStep) -> Outcome<FirewallDone> {
    let order = FirewallOrder { folder: firewall::folder(&session.home.paths.data_dir), step };
    let asking = if is_attended(session) { Asking::InTerminal } else { Asking::Nowhere };
    let done = firewall::carry_out(&order, asking).await?;
    if let Err(failure) = session.call(RecordFirewall { done }).await {
        // What is done is done; the firewall's own log has it.
        output::note(&format!("warning: not in the audit log: {}", escape(&failure.message)));
    }
    Ok(done)
}

/// How far the firewall's changes are. Read here where this user may, so that nothing is opened each second; a member of
/// the control group asks the owner.
async fn status(session: &Session) -> Outcome<FirewallStatus> {
    match firewall::status(&session.home.paths.data_dir).await {
        Ok(status) => Ok(status),
        Err(_not_ours) => session.call(ShowFirewall {}).await,
    }
}

async fn apply(session: &Session, backend: Option<String>, deadline_seconds: u32) -> Outcome<Output> {
    let FirewallPreview { backend, plan, notes, .. } = preview(session, None, backend).await?;
    if is_attended(session) {
        for note in notes {
            output::note(&format!("note: {note}"));
        }
    }
    let done = carry_out(session, FirewallStep::Apply { backend, plan, deadline_seconds }).await?;
    let FirewallDone::Applied { until } = done else {
        let status = status(session).await?;
        return Ok(Output::new(&status, "these rules are in force already; nothing was changed"));
    };
    if !is_attended(session) {
        let status = status(session).await?;
        let text = describe(&status);
        return Ok(Output::new(&status, text).note("keep them with: flm firewall confirm"));
    }
    let status = ask(session, until).await?;
    match status.last.as_ref().map(|last| &last.phase) {
        Some(FirewallPhase::InForce { .. }) => Ok(Output::new(&status, describe(&status))),
        _ => Err(Failure::new(ErrorCode::Cancelled, describe(&status))
            .hint("apply them again with 'flm firewall apply', and confirm them in time")),
    }
}

/// Counts down and takes the answer of the person at the terminal, or whatever was decided elsewhere.
async fn ask(session: &Session, until: UnixMillis) -> Outcome<FirewallStatus> {
    let clock = Clock::system();
    // What was typed before the question is no answer to it; a terminal that is gone has nothing typed.
    let _gone = rustix::termios::tcflush(std::io::stdin(), rustix::termios::QueueSelector::IFlush);
    let mut typed = BufReader::new(tokio::io::stdin()).lines();
    output::note("the new rules are in force. y and Enter keeps them, n and Enter takes them back");
    let mut line = ProgressLine::new(session.format);
    let mut looking = tokio::time::interval(LOOK_AGAIN);
    let decision = loop {
        tokio::select! {
            _ = looking.tick() => {
                let left = until.since(clock.wall()).as_secs();
                line.show(&left, "countdown", &format!("taken back in {left:>2} s "));
                let status = status(session).await?;
                let late = clock.wall().since(until) > LATE;
                if status.pending_until().is_none() || status.watch == Watch::Unwatched || late {
                    line.end();
                    return Ok(status);
                }
            }
            decision = answer(&mut typed) => match decision {
                Some(decision) => break decision,
                None => output::note("y or n?"),
            },
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
                break Decision::TakeBack;
            }
        }
    };
    line.end();
    session.call(DecideFirewall { decision }).await
}

/// The next line that is typed; `None` when it is no answer.
async fn answer(typed: &mut Lines<BufReader<Stdin>>) -> Option<Decision> {
    let Ok(Some(line)) = typed.next_line().await else {
        // The terminal is gone: nobody answers, and the watchdog goes on.
        return std::future::pending().await;
    };
    match line.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Some(Decision::Keep),
        "n" | "no" => Some(Decision::TakeBack),
        _ => None,
    }
}

async fn rollback(session: &Session, reach: Reach) -> Outcome<Output> {
    if status(session).await?.watch == Watch::Watched {
        // The watchdog is root already.
        let status = session.call(DecideFirewall { decision: Decision::TakeBack }).await?;
        if reach == Reach::Last || status.in_force.is_none() {
            return Ok(Output::new(&status, describe(&status)));
        }
    }
    let done = carry_out(session, FirewallStep::Rollback { reach }).await?;
    let status = status(session).await?;
    let text = match done {
        FirewallDone::NothingToTakeBack => "no rule of FLM is in force; nothing was changed".to_owned(),
        _ => describe(&status),
    };
    Ok(Output::new(&status, text))
}

fn describe_preview(preview: &FirewallPreview) -> String {
    let notes = preview.notes.iter().map(|note| format!("# note: {note}\n")).collect::<Vec<_>>().concat();
    format!(
        "# {} ({}): nothing was changed\n{notes}\n# apply, as root:\n{}\n# take it back, as root:\n{}",
        preview.backend, preview.system, preview.apply, preview.rollback
    )
}

fn describe(status: &FirewallStatus) -> String {
    let Some(last) = &status.last else { return "FLM has not changed this machine's firewall".to_owned() };
    let mut text = facts([
        ("last change", format!("{}: {}", escape(&last.backend), phase(last, status.watch))),
        ("in force", status.in_force.as_ref().map_or_else(|| "no confirmed rules of FLM".to_owned(), rules)),
        ("after a restart", status.in_force.as_ref().map_or("no rules of FLM", after_a_restart).to_owned()),
        ("in the machine now", loaded(status).to_owned()),
        ("log", escape(&status.folder.join("log.jsonl").to_string_lossy()).into_owned()),
    ]);
    for line in &status.log {
        text.push_str(&format!("\n  {}  {}", time(line.at), escape(&line.text)));
    }
    text
}

fn after_a_restart(record: &FirewallRecord) -> &'static str {
    match (record.lasting, record.boot.is_some()) {
        (Lasting::OverRestarts, false) => "they stay: they are in the firewall's own files",
        (Lasting::OverRestarts, true) => "they are loaded again by the unit flm-firewall.service",
        (Lasting::UntilRestart, _) => "they are gone (the log says why); apply them again then: flm firewall apply",
    }
}

fn loaded(status: &FirewallStatus) -> &'static str {
    match status.loaded {
        Some(true) => "all of them",
        Some(false) => {
            "not these rules: something else took them away or changed them; flm firewall apply puts them back"
        }
        None if status.in_force.is_none() && status.pending_until().is_none() => "none that is known of",
        None => "not looked at, which takes root",
    }
}

fn phase(last: &FirewallRecord, watch: Watch) -> String {
    match &last.phase {
        FirewallPhase::Pending { until } if watch == Watch::Watched => {
            format!("in force, taken back at {} unless confirmed: flm firewall confirm", time(*until))
        }
        FirewallPhase::Pending { .. } => {
            "in force and never confirmed, and nothing watches over it any more: flm firewall rollback".to_owned()
        }
        FirewallPhase::Gone if last.lasting == Lasting::OverRestarts => {
            "not loaded when the machine was restarted (systemctl status flm-firewall says why); put it in force again: \
             flm firewall apply"
                .to_owned()
        }
        FirewallPhase::Gone => {
            "gone with a restart of the machine; put it in force again: flm firewall apply".to_owned()
        }
        FirewallPhase::InForce { since } => format!("in force, confirmed at {}", time(*since)),
        FirewallPhase::TakenBack { at, cause, exactness } => {
            let why = match cause {
                TakenBackCause::Unconfirmed => "not confirmed in time",
                TakenBackCause::Asked => "as asked",
                TakenBackCause::Failed => "it could not be put in force as a whole",
                TakenBackCause::Interrupted => "it was interrupted",
            };
            let how = match exactness {
                Exactness::Exact => "the rules are exactly what they were before",
                Exactness::OthersChanged => "others changed their rules meanwhile, which stay",
            };
            format!("taken back at {} ({why}); {how}", time(*at))
        }
        FirewallPhase::Stuck { why, .. } => {
            format!("could not be taken back: {}; try again with: flm firewall rollback", escape(why))
        }
    }
}

fn rules(record: &FirewallRecord) -> String {
    let list = |items: Vec<String>| items.join(", ");
    let ports = list(record.plan.ports.iter().map(ToString::to_string).collect());
    let from = match record.plan.networks.as_slice() {
        [] => "everyone".to_owned(),
        networks => list(networks.iter().map(ToString::to_string).collect()),
    };
    format!("{}: ports {ports} from {from}", escape(&record.backend))
}
