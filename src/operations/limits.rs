//! From settings to the snapshots that requests read: the only place that knows which setting is which limit.

use std::sync::Arc;
use std::time::Duration;

use super::context::Live;
use crate::config::settings::Settings;
use crate::config::table;
use crate::engines::state::Thresholds;
use crate::guard::GuardPolicy;
use crate::proxy::limits::{Affine, ProxyLimits, Revoking};
use crate::telemetry::logging;

/// The limits of listener and pipeline.
#[must_use]
pub fn proxy_limits(settings: &Settings) -> ProxyLimits {
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    ProxyLimits {
        json_body_bytes: bytes(settings.get(table::PROXY_BODY_LIMIT)),
        head_bytes: bytes(settings.get(table::PROXY_HEAD_LIMIT)),
        first_byte: settings.get(table::PROXY_FIRST_BYTE_TIMEOUT),
        head: settings.get(table::PROXY_HEAD_TIMEOUT),
        body_idle: settings.get(table::PROXY_BODY_IDLE_TIMEOUT),
        keep_alive_idle: settings.get(table::PROXY_KEEP_ALIVE_TIMEOUT),
        engine_first_byte: settings.get(table::ENGINE_FIRST_BYTE_TIMEOUT),
        engine_gap: settings.get(table::ENGINE_GAP_TIMEOUT),
        queue_length: settings.get(table::ENGINE_QUEUE_LENGTH),
        queue_wait: settings.get(table::ENGINE_QUEUE_WAIT),
        circuit_failures: settings.get(table::ENGINE_CIRCUIT_FAILURES),
        affinity: if settings.get(table::ENGINE_AFFINITY) { Affine::Prefers } else { Affine::Ignores },
        heartbeat: settings.get(table::PROXY_HEARTBEAT_INTERVAL),
        connections_per_address: settings.get(table::LIMITS_CONNECTIONS_PER_ADDRESS),
        connections: settings.get(table::LIMITS_CONNECTIONS),
        cors_allowed_origins: settings.get(table::CORS_ALLOWED_ORIGINS),
        allowed_hosts: settings.get(table::PROXY_ALLOWED_HOSTS),
        revoking: if settings.get(table::KEYS_REVOKE_ENDS_STREAMS) {
            Revoking::EndsStreams
        } else {
            Revoking::LetsStreamsEnd
        },
    }
}

/// The thresholds of the guard.
#[must_use]
pub fn guard_policy(settings: &Settings) -> GuardPolicy {
    let per_minute = settings.get(table::LIMITS_ADDRESS_REQUESTS_PER_MINUTE);
    // The same share as the default's: a fifth of a minute may come at once.
    GuardPolicy { address_requests_per_minute: per_minute, address_burst: (per_minute / 5).max(1) }
}

/// The thresholds of the engines' state machine.
#[must_use]
pub fn engine_thresholds(settings: &Settings) -> Thresholds {
    Thresholds {
        slow: Duration::from_millis(u64::from(settings.get(table::ENGINE_HEALTH_LATENCY_THRESHOLD_MS))),
        max_network_failures: settings.get(table::ENGINE_MAX_NETWORK_FAILURES),
        ..Thresholds::default()
    }
}

/// Puts settings in force: the next request sees them. Cannot fail.
pub fn publish(settings: &Settings, live: Option<&Live>) {
    logging::set_level(settings.get(table::LOG_LEVEL));
    if let Some(live) = live {
        live.proxy.limits.store(Arc::new(proxy_limits(settings)));
        live.proxy.guard.set_policy(guard_policy(settings));
        live.proxy.registry.set_thresholds(engine_thresholds(settings));
        live.proxy.registry.set_default_slots(settings.get(table::ENGINE_SLOTS));
    }
}
