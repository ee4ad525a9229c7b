//! A proxy in this process: two workers on threads of their own, a listener on a free port of loopback, no stores.
//!
//! Included with `#[path]` by the tests of the proxy and by the one that counts its allocations.

use std::num::NonZeroU32;
use std::sync::Arc;

use arc_swap::ArcSwap;
use flm::audit::{Collected, Sink};
use flm::engines::affinity::Affinity;
use flm::engines::registry::Registry;
use flm::guard::{Guard, key_hash, key_text};
use flm::net::egress::Egress;
use flm::net::media_fetch::MediaFetcher;
use flm::net::pool::Pool;
use flm::proxy::limits::ProxyLimits;
use flm::proxy::profile::ProfileTable;
use flm::proxy::prompt::PromptTable;
use flm::proxy::service::{Encryption, ProxyService};
use flm::proxy::shared::ProxyShared;
use flm::proxy::worker::Workers;
use flm::telemetry::captures::{CaptureLane, Ended};
use flm::telemetry::hashing::HashingThreads;
use flm::telemetry::live::Hub;
use flm::telemetry::metrics::Metrics;
use flm::telemetry::request_lane::RequestLane;
use flm::telemetry::tasks::Tasks;
use flm::types::clock::{Clock, UnixMillis};
use flm::types::engine::{EngineKind, EngineOrigin, EngineRecord};
use flm::types::ids::{EngineId, KeyId};
use flm::types::key::{KeyLimits, KeyRecord, KeyView};
use flm::types::listener::ListenerConfig;
use flm::types::policy::SecurityPolicy;

/// What was started; the workers are ended by whoever has them.
pub(crate) struct Started {
    pub(crate) shared: Arc<ProxyShared>,
    pub(crate) service: ProxyService,
    pub(crate) audited: Collected,
    /// Captured exchanges come out here.
    pub(crate) captured: Ended,
    pub(crate) workers: Workers,
    /// What runs on the workers' threads.
    pub(crate) runtimes: Vec<tokio::runtime::RuntimeMetrics>,
    pub(crate) tasks: Tasks,
}

impl Started {
    /// Without a key and without an engine.
    pub(crate) fn start(
        encryption: Option<Encryption>,
        clock: Clock,
        limits: ProxyLimits,
        fetcher: MediaFetcher,
    ) -> Self {
        let tasks = Tasks::new();
        let metrics = Metrics::new(2);
        let hub = Hub::new();
        // Nobody reads the log here.
        let (log, _) = RequestLane::new(1);
        metrics.collect(hub.clone(), clock.clone(), &tasks, log, || {}, |_rows| {});
        let (audit, audited) = Sink::collecting();
        let (captures, captured) = CaptureLane::new();
        let shared = Arc::new(ProxyShared {
            guard: Arc::new(Guard::new(SecurityPolicy::default(), [7; 32])),
            registry: Registry::new(hub, clock.clone()),
            audit,
            limits: ArcSwap::from_pointee(limits),
            prompts: ArcSwap::from_pointee(PromptTable::default()),
            profiles: ArcSwap::from_pointee(ProfileTable::default()),
            metrics,
            captures,
            hashing: HashingThreads::start().expect("threads"),
            egress: Egress::direct(),
            fetcher,
            clock,
            connections: Arc::default(),
            affinity: Affinity::default(),
            served: flm::proxy::shared::ServedCertificates::default(),
        });
        let (workers, runs) = Workers::new(2, &shared);
        let runtimes = runs.into_iter().map(|run| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            let metrics = runtime.metrics();
            std::thread::spawn(move || runtime.block_on(run.run()));
            metrics
        });
        let runtimes = runtimes.collect();
        let config = ListenerConfig { port: 0, ..ListenerConfig::default() };
        let service = ProxyService::start(config, encryption, shared.clone(), &workers, &tasks).expect("listens");
        Self { shared, service, audited, captured, workers, runtimes, tasks }
    }
}

/// Registers an engine and reads its models.
pub(crate) async fn register(
    shared: &ProxyShared,
    client: &Pool,
    id: &str,
    kind: &'static str,
    url: String,
    slots: Option<NonZeroU32>,
) -> EngineId {
    let id = EngineId::parse(id).expect("id");
    let record = EngineRecord {
        id: id.clone(),
        kind: EngineKind::named(kind),
        url,
        api_key_env: None,
        direct: false,
        slots,
        origin: EngineOrigin::Manual,
        created: UnixMillis(1_700_000_000_000),
    };
    shared.registry.put(record, &|_| None).expect("registers");
    shared.registry.check(&id, client).await.expect("a check");
    id
}

/// Makes a key and puts it into the guard.
pub(crate) fn add_key(shared: &ProxyShared, label: &str, limits: KeyLimits) -> (KeyId, String) {
    let (id, secret) = key_text::write(&mut || fastrand::u8(..));
    let view = KeyView::unused(
        id,
        label.to_owned(),
        secret.expose()[secret.expose().len() - 4..].to_owned(),
        limits,
        UnixMillis(0),
    );
    let hash = key_hash::hash(secret.expose()).expect("hashes");
    shared.guard.put_key(KeyRecord { view, hash });
    (id, secret.expose().to_owned())
}

/// A policy that counts no address: for many requests of one.
pub(crate) fn no_address_limits() -> SecurityPolicy {
    let text = r#"{"address_rate":{"mode":"off"},"address_in_flight":{"mode":"off"}}"#;
    SecurityPolicy::parse(text).expect("a policy")
}
