//! Hashing threads: costly computations such as Argon2 run off the runtimes, two at a time at most, with a bounded queue.
//!
//! Called by `proxy` (checking keys) and `operations` (making them). An attacker can fill the queue and no more:
//! a full queue is answered with 503, never with a free pass (SECURITY.md §E). Who needs no hash does not notice: the threads
//! give way to every other, and leave half of the cores alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use super::priority::Priority;

/// Threads at most (ARCHITECTURE.md, Guard): each Argon2 run takes 19 MiB, so two cost at most 38 MiB.
const THREADS: usize = 2;
/// Jobs that may wait.
const QUEUE: usize = 16;

type Job = Box<dyn FnOnce() + Send>;

/// Handle to the threads. Cloned freely; the threads end when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct HashingThreads {
    jobs: SyncSender<Job>,
    turns: Arc<Turns>,
}

/// Who is at it, by what it is about.
type Turns = Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>;

/// The only one that is at it, until dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    about: String,
    /// `None` while it is dropped.
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        self.held = None;
        // Whoever waits holds one more; under this lock nobody comes in between.
        if turns.get(&self.about).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.about);
        }
    }
}

/// Why a job gave no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashingError {
    /// All threads are busy and the queue is full: try again in a second.
    #[error("too many keys are being checked at once")]
    Busy,
    /// The threads are gone, or the job panicked.
    #[error("the hashing threads have ended")]
    Gone,
}

impl HashingThreads {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start() -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for number in 0..(cores / 2).clamp(1, THREADS) {
            let queue = queue.clone();
            std::thread::Builder::new().name(format!("flm-hash-{number}")).spawn(move || {
                Priority::GivesWay.take();
                work(&queue);
            })?;
        }
        Ok(Self { jobs, turns: Arc::default() })
    }

    /// Waits until nobody else is at what `about` tells, such as the same presented key: then the result may be known, and no
    /// job is needed. Clients open many connections at once, and each would take a place of the queue.
    pub async fn turn(&self, about: &str) -> Turn {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.entry(about.to_owned()).or_default().clone()
        };
        let mut waiting = Turn { turns: self.turns.clone(), about: about.to_owned(), held: None };
        waiting.held = Some(turn.lock_owned().await);
        waiting
    }

    /// Runs a job and answers its result. A job whose future is dropped still runs, but tells nobody.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, HashingError> {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move || {
            // An error only says that nobody waits any more.
            drop(answer.send(job()));
        });
        match self.jobs.try_send(job) {
            Ok(()) => result.await.map_err(|_| HashingError::Gone),
            Err(TrySendError::Full(_)) => Err(HashingError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(HashingError::Gone),
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        // The lock is held while waiting: the other thread then waits for the lock instead.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(job) => {
                // A job that panics must not take its thread with it; its waiter learns of it as `Gone`.
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
                    tracing::error!("a hashing job panicked");
                }
            }
            Err(_all_handles_dropped) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_recovers() {
        let threads = HashingThreads::start().expect("starts");
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let mut waiting = Vec::new();
        let mut refused = 0;
        // At most as many run as there are threads.
        for _ in 0..THREADS + QUEUE + 5 {
            let (threads, gate) = (threads.clone(), gate.clone());
            let mut run = Box::pin(async move { threads.run(move || gate.lock().expect("lock").recv().is_ok()).await });
            match futures_util::poll!(&mut run) {
                std::task::Poll::Ready(Err(HashingError::Busy)) => refused += 1,
                std::task::Poll::Ready(other) => panic!("{other:?}"),
                std::task::Poll::Pending => waiting.push(run),
            }
        }
        assert!(refused >= 5, "{refused}");
        for _ in 0..waiting.len() {
            release.send(()).expect("a job waits");
        }
        for run in waiting {
            assert_eq!(run.await, Ok(true));
        }
        assert_eq!(threads.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_panicking_job_is_told_and_the_thread_lives_on() {
        let threads = HashingThreads::start().expect("starts");
        for _ in 0..=THREADS {
            assert_eq!(threads.run(|| panic!("on purpose")).await, Err::<(), _>(HashingError::Gone));
        }
        assert_eq!(threads.run(|| 1).await, Ok(1));
    }

    #[tokio::test]
    async fn one_is_at_it_while_others_wait_and_what_is_over_is_forgotten() {
        let threads = HashingThreads::start().expect("starts");
        let first = threads.turn("a").await;
        let other = threads.turn("b").await;
        let mut second = Box::pin(threads.turn("a"));
        let mut third = Box::pin(threads.turn("a"));
        assert!(futures_util::poll!(&mut second).is_pending() && futures_util::poll!(&mut third).is_pending());
        drop(second);
        drop(first);
        drop((third.await, other));
        assert!(threads.turns.lock().expect("lock").is_empty());
        drop(threads.turn("a").await);
        assert!(threads.turns.lock().expect("lock").is_empty());
    }
}
