//! Tables `engines` and `engines_cache`: the registry and the last detection (SPEC §3.3, §3.7).

use std::num::NonZeroU32;

use rusqlite::{OptionalExtension as _, Row, Transaction, named_params};

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
        self.database.write("storing an engine", move |transaction| put(transaction, &engine)).await
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

/// Adds or replaces an engine within a transaction.
pub(super) fn put(transaction: &Transaction<'_>, engine: &EngineRecord) -> rusqlite::Result<()> {
    // Not INSERT OR REPLACE: that deletes the row first, and its health history with it.
    transaction
        .execute(
            "INSERT INTO engines (id, kind, url, api_key_env, direct, slots, origin, created)
             VALUES (:id, :kind, :url, :api_key_env, :direct, :slots, :origin, :created)
             ON CONFLICT (id) DO UPDATE SET kind = :kind, url = :url, api_key_env = :api_key_env,
                 direct = :direct, slots = :slots, origin = :origin, created = :created",
            named_params! {
                ":id": engine.id.as_str(),
                ":kind": engine.kind.as_str(),
                ":url": engine.url,
                ":api_key_env": engine.api_key_env,
                ":direct": engine.direct,
                ":slots": engine.slots.map(NonZeroU32::get),
                ":origin": name(&engine.origin)?,
                ":created": engine.created.0,
            },
        )
        .map(|_| ())
}

fn engine(row: &Row<'_>) -> rusqlite::Result<EngineRecord> {
    Ok(EngineRecord {
        id: named(row, "id")?,
        kind: named(row, "kind")?,
        url: row.get("url")?,
        api_key_env: row.get("api_key_env")?,
        direct: row.get("direct")?,
        slots: row.get::<_, Option<u32>>("slots")?.and_then(NonZeroU32::new),
        origin: named(row, "origin")?,
        created: UnixMillis(row.get("created")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::engine::{DetectedEngine, EngineKind, EngineOrigin, EngineState, HealthPoint};

    fn record(id: &str, url: &str) -> EngineRecord {
        EngineRecord {
            id: EngineId::parse(id).expect("id"),
            kind: EngineKind::named("llamacpp"),
            url: url.into(),
            api_key_env: Some("LLAMA_KEY".into()),
            direct: true,
            slots: NonZeroU32::new(8),
            origin: EngineOrigin::Manual,
            created: UnixMillis(7),
        }
    }

    #[tokio::test]
    async fn engines_are_stored_replaced_and_removed() {
        let folder = tempfile::tempdir().expect("folder");
        let store = ConfigStore::open(&folder.path().join("config.db")).expect("opens");
        store.put_engine(record("b", "http://127.0.0.1:1")).await.expect("stores");
        store.put_engine(record("a", "http://127.0.0.1:2")).await.expect("stores");
        store.put_engine(record("b", "http://127.0.0.1:3")).await.expect("replaces");
        let expected = [record("a", "http://127.0.0.1:2"), record("b", "http://127.0.0.1:3")];
        assert_eq!(store.engines().await.expect("reads"), expected);
        assert!(store.remove_engine(EngineId::parse("a").expect("id")).await.expect("removes"));
        assert!(!store.remove_engine(EngineId::parse("a").expect("id")).await.expect("is gone"));
        assert_eq!(store.engines().await.expect("reads"), expected[1..]);
    }

    #[tokio::test]
    async fn replacing_an_engine_keeps_its_health_history() {
        let folder = tempfile::tempdir().expect("folder");
        let store = ConfigStore::open(&folder.path().join("config.db")).expect("opens");
        let engine = record("a", "http://127.0.0.1:1");
        store.put_engine(engine.clone()).await.expect("stores");
        let point = HealthPoint { engine: engine.id.clone(), at: UnixMillis(1), latency_ms: Some(3), reason: None };
        store.append_health(vec![point.clone()]).await.expect("stores");
        store.put_engine(engine.clone()).await.expect("replaces");
        assert_eq!(store.health(None, UnixMillis(0)).await.expect("reads"), [point]);
        store.remove_engine(engine.id).await.expect("removes");
        assert_eq!(store.health(None, UnixMillis(0)).await.expect("reads"), []);
    }

    #[tokio::test]
    async fn the_last_detection_comes_back_marked_as_cached() {
        let folder = tempfile::tempdir().expect("folder");
        let store = ConfigStore::open(&folder.path().join("config.db")).expect("opens");
        assert_eq!(store.detection().await.expect("reads"), None);
        let found = DetectedEngine {
            kind: EngineKind::named("ollama"),
            url: Some("http://127.0.0.1:11434".into()),
            binary: None,
            version: Some("0.9".into()),
            state: EngineState::RunningHealthy { latency_ms: 4 },
            models: 2,
            evidence: "port 11434".into(),
        };
        let mut report = DetectionReport { engines: vec![found], at: UnixMillis(9), took_ms: 12, cached: false };
        store.put_detection(DetectionReport { took_ms: 1, ..report.clone() }).await.expect("stores");
        store.put_detection(report.clone()).await.expect("replaces");
        report.cached = true;
        assert_eq!(store.detection().await.expect("reads"), Some(report));
    }
}
