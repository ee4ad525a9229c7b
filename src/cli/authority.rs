//! `flm security ca`: the home's own certificate authority.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::output::Output;
use super::session::Session;
use super::table::{facts, time};
use crate::config::files::{self, Audience};
use crate::types::address::parse_network;
use crate::types::calls::authority::{
    AuthorityView, InitAuthority, InstallAuthority, IssueCertificate, ShowAuthority, TrustAction, TrustReport,
    TrustSystem,
};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::text::escape;

#[derive(Debug, Subcommand)]
pub(super) enum AuthorityCommand {
    /// Make the authority; the mode packaged-ca makes it by itself
    #[command(after_help = "Example:\n  flm security ca init --network 192.168.1.0/24 --name box.example")]
    Init {
        /// Another name that it may vouch for, and all below it; may be repeated
        #[arg(long = "name", value_name = "N")]
        names: Vec<String>,
        /// A network that it may vouch for besides this machine's addresses [default: the private networks]; may be
        /// repeated
        #[arg(long = "network", value_name = "CIDR", value_parser = parse_network)]
        networks: Vec<IpNet>,
        /// Replace the one that is there; clients must trust the new one
        #[arg(long)]
        replace: bool,
    },
    /// Show the root: fingerprint, end, what it may vouch for, whether this system trusts it
    #[command(after_help = "Example:\n  flm security ca show")]
    Show,
    /// Make a certificate for another server of yours
    #[command(after_help = "Example:\n  flm security ca issue --name box.local --name 192.168.1.5 --output /etc/box")]
    Issue {
        /// A name or address that it is for; may be repeated
        #[arg(long = "name", value_name = "N", required = true)]
        names: Vec<String>,
        /// Folder for the two files, named after the first name
        #[arg(long, value_name = "DIR", default_value = ".")]
        output: PathBuf,
    },
    /// Make this system trust the root; takes root
    #[command(after_help = "Examples:\n  flm security ca install --dry-run\n  sudo flm security ca install")]
    Install(TrustArguments),
    /// Make this system trust the root no longer; takes root
    #[command(after_help = "Example:\n  sudo flm security ca uninstall")]
    Uninstall(TrustArguments),
    /// Write the root, for clients on other machines
    #[command(after_help = "Example:\n  flm security ca export --output flm-root.pem")]
    Export {
        /// File to write [default: standard output]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct TrustArguments {
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// What the root's SHA-256 fingerprint must be
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<String>,
    /// Show the commands for another system
    #[arg(long, value_enum, value_name = "SYSTEM")]
    os: Option<System>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum System {
    Macos,
    Windows,
}

impl AuthorityCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::Init { names, networks, replace } => {
                let view = session.call(InitAuthority { replace, names, networks }).await?;
                let text = describe(&view);
                Ok(Output::new(&view, text).note("clients trust it after: flm security ca install"))
            }
            Self::Show => {
                let view = session.call(ShowAuthority {}).await?;
                Ok(Output::new(&view, describe(&view)))
            }
            Self::Issue { names, output } => issue(session, names, output).await,
            Self::Install(arguments) => arguments.run(session, TrustAction::Install).await,
            Self::Uninstall(arguments) => arguments.run(session, TrustAction::Uninstall).await,
            Self::Export { output } => {
                let view = session.call(ShowAuthority {}).await?;
                let Some(path) = output else { return Ok(Output::new(&view, view.pem.trim_end())) };
                files::replace(&path, view.pem.as_bytes(), Audience::Owner)?;
                let told = serde_json::json!({ "file": path, "fingerprint": view.root.fingerprint });
                let text = format!("the root is in {}\nSHA-256 {}", shown(&path), view.root.fingerprint);
                Ok(Output::new(&told, text))
            }
        }
    }
}

async fn issue(session: &Session, names: Vec<String>, folder: PathBuf) -> Outcome<Output> {
    let stem: String = names[0].chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let (chain, key) = (folder.join(format!("{stem}.pem")), folder.join(format!("{stem}.key")));
    for path in [&chain, &key] {
        if path.exists() {
            return Err(Failure::new(ErrorCode::InvalidArgument, format!("{} is there already", shown(path)))
                .hint("move it away, or choose another folder with --output DIR"));
        }
    }
    // Before there is a certificate that nobody has.
    files::make_dir(&folder)?;
    let issued = session.call(IssueCertificate { names }).await?;
    files::replace(&key, issued.key.expose().as_bytes(), Audience::Owner)?;
    files::replace(&chain, issued.chain.as_bytes(), Audience::Owner)?;
    let told = serde_json::json!({ "certificate": issued.certificate, "chain": chain, "key": key });
    let (names, until) = (issued.certificate.names.join(", "), time(issued.certificate.not_after));
    let text = format!("a certificate for {names}, until {until}\nchain {}\nkey   {}", shown(&chain), shown(&key));
    Ok(Output::new(&told, text).note("FLM does not keep the key, and does not renew this certificate"))
}

impl TrustArguments {
    async fn run(self, session: &Session, action: TrustAction) -> Outcome<Output> {
        let system = match self.os {
            None => TrustSystem::Here,
            Some(System::Macos) => TrustSystem::Macos,
            Some(System::Windows) => TrustSystem::Windows,
        };
        let Self { dry_run, fingerprint, .. } = self;
        let report = session.call(InstallAuthority { action, system, dry_run, fingerprint }).await?;
        let text = told(&report, action);
        Ok(report.notes.iter().fold(Output::new(&report, text), |output, note| output.note(note.clone())))
    }
}

fn told(report: &TrustReport, action: TrustAction) -> String {
    let head = match (report.executed, action) {
        (true, TrustAction::Install) => "this system trusts the root now",
        (true, TrustAction::Uninstall) => "this system trusts the root no longer",
        (false, _) => "nothing was changed; this would be done",
    };
    let commands: Vec<String> = report.commands.iter().map(|command| format!("  {}", escape(command))).collect();
    format!("{head} ({})\nSHA-256 {}\n{}", report.store, report.fingerprint, commands.join("\n"))
}

fn describe(view: &AuthorityView) -> String {
    facts([
        ("root", view.root.subject.clone()),
        ("SHA-256", view.root.fingerprint.clone()),
        ("valid until", time(view.root.not_after)),
        ("may vouch for", view.permitted.join(", ")),
        (
            "this system",
            match view.installed {
                Some(true) => "trusts it",
                Some(false) => "does not trust it: flm security ca install",
                None => "has a trust store that FLM does not know",
            }
            .to_owned(),
        ),
    ])
}

fn shown(path: &std::path::Path) -> String {
    escape(&path.to_string_lossy()).into_owned()
}
