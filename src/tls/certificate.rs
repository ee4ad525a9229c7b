//! [`Certificate`]: a chain and its key that were checked, from PEM or files.
//!
//! Made for listeners by the modes; what is made once is known to fit. Must never be made from what has expired.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::error::{CertificateFault, TlsError};
use super::issuing;
use crate::config::files::{self, KeyFile};
use crate::types::certificate::{CertificateView, StoredCertificate};
use crate::types::clock::UnixMillis;
use crate::types::text::escape;

/// Largest certificate or key file that makes sense, bytes: a chain has a few certificates of some KiB.
const LARGEST_FILE: u64 = 256 << 10;

/// A chain with its private key, checked.
#[derive(Clone)]
pub struct Certificate {
    pub(super) certified: Arc<CertifiedKey>,
    /// What clients get that call a name, where it is another one: for names alone.
    pub(super) by_name: Option<Arc<CertifiedKey>>,
    /// What it is, for people.
    pub view: CertificateView,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("view", &self.view).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads and checks a chain and its key.
    ///
    /// # Errors
    /// The first fault that makes it useless at `now`.
    pub fn from_pem(chain: &[u8], key: &[u8], now: UnixMillis) -> Result<Self, CertificateFault> {
        let chain = read_chain(chain)?;
        let view = describe(chain.first().ok_or(CertificateFault::NoCertificate)?, 1)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateFault::NoKey)?;
        let key = any_supported_type(&key).map_err(|error| CertificateFault::KeyUnusable(error.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        if certified.keys_match().is_err() {
            return Err(CertificateFault::Mismatched);
        }
        if view.not_after <= now {
            return Err(CertificateFault::Expired { until: view.not_after });
        }
        if view.not_before > now {
            return Err(CertificateFault::NotYetValid { from: view.not_before, now });
        }
        if view.names.is_empty() {
            return Err(CertificateFault::Nameless);
        }
        Ok(Self { certified: Arc::new(certified), by_name: None, view })
    }

    /// With another one for clients that call a name. Whoever calls an address gets this one, and it is what is told of.
    pub(super) fn with_by_name(self, by_name: &Self) -> Self {
        Self { by_name: Some(by_name.certified.clone()), ..self }
    }

    /// When it is renewed.
    #[must_use]
    pub fn renewal(&self) -> UnixMillis {
        issuing::renewal_of(self.view.not_before, self.view.not_after)
    }

    /// The same for one that the store holds.
    ///
    /// # Errors
    /// As [`Certificate::from_pem`].
    pub fn from_stored(stored: &StoredCertificate, now: UnixMillis) -> Result<Self, CertificateFault> {
        Self::from_pem(stored.chain.as_bytes(), stored.key.expose().as_bytes(), now)
    }

    /// Reads and checks the operator's own files. Blocks.
    ///
    /// # Errors
    /// When a file cannot be read, others can read the key, or the pair cannot be used.
    pub fn from_files(chain: &Path, key: &Path, now: UnixMillis) -> Result<Self, TlsError> {
        let unusable = |path: &Path, fault| TlsError::Unusable {
            what: format!("the certificate in {}", escape(&path.to_string_lossy())),
            fault,
        };
        let text = files::read_limited(chain, LARGEST_FILE)?;
        let secret = match files::read_key_file(key, LARGEST_FILE)? {
            KeyFile::Private(content) => content,
            KeyFile::TooOpen { mode } => {
                return Err(unusable(chain, CertificateFault::KeyTooOpen { path: key.to_owned(), mode }));
            }
            KeyFile::OfAnother { owner, me } => {
                return Err(unusable(chain, CertificateFault::KeyOfAnother { path: key.to_owned(), owner, me }));
            }
        };
        let made = Self::from_pem(&text, &secret, now).map_err(|fault| match fault {
            CertificateFault::NoKey => unusable(key, fault),
            fault => unusable(chain, fault),
        })?;
        if is_authority(&made.certified.cert[0]) {
            return Err(unusable(chain, CertificateFault::Authority));
        }
        Ok(made)
    }
}

fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateFault> {
    let mut chain = Vec::new();
    for (position, block) in (1..).zip(CertificateDer::pem_slice_iter(pem)) {
        let block = block.map_err(|error| CertificateFault::Malformed { position, reason: error.to_string() })?;
        chain.push(block);
    }
    if chain.is_empty() {
        return Err(CertificateFault::NoCertificate);
    }
    Ok(chain)
}

/// What the first certificate of a chain is.
///
/// # Errors
/// When there is none or it does not parse.
pub fn describe_pem(chain: &str) -> Result<CertificateView, CertificateFault> {
    let chain = read_chain(chain.as_bytes())?;
    describe(chain.first().ok_or(CertificateFault::NoCertificate)?, 1)
}

fn describe(der: &CertificateDer<'_>, position: usize) -> Result<CertificateView, CertificateFault> {
    let (_, parsed) = X509Certificate::from_der(der)
        .map_err(|error| CertificateFault::Malformed { position, reason: error.to_string() })?;
    let at = |time: x509_parser::time::ASN1Time| UnixMillis(time.timestamp().saturating_mul(1000));
    let names = match parsed.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.iter().filter_map(name_text).collect(),
        Ok(None) => Vec::new(),
        Err(error) => return Err(CertificateFault::Malformed { position, reason: error.to_string() }),
    };
    Ok(CertificateView {
        names,
        subject: escape(&parsed.subject().to_string()).into_owned(),
        issuer: escape(&parsed.issuer().to_string()).into_owned(),
        not_before: at(parsed.validity().not_before),
        not_after: at(parsed.validity().not_after),
        fingerprint: fingerprint(der),
    })
}

fn is_authority(der: &CertificateDer<'_>) -> bool {
    // A self-signed certificate for one server often says CA:TRUE as well; one that signs others has no server names.
    X509Certificate::from_der(der)
        .is_ok_and(|(_, parsed)| parsed.is_ca() && !matches!(parsed.subject_alternative_name(), Ok(Some(_))))
}

fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(escape(name).into_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(std::net::IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(std::net::IpAddr::from),
        _ => None,
    }
}

/// SHA-256 in hexadecimal pairs with colons between, as `openssl x509 -fingerprint -sha256` writes it.
fn fingerprint(der: &[u8]) -> String {
    let pairs: Vec<String> = Sha256::digest(der).iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}
