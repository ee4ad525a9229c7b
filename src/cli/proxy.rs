//! `flm proxy`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::acme::{self, AcmeArguments};
use super::audit_logs::name;
use super::output::{self, Format, Output, ProgressLine};
use super::session::{self, Session, unlocked};
use super::table::{Table, facts, time};
use crate::control::Operator;
use crate::control::launcher::{self, DaemonOrigin};
use crate::control::request::Stage;
use crate::types::calls::Permission;
use crate::types::calls::proxy::{EndOwner, Reload, StartListener, Status, StopListener};
use crate::types::calls::publish::{CheckPublish, PortPurpose, PortState, PublishReport, WirePrivacy};
use crate::types::calls::settings::ShowSetting;
use crate::types::certificate::{CertificateProgress, CertificateView};
use crate::types::egress::{EgressState, EgressStatus, OnOutage};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::listener::{
    CertificateFiles, Exposure, ListenerConfig, ListenerPart, ListenerPhase, ListenerStatus, OwnerKind, ProxyStatus,
    TlsMode,
};
use crate::types::policy::{Mode, RuleName};
use crate::types::text::escape;

#[derive(Debug, Subcommand)]
pub(super) enum ProxyCommand {
    /// Start the proxy in the background, or another listener of the one that runs
    #[command(
        after_help = "Examples:\n  flm proxy start\n  flm proxy start --port 9000 --no-daemon\n  flm proxy start --mode packaged-ca --bind 0.0.0.0\n  flm proxy start --egress-mode tor\n  flm proxy start --mode https-acme --acme-domain llm.example.org --acme-email you@example.org --acme-agree-tos"
    )]
    Start(Box<StartArguments>),
    /// Look whether a listener could be started like this and what would guard it, without starting it
    #[command(after_help = "Example:\n  flm proxy check --mode packaged-ca --bind 0.0.0.0 --port 8484")]
    Check(CheckArguments),
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

/// What a listener would be started with, as far as it can be in the way.
#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// How clients would reach it
    #[arg(long, default_value = TlsMode::LOCAL_HTTP)]
    mode: String,
    /// Address to listen on [default: 127.0.0.1; 0.0.0.0 for https-acme]
    #[arg(long, value_name = "ADDR")]
    bind: Option<IpAddr>,
    /// Port to listen on [default: 8484; 80 for https-acme]
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Port for TLS [default: the one after --port, 443 after 80]
    #[arg(long, value_name = "N")]
    https_port: Option<u16>,
}

impl CheckArguments {
    fn call(self) -> CheckPublish {
        let Self { mode, bind, port, https_port } = self;
        let unnamed = [
            (bind.is_none(), ListenerPart::Bind),
            (port.is_none(), ListenerPart::Port),
            (https_port.is_none(), ListenerPart::HttpsPort),
        ];
        let unnamed = unnamed.into_iter().filter_map(|(is_unnamed, part)| is_unnamed.then_some(part)).collect();
        let default = ListenerConfig::default();
        let config = ListenerConfig {
            mode: TlsMode(mode),
            bind: bind.unwrap_or(default.bind),
            port: port.unwrap_or(default.port),
            https_port,
            ..default
        };
        CheckPublish { config, unnamed }
    }
}

#[derive(Debug, Args)]
pub(super) struct StartArguments {
    /// How clients reach it: local-http, dev-selfsigned, packaged-ca, https-acme or certificate-files
    #[arg(long)]
    mode: Option<String>,
    /// Port to listen on [default: that of the last start, else 8484; 80 for https-acme]
    #[arg(long)]
    port: Option<u16>,
    /// Port for TLS; plain HTTP on --port then only shows the way there [default: the one after --port, 443 after 80]
    #[arg(long, value_name = "N")]
    https_port: Option<u16>,
    /// Certificate chain (PEM) for the mode certificate-files
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// Private key (PEM, mode 0600) of that certificate
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1; 0.0.0.0 for https-acme]
    #[arg(long, value_name = "ADDR")]
    bind: Option<IpAddr>,
    /// Allow plain HTTP on an address that other machines reach: keys and prompts travel in clear
    #[arg(long)]
    insecure_plain_http: bool,
    /// Stay in the foreground, for service managers and containers
    #[arg(long)]
    no_daemon: bool,
    #[command(flatten)]
    acme: AcmeArguments,
    #[command(flatten)]
    egress: EgressArguments,
}

