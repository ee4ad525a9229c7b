//! `flm firewall`.

use clap::Subcommand;

use super::output::Output;
use super::session::Session;
use crate::types::calls::firewall::{FirewallPreview, PreviewFirewall, SshSession};
use crate::types::failure::Outcome;

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
}

impl FirewallCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::Preview { os, backend } => {
                // Of this terminal, not of the daemon's.
                let ssh = std::env::var("SSH_CONNECTION").ok().as_deref().and_then(SshSession::parse);
                let preview = session.call(PreviewFirewall { system: os, backend, ssh }).await?;
                Ok(Output::new(&preview, describe(&preview)))
            }
        }
    }
}

fn describe(preview: &FirewallPreview) -> String {
    let notes = preview.notes.iter().map(|note| format!("# note: {note}\n")).collect::<Vec<_>>().concat();
    format!(
        "# {} ({}): nothing was changed\n{notes}\n# apply, as root:\n{}\n# take it back, as root:\n{}",
        preview.backend, preview.system, preview.apply, preview.rollback
    )
}
