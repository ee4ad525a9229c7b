//! [`Supply`]: what modes need to give a listener its certificate, and [`Supplied`]: what they give.

use std::fmt;
use std::sync::Arc;

use super::certificate::Certificate;
use super::challenges::Challenges;
use super::error::TlsError;
use super::issuing::Issued;
use super::machine::Machine;
use crate::config::settings::Settings;
use crate::net::egress::Egress;
use crate::storage::SecurityStore;
use crate::telemetry::tasks::Tasks;
use crate::types::certificate::{Occasion, StoredCertificate};
use crate::types::clock::{Clock, UnixMillis};
use crate::types::failure::Failure;
use crate::types::listener::ListenerConfig;

/// Answers an environment variable.
pub type Variable = dyn Fn(&str) -> Option<String> + Send + Sync;

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
    /// Environment variables of this process: secrets that settings name.
    pub variable: Box<Variable>,
    /// The way to ACME directories and DNS providers.
    pub egress: Egress,
    /// Owns what takes things out of the world again; ended last, and with patience.
    pub cleanups: Tasks,
    /// Held while a certificate is ordered from an ACME directory: one order at a time.
    pub ordering: tokio::sync::Mutex<()>,
}

/// A certificate that is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// For which listener.
    pub listener: ListenerConfig,
    /// Why.
    pub occasion: Occasion,
    /// Where it is told how far it is.
    pub progress: Progress,
}

/// Where it is told how far something is. Cloned freely.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(&str) + Send + Sync>);

impl Progress {
    /// Tells it to a function, which must not wait.
    pub fn new(told: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }

    /// Tells nobody.
    #[must_use]
    pub fn unheard() -> Self {
        Self::new(|_| {})
    }

    /// Tells what is being done now.
    pub fn tell(&self, step: &str) {
        (self.0)(step);
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
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
    /// Why there is no newer one, where one was due or asked for.
    pub trouble: Option<Failure>,
}

impl Supplied {
    /// One about which there is nothing more to say.
    #[must_use]
    pub fn good(certificate: Certificate, next_renewal: Option<UnixMillis>) -> Self {
        Self { certificate, next_renewal, warning: None, trouble: None }
    }
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
