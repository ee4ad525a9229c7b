//! `flm`: the product as commands, for scripts and services. A thin shell over the library.

use std::process::ExitCode;

use flm::cli::{self, Launch};
use flm::daemon::launch;

fn main() -> ExitCode {
    // A panic report is for people; without it the default hook tells the same, less well.
    let _plain_reports = color_eyre::install();
    match cli::flm() {
        Launch::Done(code) => code,
        Launch::Daemon(request) => launch::daemon(&request, cli::report_foreground),
        Launch::Console(_) => ExitCode::FAILURE,
    }
}
