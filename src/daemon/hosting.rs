//! [`Hosting`]: the listeners of an owner, and what `operations` asks of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::certificates;
use crate::audit::{Acknowledgement, AuditLog};
use crate::config::table;
use crate::control::protocol;
use crate::engines::adapter::BoxFuture;
use crate::operations::context::{Host, ListenFault, SettingsInForce, Told};
use crate::proxy::service::{Encryption, ListenError, ProxyService};
use crate::proxy::shared::ProxyShared;
use crate::proxy::worker::Workers;
use crate::storage::SecurityStore;
use crate::telemetry::live::Hub;
use crate::telemetry::tasks::Tasks;
use crate::tls::modes;
use crate::tls::resolver::Resolver;
use crate::tls::supply::Supply;
use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::certificate::Occasion;
use crate::types::clock::UnixMillis;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::gpu::GpuView;
use crate::types::listener::{ListenerConfig, ListenerStatus, OwnerKind, ProxyStatus, TlsMode};
use crate::types::live::{LiveEvent, LiveSnapshot};

/// Requests in a snapshot (see `LiveSnapshot`).
const SNAPSHOT_REQUESTS: usize = 500;

/// What an owner is.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// How it runs.
    pub(super) kind: OwnerKind,
    /// When it started.
    pub(super) started: UnixMillis,
    /// The folder it owns.
    pub(super) home: String,
    /// Whether this is the demo.
    pub(super) demo: bool,
}

/// The listeners of an owner with everything that they are made of.
pub(super) struct Hosting {
    pub(super) identity: Identity,
    pub(super) proxy: Arc<ProxyShared>,
    pub(super) workers: Workers,
    pub(super) settings: Arc<SettingsInForce>,
    pub(super) security: SecurityStore,
    pub(super) audit: AuditLog,
    pub(super) hub: Hub,
    /// What the drivers of graphics processors told last; written by `health::watch_gpus`.
    pub(super) gpus: ArcSwap<Vec<GpuView>>,
    /// What gives listeners their certificates.
    pub(super) supply: Arc<Supply>,
    /// Owns the listeners' tasks.
    pub(super) tasks: Tasks,
    /// By port. The lock is held for look-ups only, never while a listener starts or stops.
    pub(super) listeners: Mutex<BTreeMap<u16, Arc<ProxyService>>>,
    /// Fires when somebody asks the owner to end.
    pub(super) ending: CancellationToken,
    /// Fires when all listeners have drained after that.
    pub(super) drained: CancellationToken,
}

impl Hosting {
    pub(super) fn services(&self) -> Vec<Arc<ProxyService>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Names that the world knows the listener by.
    fn names_of(&self, config: &ListenerConfig) -> Vec<String> {
        if config.mode.0 != TlsMode::HTTPS_ACME {
            return Vec::new();
        }
        let domains = self.settings.load().get(table::ACME_DOMAINS);
        domains.into_iter().filter(|domain| !domain.starts_with("*.")).collect()
    }

    fn service(&self, port: u16) -> Option<Arc<ProxyService>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).get(&port).cloned()
    }

    pub(super) fn publish_status(&self) {
        self.hub.publish(LiveEvent::Status(Box::new(self.status())));
    }

    /// Writes an audit row and waits until it is on disk.
    pub(super) async fn record(&self, kind: AuditKind, severity: Severity, details: String) {
        let event = AuditEvent::new(self.proxy.clock.wall(), kind, severity, details);
        if self.audit.sink().record_acknowledged(event).await != Acknowledgement::Written {
            tracing::error!("a certificate changed, but its row in the audit log could not be written");
        }
    }

    /// Stops all listeners, side by side.
    pub(super) async fn drain(&self) {
        let ports: Vec<u16> = self.services().iter().map(|service| service.status().config.port).collect();
        join_all(ports.into_iter().map(|port| self.stop(port))).await;
    }

    /// Whether there was a listener to stop.
    async fn stop(&self, port: u16) -> Option<()> {
        let service = self.service(port)?;
        let patience: Duration = self.settings.load().get(table::PROXY_DRAIN_TIMEOUT);
        // The listener is told first, so that the published status already says that it drains.
        tokio::join!(service.stop(patience), async { self.publish_status() });
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).remove(&port);
        self.publish_status();
        Some(())
    }
}

impl Host for Hosting {
    fn status(&self) -> ProxyStatus {
        ProxyStatus {
            version: protocol::VERSION.to_owned(),
            pid: std::process::id(),
            owner: self.identity.kind,
            started: self.identity.started,
            home: self.identity.home.clone(),
            listeners: self.services().iter().map(|service| service.status()).collect(),
            egress: self.proxy.egress.status(),
            exposure: self.proxy.guard.exposure().now(),
            overload: self.proxy.guard.overload(),
            simulating: self.proxy.guard.policy().simulating(),
            demo: self.identity.demo,
            read_only: self.security.read_only(),
            reload_fault: self.settings.fault().map(|fault| fault.as_ref().clone()),
            needs_restart: self.settings.needing_restart(),
        }
    }

    fn snapshot(&self) -> LiveSnapshot {
        LiveSnapshot {
            // The number first: whatever is published from here on is in the state already or applied after.
            sequence: self.hub.sequence(),
            status: self.status(),
            engines: self.proxy.registry.views(),
            models: self.proxy.registry.models().as_ref().clone(),
            load: self.proxy.registry.load(),
            gpus: self.gpus.load().as_ref().clone(),
            traffic: self.proxy.metrics.traffic(),
            requests: self.proxy.metrics.recent(SNAPSHOT_REQUESTS),
            audit: self.audit.recent(),
        }
    }

    fn open(&self, config: ListenerConfig) -> Result<ListenerStatus, ListenFault> {
        if self.ending.is_cancelled() {
            let reason = "the proxy is about to end".to_owned();
            return Err(ListenFault::Refused { port: config.port, reason });
        }
        let encryption = match modes::find(&config.mode.0).and_then(|mode| mode.certify) {
            None => None,
            Some(_) => Some(Encryption {
                resolver: Resolver::new().map_err(|error| ListenFault::Certificate(error.into()))?,
                challenges: self.supply.challenges.clone(),
                names: self.names_of(&config),
            }),
        };
        let started = ProxyService::start(config, encryption, self.proxy.clone(), &self.workers, &self.tasks);
        let service = started.map_err(|error| match error {
            ListenError::PortInUse { port, .. } => ListenFault::PortInUse(port),
            ListenError::Refused { port, reason, .. } => ListenFault::Refused { port, reason },
        })?;
        let status = service.status();
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).insert(status.config.port, Arc::new(service));
        self.publish_status();
        Ok(status)
    }

    fn certify(&self, port: u16, occasion: Occasion, told: Told) -> BoxFuture<'_, Outcome<ListenerStatus>> {
        Box::pin(async move {
            let gone = || Failure::new(ErrorCode::NotFound, format!("no listener runs on port {port}"));
            let service = self.service(port).ok_or_else(gone)?;
            certificates::give(self, &service, occasion, &told).await?;
            Ok(service.status())
        })
    }

    fn close(&self, port: u16) -> BoxFuture<'_, Outcome<()>> {
        Box::pin(async move {
            let stopped = self.stop(port).await;
            stopped.ok_or_else(|| Failure::new(ErrorCode::NotFound, format!("no listener runs on port {port}")))
        })
    }

    fn renew_certificates(&self) -> BoxFuture<'_, Outcome<Vec<String>>> {
        Box::pin(certificates::look_at_all(self))
    }

    fn end(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.ending.cancel();
            self.drained.cancelled().await;
        })
    }
}
