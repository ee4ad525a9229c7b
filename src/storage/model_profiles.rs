//! Table `model_profiles`: defaults and pinned values per engine and model (SPEC §8.2).

use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::columns::{from_json, json, named};
use super::config_store::ConfigStore;
use super::error::StorageError;
use crate::types::clock::UnixMillis;
use crate::types::ids::EngineId;
use crate::types::profile::{Parameter, ProfileView};

impl ConfigStore {
    /// All profiles, by engine and model.
    pub async fn profiles(&self) -> Result<Vec<ProfileView>, StorageError> {
        self.database
            .read("reading model profiles", |connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM model_profiles ORDER BY engine, model")?;
                statement.query_map([], profile)?.collect()
            })
            .await
    }

    /// Saves the profile of a model in place of the one that it has, which keeps its number.
    pub async fn put_profile(
        &self,
        engine: EngineId,
        model: String,
        label: String,
        parameters: Vec<Parameter>,
        now: UnixMillis,
    ) -> Result<ProfileView, StorageError> {
        self.database
            .write("saving a model profile", move |transaction| {
                put(transaction, &engine, &model, &label, &parameters, now)
            })
            .await
    }

    /// Deletes a profile and answers it; `None` when there was none.
    pub async fn remove_profile(&self, id: i64) -> Result<Option<ProfileView>, StorageError> {
        self.database
            .write("deleting a model profile", move |transaction| {
                transaction.query_row("DELETE FROM model_profiles WHERE id = ?1 RETURNING *", [id], profile).optional()
            })
            .await
    }
}

/// Saves a profile within a transaction.
pub(super) fn put(
    transaction: &Transaction<'_>,
    engine: &EngineId,
    model: &str,
    label: &str,
    parameters: &[Parameter],
    now: UnixMillis,
) -> rusqlite::Result<ProfileView> {
    transaction.query_row(
        "INSERT INTO model_profiles (engine, model, label, parameters, updated)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (engine, model) DO UPDATE SET label = excluded.label,
             parameters = excluded.parameters, updated = excluded.updated
         RETURNING *",
        params![engine.as_str(), model, label, json(&parameters)?, now.0],
        profile,
    )
}

fn profile(row: &Row<'_>) -> rusqlite::Result<ProfileView> {
    Ok(ProfileView {
        id: row.get("id")?,
        engine: named(row, "engine")?,
        model: row.get("model")?,
        label: row.get("label")?,
        parameters: from_json(row, "parameters")?,
        updated: UnixMillis(row.get("updated")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_model_has_one_profile_that_keeps_its_number() {
        let folder = tempfile::tempdir().expect("folder");
        let store = ConfigStore::open(&folder.path().join("config.db")).expect("opens");
        let put = |model: &str, label: &str, at: i64| {
            let parameters = vec![Parameter { name: "temperature".into(), value: 0.5.into(), pinned: true }];
            let engine = EngineId::parse("ollama").expect("id");
            store.put_profile(engine, model.into(), label.into(), parameters, UnixMillis(at))
        };
        let first = put("b", "one", 1).await.expect("saves");
        let other = put("a", "two", 2).await.expect("saves");
        let changed = put("b", "three", 3).await.expect("saves");
        assert_eq!((changed.id, changed.label.as_str()), (first.id, "three"));
        assert_eq!(store.profiles().await.expect("reads"), [other.clone(), changed.clone()]);
        assert_eq!(store.remove_profile(first.id).await.expect("deletes"), Some(changed));
        assert_eq!(store.remove_profile(first.id).await.expect("is gone"), None);
        assert_eq!(store.profiles().await.expect("reads"), [other]);
    }
}
