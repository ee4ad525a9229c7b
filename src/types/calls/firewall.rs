//! Operations on the machine's firewall (SPEC §2 `flm firewall`). What changes the machine is no operation of the owner
//! but a step of its own, in the operator's terminal and as root: `types::firewall`.

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::firewall::{FirewallDone, FirewallPlan, FirewallStatus, SshSession};

/// Writes down what a firewall would be told, and does nothing. Fails with `NOT_FOUND` for an unknown backend.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PreviewFirewall {
    /// Of which system: `linux`, `macos` or `windows`; `None` is this one.
    pub system: Option<String>,
    /// Which backend; `None` is the one that this machine uses.
    pub backend: Option<String>,
    /// The operator's SSH session, when there is one.
    pub ssh: Option<SshSession>,
}
call!(PreviewFirewall, "firewall/preview", Reads, FirewallPreview);

/// Shows what FLM did to the firewall.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ShowFirewall {}
call!(ShowFirewall, "firewall/status", Reads, FirewallStatus);

/// Answers a pending change. Fails with `NOT_FOUND` when none is pending or nobody watches over it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DecideFirewall {
    /// The answer.
    pub decision: Decision,
}
call!(DecideFirewall, "firewall/decide", Changes, FirewallStatus);

/// What becomes of a pending change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Its rules stay.
    Keep,
    /// Its rules are taken back now.
    TakeBack,
}

/// Writes into the audit log what the privileged step did, which knows no home.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecordFirewall {
    /// What it did.
    pub done: FirewallDone,
}
call!(RecordFirewall, "firewall/record", Changes, FirewallStatus);

/// What a firewall would be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FirewallPreview {
    /// The backend that is meant.
    pub backend: String,
    /// Its system.
    pub system: String,
    /// What is to be let in.
    pub plan: FirewallPlan,
    /// Commands, with what they read.
    pub apply: String,
    /// Commands that take it back.
    pub rollback: String,
    /// What to know before it is applied.
    pub notes: Vec<String>,
}
