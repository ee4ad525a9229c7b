//! From the stores into memory: at start, and again on reload.

use std::sync::Arc;

use super::context::Context;
use super::usage;
use crate::guard::Guard;
use crate::proxy::profile::ProfileTable;
use crate::proxy::prompt::PromptTable;
use crate::types::calls::addresses::NetworkList;
use crate::types::engine::EngineOrigin;
use crate::types::failure::Outcome;
use crate::types::text::escape;

/// Makes the registry hold what the store holds. An engine whose stored URL cannot be used is logged and left out:
/// the others must still serve.
pub async fn load_engines(context: &Context) -> Outcome<()> {
    let stored = context.stores.config.engines().await?;
    for view in context.registry.views() {
        let gone = stored.iter().all(|record| record.id != view.record.id);
        // The demo's engine lives in memory only.
        if gone && view.record.origin != EngineOrigin::Demo {
            context.registry.remove(&view.record.id);
        }
    }
    for record in stored {
        let unchanged = context.registry.engine(&record.id).is_some_and(|engine| engine.record == record);
        if unchanged {
            continue;
        }
        let id = record.id.clone();
        if let Err(error) = context.registry.put(record, &|name| context.variable(name)) {
            tracing::error!(engine = %id, error = %escape(&error.to_string()), "engine left out");
        }
    }
    Ok(())
}

/// Makes the guard hold what the store holds.
pub async fn load_guard(context: &Context, guard: &Guard) -> Outcome<()> {
    let security = &context.stores.security;
    // Everything is read before anything is published: a failure keeps the old state whole.
    let keys = security.keys().await?;
    let blocks = security.blocks(context.clock.wall()).await?;
    let allow = security.networks(NetworkList::Allow).await?;
    let trusted = security.networks(NetworkList::Trusted).await?;
    guard.load_keys(keys);
    guard.load_blocks(blocks);
    guard.load_networks(NetworkList::Allow, &allow);
    guard.load_networks(NetworkList::Trusted, &trusted);
    Ok(())
}

/// Gives a guard that was just filled what each key has used of its day. Once per process: from then on the guard
/// itself counts.
pub async fn restore_budgets(context: &Context, guard: &Guard) -> Outcome<()> {
    let now = context.clock.wall();
    for (id, tokens) in usage::spent_today(context, now).await? {
        guard.restore_tokens(id, tokens, now);
    }
    Ok(())
}

/// The prompts that the store holds.
pub async fn prompt_table(context: &Context) -> Outcome<Arc<PromptTable>> {
    Ok(Arc::new(PromptTable::new(context.stores.config.prompts().await?)))
}

/// The model profiles that the store holds.
pub async fn profile_table(context: &Context) -> Outcome<Arc<ProfileTable>> {
    Ok(Arc::new(ProfileTable::new(context.stores.config.profiles().await?)))
}
