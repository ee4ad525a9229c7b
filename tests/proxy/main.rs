//! The proxy on real sockets, in front of fake engines that answer with recordings; a file per matter.
#![expect(clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

#[expect(dead_code, reason = "other test binaries use the rest")]
#[path = "../support/engine_scripts.rs"]
mod engine_scripts;
#[path = "../support/fake_engine.rs"]
mod fake_engine;
#[path = "../support/fake_socks.rs"]
mod fake_socks;
#[path = "../support/media_scripts.rs"]
mod media_scripts;
#[path = "../support/started.rs"]
mod started;

mod aliases;
mod anthropic;
mod blocking;
mod budgets;
mod captures;
mod client_traps;
mod connections;
mod egress;
mod hostile;
mod keys;
mod media;
mod media_fetch;
mod metrics;
mod ollama_clients;
mod owner;
mod pacing;
mod passthrough;
mod profiles;
mod queue;
mod refusals;
mod reload;
mod residency;
mod responses;
mod rules;
mod serving;
mod smuggling;
mod stalling;
mod streams;
mod tls;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flm::audit::Collected;
use flm::net::egress::Egress;
use flm::net::media_fetch::MediaFetcher;
use flm::net::message::Outgoing;
use flm::net::pool::{Answered, Pool, PoolConfig, Repeat, UpstreamBody};
use flm::net::upstream::Upstream;
use flm::proxy::limits::ProxyLimits;
use flm::proxy::service::{Encryption, ProxyService};
use flm::proxy::shared::ProxyShared;
use flm::proxy::worker::Workers;
use flm::telemetry::captures::Ended;
use flm::telemetry::tasks::Tasks;
use flm::types::clock::Clock;
use flm::types::ids::{EngineId, KeyId};
use flm::types::key::{KeyLimits, Right};
use flm::types::request::{Progress, RequestEnd, RequestRow};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;

use crate::fake_engine::{FakeEngine, PATIENCE};
use crate::started::{Started, register};
pub(crate) use crate::started::{add_key, no_address_limits};

/// A running proxy with one key.
pub(crate) struct Proxy {
    pub(crate) shared: Arc<ProxyShared>,
    pub(crate) service: ProxyService,
    pub(crate) key: String,
    pub(crate) key_id: KeyId,
    pub(crate) audited: Collected,
    /// Captured exchanges come out here.
    pub(crate) captured: tokio::sync::Mutex<Ended>,
    workers: Workers,
    /// What runs on the workers' threads.
    runtimes: Vec<tokio::runtime::RuntimeMetrics>,
    client: Pool,
    _tasks: Tasks,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.workers.end();
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }
}

/// An answer with its fields where tests look for them.
pub(crate) fn answered(answered: Answered) -> http::Response<UpstreamBody> {
    let mut response = http::Response::new(answered.body);
    *response.status_mut() = answered.status;
    *response.headers_mut() = answered.fields.map();
    response
}

impl Proxy {
    pub(crate) fn start() -> Self {
        Self::with(ProxyLimits::default(), KeyLimits::default())
    }

    pub(crate) fn with(limits: ProxyLimits, key_limits: KeyLimits) -> Self {
        Self::at(Clock::system(), limits, key_limits)
    }

    pub(crate) fn at(clock: Clock, limits: ProxyLimits, key_limits: KeyLimits) -> Self {
        Self::built(None, clock, limits, key_limits, MediaFetcher::by(Egress::direct()))
    }

    /// The same with TLS, whose port is closed until there is a certificate.
    pub(crate) fn listening(
        encryption: Option<Encryption>,
        clock: Clock,
        limits: ProxyLimits,
        key_limits: KeyLimits,
    ) -> Self {
        Self::built(encryption, clock, limits, key_limits, MediaFetcher::by(Egress::direct()))
    }

    /// With a network of the test's own behind fetched images.
    pub(crate) fn staged(clock: Clock, limits: ProxyLimits, key_limits: KeyLimits, fetcher: MediaFetcher) -> Self {
        Self::built(None, clock, limits, key_limits, fetcher)
    }

    fn built(
        encryption: Option<Encryption>,
        clock: Clock,
        limits: ProxyLimits,
        key_limits: KeyLimits,
        fetcher: MediaFetcher,
    ) -> Self {
        let started = Started::start(encryption, clock, limits, fetcher);
        let (key_id, key) = add_key(&started.shared, "test", key_limits);
        let Started { shared, service, audited, captured, workers, runtimes, tasks } = started;
        let client = Pool::new(PoolConfig::default(), Egress::direct(), tasks.clone());
        let captured = tokio::sync::Mutex::new(captured);
        Self { shared, service, key, key_id, audited, captured, workers, runtimes, client, _tasks: tasks }
    }

    /// Tasks that live on the workers' threads now.
    pub(crate) fn tasks(&self) -> usize {
        self.runtimes.iter().map(tokio::runtime::RuntimeMetrics::num_alive_tasks).sum()
    }

    /// Registers an engine and reads its models.
    pub(crate) async fn engine(&self, id: &str, kind: &'static str, engine: &FakeEngine) -> EngineId {
        self.engine_with_slots(id, kind, engine, None).await
    }

    /// The same for an engine that runs that many requests at once.
    pub(crate) async fn engine_with_slots(
        &self,
        id: &str,
        kind: &'static str,
        engine: &FakeEngine,
        slots: Option<NonZeroU32>,
    ) -> EngineId {
        register(&self.shared, &self.client, id, kind, engine.url(), slots).await
    }

    pub(crate) fn upstream(&self) -> Upstream {
        Upstream::parse(&self.service.status().addresses[0]).expect("a URL")
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.upstream().address().parse().expect("an address")
    }

    /// A request with the key; the body makes it a JSON POST.
    pub(crate) fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Request<Full<Bytes>> {
        let mut request =
            Request::builder().method(method).uri(path).header("authorization", format!("Bearer {}", self.key));
        let bytes = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        request.body(Full::new(bytes)).expect("a request")
    }

    pub(crate) async fn open(&self, request: Request<Full<Bytes>>) -> http::Response<UpstreamBody> {
        self.open_by(&self.client, request).await
    }

    /// The same over connections of somebody else's.
    pub(crate) async fn open_by(&self, client: &Pool, request: Request<Full<Bytes>>) -> http::Response<UpstreamBody> {
        let (parts, body) = request.into_parts();
        let outgoing = Outgoing {
            method: parts.method,
            target: parts.uri.to_string().into(),
            fields: parts.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            body: body.collect().await.expect("a body").to_bytes(),
        };
        let sent = tokio::time::timeout(PATIENCE, client.send(&self.upstream(), outgoing, Repeat::ByMethod)).await;
        answered(sent.expect("in time").expect("an answer"))
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let (parts, body) = self.open(request).await.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await.expect("in time").expect("a body").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path, None)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path, Some(body))).await
    }

    /// Waits until the newest ended request fits, as a console would see it.
    pub(crate) async fn row(&self, fits: impl Fn(&RequestRow) -> bool) -> RequestRow {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(row) = self.shared.metrics.recent(100).into_iter().find(|row| fits(row)) {
                return row;
            }
            assert!(tokio::time::Instant::now() < deadline, "no such row: {:?}", self.shared.metrics.recent(100));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn ended(&self, end: RequestEnd) -> RequestRow {
        self.row(|row| matches!(row.progress, Progress::Ended { end: how, .. } if how == end)).await
    }
}

/// All rights.
pub(crate) fn rights(rights: &[Right]) -> BTreeSet<Right> {
    rights.iter().copied().collect()
}
