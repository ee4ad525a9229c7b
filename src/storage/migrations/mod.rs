//! Numbered migrations: how a database of any earlier version becomes one of this version.
//!
//! Run by `storage::database` when a database is opened. A migration that shipped must never change: a new one is
//! added at the end.

use rusqlite::{Connection, TransactionBehavior};

/// One step of a schema.
#[derive(Debug, Clone, Copy)]
pub(super) struct Migration {
    /// What runs, in one transaction.
    pub(super) sql: &'static str,
}

/// Steps of `config.db`; the version is the position from 1.
pub(super) const CONFIG: &[Migration] = &[
    Migration { sql: include_str!("config_0001.sql") },
    Migration { sql: include_str!("config_0002.sql") },
    Migration { sql: include_str!("config_0003.sql") },
    Migration { sql: include_str!("config_0004.sql") },
    Migration { sql: include_str!("config_0005.sql") },
    Migration { sql: include_str!("config_0006.sql") },
];

/// Steps of `security.db`; the version is the position from 1.
pub(super) const SECURITY: &[Migration] = &[
    Migration { sql: include_str!("security_0001.sql") },
    Migration { sql: include_str!("security_0002.sql") },
    Migration { sql: include_str!("security_0003.sql") },
    Migration { sql: include_str!("security_0004.sql") },
    Migration { sql: include_str!("security_0005.sql") },
    Migration { sql: include_str!("security_0006.sql") },
    Migration { sql: include_str!("security_0007.sql") },
    Migration { sql: include_str!("security_0008.sql") },
    Migration { sql: include_str!("security_0009.sql") },
    Migration { sql: include_str!("security_0010.sql") },
];

/// Why a database is not at this version.
#[derive(Debug)]
pub(super) enum NotMigrated {
    /// A newer FLM made it.
    Newer { found: u32, known: u32 },
    /// Step `to` failed and was rolled back; the database is at version `from`.
    Failed { from: u32, to: u32, fault: StepFault },
    /// The version could not be read.
    Unreadable(rusqlite::Error),
}

/// Why a step did not run.
#[derive(Debug)]
pub(super) enum StepFault {
    /// `SQLite` refused.
    Sqlite(rusqlite::Error),
    /// It was not to run now; the text says why.
    Withheld(String),
}

/// The version that a database says it has; 0 is an empty one.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Runs the steps that are missing, each in its own transaction together with its number.
pub(super) fn migrate(connection: &mut Connection, steps: &[Migration]) -> Result<(), NotMigrated> {
    let found = version(connection).map_err(NotMigrated::Unreadable)?;
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(NotMigrated::Newer { found, known });
    }
    for (to, step) in (1..).zip(steps).skip_while(|(to, _)| *to <= found) {
        let failed = |error| NotMigrated::Failed { from: to - 1, to, fault: StepFault::Sqlite(error) };
        run(connection, to, step).map_err(failed)?;
    }
    Ok(())
}

