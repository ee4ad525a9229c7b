//! Table `proxy_profiles`: listeners to start, one per port (SPEC §1.2).

use std::path::{Path, PathBuf};

use rusqlite::{Row, params};

use super::columns::{named, parsed};
use super::config_store::ConfigStore;
use super::error::StorageError;
use crate::types::listener::{CertificateFiles, ListenerConfig};

impl ConfigStore {
    /// Stored listeners, by port.
    pub async fn listeners(&self) -> Result<Vec<ListenerConfig>, StorageError> {
        self.database
            .read("reading listeners", |connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM proxy_profiles ORDER BY port")?;
                statement.query_map([], listener)?.collect()
            })
            .await
    }

    /// Adds or replaces the listener of that port.
    pub async fn put_listener(&self, listener: ListenerConfig) -> Result<(), StorageError> {
        self.database
            .write("storing a listener", move |transaction| {
                let path = |path: &Path| path.to_string_lossy().into_owned();
                transaction
                    .execute(
                        "INSERT OR REPLACE INTO proxy_profiles
                         (port, mode, bind, insecure_plain_http, https_port, certificate_chain, certificate_key)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                        params![
                            listener.port,
                            listener.mode.0,
                            listener.bind.to_string(),
                            listener.insecure_plain_http,
                            listener.https_port,
                            listener.certificate.as_ref().map(|files| path(&files.chain)),
                            listener.certificate.as_ref().map(|files| path(&files.key)),
                        ],
                    )
                    .map(|_| ())
            })
            .await
    }

    /// Forgets the listener of that port; false when there was none.
    pub async fn remove_listener(&self, port: u16) -> Result<bool, StorageError> {
        self.database
            .write("forgetting a listener", move |transaction| {
                transaction.execute("DELETE FROM proxy_profiles WHERE port = ?1", [port]).map(|rows| rows > 0)
            })
            .await
    }
}

fn listener(row: &Row<'_>) -> rusqlite::Result<ListenerConfig> {
    let path = |column| row.get::<_, Option<String>>(column).map(|path| path.map(PathBuf::from));
    let (chain, key) = (path("certificate_chain")?, path("certificate_key")?);
    Ok(ListenerConfig {
        mode: named(row, "mode")?,
        bind: parsed(row, "bind")?,
        port: row.get("port")?,
        https_port: row.get("https_port")?,
        certificate: chain.zip(key).map(|(chain, key)| CertificateFiles { chain, key }),
        insecure_plain_http: row.get("insecure_plain_http")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::listener::TlsMode;

    #[tokio::test]
    async fn listeners_are_stored_replaced_and_forgotten() {
        let folder = tempfile::tempdir().expect("folder");
        let store = ConfigStore::open(&folder.path().join("config.db")).expect("opens");
        let local = ListenerConfig::default();
        let lan = ListenerConfig {
            mode: TlsMode("dev-selfsigned".into()),
            bind: "::".parse().expect("address"),
            port: 65534,
            https_port: Some(65535),
            certificate: Some(CertificateFiles { chain: "/etc/a.pem".into(), key: "/etc/a.key".into() }),
            insecure_plain_http: true,
        };
        store.put_listener(lan.clone()).await.expect("stores");
        store.put_listener(ListenerConfig { insecure_plain_http: true, ..local.clone() }).await.expect("stores");
        store.put_listener(local.clone()).await.expect("replaces");
        assert_eq!(store.listeners().await.expect("reads"), [local, lan.clone()]);
        assert!(store.remove_listener(8484).await.expect("forgets"));
        assert!(!store.remove_listener(8484).await.expect("is gone"));
        assert_eq!(store.listeners().await.expect("reads"), [lan]);
    }
}
