//! Detection: binaries, the engines' own variables, processes and default ports, side by side (SPEC §3.1).
//! (Stub.)

use std::net::SocketAddr;
use std::time::Duration;

use crate::net::pool::Pool;
use crate::types::clock::Clock;
use crate::types::engine::{DetectionReport, EngineKind};

/// What detection may look at; tests hand in their own world.
#[derive(Debug, Clone)]
pub struct World {
    /// Environment variables.
    pub variables: Vec<(String, String)>,
    /// Running processes: program name, arguments, pid, parent's program name.
    pub processes: Vec<ProcessSeen>,
    /// Whether default ports are tried.
    pub default_ports: bool,
    /// FLM's own listeners, never taken for an engine.
    pub own_listeners: Vec<SocketAddr>,
}

/// A running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSeen {
    /// Process id.
    pub pid: u32,
    /// Program's file name.
    pub program: String,
    /// Arguments after the program.
    pub arguments: Vec<String>,
    /// Program name of the parent.
    pub parent: Option<String>,
}

impl World {
    /// This machine, now. Blocks for some milliseconds: call it off the runtime.
    pub fn look(own_listeners: Vec<SocketAddr>) -> Self {
        let _ = own_listeners;
        todo!()
    }
}

/// SPEC §3.1: all engines side by side, 5 s at most.
pub const DETECTION_LIMIT: Duration = Duration::from_secs(5);

/// Looks for engines.
pub async fn detect(world: &World, only: Option<&EngineKind>, pool: &Pool, clock: &Clock) -> DetectionReport {
    let _ = (world, only, pool, clock);
    todo!()
}
