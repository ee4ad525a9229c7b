//! Operations on engines (SPEC §2 `flm engines`).

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::engine::{DetectionReport, EngineKind, EngineView, HealthPoint};
use crate::types::ids::EngineId;

/// Looks for engines on this machine and registers what answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DetectEngines {
    /// Look for this kind only.
    pub kind: Option<EngineKind>,
    /// Skip the cache (SPEC §3.3).
    pub fresh: bool,
}
call!(DetectEngines, "engines/detect", Changes, DetectionReport);

/// Lists registered engines with their state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListEngines {}
call!(ListEngines, "engines/list", Reads, Vec<EngineView>);

/// Registers an engine by hand. Fails with `INVALID_ARGUMENT` when the id is taken or the URL is not
/// `http(s)://host[:port]`; an engine that does not answer is added and shown as unreachable.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddEngine {
    /// The operator's name for it.
    pub id: EngineId,
    /// Which adapter.
    pub kind: EngineKind,
    /// `http(s)://host[:port]`.
    pub url: String,
    /// Environment variable with its API key.
    pub api_key_env: Option<String>,
    /// Reach it directly even with an egress proxy.
    pub direct: bool,
    /// How many requests it runs at once; `None` asks it, else takes the setting `engine.slots`.
    #[serde(default)]
    pub slots: Option<NonZeroU32>,
}
call!(AddEngine, "engines/add", Changes, EngineView);

/// Changes where and how a registered engine is reached; its history stays.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EditEngine {
    /// Which one.
    pub id: EngineId,
    /// `http(s)://host[:port]`.
    pub url: String,
    /// Environment variable with its API key.
    pub api_key_env: Option<String>,
    /// Reach it directly even with an egress proxy.
    pub direct: bool,
    /// How many requests it runs at once; `None` asks it, else takes the setting `engine.slots`.
    #[serde(default)]
    pub slots: Option<NonZeroU32>,
}
call!(EditEngine, "engines/edit", Changes, EngineView);

/// Removes an engine from the registry; the program itself is not touched.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveEngine {
    /// Which one.
    pub id: EngineId,
}
call!(RemoveEngine, "engines/remove", Destroys, ());

/// Checks one or all engines now and answers their health history.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EngineHealth {
    /// Which one; `None` is all.
    pub id: Option<EngineId>,
    /// How far back.
    pub since: Duration,
}
call!(EngineHealth, "engines/health", Reads, Vec<HealthPoint>);

/// The engine kinds that this program knows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListEngineKinds {}
call!(ListEngineKinds, "engines/kinds", Reads, Vec<EngineKindInfo>);

/// One engine kind, for forms and help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EngineKindInfo {
    /// Its name.
    pub kind: EngineKind,
    /// Its name for people, such as "LM Studio".
    pub title: String,
    /// Where it listens by default; 0 when there is no default.
    pub default_port: u16,
}
