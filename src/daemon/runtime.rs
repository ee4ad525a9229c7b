//! Worker threads: one current-thread runtime each (docs/adr/0004-runtime-shape.md). Nothing else knows the shape.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::proxy::shared::ProxyShared;
use crate::proxy::worker::Workers;

/// The threads. [`WorkerThreads::join`] waits for them, once [`Workers::end`] has told them to end.
#[derive(Debug)]
pub struct WorkerThreads {
    threads: Vec<JoinHandle<()>>,
}

impl WorkerThreads {
    /// Starts `count` workers.
    ///
    /// # Errors
    /// When the system gives no more threads or no more files to poll.
    pub fn start(count: usize, shared: &Arc<ProxyShared>) -> io::Result<(Workers, Self)> {
        let (workers, runs) = Workers::new(count, shared);
        let mut threads = Vec::with_capacity(runs.len());
        for (number, run) in runs.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                // Only resolving names and reading certificates block; few of them at once.
                .max_blocking_threads(4)
                .build()?;
            let thread = std::thread::Builder::new()
                .name(format!("flm-worker-{number}"))
                .spawn(move || runtime.block_on(run.run()))?;
            threads.push(thread);
        }
        Ok((workers, Self { threads }))
    }

    /// Waits until every worker has ended. Blocks: call it off the runtime.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}
