//! Certificates as they are stored and as they are shown (SPEC §6).

use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;
use super::secret::Secret;

/// A certificate as status, console and command line show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CertificateView {
    /// Names and addresses that it is for.
    pub names: Vec<String>,
    /// Who it is about, as an RFC 4514 text; empty for leaves, whose names are all that counts.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Valid from.
    pub not_before: UnixMillis,
    /// Valid until.
    pub not_after: UnixMillis,
    /// SHA-256 of its DER form, in hexadecimal pairs with colons between.
    pub fingerprint: String,
}

/// A certificate with its private key, as `security.db` keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCertificate {
    /// What it is for, such as `packaged-ca/root`.
    pub name: String,
    /// The chain as PEM, the leaf first.
    pub chain: String,
    /// The private key as PEM (PKCS #8).
    pub key: Secret,
    /// When it was stored.
    pub created: UnixMillis,
}

/// Why a listener is given a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A listener starts, and somebody waits for it.
    Start,
    /// In passing, once a minute.
    Look,
    /// Everything is read again: nothing that takes long.
    Reload,
    /// The operator wants another one now.
    Asked,
}

/// How far obtaining a certificate is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateProgress {
    /// What is being done now, for people.
    pub message: String,
}

/// How a listener's certificate fares.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TlsStatus {
    /// The one in use; `None` while the first is being obtained.
    pub certificate: Option<CertificateView>,
    /// When it is going to be renewed.
    #[serde(default)]
    pub next_renewal: Option<UnixMillis>,
    /// What is being done to obtain one now.
    #[serde(default)]
    pub progress: Option<String>,
    /// Why the last attempt to renew failed, until one succeeds.
    #[serde(default)]
    pub last_error: Option<String>,
    /// What the operator should know about the one in use.
    #[serde(default)]
    pub warning: Option<String>,
}
