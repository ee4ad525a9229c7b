//! Tells the operator of keys that go on at many times their usual rate (SECURITY.md, case 21): decided in `guard::surge`, read
//! and told here, once a minute.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::guard::surge::{Busy, Surges, USUAL, usual_per_hour};
use crate::operations::context::{Context, Live};
use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::calendar;
use crate::types::ids::KeyId;
use crate::types::policy::{KeySurge, Mode};
use crate::types::text::escape;

const MINUTE: Duration = Duration::from_mins(1);

/// Watches until the owner ends.
pub(super) async fn watch(context: Arc<Context>) {
    let Some(live) = &context.live else { return };
    let mut surges = Surges::default();
    let mut ticks = interval(MINUTE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        look(&context, live, &mut surges).await;
    }
}

async fn look(context: &Context, live: &Live, surges: &mut Surges) {
    let policy = live.proxy.guard.policy().key_surge;
    if policy.mode == Mode::Off {
        return;
    }
    let mut totals: BTreeMap<KeyId, u64> = BTreeMap::new();
    for (by, sums) in live.proxy.metrics.used_since_start() {
        // FLM's own measurements are meant to be fast.
        if by.key != KeyId::OWN {
            *totals.entry(by.key).or_default() += sums.requests;
        }
    }
    let busy = surges.minute(&totals, &policy);
    if busy.is_empty() {
        return;
    }
    let now = context.clock.wall();
    let usage = match context.stores.config.usage(now.minus(USUAL)).await {
        Ok(usage) => usage,
        Err(error) => {
            tracing::warn!(error = %escape(&error.to_string()), "the usual rate of keys cannot be read");
            return;
        }
    };
    // The hour in which it began is no measure of what is usual.
    let before = calendar::hour_start(now.minus(MINUTE * policy.minutes.get()));
    for busy in busy {
        let usual = usual_per_hour(&usage, busy.key, before);
        if surges.judge(busy, usual, &policy) {
            context.record_event(event(context, live, busy, usual.unwrap_or(0), &policy)).await;
        }
    }
}

fn event(context: &Context, live: &Live, busy: Busy, usual: u64, policy: &KeySurge) -> AuditEvent {
    let (kind, severity, would) = match policy.mode {
        Mode::Enforce => (AuditKind::RuleHit, Severity::High, ""),
        Mode::Off | Mode::Simulate => (AuditKind::Simulated, Severity::Medium, "would tell: "),
    };
    let label = live.proxy.guard.key(busy.key).map_or_else(String::new, |entry| format!(" ({})", escape(&entry.label)));
    let details = format!(
        "key_surge: {would}key {}{label} has had at least {} requests in each of the last {} minutes; {usual} an hour are usual. \
         If it leaked, revoke it",
        busy.key, busy.least, policy.minutes
    );
    AuditEvent { key: Some(busy.key), ..AuditEvent::new(context.clock.wall(), kind, severity, details) }
}
