//! Table `settings`: values that the operator stored, by key.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, Transaction};

use super::config_store::ConfigStore;
use super::database::BUSY_TIMEOUT;
use super::error::{Contents, StorageError};
use super::file::DatabaseFile;

impl ConfigStore {
    /// All settings that were stored, by key.
    pub async fn settings(&self) -> Result<Vec<(String, String)>, StorageError> {
        self.database.read("reading settings", all).await
    }

    /// The same of a file that may be somebody else's at this moment: it is neither made nor migrated nor written. Blocks.
    ///
    /// # Errors
    /// When it cannot be read, such as one of an earlier version without that table.
    pub fn peek_settings(path: &Path) -> Result<Vec<(String, String)>, StorageError> {
        let file = DatabaseFile { path, contents: Contents::Settings, key: None };
        // A connection for reading only leaves the write-ahead log alone when it closes.
        let connection = file.connect(OpenFlags::SQLITE_OPEN_READ_ONLY, BUSY_TIMEOUT)?;
        all(&connection)
            .map_err(|error| StorageError::from_sqlite(path, Contents::Settings, "reading settings", &error))
    }

    /// Stores one setting; `None` removes it.
    pub async fn set_setting(&self, key: String, value: Option<String>) -> Result<(), StorageError> {
        self.database.write("storing a setting", move |transaction| put(transaction, key, value)).await
    }
}

fn all(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement = connection.prepare_cached("SELECT key, value FROM settings ORDER BY key")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
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
        assert_eq!(ConfigStore::peek_settings(&path).expect("reads beside its owner"), expected);
        drop(store);
        assert_eq!(ConfigStore::open(&path).expect("opens").settings().await.expect("reads"), expected);
        assert_eq!(ConfigStore::peek_settings(&path).expect("reads without an owner"), expected);
        assert!(ConfigStore::peek_settings(&folder.path().join("none.db")).is_err(), "nothing is made");
        assert!(!folder.path().join("none.db").exists());
    }
}
