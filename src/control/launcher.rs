//! Starts a daemon: this very program again, with hidden arguments, in a session of its own (SPEC §1.2).
//!
//! The child reports once, over its stdout, when it serves or why it cannot; nobody polls.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use super::operator::Operator;
use super::request::Home;
use crate::config::files;
use crate::config::paths::HomePaths;
use crate::types::calls::Permission;
use crate::types::failure::{ErrorCode, Failure, Outcome};

/// The hidden command under which both programs run as a daemon.
pub const DAEMON_COMMAND: &str = "__daemon";
/// The hidden flag of a daemon that reads the passphrase of `security.db` from its standard input: neither its arguments
/// nor its environment hide anything from other users.
pub const PASSPHRASE_FLAG: &str = "--passphrase-from-stdin";
/// Name of the file that takes what a daemon writes to stderr: its panics.
const STDERR_FILE: &str = "daemon.stderr.log";

/// The one line that a starting daemon writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// It owns the home and serves.
    Ready {
        /// Its process id.
        pid: u32,
    },
    /// Another owner was there first; it serves.
    Owned,
    /// It could not start.
    Failed(Failure),
}

/// How a daemon came to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DaemonOrigin {
    /// It was started by this call.
    StartedHere,
    /// It ran before.
    AlreadyRan,
}

/// Starts a daemon and waits until it serves; attaches to one that serves already, whatever `settings` say: they are for
/// one that is started here.
///
/// # Errors
/// The daemon's own failure, or `IO_ERROR` when the program cannot be started or ends without a word.
pub async fn start_daemon(
    home: &Home,
    permission: Permission,
    settings: &BTreeMap<String, String>,
) -> Outcome<(Operator, DaemonOrigin)> {
    let Home { paths, .. } = home;
    if let Some(operator) = Operator::attach(paths, permission).await? {
        return Ok((operator, DaemonOrigin::AlreadyRan));
    }
    paths.prepare()?;
    let origin = match spawn(home, settings).await? {
        Readiness::Ready { .. } => DaemonOrigin::StartedHere,
        Readiness::Owned => DaemonOrigin::AlreadyRan,
        Readiness::Failed(failure) => return Err(failure),
    };
    let operator = Operator::attach(paths, permission).await?.ok_or_else(|| ended_silently(paths))?;
    Ok((operator, origin))
}

async fn spawn(home: &Home, settings: &BTreeMap<String, String>) -> Outcome<Readiness> {
    let Home { paths, overrides, passphrase } = home;
    let program = std::env::current_exe().map_err(|error| {
        Failure::new(ErrorCode::IoError, format!("the path of this program cannot be found: {error}"))
            .hint("start the proxy with --no-daemon")
    })?;
    let stderr = files::open_private_append(&paths.log_dir.join(STDERR_FILE))?;
    let mut command = Command::new(&program);
    command.arg(DAEMON_COMMAND);
    // FLM_HOME and the like come with the environment; relative paths mean the same folder, which the child keeps
    // until it has resolved them.
    for (flag, path) in [
        ("--home", &overrides.home),
        ("--db-path-config", &overrides.config_db),
        ("--db-path-security", &overrides.security_db),
    ] {
        if let Some(path) = path {
            command.arg(flag).arg(path);
        }
    }
    for (key, value) in settings {
        command.arg(format!("--setting={key}={value}"));
    }
    let stdin = if passphrase.is_some() {
        command.arg(PASSPHRASE_FLAG);
        Stdio::piped()
    } else {
        Stdio::null()
    };
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(stderr).spawn().map_err(|error| {
        Failure::new(ErrorCode::IoError, format!("{} cannot be started: {error}", program.display()))
            .hint("check that the file is still there and executable, or use --no-daemon")
    })?;
    if let (Some(passphrase), Some(mut stdin)) = (passphrase, child.stdin.take()) {
        // A child that ends before it reads tells why on its stdout, or by silence.
        let _told_below = stdin.write_all(passphrase.expose().as_bytes()).await;
    }
    let Some(stdout) = child.stdout.take() else { return Err(ended_silently(paths)) };
    let mut line = String::new();
    // Ends with the line or, when the child dies, with the pipe.
    let read = BufReader::new(stdout).read_line(&mut line).await;
    match (read, serde_json::from_str(&line)) {
        (Ok(_), Ok(readiness)) => Ok(readiness),
        _ => Err(ended_silently(paths)),
    }
}

fn ended_silently(paths: &HomePaths) -> Failure {
    Failure::new(ErrorCode::IoError, "the daemon ended before it was ready")
        .hint(format!("its last words are in {}", paths.log_dir.join(STDERR_FILE).display()))
}
