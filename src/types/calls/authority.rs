//! Operations on the home's own certificate authority (SPEC §2 `flm security ca`, §6).

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::call;
use crate::types::certificate::CertificateView;
use crate::types::secret::Secret;

/// Makes the authority. Fails with `INVALID_ARGUMENT` when there is one and it is not to be replaced.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InitAuthority {
    /// Whether one that is there is replaced; what it signed is forgotten then.
    pub replace: bool,
    /// Further names that it may vouch for.
    pub names: Vec<String>,
    /// Networks that it may vouch for besides this machine's addresses; empty is the setting, else private ones.
    pub networks: Vec<IpNet>,
}
call!(InitAuthority, "authority/init", Changes, AuthorityView);

/// Shows the authority.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ShowAuthority {}
call!(ShowAuthority, "authority/show", Reads, AuthorityView);

/// Makes a server's certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IssueCertificate {
    /// Names and addresses that it is for.
    pub names: Vec<String>,
}
call!(IssueCertificate, "authority/issue", Changes, IssuedCertificate);

/// Puts the root into a trust store, or shows how.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstallAuthority {
    /// What is to be done.
    pub action: TrustAction,
    /// Of which system.
    pub system: TrustSystem,
    /// Only say what would be done.
    pub dry_run: bool,
    /// What the root's fingerprint must be; `None` is not compared.
    pub fingerprint: Option<String>,
}
call!(InstallAuthority, "authority/install", Changes, TrustReport);

/// What is to be done with a trust store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrustAction {
    /// Put the root in.
    Install,
    /// Take it out.
    Uninstall,
}

/// Whose trust store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrustSystem {
    /// That of this machine.
    Here,
    /// macOS: commands only.
    Macos,
    /// Windows: commands only.
    Windows,
}

/// The authority, for people and for trust stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuthorityView {
    /// Its root.
    pub root: CertificateView,
    /// Names and networks that it may vouch for.
    pub permitted: Vec<String>,
    /// The root as PEM.
    pub pem: String,
    /// Whether this machine's trust store has it; `None` when the store is of an unknown kind.
    pub installed: Option<bool>,
}

/// A certificate that was made for somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct IssuedCertificate {
    /// What it is.
    pub certificate: CertificateView,
    /// The chain as PEM.
    pub chain: String,
    /// The private key as PEM; told this once.
    pub key: Secret,
    /// Names that the authority may not vouch for; they are not in it.
    pub refused: Vec<String>,
}

/// What was done with a trust store, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TrustReport {
    /// Whose trust store, for people.
    pub store: String,
    /// The root's fingerprint.
    pub fingerprint: String,
    /// Commands, in order.
    pub commands: Vec<String>,
    /// Whether they were executed.
    pub executed: bool,
    /// Programs with trust stores of their own, and what to do there.
    pub notes: Vec<String>,
}
