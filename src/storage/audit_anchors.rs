//! Tables `audit_anchors` and `audit_chain_keys`: what stands for archived rows, and how old rows were chained.

use rusqlite::{OptionalExtension as _, Row, named_params};
use zeroize::Zeroizing;

use super::columns::{number, unsigned};
use super::error::StorageError;
use super::security_store::SecurityStore;
use crate::types::clock::UnixMillis;

/// Stands for archived rows (SPEC §5.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditAnchor {
    /// Number of the first row that it stands for.
    pub first: u64,
    /// Number of the last.
    pub through: u64,
    /// The earliest time in them.
    pub oldest: UnixMillis,
    /// The latest.
    pub newest: UnixMillis,
    /// When they were archived.
    pub made: UnixMillis,
    /// The code of the last row: what the next one goes on from.
    pub code: [u8; 32],
    /// HMAC-SHA256 over the last anchor's seal and this anchor.
    pub seal: [u8; 32],
}

/// How large the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditSize {
    /// Rows that are not archived.
    pub rows: u64,
    /// About how many bytes they take with their indexes, told from the newest.
    pub bytes: u64,
}

/// Rows from which the size is told.
const SAMPLE: u32 = 1_000;
/// Bytes of a row beside its texts: numbers, code, and its entries in three indexes. Measured: 400,000 refused requests
/// take 255 bytes each, 140 of them texts as they are counted below (`cargo bench --bench audit`).
const ROW_BYTES: u64 = 115;

impl SecurityStore {
    /// All anchors, oldest first.
    pub async fn audit_anchors(&self) -> Result<Vec<AuditAnchor>, StorageError> {
        self.database
            .read_if_there("reading the audit log's anchors", |connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM audit_anchors ORDER BY through")?;
                statement.query_map([], anchor)?.collect()
            })
            .await
    }

    /// The oldest rows, as far as every one of them is older than `before`, at most `most`, without the newest row of
    /// the log; as an anchor that is not sealed. `None` when there is none.
    pub async fn audit_segment(&self, before: UnixMillis, most: u64) -> Result<Option<AuditAnchor>, StorageError> {
        self.database
            .read("looking for rows to archive", move |connection| {
                let ends = connection.query_row("SELECT min(sequence), max(sequence) FROM audit_logs", [], |row| {
                    Ok(row.get::<_, Option<i64>>(0)?.zip(row.get::<_, Option<i64>>(1)?))
                })?;
                let Some((first, last)) = ends else { return Ok(None) };
                let limit = first.saturating_add(number(most)).saturating_sub(1).min(last - 1);
                // Times may go back with the clock, so the first that is young ends the segment.
                let young: Option<i64> = connection
                    .query_row(
                        "SELECT sequence FROM audit_logs WHERE sequence <= ?1 AND at >= ?2 ORDER BY sequence LIMIT 1",
                        (limit, before.0),
                        |row| row.get(0),
                    )
                    .optional()?;
                let through = young.map_or(limit, |young| young - 1);
                if through < first {
                    return Ok(None);
                }
                let segment = connection.query_row(
                    "SELECT ?1 AS first, ?2 AS through, min(at) AS oldest, max(at) AS newest, 0 AS made,
                         (SELECT code FROM audit_logs WHERE sequence = ?2) AS code, zeroblob(32) AS seal
                     FROM audit_logs WHERE sequence <= ?2",
                    (first, through),
                    anchor,
                )?;
                Ok(Some(segment))
            })
            .await
    }

    /// Replaces the rows that it stands for by the anchor, in one transaction.
    ///
    /// # Errors
    /// `Conflict` when it does not stand for the oldest rows as they are.
    pub async fn put_audit_anchor(&self, anchor: AuditAnchor) -> Result<(), StorageError> {
        self.database
            .write("archiving audit rows", move |transaction| {
                transaction
                    .prepare_cached(
                        "INSERT INTO audit_anchors (first, through, oldest, newest, made, code, seal)
                         VALUES (:first, :through, :oldest, :newest, :made, :code, :seal)",
                    )?
                    .execute(named_params! {
                        ":first": number(anchor.first),
                        ":through": number(anchor.through),
                        ":oldest": anchor.oldest.0,
                        ":newest": anchor.newest.0,
                        ":made": anchor.made.0,
                        ":code": anchor.code,
                        ":seal": anchor.seal,
                    })
                    .map(|_one| ())
            })
            .await
    }

    /// How large the log is, told from its newest rows.
    pub async fn audit_size(&self) -> Result<AuditSize, StorageError> {
        self.database
            .read("measuring the audit log", |connection| {
                let rows: i64 = connection.query_row(
                    "SELECT coalesce(max(sequence) - min(sequence) + 1, 0) FROM audit_logs",
                    [],
                    |row| row.get(0),
                )?;
                let texts: f64 = connection.query_row(
                    "SELECT coalesce(avg(length(details) + coalesce(length(endpoint), 0) + coalesce(length(request_id), 0)
                         + 2 * (length(kind) + coalesce(length(address), 0))), 0)
                     FROM (SELECT * FROM audit_logs ORDER BY sequence DESC LIMIT ?1)",
                    [SAMPLE],
                    |row| row.get(0),
                )?;
                let rows = u64::try_from(rows).unwrap_or(0);
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of lengths")]
                let each = ROW_BYTES + texts as u64;
                Ok(AuditSize { rows, bytes: rows.saturating_mul(each) })
            })
            .await
    }

    /// Keys with which rows were chained before the database key was changed: up to which row, and the key; ascending.
    pub async fn older_chain_keys(&self) -> Result<Vec<(u64, Zeroizing<[u8; 32]>)>, StorageError> {
        self.database
            .read_if_there("reading the chain's earlier keys", |connection| {
                let mut statement =
                    connection.prepare_cached("SELECT through, key FROM audit_chain_keys ORDER BY through")?;
                let key = |row: &Row<'_>| Ok((unsigned(row, "through")?, Zeroizing::new(row.get("key")?)));
                statement.query_map([], key)?.collect()
            })
            .await
    }
}

fn anchor(row: &Row<'_>) -> rusqlite::Result<AuditAnchor> {
    Ok(AuditAnchor {
        first: unsigned(row, "first")?,
        through: unsigned(row, "through")?,
        oldest: UnixMillis(row.get("oldest")?),
        newest: UnixMillis(row.get("newest")?),
        made: UnixMillis(row.get("made")?),
        code: row.get("code")?,
        seal: row.get("seal")?,
    })
}
