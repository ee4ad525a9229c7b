//! How FLM reaches the world, as status and console show it (SPEC §7).

use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;

/// The way of what leaves the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EgressMode {
    /// Straight.
    #[default]
    Direct,
    /// Through a Tor client's SOCKS port.
    Tor,
    /// Through another SOCKS5 proxy.
    Socks5,
}

impl EgressMode {
    /// As it is written in settings and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Tor => "tor",
            Self::Socks5 => "socks5",
        }
    }
}

/// What becomes of connections while the proxy cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnOutage {
    /// They fail: nothing leaves the machine past the proxy.
    #[default]
    Refuse,
    /// They go straight, which the audit log tells (`--egress-fail-open`).
    GoDirect,
}

/// Whether the proxy can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EgressState {
    /// There is no proxy.
    #[default]
    Direct,
    /// Nobody has asked it yet.
    Untried,
    /// The last negotiation with it succeeded.
    Reached,
    /// It cannot be reached: connections fail.
    Unreachable,
    /// It cannot be reached: connections go straight.
    FallenBack,
}

/// How FLM reaches the world now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EgressStatus {
    /// The way in force.
    pub mode: EgressMode,
    /// `host:port` of the proxy; never its user or password.
    pub endpoint: Option<String>,
    /// What becomes of connections while it cannot be reached.
    pub on_outage: OnOutage,
    /// Whether it can be reached.
    pub state: EgressState,
    /// When a SOCKS negotiation with it last succeeded.
    pub negotiated: Option<UnixMillis>,
    /// When it first opened a connection to somewhere: an open port is not a ready Tor.
    pub ready: Option<UnixMillis>,
    /// What went wrong last, until a connection through it succeeds.
    pub last_error: Option<String>,
}
