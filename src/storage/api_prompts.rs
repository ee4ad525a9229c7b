//! Tables `api_prompts` and `api_prompt_history`: the prompt in force per route, and every version (SPEC §8.1).

use rusqlite::{Row, Transaction, params};

use super::config_store::ConfigStore;
use super::error::StorageError;
use crate::types::clock::UnixMillis;
use crate::types::prompt::PromptView;

impl ConfigStore {
    /// Current version of every prompt, by api id.
    pub async fn prompts(&self) -> Result<Vec<PromptView>, StorageError> {
        self.database
            .read("reading prompts", |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT h.* FROM api_prompts AS p JOIN api_prompt_history AS h USING (api_id, version)
                     ORDER BY h.api_id",
                )?;
                statement.query_map([], prompt)?.collect()
            })
            .await
    }

    /// Saves a new version. Versions count on after a removal.
    pub async fn put_prompt(&self, api_id: String, text: String, now: UnixMillis) -> Result<PromptView, StorageError> {
        self.database.write("saving a prompt", move |transaction| put(transaction, api_id, text, now)).await
    }

    /// Takes the prompt out of force; history stays and notes when. False when there was none.
    pub async fn remove_prompt(&self, api_id: String, now: UnixMillis) -> Result<bool, StorageError> {
        self.database
            .write("removing a prompt", move |transaction| {
                transaction.execute(
                    "UPDATE api_prompt_history SET removed = ?2
                     WHERE (api_id, version) IN (SELECT api_id, version FROM api_prompts WHERE api_id = ?1)",
                    params![api_id, now.0],
                )?;
                transaction.execute("DELETE FROM api_prompts WHERE api_id = ?1", [api_id]).map(|rows| rows > 0)
            })
            .await
    }

    /// All versions, newest first.
    pub async fn prompt_history(&self, api_id: String) -> Result<Vec<PromptView>, StorageError> {
        self.database
            .read("reading a prompt's history", move |connection| {
                let mut statement = connection
                    .prepare_cached("SELECT * FROM api_prompt_history WHERE api_id = ?1 ORDER BY version DESC")?;
                statement.query_map([api_id], prompt)?.collect()
            })
            .await
    }
}

/// Saves a new version within a transaction.
pub(super) fn put(
    transaction: &Transaction<'_>,
    api_id: String,
    text: String,
    now: UnixMillis,
) -> rusqlite::Result<PromptView> {
    let version: u32 = transaction.query_row(
        "SELECT coalesce(max(version), 0) + 1 FROM api_prompt_history WHERE api_id = ?1",
        [&api_id],
        |row| row.get(0),
    )?;
    transaction.execute(
        "INSERT INTO api_prompt_history (api_id, version, text, saved) VALUES (?1, ?2, ?3, ?4)",
        params![api_id, version, text, now.0],
    )?;
    transaction.execute("INSERT OR REPLACE INTO api_prompts VALUES (?1, ?2)", params![api_id, version])?;
    Ok(PromptView { api_id, text, version, updated: now })
}

fn prompt(row: &Row<'_>) -> rusqlite::Result<PromptView> {
    Ok(PromptView {
        api_id: row.get("api_id")?,
        text: row.get("text")?,
        version: row.get("version")?,
        updated: UnixMillis(row.get("saved")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn versions_count_on_and_history_outlives_a_removal() {
        let folder = tempfile::tempdir().expect("folder");
        let store = ConfigStore::open(&folder.path().join("config.db")).expect("opens");
        let save = |text: &str, at| store.put_prompt("chat.completions".into(), text.into(), UnixMillis(at));
        let first = save("one", 1).await.expect("saves");
        let second = save("two", 2).await.expect("saves");
        assert_eq!((first.version, second.version), (1, 2));
        let other =
            store.put_prompt("chat.completions@Ab12Cd34".into(), "x".into(), UnixMillis(3)).await.expect("saves");
        assert_eq!(store.prompts().await.expect("reads"), [second.clone(), other.clone()]);

        assert!(store.remove_prompt("chat.completions".into(), UnixMillis(4)).await.expect("removes"));
        assert!(!store.remove_prompt("chat.completions".into(), UnixMillis(5)).await.expect("is gone"));
        assert_eq!(store.prompts().await.expect("reads"), [other]);
        let third = save("three", 6).await.expect("saves");
        assert_eq!(third.version, 3);
        let history = store.prompt_history("chat.completions".into()).await.expect("reads");
        assert_eq!(history, [third, second, first]);
        assert_eq!(store.prompt_history("nothing".into()).await.expect("reads"), []);
    }
}
