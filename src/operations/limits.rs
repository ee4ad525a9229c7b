//! From settings to the snapshots that requests read: the only place that knows which setting is which limit.

use std::sync::Arc;
use std::time::Duration;

use super::context::Live;
use crate::config::settings::Settings;
use crate::config::table;
use crate::engines::state::Thresholds;
use crate::guard::Guard;
use crate::guard::exposure::ExposureSetting;
use crate::proxy::client_address::{ForwardingHeader, ProxyProtocol, TrustedProxies};
use crate::proxy::limits::{AbsentModels, Affine, ProxyLimits, RemoteMedia, Revoking, Traces};
use crate::telemetry::logging;
use crate::types::address::parse_network;

/// The limits of listener and pipeline.
#[must_use]
pub fn proxy_limits(settings: &Settings) -> ProxyLimits {
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    ProxyLimits {
        json_body_bytes: bytes(settings.get(table::PROXY_BODY_LIMIT)),
        image_bytes: bytes(settings.get(table::MEDIA_IMAGE_LIMIT)),
        audio_bytes: bytes(settings.get(table::MEDIA_AUDIO_LIMIT)),
        remote_media: if settings.get(table::MEDIA_FETCH_REMOTE) { RemoteMedia::Fetched } else { RemoteMedia::Refused },
        fetch_timeout: settings.get(table::MEDIA_FETCH_TIMEOUT),
        head_bytes: bytes(settings.get(table::PROXY_HEAD_LIMIT)),
        first_byte: settings.get(table::PROXY_FIRST_BYTE_TIMEOUT),
        handshake: settings.get(table::TLS_HANDSHAKE_TIMEOUT),
        head: settings.get(table::PROXY_HEAD_TIMEOUT),
        body_idle: settings.get(table::PROXY_BODY_IDLE_TIMEOUT),
        keep_alive_idle: settings.get(table::PROXY_KEEP_ALIVE_TIMEOUT),
        engine_first_byte: settings.get(table::ENGINE_FIRST_BYTE_TIMEOUT),
        engine_gap: settings.get(table::ENGINE_GAP_TIMEOUT),
        queue_length: settings.get(table::ENGINE_QUEUE_LENGTH),
        queue_wait: settings.get(table::ENGINE_QUEUE_WAIT),
        circuit_failures: settings.get(table::ENGINE_CIRCUIT_FAILURES),
        absent_models: if settings.get(table::ENGINE_LOAD_ON_DEMAND) {
            AbsentModels::AreLoaded
        } else {
            AbsentModels::AreTheEngines
        },
        affinity: if settings.get(table::ENGINE_AFFINITY) { Affine::Prefers } else { Affine::Ignores },
        heartbeat: settings.get(table::PROXY_HEARTBEAT_INTERVAL),
        connections_per_address: settings.get(table::LIMITS_CONNECTIONS_PER_ADDRESS),
        connections: settings.get(table::LIMITS_CONNECTIONS),
        cors_allowed_origins: settings.get(table::CORS_ALLOWED_ORIGINS),
        // What the certificate is for is called by right.
        allowed_hosts: [settings.get(table::PROXY_ALLOWED_HOSTS), settings.get(table::ACME_DOMAINS)].concat(),
        hsts: settings.get(table::TLS_HSTS),
        trusted_proxies: trusted_proxies(settings),
        revoking: if settings.get(table::KEYS_REVOKE_ENDS_STREAMS) {
            Revoking::EndsStreams
        } else {
            Revoking::LetsStreamsEnd
        },
        traces: traces(settings),
    }
}

fn traces(settings: &Settings) -> Traces {
    if settings.get(table::TRACES_ENDPOINT).is_empty() {
        return Traces::Off;
    }
    Traces::Sampled { percent: u8::try_from(settings.get(table::TRACES_SAMPLE_PERCENT)).unwrap_or(100) }
}

