//! GCRA, the generic cell rate algorithm (ITU-T I.371): a rate with a burst in one atomic number.
//!
//! The number is the "theoretical arrival time" in nanoseconds since an origin. Every request moves it one
//! interval on; a request is refused when it lies further ahead than the burst allows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A rate: so many per minute, so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per minute; 0 is no limit.
    pub per_minute: u32,
    /// Requests that may come at once, at least 1.
    pub burst: u32,
}

/// What the limiter says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateDecision {
    /// There is no limit.
    Unlimited,
    /// Go on.
    Allowed {
        /// Requests that could still come at once.
        remaining: u32,
        /// Until the whole burst is free again.
        reset: Duration,
    },
    /// Too fast.
    Limited {
        /// Until the next request would be allowed.
        retry_after: Duration,
        /// Until the whole burst is free again.
        reset: Duration,
    },
}

/// The state of one limiter.
#[derive(Debug, Default)]
pub struct Gcra {
    /// Theoretical arrival time, nanoseconds since the origin; 0 is "long ago".
    arrival: AtomicU64,
}

impl Gcra {
    /// Counts one request at `now`. `origin` must be the same for every call on this limiter.
    pub fn take(&self, rate: Rate, origin: Instant, now: Instant) -> RateDecision {
        if rate.per_minute == 0 {
            return RateDecision::Unlimited;
        }
        let interval = 60_000_000_000 / u64::from(rate.per_minute);
        let tolerance = interval.saturating_mul(u64::from(rate.burst.max(1)));
        let now = nanos(now.saturating_duration_since(origin));
        let mut arrival = self.arrival.load(Ordering::Relaxed);
        loop {
            let next = arrival.max(now).saturating_add(interval);
            let ahead = next - now;
            if ahead > tolerance {
                return RateDecision::Limited {
                    retry_after: Duration::from_nanos(ahead - tolerance),
                    reset: Duration::from_nanos(arrival.saturating_sub(now)),
                };
            }
            match self.arrival.compare_exchange_weak(arrival, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    let remaining = u32::try_from((tolerance - ahead) / interval).unwrap_or(u32::MAX);
                    return RateDecision::Allowed { remaining, reset: Duration::from_nanos(ahead) };
                }
                Err(newer) => arrival = newer,
            }
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::clock::{Clock, UnixMillis};

    #[test]
    fn the_burst_passes_at_once_and_then_the_rate_counts() {
        let clock = Clock::stepped(UnixMillis(0));
        let origin = clock.monotonic();
        let gcra = Gcra::default();
        let rate = Rate { per_minute: 60, burst: 3 };
        for left in [2, 1, 0] {
            let RateDecision::Allowed { remaining, .. } = gcra.take(rate, origin, clock.monotonic()) else {
                panic!("allowed")
            };
            assert_eq!(remaining, left);
        }
        let RateDecision::Limited { retry_after, .. } = gcra.take(rate, origin, clock.monotonic()) else {
            panic!("limited")
        };
        assert_eq!(retry_after, Duration::from_secs(1));
        clock.advance(Duration::from_secs(1));
        assert!(matches!(gcra.take(rate, origin, clock.monotonic()), RateDecision::Allowed { remaining: 0, .. }));
        assert!(matches!(gcra.take(rate, origin, clock.monotonic()), RateDecision::Limited { .. }));
        clock.advance(Duration::from_secs(60));
        assert!(matches!(gcra.take(rate, origin, clock.monotonic()), RateDecision::Allowed { remaining: 2, .. }));
    }

    #[test]
    fn zero_is_no_limit() {
        let clock = Clock::stepped(UnixMillis(0));
        let now = clock.monotonic();
        let gcra = Gcra::default();
        for _ in 0..10_000 {
            assert_eq!(gcra.take(Rate { per_minute: 0, burst: 1 }, now, now), RateDecision::Unlimited);
        }
    }

    #[test]
    fn a_refused_request_does_not_push_the_next_one_back() {
        let clock = Clock::stepped(UnixMillis(0));
        let origin = clock.monotonic();
        let gcra = Gcra::default();
        let rate = Rate { per_minute: 60, burst: 1 };
        assert!(matches!(gcra.take(rate, origin, clock.monotonic()), RateDecision::Allowed { .. }));
        for _ in 0..100 {
            assert!(matches!(gcra.take(rate, origin, clock.monotonic()), RateDecision::Limited { .. }));
        }
        clock.advance(Duration::from_secs(1));
        assert!(matches!(gcra.take(rate, origin, clock.monotonic()), RateDecision::Allowed { .. }));
    }

    #[test]
    fn what_is_left_and_how_long_to_wait_is_told_to_the_nanosecond() {
        let gcra = Gcra::default();
        let origin = Clock::stepped(UnixMillis(0)).monotonic();
        let rate = Rate { per_minute: 60, burst: 3 };
        let at = |millis| gcra.take(rate, origin, origin + Duration::from_millis(millis));
        let seconds = |millis| Duration::from_millis(millis);
        assert_eq!(at(0), RateDecision::Allowed { remaining: 2, reset: seconds(1000) });
        assert_eq!(at(0), RateDecision::Allowed { remaining: 1, reset: seconds(2000) });
        assert_eq!(at(250), RateDecision::Allowed { remaining: 0, reset: seconds(2750) });
        assert_eq!(at(250), RateDecision::Limited { retry_after: seconds(750), reset: seconds(2750) });
        assert_eq!(at(1000), RateDecision::Allowed { remaining: 0, reset: seconds(3000) });
        let one = Gcra::default();
        let none_at_once = Rate { per_minute: 60, burst: 0 };
        assert!(matches!(one.take(none_at_once, origin, origin), RateDecision::Allowed { remaining: 0, .. }));
        assert!(matches!(one.take(none_at_once, origin, origin), RateDecision::Limited { .. }));
    }
}
