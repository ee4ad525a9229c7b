//! From the stores into memory: at start, and again on reload.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::context::Context;
use super::{policy, usage};
use crate::guard::Guard;
use crate::guard::block_list::BlockBatch;
use crate::proxy::profile::ProfileTable;
use crate::proxy::prompt::PromptTable;
use crate::storage::BlockPart;
use crate::types::address::ListedNetwork;
use crate::types::calls::addresses::NetworkList;
use crate::types::engine::{EngineOrigin, EngineRecord};
use crate::types::failure::Outcome;
use crate::types::key::KeyRecord;
use crate::types::policy::SecurityPolicy;
use crate::types::text::escape;

/// Networks whose failures are put back at start: as many as the guard remembers.
const RESTORED_FAILURES: u32 = 32_768;

/// Makes the registry hold what the store holds.
pub async fn load_engines(context: &Context) -> Outcome<()> {
    context.registry.set_aliases(context.stores.config.aliases().await?);
    put_engines(context, context.stores.config.engines().await?);
    Ok(())
}

/// Makes the registry hold these engines. One whose stored URL cannot be used is logged and left out: the others must
/// still serve.
pub fn put_engines(context: &Context, stored: Vec<EngineRecord>) {
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
}

/// What a guard holds, read whole before any of it is published: a failure keeps the old state.
pub struct GuardContent {
    keys: Vec<KeyRecord>,
    blocks: [BlockBatch; 2],
    allow: Vec<ListedNetwork>,
    trusted: Vec<ListedNetwork>,
    policy: SecurityPolicy,
}

/// Reads what the store holds for a guard, the long lists side by side: a start waits for them.
pub async fn read_guard(context: &Context) -> Outcome<GuardContent> {
    let (security, now) = (&context.stores.security, context.clock.wall());
    let blocks = |part| security.read_blocks(part, now, BlockBatch::default(), BlockBatch::push, BlockBatch::arranged);
    let (lower, upper, keys) = tokio::try_join!(blocks(BlockPart::Lower), blocks(BlockPart::Upper), security.keys())?;
    Ok(GuardContent {
        keys,
        blocks: [lower, upper],
        allow: security.networks(NetworkList::Allow).await?,
        trusted: security.networks(NetworkList::Trusted).await?,
        policy: policy::stored(context).await?,
    })
}

impl GuardContent {
    /// Puts it in force.
    pub fn publish(self, guard: &Guard) {
        guard.set_policy(self.policy);
        let keys = Mutex::new(Some(self.keys));
        let load_keys = || {
            if let Some(keys) = keys.lock().unwrap_or_else(PoisonError::into_inner).take() {
                guard.load_keys(keys);
            }
        };
        std::thread::scope(|scope| {
            // Beside the blocks: both lists may be long. Whoever comes first does it, also when the system gives no thread.
            let _beside = std::thread::Builder::new().name("load-keys".to_owned()).spawn_scoped(scope, load_keys);
            guard.load_blocks(self.blocks);
            load_keys();
        });
        guard.load_networks(NetworkList::Allow, &self.allow);
        guard.load_networks(NetworkList::Trusted, &self.trusted);
    }
}

/// Gives a guard that was just filled the failures that still count. Once per process, like budgets.
pub async fn restore_failures(context: &Context, guard: &Guard) -> Outcome<()> {
    let window = Duration::from_secs(u64::from(guard.policy().failed_authentication.window_hours.get()) * 3600);
    let since = context.clock.wall().minus(window);
    guard.restore_failures(context.stores.security.failures(since, RESTORED_FAILURES).await?);
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
