//! Seventh stage: does the key have tokens left today? (SPEC §4.2, §5.7.)
//!
//! Asked twice: when the model is known, before the request waits for an engine, and again when an engine has a slot
//! for it, since others may have spent the rest meanwhile. So a budget is overshot by the requests that run at that
//! moment, one per slot, and by none that waited.

use std::sync::Arc;

use http::StatusCode;

use super::exchange::{Exchange, Resolved};
use super::refusal::Refusal;
use super::relay::Order;
use crate::guard::key_table::KeyEntry;
use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::ids::EngineId;

/// Takes a place in the key's budget for this request; the account gives it back.
pub(super) fn reserve(exchange: &mut Exchange, resolved: Resolved) -> Result<Resolved, Refusal> {
    hold(exchange, &resolved.parsed.key)?;
    Ok(resolved)
}

/// The same for a request that knows its engine without resolving a model.
pub(super) fn hold(exchange: &mut Exchange, key: &Arc<KeyEntry>) -> Result<(), Refusal> {
    let Some(limit) = key.record.view.limits.tokens_per_day else { return Ok(()) };
    let now = exchange.peer.worker.shared.clock.wall();
    let Some(place) = key.counts.reserve(limit, now) else {
        let refusal = Refusal::budget_exceeded(limit);
        exchange.audit(AuditKind::RateLimited, Severity::Low, refusal.status, "tokens per day".to_owned());
        return Err(refusal);
    };
    exchange.account.holds(place);
    Ok(())
}

/// What the audit log is told if the budget is spent when the request's turn comes; `None` for a key without one.
pub(super) fn spent_meanwhile(exchange: &Exchange, key: &KeyEntry) -> Option<Box<AuditEvent>> {
    key.record.view.limits.tokens_per_day?;
    let details = "tokens per day, spent while it waited";
    let event = AuditEvent::new(exchange.at, AuditKind::RateLimited, Severity::Low, details);
    Some(Box::new(AuditEvent { status: Some(StatusCode::TOO_MANY_REQUESTS.as_u16()), ..exchange.of_request(event) }))
}

/// Asks again when the request's turn has come on that engine.
pub(super) fn still_open(order: &Order, engine: &EngineId) -> Result<(), Refusal> {
    let (shared, key) = (&order.worker.shared, order.key());
    let (Some(limit), Some(spent)) = (key.record.view.limits.tokens_per_day, &order.spent) else { return Ok(()) };
    let at = shared.clock.wall();
    if key.counts.tokens.state(at).spent < limit {
        return Ok(());
    }
    let latency_ms = u32::try_from(at.since(spent.at).as_millis()).ok();
    shared.audit.record(AuditEvent { at, latency_ms, engine: Some(engine.clone()), ..AuditEvent::clone(spent) });
    Err(Refusal::budget_exceeded(limit))
}
