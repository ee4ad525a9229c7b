//! [`SecurityStore`]: the handle to the encrypted `security.db`. Its methods are in one file per table.

use std::fmt;
use std::path::Path;

use rusqlite::Connection;

use super::database::{BUSY_TIMEOUT, Database, Opening};
use super::error::{Contents, StorageError};
use super::key_file::DatabaseKey;
use super::migrations::{self, Migration};

/// Handle to the encrypted `security.db`. Cloned freely; every method is answered by the database's own threads, and what
/// reads long lists on a thread of its own.
///
/// Dropping a future of a read interrupts it; a change that was queued runs to its end. What a method answered is
/// on disk.
#[derive(Clone)]
pub struct SecurityStore {
    pub(super) database: Database,
    key: DatabaseKey,
    key_repaired: Option<String>,
}

impl fmt::Debug for SecurityStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecurityStore").field("database", &self.database).finish_non_exhaustive()
    }
}

impl SecurityStore {
    /// Opens or makes the database with the key in `key_file` (made when neither exists), and migrates it. Blocks:
    /// call it at start.
    ///
    /// A migration that fails leaves a store that only reads (SPEC §5.12): see [`SecurityStore::read_only`].
    ///
    /// # Errors
    /// `WrongKey`, `KeyMissing`, `KeyInvalid`, `NewerSchema`, `Locked`, or that a file cannot be made or trusted. A
    /// database that cannot be opened is never replaced.
    pub fn open(path: &Path, key_file: &Path) -> Result<Self, StorageError> {
        Self::open_with(path, key_file, migrations::SECURITY)
    }

    fn open_with(path: &Path, key_file: &Path, steps: &[Migration]) -> Result<Self, StorageError> {
        let (key, key_repaired) = DatabaseKey::load_or_make(key_file, path)?;
        Ok(Self { key_repaired, ..Self::open_keyed(path, key, steps, None)? })
    }

    /// Opens or makes the database with this key, and migrates it unless that is withheld: then a missing migration
    /// leaves a store that only reads, and `withheld` says why. Blocks: call it at start.
    ///
    /// # Errors
    /// As [`SecurityStore::open`].
    pub fn open_with_key(path: &Path, key: DatabaseKey, withheld: Option<&str>) -> Result<Self, StorageError> {
        Self::open_keyed(path, key, migrations::SECURITY, withheld)
    }

    fn open_keyed(
        path: &Path,
        key: DatabaseKey,
        steps: &[Migration],
        withheld: Option<&str>,
    ) -> Result<Self, StorageError> {
        let contents = Contents::Security;
        let opening = Opening { path, contents, key: Some(&key), steps, withheld, patience: BUSY_TIMEOUT };
        let database = Database::open(&opening)?;
        Ok(Self { database, key, key_repaired: None })
    }

    /// Runs a query that reads much beside all others: [`Database::read_apart`].
    pub(super) async fn read_apart<T, F>(&self, operation: &'static str, query: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.database.read_apart(&self.key, operation, query).await
    }

    /// The key that opens it.
    #[must_use]
    pub fn key(&self) -> &DatabaseKey {
        &self.key
    }

    /// A key for another purpose, derived from the database key: HMAC-SHA256(database key, purpose).
    #[must_use]
    pub fn derived_key(&self, purpose: &str) -> zeroize::Zeroizing<[u8; 32]> {
        self.key.derive(purpose)
    }

    /// Why the store only reads (a failed migration, a read-only disk), or `None` (SPEC §5.12).
    #[must_use]
    pub fn read_only(&self) -> Option<String> {
        self.database.read_only()
    }

    /// File modes that were narrowed when it was opened, for the log and the audit log.
    #[must_use]
    pub fn repaired(&self) -> Vec<String> {
        self.key_repaired.iter().chain(self.database.repaired()).cloned().collect()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.database.path()
    }

    /// Does what someone with the key could do: for tests of what the chain and the triggers find.
    #[cfg(test)]
    pub(crate) async fn tamper(&self, sql: &str) -> Result<(), StorageError> {
        self.database.tamper(sql.to_owned()).await
    }

    /// A new database of an earlier version, as the program of then made it.
    #[cfg(test)]
    pub(crate) fn open_earlier(path: &Path, key_file: &Path, version: usize) -> Self {
        Self::open_with(path, key_file, &migrations::SECURITY[..version]).expect("opens")
    }

    /// A store as it is after a migration of a later version failed.
    #[cfg(test)]
    pub(crate) fn open_after_failed_migration(path: &Path, key_file: &Path) -> Self {
        let mut steps = migrations::SECURITY.to_vec();
        steps.push(Migration { sql: "CREATE TABLE new (a INTEGER); INSERT INTO missing VALUES (1)" });
        Self::open_with(path, key_file, &steps).expect("opens for reading")
    }

