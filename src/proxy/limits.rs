//! Limits of listener and pipeline, swapped as one on reload (SPEC §4.6, §3.8, §5.8).

use std::time::Duration;

use super::client_address::TrustedProxies;

/// What revoking a key does to the streams that it started (SPEC §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoking {
    /// They end at once.
    EndsStreams,
    /// They may go on to their own end.
    LetsStreamsEnd,
}

/// What a request for a model that is not in memory does (SPEC §3.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbsentModels {
    /// FLM has it loaded first, where the engine can be told to.
    AreLoaded,
    /// It is sent as it is: the engine loads by itself or says why not.
    AreTheEngines,
}

/// What becomes of images that a request only names (SPEC §4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteMedia {
    /// FLM fetches them and gives them to the engine inline.
    Fetched,
    /// The request is refused.
    Refused,
}

/// Whether conversations prefer the engine that served them (SPEC §3.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affine {
    /// They do: its cache is warm.
    Prefers,
    /// Every request goes to the engine with the fewest.
    Ignores,
}

/// Which requests begin a trace that is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traces {
    /// None: nothing is traced.
    Off,
    /// So many in a hundred, and those that a known client records.
    Sampled {
        /// 0 to 100.
        percent: u8,
    },
}

/// Limits in force. The daemon makes it from the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyLimits {
    /// Largest JSON body in bytes (SPEC §4.6: 32 MiB).
    pub json_body_bytes: usize,
    /// Largest image, decoded, in bytes (SPEC §4.6: 8 MiB).
    pub image_bytes: usize,
    /// Largest sound that is uploaded, in bytes (SPEC §4.6: 25 MiB).
    pub audio_bytes: usize,
    /// Whether images that a request only names are fetched (SPEC §4.6: no).
    pub remote_media: RemoteMedia,
    /// Time for all images that one request names.
    pub fetch_timeout: Duration,
    /// Largest head in bytes (SPEC §4.6: 32 KiB).
    pub head_bytes: usize,
    /// Time to the first byte of a connection (SPEC §4.6: 5 s).
    pub first_byte: Duration,
    /// Time for a TLS handshake (SECURITY.md §H: 10 s).
    pub handshake: Duration,
    /// Time for a whole head (SPEC §4.6: 10 s).
    pub head: Duration,
    /// Longest gap inside a request's body (SPEC §4.6: 30 s).
    pub body_idle: Duration,
    /// How long a connection may wait for its next request (SPEC §4.6: 75 s).
    pub keep_alive_idle: Duration,
    /// Time to the engine's first byte (SPEC §3.8: 300 s).
    pub engine_first_byte: Duration,
    /// Longest gap in an engine's answer (SPEC §3.8: 120 s).
    pub engine_gap: Duration,
    /// Requests that may wait for the slots of one engine or model (SPEC §3.8: 64).
    pub queue_length: u32,
    /// Longest wait for a slot (SPEC §3.8: 120 s).
    pub queue_wait: Duration,
    /// Failures in a row after which an engine's model gets no requests for a while; 0 is never.
    pub circuit_failures: u32,
    /// What happens to a model that is not in its engine's memory (SPEC §3.10).
    pub absent_models: AbsentModels,
    /// Whether a conversation stays with the engine that served it (SPEC §3.9).
    pub affinity: Affine,
    /// Time after which a stream's head is answered and comments begin (SPEC §3.8: 10 s).
    pub heartbeat: Duration,
    /// Connections of one address (SPEC §5.8: 256).
    pub connections_per_address: u32,
    /// Connections in all (SPEC §5.8: 4096).
    pub connections: u32,
    /// Origins that browsers may call from (SPEC §4.4: empty).
    pub cors_allowed_origins: Vec<String>,
    /// Host names beyond the own names and addresses (SPEC §4.4).
    pub allowed_hosts: Vec<String>,
    /// How long browsers are told to call a name by https only; zero tells nothing (SPEC §6).
    pub hsts: Duration,
    /// Proxies that may tell the client's address (SPEC §5, head).
    pub trusted_proxies: TrustedProxies,
    /// What revoking a key does to its streams.
    pub revoking: Revoking,
    /// Which requests are traced.
    pub traces: Traces,
}

impl Default for ProxyLimits {
    fn default() -> Self {
        Self {
            json_body_bytes: 32 << 20,
            image_bytes: 8 << 20,
            audio_bytes: 25 << 20,
            remote_media: RemoteMedia::Refused,
            fetch_timeout: Duration::from_secs(10),
            head_bytes: 32 << 10,
            first_byte: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            body_idle: Duration::from_secs(30),
            keep_alive_idle: Duration::from_secs(75),
            engine_first_byte: Duration::from_secs(300),
            engine_gap: Duration::from_secs(120),
            queue_length: 64,
            queue_wait: Duration::from_secs(120),
            circuit_failures: 5,
            absent_models: AbsentModels::AreLoaded,
            affinity: Affine::Prefers,
            heartbeat: Duration::from_secs(10),
            connections_per_address: 256,
            connections: 4096,
            cors_allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            hsts: Duration::ZERO,
            trusted_proxies: TrustedProxies::default(),
            revoking: Revoking::EndsStreams,
            traces: Traces::Off,
        }
    }
}
