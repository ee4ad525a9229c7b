//! Refusals of strangers leave each worker at no more than a fixed pace (ADR 22): in a flood they wait for their turn, so that
//! whoever attacks and waits for answers slows itself down, and the cores stay free for requests with a right key.
//!
//! Called by the pipeline for every request that is refused without an accepted key. While refusals are rare none waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Response;

use super::answer::AnswerBody;
use super::exchange::{Exchange, Peer};
use crate::telemetry::tasks::until_cancelled;

/// From one refusal to the next: 500 a second keep a worker busy for a twentieth of its time. At 2,000 a client's p99 was five times as
/// high as in quiet (docs/benchmarks.md).
const SLOT: Duration = Duration::from_millis(2);
/// Refusals that leave at once after a rest: more than one clumsy program sends in a row, and a few milliseconds of work.
const BURST: u32 = 100;
/// Longest wait: a stranger who means no harm sees a slow answer and no dead server.
const LONGEST: Duration = Duration::from_millis(500);
/// Refusals that wait on one worker, some 2 KiB each: half of the connections that there may be in all (SPEC §5.8).
const WAITING: u32 = 2048;

/// One worker's pace. Its numbers are changed by its own thread alone, so that loading and storing needs no locked
/// instruction; they are atomics because connections must be `Send`.
#[derive(Debug)]
pub(super) struct Pace {
    origin: Instant,
    /// Until when slots are given away, nanoseconds since the origin.
    given: AtomicU64,
    /// Refusals that wait now.
    waiting: AtomicU32,
}

/// When a refusal leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    AtOnce,
    After(Duration),
    /// At once, and its connection ends: there is no room to wait.
    WithItsConnection,
}

/// When one that comes at `now` leaves, and until when slots are given away then.
fn next(given: Duration, now: Duration, waiting: u32) -> (Leave, Duration) {
    let free = given.max(now);
    let wait = free.saturating_sub(now).saturating_sub(SLOT * (BURST - 1));
    if wait.is_zero() {
        (Leave::AtOnce, free + SLOT)
    } else if waiting >= WAITING {
        (Leave::WithItsConnection, given)
    } else if wait > LONGEST {
        // Nobody waits for slots that lie further ahead: so many connections come back no more often than this.
        (Leave::After(LONGEST), given)
    } else {
        (Leave::After(wait), free + SLOT)
    }
}

