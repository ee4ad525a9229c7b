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
