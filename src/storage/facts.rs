//! What a support person asks about a database: how large it is and which schema it has (`flm doctor`).

use super::config_store::ConfigStore;
use super::database::{Database, beside};
use super::error::StorageError;
use super::migrations;
use super::security_store::SecurityStore;
use crate::config::files;

/// Facts about one open database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseFacts {
    /// Its schema version.
    pub schema: u32,
    /// The newest version that this program knows.
    pub newest: u32,
    /// Bytes of the file and of what `SQLite` keeps beside it.
    pub bytes: u64,
}

impl ConfigStore {
    /// Size and schema version.
    pub async fn facts(&self) -> Result<DatabaseFacts, StorageError> {
        facts(&self.database, migrations::CONFIG.len()).await
    }
}

impl SecurityStore {
    /// Size and schema version.
    pub async fn facts(&self) -> Result<DatabaseFacts, StorageError> {
        facts(&self.database, migrations::SECURITY.len()).await
    }
}

async fn facts(database: &Database, newest: usize) -> Result<DatabaseFacts, StorageError> {
    let path = database.path().to_owned();
    let (schema, bytes) = database
        .read("reading the schema version", move |connection| {
            let schema = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            // What is not there has no bytes.
            let bytes = ["", "-wal"].iter().map(|suffix| files::size(&beside(&path, suffix)).unwrap_or(0)).sum();
            Ok((schema, bytes))
        })
        .await?;
    Ok(DatabaseFacts { schema, newest: u32::try_from(newest).unwrap_or(u32::MAX), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_open_database_has_the_newest_schema_and_some_bytes() {
        let folder = tempfile::tempdir().expect("folder");
        let store = ConfigStore::open(&folder.path().join("config.db")).expect("opens");
        let facts = store.facts().await.expect("reads");
        assert_eq!((facts.schema, facts.newest as usize), (facts.newest, migrations::CONFIG.len()));
        assert!(facts.bytes > 4096, "{facts:?}");
    }
}
