//! What flows from the owner of a home to every attached console: one snapshot, then numbered events.
//!
//! Attaching is: subscribe, take a snapshot that carries sequence N, apply events above N; a gap means a new
//! snapshot. Every event replaces what it names, so applying one twice does no harm.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::alert::InboxAlert;
use super::audit::AuditRow;
use super::clock::UnixMillis;
use super::engine::{EngineLoad, EngineView, ModelView};
use super::gpu::GpuView;
use super::ids::EngineId;
use super::listener::ProxyStatus;
use super::request::RequestRow;

/// Counters and rates of the whole proxy, at most every 250 ms and only when they changed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Traffic {
    /// When it was taken.
    pub at: UnixMillis,
    /// Requests ended since the owner started.
    pub requests_total: u64,
    /// Requests ended in the last full second.
    pub requests_per_second: f32,
    /// The same for each of the last 60 seconds, oldest first.
    pub history: Vec<u32>,
    /// 95th percentile of latency over the last minute, milliseconds.
    pub p95_ms: Option<f32>,
    /// 50th percentile of latency over the last minute, milliseconds.
    pub p50_ms: Option<f32>,
    /// Streams running now.
    pub active_streams: u32,
    /// Requests running now, streams included.
    pub in_flight: u32,
    /// Answer tokens in the last full second.
    pub tokens_per_second: f32,
    /// Answer tokens of each of the last 60 seconds, oldest first.
    #[serde(default)]
    pub token_history: Vec<u32>,
    /// Requests refused since the owner started, by any stage.
    pub refused_total: u64,
    /// Requests refused by block list or allow list in the last hour.
    pub blocked_last_hour: u32,
    /// Requests with status 500 and above since the owner started.
    pub errors_total: u64,
    /// Open client connections.
    pub connections: u32,
    /// Live events that slow consoles did not get.
    pub dropped_events: u64,
}

/// A store whose content changed; the console asks again for the page it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Noun {
    /// API keys.
    Keys,
    /// The block list.
    Blocklist,
    /// The allow list.
    Allowlist,
    /// The trusted list.
    Trusted,
    /// The security policy.
    Policy,
    /// API prompts.
    Prompts,
    /// Model profiles.
    Profiles,
    /// Settings.
    Settings,
    /// Aliases.
    Aliases,
    /// Alert channels, their deliveries and the inbox.
    Alerts,
    /// Captured exchanges.
    Captures,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
pub enum LiveEvent {
    /// An engine is new or changed.
    Engine(Box<EngineView>),
    /// An engine was removed.
    EngineRemoved(EngineId),
    /// How busy all engines are, at most every 250 ms.
    Load(Vec<EngineLoad>),
    /// What the drivers of graphics processors tell changed.
    Gpus(Vec<GpuView>),
    /// The whole list of models changed.
    Models(Vec<ModelView>),
    /// Listeners, egress or read-only state changed.
    Status(Box<ProxyStatus>),
    /// A request started to stream or ended.
    Request(Box<RequestRow>),
    /// New counters.
    Traffic(Box<Traffic>),
    /// A security event was recorded.
    Audit(Box<AuditRow>),
    /// An alert came into the inbox.
    Alert(Box<InboxAlert>),
    /// A store changed.
    Changed(Noun),
    /// The owner is about to end.
    Ending,
}

/// An event with its number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct NumberedEvent {
    /// Counts up by one.
    pub sequence: u64,
    /// What happened.
    pub event: Arc<LiveEvent>,
}

/// Everything a console needs to draw its first frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LiveSnapshot {
    /// Events up to this number are in it.
    pub sequence: u64,
    /// Owner and listeners.
    pub status: ProxyStatus,
    /// All engines.
    pub engines: Vec<EngineView>,
    /// All models.
    pub models: Vec<ModelView>,
    /// How busy the engines are.
    #[serde(default)]
    pub load: Vec<EngineLoad>,
    /// Graphics processors of the machine.
    #[serde(default)]
    pub gpus: Vec<GpuView>,
    /// Counters.
    pub traffic: Traffic,
    /// The newest requests, newest first, at most 500.
    pub requests: Vec<RequestRow>,
    /// The newest security events, newest first, at most 500.
    pub audit: Vec<AuditRow>,
}

/// One line of the event stream (NDJSON).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum LiveLine {
    /// First, and again after a gap.
    Snapshot {
        /// The state.
        snapshot: Box<LiveSnapshot>,
        /// Events that were dropped before it because this console was slow.
        dropped: u64,
    },
    /// Then these.
    Event(NumberedEvent),
}
