//! Tables `engine_health` and `engine_health_hourly`: checks of about a day, and roll-ups by hour for 90 days
//! (SPEC §3.4).

use std::time::Duration;

use rusqlite::{Row, params};

use super::columns::named;
use super::config_store::ConfigStore;
use super::error::StorageError;
use crate::types::clock::UnixMillis;
use crate::types::engine::HealthPoint;
use crate::types::ids::EngineId;

/// How long single checks are kept (SPEC §3.4).
const RAW: Duration = Duration::from_hours(24);

/// How long roll-ups are kept (SPEC §3.4).
const HOURLY: Duration = Duration::from_hours(90 * 24);

/// An hour in milliseconds.
const HOUR_MS: i64 = 3_600_000;

impl ConfigStore {
    /// Appends health checks. Those of an engine that was removed meanwhile are left out.
    pub async fn append_health(&self, points: Vec<HealthPoint>) -> Result<(), StorageError> {
        self.database
            .write("storing health checks", move |transaction| {
                let mut statement = transaction.prepare_cached(
                    "INSERT OR REPLACE INTO engine_health (engine, at, latency_ms, reason)
                     SELECT id, ?2, ?3, ?4 FROM engines WHERE id = ?1",
                )?;
                for point in points {
                    statement.execute(params![point.engine.as_str(), point.at.0, point.latency_ms, point.reason])?;
                }
                Ok(())
            })
            .await
    }

    /// Health checks from `since` on, oldest first; of all engines when none is named.
    ///
    /// What is older than a day is one point per hour, at its start: the mean latency of the checks that came
    /// back, and as reason how many did not.
    pub async fn health(&self, engine: Option<EngineId>, since: UnixMillis) -> Result<Vec<HealthPoint>, StorageError> {
        self.database
            .read("reading health checks", move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT engine, hour AS at,
                            CASE WHEN checks > failures THEN latency_sum_ms / (checks - failures) END AS latency_ms,
                            CASE WHEN failures > 0 THEN failures || ' of ' || checks || ' checks failed' END AS reason
                     FROM engine_health_hourly WHERE (?1 IS NULL OR engine = ?1) AND hour >= ?2
                     UNION ALL
                     SELECT engine, at, latency_ms, reason
                     FROM engine_health WHERE (?1 IS NULL OR engine = ?1) AND at >= ?2
                     ORDER BY at, engine",
                )?;
                statement.query_map(params![engine.as_ref().map(EngineId::as_str), since.0], point)?.collect()
            })
            .await
    }

    /// Rolls single checks older than 24 h up to hours, whole hours only, and drops roll-ups older than 90 days.
    pub async fn roll_up_health(&self, now: UnixMillis) -> Result<(), StorageError> {
        let day_ago = now.minus(RAW).0;
        let first_kept = day_ago - day_ago.rem_euclid(HOUR_MS);
        let oldest_hour = now.minus(HOURLY).0;
        self.database
            .write("rolling health checks up", move |transaction| {
                transaction.execute(
                    "INSERT INTO engine_health_hourly (engine, hour, checks, failures, latency_sum_ms)
                     SELECT engine, at - at % ?2, count(*), count(*) - count(latency_ms), coalesce(sum(latency_ms), 0)
                     FROM engine_health WHERE at < ?1 GROUP BY 1, 2
                     ON CONFLICT (engine, hour) DO UPDATE SET checks = checks + excluded.checks,
                         failures = failures + excluded.failures,
                         latency_sum_ms = latency_sum_ms + excluded.latency_sum_ms",
                    [first_kept, HOUR_MS],
                )?;
                transaction.execute("DELETE FROM engine_health WHERE at < ?1", [first_kept])?;
                transaction.execute("DELETE FROM engine_health_hourly WHERE hour < ?1", [oldest_hour])?;
                Ok(())
            })
            .await
    }
}

fn point(row: &Row<'_>) -> rusqlite::Result<HealthPoint> {
    Ok(HealthPoint {
        engine: named(row, "engine")?,
        at: UnixMillis(row.get("at")?),
        latency_ms: row.get("latency_ms")?,
        reason: row.get("reason")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::engine::{EngineKind, EngineOrigin, EngineRecord};

    async fn store_with(engines: &[&str]) -> (tempfile::TempDir, ConfigStore) {
        let folder = tempfile::tempdir().expect("folder");
        let store = ConfigStore::open(&folder.path().join("config.db")).expect("opens");
        for id in engines {
            let record = EngineRecord {
                id: EngineId::parse(id).expect("id"),
                kind: EngineKind::named("openai"),
                url: "http://127.0.0.1:1".into(),
                api_key_env: None,
                direct: false,
                slots: None,
                origin: EngineOrigin::Detected,
                created: UnixMillis(0),
            };
            store.put_engine(record).await.expect("stores");
        }
        (folder, store)
    }

    fn check(engine: &str, at: i64, latency_ms: Option<u32>) -> HealthPoint {
        let reason = latency_ms.is_none().then(|| "connection refused".to_owned());
        HealthPoint { engine: EngineId::parse(engine).expect("id"), at: UnixMillis(at), latency_ms, reason }
    }

    #[tokio::test]
    async fn checks_come_back_in_order_by_engine_and_time() {
        let (_folder, store) = store_with(&["a", "b"]).await;
        let points = vec![check("b", 20, Some(5)), check("a", 10, None), check("gone", 10, Some(1))];
        store.append_health(points).await.expect("stores");
        let all = store.health(None, UnixMillis(0)).await.expect("reads");
        assert_eq!(all, [check("a", 10, None), check("b", 20, Some(5))], "the engine that is gone is left out");
        let b = EngineId::parse("b").expect("id");
        assert_eq!(store.health(Some(b.clone()), UnixMillis(20)).await.expect("reads"), [check("b", 20, Some(5))]);
        assert_eq!(store.health(Some(b), UnixMillis(21)).await.expect("reads"), []);
    }

    #[tokio::test]
    async fn old_checks_become_hours_and_old_hours_go() {
        let (_folder, store) = store_with(&["a"]).await;
        let hour = HOUR_MS;
        let old = vec![check("a", 5, Some(10)), check("a", 6, Some(20)), check("a", 7, None), check("a", hour, None)];
        store.append_health(old).await.expect("stores");
        let recent = check("a", 2 * hour + 1, Some(1));
        store.append_health(vec![recent.clone()]).await.expect("stores");

        // 26 hours and a bit: the first two hours are over and older than a day, the third is not.
        let now = UnixMillis(26 * hour + 5);
        let rolled = [
            HealthPoint { latency_ms: Some(15), reason: Some("1 of 3 checks failed".into()), ..check("a", 0, None) },
            HealthPoint { reason: Some("1 of 1 checks failed".into()), ..check("a", hour, None) },
            recent.clone(),
        ];
        for _ in 0..2 {
            store.roll_up_health(now).await.expect("rolls up, and again without harm");
            assert_eq!(store.health(None, UnixMillis(0)).await.expect("reads"), rolled);
        }
        // A late check of an hour that was rolled up is added to it.
        store.append_health(vec![check("a", 8, Some(30))]).await.expect("stores");
        store.roll_up_health(now).await.expect("rolls up");
        let first = store.health(None, UnixMillis(0)).await.expect("reads").remove(0);
        assert_eq!((first.latency_ms, first.reason.as_deref()), (Some(20), Some("1 of 4 checks failed")));

        store.roll_up_health(UnixMillis(0).plus(HOURLY).plus(Duration::from_hours(3))).await.expect("rolls up");
        assert_eq!(store.health(None, UnixMillis(0)).await.expect("reads"), []);
    }
}
