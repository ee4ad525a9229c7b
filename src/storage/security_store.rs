//! [`SecurityStore`]: the handle to the encrypted `security.db`. Its methods are in one file per table.

use std::fmt;
use std::path::Path;

use super::database::{Database, Opening};
use super::error::{Contents, StorageError};
use super::key_file::DatabaseKey;
use super::migrations::{self, Migration};

/// Handle to the encrypted `security.db`. Cloned freely; every method is answered by the database's own threads.
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
        let opening = Opening { path, contents: Contents::Security, key: Some((&key, key_file)), steps };
        let database = Database::open(&opening)?;
        Ok(Self { database, key, key_repaired })
    }

    /// A key for another purpose, derived from the database key: HMAC-SHA256(database key, purpose).
    #[must_use]
    pub fn derived_key(&self, purpose: &str) -> zeroize::Zeroizing<[u8; 32]> {
        self.key.derive(purpose)
    }

    /// Why the store only reads (a failed migration), or `None` (SPEC §5.12).
    #[must_use]
    pub fn read_only(&self) -> Option<String> {
        self.database.read_only().map(str::to_owned)
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

    /// Writes everything back and closes; later calls fail.
    pub async fn close(&self) -> Result<(), StorageError> {
        self.database.close().await
    }
}
