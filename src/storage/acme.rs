//! Tables `acme_accounts`, `acme_attempts`, `acme_records` and `acme_renewals`: what is remembered of ACME directories (SPEC §6).

use rusqlite::{OptionalExtension as _, params};

use super::error::StorageError;
use super::security_store::SecurityStore;
use crate::types::acme::{AcmeAccount, AcmeAttempts, PlacedRecord, RenewalAdvice};
use crate::types::clock::UnixMillis;
use crate::types::secret::Secret;

impl SecurityStore {
    /// The account at a directory, bound to that external account (empty for none).
    pub async fn acme_account(&self, directory: &str, binding: &str) -> Result<Option<AcmeAccount>, StorageError> {
        let key = (directory.to_owned(), binding.to_owned());
        self.database
            .read("reading an ACME account", move |connection| {
                let mut statement =
                    connection.prepare_cached("SELECT * FROM acme_accounts WHERE directory = ?1 AND binding = ?2")?;
                let found = statement.query_row(key, |row| {
                    Ok(AcmeAccount {
                        directory: row.get("directory")?,
                        binding: row.get("binding")?,
                        contacts: row.get("contacts")?,
                        credentials: Secret::new(row.get("credentials")?),
                        created: UnixMillis(row.get("created")?),
                    })
                });
                found.optional()
            })
            .await
    }

    /// Adds or replaces an account.
    pub async fn put_acme_account(&self, account: AcmeAccount) -> Result<(), StorageError> {
        self.database
            .write("storing an ACME account", move |transaction| {
                let AcmeAccount { directory, binding, contacts, credentials, created } = account;
                transaction
                    .execute(
                        "INSERT OR REPLACE INTO acme_accounts (directory, binding, contacts, credentials, created)
                         VALUES (?1, ?2, ?3, ?4, ?5)",
                        params![directory, binding, contacts, credentials.expose(), created.0],
                    )
                    .map(|_| ())
            })
            .await
    }

    /// Forgets an account; false when there was none.
    pub async fn remove_acme_account(&self, directory: &str, binding: &str) -> Result<bool, StorageError> {
        let key = (directory.to_owned(), binding.to_owned());
        self.database
            .write("forgetting an ACME account", move |transaction| {
                transaction
                    .execute("DELETE FROM acme_accounts WHERE directory = ?1 AND binding = ?2", key)
                    .map(|rows| rows > 0)
            })
            .await
    }

