//! [`Circuit`]: keeps requests away from a model of an engine that fails again and again, or that asked for rest
//! (SPEC §3.5 "fails over"; `retry-after` of engines, ENGINES.md §5).
//!
//! Called by the relay. An engine that cannot be reached at all is the state machine's matter; this is for one that is
//! reached and answers 502, 503 or 504, or nothing. While nothing has failed it costs one load.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// First time that a circuit stays open; doubled each time its probe fails.
const FIRST_REST: Duration = Duration::from_secs(5);
/// Longest time that it stays open: a health check is made every 10 s, so a minute is six of them.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// Longest rest that an engine may ask for, as for clients (SPEC §4.4).
const LONGEST_WISH: Duration = Duration::from_secs(120);
/// How long a probe keeps others away when it never ends: its client may have left.
const PROBE_TIME: Duration = Duration::from_secs(30);

/// Whether requests are let through.
#[derive(Debug, Default)]
pub struct Circuit {
    /// Something failed since the last success.
    troubled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    /// How long it was open the last time; zero while it is closed.
    rest: Duration,
    /// Nobody is let through before.
    until: Option<Instant>,
}

/// What the circuit says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Go on.
    Closed,
    /// Not before this time.
    Open {
        /// When one request may try.
        until: Instant,
    },
}

impl Circuit {
    /// Whether a request may go on. The first one after a rest is the probe: others wait for what it finds.
    #[must_use]
    pub fn gate(&self, now: impl FnOnce() -> Instant) -> Gate {
        if !self.troubled.load(Ordering::Relaxed) {
            return Gate::Closed;
        }
        let now = now();
        let mut state = self.lock();
        match state.until {
            Some(until) if until > now => Gate::Open { until },
            Some(_) => {
                state.until = Some(now + PROBE_TIME);
                Gate::Closed
            }
            None => Gate::Closed,
        }
    }

    /// Whether it lets requests through, without counting as one.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        !self.troubled.load(Ordering::Relaxed) || self.lock().until.is_none()
    }

    /// The engine answered: everything is forgotten.
    pub fn succeeded(&self) {
        if self.troubled.load(Ordering::Relaxed) {
            let mut state = self.lock();
            *state = State::default();
            self.troubled.store(false, Ordering::Relaxed);
        }
    }

    /// The engine failed; opens after `limit` failures in a row (0 never opens). Answers for how long it opened now.
    pub fn failed(&self, now: Instant, limit: u32) -> Option<Duration> {
        let mut state = self.lock();
        self.troubled.store(true, Ordering::Relaxed);
        state.failures = state.failures.saturating_add(1);
        if limit == 0 || state.failures < limit {
            return None;
        }
        let rest = if state.rest.is_zero() { FIRST_REST } else { (state.rest * 2).min(LONGEST_REST) };
        state.rest = rest;
        state.until = Some(now + rest);
        Some(rest)
    }

    /// The engine asked for rest (`retry-after`).
    pub fn rest(&self, now: Instant, wish: Duration) {
        let mut state = self.lock();
        self.troubled.store(true, Ordering::Relaxed);
        let until = now + wish.min(LONGEST_WISH);
        state.until = Some(state.until.map_or(until, |before| before.max(until)));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::clock::{Clock, UnixMillis};

    fn now() -> Instant {
        Clock::stepped(UnixMillis(0)).monotonic()
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_one_probe_closes_it() {
        let (circuit, start) = (Circuit::default(), now());
        for _ in 0..4 {
            assert_eq!(circuit.failed(start, 5), None);
            assert_eq!(circuit.gate(|| start), Gate::Closed);
        }
        assert_eq!(circuit.failed(start, 5), Some(FIRST_REST));
        assert_eq!(circuit.gate(|| start), Gate::Open { until: start + FIRST_REST });
        assert!(!circuit.is_closed());
        let later = start + FIRST_REST;
        assert_eq!(circuit.gate(|| later), Gate::Closed, "the probe");
        assert_eq!(circuit.gate(|| later), Gate::Open { until: later + PROBE_TIME }, "others wait for the probe");
        circuit.succeeded();
        assert_eq!(circuit.gate(|| later), Gate::Closed);
        assert!(circuit.is_closed());
        assert_eq!(circuit.failed(later, 5), None, "counted anew");
    }

    #[test]
    fn every_probe_that_fails_doubles_the_rest_up_to_a_minute() {
        let (circuit, mut now) = (Circuit::default(), now());
        assert_eq!(circuit.failed(now, 1), Some(seconds(5)));
        for expected in [10, 20, 40, 60, 60] {
            now += seconds(60);
            assert_eq!(circuit.gate(|| now), Gate::Closed, "the probe");
            assert_eq!(circuit.failed(now, 1), Some(seconds(expected)));
        }
    }

    #[test]
    fn a_success_between_failures_starts_the_count_again() {
        let (circuit, now) = (Circuit::default(), now());
        for _ in 0..10 {
            assert_eq!(circuit.failed(now, 2), None);
            circuit.succeeded();
        }
    }

    #[test]
    fn an_engine_that_asks_for_rest_gets_it_but_never_more_than_two_minutes() {
        let (circuit, now) = (Circuit::default(), now());
        circuit.rest(now, seconds(7));
        assert_eq!(circuit.gate(|| now), Gate::Open { until: now + seconds(7) });
        circuit.rest(now, seconds(2));
        assert_eq!(circuit.gate(|| now), Gate::Open { until: now + seconds(7) }, "the later one counts");
        circuit.rest(now, seconds(86_400));
        assert_eq!(circuit.gate(|| now), Gate::Open { until: now + seconds(120) });
    }

    #[test]
    fn without_a_limit_it_never_opens() {
        let (circuit, now) = (Circuit::default(), now());
        assert!((0..100).all(|_| circuit.failed(now, 0).is_none()));
        assert_eq!(circuit.gate(|| now), Gate::Closed);
    }
}
