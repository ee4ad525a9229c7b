//! [`Residency`]: whether a model is in its engine's memory, and whether it is FLM that brought it there (SPEC §3.10).
//!
//! Called by the relay before a request (load on demand) and by the daemon's health round (idle unload). For a model that
//! is in memory, or whose engine does not tell, a request costs one load and two counts.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use crate::types::clock::{Clock, UnixMillis};

/// One model's place in memory. Shared by every picture of the engine's list.
#[derive(Debug)]
pub struct Residency {
    /// The engine says that it is not in memory.
    absent: AtomicBool,
    /// FLM loaded it, and nobody unloaded it since.
    ours: AtomicBool,
    /// Requests that use it now.
    users: AtomicU32,
    /// When the last request ended; kept only for models that FLM loaded.
    last_used: AtomicI64,
    /// Held by the one request that loads it; the others wait for what comes of it.
    loading: Mutex<()>,
    clock: Clock,
}

/// What came of loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brought {
    /// It is in memory now.
    Loaded,
    /// The engine cannot be told to: it loads by itself, or says why not when it is asked.
    NotOffered,
}

/// A request that uses the model, until dropped.
#[derive(Debug)]
pub struct InUse(Arc<Residency>);

impl Residency {
    /// A model of which nothing is known.
    #[must_use]
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            absent: AtomicBool::new(false),
            ours: AtomicBool::new(false),
            users: AtomicU32::new(0),
            last_used: AtomicI64::new(0),
            loading: Mutex::new(()),
            clock,
        })
    }

    /// Takes what the engine's list says; `None` where it does not tell.
    pub(super) fn listed(&self, loaded: Option<bool>) {
        let absent = loaded == Some(false);
        self.absent.store(absent, Ordering::Relaxed);
        if absent {
            self.ours.store(false, Ordering::Relaxed);
        }
    }

    /// Counts a request that uses the model.
    #[must_use]
    pub fn use_it(self: &Arc<Self>) -> InUse {
        self.users.fetch_add(1, Ordering::Relaxed);
        InUse(self.clone())
    }

    /// Whether it must be loaded before a request.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.absent.load(Ordering::Relaxed)
    }

    /// Loads it, unless another request did so meanwhile: of all that ask at once, one loads. Cancel-safe.
    ///
    /// # Errors
    /// Of `load`; the next request tries again.
    pub async fn load_once<E>(&self, load: impl Future<Output = Result<Brought, E>>) -> Result<(), E> {
        let _loading = self.loading.lock().await;
        if self.is_absent() {
            let brought = load.await?;
            self.last_used.store(self.clock.wall().0, Ordering::Relaxed);
            self.ours.store(brought == Brought::Loaded, Ordering::Relaxed);
            self.absent.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether FLM loaded it and nobody used it for that long.
    #[must_use]
    pub fn is_idle(&self, span: Duration) -> bool {
        let last = UnixMillis(self.last_used.load(Ordering::Relaxed));
        self.ours.load(Ordering::Relaxed)
            && self.users.load(Ordering::Relaxed) == 0
            && self.clock.wall().since(last) >= span
    }

    /// It was unloaded.
    pub fn unloaded(&self) {
        self.ours.store(false, Ordering::Relaxed);
        self.absent.store(true, Ordering::Relaxed);
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let residency = &self.0;
        if residency.ours.load(Ordering::Relaxed) {
            residency.last_used.store(residency.clock.wall().0, Ordering::Relaxed);
        }
        residency.users.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_all_that_ask_at_once_one_loads() {
        let residency = Residency::new(Clock::stepped(UnixMillis(0)));
        residency.listed(Some(false));
        let loads = AtomicU32::new(0);
        let load = || async {
            tokio::task::yield_now().await;
            loads.fetch_add(1, Ordering::Relaxed);
            Ok::<_, ()>(Brought::Loaded)
        };
        let all = futures_util::future::join_all((0..10).map(|_| residency.load_once(load()))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!((loads.load(Ordering::Relaxed), residency.is_absent()), (1, false));
    }

    #[tokio::test]
    async fn a_load_that_failed_is_tried_again() {
        let residency = Residency::new(Clock::stepped(UnixMillis(0)));
        residency.listed(Some(false));
        assert_eq!(residency.load_once(async { Err("no memory") }).await, Err("no memory"));
        assert!(residency.is_absent());
        assert_eq!(residency.load_once(async { Ok::<_, &str>(Brought::Loaded) }).await, Ok(()));
        assert!(!residency.is_absent());
    }

    #[tokio::test]
    async fn only_what_flm_loaded_and_nobody_uses_becomes_idle() {
        let clock = Clock::stepped(UnixMillis(0));
        let span = Duration::from_secs(60);
        let residency = Residency::new(clock.clone());
        residency.listed(Some(true));
        clock.advance(span * 10);
        assert!(!residency.is_idle(span), "somebody else loaded it");
        residency.listed(Some(false));
        residency.load_once(async { Ok::<_, ()>(Brought::Loaded) }).await.expect("loads");
        let used = residency.use_it();
        clock.advance(span * 2);
        assert!(!residency.is_idle(span), "it is in use");
        drop(used);
        clock.advance(span / 2);
        assert!(!residency.is_idle(span));
        clock.advance(span / 2);
        assert!(residency.is_idle(span));
        residency.unloaded();
        assert!(!residency.is_idle(span) && residency.is_absent());
    }
}