/// Runs nothing: fine when nothing is missing.
pub(super) fn withhold(connection: &Connection, steps: &[Migration], why: &str) -> Result<(), NotMigrated> {
    let found = version(connection).map_err(NotMigrated::Unreadable)?;
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    match found.cmp(&known) {
        std::cmp::Ordering::Greater => Err(NotMigrated::Newer { found, known }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => {
            Err(NotMigrated::Failed { from: found, to: found + 1, fault: StepFault::Withheld(why.to_owned()) })
        }
    }
}

fn run(connection: &mut Connection, to: u32, step: &Migration) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(step.sql)?;
    transaction.pragma_update(None, "user_version", to)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use rusqlite::fallible_iterator::FallibleIterator as _;

    use super::*;

    /// Every object with its text, which is what "the same schema" means.
    fn schema(connection: &Connection) -> Vec<(String, Option<String>)> {
        let mut statement =
            connection.prepare("SELECT type || ' ' || name, sql FROM sqlite_master ORDER BY 1").expect("prepares");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("queries");
        rows.collect::<Result<_, _>>().expect("reads")
    }

    #[test]
    fn every_earlier_version_becomes_the_schema_of_this_one() {
        for (name, steps) in [("config", CONFIG), ("security", SECURITY)] {
            let mut fresh = Connection::open_in_memory().expect("opens");
            migrate(&mut fresh, steps).expect("migrates");
            assert!(!schema(&fresh).is_empty());
            for from in 0..=steps.len() {
                let mut old = Connection::open_in_memory().expect("opens");
                migrate(&mut old, &steps[..from]).expect("makes the earlier version");
                assert_eq!(version(&old).expect("version"), u32::try_from(from).expect("small"));
                migrate(&mut old, steps).expect("migrates");
                assert_eq!(schema(&old), schema(&fresh), "{name} from version {from}");
                let broken: i64 =
                    old.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |r| r.get(0)).expect("checks");
                assert_eq!(broken, 0);
            }
        }
    }

    /// Case 41.
    #[test]
    fn a_failing_step_is_rolled_back_and_earlier_ones_stay() {
        let steps = [
            Migration { sql: "CREATE TABLE one (a INTEGER)" },
            Migration { sql: "CREATE TABLE two (a INTEGER); INSERT INTO missing VALUES (1)" },
            Migration { sql: "CREATE TABLE three (a INTEGER)" },
        ];
        let mut connection = Connection::open_in_memory().expect("opens");
        let Err(NotMigrated::Failed { from: 1, to: 2, .. }) = migrate(&mut connection, &steps) else {
            panic!("the second step fails")
        };
        assert_eq!(version(&connection).expect("version"), 1);
        assert_eq!(schema(&connection).len(), 1);
    }

    #[test]
    fn a_database_of_a_newer_version_is_left_alone() {
        let mut connection = Connection::open_in_memory().expect("opens");
        connection.pragma_update(None, "user_version", 10_000).expect("sets");
        let Err(NotMigrated::Newer { found: 10_000, known }) = migrate(&mut connection, CONFIG) else {
            panic!("it is newer")
        };
        assert_eq!(usize::try_from(known), Ok(CONFIG.len()));
        assert!(schema(&connection).is_empty());
    }

    /// Tables of a schema with their columns in order.
    fn tables(connection: &Connection) -> Vec<(String, Vec<String>)> {
        let mut names = connection
            .prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name")
            .expect("prepares");
        let names: Vec<String> =
            names.query_map([], |row| row.get(0)).expect("reads").collect::<Result<_, _>>().expect("reads");
        let columns = |table: String| {
            let mut columns = connection.prepare("SELECT name FROM pragma_table_info(?1)").expect("prepares");
            let columns = columns.query_map([&table], |row| row.get(0)).expect("reads").collect::<Result<_, _>>();
            let columns = columns.expect("reads");
            (table, columns)
        };
        names.into_iter().map(columns).collect()
    }

    /// The same as the page tells it: rows of the tables below a heading, names in backquotes.
    fn told_tables(page: &str, heading: &str) -> Vec<(String, Vec<String>)> {
        let part = page.split(heading).nth(1).unwrap_or_else(|| panic!("no heading {heading:?} in docs/schema.md"));
        let part = part.split("\n## ").next().unwrap_or_default();
        let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let rows = part.lines().filter(|line| line.starts_with("| `"));
        rows.map(|row| {
            let cells: Vec<_> = row.split('|').collect();
            (names(cells[1]).remove(0), names(cells[2]))
        })
        .collect()
    }

    #[test]
    fn the_page_about_the_schema_tells_every_table_and_column() {
        let page = include_str!("../../../docs/schema.md");
        for (name, steps) in [("config.db", CONFIG), ("security.db", SECURITY)] {
            let mut fresh = Connection::open_in_memory().expect("opens");
            migrate(&mut fresh, steps).expect("migrates");
            let heading = format!("## {name}, version {}\n", steps.len());
            assert_eq!(told_tables(page, &heading), tables(&fresh), "docs/schema.md is behind: mend it there");
        }
    }

    #[test]
    fn withholding_changes_nothing_and_is_fine_when_nothing_is_missing() {
        let mut connection = Connection::open_in_memory().expect("opens");
        migrate(&mut connection, &SECURITY[..2]).expect("migrates");
        let Err(NotMigrated::Failed { from: 2, to: 3, fault: StepFault::Withheld(why) }) =
            withhold(&connection, SECURITY, "no backup")
        else {
            panic!("a step is missing")
        };
        assert_eq!((why.as_str(), version(&connection).expect("version")), ("no backup", 2));
        migrate(&mut connection, SECURITY).expect("migrates");
        withhold(&connection, SECURITY, "no backup").expect("nothing is missing");
    }

    /// What a kill leaves of a database is its files as they are.
    fn copied(path: &std::path::Path) -> (tempfile::TempDir, Connection) {
        let folder = tempfile::tempdir().expect("folder");
        for suffix in ["", "-wal"] {
            let name = |base: &std::path::Path| std::path::PathBuf::from(format!("{}{suffix}", base.display()));
            if name(path).exists() {
                std::fs::copy(name(path), name(&folder.path().join("copy.db"))).expect("copies");
            }
        }
        let connection = Connection::open(folder.path().join("copy.db")).expect("opens");
        (folder, connection)
    }

    #[test]
    fn a_kill_after_any_statement_leaves_the_version_before_and_the_next_start_migrates() {
        for (name, steps) in [("config", CONFIG), ("security", SECURITY)] {
            for (from, step) in steps.iter().enumerate() {
                let folder = tempfile::tempdir().expect("folder");
                let path = folder.path().join("killed.db");
                let mut connection = Connection::open(&path).expect("opens");
                // Pages leave the cache at once, so that the log holds what was not committed.
                connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA cache_size = 1").expect("sets");
                migrate(&mut connection, &steps[..from]).expect("makes the earlier version");
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).expect("begins");
                let mut statements = rusqlite::Batch::new(&transaction, step.sql);
                while let Some(mut statement) = statements.next().expect("parses") {
                    statement.execute([]).expect("runs");
                    let (_copy, mut killed) = copied(&path);
                    assert_eq!(version(&killed).expect("version") as usize, from, "{name} {from}");
                    migrate(&mut killed, steps).expect("migrates");
                }
            }
        }
    }

    #[test]
    fn what_an_earlier_version_stored_is_there_after_every_upgrade() {
        let stored = [
            (
                CONFIG,
                "INSERT INTO settings VALUES ('a', 'b');
                 INSERT INTO engines (id, kind, url, direct, origin, created) VALUES ('e', 'ollama', 'http://x', 1, 'manual', 5);
                 INSERT INTO engine_health VALUES ('e', 7, 3, NULL);
                 INSERT INTO api_prompt_history VALUES ('chat', 1, 'text', 5, NULL);
                 INSERT INTO api_prompts VALUES ('chat', 1);
                 INSERT INTO proxy_profiles (port, mode, bind, insecure_plain_http) VALUES (8484, 'local-http', '127.0.0.1', 0)",
                "SELECT (SELECT value FROM settings) || (SELECT count(*) FROM engine_health JOIN engines ON id = engine)
                     || (SELECT text FROM api_prompts JOIN api_prompt_history USING (api_id, version))
                     || (SELECT port FROM proxy_profiles)",
                "b1text8484",
            ),
            (
                SECURITY,
                "INSERT INTO api_keys VALUES ('Ab12Cd34', 'x', 'last', 'hash', 1, 1, NULL, NULL, 'normal', '[]', '[]', '[]', 5,
                     NULL, NULL, NULL);
                 INSERT INTO ip_blocklist VALUES ('192.0.2.1/32', 'why', 'manual', 0, 5, NULL);
                 INSERT INTO audit_logs (sequence, at, kind, severity, details, code)
                     VALUES (1, 5, 'key_changed', 2, 'made', zeroblob(32))",
                "SELECT (SELECT hash FROM api_keys) || (SELECT reason FROM ip_blocklist) || (SELECT details FROM audit_logs)
                     || (SELECT count(*) FROM ip_trusted)",
                "hashwhymade2",
            ),
        ];
        for (steps, insert, select, expected) in stored {
            for from in 1..=steps.len() {
                let mut connection = Connection::open_in_memory().expect("opens");
                connection.pragma_update(None, "foreign_keys", true).expect("sets");
                migrate(&mut connection, &steps[..1]).expect("makes the first version");
                connection.execute_batch(insert).expect("stores");
                migrate(&mut connection, &steps[..from]).expect("an upgrade of then");
                migrate(&mut connection, steps).expect("the upgrade of now");
                let found: String = connection.query_row(select, [], |row| row.get(0)).expect("reads");
                assert_eq!(found, expected, "by way of version {from}");
            }
        }
    }
}
