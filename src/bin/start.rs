//! What both programs do after their arguments are read: end, become the daemon, or open the console.

use std::process::ExitCode;
use std::sync::Arc;

use flm::cli::{self, Launch};
use flm::daemon::console_session::{Afterwards, ConsoleSession, OwnerOrigin};
use flm::daemon::launch;
use flm::tui::launch::console_options;
use flm::tui::{self, Attached, ConsoleEnd, OnHangup};

/// A request takes a dozen blocks of memory, and a stream that rests holds two of 8 KiB of which it uses little: measured in
/// docs/adr/0023-allocator.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Carries out what the command line asks for.
pub(crate) fn carry_out(launch: Launch) -> ExitCode {
    // A report of a panic is for people; the library's own errors are typed.
    let _default_reports = color_eyre::install();
    let request = match launch {
        Launch::Done(code) => return code,
        Launch::Daemon(request) => return launch::daemon(&request, cli::report_foreground),
        Launch::Console(request) => request,
    };
    let session = match ConsoleSession::open(&request) {
        Ok(session) => session,
        Err(failure) => return cli::report_failure(&failure),
    };
    let options = console_options(&request, &session.settings(), &session.config_dir(), &session.log_dir());
    let reach = session.reach();
    let connect = move || {
        let reached = reach();
        Box::pin(async move {
            let (operator, origin) = reached.await?;
            let origin = match origin {
                OwnerOrigin::StartedHere => tui::OwnerOrigin::StartedHere,
                OwnerOrigin::AlreadyRan => tui::OwnerOrigin::AlreadyRan,
                OwnerOrigin::InProcess => tui::OwnerOrigin::InProcess,
            };
            Ok(Attached { operator, origin })
        }) as _
    };
    let ended = session.block_on(tui::run(options, session.clock(), Arc::new(connect)));
    let afterwards = match ended {
        Ok(ConsoleEnd::StopProxy | ConsoleEnd::TerminalGone(OnHangup::Stop)) => Afterwards::EndOwner,
        _ => Afterwards::LeaveRunning,
    };
    match (ended, session.finish(afterwards)) {
        (Ok(_), Ok(())) => ExitCode::SUCCESS,
        (Err(error), _) => cli::report_failure(&error.into()),
        (Ok(_), Err(failure)) => cli::report_failure(&failure),
    }
}
