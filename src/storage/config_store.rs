//! [`ConfigStore`]: the handle to `config.db`. Its methods are in one file per table.

use std::path::Path;

use super::database::{Database, Opening};
use super::error::{Contents, StorageError};
use super::migrations;

/// Handle to `config.db`. Cloned freely; every method is answered by the database's own threads.
///
/// Dropping a future of a read interrupts it; a change that was queued runs to its end. What a method answered is
/// on disk.
#[derive(Debug, Clone)]
pub struct ConfigStore {
    pub(super) database: Database,
}

impl ConfigStore {
    /// Opens or makes the database and migrates it. Blocks: call it at start.
    ///
    /// # Errors
    /// `Corrupt` with the command that moves the file aside, `NewerSchema`, `Migration`, `Locked`, or that the file
    /// cannot be made. A damaged file is never replaced.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let opening = Opening { path, contents: Contents::Settings, key: None, steps: migrations::CONFIG };
        Ok(Self { database: Database::open(&opening)? })
    }

    /// File modes that were narrowed when it was opened, for the log.
    #[must_use]
    pub fn repaired(&self) -> &[String] {
        self.database.repaired()
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
