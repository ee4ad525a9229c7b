//! [`ProxyService`]: one listener, started and stopped on its own (SPEC §4.8).

use std::sync::Arc;
use std::time::Duration;

use super::shared::ProxyShared;
use super::worker::Workers;
use crate::telemetry::tasks::Tasks;
use crate::types::listener::{ListenerConfig, ListenerStatus};

/// Why a listener did not start.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program holds the port.
    #[error("port {port} on {bind} is taken")]
    PortInUse {
        /// Where.
        bind: std::net::IpAddr,
        /// Which port.
        port: u16,
    },
    /// The system refused for another reason.
    #[error("cannot listen on {bind}:{port}: {reason}")]
    Refused {
        /// Where.
        bind: std::net::IpAddr,
        /// Which port.
        port: u16,
        /// What the system said.
        reason: String,
    },
}

/// A running listener.
pub struct ProxyService {}

impl ProxyService {
    /// Binds and begins to accept. Port 0 takes a free one; the status tells which. Checks of mode and bind
    /// address (SPEC §6) are the caller's (`operations`).
    pub async fn start(
        config: ListenerConfig,
        shared: Arc<ProxyShared>,
        workers: &Workers,
        tasks: &Tasks,
    ) -> Result<Self, ListenError> {
        let _ = (config, shared, workers, tasks);
        todo!()
    }

    /// What status shows.
    pub fn status(&self) -> ListenerStatus {
        todo!()
    }

    /// Refuses new connections at once, lets running requests end, and cuts what is left after `patience`.
    pub async fn stop(&self, patience: Duration) {
        let _ = patience;
        todo!()
    }
}
