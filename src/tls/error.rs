//! [`TlsError`]: why there is no usable certificate, and what to do about it.

use std::path::PathBuf;

use super::acme::error::AcmeError;
use crate::config::files::FileError;
use crate::storage::StorageError;
use crate::types::calendar::date;
use crate::types::clock::UnixMillis;
use crate::types::failure::{ErrorCode, Failure};
use crate::types::text::escape;

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate that is there cannot be used.
    #[error("{what} cannot be used: {fault}")]
    Unusable {
        /// Which one, as a person would name it.
        what: String,
        /// Why.
        #[source]
        fault: CertificateFault,
    },
    /// A file could not be read.
    #[error("{}: {}", .0, .0.source)]
    File(#[from] FileError),
    /// The store could not be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A key or certificate could not be made.
    #[error("a certificate could not be made: {0}")]
    NotMade(String),
    /// The mode needs something that was not given.
    #[error("{message}")]
    Incomplete {
        /// What is missing.
        message: String,
        /// What to type.
        hint: String,
    },
    /// What was given does not fit the mode, or two settings do not fit each other.
    #[error("{message}")]
    Unfit {
        /// What and why.
        message: String,
        /// What to type.
        hint: String,
    },
    /// The certificate authority does not allow any of the names that this machine has.
    #[error("the certificate authority of this home allows none of this machine's names and addresses")]
    NothingAllowed,
    /// There is no certificate authority.
    #[error("this home has no certificate authority")]
    NoAuthority,
    /// The ACME directory gave none.
    #[error(transparent)]
    Acme(#[from] AcmeError),
    /// The system's TLS could not be set up.
    #[error("TLS could not be set up: {0}")]
    Setup(String),
}

/// Why a certificate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// No PEM block of a certificate.
    #[error("there is no certificate in it (a PEM block BEGIN CERTIFICATE)")]
    NoCertificate,
    /// A block that is none.
    #[error("certificate {position} of the chain does not parse: {reason}")]
    Malformed {
        /// Position in the chain, from 1.
        position: usize,
        /// What the parser says.
        reason: String,
    },
    /// No PEM block of a private key.
    #[error("there is no private key in it (a PEM block BEGIN PRIVATE KEY, without a passphrase)")]
    NoKey,
    /// The key is of a kind that TLS has no use for.
    #[error("the private key is of no kind that TLS 1.2 and 1.3 take: {0}")]
    KeyUnusable(String),
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the first certificate of the chain")]
    Mismatched,
    /// Too old.
    #[error("it expired on {}", date(*.until))]
    Expired {
        /// When.
        until: UnixMillis,
    },
    /// Too new, which mostly means a wrong clock.
    #[error("it is valid only from {}, and this machine's clock says {}", date(*.from), date(*.now))]
    NotYetValid {
        /// From when.
        from: UnixMillis,
        /// What the clock says.
        now: UnixMillis,
    },
    /// Nothing that a client could compare with what it called.
    #[error("it is for no name and no address (no subject alternative name), so every client would refuse it")]
    Nameless,
    /// The first certificate signs others.
    #[error("its first certificate is that of a certificate authority: the server's own must come first")]
    Authority,
    /// Others can read the key.
    #[error("{} has mode {mode:04o}, so other users could read the private key", escape(&.path.to_string_lossy()))]
    KeyTooOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Somebody else owns the key.
    #[error("{} belongs to user {owner}, and FLM runs as user {me}", escape(&.path.to_string_lossy()))]
    KeyOfAnother {
        /// The file.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who FLM is.
        me: u32,
    },
}

impl CertificateFault {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::KeyTooOpen { path, .. } => format!("chmod 600 {}", escape(&path.to_string_lossy())),
            Self::KeyOfAnother { path, .. } => {
                format!("chown the file to the user that runs FLM: {}", escape(&path.to_string_lossy()))
            }
            Self::Expired { .. } => "renew it and start again; the mode packaged-ca renews by itself".to_owned(),
            Self::NotYetValid { .. } => "set this machine's clock (timedatectl), then start again".to_owned(),
            Self::Authority | Self::Malformed { .. } | Self::NoCertificate => {
                "give the chain as PEM, the server's own certificate first (certbot calls it fullchain.pem)".to_owned()
            }
            Self::NoKey | Self::Mismatched => {
                "give the key that the certificate was made with, as PEM (certbot calls it privkey.pem); a passphrase comes off with: \
                 openssl pkey -in KEY -out NEW"
                    .to_owned()
            }
            Self::KeyUnusable(_) => {
                "have a certificate issued for another key: P-256, P-384, Ed25519, or RSA of at least 2048 bits".to_owned()
            }
            Self::Nameless => "have it issued again with the name that clients call as subjectAltName".to_owned(),
        }
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        let message = error.to_string();
        let failed = |hint: String| Self::new(ErrorCode::ProxyCertFailed, message.clone()).hint(hint);
        match error {
            TlsError::Unusable { fault, .. } => failed(fault.hint()),
            TlsError::File(error) => failed(error.hint()),
            TlsError::Storage(error) => error.into(),
            TlsError::Acme(error) => error.into(),
            TlsError::NotMade(_) | TlsError::Setup(_) => failed("the log says more; please report it".to_owned()),
            TlsError::Incomplete { hint, .. } => Self::new(ErrorCode::ConfigNotSet, message).hint(hint),
            TlsError::Unfit { hint, .. } => Self::new(ErrorCode::ProxyInvalidConfig, message).hint(hint),
            TlsError::NothingAllowed => {
                failed("make a new one that allows them: flm security ca init --replace".to_owned())
            }
            TlsError::NoAuthority => {
                Self::new(ErrorCode::NotFound, message).hint("make one with: flm security ca init")
            }
        }
    }
}
