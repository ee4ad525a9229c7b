//! Engines and their models as every room and the operator see them (SPEC §3).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;
use super::ids::{CanonicalModel, EngineId, KeyId};
use super::key::Priority;

/// The name an adapter declares, such as `ollama`. Not an enum: adding an engine touches its adapter and
/// the registry only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct EngineKind(pub Cow<'static, str>);

impl EngineKind {
    /// A kind whose name is known at compile time; adapters use this.
    #[must_use]
    pub const fn named(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// How an engine came into the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EngineOrigin {
    /// Found on this machine.
    Detected,
    /// Added by the operator.
    Manual,
    /// The demo's own engine.
    Demo,
}

/// An engine as it is stored: where it is and how to talk to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EngineRecord {
    /// The operator's name for it.
    pub id: EngineId,
    /// Which adapter talks to it.
    pub kind: EngineKind,
    /// Scheme, host and port, without a trailing slash: `http://127.0.0.1:11434`.
    pub url: String,
    /// Name of the environment variable that holds the engine's own API key.
    #[serde(default)]
    pub api_key_env: Option<String>,
    /// Reached directly even when an egress proxy is set (SPEC §7).
    #[serde(default)]
    pub direct: bool,
    /// How many requests it runs at once, when the operator says so (SPEC §3.8); else it is asked.
    #[serde(default)]
    pub slots: Option<NonZeroU32>,
    /// How it came here.
    pub origin: EngineOrigin,
    /// When it was first registered.
    pub created: UnixMillis,
}

/// The state machine of SPEC §3.2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum EngineState {
    /// The program is on this machine, but nothing answers.
    InstalledOnly,
    /// Registered, and its first check has not come back.
    Unchecked,
    /// Answers well.
    RunningHealthy {
        /// Of the last check, milliseconds.
        latency_ms: u32,
    },
    /// Answers, but slowly or with 429/503.
    RunningDegraded {
        /// Of the last check, milliseconds.
        latency_ms: u32,
        /// Why it counts as degraded.
        reason: String,
    },
    /// Cannot be reached.
    ErrorNetwork {
        /// What the connection said.
        reason: String,
        /// Failures in a row.
        failures: u32,
    },
    /// Answers with the wrong shape.
    ErrorApi {
        /// What was wrong.
        reason: String,
    },
}

impl EngineState {
    /// Whether requests may be sent to it.
    #[must_use]
    pub fn serves(&self) -> bool {
        matches!(self, Self::RunningHealthy { .. } | Self::RunningDegraded { .. } | Self::Unchecked)
    }

    /// The latency of the last good check, milliseconds.
    #[must_use]
    pub fn latency_ms(&self) -> Option<u32> {
        match self {
            Self::RunningHealthy { latency_ms } | Self::RunningDegraded { latency_ms, .. } => Some(*latency_ms),
            _ => None,
        }
    }
}

/// What an engine or a model can do (SPEC §3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completions,
    /// Streaming answers.
    Stream,
    /// `/v1/embeddings`.
    Embeddings,
    /// Tool calls.
    Tools,
    /// Reasoning text.
    Reasoning,
    /// Images in.
    Vision,
    /// Audio in.
    AudioIn,
    /// Audio out.
    AudioOut,
    /// Images out.
    Images,
    /// `/v1/rerank`.
    Rerank,
}

/// One engine with everything the console shows of it (SPEC §9.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EngineView {
    /// What is stored.
    pub record: EngineRecord,
    /// Its state now.
    pub state: EngineState,
    /// The engine's own version, where it tells; outside text.
    pub version: Option<String>,
    /// How many models it lists.
    pub models: u32,
    /// How many of them are loaded, where the engine tells.
    pub models_loaded: Option<u32>,
    /// Requests running on it now.
    pub in_flight: u32,
    /// Requests waiting for a slot.
    #[serde(default)]
    pub queued: u32,
    /// How many requests it runs at once, all its models together.
    #[serde(default)]
    pub slots: u32,
    /// What the adapter can do with it.
    pub capabilities: BTreeSet<Capability>,
    /// Latencies of the last 60 checks, oldest first, milliseconds; 0 marks a failed check.
    pub latency_history: Vec<u32>,
    /// When it was last checked.
    pub checked: Option<UnixMillis>,
}

/// How busy one engine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EngineLoad {
    /// Which one.
    pub engine: EngineId,
    /// Requests running on it.
    pub in_flight: u32,
    /// Requests waiting for a slot.
    pub queued: u32,
    /// How many requests it runs at once, all its models together.
    pub slots: u32,
    /// Those that wait, in the order in which they are served; at most [`EngineLoad::SHOWN`].
    pub waiting: Vec<Waiting>,
}

impl EngineLoad {
    /// Most waiting requests that are told one by one.
    pub const SHOWN: usize = 64;
}

/// A request that waits for a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Waiting {
    /// Whose it is.
    pub key: KeyId,
    /// Higher ones are served first.
    pub priority: Priority,
    /// When it joined the queue.
    pub since: UnixMillis,
}

/// One model on one engine (SPEC §9.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModelView {
    /// Engine and the engine's own name for the model.
    pub name: CanonicalModel,
    /// The name under which `/v1/models` lists it: bare where unique, else `ENGINE_ID/MODEL`.
    pub listed_as: Arc<str>,
    /// Which adapter serves it.
    pub kind: EngineKind,
    /// What it can do, as far as the engine tells.
    pub capabilities: BTreeSet<Capability>,
    /// Context length in tokens.
    pub context_length: Option<u32>,
    /// Size on disk in bytes.
    pub size_bytes: Option<u64>,
    /// Parameter count as the engine writes it, such as `7B`.
    pub parameters: Option<String>,
    /// Quantization as the engine writes it.
    pub quantization: Option<String>,
    /// Whether it is in memory now, where the engine tells.
    pub loaded: Option<bool>,
    /// Whether the engine answers now.
    pub available: bool,
}

/// One health check as stored (SPEC §3.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HealthPoint {
    /// Which engine.
    pub engine: EngineId,
    /// When.
    pub at: UnixMillis,
    /// Round trip in milliseconds; `None` when it failed.
    pub latency_ms: Option<u32>,
    /// Why it failed or counts as degraded.
    pub reason: Option<String>,
}

/// Something found by detection (SPEC §3.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DetectedEngine {
    /// Which adapter recognised it.
    pub kind: EngineKind,
    /// Where it answers; `None` when only its program was found.
    pub url: Option<String>,
    /// Path of its program, where one was found.
    pub binary: Option<String>,
    /// The engine's own version; outside text.
    pub version: Option<String>,
    /// Its state as found.
    pub state: EngineState,
    /// Models it listed.
    pub models: u32,
    /// How it was found, in a few words: "port 8080", "process 4242", "`OLLAMA_HOST`".
    pub evidence: String,
}

/// The result of one detection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DetectionReport {
    /// What was found.
    pub engines: Vec<DetectedEngine>,
    /// When.
    pub at: UnixMillis,
    /// How long it took, milliseconds.
    pub took_ms: u32,
    /// Whether it comes from the cache (SPEC §3.3).
    pub cached: bool,
}

/// How far an engine is with fetching a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TransferProgress {
    /// What it does now, in the engine's words; made safe to show.
    pub stage: String,
    /// Bytes fetched so far.
    pub completed: u64,
    /// Bytes in all, as far as the engine knows yet.
    pub total: Option<u64>,
}
