//! The one step that takes privileges, from both sides: a front end that asks for it, and the process that root runs.
//!
//! The owner of a home never takes it: a hardened service may not gain privileges, and a password is asked for in the
//! operator's own terminal or not at all (ADR 0016). So the front end starts this program again, as root, for the step alone.

use std::path::Path;
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::operations::firewall::{self, step, watch};
use crate::types::clock::Clock;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::firewall::{FirewallDone, FirewallOrder, FirewallStatus, FirewallStep, SshSession};

/// The hidden command of the step.
pub const STEP_COMMAND: &str = step::STEP_COMMAND;
/// The hidden command of the watchdog.
pub const WATCH_COMMAND: &str = watch::WATCH_COMMAND;

/// Where sudo is looked for: what is asked for a password is never taken from elsewhere.
const SUDO: [&str; 2] = ["/usr/bin/sudo", "/bin/sudo"];

/// Bytes of an order that are read.
const ORDER_MAX: u64 = 1024 * 1024;

/// Whether a password may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// In this terminal.
    InTerminal,
    /// Nowhere: the terminal is in use, or there is none.
    Nowhere,
}

/// The answer of the privileged process, one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StepAnswer {
    Done(FirewallDone),
    Failed(Failure),
}

/// Lets root carry out an order: as this process where it is root, else through sudo.
///
/// # Errors
/// The step's own failure, or why it could not be run as root and what to do about it.
pub async fn carry_out(order: &FirewallOrder, asking: Asking) -> Outcome<FirewallDone> {
    let program = std::env::current_exe().map_err(|error| {
        Failure::new(ErrorCode::IoError, format!("the path of this program cannot be found: {error}"))
    })?;
    let is_root = rustix::process::geteuid().is_root();
    let mut command = if is_root {
        Command::new(&program)
    } else {
        let sudo = SUDO.iter().find(|path| Path::new(path).exists()).ok_or_else(|| not_root(order))?;
        let mut sudo = Command::new(sudo);
        if asking == Asking::Nowhere {
            sudo.arg("--non-interactive");
        }
        sudo.arg("--").arg(&program);
        sudo
    };
    command.arg(STEP_COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped());
    // sudo asks at the terminal, and says there what was wrong.
    command.stderr(if asking == Asking::InTerminal { Stdio::inherit() } else { Stdio::piped() });
    let cannot = |error: std::io::Error| {
        Failure::new(ErrorCode::IoError, format!("{} cannot be started: {error}", program.display()))
    };
    let mut child = command.spawn().map_err(cannot)?;
    let text = serde_json::to_vec(order).map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // sudo that refuses reads nothing and says why.
        let _unread = stdin.write_all(&text).await;
    }
    let output = child.wait_with_output().await.map_err(cannot)?;
    match serde_json::from_slice(&output.stdout) {
        Ok(StepAnswer::Done(done)) => Ok(done),
        Ok(StepAnswer::Failed(failure)) => Err(failure),
        Err(_) if is_root => Err(Failure::new(ErrorCode::IoError, "the step that changes the firewall was ended")
            .hint("what it had begun is taken back by itself: flm firewall status")),
        Err(_) => Err(refused(order)),
    }
}

/// The command that a person types for an order.
fn typed(step: &FirewallStep) -> &'static str {
    match step {
        FirewallStep::Apply { .. } => "flm firewall apply",
        FirewallStep::Rollback { .. } => "flm firewall rollback",
    }
}

fn not_root(order: &FirewallOrder) -> Failure {
    Failure::new(
        ErrorCode::InvalidArgument,
        "changing the firewall takes root: this user is not root, and this machine has no sudo; nothing was changed",
    )
    .hint(format!("let root run '{}', or give root the commands that 'flm firewall preview' shows", typed(&order.step)))
}

fn refused(order: &FirewallOrder) -> Failure {
    Failure::new(
        ErrorCode::InvalidArgument,
        "changing the firewall takes root, and sudo did not let this user do it; nothing was changed",
    )
    .hint(format!(
        "run '{}' in a terminal, where sudo can ask for the password, or give root the commands that \
         'flm firewall preview' shows",
        typed(&order.step)
    ))
}

/// The SSH session that this process was started in.
#[must_use]
pub fn ssh_of_this_terminal() -> Option<SshSession> {
    SshSession::parse(&std::env::var("SSH_CONNECTION").ok()?)
}

/// How far the firewall's changes are, without the owner: nothing is opened but their records.
///
/// # Errors
/// When they may not be read.
pub async fn status(data_dir: &Path) -> Outcome<FirewallStatus> {
    firewall::status(data_dir).await
}

/// Whether the machine has the rules now that a status names; `None` for whoever is not root.
pub async fn loaded(status: &FirewallStatus) -> Option<bool> {
    firewall::loaded(status).await
}

/// Where the records of a home are.
#[must_use]
pub fn folder(data_dir: &Path) -> std::path::PathBuf {
    firewall::folder(data_dir)
}

/// The process that root runs: reads an order on stdin, carries it out, and answers on stdout.
pub async fn step_as_root() -> bool {
    let answer = match read_order() {
        Ok(order) => step::carry_out(order, &Clock::system()).await,
        Err(failure) => Err(failure),
    };
    let is_done = answer.is_ok();
    let answer = answer.map_or_else(StepAnswer::Failed, StepAnswer::Done);
    let mut stdout = std::io::stdout().lock();
    let line = serde_json::to_string(&answer).unwrap_or_default();
    let _asker_gone = std::io::Write::write_all(&mut stdout, line.as_bytes());
    is_done
}

fn read_order() -> Outcome<FirewallOrder> {
    let mut text = String::new();
    let read = std::io::Read::read_to_string(&mut std::io::Read::take(std::io::stdin(), ORDER_MAX), &mut text);
    let wrong = |why: String| {
        Failure::new(ErrorCode::InvalidArgument, format!("the order for the firewall cannot be read: {why}"))
            .hint("this command is for FLM itself; see 'flm firewall --help'")
    };
    read.map_err(|error| wrong(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
}

/// The watchdog's process.
pub async fn watch_as_root() -> bool {
    watch::watch(&Clock::system()).await.is_ok()
}
