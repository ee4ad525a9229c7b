//! Which candidate runs a request, and the waiting until one has a free slot (SPEC §3.8).
//!
//! Called by the relay before each call to an engine. A free slot is taken without waiting; else the request stands in
//! the queue of every candidate of its tier at once and goes to the first that frees a slot.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::refusal::Refusal;
use super::relay::Order;
use crate::engines::circuit::Gate;
use crate::engines::resolution::Candidate;
use crate::engines::slots::{Claimant, Place, QueueFull, Slot};

/// A slot at the candidate with that place in the list, which is not among those `tried`; `None` when all were.
pub(super) async fn slot(order: &Order, tried: &[usize]) -> Result<Option<(usize, Slot)>, Refusal> {
    let candidates = order.candidates();
    let left = || candidates.iter().enumerate().filter(|(at, _)| !tried.contains(at));
    let mut refusal = None;
    let mut tier = left().map(|(_, candidate)| candidate.tier).min();
    while let Some(current) = tier {
        let mut admitted = Vec::new();
        let mut rested = None;
        for (at, candidate) in left().filter(|(_, candidate)| candidate.tier == current) {
            match candidate.target.circuit.gate(|| order.worker.shared.clock.monotonic()) {
                Gate::Closed => {
                    if let Some(slot) = candidate.target.slots.try_take() {
                        return Ok(Some((at, slot)));
                    }
                    admitted.push(at);
                }
                Gate::Open { until } => rested = Some(rested.map_or(until, |before: Instant| before.min(until))),
            }
        }
        let outcome = match rested {
            Some(until) if admitted.is_empty() => Err(resting(order, until)),
            // Boxed: it is rare, and every stream would carry its state else.
            _ => Box::pin(wait(order, candidates, &admitted)).await.map(Some),
        };
        match outcome {
            Ok(slot) => return Ok(slot),
            Err(why) => refusal = Some(why),
        }
        tier = left().map(|(_, candidate)| candidate.tier).filter(|tier| *tier > current).min();
    }
    refusal.map_or(Ok(None), Err)
}

/// Waits for the first slot of those candidates.
async fn wait(order: &Order, candidates: &[Candidate], admitted: &[usize]) -> Result<(usize, Slot), Refusal> {
    let view = &order.key().record.view;
    let claimant = Claimant { key: view.id, priority: view.limits.priority, since: order.worker.shared.clock.wall() };
    let mut places: Vec<(usize, Place)> = Vec::with_capacity(admitted.len());
    let mut soonest: Option<Duration> = None;
    for &at in admitted {
        let slots = &candidates[at].target.slots;
        match slots.join(claimant, order.queue_length) {
            Ok(place) => places.push((at, place)),
            Err(QueueFull { retry_after }) => {
                soonest = Some(soonest.map_or(retry_after, |before| before.min(retry_after)));
            }
        }
    }
    if places.is_empty() {
        return Err(Refusal::rate_limited(
            format!("All slots for this model are busy and its queue of {} is full.", order.queue_length),
            seconds(soonest.unwrap_or_default()),
        ));
    }
    let first = poll_fn(|cx| {
        for (at, place) in &mut places {
            if let Poll::Ready(slot) = Pin::new(place).poll(cx) {
                return Poll::Ready((*at, slot));
            }
        }
        Poll::Pending
    });
    let waited = tokio::time::timeout(order.queue_wait, first).await;
    waited.map_err(|_elapsed| {
        let retry_after = places.iter().map(|(_, place)| place.expected_wait()).min().unwrap_or_default();
        Refusal::rate_limited(
            format!("No slot for this model became free within {} s.", order.queue_wait.as_secs()),
            seconds(retry_after),
        )
    })
}

fn resting(order: &Order, until: Instant) -> Refusal {
    let left = until.saturating_duration_since(order.worker.shared.clock.monotonic());
    Refusal::engine_resting(
        "The engine failed again and again, or asked for rest; it is tried again soon.",
        seconds(left),
    )
}

/// Whole seconds, rounded up.
fn seconds(span: Duration) -> u32 {
    u32::try_from(span.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX)
}
