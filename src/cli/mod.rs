//! The commands of `flm` and the arguments of `flm-tui`: parses, calls one operation, prints its result (SPEC §2).
//!
//! Called by the binaries, which carry out what a [`Launch`] asks for. Must never decide anything that an operation
//! decides: it only turns words into calls and results into text.

mod acme;
mod alerts;
mod aliases;
mod api_keys;
mod arguments;
mod audit_logs;
mod authority;
mod backup;
mod bench;
mod certificate;
mod chat;
mod check;
mod comparisons;
mod config;
mod connect;
mod console;
mod csv;
mod doctor;
mod engines;
mod expose;
mod firewall;
mod leak;
mod logs;
mod man;
mod migrate;
mod models;
mod output;
mod policy;
mod profiles;
mod prompt;
mod prompts;
mod proxy;
mod security;
mod session;
mod span;
mod style;
mod table;
mod usage;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser};

use self::arguments::{Flm, FlmCommand};
use self::console::{FlmTui, console_request};
use self::output::Format;
pub use self::proxy::report_foreground;
use self::session::{Session, unlocked};
use crate::config::files;
use crate::control::launcher::{DAEMON_COMMAND, PASSPHRASE_FLAG};
use crate::control::request::{ConsoleRequest, DaemonRequest, Home, OwnerChoice, Stage};
use crate::telemetry::logging;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::secret::Secret;

/// What is left for the binary to do.
#[derive(Debug)]
pub enum Launch {
    /// Nothing: end with this code.
    Done(ExitCode),
    /// Open the console.
    Console(Box<ConsoleRequest>),
    /// Run as a daemon.
    Daemon(Box<DaemonRequest>),
}

/// Runs `flm` with the arguments of this process.
pub fn flm() -> Launch {
    if let Some(launch) = hidden_daemon() {
        return launch;
    }
    let arguments = match parse::<Flm>() {
        Ok(arguments) => arguments,
        Err(launch) => return launch,
    };
    let format = match &arguments.command {
        FlmCommand::Chat(chat) => chat.format(Format::of(arguments.place.format)),
        _ => Format::of(arguments.place.format),
    };
    let outcome = match arguments.command {
        FlmCommand::Tui(options) => open_console(arguments.place.home_arguments().resolve(), &options),
        FlmCommand::Completions { shell } => {
            Ok(Launch::Done(output::completions(shell, &mut Flm::command(), "flm").print(format)))
        }
        FlmCommand::Man { output } => {
            man::pages(Flm::command(), output.as_deref()).map(|output| Launch::Done(output.print(format)))
        }
        FlmCommand::Version => Ok(Launch::Done(arguments::version().print(format))),
        command => {
            let home = arguments.place.home_arguments().resolve();
            let foreground = match &command {
                FlmCommand::Proxy(command) => command.foreground_stage().map(|stage| (stage, command.settings())),
                _ => None,
            };
            if let Some((stage, settings)) = foreground {
                home.and_then(|home| unlock(&home))
                    .map(|home| Launch::Daemon(Box::new(DaemonRequest { home, stage, settings })))
            } else {
                logging::start_stderr();
                run_command(home, format, command)
            }
        }
    };
    outcome.unwrap_or_else(|failure| Launch::Done(output::fail(format, &failure)))
}

/// Tells a person that the console could not run.
pub fn report_failure(failure: &Failure) -> ExitCode {
    output::fail(Format::Text, failure)
}

/// Runs `flm-tui` with the arguments of this process.
pub fn flm_tui() -> Launch {
    if let Some(launch) = hidden_daemon() {
        return launch;
    }
    let arguments = match parse::<FlmTui>() {
        Ok(arguments) => arguments,
        Err(launch) => return launch,
    };
    let outcome = open_console(arguments.home.resolve(), &arguments.options);
    outcome.unwrap_or_else(|failure| Launch::Done(output::fail(Format::Text, &failure)))
}

