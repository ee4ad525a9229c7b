//! What was used (SPEC §2 `flm usage`), and how it gets from memory to the store.

use std::collections::BTreeMap;

use super::context::{Context, Live, blocking_panicked};
use crate::types::calendar::{self, LocalDay};
use crate::types::calls::usage::ShowUsage;
use crate::types::clock::UnixMillis;
use crate::types::failure::Outcome;
use crate::types::ids::KeyId;
use crate::types::usage::{UsageBy, UsageReport, UsageRow, UsageSums};

/// What a report calls the requests that FLM sent to its own endpoint: chats, comparisons, measurements.
const OWN_LABEL: &str = "flm itself";

/// Sums usage by key, model, engine or day; what is still in memory is stored first.
pub async fn show(context: &Context, call: ShowUsage) -> Outcome<UsageReport> {
    store_usage(context).await?;
    let since = calendar::hour_start(context.clock.wall().minus(call.since));
    let stored = context.stores.config.usage(since).await?;
    let mut sums: BTreeMap<String, UsageSums> = BTreeMap::new();
    let mut total = UsageSums::default();
    for (slot, more) in stored {
        let name = match call.by {
            UsageBy::Key => slot.key.to_string(),
            UsageBy::Model => slot.model.to_string(),
            UsageBy::Engine => slot.engine.to_string(),
            UsageBy::Day => calendar::date(slot.hour),
        };
        *sums.entry(name).or_default() += more;
        total += more;
    }
    let labels = match call.by {
        UsageBy::Key => labels(context).await?,
        UsageBy::Model | UsageBy::Engine | UsageBy::Day => BTreeMap::new(),
    };
    let mut rows: Vec<_> = sums
        .into_iter()
        .map(|(name, sums)| {
            let label = labels.get(&name).cloned();
            UsageRow::new(name, label, sums)
        })
        .collect();
    if call.by != UsageBy::Day {
        // The sort is stable: equals stay in the order of their names.
        rows.sort_by_key(|row| std::cmp::Reverse(row.sums.tokens()));
    }
    Ok(UsageReport { by: call.by, since, rows, total })
}

async fn labels(context: &Context) -> Outcome<BTreeMap<String, String>> {
    let keys = context.stores.security.keys().await?;
    let own = (KeyId::OWN.to_string(), OWN_LABEL.to_owned());
    Ok(keys.into_iter().map(|record| (record.view.id.to_string(), record.view.label)).chain([own]).collect())
}

/// Stores what the workers have summed, as the keeper does every few seconds: a report shows it all. What cannot be
/// stored goes back into memory, to be stored the next time.
pub async fn store_usage(context: &Context) -> Outcome<()> {
    let Some(Live { proxy, .. }) = &context.live else { return Ok(()) };
    if context.stores.config.read_only().is_some() {
        // It stays in memory, where budgets are counted.
        return Ok(());
    }
    let usage = proxy.metrics.take_usage();
    if usage.is_empty() {
        return Ok(());
    }
    // In a task of its own: a caller that leaves must not take what was taken with it.
    let (store, metrics) = (context.stores.config.clone(), proxy.metrics.clone());
    let stored = context.tasks.spawn("storing usage", async move {
        let outcome = store.add_usage(usage.clone()).await;
        if outcome.is_err() {
            metrics.return_usage(usage);
        }
        outcome
    });
    Ok(stored.await.map_err(|_| blocking_panicked("storing usage"))??)
}

/// Tokens that each key has used on the local day of `now`, as stored: a budget outlives a restart.
pub async fn spent_today(context: &Context, now: UnixMillis) -> Outcome<BTreeMap<KeyId, u64>> {
    let today = LocalDay::of(now);
    let mut spent = BTreeMap::new();
    let stored = context.stores.config.usage(today.start).await?;
    // A clock that was ahead may have left hours that are still to come.
    for (slot, sums) in stored.into_iter().filter(|(slot, _)| slot.hour < today.end) {
        let tokens: &mut u64 = spent.entry(slot.key).or_default();
        *tokens = tokens.saturating_add(sums.tokens());
    }
    Ok(spent)
}
