//! `flm proxy`.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::output::{self, Format, Output};
use super::session::Session;
use super::table::{Table, facts, time};
use crate::control::launcher::{self, DaemonOrigin};
use crate::control::request::Stage;
use crate::types::calls::Permission;
use crate::types::calls::proxy::{EndOwner, Reload, StartListener, Status, StopListener};
use crate::types::failure::Outcome;
use crate::types::listener::{
    ListenerConfig, ListenerPart, ListenerPhase, ListenerStatus, OwnerKind, ProxyStatus, TlsMode,
};
use crate::types::text::escape;

#[derive(Debug, Subcommand)]
pub(super) enum ProxyCommand {
    /// Start the proxy in the background, or another listener of the one that runs
    #[command(after_help = "Examples:\n  flm proxy start\n  flm proxy start --port 9000 --no-daemon")]
    Start(StartArguments),
    /// Stop a listener; streams get up to 30 s to end
    #[command(after_help = "Examples:\n  flm proxy stop --port 9000\n  flm proxy stop --all")]
    Stop {
        /// Which listener [default: the only one]
        #[arg(long, conflicts_with = "all")]
        port: Option<u16>,
        /// Stop all listeners and end the daemon
        #[arg(long)]
        all: bool,
    },
    /// Show the daemon and its listeners
    #[command(after_help = "Example:\n  flm proxy status --format json")]
    Status,
    /// Read settings, keys, lists, prompts, profiles and engines again, without dropping a connection
    #[command(after_help = "Example:\n  flm proxy reload --all")]
    Reload {
        /// A listener that must run; what is read is the same for all
        #[arg(long, conflicts_with = "all")]
        port: Option<u16>,
        /// All listeners, which is the default
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct StartArguments {
    /// How clients reach it: local-http
    #[arg(long)]
    mode: Option<String>,
    /// Port to listen on [default: that of the last start, else 8484]
    #[arg(long)]
    port: Option<u16>,
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDR")]
    bind: Option<IpAddr>,
    /// Allow plain HTTP on an address that other machines reach: keys and prompts travel in clear
    #[arg(long)]
    insecure_plain_http: bool,
    /// Stay in the foreground, for service managers and containers
    #[arg(long)]
    no_daemon: bool,
}

impl StartArguments {
    /// No listener when nothing is said: then the settings, the stored listener or the default decide.
    fn call(&self) -> StartListener {
        let silent = self.mode.is_none() && self.port.is_none() && self.bind.is_none() && !self.insecure_plain_http;
        if silent {
            return StartListener { config: None, unnamed: Vec::new() };
        }
        let default = ListenerConfig::default();
        let unnamed = [
            (self.mode.is_none(), ListenerPart::Mode),
            (self.bind.is_none(), ListenerPart::Bind),
            (self.port.is_none(), ListenerPart::Port),
        ];
        let config = ListenerConfig {
            mode: self.mode.clone().map_or(default.mode, TlsMode),
            bind: self.bind.unwrap_or(default.bind),
            port: self.port.unwrap_or(default.port),
            insecure_plain_http: self.insecure_plain_http,
        };
        let unnamed = unnamed.into_iter().filter_map(|(unnamed, part)| unnamed.then_some(part)).collect();
        StartListener { config: Some(config), unnamed }
    }
}

impl ProxyCommand {
    /// Whether it turns this process into the daemon.
    pub(super) fn foreground_stage(&self) -> Option<Stage> {
        match self {
            Self::Start(arguments) if arguments.no_daemon => Some(Stage::Foreground(arguments.call())),
            _ => None,
        }
    }

    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::Start(arguments) => start(session, arguments.call()).await,
            Self::Stop { all: true, .. } => {
                session.running().await?.call(EndOwner {}).await?;
                Ok(Output::new(&serde_json::json!({ "ended": true }), "the proxy has ended"))
            }
            Self::Stop { port, all: false } => {
                session.running().await?.call(StopListener { port }).await?;
                let output = Output::new(&serde_json::json!({ "stopped": true }), "the listener has stopped");
                Ok(output.note("the daemon still runs; end it with: flm proxy stop --all"))
            }
            Self::Status => {
                let status = session.running().await?.call(Status {}).await?;
                Ok(Output::new(&status, describe(&status)))
            }
            Self::Reload { port, all: _ } => {
                let report = session.running().await?.call(Reload { port }).await?;
                let mut text = format!("read again: {}", report.reloaded.join(", "));
                if !report.changed.is_empty() {
                    text.push_str("\nchanged: ");
                    text.push_str(&report.changed.join(", "));
                }
                if !report.needs_restart.is_empty() {
                    text.push_str("\nchanged, but in force only after a restart: ");
                    text.push_str(&report.needs_restart.join(", "));
                }
                Ok(Output::new(&report, text))
            }
        }
    }
}

