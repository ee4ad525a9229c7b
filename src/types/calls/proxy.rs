//! Operations on listeners and on the owner itself (SPEC §2 `flm proxy`, §4.10).

use serde::{Deserialize, Serialize};

use super::{call, long_call};
use crate::types::certificate::CertificateProgress;
use crate::types::listener::{ListenerConfig, ListenerPart, ListenerStatus, ProxyStatus};
use crate::types::live::LiveSnapshot;

/// Starts a listener; with TLS it waits for the first certificate. Fails with `PROXY_ALREADY_RUNNING` when one has that port, `PROXY_PORT_IN_USE` (naming
/// the program that holds it) and `PROXY_INVALID_CONFIG`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartListener {
    /// Where and how; `None` starts what the settings say, the stored profile or the default.
    pub config: Option<ListenerConfig>,
    /// Parts of `config` that nobody named: the settings decide them where they say something.
    pub unnamed: Vec<ListenerPart>,
}
long_call!(StartListener, "proxy/start", Changes, ListenerStatus, CertificateProgress);

/// Stops a listener: new connections are refused, streams get up to 30 s.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StopListener {
    /// Which port; `None` is the only one, and an error when there are several.
    pub port: Option<u16>,
}
call!(StopListener, "proxy/stop", Changes, ());

/// Stops every listener and ends the owner.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct EndOwner {}
call!(EndOwner, "proxy/end", Changes, ());

/// Answers owner and listeners.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {}
call!(Status, "proxy/status", Reads, ProxyStatus);

/// Reads settings, keys, lists, prompts, profiles and engines from file and stores again (SPEC §4.9).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Reload {
    /// A listener that must run; what is read is the same for all of them. `None` names none.
    pub port: Option<u16>,
}
call!(Reload, "proxy/reload", Changes, ReloadReport);

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ReloadReport {
    /// Parts that were read again.
    pub reloaded: Vec<String>,
    /// Settings whose value is another one now.
    pub changed: Vec<String>,
    /// Settings that differ from what the owner started with and are in force only after a restart.
    pub needs_restart: Vec<String>,
}

/// The whole live state, for a console's first frame.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Snapshot {}
call!(Snapshot, "live/snapshot", Reads, LiveSnapshot);
