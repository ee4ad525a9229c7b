//! Worker threads as the proxy sees them. `daemon/runtime.rs` makes the threads; nothing else knows the shape.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::connection::{self, Incoming};
use super::pace::Pace;
use super::shared::ProxyShared;
use crate::net::pool::{Pool, PoolConfig};
use crate::telemetry::metrics::Shard;
use crate::telemetry::tasks::Tasks;

/// Connections that may wait for a busy worker; more means that it cannot keep up at all.
const WAITING: usize = 1024;

/// What a worker's connections share.
pub(super) struct Worker {
    pub(super) shared: Arc<ProxyShared>,
    pub(super) pool: Pool,
    pub(super) shard: Arc<Shard>,
    pub(super) tasks: Tasks,
    /// How fast refusals leave it.
    pub(super) pace: Pace,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// Handles to all workers; a listener hands each accepted connection to the least loaded one. Cloned freely.
#[derive(Clone)]
pub struct Workers {
    handles: Arc<[Handle]>,
    ending: CancellationToken,
}

struct Handle {
    connections: mpsc::Sender<Incoming>,
    /// Connections that it has now.
    load: Arc<AtomicUsize>,
}

/// What one worker's thread must run to its end, on a current-thread runtime of its own.
pub struct WorkerRun {
    shared: Arc<ProxyShared>,
    shard: Arc<Shard>,
    connections: mpsc::Receiver<Incoming>,
    load: Arc<AtomicUsize>,
    ending: CancellationToken,
}

impl Workers {
    /// Makes the handles for `count` workers, at least one, and for each what its thread must run.
    #[must_use]
    pub fn new(count: usize, shared: &Arc<ProxyShared>) -> (Self, Vec<WorkerRun>) {
        let ending = CancellationToken::new();
        let (handles, runs): (Vec<_>, Vec<_>) = (0..count.max(1))
            .map(|number| {
                let (sender, connections) = mpsc::channel(WAITING);
                let load = Arc::new(AtomicUsize::new(0));
                let handle = Handle { connections: sender, load: load.clone() };
                let shard = shared.metrics.shard(number);
                (handle, WorkerRun { shared: shared.clone(), shard, connections, load, ending: ending.clone() })
            })
            .unzip();
        (Self { handles: handles.into(), ending }, runs)
    }

    /// Hands a connection to the worker with the fewest; answers whether one took it.
    pub(super) fn take(&self, incoming: Incoming) -> bool {
        let Some(handle) = self.handles.iter().min_by_key(|handle| handle.load.load(Ordering::Relaxed)) else {
            return false;
        };
        handle.load.fetch_add(1, Ordering::Relaxed);
        let taken = handle.connections.try_send(incoming).is_ok();
        if !taken {
            handle.load.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    /// Tells all workers to end. Stop the listeners first: what still runs is dropped.
    pub fn end(&self) {
        self.ending.cancel();
    }
}

impl WorkerRun {
    /// Serves connections until [`Workers::end`].
    pub async fn run(mut self) {
        let tasks = Tasks::new();
        let pool = Pool::new(PoolConfig::default(), self.shared.egress.clone(), tasks.clone());
        let pace = Pace::new(self.shared.clock.monotonic());
        let worker = Arc::new(Worker { shared: self.shared, pool, shard: self.shard, tasks: tasks.clone(), pace });
        loop {
            let incoming = tokio::select! {
                incoming = self.connections.recv() => incoming,
                () = self.ending.cancelled() => None,
            };
            let Some(incoming) = incoming else { break };
            let (worker, load) = (worker.clone(), self.load.clone());
            tasks.spawn_until_end("connection", async move {
                connection::serve(worker, incoming).await;
                load.fetch_sub(1, Ordering::Relaxed);
            });
        }
        tasks.shutdown(Duration::from_secs(1)).await;
    }
}
