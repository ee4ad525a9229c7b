//! Reads the database of the old prototype, which is no database of this home (SPEC §10, `flm migrate legacy`).
//!
//! Called by `operations::legacy`. Must never write to it: it is opened as a file that does not change, so that not even
//! a `-shm` appears beside it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::database::beside;
use crate::config::files;
use crate::types::text::escape;

/// Tables that are read, and what a database of the old program is known by.
pub const LEGACY_TABLES: [&str; 3] = ["apis", "api_keys", "user_settings"];
/// Rows of one table that are read: far more than one person made by hand.
const MOST_ROWS: usize = 10_000;

/// One value of an old row.
#[derive(Debug, Clone, PartialEq)]
pub enum LegacyCell {
    /// A whole number.
    Whole(i64),
    /// A number.
    Real(f64),
    /// Text; outside text.
    Text(String),
    /// Bytes, such as something encrypted.
    Bytes(Vec<u8>),
}

/// One old row: its values by column name in lower case; what is NULL is not there.
pub type LegacyRow = BTreeMap<String, LegacyCell>;

/// What an old database holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LegacyDatabase {
    /// Rows of the tables that are read, in their order.
    pub tables: BTreeMap<&'static str, Vec<LegacyRow>>,
    /// Other tables, with how many rows they have.
    pub others: Vec<(String, u64)>,
}

/// Why an old database cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LegacyFault {
    /// Its last changes are still in a file beside it.
    #[error("{0} has changes that are not written back: the old program still runs, or ended badly")]
    Unwritten(String),
    /// A table is larger than any that a person made.
    #[error("the table {0} of the old database has more than {MOST_ROWS} rows")]
    TooLarge(&'static str),
    /// It is no database, or damaged.
    #[error("{file} cannot be read as a SQLite database: {detail}")]
    Unreadable {
        /// The file.
        file: String,
        /// What `SQLite` said.
        detail: String,
    },
}

/// Reads what the old program kept; `None` when the file is a database of something else. Blocks.
///
/// # Errors
/// When it is no database, is in use, or a table is larger than makes sense.
pub fn read_legacy(path: &Path) -> Result<Option<LegacyDatabase>, LegacyFault> {
    let shown = || escape(&path.to_string_lossy()).into_owned();
    let unreadable = |detail: String| LegacyFault::Unreadable { file: shown(), detail };
    let wal = beside(path, "-wal");
    match files::size(&wal) {
        Ok(0) => {}
        Ok(_) => return Err(LegacyFault::Unwritten(shown())),
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(unreadable(error.to_string())),
    }
    let said = |error: rusqlite::Error| unreadable(error.to_string());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(address(path), flags).map_err(said)?;
    connection
        .execute_batch("PRAGMA cipher_log_level = NONE; PRAGMA trusted_schema = OFF; PRAGMA query_only = ON;")
        .map_err(said)?;
    let names: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name")
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .map_err(said)?;
    let mut found = LegacyDatabase::default();
    for name in &names {
        if let Some(table) = LEGACY_TABLES.iter().find(|table| table.eq_ignore_ascii_case(name)) {
            let rows = rows(&connection, name).map_err(said)?;
            if rows.len() > MOST_ROWS {
                return Err(LegacyFault::TooLarge(table));
            }
            found.tables.insert(table, rows);
        } else {
            let count: i64 = connection
                .query_row(&format!("SELECT count(*) FROM {}", quoted(name)), [], |row| row.get(0))
                .map_err(said)?;
            found.others.push((name.clone(), u64::try_from(count).unwrap_or(0)));
        }
    }
    Ok((!found.tables.is_empty()).then_some(found))
}