fn trusted_proxies(settings: &Settings) -> TrustedProxies {
    TrustedProxies {
        // The setting's rule has let networks through only.
        networks: settings.get(table::TRUSTED_PROXIES).iter().filter_map(|text| parse_network(text).ok()).collect(),
        header: match settings.get(table::TRUSTED_PROXY_HEADER) {
            "forwarded" => ForwardingHeader::Forwarded,
            "x-real-ip" => ForwardingHeader::XRealIp,
            "cf-connecting-ip" => ForwardingHeader::CfConnectingIp,
            "none" => ForwardingHeader::None,
            _ => ForwardingHeader::XForwardedFor,
        },
        protocol: match settings.get(table::TRUSTED_PROXY_PROTOCOL) {
            "required" => ProxyProtocol::Required,
            _ => ProxyProtocol::Off,
        },
    }
}

/// Tells the guard who reaches the endpoint (SPEC §5, head).
pub fn publish_exposure(settings: &Settings, guard: &Guard) {
    let setting = match settings.get(table::GUARD_EXPOSURE) {
        "local" => ExposureSetting::Local,
        "public" => ExposureSetting::Public,
        _ => ExposureSetting::Auto,
    };
    guard.exposure().set(setting, !settings.get(table::TRUSTED_PROXIES).is_empty());
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
    logging::set_levels(settings.get(table::LOG_LEVEL), &settings.get(table::LOG_TARGETS));
    if let Some(live) = live {
        live.proxy.limits.store(Arc::new(proxy_limits(settings)));
        publish_exposure(settings, &live.proxy.guard);
        live.proxy.registry.set_thresholds(engine_thresholds(settings));
        live.proxy.registry.set_default_slots(settings.get(table::ENGINE_SLOTS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::SettingLayers;

    fn settings(given: &[(&str, &str)]) -> Settings {
        let layer = given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Settings::build(&SettingLayers { file: layer, ..SettingLayers::default() }).expect("builds")
    }

    /// The numbers that SPEC §3 and §4 name, as settings have them.
    #[test]
    fn without_settings_the_numbers_are_those_of_the_specification() {
        let settings = settings(&[]);
        for (key, value) in [
            ("engine.health_latency_threshold_ms", "1500"),
            ("engine.max_network_failures", "3"),
            ("engine.detection_cache", "5m"),
            ("engine.check_interval", "10s"),
            ("engine.slots", "4"),
            ("engine.queue_length", "64"),
            ("engine.queue_wait", "2m"),
            ("engine.first_byte_timeout", "5m"),
            ("engine.gap_timeout", "2m"),
            ("engine.idle_unload", "0s"),
            ("proxy.heartbeat_interval", "10s"),
            ("proxy.bind", "127.0.0.1"),
            ("proxy.port", "8484"),
            ("proxy.body_limit", "32MiB"),
            ("proxy.head_limit", "32KiB"),
            ("proxy.first_byte_timeout", "5s"),
            ("proxy.head_timeout", "10s"),
            ("proxy.body_idle_timeout", "30s"),
            ("proxy.keep_alive_timeout", "75s"),
            ("proxy.drain_timeout", "30s"),
            ("media.image_limit", "8MiB"),
            ("media.audio_limit", "25MiB"),
            ("media.fetch_remote", "false"),
            ("cors.allowed_origins", ""),
        ] {
            assert_eq!(settings.view(key).expect(key).value, value, "{key}");
        }
        assert_eq!(proxy_limits(&settings), ProxyLimits::default(), "and requests are held to them");
        assert_eq!(engine_thresholds(&settings), Thresholds::default());
    }

    #[test]
    fn the_thresholds_of_health_are_those_that_are_set() {
        let given = [("engine.health_latency_threshold_ms", "250"), ("engine.max_network_failures", "7")];
        let thresholds = engine_thresholds(&settings(&given));
        let wanted = Thresholds { slow: Duration::from_millis(250), max_network_failures: 7, ..Thresholds::default() };
        assert_eq!(thresholds, wanted);
    }
}
