//! [`ProxyShared`]: what every worker and listener of one owner shares.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;

use super::connection_limits::ConnectionLimits;
use super::limits::ProxyLimits;
use super::profile::ProfileTable;
use super::prompt::PromptTable;
use crate::audit::Sink;
use crate::engines::affinity::Affinity;
use crate::engines::registry::Registry;
use crate::guard::Guard;
use crate::net::egress::Egress;
use crate::net::media_fetch::MediaFetcher;
use crate::telemetry::captures::CaptureLane;
use crate::telemetry::hashing::HashingThreads;
use crate::telemetry::metrics::Metrics;
use crate::tls::resolver::Resolver;
use crate::types::clock::{Clock, UnixMillis};

/// What the listeners show to clients over TLS, for those who tell about it.
#[derive(Debug, Default)]
pub struct ServedCertificates(Mutex<Vec<(u16, Weak<Resolver>)>>);

impl ServedCertificates {
    /// A listener serves TLS on this port, as long as it lives.
    pub(super) fn add(&self, port: u16, resolver: &Arc<Resolver>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, resolver)| resolver.strong_count() > 0);
        all.push((port, Arc::downgrade(resolver)));
    }

    /// Until when the certificate of each TLS port is valid, by port; ports that have none yet are left out.
    pub(super) fn ends(&self) -> Vec<(u16, UnixMillis)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end =
            |(port, resolver): &(u16, Weak<Resolver>)| Some((*port, resolver.upgrade()?.certificate()?.not_after));
        let mut ends: Vec<_> = all.iter().filter_map(end).collect();
        ends.sort_unstable();
        ends
    }
}

/// Live state that requests read. Made once by the daemon.
pub struct ProxyShared {
    /// Security decisions.
    pub guard: Arc<Guard>,
    /// Engines and models.
    pub registry: Registry,
    /// Where security events go.
    pub audit: Sink,
    /// Limits in force.
    pub limits: ArcSwap<ProxyLimits>,
    /// Prompts in force.
    pub prompts: ArcSwap<PromptTable>,
    /// Model profiles in force.
    pub profiles: ArcSwap<ProfileTable>,
    /// Counters, one shard per worker.
    pub metrics: Arc<Metrics>,
    /// Where captured bodies go.
    pub captures: CaptureLane,
    /// Where Argon2 runs.
    pub hashing: HashingThreads,
    /// The way to engines that are not on this machine.
    pub egress: Egress,
    /// Fetches images that requests name by address.
    pub fetcher: MediaFetcher,
    /// The time.
    pub clock: Clock,
    /// Open connections of all listeners; begins empty.
    pub connections: Arc<ConnectionLimits>,
    /// Which engine served which conversation.
    pub affinity: Affinity,
    /// Certificates of all listeners; begins empty.
    pub served: ServedCertificates,
}
