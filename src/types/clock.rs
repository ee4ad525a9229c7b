//! The only place that reads the system's clocks; everything else is handed a [`Clock`] or a time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// Wall-clock time in milliseconds since 1970-01-01 UTC.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// This time plus `span`, saturating.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This time minus `span`, saturating.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The span from `earlier` to this time; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Tells the time. Cloned freely; tests and the demo hand in a fixed or stepped one.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Stepped { wall: Arc<AtomicI64>, origin: Instant, start: i64, moved: Arc<Notify> },
}

impl Clock {
    /// The system's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` until [`Clock::advance`] moves it.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the clock's own anchor")]
    pub fn stepped(start: UnixMillis) -> Self {
        let wall = Arc::new(AtomicI64::new(start.0));
        Self(Source::Stepped { wall, origin: Instant::now(), start: start.0, moved: Arc::default() })
    }

    /// Moves a stepped clock; the system clock ignores it.
    pub fn advance(&self, span: Duration) {
        if let Source::Stepped { wall, moved, .. } = &self.0 {
            wall.fetch_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
            moved.notify_waiters();
        }
    }

    /// Wall-clock time.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn wall(&self) -> UnixMillis {
        match &self.0 {
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Source::Stepped { wall, .. } => UnixMillis(wall.load(Ordering::Relaxed)),
        }
    }

    /// Monotonic time.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn monotonic(&self) -> Instant {
        match &self.0 {
            Source::System => Instant::now(),
            Source::Stepped { wall, origin, start, .. } => {
                *origin + UnixMillis(wall.load(Ordering::Relaxed)).since(UnixMillis(*start))
            }
        }
    }

    /// Monotonic time for somebody who has just read the system's, `now`, for something else.
    #[must_use]
    pub fn monotonic_at(&self, now: Instant) -> Instant {
        match &self.0 {
            Source::System => now,
            Source::Stepped { .. } => self.monotonic(),
        }
    }

    /// Waits until [`Clock::monotonic`] has come to `at`; a stepped clock comes there when it is moved.
    pub async fn until(&self, at: Instant) {
        let Source::Stepped { moved, .. } = &self.0 else { return tokio::time::sleep_until(at.into()).await };
        loop {
            let mut moves = std::pin::pin!(moved.notified());
            // Registered before looking, so that a move in between is not missed.
            moves.as_mut().enable();
            if self.monotonic() >= at {
                return;
            }
            moves.await;
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Clock::system",
            Source::Stepped { .. } => "Clock::stepped",
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn who_waits_for_a_stepped_clock_waits_until_it_is_moved_there() {
        let clock = Clock::stepped(UnixMillis(0));
        let mut waits = Box::pin(clock.until(clock.monotonic() + Duration::from_millis(2)));
        for _ in 0..2 {
            assert!(waits.as_mut().now_or_never().is_none());
            clock.advance(Duration::from_millis(1));
        }
        assert!(waits.now_or_never().is_some());
        assert!(clock.until(clock.monotonic()).now_or_never().is_some(), "what is over is waited for by nobody");
    }
}