fn rows(connection: &Connection, table: &str) -> rusqlite::Result<Vec<LegacyRow>> {
    let mut statement = connection.prepare(&format!("SELECT * FROM {} LIMIT {}", quoted(table), MOST_ROWS + 1))?;
    let columns: Vec<String> = statement.column_names().map(str::to_ascii_lowercase).collect();
    let mut cursor = statement.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = cursor.next()? {
        let mut cells = LegacyRow::new();
        for (at, column) in columns.iter().enumerate() {
            let cell = match row.get_ref(at)? {
                ValueRef::Null => continue,
                ValueRef::Integer(number) => LegacyCell::Whole(number),
                ValueRef::Real(number) => LegacyCell::Real(number),
                ValueRef::Text(text) => match std::str::from_utf8(text) {
                    Ok(text) => LegacyCell::Text(text.to_owned()),
                    Err(_other_encoding) => LegacyCell::Bytes(text.to_owned()),
                },
                ValueRef::Blob(bytes) => LegacyCell::Bytes(bytes.to_owned()),
            };
            cells.insert(column.clone(), cell);
        }
        rows.push(cells);
    }
    Ok(rows)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The path as `SQLite`'s address of a file that nobody changes.
fn address(path: &Path) -> String {
    let mut address = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => address.push(char::from(byte)),
            other => address.push_str(&format!("%{other:02X}")),
        }
    }
    address.push_str("?mode=ro&immutable=1");
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(sql: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("what? it's #1 100%.db");
        let connection = Connection::open(&path).expect("makes");
        connection.execute_batch(sql).expect("fills");
        drop(connection);
        (folder, path)
    }

    #[test]
    fn old_rows_are_read_with_all_their_columns_and_nothing_appears_beside_them() {
        let (folder, path) = database(
            "CREATE TABLE Apis (Id INTEGER, NAME, extra); INSERT INTO Apis VALUES (1, 'x', NULL), (2, x'00ff', 0.5);
             CREATE TABLE notes (a); INSERT INTO notes VALUES (1), (2);",
        );
        let found = read_legacy(&path).expect("reads").expect("is one");
        let row = |cells: &[(&str, LegacyCell)]| -> LegacyRow {
            cells.iter().map(|(name, cell)| ((*name).to_owned(), cell.clone())).collect()
        };
        let wanted = vec![
            row(&[("id", LegacyCell::Whole(1)), ("name", LegacyCell::Text("x".into()))]),
            row(&[
                ("id", LegacyCell::Whole(2)),
                ("name", LegacyCell::Bytes(vec![0, 255])),
                ("extra", LegacyCell::Real(0.5)),
            ]),
        ];
        assert_eq!(found.tables, BTreeMap::from([("apis", wanted)]));
        assert_eq!(found.others, [("notes".to_owned(), 2)]);
        assert_eq!(files::names(folder.path()).expect("lists").len(), 1);
    }

    #[test]
    fn what_is_no_old_database_is_told_apart() {
        let (_folder, other) = database("CREATE TABLE something (a)");
        assert_eq!(read_legacy(&other).expect("reads"), None);
        let (_folder, damaged) = database("CREATE TABLE apis (a)");
        files::replace(&damaged, b"no database at all, only a lot of text", files::Audience::Owner).expect("writes");
        assert!(matches!(read_legacy(&damaged), Err(LegacyFault::Unreadable { .. })));
        let (_folder, large) = database(
            "CREATE TABLE apis (a); INSERT INTO apis
             WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 10001) SELECT x FROM c",
        );
        assert!(matches!(read_legacy(&large), Err(LegacyFault::TooLarge("apis"))));
    }

    #[test]
    fn a_database_that_is_still_written_to_is_refused() {
        let (_folder, path) = database("PRAGMA journal_mode = WAL; CREATE TABLE apis (a)");
        let open = Connection::open(&path).expect("opens");
        open.execute_batch("INSERT INTO apis VALUES (1)").expect("writes");
        assert!(matches!(read_legacy(&path), Err(LegacyFault::Unwritten(_))));
        drop(open);
        assert!(read_legacy(&path).expect("reads").is_some());
    }
}
