//! Everything that a support person would ask for, without a secret in it (SPEC §2 `flm doctor`).

use serde::{Deserialize, Serialize};

use super::call;
use super::settings::SettingView;
use crate::types::clock::UnixMillis;
use crate::types::egress::EgressStatus;
use crate::types::engine::EngineState;
use crate::types::ids::EngineId;
use crate::types::listener::ProxyStatus;

/// Looks at the home and at the process that answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Diagnose {}
call!(Diagnose, "doctor/diagnose", Reads, Diagnosis);

/// The home and the process that answers: its owner, or the command itself when there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Diagnosis {
    /// The process.
    pub process: ProcessFacts,
    /// Owner and listeners with their certificates; `None` when no proxy runs.
    pub proxy: Option<ProxyStatus>,
    /// How FLM reaches the world.
    pub egress: EgressStatus,
    /// Both databases.
    pub databases: Vec<DatabaseView>,
    /// Settings with where they come from; values that could tell a secret are hidden.
    pub settings: Vec<SettingView>,
    /// Registered engines.
    pub engines: Vec<EngineFacts>,
    /// How many things the home holds.
    pub counts: HomeCounts,
    /// The last warnings and errors in the log, newest last, made safe and without secrets.
    pub log: Vec<String>,
}

/// A process and what the system lets it do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ProcessFacts {
    /// Version of FLM.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Its wall clock.
    pub now: UnixMillis,
    /// Time zone that dates are told in.
    pub zone: String,
    /// Such as `Linux 6.8.0`.
    pub system: String,
    /// Such as `x86_64`.
    pub architecture: String,
    /// Cores that it may use.
    pub cores: u32,
    /// Bytes of memory of the machine.
    pub memory: u64,
    /// Bytes of it that are available.
    pub memory_available: u64,
    /// Bytes that are free on the disk of the databases.
    pub disk_free: Option<u64>,
    /// Files that it may have open; `None` is no limit.
    pub open_files: Option<u64>,
    /// Names of the variables in its environment that FLM reads; values are not told.
    pub variables: Vec<String>,
}

/// One database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DatabaseView {
    /// Its file name.
    pub name: String,
    /// Bytes, with what lies beside it.
    pub bytes: u64,
    /// Its schema version.
    pub schema: u32,
    /// The newest schema that this program knows.
    pub newest_schema: u32,
    /// Why it only reads; `None` when it does not.
    pub read_only: Option<String>,
}

/// One engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EngineFacts {
    /// Its id.
    pub id: EngineId,
    /// Which adapter talks to it.
    pub kind: String,
    /// Its address; user and password are never in it.
    pub url: String,
    /// Its version, where it tells; outside text.
    pub version: Option<String>,
    /// Its state.
    pub state: EngineState,
    /// Models that it lists.
    pub models: u32,
    /// Whether it is asked with a key, which a variable holds.
    pub with_key: bool,
}

/// How many things a home holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HomeCounts {
    /// Keys that work.
    pub keys: u32,
    /// Keys that were revoked or have ended.
    pub keys_ended: u32,
    /// Aliases.
    pub aliases: u32,
    /// Model profiles.
    pub profiles: u32,
    /// Prompts in force.
    pub prompts: u32,
    /// Blocked networks.
    pub blocks: u32,
}