async fn start(session: &Session, call: StartListener) -> Outcome<Output> {
    let (operator, origin) = launcher::start_daemon(&session.home, Permission::Full).await?;
    match operator.call(call).await {
        Ok(listener) => Ok(Output::new(&listener, listening(&listener))),
        Err(failure) => {
            // A daemon without a listener is of no use to whoever asked for one; one that ran before stays.
            if origin == DaemonOrigin::StartedHere {
                operator.call(EndOwner {}).await?;
            }
            Err(failure)
        }
    }
}

/// Tells how a start in the foreground went: JSON to stdout for programs, a line to stderr for people.
pub fn report_foreground(outcome: &Outcome<ProxyStatus>) {
    match outcome {
        Ok(status) => {
            output::note(&status.listeners.iter().map(listening).collect::<Vec<_>>().join("\n"));
            Output::new(status, String::new()).print(Format::Json);
        }
        Err(failure) => {
            // The exit code is the daemon's business.
            let _told: ExitCode = output::fail(Format::of(None), failure);
        }
    }
}

fn listening(listener: &ListenerStatus) -> String {
    let addresses: Vec<_> = listener.addresses.iter().map(|address| escape(address)).collect();
    let warning = if listener.config.insecure_plain_http { "\nwarning: keys and prompts travel in clear" } else { "" };
    format!("the proxy listens at {}{warning}", addresses.join(" and "))
}

fn describe(status: &ProxyStatus) -> String {
    let owner = match status.owner {
        OwnerKind::Daemon => "daemon",
        OwnerKind::InProcess => "inside a console",
    };
    let mut table = Table::new(&["PORT", "MODE", "STATE", "ADDRESSES"]);
    for listener in &status.listeners {
        table.row([
            listener.config.port.to_string(),
            listener.config.mode.0.clone(),
            phase(&listener.phase),
            listener.addresses.join(" "),
        ]);
    }
    let about = facts([
        ("version", status.version.clone()),
        ("runs as", format!("{owner}, process {}", status.pid)),
        ("since", time(status.started)),
        ("home", status.home.clone()),
        ("egress", status.egress.clone()),
        ("new work", status.overload.map_or_else(|| "taken".to_owned(), |why| format!("refused: {why}"))),
        ("last reload", status.reload_fault.clone().map_or_else(|| "fine".to_owned(), |why| format!("refused: {why}"))),
        (
            "needs a restart",
            if status.needs_restart.is_empty() { "-".to_owned() } else { status.needs_restart.join(", ") },
        ),
        ("changes", status.read_only.clone().map_or_else(|| "allowed".to_owned(), |why| format!("refused: {why}"))),
    ]);
    format!("{about}\n\n{}", table.or("no listener runs: start one with 'flm proxy start'"))
}

fn phase(phase: &ListenerPhase) -> String {
    match phase {
        ListenerPhase::Running => "running".to_owned(),
        ListenerPhase::Draining { connections } => format!("stopping, {connections} connections left"),
        ListenerPhase::Stopped => "stopped".to_owned(),
        ListenerPhase::Failed { reason } => format!("failed: {reason}"),
    }
}
