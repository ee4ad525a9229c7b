//! Table `certificates`: chains with their private keys, encrypted with the rest of `security.db` (SPEC §6, §10).

use rusqlite::{OptionalExtension as _, params};

use super::error::StorageError;
use super::security_store::SecurityStore;
use crate::types::certificate::StoredCertificate;
use crate::types::clock::UnixMillis;
use crate::types::secret::Secret;

impl SecurityStore {
    /// The certificate of that name.
    pub async fn certificate(&self, name: &str) -> Result<Option<StoredCertificate>, StorageError> {
        let name = name.to_owned();
        self.database
            .read_if_there("reading a certificate", move |connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM certificates WHERE name = ?1")?;
                let found = statement.query_row([name], |row| {
                    Ok(StoredCertificate {
                        name: row.get("name")?,
                        chain: row.get("chain")?,
                        key: Secret::new(row.get("private_key")?),
                        created: UnixMillis(row.get("created")?),
                    })
                });
                found.optional()
            })
            .await
    }

    /// Adds or replaces certificates, all or none.
    pub async fn put_certificates(&self, certificates: Vec<StoredCertificate>) -> Result<(), StorageError> {
        self.database
            .write("storing certificates", move |transaction| {
                let mut statement = transaction.prepare_cached(
                    "INSERT OR REPLACE INTO certificates (name, chain, private_key, created) VALUES (?1, ?2, ?3, ?4)",
                )?;
                for one in certificates {
                    statement.execute(params![one.name, one.chain, one.key.expose(), one.created.0])?;
                }
                Ok(())
            })
            .await
    }

    /// Forgets the certificate of that name; false when there was none.
    pub async fn remove_certificate(&self, name: &str) -> Result<bool, StorageError> {
        let name = name.to_owned();
        self.database
            .write("forgetting a certificate", move |transaction| {
                transaction.execute("DELETE FROM certificates WHERE name = ?1", [name]).map(|rows| rows > 0)
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::security_store::tests::store;

    #[tokio::test]
    async fn certificates_are_stored_replaced_and_forgotten() {
        let (_folder, store) = store();
        let one = |chain: &str| StoredCertificate {
            name: "packaged-ca/root".into(),
            chain: chain.into(),
            key: Secret::new("private".into()),
            created: UnixMillis(1),
        };
        assert_eq!(store.certificate("packaged-ca/root").await.expect("reads"), None);
        for chain in ["first", "second"] {
            store.put_certificates(vec![one(chain)]).await.expect("stores");
            assert_eq!(store.certificate("packaged-ca/root").await.expect("reads"), Some(one(chain)));
        }
        assert!(store.remove_certificate("packaged-ca/root").await.expect("forgets"));
        assert!(!store.remove_certificate("packaged-ca/root").await.expect("is gone"));
    }
}
