//! The journal of a migration: what is being moved and how far it is, so that whatever is killed goes on where it was.
//!
//! Written whole and at once before each part, in the data folder, readable by its owner only. While a migration runs it
//! holds the hashes of moved keys; once it has ended, it does not.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::mapping::{Moved, MovedKey};
use crate::config::files::{self, Audience, FileError};
use crate::config::paths::HomePaths;
use crate::types::calls::legacy::LegacyItem;
use crate::types::clock::UnixMillis;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::text::escape;

/// Name of the file that `convert` writes.
const CONVERSION: &str = "flm-legacy.json";
/// Form of both files; others are refused.
const FORM: u32 = 1;
/// Largest file that is read back, bytes.
const LARGEST: u64 = 64 << 20;

/// A key with the hash of its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HashedKey {
    #[serde(flatten)]
    pub(super) key: MovedKey,
    /// PHC string of Argon2id.
    pub(super) hash: String,
}

/// An old program's data as this program stores it, without a key in clear.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Conversion {
    form: u32,
    /// Folder that it was read from.
    pub(super) source: String,
    /// The database in it.
    pub(super) database: Option<String>,
    /// SHA-256 of what was read.
    pub(super) fingerprint: String,
    pub(super) moved: Moved,
    pub(super) keys: Vec<HashedKey>,
}

impl Conversion {
    pub(super) fn new(
        source: String,
        database: Option<String>,
        fingerprint: String,
        moved: Moved,
        keys: Vec<HashedKey>,
    ) -> Self {
        Self { form: FORM, source, database, fingerprint, moved, keys }
    }

    /// Writes it into a folder, which is made when it is not there; answers the file.
    pub(super) fn write(&self, folder: &Path) -> Outcome<PathBuf> {
        files::make_dir(folder)?;
        let path = folder.join(CONVERSION);
        files::replace(&path, &written(self)?, Audience::Owner)?;
        Ok(path)
    }

    /// Reads what [`Conversion::write`] wrote.
    pub(super) fn read(folder: &Path) -> Outcome<Self> {
        let path = folder.join(CONVERSION);
        let read: Self = parsed(&path, &files::read_private(&path, LARGEST)?.content)?;
        if read.form != FORM {
            return Err(unreadable(&path, "another version of FLM wrote it"));
        }
        Ok(read)
    }
}

/// How far a migration is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Journal {
    form: u32,
    /// Folder of the old program.
    pub(super) source: String,
    /// SHA-256 of what was read there.
    pub(super) fingerprint: String,
    /// When it began.
    pub(super) begun: UnixMillis,
    /// Folder of the backup, once it is complete.
    pub(super) backup: Option<String>,
    /// What is added, as it is told at the end.
    pub(super) adding: Vec<LegacyItem>,
    /// What is moved; gone once it has ended.
    pub(super) conversion: Option<Conversion>,
    /// When it ended.
    pub(super) finished: Option<UnixMillis>,
}

impl Journal {
    pub(super) fn begin(conversion: Conversion, begun: UnixMillis) -> Self {
        Self {
            form: FORM,
            source: conversion.source.clone(),
            fingerprint: conversion.fingerprint.clone(),
            begun,
            backup: None,
            adding: Vec::new(),
            conversion: Some(conversion),
            finished: None,
        }
    }

    /// Reads the journal of this home; `None` when nothing was ever moved.
    pub(super) fn read(paths: &HomePaths) -> Outcome<Option<Self>> {
        let path = file(paths);
        if !files::exists(&path)? {
            return Ok(None);
        }
        let read: Self = parsed(&path, &files::read_private(&path, LARGEST)?.content)?;
        if read.form != FORM {
            return Err(unreadable(&path, "another version of FLM wrote it"));
        }
        Ok(Some(read))
    }

    /// Writes it at once.
    pub(super) fn write(&self, paths: &HomePaths) -> Outcome<()> {
        files::private_dir(&folder(paths))?;
        files::replace(&file(paths), &written(self)?, Audience::Owner)?;
        Ok(())
    }

    /// Forgets a migration of which nothing was stored yet: then it never was. Another one stays, since the next run has to
    /// finish it.
    pub(super) fn forget_unstored(paths: &HomePaths) -> Outcome<()> {
        let Some(journal) = Self::read(paths)? else { return Ok(()) };
        if journal.finished.is_none() && journal.backup.is_none() {
            files::remove_tree(&journal.backup_folder(paths))?;
            files::remove(&file(paths))?;
        }
        Ok(())
    }

    /// The folder for the backup.
    pub(super) fn backup_folder(&self, paths: &HomePaths) -> PathBuf {
        folder(paths).join(format!("backup-{}", self.begun.0))
    }
}

/// Everything of migrations lies in one folder beside the databases.
fn folder(paths: &HomePaths) -> PathBuf {
    paths.data_dir.join("legacy")
}

fn file(paths: &HomePaths) -> PathBuf {
    folder(paths).join("journal.json")
}

/// The log of migrations, for people.
pub(super) fn log_file(paths: &HomePaths) -> PathBuf {
    paths.log_dir.join("migrate-legacy.log")
}

/// Appends lines to the log, each with the time.
pub(super) fn log(paths: &HomePaths, at: UnixMillis, lines: impl Iterator<Item = String>) -> Outcome<()> {
    let path = log_file(paths);
    let time = jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |time| time.to_string());
    let mut text = String::new();
    for line in lines {
        text.push_str(&format!("{time} {}\n", escape(&line)));
    }
    let mut file = files::open_private_append(&path)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| FileError::new("write", &path, e))?;
    Ok(())
}

fn written<T: Serialize>(value: &T) -> Outcome<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| Failure::new(ErrorCode::Internal, format!("a migration cannot be written down: {error}")))?;
    text.push(b'\n');
    Ok(text)
}

fn parsed<T: serde::de::DeserializeOwned>(path: &Path, content: &[u8]) -> Outcome<T> {
    serde_json::from_slice(content).map_err(|error| unreadable(path, &error.to_string()))
}

fn unreadable(path: &Path, why: &str) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, format!("{} cannot be read: {why}", escape(&path.to_string_lossy())))
        .hint("move it away and begin anew: what was moved already stays and is not added twice")
}
