//! What is remembered of certificates from an ACME directory (SPEC §6): accounts, attempts, advice on renewal.

use super::clock::UnixMillis;
use super::secret::Secret;

/// An account at an ACME directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeAccount {
    /// The directory's URL.
    pub directory: String,
    /// Key id of the external account that it is bound to (RFC 8555 §7.3.4); empty when it is bound to none.
    pub binding: String,
    /// Addresses for mail that the directory knows of it, joined by commas.
    pub contacts: String,
    /// Its URL and private key, in the form of the ACME client.
    pub credentials: Secret,
    /// When it was made.
    pub created: UnixMillis,
}

/// How attempts to obtain a certificate went since one succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeAttempts {
    /// Failures in a row, at least 1.
    pub failures: u32,
    /// When the last one failed.
    pub last: UnixMillis,
    /// Why.
    pub why: String,
    /// No attempt before that.
    pub next: UnixMillis,
    /// Whether the directory itself named that time.
    pub named_by_directory: bool,
}

/// When a directory advises to renew a certificate (RFC 9773).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalAdvice {
    /// SHA-256 of the certificate that it is about, as `CertificateView` writes it.
    pub fingerprint: String,
    /// When to renew: a point of the advised window, chosen once; `None` when the directory gives no advice.
    pub renew: Option<UnixMillis>,
    /// First and last moment of the window that it was chosen from.
    pub window: Option<(UnixMillis, UnixMillis)>,
    /// When to ask again.
    pub ask_again: UnixMillis,
}

/// A TXT record that is, or may be, in the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedRecord {
    /// `_acme-challenge.` and the domain.
    pub name: String,
    /// The digest of the key authorization (RFC 8555 §8.4).
    pub value: String,
    /// The DNS provider that was to set it, as the setting names it.
    pub provider: String,
    /// When.
    pub placed: UnixMillis,
}
