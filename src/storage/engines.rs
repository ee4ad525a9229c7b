//! Tables `engines` and `engines_cache`: the registry and the last detection (SPEC §3.3, §3.7).

use rusqlite::{OptionalExtension as _, Row, named_params};

use super::columns::{from_json, json, name, named};
use super::config_store::ConfigStore;
use super::error::StorageError;
use crate::types::clock::UnixMillis;
use crate::types::engine::{DetectionReport, EngineRecord};
use crate::types::ids::EngineId;

impl ConfigStore {
    /// All engines, by id.
    pub async fn engines(&self) -> Result<Vec<EngineRecord>, StorageError> {
        self.database
            .read("reading engines", |connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM engines ORDER BY id")?;
                statement.query_map([], engine)?.collect()
            })
            .await
    }

    /// Adds or replaces an engine. Its health history stays.
    pub async fn put_engine(&self, engine: EngineRecord) -> Result<(), StorageError> {
        self.database
            .write("storing an engine", move |transaction| {
                // Not INSERT OR REPLACE: that deletes the row first, and its health history with it.
                transaction
                    .execute(
                        "INSERT INTO engines (id, kind, url, api_key_env, direct, origin, created)
                         VALUES (:id, :kind, :url, :api_key_env, :direct, :origin, :created)
                         ON CONFLICT (id) DO UPDATE SET kind = :kind, url = :url, api_key_env = :api_key_env,
                             direct = :direct, origin = :origin, created = :created",
                        named_params! {
                            ":id": engine.id.as_str(),
                            ":kind": engine.kind.as_str(),
                            ":url": engine.url,
                            ":api_key_env": engine.api_key_env,
                            ":direct": engine.direct,
                            ":origin": name(&engine.origin)?,
                            ":created": engine.created.0,
                        },
                    )
                    .map(|_| ())
            })
            .await
    }

    /// Removes an engine with its health history; false when there was none.
    pub async fn remove_engine(&self, id: EngineId) -> Result<bool, StorageError> {
        self.database
            .write("removing an engine", move |transaction| {
                transaction.execute("DELETE FROM engines WHERE id = ?1", [id.as_str()]).map(|rows| rows > 0)
            })
            .await
    }

    /// The last detection, whatever its age, marked as cached.
    pub async fn detection(&self) -> Result<Option<DetectionReport>, StorageError> {
        self.database
            .read("reading the last detection", |connection| {
                connection
                    .query_row("SELECT at, took_ms, engines FROM engines_cache", [], |row| {
                        Ok(DetectionReport {
                            engines: from_json(row, "engines")?,
                            at: UnixMillis(row.get("at")?),
                            took_ms: row.get("took_ms")?,
                            cached: true,
                        })
                    })
                    .optional()
            })
            .await
    }

    /// Replaces the last detection.
    pub async fn put_detection(&self, report: DetectionReport) -> Result<(), StorageError> {
        self.database
            .write("storing a detection", move |transaction| {
                transaction
                    .execute(
                        "INSERT OR REPLACE INTO engines_cache (id, at, took_ms, engines) VALUES (1, ?1, ?2, ?3)",
                        (report.at.0, report.took_ms, json(&report.engines)?),
                    )
                    .map(|_| ())
            })
            .await
    }
}

fn engine(row: &Row<'_>) -> rusqlite::Result<EngineRecord> {
    Ok(EngineRecord {
        id: named(row, "id")?,
        kind: named(row, "kind")?,
        url: row.get("url")?,
        api_key_env: row.get("api_key_env")?,
        direct: row.get("direct")?,
        origin: named(row, "origin")?,
        created: UnixMillis(row.get("created")?),
    })
}
