//! [`Supply`]: what modes need to give a listener its certificate, and [`Supplied`]: what they give.

use std::sync::Arc;

use super::certificate::Certificate;
use super::challenges::Challenges;
use super::error::TlsError;
use super::issuing::Issued;
use super::machine::Machine;
use crate::config::settings::Settings;
use crate::storage::SecurityStore;
use crate::types::certificate::StoredCertificate;
use crate::types::clock::{Clock, UnixMillis};

/// What modes need to give a listener its certificate. Made once by the daemon.
pub struct Supply {
    /// Where certificates are kept.
    pub store: SecurityStore,
    /// The time.
    pub clock: Clock,
    /// Looks at the machine's names and addresses.
    pub machine: Box<dyn Fn() -> Machine + Send + Sync>,
    /// Settings in force.
    pub settings: Box<dyn Fn() -> Arc<Settings> + Send + Sync>,
    /// What the plain ports answer to a certificate authority.
    pub challenges: Arc<Challenges>,
}

/// A certificate for a listener, and when it will be another one.
#[derive(Debug, Clone)]
pub struct Supplied {
    /// To be served from now on.
    pub certificate: Certificate,
    /// When it is renewed; `None` when that is the operator's business.
    pub next_renewal: Option<UnixMillis>,
    /// What the operator should know about it.
    pub warning: Option<String>,
}

impl Supply {
    /// The stored certificate of that name, when it is good, not due for renewal, and for all that is wanted.
    ///
    /// # Errors
    /// Of the store.
    pub(super) async fn kept(
        &self,
        name: &str,
        wanted: &[String],
        now: UnixMillis,
    ) -> Result<Option<Certificate>, TlsError> {
        let stored = self.store.certificate(name).await?;
        Ok(stored
            .and_then(|stored| Certificate::from_stored(&stored, now).ok())
            .filter(|kept| now < kept.renewal() && wanted.iter().all(|name| kept.view.names.contains(name))))
    }

    /// Stores what was just made and answers it.
    ///
    /// # Errors
    /// Of the store.
    pub(super) async fn keep(&self, name: &str, made: Issued, now: UnixMillis) -> Result<Certificate, TlsError> {
        let stored = StoredCertificate { name: name.into(), chain: made.chain, key: made.key, created: now };
        let certificate = Certificate::from_stored(&stored, now)
            .map_err(|fault| TlsError::Unusable { what: "the certificate that was just made".into(), fault })?;
        self.store.put_certificates(vec![stored]).await?;
        Ok(certificate)
    }

    /// The machine's names with those that the settings add.
    ///
    /// # Errors
    /// When looking panicked.
    pub(super) async fn names(self: &Arc<Self>) -> Result<Machine, TlsError> {
        let supply = self.clone();
        let further = (self.settings)().get(crate::config::table::PROXY_ALLOWED_HOSTS);
        // Off the runtime: the kernel is asked through files.
        let looked = tokio::task::spawn_blocking(move || (supply.machine)().with_names(further)).await;
        looked.map_err(|error| TlsError::Setup(format!("looking at the machine's addresses failed: {error}")))
    }
}
