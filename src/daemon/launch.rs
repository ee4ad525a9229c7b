//! What the binaries call: run as a daemon.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::owner::{self, Owner, OwnerOptions, Purpose, Start};
use crate::config::files;
use crate::config::paths::HomePaths;
use crate::control::launcher::Readiness;
use crate::control::request::{DaemonRequest, Stage};
use crate::operations::context::{Context, ContextOptions};
use crate::operations::progress::Reporter;
use crate::operations::proxy;
use crate::telemetry::logging::{self, LogFiles, LogGuard};
use crate::telemetry::tasks::Tasks;
use crate::types::calls::proxy::{StartListener, Status};
use crate::types::clock::Clock;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::listener::{OwnerKind, ProxyStatus};
use crate::types::text::escape;

/// Runs as a daemon until it is told to end. `report` tells a person or service manager how the start went; a
/// background start reports over its stdout instead.
pub fn daemon(request: &DaemonRequest, report: impl FnOnce(&Outcome<ProxyStatus>)) -> ExitCode {
    if matches!(request.stage, Stage::Background) {
        // Away from the terminal's session: its hang-up and its Ctrl-C are not for the daemon. Fails only for a
        // process that leads a group already, and then there is nothing to leave.
        let _led_already = rustix::process::setsid();
        // The folder it was started in may be unmounted or removed.
        let _stays = std::env::set_current_dir("/");
    }
    let started = prepare(&request.home.paths);
    let (runtime, _log) = match started {
        Ok(started) => started,
        Err(failure) => return tell(&request.stage, Err(failure), report),
    };
    runtime.block_on(run(request, report))
}

fn prepare(paths: &HomePaths) -> Outcome<(tokio::runtime::Runtime, LogGuard)> {
    paths.prepare()?;
    let internal = |error: std::io::Error| {
        Failure::new(ErrorCode::Internal, format!("the system gives no thread for the proxy: {error}"))
    };
    let log = logging::start_files(log_files(paths)).map_err(internal)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(internal)?;
    Ok((runtime, log))
}

/// Where an owner of this home logs.
#[must_use]
pub fn log_files(paths: &HomePaths) -> LogFiles {
    LogFiles {
        folder: paths.log_dir.clone(),
        open: |path| files::open_private_append(path).map_err(|error| error.source),
        clock: Clock::system(),
    }
}

async fn run(request: &DaemonRequest, report: impl FnOnce(&Outcome<ProxyStatus>)) -> ExitCode {
    let options = OwnerOptions {
        paths: request.home.paths.clone(),
        kind: OwnerKind::Daemon,
        context: ContextOptions {
            flags: request.settings.clone(),
            passphrase: request.home.passphrase.clone(),
            ..ContextOptions::from_process()
        },
        incoming: None,
        purpose: Purpose::Serve,
    };
    let owner = match Owner::start(options).await {
        Ok(Start::Owner(owner)) => owner,
        Ok(Start::OwnedByAnother) => return tell_owned(&request.stage, report),
        Err(failure) => return tell(&request.stage, Err(failure), report),
    };
    let signals = Tasks::new();
    if let Err(error) = watch_signals(&signals, owner.context(), owner.ending()) {
        tracing::error!(%error, "signals cannot be watched: end the proxy with flm proxy stop --all");
    }
    let outcome = match &request.stage {
        Stage::Background => proxy::status(&owner.context(), Status {}).await,
        Stage::Foreground(call) => listen(&owner.context(), call.clone()).await,
    };
    let failed = outcome.is_err();
    let code = tell(&request.stage, outcome, report);
    if failed {
        owner.ending().cancel();
    }
    owner.run().await;
    signals.shutdown(std::time::Duration::ZERO).await;
    code
}

async fn listen(context: &Arc<Context>, call: StartListener) -> Outcome<ProxyStatus> {
    proxy::start(context, call, Reporter::unheard()).await?;
    proxy::status(context, Status {}).await
}

/// SPEC §4.8: SIGTERM drains and ends, SIGHUP reloads. SIGINT is what Ctrl-C sends to a foreground daemon.
fn watch_signals(tasks: &Tasks, context: Arc<Context>, ending: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tasks.spawn_until_end("signals", async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => ending.cancel(),
                _ = interrupt.recv() => ending.cancel(),
                _ = hang_up.recv() => owner::reload(&context).await,
            }
        }
    });
    Ok(())
}

fn tell(stage: &Stage, outcome: Outcome<ProxyStatus>, report: impl FnOnce(&Outcome<ProxyStatus>)) -> ExitCode {
    let code = match &outcome {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!(failure = %escape(&failure.message), hint = failure.hint, "the proxy did not start");
            ExitCode::from(failure.code.exit_status())
        }
    };
    match stage {
        Stage::Background => write_line(&match outcome {
            Ok(status) => Readiness::Ready { pid: status.pid },
            Err(failure) => Readiness::Failed(failure),
        }),
        Stage::Foreground(_) => report(&outcome),
    }
    code
}

fn tell_owned(stage: &Stage, report: impl FnOnce(&Outcome<ProxyStatus>)) -> ExitCode {
    if matches!(stage, Stage::Background) {
        write_line(&Readiness::Owned);
        return ExitCode::SUCCESS;
    }
    let failure = Failure::new(ErrorCode::ProxyAlreadyRunning, "another process owns this home already")
        .hint("see it with 'flm proxy status', end it with 'flm proxy stop --all', or use another --home");
    tell(stage, Err(failure), report)
}

fn write_line(readiness: &Readiness) {
    let mut line = serde_json::to_vec(readiness).unwrap_or_default();
    line.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout.write_all(&line).and_then(|()| stdout.flush()) {
        // Whoever started it is gone; the daemon serves all the same.
        tracing::warn!(%error, "nobody waited for the daemon to be ready");
    }
}
