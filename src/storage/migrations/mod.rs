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
    Migration { sql: include_str!("security_0007.sql") },
];

/// Why a database is not at this version.
#[derive(Debug)]
pub(super) enum NotMigrated {
    /// A newer FLM made it.
    Newer { found: u32, known: u32 },
    /// Step `to` failed and was rolled back; the database is at version `from`.
    Failed { from: u32, to: u32, error: rusqlite::Error },
    /// The version could not be read.
    Unreadable(rusqlite::Error),
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
        run(connection, to, step).map_err(|error| NotMigrated::Failed { from: to - 1, to, error })?;
    }
    Ok(())
}

fn run(connection: &mut Connection, to: u32, step: &Migration) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(step.sql)?;
    transaction.pragma_update(None, "user_version", to)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
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
}