impl Pace {
    /// Nothing was refused yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { origin: now, given: AtomicU64::new(0), waiting: AtomicU32::new(0) }
    }

    fn next(&self, now: Instant) -> Leave {
        let given = Duration::from_nanos(self.given.load(Ordering::Relaxed));
        let now = now.saturating_duration_since(self.origin);
        let (leave, given) = next(given, now, self.waiting.load(Ordering::Relaxed));
        self.given.store(u64::try_from(given.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        leave
    }

    fn one_waits(&self) {
        self.waiting.store(self.waiting.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
    }

    fn one_waits_no_more(&self) {
        self.waiting.store(self.waiting.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }
}

/// A refusal's place among those that wait, until it is dropped.
pub(super) struct Turn {
    peer: Arc<Peer>,
    at: Instant,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.peer.worker.pace.one_waits_no_more();
    }
}

/// Gives a refused request its turn; `None` when it need not wait.
pub(super) fn turn(exchange: &mut Exchange) -> Option<Turn> {
    let worker = &exchange.peer.worker;
    let now = worker.shared.clock.monotonic();
    match worker.pace.next(now) {
        Leave::AtOnce => None,
        Leave::After(wait) => {
            worker.pace.one_waits();
            worker.shard.refusal_delayed();
            Some(Turn { peer: exchange.peer.clone(), at: now + wait })
        }
        Leave::WithItsConnection => {
            exchange.ends_connection();
            None
        }
    }
}

impl Turn {
    /// Holds an answer back until its turn has come or the listener stops.
    pub(super) async fn wait(self, response: Response<AnswerBody>) -> Response<AnswerBody> {
        until_cancelled(&self.peer.draining, self.peer.worker.shared.clock.until(self.at)).await;
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// Refusals that come at these times; when each leaves and how.
    fn leaving(arrivals: impl IntoIterator<Item = Duration>) -> Vec<(Leave, Duration)> {
        let (mut given, mut out) = (Duration::ZERO, Vec::new());
        let mut waiting = VecDeque::new();
        for now in arrivals {
            while waiting.front().is_some_and(|at| *at <= now) {
                waiting.pop_front();
            }
            let (leave, then) = next(given, now, u32::try_from(waiting.len()).expect("few"));
            assert!(then >= given, "what is given away stays so");
            given = then;
            let wait = if let Leave::After(wait) = leave { wait } else { Duration::ZERO };
            if !wait.is_zero() {
                waiting.push_back(now + wait);
            }
            out.push((leave, now + wait));
        }
        out
    }

    #[test]
    fn a_burst_leaves_at_once_then_one_a_slot_and_after_a_rest_all_is_as_before() {
        let rest = Duration::from_secs(60);
        let arrivals = [Duration::ZERO, rest].into_iter().flat_map(|at| std::iter::repeat_n(at, BURST as usize + 3));
        let waits = [SLOT, SLOT * 2, SLOT * 3].map(Leave::After);
        let once: Vec<_> = std::iter::repeat_n(Leave::AtOnce, BURST as usize).chain(waits).collect();
        let told: Vec<_> = leaving(arrivals).into_iter().map(|(leave, _)| leave).collect();
        assert_eq!(told, [once.clone(), once].concat());
    }

    #[test]
    fn who_is_refused_less_often_than_the_pace_never_waits() {
        let told = leaving((0..5_000).map(|number| SLOT * number));
        assert!(told.iter().all(|(leave, _)| *leave == Leave::AtOnce));
    }

    #[test]
    fn nobody_waits_longer_than_the_longest_wait_and_beyond_all_places_it_costs_the_connection() {
        let told = leaving(std::iter::repeat_n(Duration::ZERO, (BURST + WAITING + 5) as usize));
        let (waited, beyond) = told[BURST as usize..].split_at(WAITING as usize);
        assert!(waited.windows(2).all(|pair| pair[0].1 <= pair[1].1), "in the order in which they came");
        assert_eq!(waited.last().map(|(leave, _)| *leave), Some(Leave::After(LONGEST)));
        assert!(beyond.iter().all(|(leave, _)| *leave == Leave::WithItsConnection), "{beyond:?}");
    }

    proptest! {
        #[test]
        fn never_more_leave_than_the_burst_and_one_a_slot_unless_so_many_wait_that_the_longest_wait_holds(
            gaps in proptest::collection::vec(0_u64..2_000, 1..3_000),
        ) {
            let mut now = Duration::ZERO;
            let arrivals = gaps.into_iter().map(|gap| {
                now += Duration::from_micros(gap / 4);
                now
            });
            let told = leaving(arrivals);
            prop_assert!(told.iter().all(|(leave, _)| !matches!(leave, Leave::After(wait) if *wait > LONGEST)));
            // Those that were given a slot.
            let slot = |leave: &Leave| *leave != Leave::After(LONGEST) && *leave != Leave::WithItsConnection;
            let mut left: Vec<_> = told.into_iter().filter(|(leave, _)| slot(leave)).collect();
            left.sort_by_key(|(_, at)| *at);
            for (from, (_, first)) in left.iter().enumerate() {
                for (count, (_, at)) in left[from..].iter().enumerate().step_by(97) {
                    let least = SLOT * u32::try_from(count).expect("few").saturating_sub(BURST - 1);
                    prop_assert!(*at >= *first + least, "{count} more from {first:?} to {at:?}");
                }
            }
        }
    }
}
