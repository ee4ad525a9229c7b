//! Checks the engines' health side by side, reads the graphics processors, and looks for engines when the owner starts (SPEC §3.1, §3.10).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::hosting::Hosting;
use crate::config::table;
use crate::engines::adapter::Session;
use crate::engines::gpu::GpuReader;
use crate::operations::context::Context;
use crate::operations::engines::{check_all, current_detection, detect};
use crate::types::calls::engines::DetectEngines;
use crate::types::live::LiveEvent;
use crate::types::text::escape;

/// Time for an engine to take a model out of memory.
const UNLOAD_DEADLINE: Duration = Duration::from_secs(30);

/// Checks every engine now and then again after each interval. The interval is read anew each time, so that a
/// changed setting counts at once.
pub(super) async fn check_engines(context: Arc<Context>) {
    loop {
        if let Err(failure) = check_all(&context).await {
            tracing::error!(%failure, "health checks could not be stored");
        }
        unload_idle(&context).await;
        sleep(context.settings.load().get(table::ENGINE_CHECK_INTERVAL)).await;
    }
}

/// Takes models out of memory that FLM loaded on demand and nobody used for long (SPEC §3.10).
async fn unload_idle(context: &Context) {
    let span = context.settings.load().get(table::ENGINE_IDLE_UNLOAD);
    if span.is_zero() {
        return;
    }
    for (engine, target) in context.registry.idle_models(span) {
        let (id, model) = (&engine.record.id, escape(&target.canonical.model));
        let session = Session {
            pool: &context.pool,
            upstream: &engine.upstream,
            api_key: engine.api_key.as_ref(),
            deadline: UNLOAD_DEADLINE,
        };
        match engine.adapter.unload(session, &target.canonical.model).await {
            Ok(()) => {
                tracing::info!(engine = %id, %model, "unloaded: nobody used it");
                target.residency.unloaded();
                context.registry.reread_models(id);
            }
            Err(error) => {
                tracing::warn!(engine = %id, %model, error = %escape(&error.to_string()), "could not be unloaded");
            }
        }
    }
}

/// Tells what the drivers of graphics processors tell, at the pace of health checks and only when it changed
/// (SPEC §3.10).
pub(super) async fn watch_gpus(context: Arc<Context>, hosting: Arc<Hosting>) {
    let Ok(reader) = tokio::task::spawn_blocking(GpuReader::of_this_machine).await else { return };
    loop {
        let told = reader.read().await;
        if told != **hosting.gpus.load() {
            hosting.gpus.store(Arc::new(told.clone()));
            context.hub.publish(LiveEvent::Gpus(told));
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