    /// How attempts to obtain that certificate went; `None` when the last one succeeded or there was none.
    pub async fn acme_attempts(&self, certificate: &str) -> Result<Option<AcmeAttempts>, StorageError> {
        let certificate = certificate.to_owned();
        self.database
            .read("reading ACME attempts", move |connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM acme_attempts WHERE certificate = ?1")?;
                let found = statement.query_row([certificate], |row| {
                    Ok(AcmeAttempts {
                        failures: row.get("failures")?,
                        last: UnixMillis(row.get("last")?),
                        why: row.get("why")?,
                        next: UnixMillis(row.get("next")?),
                        named_by_directory: row.get("named_by_directory")?,
                    })
                });
                found.optional()
            })
            .await
    }

    /// Notes how attempts went; `None` forgets them, since one succeeded.
    pub async fn put_acme_attempts(
        &self,
        certificate: &str,
        attempts: Option<AcmeAttempts>,
    ) -> Result<(), StorageError> {
        let certificate = certificate.to_owned();
        self.database
            .write("storing ACME attempts", move |transaction| {
                let Some(attempts) = attempts else {
                    return transaction
                        .execute("DELETE FROM acme_attempts WHERE certificate = ?1", [certificate])
                        .map(|_| ());
                };
                let AcmeAttempts { failures, last, why, next, named_by_directory } = attempts;
                transaction
                    .execute(
                        "INSERT OR REPLACE INTO acme_attempts
                         (certificate, failures, last, why, next, named_by_directory) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                        params![certificate, failures, last.0, why, next.0, named_by_directory],
                    )
                    .map(|_| ())
            })
            .await
    }

    /// What the directory last advised on renewing that certificate.
    pub async fn renewal_advice(&self, certificate: &str) -> Result<Option<RenewalAdvice>, StorageError> {
        let certificate = certificate.to_owned();
        self.database
            .read("reading a renewal advice", move |connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM acme_renewals WHERE certificate = ?1")?;
                let found = statement.query_row([certificate], |row| {
                    let at = |column| row.get::<_, Option<i64>>(column).map(|at| at.map(UnixMillis));
                    Ok(RenewalAdvice {
                        fingerprint: row.get("fingerprint")?,
                        renew: at("renew")?,
                        window: at("window_start")?.zip(at("window_end")?),
                        ask_again: UnixMillis(row.get("ask_again")?),
                    })
                });
                found.optional()
            })
            .await
    }

    /// Notes what the directory advises on renewing that certificate.
    pub async fn put_renewal_advice(&self, certificate: &str, advice: RenewalAdvice) -> Result<(), StorageError> {
        let certificate = certificate.to_owned();
        self.database
            .write("storing a renewal advice", move |transaction| {
                let RenewalAdvice { fingerprint, renew, window, ask_again } = advice;
                let (start, end) = window.unzip();
                let at = |time: Option<UnixMillis>| time.map(|time| time.0);
                transaction
                    .execute(
                        "INSERT OR REPLACE INTO acme_renewals
                         (certificate, fingerprint, renew, window_start, window_end, ask_again)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                        params![certificate, fingerprint, at(renew), at(start), at(end), ask_again.0],
                    )
                    .map(|_| ())
            })
            .await
    }

    /// TXT records that may still be in the world, oldest first.
    pub async fn acme_records(&self) -> Result<Vec<PlacedRecord>, StorageError> {
        self.database
            .read("reading TXT records that were set", |connection| {
                let mut statement =
                    connection.prepare_cached("SELECT * FROM acme_records ORDER BY placed, name, value")?;
                let rows = statement.query_map([], |row| {
                    Ok(PlacedRecord {
                        name: row.get("name")?,
                        value: row.get("value")?,
                        provider: row.get("provider")?,
                        placed: UnixMillis(row.get("placed")?),
                    })
                });
                rows?.collect()
            })
            .await
    }

    /// Notes a TXT record before it is set. On disk when it returns.
    pub async fn put_acme_record(&self, record: PlacedRecord) -> Result<(), StorageError> {
        self.database
            .write("noting a TXT record", move |transaction| {
                let PlacedRecord { name, value, provider, placed } = record;
                transaction
                    .execute(
                        "INSERT OR REPLACE INTO acme_records (name, value, provider, placed) VALUES (?1, ?2, ?3, ?4)",
                        params![name, value, provider, placed.0],
                    )
                    .map(|_| ())
            })
            .await
    }

    /// Forgets a TXT record, which is not in the world any more.
    pub async fn remove_acme_record(&self, name: &str, value: &str) -> Result<(), StorageError> {
        let key = (name.to_owned(), value.to_owned());
        self.database
            .write("forgetting a TXT record", move |transaction| {
                transaction.execute("DELETE FROM acme_records WHERE name = ?1 AND value = ?2", key).map(|_| ())
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::security_store::tests::store;

    #[tokio::test]
    async fn accounts_are_kept_by_directory_and_external_account() {
        let (_folder, store) = store();
        let one = |binding: &str| AcmeAccount {
            directory: "https://ca.example/directory".into(),
            binding: binding.into(),
            contacts: "ops@example.org".into(),
            credentials: Secret::new(format!("secret {binding}")),
            created: UnixMillis(1),
        };
        for binding in ["", "key-1"] {
            assert_eq!(store.acme_account(&one("").directory, binding).await.expect("reads"), None);
            store.put_acme_account(one(binding)).await.expect("stores");
            assert_eq!(store.acme_account(&one("").directory, binding).await.expect("reads"), Some(one(binding)));
        }
        assert!(store.remove_acme_account(&one("").directory, "").await.expect("forgets"));
        assert!(!store.remove_acme_account(&one("").directory, "").await.expect("is gone"));
        assert_eq!(store.acme_account(&one("").directory, "key-1").await.expect("reads"), Some(one("key-1")));
    }

    #[tokio::test]
    async fn records_are_noted_until_they_are_removed() {
        let (_folder, store) = store();
        let record = |value: &str, placed| PlacedRecord {
            name: "_acme-challenge.a.example".into(),
            value: value.into(),
            provider: "exec".into(),
            placed: UnixMillis(placed),
        };
        for (value, placed) in [("two", 2), ("one", 1), ("two", 3)] {
            store.put_acme_record(record(value, placed)).await.expect("stores");
        }
        assert_eq!(store.acme_records().await.expect("reads"), [record("one", 1), record("two", 3)]);
        store.remove_acme_record("_acme-challenge.a.example", "one").await.expect("forgets");
        store.remove_acme_record("_acme-challenge.a.example", "one").await.expect("is gone");
        assert_eq!(store.acme_records().await.expect("reads"), [record("two", 3)]);
    }

    #[tokio::test]
    async fn attempts_stand_until_one_succeeds_and_advice_until_the_next() {
        let (_folder, store) = store();
        let attempts = AcmeAttempts {
            failures: 2,
            last: UnixMillis(5),
            why: "it said no".into(),
            next: UnixMillis(9),
            named_by_directory: true,
        };
        store.put_acme_attempts("a", Some(attempts.clone())).await.expect("stores");
        assert_eq!(store.acme_attempts("a").await.expect("reads"), Some(attempts));
        store.put_acme_attempts("a", None).await.expect("forgets");
        assert_eq!(store.acme_attempts("a").await.expect("reads"), None);

        let silent = RenewalAdvice { fingerprint: "AB".into(), renew: None, window: None, ask_again: UnixMillis(3) };
        let spoken = RenewalAdvice {
            renew: Some(UnixMillis(7)),
            window: Some((UnixMillis(6), UnixMillis(8))),
            ..silent.clone()
        };
        for advice in [silent, spoken] {
            store.put_renewal_advice("a", advice.clone()).await.expect("stores");
            assert_eq!(store.renewal_advice("a").await.expect("reads"), Some(advice));
        }
    }
}