    /// Writes everything back and closes; later calls fail.
    pub async fn close(&self) -> Result<(), StorageError> {
        self.database.close().await
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;
    use crate::config::files::{self, Audience};
    use crate::storage::database::beside;
    use crate::types::address::ListedNetwork;
    use crate::types::calls::addresses::NetworkList;
    use crate::types::clock::UnixMillis;
    use crate::types::failure::{ErrorCode, Failure};

    /// A store in a folder of its own, which lives as long as the first value.
    pub(in crate::storage) fn store() -> (tempfile::TempDir, SecurityStore) {
        let folder = tempfile::tempdir().expect("folder");
        let (path, key_file) = paths(&folder);
        let store = SecurityStore::open(&path, &key_file).expect("opens");
        (folder, store)
    }

    fn paths(folder: &tempfile::TempDir) -> (PathBuf, PathBuf) {
        (folder.path().join("security.db"), folder.path().join("keys/security.key"))
    }

    fn network(note: &str) -> ListedNetwork {
        ListedNetwork { network: "192.0.2.0/24".parse().expect("network"), note: note.into(), created: UnixMillis(1) }
    }

    /// Case 40.
    #[tokio::test]
    async fn nothing_of_what_is_stored_can_be_read_from_the_files() {
        let (folder, store) = store();
        let (path, _) = paths(&folder);
        for number in 0..50 {
            let note = format!("a known plain text, number {number}");
            store.put_network(NetworkList::Allow, network(&note)).await.expect("writes");
        }
        let found = |path: &Path| {
            let bytes = files::read(path).expect("reads");
            let contains = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
            contains(b"known plain text") || contains(b"192.0.2.0") || contains(b"CREATE TABLE")
        };
        assert!(files::size(&beside(&path, "-wal")).expect("size") > 0);
        assert!(!found(&path) && !found(&beside(&path, "-wal")));
        store.close().await.expect("closes");
        assert!(!found(&path));
        let header = files::read(&path).expect("reads");
        assert_ne!(&header[..15], b"SQLite format 3");
    }

    #[tokio::test]
    async fn a_wrong_key_is_an_error_and_changes_nothing() {
        let (folder, store) = store();
        let (path, key_file) = paths(&folder);
        store.put_network(NetworkList::Allow, network("kept")).await.expect("writes");
        store.close().await.expect("closes");
        let (database, key) = (files::read(&path).expect("reads"), files::read(&key_file).expect("reads"));

        files::replace(&key_file, "00".repeat(32).as_bytes(), Audience::Owner).expect("writes");
        let error = SecurityStore::open(&path, &key_file).expect_err("wrong key");
        assert!(matches!(error, StorageError::WrongKey { .. }), "{error}");
        assert!(!error.to_string().contains("0000"));
        assert!(Failure::from(error).hint.expect("hint").contains("FLM_DB_KEY_FILE"));
        assert_eq!(files::read(&path).expect("reads"), database);

        files::remove(&key_file).expect("removes");
        let error = SecurityStore::open(&path, &key_file).expect_err("no key");
        assert!(matches!(error, StorageError::KeyMissing { .. }), "{error}");
        assert!(!key_file.exists(), "no new key for an old database");

        files::replace(&key_file, &key, Audience::Owner).expect("writes");
        let store = SecurityStore::open(&path, &key_file).expect("opens again");
        assert_eq!(store.networks(NetworkList::Allow).await.expect("reads"), [network("kept")]);
    }

    #[tokio::test]
    async fn a_database_in_clear_is_not_taken_for_an_encrypted_one() {
        let folder = tempfile::tempdir().expect("folder");
        let (path, key_file) = paths(&folder);
        files::private_dir(key_file.parent().expect("folder")).expect("makes");
        files::replace(&key_file, "ab".repeat(32).as_bytes(), Audience::Owner).expect("writes");
        let plain = rusqlite::Connection::open(&path).expect("opens");
        plain.execute_batch("CREATE TABLE t (a)").expect("writes");
        drop(plain);
        assert!(matches!(SecurityStore::open(&path, &key_file), Err(StorageError::WrongKey { .. })));
    }

    /// Case 40.
    #[tokio::test]
    async fn every_file_is_private_whatever_the_umask() {
        // The umask belongs to the whole process; other tests only get wider modes where they ask for them.
        let before = rustix::process::umask(rustix::fs::Mode::empty());
        let (folder, store) = store();
        let (path, key_file) = paths(&folder);
        store.put_network(NetworkList::Trusted, network("")).await.expect("writes");
        let mode = |path: &Path| std::fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        for file in [path.clone(), beside(&path, "-wal"), beside(&path, "-shm"), key_file.clone()] {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
        rustix::process::umask(before);
        assert!(store.repaired().is_empty());
        store.close().await.expect("closes");

        for file in [&path, &key_file] {
            std::fs::set_permissions(file, Permissions::from_mode(0o644)).expect("widens");
        }
        let store = SecurityStore::open(&path, &key_file).expect("opens");
        assert_eq!(store.repaired().len(), 2, "{:?}", store.repaired());
        assert_eq!((mode(&path), mode(&key_file)), (0o600, 0o600));
    }

    #[tokio::test]
    async fn damage_inside_the_file_is_told_when_it_is_read() {
        let (folder, store) = store();
        let (path, key_file) = paths(&folder);
        for number in 0..200_u8 {
            let network = format!("10.0.0.{number}/32").parse().expect("network");
            let entry = ListedNetwork { network, note: "x".repeat(500), created: UnixMillis(0) };
            store.put_network(NetworkList::Allow, entry).await.expect("writes");
        }
        store.close().await.expect("closes");
        let mut content = files::read(&path).expect("reads");
        let half = content.len() / 2;
        content[half..].iter_mut().for_each(|byte| *byte ^= 1);
        files::replace(&path, &content, Audience::Owner).expect("damages");
        let error = match SecurityStore::open(&path, &key_file) {
            Ok(store) => store.networks(NetworkList::Allow).await.expect_err("damaged"),
            Err(error) => error,
        };
        assert!(matches!(error, StorageError::Corrupt { contents: Contents::Security, .. }), "{error:?}");
        assert!(Failure::from(error).hint.expect("hint").contains("backup"));
    }

    #[tokio::test]
    async fn a_failed_migration_leaves_a_store_that_only_reads() {
        let (folder, store) = store();
        let (path, key_file) = paths(&folder);
        store.put_network(NetworkList::Allow, network("kept")).await.expect("writes");
        store.close().await.expect("closes");
        let store = SecurityStore::open_after_failed_migration(&path, &key_file);
        let versions =
            format!("from schema version {} to {}", migrations::SECURITY.len(), migrations::SECURITY.len() + 1);
        assert!(store.read_only().expect("says why").contains(&versions));
        assert_eq!(store.networks(NetworkList::Allow).await.expect("reads"), [network("kept")]);
        let failure = Failure::from(store.put_network(NetworkList::Allow, network("x")).await.expect_err("refuses"));
        assert_eq!(failure.code, ErrorCode::ReadOnly);
        assert!(failure.hint.expect("hint").contains("version of FLM that you had"));
        store.close().await.expect("closes");

        let store = SecurityStore::open(&path, &key_file).expect("the older program still works");
        assert_eq!(store.read_only(), None);
        store.put_network(NetworkList::Allow, network("x")).await.expect("writes");
    }

    /// What stands in the way of a statement in the middle or at the end of the steps to version 2, 3, …, or is missing
    /// there.
    const IN_THE_WAY: [&str; 9] = [
        "DROP TABLE request_log",
        "CREATE TABLE failures (network)",
        "CREATE TABLE certificates (a)",
        "CREATE TABLE alert_deliveries (a)",
        "CREATE TABLE acme_renewals (a)",
        "CREATE TABLE alert_inbox (a)",
        "CREATE TABLE captures (a)",
        "CREATE TABLE acme_records (a)",
        "CREATE TABLE audit_logs_by_address (a)",
    ];

    /// Case 41.
    #[tokio::test]
    async fn a_step_that_breaks_half_way_leaves_the_version_before_it_readable_by_all_that_serves() {
        for (version, in_the_way) in (1..).zip(IN_THE_WAY) {
            let folder = tempfile::tempdir().expect("folder");
            let (path, key_file) = paths(&folder);
            let earlier = SecurityStore::open_earlier(&path, &key_file, version);
            earlier.tamper(in_the_way).await.expect("stands in the way");
            earlier.close().await.expect("closes");
            let store = SecurityStore::open(&path, &key_file).expect("opens for reading");
            let reason = store.read_only().expect("only reads");
            assert!(reason.contains(&format!("from schema version {version} to {}", version + 1)), "{reason}");
            assert_eq!(store.keys().await.expect("keys"), []);
            assert_eq!(store.blocks(UnixMillis(0)).await.expect("blocks"), []);
            assert_eq!(store.networks(NetworkList::Trusted).await.expect("networks").len(), 2);
            assert_eq!(store.policy().await.expect("policy"), None);
            store.failures(UnixMillis(0), 10).await.expect("failures");
            assert_eq!(store.certificate("x").await.expect("certificates"), None);
            assert_eq!(store.audit_anchors().await.expect("anchors"), []);
            assert_eq!(store.requests(10).await.expect("requests"), []);
        }
    }

    #[test]
    fn a_first_migration_that_fails_is_an_error() {
        let folder = tempfile::tempdir().expect("folder");
        let (path, key_file) = paths(&folder);
        let steps = [Migration { sql: "INSERT INTO missing VALUES (1)" }];
        let error = SecurityStore::open_with(&path, &key_file, &steps).expect_err("nothing to read");
        assert_eq!(Failure::from(error).code, ErrorCode::MigrationFailed);
    }

    #[test]
    fn derived_keys_are_stable_and_debug_shows_no_key() {
        let (folder, store) = store();
        let (path, key_file) = paths(&folder);
        let derived = store.derived_key("audit chain");
        drop(store);
        let store = SecurityStore::open(&path, &key_file).expect("opens");
        assert_eq!(store.derived_key("audit chain"), derived);
        let digits = files::read_to_string(&key_file).expect("reads");
        assert!(!format!("{store:?}").contains(digits.trim()));
    }
}
