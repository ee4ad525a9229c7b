//! Security events: rows of the audit log and of the Security tab (SPEC §5.9).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;
use super::ids::{EngineId, KeyId, RequestId};
use super::text::mentions;

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For the record.
    Low,
    /// Worth a look.
    Medium,
    /// Needs a look.
    High,
    /// Needs a hand.
    Critical,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditKind {
    /// A key was accepted.
    AuthenticationOk,
    /// No key, or an expired or revoked one: not counted (SPEC §5.3).
    AuthenticationMissing,
    /// A wrong key: counted.
    AuthenticationFailed,
    /// A request from a blocked or not allowed address.
    AddressRefused,
    /// A key was sent over plain HTTP to a port that only shows the way to TLS: never accepted, and no failure of its address.
    KeyInClear,
    /// A rate or parallel limit was met.
    RateLimited,
    /// The key may not do that.
    PermissionDenied,
    /// An address was blocked.
    BlockAdded,
    /// A block was lifted.
    BlockLifted,
    /// A key was made, edited, rotated or revoked.
    KeyChanged,
    /// Policy, lists or settings were changed.
    PolicyChanged,
    /// A listener started or stopped.
    ListenerChanged,
    /// A certificate was made, renewed, installed, removed, or could not be.
    CertificateChanged,
    /// Rules of FLM were put in force in the machine's firewall, confirmed or taken back.
    FirewallChanged,
    /// An engine was added, edited or removed.
    EngineChanged,
    /// A detector scored.
    RuleHit,
    /// What a rule in simulate would have done.
    Simulated,
    /// New work was refused to protect the machine.
    ResourceAlert,
    /// A prompt or profile was changed.
    PromptChanged,
    /// The egress proxy cannot be reached: connections to the world fail (SPEC §7).
    TorUnreachable,
    /// The egress proxy cannot be reached: connections to the world go straight (SPEC §7).
    EgressFailOpenTriggered,
    /// The egress proxy can be reached again.
    EgressRecovered,
    /// File modes were repaired, a database was restored, a lock was broken.
    Maintenance,
    /// A backup took the place of the database: rows before it were written by the log that it was made of.
    Restored,
}

impl AuditKind {
    /// All kinds.
    pub const ALL: [Self; 24] = [
        Self::AuthenticationOk,
        Self::AuthenticationMissing,
        Self::AuthenticationFailed,
        Self::AddressRefused,
        Self::KeyInClear,
        Self::RateLimited,
        Self::PermissionDenied,
        Self::BlockAdded,
        Self::BlockLifted,
        Self::KeyChanged,
        Self::PolicyChanged,
        Self::ListenerChanged,
        Self::CertificateChanged,
        Self::FirewallChanged,
        Self::EngineChanged,
        Self::RuleHit,
        Self::Simulated,
        Self::ResourceAlert,
        Self::PromptChanged,
        Self::TorUnreachable,
        Self::EgressFailOpenTriggered,
        Self::EgressRecovered,
        Self::Maintenance,
        Self::Restored,
    ];
}

/// An event before the writer numbers and chains it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuditEvent {
    /// When.
    pub at: UnixMillis,
    /// What.
    pub kind: AuditKind,
    /// How much it matters.
    pub severity: Severity,
    /// The request it belongs to.
    pub request_id: Option<RequestId>,
    /// The client's address.
    pub address: Option<IpAddr>,
    /// The key.
    pub key: Option<KeyId>,
    /// Path or operation; outside text, cut to 256 characters.
    pub endpoint: Option<String>,
    /// The engine.
    pub engine: Option<EngineId>,
    /// HTTP status sent.
    pub status: Option<u16>,
    /// Milliseconds that the request had taken when this happened; its end is in the request log.
    pub latency_ms: Option<u32>,
    /// One line for people; may quote outside text.
    pub details: String,
}

impl AuditEvent {
    /// An event with nothing but time, kind, severity and a line for people.
    #[must_use]
    pub fn new(at: UnixMillis, kind: AuditKind, severity: Severity, details: impl Into<String>) -> Self {
        Self {
            at,
            kind,
            severity,
            request_id: None,
            address: None,
            key: None,
            endpoint: None,
            engine: None,
            status: None,
            latency_ms: None,
            details: details.into(),
        }
    }
}

impl AuditEvent {
    /// Whether a text that somebody looks for is in it (see [`mentions`]). Its kind is no text: it has a name in every
    /// language.
    #[must_use]
    pub fn holds(&self, wanted: &str) -> bool {
        let has = |text: &str| mentions(text, wanted);
        wanted.is_empty()
            || has(&self.details)
            || self.address.is_some_and(|address| has(&address.to_string()))
            || self.endpoint.as_deref().is_some_and(has)
            || self.request_id.as_ref().is_some_and(|id| has(id.as_str()))
            || self.key.as_ref().is_some_and(|key| has(key.as_str()))
    }
}

/// A row of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuditRow {
    /// Its number, from 1, without gaps.
    pub sequence: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: AuditEvent,
}
