//! [`Sink`]: where every room records security events.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::queue::{CAPACITY, Queue, Waiting};
use super::writer::BATCH;
use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::calls::audit::AuditHealth;

/// How long a change waits until its event is on disk; after that it is told that the event waits. A change such as
/// a revocation must not hang on a full disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where events go. Cloned freely; a clone is one reference count.
#[derive(Debug, Clone)]
pub struct Sink {
    pub(super) queue: Arc<Queue>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A writer takes the events.
    Written,
    /// A test takes them.
    Collected,
}

/// What became of an event that was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acknowledgement {
    /// It is on disk.
    Written,
    /// The disk fails, and it is tried again; or the log only reads or has ended, and it is counted as unwritten.
    Waiting,
}

impl Sink {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue, kind: Kind::Written }
    }

    /// A sink without a writer, and the other end that reads what was recorded. For tests and benches.
    #[must_use]
    pub fn collecting() -> (Self, Collected) {
        let queue = Arc::new(Queue::new(CAPACITY));
        (Self { queue: queue.clone(), kind: Kind::Collected }, Collected { queue })
    }

    /// Records an event. Never blocks; when the queue is full the least severe event is shed and counted.
    pub fn record(&self, event: AuditEvent) {
        self.queue.push(Waiting { event, written: None }, BATCH);
    }

    /// How many events of each kind and severity were recorded since the start, in order; what was shed is counted too.
    #[must_use]
    pub fn recorded(&self) -> Vec<(AuditKind, Severity, u64)> {
        self.queue.recorded().into_iter().map(|((kind, severity), count)| (kind, severity, count)).collect()
    }

    /// Events that wait for the writer now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.length()
    }

    /// How the writer fares.
    #[must_use]
    pub fn health(&self) -> AuditHealth {
        self.queue.health()
    }

    /// Records an event and waits until it is on disk, at most 5 s: for changes of keys and policy. The event is
    /// never shed, also when the future is dropped.
    pub async fn record_acknowledged(&self, event: AuditEvent) -> Acknowledgement {
        if self.kind == Kind::Collected {
            self.record(event);
            return Acknowledgement::Written;
        }
        let (written, answer) = oneshot::channel();
        self.queue.push(Waiting { event, written: Some(written) }, BATCH);
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(())) => Acknowledgement::Written,
            Ok(Err(_)) | Err(_) => Acknowledgement::Waiting,
        }
    }
}

/// What a collecting sink got.
#[derive(Debug)]
pub struct Collected {
    queue: Arc<Queue>,
}

impl Collected {
    /// Takes what was recorded since the last call, in order.
    #[must_use]
    pub fn take(&self) -> Vec<AuditEvent> {
        self.queue.take(usize::MAX).0.into_iter().map(|waiting| waiting.event).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::clock::UnixMillis;

    #[tokio::test]
    async fn a_collecting_sink_hands_events_over_in_order() {
        let (sink, collected) = Sink::collecting();
        let event = |details: &str| AuditEvent::new(UnixMillis(1), AuditKind::KeyChanged, Severity::Low, details);
        sink.record(event("first"));
        assert_eq!(sink.clone().record_acknowledged(event("second")).await, Acknowledgement::Written);
        let details: Vec<_> = collected.take().into_iter().map(|event| event.details).collect();
        assert_eq!(details, ["first", "second"]);
        assert!(collected.take().is_empty());
    }
}
