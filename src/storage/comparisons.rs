//! Table `comparisons`: models side by side, as the operator saved them (SPEC §9.2, §10).

use rusqlite::{OptionalExtension as _, Row, params};

use super::columns::{from_json, json};
use super::config_store::ConfigStore;
use super::error::StorageError;
use crate::types::clock::UnixMillis;
use crate::types::comparison::{Comparison, ComparisonEntry};

/// Comparisons that are kept: years of somebody who compares every day. Older ones give way.
const KEPT: i64 = 1000;

impl ConfigStore {
    /// Saves a comparison and answers its number; the oldest one beyond what is kept goes.
    pub async fn add_comparison(&self, comparison: Comparison) -> Result<i64, StorageError> {
        self.database
            .write("saving a comparison", move |transaction| {
                let models: Vec<_> = comparison.models.iter().map(|model| &model.model).collect();
                transaction.execute(
                    "INSERT INTO comparisons (created, models, prompt, runs, document) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        comparison.created.0,
                        json(&models)?,
                        comparison.prompt,
                        comparison.runs,
                        json(&Comparison { id: None, ..comparison.clone() })?
                    ],
                )?;
                let id = transaction.last_insert_rowid();
                transaction.execute(
                    "DELETE FROM comparisons WHERE id <= (SELECT id FROM comparisons ORDER BY id DESC LIMIT 1 OFFSET ?1)",
                    [KEPT],
                )?;
                Ok(id)
            })
            .await
    }

    /// Saved comparisons without their answers, newest first.
    pub async fn comparisons(&self) -> Result<Vec<ComparisonEntry>, StorageError> {
        self.database
            .read("reading comparisons", |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT id, created, models, substr(prompt, 1, 200) AS prompt, runs FROM comparisons
                     ORDER BY id DESC",
                )?;
                statement.query_map([], entry)?.collect()
            })
            .await
    }

    /// A saved comparison; `None` when there is none of that number.
    pub async fn comparison(&self, id: i64) -> Result<Option<Comparison>, StorageError> {
        self.database
            .read("reading a comparison", move |connection| {
                let mut statement = connection.prepare_cached("SELECT document FROM comparisons WHERE id = ?1")?;
                let found: Option<Comparison> =
                    statement.query_row([id], |row| from_json(row, "document")).optional()?;
                Ok(found.map(|comparison| Comparison { id: Some(id), ..comparison }))
            })
            .await
    }

    /// Deletes a saved comparison; false when there was none.
    pub async fn delete_comparison(&self, id: i64) -> Result<bool, StorageError> {
        self.database
            .write("deleting a comparison", move |transaction| {
                transaction.execute("DELETE FROM comparisons WHERE id = ?1", [id]).map(|rows| rows > 0)
            })
            .await
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<ComparisonEntry> {
    Ok(ComparisonEntry {
        id: row.get("id")?,
        created: UnixMillis(row.get("created")?),
        models: from_json(row, "models")?,
        prompt: row.get("prompt")?,
        runs: row.get("runs")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::chat::Sampling;
    use crate::types::comparison::ComparedModel;

    fn comparison(prompt: &str) -> Comparison {
        Comparison {
            id: None,
            created: UnixMillis(7),
            prompt: prompt.to_owned(),
            sampling: Sampling { temperature: Some(0.5), ..Sampling::default() },
            runs: 1,
            models: ["a", "b"].map(|model| ComparedModel::new(model.to_owned(), Vec::new())).into(),
        }
    }

    #[tokio::test]
    async fn comparisons_are_saved_listed_shown_and_deleted() {
        let folder = tempfile::tempdir().expect("folder");
        let store = ConfigStore::open(&folder.path().join("config.db")).expect("opens");
        let first = store.add_comparison(comparison("first")).await.expect("saves");
        let second = store.add_comparison(comparison(&"long ".repeat(100))).await.expect("saves");
        let listed = store.comparisons().await.expect("lists");
        assert_eq!(listed.iter().map(|entry| entry.id).collect::<Vec<_>>(), [second, first]);
        assert_eq!((listed[0].prompt.len(), &listed[1].models), (200, &vec!["a".to_owned(), "b".to_owned()]));
        let shown = store.comparison(first).await.expect("reads");
        assert_eq!(shown, Some(Comparison { id: Some(first), ..comparison("first") }));
        assert!(store.delete_comparison(first).await.expect("deletes"));
        assert!(!store.delete_comparison(first).await.expect("is gone"));
        assert_eq!(store.comparison(first).await.expect("reads"), None);
    }

    #[tokio::test]
    async fn the_oldest_gives_way() {
        let folder = tempfile::tempdir().expect("folder");
        let store = ConfigStore::open(&folder.path().join("config.db")).expect("opens");
        let first = store.add_comparison(comparison("first")).await.expect("saves");
        for _ in 0..KEPT {
            store.add_comparison(comparison("more")).await.expect("saves");
        }
        assert_eq!(store.comparisons().await.expect("lists").len(), usize::try_from(KEPT).expect("small"));
        assert_eq!(store.comparison(first).await.expect("reads"), None);
    }
}
