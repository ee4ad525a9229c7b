//! Checks the engines' health side by side, and looks for engines when the owner starts (SPEC §3.1, §3.10).

use std::sync::Arc;

use tokio::time::sleep;

use crate::config::table;
use crate::operations::context::Context;
use crate::operations::engines::{check_all, current_detection, detect};
use crate::types::calls::engines::DetectEngines;

/// Checks every engine now and then again after each interval. The interval is read anew each time, so that a
/// changed setting counts at once.
pub(super) async fn check_engines(context: Arc<Context>) {
    loop {
        if let Err(failure) = check_all(&context).await {
            tracing::error!(%failure, "health checks could not be stored");
        }
        sleep(context.settings.load().get(table::ENGINE_CHECK_INTERVAL)).await;
    }
}

/// Looks for engines once, unless that is switched off: when none is registered, or when the last look is too old to
/// count.
pub(super) async fn first_detection(context: Arc<Context>) {
    if !context.settings.load().get(table::ENGINE_DETECT_AT_START) {
        return;
    }
    let known = !context.registry.views().is_empty();
    let current = current_detection(&context).await.is_ok_and(|report| report.is_some());
    if known && current {
        return;
    }
    match detect(&context, DetectEngines { kind: None, fresh: true }).await {
        Ok(report) => tracing::info!(found = report.engines.len(), took_ms = report.took_ms, "looked for engines"),
        Err(failure) => tracing::error!(%failure, "the first look for engines failed"),
    }
}