fn open_console(home: Outcome<Home>, options: &console::ConsoleArguments) -> Outcome<Launch> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::new(ErrorCode::InvalidArgument, "the console needs a terminal for input and output")
            .hint("in scripts and services use the flm commands, such as: flm proxy start; flm help lists them"));
    }
    let mut request = console_request(home?, options);
    if !matches!(request.owner, OwnerChoice::Demo { .. }) {
        // Before the first frame: the console has the terminal for itself then.
        request.home = unlock(&request.home)?;
    }
    Ok(Launch::Console(Box::new(request)))
}

fn run_command(home: Outcome<Home>, format: Format, command: FlmCommand) -> Outcome<Launch> {
    if format == Format::Csv && !command.exports() {
        return Err(Failure::new(ErrorCode::InvalidArgument, "only exports are written as csv")
            .hint("use --format json or text; csv is for: flm security audit-logs export"));
    }
    let session = Session { home: home?, format };
    let runtime = runtime()?;
    let output = runtime.block_on(command.run(&session));
    // A command may end while it reads from a terminal at which nobody types: that thread is not waited for. Others are,
    // since what OpenSSL keeps for a thread must be given back before the program ends.
    runtime.shutdown_timeout(LAST_WAIT);
    Ok(Launch::Done(output?.print(format)))
}

/// How long the threads of a command are waited for that has told its result. Those that rest end at once.
const LAST_WAIT: Duration = Duration::from_millis(500);

fn runtime() -> Outcome<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ErrorCode::Internal, format!("the system gives no event queue: {error}")))
}

/// The home, after its passphrase was asked for where it is locked with one: for what runs without a command's session.
fn unlock(home: &Home) -> Outcome<Home> {
    runtime()?.block_on(unlocked(home))
}

/// Both programs run as a daemon when a front end starts them so, and do the step that changes the firewall; these are no
/// commands for people.
fn hidden_daemon() -> Option<Launch> {
    /// A daemon as a front end starts it.
    #[derive(Debug, Parser)]
    struct Hidden {
        #[command(flatten)]
        home: arguments::HomeArguments,
        /// `key=value`, for as long as it runs.
        #[arg(long)]
        setting: Vec<String>,
        /// The passphrase of `security.db` comes on standard input.
        #[arg(long = PASSPHRASE_FLAG.trim_start_matches("--"))]
        passphrase_from_stdin: bool,
    }
    let mut words = std::env::args_os();
    let program = words.next()?;
    let word = words.next()?;
    if let Some(work) = firewall::hidden(&word) {
        return Some(work);
    }
    if word != DAEMON_COMMAND {
        return None;
    }
    let words = std::iter::once(program).chain(words);
    let parsed = Hidden::try_parse_from(words)
        .map_err(|error| Failure::new(ErrorCode::InvalidArgument, error.to_string()))
        .and_then(|hidden| {
            let pairs = hidden.setting.iter().filter_map(|pair| pair.split_once('='));
            let settings = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            let mut home = hidden.home.resolve()?;
            if hidden.passphrase_from_stdin {
                home.passphrase = Some(passphrase_from_stdin()?);
            }
            Ok((home, settings))
        });
    Some(match parsed {
        Ok((home, settings)) => Launch::Daemon(Box::new(DaemonRequest { home, stage: Stage::Background, settings })),
        Err(failure) => Launch::Done(output::fail(Format::Text, &failure)),
    })
}

fn passphrase_from_stdin() -> Outcome<Secret> {
    let text = files::read_text(std::io::stdin()).map_err(|error| {
        Failure::new(ErrorCode::IoError, format!("the passphrase did not arrive at the daemon: {error}"))
    })?;
    Ok(Secret::new(text))
}

/// Wrong usage ends with 1 (SPEC §2), not with clap's 2.
fn parse<P: Parser>() -> Result<P, Launch> {
    let words: Vec<OsString> = std::env::args_os().collect();
    P::try_parse_from(&words).map_err(|error| {
        if !error.use_stderr() {
            return Launch::Done(output::help(&error.render()));
        }
        Launch::Done(output::fail_usage(Format::guessed(&words), &error.render()))
    })
}
