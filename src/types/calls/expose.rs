//! Which engine and proxy ports answer from where (SPEC §2 `flm expose-check`).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::audit::Severity;
use crate::types::engine::EngineKind;
use crate::types::ids::EngineId;

/// Asks the ports of engines and of FLM at every address of this machine whether they answer, with and without a key. No
/// other machine is contacted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ExposeCheck {}
call!(ExposeCheck, "expose/check", Reads, ExposeReport);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ExposeReport {
    /// The addresses of this machine that were asked.
    pub addresses: Vec<LocalAddress>,
    /// Ports on which something answers.
    pub ports: Vec<PortSeen>,
    /// What should be mended, worst first.
    pub findings: Vec<ExposeFinding>,
    /// Registered engines that are on other machines and were not asked.
    pub elsewhere: Vec<EngineId>,
}

/// An address of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LocalAddress {
    /// The address.
    pub address: IpAddr,
    /// Who can reach it.
    pub reach: AddressReach,
}

/// Who can reach an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AddressReach {
    /// This machine.
    Loopback,
    /// Its own network.
    Private,
    /// The internet, as far as no firewall is in between.
    Public,
}

/// What answers on a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Service {
    /// A listener of FLM.
    Proxy,
    /// An engine.
    Engine {
        /// Its kind, as registered or by its port.
        kind: EngineKind,
        /// Its name, when it is registered.
        id: Option<EngineId>,
    },
    /// Something on an engine's port that does not speak like one.
    Unknown,
}

/// Whether an answer takes a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyNeed {
    /// It answers everybody.
    None,
    /// It refuses without one.
    Key,
    /// It cannot be told.
    Unknown,
}

/// A port on which something answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PortSeen {
    /// The port.
    pub port: u16,
    /// What it is.
    #[serde(flatten)]
    pub service: Service,
    /// Whether what it says is encrypted.
    pub encrypted: bool,
    /// From where it answers.
    pub answers: Vec<AnswerSeen>,
}

/// That a port answers at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AnswerSeen {
    /// At this address.
    #[serde(flatten)]
    pub at: LocalAddress,
    /// Whether it takes a key.
    pub key: KeyNeed,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// An engine serves everybody who reaches the address.
    EngineOpen,
    /// An engine can be reached past FLM, but asks for a key.
    EngineReachable,
    /// FLM can be reached without encryption: keys can be read on the way.
    ProxyInClear,
    /// FLM serves without a key.
    ProxyOpen,
    /// Something unknown listens on an engine's port.
    UnknownService,
}

/// Something that should be mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ExposeFinding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub problem: Problem,
    /// The port.
    pub port: u16,
    /// What answers there.
    #[serde(flatten)]
    pub service: Service,
    /// At these addresses.
    pub addresses: Vec<IpAddr>,
    /// Commands and settings that mend it, the best first.
    pub mend: Vec<String>,
}
