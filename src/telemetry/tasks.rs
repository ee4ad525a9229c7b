//! Owned, named tasks: the only place that calls `tokio::spawn`.
//!
//! Every task belongs to a [`Tasks`], is named in tracing, is told to end through a token, and is awaited on
//! shutdown.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use pin_project_lite::pin_project;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
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
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.start(name, boxed(future))
    }

    /// Runs a task that is simply dropped when the owner ends.
    pub fn spawn_until_end<F>(&self, name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.start(name, until_cancelled(&self.ending, boxed(future)))
    }

    #[expect(clippy::disallowed_methods, reason = "the one owner of tasks")]
    fn start<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let span = tracing::debug_span!("task", name);
        tokio::spawn(self.tracker.track_future(future.instrument(span)))
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

/// What a task runs, by its result alone: tokio's machinery for tasks is made once for each type of future, and a program
/// with a hundred kinds of tasks would hold it a hundred times.
fn boxed<F>(future: F) -> Pin<Box<dyn Future<Output = F::Output> + Send>>
where
    F: Future + Send + 'static,
{
    Box::pin(future)
}

/// Runs a future until it is ready, or answers `None` as soon as `token` fires.
///
/// `CancellationToken::run_until_cancelled` and `select!` ask the token, which takes its lock, each time the future is
/// woken: a connection is woken several times a request and for every chunk. Here the token is given a waker of its
/// own, once, and is asked again only after that one was woken.
pub fn until_cancelled<F: Future>(token: &CancellationToken, future: F) -> UntilCancelled<F> {
    UntilCancelled { future, cancelled: token.clone().cancelled_owned(), signal: None }
}

pin_project! {
    /// See [`until_cancelled`].
    #[must_use = "futures do nothing unless polled"]
    pub struct UntilCancelled<F> {
        #[pin]
        future: F,
        #[pin]
        cancelled: WaitForCancellationFutureOwned,
        // Made at the first poll.
        signal: Option<Signal>,
    }
}

struct Signal {
    fired: Arc<Fired>,
    /// The task that was told to `fired` last.
    task: Waker,
}

/// Notes that the token has fired before it wakes the task.
#[derive(Default)]
struct Fired {
    fired: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Fired {
    fn wake(self: Arc<Self>) {
        self.fired.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<F: Future> Future for UntilCancelled<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let this = self.project();
        let ask = if let Some(signal) = this.signal {
            if !signal.task.will_wake(cx.waker()) {
                signal.fired.task.register(cx.waker());
                signal.task.clone_from(cx.waker());
            }
            // A look before the exchange: it nearly always says no, and costs no locked instruction.
            (signal.fired.fired.load(Ordering::Relaxed) && signal.fired.fired.swap(false, Ordering::Acquire))
                .then(|| signal.fired.clone())
        } else {
            let fired = Arc::new(Fired::default());
            fired.task.register(cx.waker());
            *this.signal = Some(Signal { fired: fired.clone(), task: cx.waker().clone() });
            Some(fired)
        };
        if let Some(fired) = ask
            && this.cancelled.poll(&mut Context::from_waker(&Waker::from(fired))).is_ready()
        {
            return Poll::Ready(None);
        }
        this.future.poll(cx).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_ends_a_future_before_after_and_while_it_waits() {
        let fired = CancellationToken::new();
        fired.cancel();
        assert_eq!(until_cancelled(&fired, std::future::ready(1)).await, None, "fired before the first poll");

        let token = CancellationToken::new();
        assert_eq!(until_cancelled(&token, std::future::ready(1)).await, Some(1), "ready at once");

        let (sender, mut receiver) = tokio::sync::mpsc::channel::<u8>(1);
        let (heard, mut hears) = tokio::sync::mpsc::channel(1);
        let ends = token.clone();
        let tasks = Tasks::new();
        let handle = tasks.spawn("waits", async move {
            let counting = async {
                while let Some(number) = receiver.recv().await {
                    heard.send(number).await.expect("somebody listens");
                }
            };
            until_cancelled(&ends, counting).await
        });
        for number in 0..3 {
            sender.send(number).await.expect("it runs");
            assert_eq!(hears.recv().await, Some(number), "woken for other things it goes on");
        }
        token.cancel();
        assert_eq!(handle.await.expect("joins"), None);
    }

    #[tokio::test]
    async fn a_future_that_moves_to_another_task_is_still_ended() {
        let token = CancellationToken::new();
        let mut future = Box::pin(until_cancelled(&token, std::future::pending::<()>()));
        // Polled once here, then by another task with another waker.
        assert!(futures_util::poll!(&mut future).is_pending());
        let tasks = Tasks::new();
        let handle = tasks.spawn("waits", future);
        tokio::task::yield_now().await;
        token.cancel();
        assert_eq!(handle.await.expect("joins"), None);
    }

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
