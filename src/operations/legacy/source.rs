//! What lies in the old program's folder: `config.json` and one SQLite database, read whole and fingerprinted.
//!
//! Called by the operations of this folder. Must never write anything.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::config::files;
use crate::storage::{LegacyDatabase, LegacyFault, read_legacy};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::text::{escape, hex};

/// The old program's file of settings.
const CONFIG: &str = "config.json";
/// Endings of files that may be its database.
const ENDINGS: [&str; 3] = [".db", ".sqlite", ".sqlite3"];
/// Names in `config.json` under which it tells where its database is.
pub(super) const DATABASE_NAMES: [&str; 3] = ["database", "db_path", "database_path"];
/// Largest file that is read, bytes: the old program kept no requests.
const LARGEST: u64 = 64 << 20;

/// Everything that was found.
#[derive(Debug)]
pub(super) struct Source {
    /// The folder.
    pub(super) folder: PathBuf,
    /// The database's file name.
    pub(super) database_name: Option<String>,
    /// `config.json`; an empty object when there is none.
    pub(super) config: serde_json::Map<String, Value>,
    /// The tables.
    pub(super) database: LegacyDatabase,
    /// SHA-256 over both files.
    pub(super) fingerprint: String,
}

/// Reads the folder. Blocks.
///
/// # Errors
/// `NOT_FOUND` for a folder without anything of the old program; `INVALID_ARGUMENT` for files that cannot be read or are
/// not unique.
pub(super) fn read(folder: &Path) -> Outcome<Source> {
    let mut sum = Sha256::new();
    let config = read_config(folder, &mut sum)?;
    let database = find_database(folder, config.as_ref())?;
    let Some((name, database)) = database else {
        let Some(config) = config else {
            return Err(Failure::new(
                ErrorCode::NotFound,
                format!("{} holds neither {CONFIG} nor a database of the old program", shown(folder)),
            )
            .hint("give the folder in which the old program kept config.json and its .db file with --source DIR"));
        };
        return Ok(Source {
            folder: folder.to_owned(),
            database_name: None,
            config,
            database: LegacyDatabase::default(),
            fingerprint: hex(&sum.finalize()),
        });
    };
    sum.update([0]);
    sum.update(files::read_limited(&folder.join(&name), LARGEST)?);
    Ok(Source {
        folder: folder.to_owned(),
        database_name: Some(name),
        config: config.unwrap_or_default(),
        database,
        fingerprint: hex(&sum.finalize()),
    })
}

fn read_config(folder: &Path, sum: &mut Sha256) -> Outcome<Option<serde_json::Map<String, Value>>> {
    let path = folder.join(CONFIG);
    let content = match files::read_limited(&path, LARGEST) {
        Ok(content) => content,
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    sum.update(&content);
    match serde_json::from_slice(&content) {
        Ok(Value::Object(fields)) => Ok(Some(fields)),
        Ok(_) => Err(unusable(&path, "it is not a JSON object")),
        Err(error) => Err(unusable(&path, &format!("it is not JSON: {error}"))),
    }
}

/// The one database that the old program made: the one that `config.json` names, else the only one with its tables.
fn find_database(
    folder: &Path,
    config: Option<&serde_json::Map<String, Value>>,
) -> Outcome<Option<(String, LegacyDatabase)>> {
    let told = config.and_then(|config| DATABASE_NAMES.iter().find_map(|name| config.get(*name)?.as_str()));
    // Wherever it was then: it was moved here with the rest.
    let told = told.and_then(|told| told.rsplit(['/', '\\']).next());
    if let Some(name) = told.filter(|name| !name.is_empty() && folder.join(name).is_file()) {
        let database = open(folder, name)?
            .ok_or_else(|| unusable(&folder.join(name), "it has none of the tables apis, api_keys, user_settings"))?;
        return Ok(Some((name.to_owned(), database)));
    }
    let mut found = Vec::new();
    let mut names = files::names(folder)?;
    names.sort();
    for name in names {
        if ENDINGS.iter().any(|ending| name.to_ascii_lowercase().ends_with(ending))
            && folder.join(&name).is_file()
            && let Some(database) = open(folder, &name)?
        {
            found.push((name, database));
        }
    }
    if found.len() > 1 {
        let names: Vec<_> = found.iter().map(|(name, _)| escape(name)).collect();
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("{} holds several databases of the old program: {}", shown(folder), names.join(", ")),
        )
        .hint(format!("keep the right one there, or name it in {CONFIG}: {{\"database\": \"FILE\"}}")));
    }
    Ok(found.pop())
}

fn open(folder: &Path, name: &str) -> Outcome<Option<LegacyDatabase>> {
    read_legacy(&folder.join(name)).map_err(|fault| {
        let hint = match &fault {
            LegacyFault::Unwritten(_) => {
                "end the old program, then let sqlite3 write the changes back: sqlite3 FILE 'PRAGMA wal_checkpoint(TRUNCATE)'"
            }
            LegacyFault::TooLarge(_) => "check that this is the old program's database",
            LegacyFault::Unreadable { .. } => "check that this is the old program's database and not damaged; move other files away",
        };
        Failure::new(ErrorCode::InvalidArgument, fault.to_string()).hint(hint)
    })
}

fn unusable(path: &Path, why: &str) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, format!("{} cannot be used: {why}", shown(path)))
        .hint("check that --source names the old program's folder")
}

fn shown(path: &Path) -> String {
    escape(&path.to_string_lossy()).into_owned()
}
