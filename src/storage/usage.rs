//! Table `usage_hourly`: what was used, by local hour, key, model and engine (SPEC §10, usage roll-ups).

use std::time::Duration;

use rusqlite::{Row, params};

use super::columns::{named, number, unsigned};
use super::config_store::ConfigStore;
use super::error::StorageError;
use crate::types::clock::UnixMillis;
use crate::types::usage::{UsageSlot, UsageSums};

impl ConfigStore {
    /// Adds sums to those that are stored, all or none of them.
    pub async fn add_usage(&self, usage: Vec<(UsageSlot, UsageSums)>) -> Result<(), StorageError> {
        self.database
            .write("storing usage", move |transaction| {
                let mut statement = transaction.prepare_cached(
                    "INSERT INTO usage_hourly VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
                     ON CONFLICT DO UPDATE SET
                         requests = requests + excluded.requests,
                         failed = failed + excluded.failed,
                         estimated = estimated + excluded.estimated,
                         prompt_tokens = prompt_tokens + excluded.prompt_tokens,
                         completion_tokens = completion_tokens + excluded.completion_tokens,
                         cached_tokens = cached_tokens + excluded.cached_tokens,
                         latency_us = latency_us + excluded.latency_us,
                         first_token_us = first_token_us + excluded.first_token_us,
                         first_tokens = first_tokens + excluded.first_tokens,
                         rated_tokens = rated_tokens + excluded.rated_tokens,
                         rated_us = rated_us + excluded.rated_us",
                )?;
                for (slot, sums) in usage {
                    statement.execute(params![
                        slot.hour.0,
                        slot.key.as_str(),
                        &*slot.model,
                        slot.engine.as_str(),
                        number(sums.requests),
                        number(sums.failed),
                        number(sums.estimated),
                        number(sums.prompt_tokens),
                        number(sums.completion_tokens),
                        number(sums.cached_tokens),
                        number(sums.latency_us),
                        number(sums.first_token_us),
                        number(sums.first_tokens),
                        number(sums.rated_tokens),
                        number(sums.rated_us),
                    ])?;
                }
                Ok(())
            })
            .await
    }

    /// Usage of hours that begin at `since` or later, in order.
    pub async fn usage(&self, since: UnixMillis) -> Result<Vec<(UsageSlot, UsageSums)>, StorageError> {
        self.database
            .read("reading usage", move |connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM usage_hourly WHERE hour >= ?1")?;
                statement.query_map([since.0], usage)?.collect()
            })
            .await
    }

    /// Drops hours older than `keep`; answers how many rows went.
    pub async fn trim_usage(&self, now: UnixMillis, keep: Duration) -> Result<usize, StorageError> {
        let oldest = now.minus(keep).0;
        self.database
            .write("trimming usage", move |transaction| {
                transaction.execute("DELETE FROM usage_hourly WHERE hour < ?1", [oldest])
            })
            .await
    }
}

fn usage(row: &Row<'_>) -> rusqlite::Result<(UsageSlot, UsageSums)> {
    let slot = UsageSlot {
        hour: UnixMillis(row.get("hour")?),
        key: named(row, "key")?,
        model: row.get::<_, String>("model")?.into(),
        engine: named(row, "engine")?,
    };
    let sums = UsageSums {
        requests: unsigned(row, "requests")?,
        failed: unsigned(row, "failed")?,
        estimated: unsigned(row, "estimated")?,
        prompt_tokens: unsigned(row, "prompt_tokens")?,
        completion_tokens: unsigned(row, "completion_tokens")?,
        cached_tokens: unsigned(row, "cached_tokens")?,
        latency_us: unsigned(row, "latency_us")?,
        first_token_us: unsigned(row, "first_token_us")?,
        first_tokens: unsigned(row, "first_tokens")?,
        rated_tokens: unsigned(row, "rated_tokens")?,
        rated_us: unsigned(row, "rated_us")?,
    };
    Ok((slot, sums))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::{EngineId, KeyId};

    fn slot(hour: i64, model: &str) -> UsageSlot {
        UsageSlot {
            hour: UnixMillis(hour),
            key: KeyId::parse("Ab12Cd34").expect("id"),
            model: model.into(),
            engine: EngineId::parse("ollama").expect("id"),
        }
    }

    fn sums(n: u64) -> UsageSums {
        UsageSums {
            requests: n,
            failed: n + 1,
            estimated: n + 2,
            prompt_tokens: n + 3,
            completion_tokens: n + 4,
            cached_tokens: n + 5,
            latency_us: n + 6,
            first_token_us: n + 7,
            first_tokens: n + 8,
            rated_tokens: n + 9,
            rated_us: n + 10,
        }
    }

    #[tokio::test]
    async fn sums_are_added_field_by_field_and_survive_a_restart() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config.db");
        let store = ConfigStore::open(&path).expect("opens");
        store.add_usage(vec![(slot(1, "a"), sums(10)), (slot(2, "a"), sums(20))]).await.expect("stores");
        store.add_usage(vec![(slot(1, "a"), sums(100)), (slot(1, "b"), sums(1))]).await.expect("stores");
        let mut both = sums(10);
        both += sums(100);
        let expected = [(slot(1, "a"), both), (slot(1, "b"), sums(1)), (slot(2, "a"), sums(20))];
        assert_eq!(store.usage(UnixMillis(0)).await.expect("reads"), expected);
        store.close().await.expect("closes");
        let store = ConfigStore::open(&path).expect("opens");
        assert_eq!(store.usage(UnixMillis(2)).await.expect("reads"), expected[2..]);
    }

    #[tokio::test]
    async fn old_hours_are_dropped() {
        let folder = tempfile::tempdir().expect("folder");
        let store = ConfigStore::open(&folder.path().join("config.db")).expect("opens");
        store.add_usage(vec![(slot(10, "a"), sums(1)), (slot(20, "a"), sums(2))]).await.expect("stores");
        assert_eq!(store.trim_usage(UnixMillis(100), Duration::from_millis(85)).await.expect("trims"), 1);
        assert_eq!(store.usage(UnixMillis(0)).await.expect("reads"), [(slot(20, "a"), sums(2))]);
    }
}
