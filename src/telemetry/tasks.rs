//! Owned, named tasks: the only place that calls `tokio::spawn`.
//!
//! Every task belongs to a [`Tasks`], is named in tracing, is told to end through a token, and is awaited on
//! shutdown.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Owns tasks that end together. Cloning shares ownership; [`Tasks::shutdown`] ends them all.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    ending: CancellationToken,
}

/// What was left when a shutdown's time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownEnd {
    /// Every task ended.
    Clean,
    /// This many tasks still ran and were left to be dropped with their runtime.
    TimedOut(usize),
}

impl Tasks {
    /// An owner without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An owner whose tasks also end when this one's end.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { tracker: TaskTracker::new(), ending: self.ending.child_token() }
    }

    /// The token that tells tasks to end; long tasks select on it.
    #[must_use]
    pub fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// Runs a task on the current runtime. The task must end soon after [`Tasks::ending`] fires.
    #[expect(clippy::disallowed_methods, reason = "the one owner of tasks")]
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let span = tracing::debug_span!("task", name);
        tokio::spawn(self.tracker.track_future(future.instrument(span)))
    }

    /// Runs a task that is simply dropped when the owner ends.
    pub fn spawn_until_end<F>(&self, name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let ending = self.ending.clone();
        self.spawn(name, async move { ending.run_until_cancelled(future).await })
    }

    /// How many tasks run now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Tells all tasks to end and waits for them, at most `patience`.
    pub async fn shutdown(&self, patience: Duration) -> ShutdownEnd {
        self.ending.cancel();
        self.tracker.close();
        match tokio::time::timeout(patience, self.tracker.wait()).await {
            Ok(()) => ShutdownEnd::Clean,
            Err(_elapsed) => ShutdownEnd::TimedOut(self.tracker.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_ends_children_and_waits_for_them() {
        let tasks = Tasks::new();
        let child = tasks.child();
        let handle = child.spawn_until_end("waits", std::future::pending::<()>());
        assert_eq!(child.running(), 1);
        tasks.ending().cancel();
        assert_eq!(child.shutdown(Duration::from_secs(5)).await, ShutdownEnd::Clean);
        assert!(handle.await.expect("joins").is_none());
    }
}
