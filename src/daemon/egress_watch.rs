//! Watches the egress proxy: what happens to it is recorded and shown at once, and an outage and its end are seen without
//! traffic (SPEC §7).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::operations::context::Context;
use crate::operations::egress::record_events;

/// Between two looks at the proxy: what engines' health checks take too (SPEC §3.10).
const PERIOD: Duration = Duration::from_secs(10);

/// Watches until the owner ends; ends at once when there is no proxy.
pub(super) async fn watch(context: Arc<Context>) {
    if !context.egress.is_direct() {
        tokio::join!(tell(&context), probe(&context));
    }
}

async fn tell(context: &Context) {
    loop {
        context.egress.changed().notified().await;
        record_events(context).await;
        context.status_changed();
    }
}

async fn probe(context: &Context) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        context.egress.probe().await;
    }
}
