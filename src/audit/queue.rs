//! The bounded queue between everyone who records and the one writer.
//!
//! Used by `Sink` and the writer. Must never wait: when it is full, the least severe event goes, and is counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::calls::audit::AuditHealth;

/// Events that may wait: a fifth of a second of the 20,000 a second that the writer must bear, and about 2 MB of memory when every
/// one carries a long path.
pub(super) const CAPACITY: usize = 4_096;

/// An event that waits for the writer.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) event: AuditEvent,
    /// Whoever waits until it is on disk.
    pub(super) written: Option<oneshot::Sender<()>>,
}

/// Events in order of arrival, by severity: shedding takes from the least severe.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    capacity: usize,
    /// Wakes the writer when there is something.
    pub(super) filled: Notify,
    /// Wakes the writer when it should not wait for a fuller batch: someone waits, or the queue grows.
    pub(super) urgent: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// One queue per severity, least severe first; each with the ticket that keeps the order across them.
    by_severity: [VecDeque<(u64, Waiting)>; 4],
    next_ticket: u64,
    waiting: usize,
    /// Shed since the writer last told about it.
    shed_untold: u64,
    /// Set when the writer ends: what comes later is counted and let go, so that nobody waits for it.
    closed: bool,
    health: AuditHealth,
    /// All that were recorded, shed ones included.
    recorded: BTreeMap<(AuditKind, Severity), u64>,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), capacity, filled: Notify::new(), urgent: Notify::new() }
    }

    /// The lock is held for a push or a pop of one batch, never across I/O or an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event; sheds the newest of the least severe when there is no place. An event that someone waits for
    /// is always taken: there is one per change that the operator makes.
    pub(super) fn push(&self, waiting: Waiting, hurry_at: usize) {
        let rank = rank(waiting.event.severity);
        let someone_waits = waiting.written.is_some();
        let length = {
            let mut state = self.state();
            *state.recorded.entry((waiting.event.kind, waiting.event.severity)).or_default() += 1;
            if state.closed {
                state.health.unwritten += 1;
                return;
            }
            if state.waiting >= self.capacity && !someone_waits && !state.make_room(rank) {
                state.count_shed();
                return;
            }
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            state.waiting += 1;
            state.by_severity[rank].push_back((ticket, waiting));
            state.waiting
        };
        self.filled.notify_one();
        if someone_waits || length >= hurry_at {
            self.urgent.notify_one();
        }
    }

    /// Takes up to `most` events in order of arrival, and how many were shed since the last call.
    pub(super) fn take(&self, most: usize) -> (Vec<Waiting>, u64) {
        let mut state = self.state();
        let mut taken = Vec::with_capacity(most.min(state.waiting));
        while taken.len() < most {
            let oldest = state
                .by_severity
                .iter()
                .enumerate()
                .filter_map(|(rank, queue)| queue.front().map(|(ticket, _)| (*ticket, rank)))
                .min();
            let Some((_, rank)) = oldest else { break };
            if let Some((_, waiting)) = state.by_severity[rank].pop_front() {
                taken.push(waiting);
            }
        }
        state.waiting -= taken.len();
        (taken, std::mem::take(&mut state.shed_untold))
    }

    pub(super) fn length(&self) -> usize {
        self.state().waiting
    }

    /// How many events of each kind were recorded since the start, shed ones included.
    pub(super) fn recorded(&self) -> BTreeMap<(AuditKind, Severity), u64> {
        self.state().recorded.clone()
    }

    pub(super) fn health(&self) -> AuditHealth {
        self.state().health.clone()
    }

    /// Lets go of what is left and of what comes later.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.health.unwritten += state.waiting as u64;
        state.waiting = 0;
        state.by_severity = Default::default();
    }

    pub(super) fn set_failing(&self, reason: Option<String>) {
        self.state().health.failing = reason;
    }

    pub(super) fn count_unwritten(&self, events: usize) {
        self.state().health.unwritten += events as u64;
    }
}

impl State {
    /// Sheds one event that is less severe than `rank`; false when there is none.
    fn make_room(&mut self, rank: usize) -> bool {
        for queue in &mut self.by_severity[..rank] {
            // Someone may wait for an event of any severity; those stay.
            if let Some(index) = queue.iter().rposition(|(_, waiting)| waiting.written.is_none()) {
                queue.remove(index);
                self.waiting -= 1;
                self.count_shed();
                return true;
            }
        }
        false
    }

    fn count_shed(&mut self) {
        self.health.shed += 1;
        self.shed_untold += 1;
    }
}

fn rank(severity: Severity) -> usize {
    match severity {
        Severity::Low => 0,
        Severity::Medium => 1,
        Severity::High => 2,
        Severity::Critical => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::audit::AuditKind;
    use crate::types::clock::UnixMillis;

    fn event(severity: Severity, details: &str) -> Waiting {
        let event = AuditEvent::new(UnixMillis(0), AuditKind::RuleHit, severity, details);
        Waiting { event, written: None }
    }

    fn details(taken: &[Waiting]) -> Vec<&str> {
        taken.iter().map(|waiting| waiting.event.details.as_str()).collect()
    }

    #[test]
    fn order_of_arrival_is_kept_across_severities() {
        let queue = Queue::new(10);
        queue.push(event(Severity::High, "a"), 100);
        queue.push(event(Severity::Low, "b"), 100);
        queue.push(event(Severity::Critical, "c"), 100);
        assert_eq!(details(&queue.take(2).0), ["a", "b"]);
        assert_eq!(details(&queue.take(2).0), ["c"]);
        assert_eq!(queue.length(), 0);
    }

    #[test]
    fn a_full_queue_sheds_the_least_severe_and_counts_it() {
        let queue = Queue::new(2);
        queue.push(event(Severity::Low, "first low"), 100);
        queue.push(event(Severity::Low, "second low"), 100);
        queue.push(event(Severity::Low, "third low"), 100);
        queue.push(event(Severity::High, "high"), 100);
        let (taken, shed) = queue.take(10);
        assert_eq!(details(&taken), ["first low", "high"]);
        assert_eq!((shed, queue.health().shed), (2, 2));
        assert_eq!(queue.take(10).1, 0, "told once");
    }

    #[test]
    fn a_flood_of_low_events_never_pushes_out_a_severe_one() {
        let queue = Queue::new(4);
        queue.push(event(Severity::Critical, "keep"), 100);
        for _ in 0..1_000 {
            queue.push(event(Severity::Low, "flood"), 100);
        }
        assert_eq!(queue.take(1).0[0].event.details, "keep");
        assert_eq!(queue.health().shed, 997);
    }

    #[tokio::test]
    async fn a_closed_queue_lets_nobody_wait() {
        let queue = Queue::new(10);
        let (before, answer_before) = oneshot::channel();
        let (after, answer_after) = oneshot::channel();
        queue.push(Waiting { written: Some(before), ..event(Severity::Low, "before") }, 100);
        queue.close();
        queue.push(Waiting { written: Some(after), ..event(Severity::Low, "after") }, 100);
        assert!(answer_before.await.is_err() && answer_after.await.is_err());
        assert_eq!((queue.length(), queue.health().unwritten), (0, 2));
    }

    #[test]
    fn an_event_that_someone_waits_for_is_always_taken() {
        let queue = Queue::new(1);
        queue.push(event(Severity::Critical, "critical"), 100);
        let (written, _answer) = oneshot::channel();
        queue.push(Waiting { written: Some(written), ..event(Severity::Low, "change") }, 100);
        queue.push(event(Severity::High, "shed"), 100);
        assert_eq!(details(&queue.take(10).0), ["critical", "change"]);
    }
}
