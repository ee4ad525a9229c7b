//! [`ProxyShared`]: what every worker and listener of one owner shares.

use std::sync::Arc;

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
use crate::telemetry::hashing::HashingThreads;
use crate::telemetry::metrics::Metrics;
use crate::types::clock::Clock;

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
}
