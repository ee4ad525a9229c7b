//! What stands in the way of opening the endpoint to others: looked at before anything is changed (SPEC §9.3, setup
//! wizard; `flm proxy check`).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::listener::{Exposure, ListenerConfig, ListenerPart};
use crate::types::policy::SecurityPolicy;

/// Looks whether a listener could be started as it is described, and what would guard it. Changes nothing: ports are
/// bound for a moment and let go.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CheckPublish {
    /// The listener.
    pub config: ListenerConfig,
    /// Parts of it that nobody named: settings decide them, else its mode, as when it is started.
    #[serde(default)]
    pub unnamed: Vec<ListenerPart>,
}
call!(CheckPublish, "proxy/check", Reads, PublishReport);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PublishReport {
    /// How far the endpoint is reached now.
    pub exposure: Exposure,
    /// The modes that this version has, the default first.
    pub modes: Vec<ModeInfo>,
    /// Addresses at which other machines may reach this one, without loopback.
    pub addresses: Vec<IpAddr>,
    /// Names of this machine, as its certificate would list them.
    pub names: Vec<String>,
    /// The ports that the listener would take.
    pub ports: Vec<PortFinding>,
    /// Whether keys and prompts could be read on the way.
    pub privacy: WirePrivacy,
    /// API keys in force.
    pub keys: u64,
    /// Networks on the allow list; none lets everyone connect.
    pub allowed: u64,
    /// The policy in force.
    pub policy: SecurityPolicy,
}

/// A way to reach the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ModeInfo {
    /// As it is written in settings and on the command line.
    pub name: String,
    /// What it does, for people.
    pub title: String,
    /// Whether keys and prompts can be read on the way.
    pub privacy: WirePrivacy,
}

/// Whether keys and prompts can be read on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WirePrivacy {
    /// Encrypted, or never leaves this machine.
    Kept,
    /// In clear on a network.
    InClear,
}

/// What was found about a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PortFinding {
    /// Which one.
    pub port: u16,
    /// What for.
    pub purpose: PortPurpose,
    /// Whether it can be had.
    #[serde(flatten)]
    pub state: PortState,
}

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PortPurpose {
    /// Plain HTTP: everything in modes in clear, the way to TLS in the others.
    Plain,
    /// TLS.
    Tls,
}

/// Whether a port can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PortState {
    /// It can.
    Free,
    /// A listener of this home has it.
    Ours,
    /// A program has it.
    Held {
        /// Which one, where that can be told; outside text.
        by: Option<String>,
        /// The next port that is free.
        free: Option<u16>,
    },
    /// This user may not bind it.
    Forbidden,
    /// It cannot be bound for another reason.
    Unusable {
        /// Which one.
        why: String,
    },
}

impl PortState {
    /// Whether a listener can be started on it.
    #[must_use]
    pub fn is_free(&self) -> bool {
        *self == Self::Free
    }
}
