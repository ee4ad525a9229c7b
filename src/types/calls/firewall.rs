//! Operations on the machine's firewall (SPEC §2 `flm firewall`).

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::call;

/// The operator's own way in, which no rule may ever close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SshSession {
    /// Where the operator comes from.
    pub from: IpAddr,
    /// Port of the SSH server.
    pub port: u16,
}

impl SshSession {
    /// Reads `SSH_CONNECTION`: client address and port, server address and port (sshd(8)).
    #[must_use]
    pub fn parse(connection: &str) -> Option<Self> {
        let mut words = connection.split_ascii_whitespace();
        let from = words.next()?.parse().ok()?;
        let port = words.nth(2)?.parse().ok()?;
        Some(Self { from, port })
    }
}

/// Writes down what a firewall would be told, and does nothing. Fails with `NOT_FOUND` for an unknown backend.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PreviewFirewall {
    /// Of which system: `linux`, `macos` or `windows`; `None` is this one.
    pub system: Option<String>,
    /// Which backend; `None` is the one that this machine uses.
    pub backend: Option<String>,
    /// The operator's SSH session, when there is one.
    pub ssh: Option<SshSession>,
}
call!(PreviewFirewall, "firewall/preview", Reads, FirewallPreview);

/// What is to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FirewallPlan {
    /// Ports of the listeners, ascending.
    pub ports: Vec<u16>,
    /// Who may connect to them; empty is everyone.
    #[schemars(with = "Vec<String>")]
    pub networks: Vec<IpNet>,
    /// The operator's SSH session.
    pub ssh: Option<SshSession>,
}

/// What a firewall would be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FirewallPreview {
    /// The backend that is meant.
    pub backend: String,
    /// Its system.
    pub system: String,
    /// What is to be let in.
    pub plan: FirewallPlan,
    /// Commands, with what they read.
    pub apply: String,
    /// Commands that take it back.
    pub rollback: String,
    /// What to know before it is applied.
    pub notes: Vec<String>,
}
