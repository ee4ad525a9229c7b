//! Seventh stage: does the key have tokens left today? (SPEC §4.2, §5.7.)
//!
//! Asked twice: when the model is known, before the request waits for an engine, and again when an engine has a slot
//! for it, since others may have spent the rest meanwhile. So a budget is overshot by the requests that run at that
//! moment, one per slot, and by none that waited.

use std::sync::Arc;

use super::exchange::{Exchange, Resolved};
use super::refusal::Refusal;
use crate::guard::key_table::KeyEntry;
use crate::types::audit::{AuditKind, Severity};
use crate::types::clock::UnixMillis;

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

/// Asks again when the request's turn has come.
pub(super) fn still_open(key: &Arc<KeyEntry>, now: impl FnOnce() -> UnixMillis) -> Result<(), Refusal> {
    match key.record.view.limits.tokens_per_day {
        Some(limit) if key.counts.tokens.state(now()).spent >= limit => Err(Refusal::budget_exceeded(limit)),
        _ => Ok(()),
    }
}