/// How what leaves this machine does so, for as long as the daemon runs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Egress options")]
struct EgressArguments {
    /// How what leaves this machine does so: straight, through a Tor client, or through another SOCKS5 proxy
    #[arg(long, value_name = "MODE", value_parser = ["direct", "tor", "socks5"])]
    egress_mode: Option<String>,
    /// Where the SOCKS5 proxy listens [default for tor: 127.0.0.1:9050]
    #[arg(long, value_name = "HOST:PORT")]
    socks5_endpoint: Option<String>,
    /// User name at the SOCKS5 proxy
    #[arg(long, value_name = "NAME")]
    socks5_user: Option<String>,
    /// Environment variable that holds its password
    #[arg(long, value_name = "VARIABLE", conflicts_with = "socks5_password_file")]
    socks5_password_env: Option<String>,
    /// File whose first line is its password
    #[arg(long, value_name = "FILE")]
    socks5_password_file: Option<PathBuf>,
    /// Go straight while the proxy cannot be reached, instead of refusing to
    #[arg(long)]
    egress_fail_open: bool,
}

impl EgressArguments {
    /// As settings of the daemon.
    fn settings(&self) -> BTreeMap<String, String> {
        // The daemon lives in another folder.
        let file = self.socks5_password_file.as_ref().map(|path| std::path::absolute(path).unwrap_or(path.clone()));
        [
            ("egress.mode", self.egress_mode.clone()),
            ("egress.socks5_endpoint", self.socks5_endpoint.clone()),
            ("egress.user", self.socks5_user.clone()),
            ("egress.password_env", self.socks5_password_env.clone()),
            ("egress.password_file", file.map(|path| path.to_string_lossy().into_owned())),
            ("egress.fail_open", self.egress_fail_open.then(|| "true".to_owned())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
    }
}

impl StartArguments {
    /// No listener when nothing is said: then the settings, the stored listener or the default decide.
    fn call(&self) -> StartListener {
        let silent = self.mode.is_none()
            && self.port.is_none()
            && self.https_port.is_none()
            && self.certificate.is_none()
            && self.bind.is_none()
            && !self.acme.given()
            && !self.insecure_plain_http;
        if silent {
            return StartListener { config: None, unnamed: Vec::new() };
        }
        let default = ListenerConfig::default();
        let certificate = self.certificate.as_ref().zip(self.key.as_ref());
        // Whoever names a certificate, or how to get one, means it to be used.
        let implied = match (certificate, self.acme.given()) {
            (Some(_), _) => Some(TlsMode::CERTIFICATE_FILES),
            (None, true) => Some(TlsMode::HTTPS_ACME),
            (None, false) => None,
        };
        let implied = implied.map(|mode| TlsMode(mode.to_owned()));
        let unnamed = [
            (self.mode.is_none() && implied.is_none(), ListenerPart::Mode),
            (self.bind.is_none(), ListenerPart::Bind),
            (self.port.is_none(), ListenerPart::Port),
            (self.https_port.is_none(), ListenerPart::HttpsPort),
            (self.certificate.is_none(), ListenerPart::Certificate),
        ];
        // The daemon has another working directory.
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let config = ListenerConfig {
            mode: self.mode.clone().map(TlsMode).or(implied).unwrap_or(default.mode),
            bind: self.bind.unwrap_or(default.bind),
            port: self.port.unwrap_or(default.port),
            https_port: self.https_port,
            certificate: certificate
                .map(|(chain, key)| CertificateFiles { chain: absolute(chain), key: absolute(key) }),
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

    /// Settings that it gives to the daemon.
    pub(super) fn settings(&self) -> BTreeMap<String, String> {
        match self {
            Self::Start(arguments) => {
                let mut settings = arguments.egress.settings();
                settings.extend(arguments.acme.settings());
                settings
            }
            _ => BTreeMap::new(),
        }
    }

    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::Start(arguments) => start(session, &arguments).await,
            Self::Check(arguments) => {
                let report = session.call(arguments.call()).await?;
                Ok(Output::new(&report, checked(&report)))
            }
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

async fn start(session: &Session, arguments: &StartArguments) -> Outcome<Output> {
    let settings = arguments.egress.settings();
    let home = unlocked(&session.home).await?;
    let (operator, origin) = launcher::start_daemon(&home, Permission::Full, &settings).await?;
    if origin == DaemonOrigin::AlreadyRan {
        refuse_other_settings(&operator, &settings).await?;
    }
    let mut line = ProgressLine::new(session.format);
    let outcome = async {
        acme::keep(&operator, &arguments.acme.settings()).await?;
        let told = |progress: CertificateProgress| {
            line.show(&progress, &progress.message, &escape(&progress.message));
            ControlFlow::Continue(())
        };
        let started = session::follow_at(&operator, &arguments.call(), told).await?;
        // Nobody breaks it off.
        started.ok_or_else(|| Failure::new(ErrorCode::Internal, "an operation was left"))
    }
    .await;
    line.end();
    match outcome {
        Ok(listener) => {
            let output = Output::new(&listener, listening(&listener));
            Ok(match settings.get("egress.mode") {
                Some(mode) => output.note(format!(
                    "egress is {mode} for as long as this daemon runs; keep it with: flm config set egress.mode {mode}"
                )),
                None => output,
            })
        }
        Err(failure) => {
            // A daemon without a listener is of no use to whoever asked for one; one that ran before stays.
            if origin == DaemonOrigin::StartedHere {
                operator.call(EndOwner {}).await?;
            }
            Err(failure)
        }
    }
}

/// The way out belongs to the whole daemon and is decided when it starts (SPEC §4.9): asking a running one for another
/// way must not pass in silence.
async fn refuse_other_settings(operator: &Operator, settings: &BTreeMap<String, String>) -> Outcome<()> {
    let waiting = if settings.is_empty() { Vec::new() } else { operator.call(Status {}).await?.needs_restart };
    for (key, wanted) in settings {
        let view = operator.call(ShowSetting { key: key.clone() }).await?;
        if view.value != *wanted || waiting.contains(key) {
            return Err(Failure::new(
                ErrorCode::ProxyInvalidConfig,
                format!("the daemon runs already, and {key} takes effect only when it starts"),
            )
            .hint("end it with 'flm proxy stop --all', then start it again with these options"));
        }
    }
    Ok(())
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
    let mut text = format!("the proxy listens at {}", addresses.join(" and "));
    if listener.config.insecure_plain_http {
        text.push_str("\nwarning: keys and prompts travel in clear");
    }
    let Some(tls) = &listener.tls else { return text };
    if let Some(certificate) = &tls.certificate {
        text.push_str("\ncertificate: ");
        text.push_str(&describe_certificate(certificate));
    }
    if let Some(warning) = &tls.warning {
        text.push_str("\nwarning: ");
        text.push_str(&escape(warning));
    }
    match listener.config.mode.0.as_str() {
        TlsMode::PACKAGED_CA => text.push_str("\nclients trust it after: flm security ca install"),
        TlsMode::DEV_SELFSIGNED => text.push_str("\nclients must be told to accept it, such as curl --insecure"),
        _ => {}
    }
    text
}

fn checked(report: &PublishReport) -> String {
    let list = |names: Vec<String>, none: &str| if names.is_empty() { none.to_owned() } else { names.join(", ") };
    let ports = report.ports.iter().map(|finding| {
        let purpose = match finding.purpose {
            PortPurpose::Plain => "plain HTTP",
            PortPurpose::Tls => "TLS",
        };
        let state = match &finding.state {
            PortState::Free => "free".to_owned(),
            PortState::Ours => "a listener of this home has it".to_owned(),
            PortState::Held { by, free } => {
                let by = by.as_deref().map_or_else(|| "another program".into(), escape);
                free.map_or_else(|| format!("held by {by}"), |free| format!("held by {by}; {free} is free"))
            }
            PortState::Forbidden => {
                "this user may not bind it: choose one from 1024 up, or give the right CAP_NET_BIND_SERVICE".to_owned()
            }
            PortState::Unusable { why } => format!("cannot be bound: {}", escape(why)),
        };
        format!("{} ({purpose}): {state}", finding.port)
    });
    let counts = |mode| RuleName::ALL.iter().filter(|rule| report.policy.rules.scoring(**rule).mode == mode).count();
    facts([
        (
            "reached now",
            match report.exposure {
                Exposure::Local => "from this machine only".to_owned(),
                Exposure::Public => "by others too".to_owned(),
            },
        ),
        ("addresses", list(report.addresses.iter().map(ToString::to_string).collect(), "loopback only")),
        ("names", list(report.names.iter().map(|name| escape(name).into_owned()).collect(), "-")),
        ("ports", list(ports.collect(), "-")),
        (
            "on the way",
            match report.privacy {
                WirePrivacy::Kept => "nobody reads keys and prompts".to_owned(),
                WirePrivacy::InClear => "keys and prompts in clear: choose another mode".to_owned(),
            },
        ),
        ("API keys", report.keys.to_string()),
        (
            "allow list",
            if report.allowed == 0 { "empty: everyone may connect".to_owned() } else { report.allowed.to_string() },
        ),
        (
            "rules",
            format!(
                "{} enforce, {} simulate, {} off",
                counts(Mode::Enforce),
                counts(Mode::Simulate),
                counts(Mode::Off)
            ),
        ),
    ])
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
        ("guarded as", name(&status.exposure)),
        ("egress", egress(&status.egress)),
        (
            "simulated rules",
            if status.simulating.is_empty() { "none".to_owned() } else { status.simulating.join(", ") },
        ),
        ("new work", status.overload.map_or_else(|| "taken".to_owned(), |why| format!("refused: {why}"))),
        ("last reload", status.reload_fault.clone().map_or_else(|| "fine".to_owned(), |why| format!("refused: {why}"))),
        (
            "needs a restart",
            if status.needs_restart.is_empty() { "-".to_owned() } else { status.needs_restart.join(", ") },
        ),
        ("changes", status.read_only.clone().map_or_else(|| "allowed".to_owned(), |why| format!("refused: {why}"))),
    ]);
    let listeners = table.or("no listener runs: start one with 'flm proxy start'");
    let lines = std::iter::once(listeners).chain(status.listeners.iter().flat_map(certificate_lines));
    format!("{about}\n\n{}", lines.collect::<Vec<_>>().join("\n"))
}

fn describe_certificate(certificate: &CertificateView) -> String {
    let issuer = if certificate.issuer.is_empty() { "itself" } else { &certificate.issuer };
    format!("for {}, until {}, issued by {}", certificate.names.join(", "), time(certificate.not_after), escape(issuer))
}

/// What status says of a listener's certificate, a line each.
pub(super) fn certificate_lines(listener: &ListenerStatus) -> Vec<String> {
    let Some(tls) = &listener.tls else { return Vec::new() };
    let port = listener.config.port;
    let certificate = tls.certificate.as_ref().map(describe_certificate);
    let renewal = tls.next_renewal.map(|at| format!("renewed from {}", time(at)));
    let named = [("last error", &tls.last_error), ("warning", &tls.warning), ("now", &tls.progress)];
    let others = named.into_iter().filter_map(|(name, text)| Some(format!("{name}: {}", escape(text.as_ref()?))));
    certificate.into_iter().chain(renewal).chain(others).map(|line| format!("certificate of {port}: {line}")).collect()
}

/// Mode and endpoint, whether the proxy can be reached, whether it is ready, and its last error.
fn egress(status: &EgressStatus) -> String {
    let state = match (status.state, status.ready) {
        (EgressState::Direct, _) => return status.mode.name().to_owned(),
        (EgressState::Untried, _) => "not tried yet".to_owned(),
        (EgressState::Reached, None) => "negotiated, no connection yet".to_owned(),
        (EgressState::Reached, Some(since)) => format!("ready since {}", time(since)),
        (EgressState::Unreachable, _) => "UNREACHABLE, connections fail".to_owned(),
        (EgressState::FallenBack, _) => "UNREACHABLE, connections go straight".to_owned(),
    };
    let mut text = format!("{} through {}, {state}", status.mode.name(), status.endpoint.as_deref().unwrap_or("-"));
    if status.on_outage == OnOutage::GoDirect {
        text.push_str(", fail-open");
    }
    if let Some(error) = &status.last_error {
        text.push_str(&format!("; last error: {}", escape(error)));
    }
    text
}

fn phase(phase: &ListenerPhase) -> String {
    match phase {
        ListenerPhase::Obtaining => "obtaining certificate".to_owned(),
        ListenerPhase::Running => "running".to_owned(),
        ListenerPhase::Draining { connections } => format!("stopping, {connections} connections left"),
        ListenerPhase::Stopped => "stopped".to_owned(),
        ListenerPhase::Failed { reason } => format!("failed: {reason}"),
    }
}
