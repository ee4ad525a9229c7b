//! The live lane: a numbered, bounded ring of events from everyone to every attached console.
//!
//! Whoever changes state changes it first and publishes after, so that a snapshot taken at sequence N holds
//! every event up to N (see `types::live`). A console that is slow loses the oldest events, is told how many,
//! and takes a new snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::broadcast;

use crate::types::live::{LiveEvent, NumberedEvent};

/// Events kept for a slow console before the oldest are dropped (ARCHITECTURE.md: a bounded ring).
const RING: usize = 4096;

/// Where events are published and consoles subscribe. Cloned freely.
#[derive(Debug, Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The number of the newest event. The lock makes number and place in the ring agree; it is taken only when
    /// something happened that a console shows, never per request (see `metrics`).
    sequence: std::sync::Mutex<u64>,
    ring: broadcast::Sender<NumberedEvent>,
    dropped: AtomicU64,
}

/// What a subscriber gets next.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery {
    /// The next event.
    Event(NumberedEvent),
    /// This many events were dropped: take a new snapshot.
    Gap(u64),
    /// The hub is gone.
    Closed,
}

/// One console's place in the ring.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<NumberedEvent>,
    shared: Arc<Shared>,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

impl Hub {
    /// A hub without events.
    #[must_use]
    pub fn new() -> Self {
        let (ring, _) = broadcast::channel(RING);
        Self { shared: Arc::new(Shared { sequence: std::sync::Mutex::new(0), ring, dropped: AtomicU64::new(0) }) }
    }

    /// Publishes an event. Nobody listening is fine.
    pub fn publish(&self, event: LiveEvent) {
        let mut sequence = self.shared.sequence.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *sequence += 1;
        // An error only says that nobody listens.
        let _nobody_listens = self.shared.ring.send(NumberedEvent { sequence: *sequence, event: Arc::new(event) });
    }

    /// The number of the newest event.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        *self.shared.sequence.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many consoles listen; publishers of costly events ask first.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.shared.ring.receiver_count()
    }

    /// Events that slow consoles did not get.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Listens from now on. Subscribe before taking the snapshot.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        Subscription { receiver: self.shared.ring.subscribe(), shared: self.shared.clone() }
    }
}

impl Subscription {
    /// Waits for the next event. Cancel-safe.
    pub async fn next(&mut self) -> Delivery {
        match self.receiver.recv().await {
            Ok(event) => Delivery::Event(event),
            Err(broadcast::error::RecvError::Lagged(count)) => {
                self.shared.dropped.fetch_add(count, Ordering::Relaxed);
                Delivery::Gap(count)
            }
            Err(broadcast::error::RecvError::Closed) => Delivery::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_arrive_in_order_with_numbers() {
        let hub = Hub::new();
        let mut subscription = hub.subscribe();
        hub.publish(LiveEvent::Ending);
        hub.publish(LiveEvent::Ending);
        for expected in 1..=2 {
            let Delivery::Event(event) = subscription.next().await else { panic!("an event") };
            assert_eq!(event.sequence, expected);
        }
        assert_eq!(hub.sequence(), 2);
    }

    #[tokio::test]
    async fn a_slow_console_is_told_how_many_events_it_missed() {
        let hub = Hub::new();
        let mut subscription = hub.subscribe();
        for _ in 0..RING + 10 {
            hub.publish(LiveEvent::Ending);
        }
        assert_eq!(subscription.next().await, Delivery::Gap(10));
        assert_eq!(hub.dropped(), 10);
    }
}
