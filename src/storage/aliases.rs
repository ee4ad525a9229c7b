//! Table `aliases`: names of the operator's own for models (SPEC §3.5).

use rusqlite::{Row, Transaction, params};

use super::columns::{from_json, json, name, named};
use super::config_store::ConfigStore;
use super::error::StorageError;
use crate::types::alias::AliasView;
use crate::types::clock::UnixMillis;

impl ConfigStore {
    /// All aliases, by name.
    pub async fn aliases(&self) -> Result<Vec<AliasView>, StorageError> {
        self.database
            .read("reading aliases", |connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM aliases ORDER BY name")?;
                statement.query_map([], alias)?.collect()
            })
            .await
    }

    /// Adds or replaces an alias.
    pub async fn put_alias(&self, alias: AliasView) -> Result<(), StorageError> {
        self.database.write("saving an alias", move |transaction| put(transaction, &alias)).await
    }

    /// Removes an alias; false when there was none.
    pub async fn remove_alias(&self, name: String) -> Result<bool, StorageError> {
        self.database
            .write("removing an alias", move |transaction| {
                transaction.execute("DELETE FROM aliases WHERE name = ?1", [name]).map(|rows| rows > 0)
            })
            .await
    }
}

/// Adds or replaces an alias within a transaction.
pub(super) fn put(transaction: &Transaction<'_>, alias: &AliasView) -> rusqlite::Result<()> {
    transaction
        .execute(
            r#"INSERT OR REPLACE INTO aliases (name, targets, "order", updated) VALUES (?1, ?2, ?3, ?4)"#,
            params![alias.name, json(&alias.targets)?, name(&alias.order)?, alias.updated.0],
        )
        .map(|_| ())
}

fn alias(row: &Row<'_>) -> rusqlite::Result<AliasView> {
    Ok(AliasView {
        name: row.get("name")?,
        targets: from_json(row, "targets")?,
        order: named(row, "order")?,
        updated: UnixMillis(row.get("updated")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::alias::AliasOrder;

    #[tokio::test]
    async fn aliases_are_stored_replaced_and_removed() {
        let folder = tempfile::tempdir().expect("folder");
        let store = ConfigStore::open(&folder.path().join("config.db")).expect("opens");
        let alias = |name: &str, targets: &[&str], order| AliasView {
            name: name.into(),
            targets: targets.iter().map(|target| (*target).into()).collect(),
            order,
            updated: UnixMillis(7),
        };
        let fast = alias("fast", &["flm://a/m", "b/n"], AliasOrder::FirstServing);
        store.put_alias(alias("fast", &["x"], AliasOrder::Balanced)).await.expect("stores");
        store.put_alias(fast.clone()).await.expect("replaces");
        store.put_alias(alias("best", &["x"], AliasOrder::Balanced)).await.expect("stores");
        assert_eq!(store.aliases().await.expect("reads"), [alias("best", &["x"], AliasOrder::Balanced), fast]);
        assert!(store.remove_alias("fast".into()).await.expect("removes"));
        assert!(!store.remove_alias("fast".into()).await.expect("is gone"));
    }
}
