//! Table `settings`: values that the operator stored, by key.

use rusqlite::Transaction;

use super::config_store::ConfigStore;
use super::error::StorageError;

impl ConfigStore {
    /// All settings that were stored, by key.
    pub async fn settings(&self) -> Result<Vec<(String, String)>, StorageError> {
        self.database
            .read("reading settings", |connection| {
                let mut statement = connection.prepare_cached("SELECT key, value FROM settings ORDER BY key")?;
                statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .await
    }

    /// Stores one setting; `None` removes it.
    pub async fn set_setting(&self, key: String, value: Option<String>) -> Result<(), StorageError> {
        self.database.write("storing a setting", move |transaction| put(transaction, key, value)).await
    }
}

/// Stores one setting within a transaction; `None` removes it.
pub(super) fn put(transaction: &Transaction<'_>, key: String, value: Option<String>) -> rusqlite::Result<()> {
    match value {
        Some(value) => transaction.execute("INSERT OR REPLACE INTO settings VALUES (?1, ?2)", [key, value]),
        None => transaction.execute("DELETE FROM settings WHERE key = ?1", [key]),
    }
    .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn settings_are_stored_replaced_and_removed() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config.db");
        let store = ConfigStore::open(&path).expect("opens");
        for (key, value) in [("b", Some("1")), ("a", Some("2")), ("b", Some("3")), ("c", Some("4")), ("c", None)] {
            store.set_setting(key.into(), value.map(Into::into)).await.expect("stores");
        }
        let expected = [("a".to_owned(), "2".to_owned()), ("b".to_owned(), "3".to_owned())];
        assert_eq!(store.settings().await.expect("reads"), expected);
        drop(store);
        assert_eq!(ConfigStore::open(&path).expect("opens").settings().await.expect("reads"), expected);
    }
}
