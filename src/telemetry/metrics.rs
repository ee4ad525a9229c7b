//! Counters: one shard per worker, summed when somebody asks.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::live::Hub;
use super::tasks::Tasks;
use crate::types::clock::Clock;
use crate::types::live::Traffic;
use crate::types::request::RequestRow;

/// All shards.
#[derive(Debug)]
pub struct Metrics {}

impl Metrics {
    /// Counters for that many workers.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        let _ = workers;
        todo!()
    }

    /// Starts the collector: publishes request rows and traffic on `hub`, keeps the newest rows, and hands every
    /// ended row to `log` (full = shed and counted) for the request log.
    pub fn collect(self: &Arc<Self>, hub: Hub, clock: Clock, tasks: &Tasks, log: mpsc::Sender<Vec<RequestRow>>) {
        let _ = (hub, clock, tasks, log);
        todo!()
    }

    /// The newest requests, newest first.
    #[must_use]
    pub fn recent(&self, limit: usize) -> Vec<RequestRow> {
        let _ = limit;
        todo!()
    }

    /// Counters and rates now.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        todo!()
    }
}
