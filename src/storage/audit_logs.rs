//! Table `audit_logs`: append-only and numbered without gaps, by triggers (SPEC §5.9).

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params_from_iter};

use super::columns::{name, named, named_or_none, number, parsed_or_none, unsigned};
use super::error::StorageError;
use super::security_store::SecurityStore;
use crate::types::audit::{AuditEvent, AuditKind, AuditRow, Severity};
use crate::types::calls::audit::{ExportAudit, ListAudit};
use crate::types::clock::UnixMillis;

/// Rows of a page when the query names no number (`types::calls::audit`).
const DEFAULT_PAGE: u32 = 100;

/// Most rows of one page.
const LARGEST_PAGE: u32 = 1000;

/// A row of the audit log with its place in the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct ChainedRow {
    /// The row.
    pub row: AuditRow,
    /// HMAC-SHA256 over the last row's code and this row (SPEC §5.9).
    pub code: [u8; 32],
}

impl SecurityStore {
    /// Appends to the audit log in one transaction: all rows or none.
    ///
    /// # Errors
    /// `Conflict` when the first number is not the one after the stored head.
    pub async fn append_audit(&self, rows: Vec<ChainedRow>) -> Result<(), StorageError> {
        self.database
            .write("appending to the audit log", move |transaction| {
                let mut statement = transaction.prepare_cached(
                    "INSERT INTO audit_logs (sequence, at, kind, severity, request_id, address, key, endpoint, engine,
                         status, latency_ms, details, code)
                     VALUES (:sequence, :at, :kind, :severity, :request_id, :address, :key, :endpoint, :engine,
                         :status, :latency_ms, :details, :code)",
                )?;
                for ChainedRow { row, code } in rows {
                    let event = row.event;
                    statement.execute(named_params! {
                        ":sequence": number(row.sequence),
                        ":at": event.at.0,
                        ":kind": name(&event.kind)?,
                        ":severity": rank(event.severity),
                        ":request_id": event.request_id.map(String::from),
                        ":address": event.address.map(|address| address.to_string()),
                        ":key": event.key.map(String::from),
                        ":endpoint": event.endpoint,
                        ":engine": event.engine.map(String::from),
                        ":status": event.status,
                        ":latency_ms": event.latency_ms,
                        ":details": event.details,
                        ":code": code,
                    })?;
                }
                Ok(())
            })
            .await
    }

    /// The newest row.
    pub async fn audit_head(&self) -> Result<Option<ChainedRow>, StorageError> {
        self.database
            .read("reading the audit log's head", |connection| {
                connection.query_row("SELECT * FROM audit_logs ORDER BY sequence DESC LIMIT 1", [], chained).optional()
            })
            .await
    }

    /// A page, newest first.
    pub async fn audit_page(&self, query: ListAudit) -> Result<Vec<AuditRow>, StorageError> {
        let limit = if query.limit == 0 { DEFAULT_PAGE } else { query.limit.min(LARGEST_PAGE) };
        self.database
            .read("reading the audit log", move |connection| {
                let filter = Filter {
                    severity: query.severity,
                    address: query.address,
                    kind: query.kind,
                    since: query.since,
                    place: query.before.map(Place::Below),
                };
                select(connection, &filter, "DESC", limit, audit_row)
            })
            .await
    }

    /// The next rows that fit, oldest first, and where the page after it begins.
    pub async fn audit_export(
        &self,
        query: ExportAudit,
        limit: u32,
    ) -> Result<(Vec<ChainedRow>, Option<u64>), StorageError> {
        self.database
            .read("exporting the audit log", move |connection| {
                let filter = Filter {
                    severity: query.severity,
                    address: query.address,
                    kind: query.kind,
                    since: query.since,
                    place: Some(Place::Above(query.after)),
                };
                let rows = select(connection, &filter, "ASC", limit, chained)?;
                let full = u32::try_from(rows.len()).is_ok_and(|count| count == limit);
                let next = rows.last().filter(|_| full).map(|last| last.row.sequence);
                Ok((rows, next))
            })
            .await
    }

    /// Rows above `after`, oldest first, at most `limit`: for verification and export.
    pub async fn audit_after(&self, after: u64, limit: u32) -> Result<Vec<ChainedRow>, StorageError> {
        self.database
            .read("reading the audit log", move |connection| {
                let mut statement = connection
                    .prepare_cached("SELECT * FROM audit_logs WHERE sequence > ?1 ORDER BY sequence LIMIT ?2")?;
                statement.query_map((number(after), limit), chained)?.collect()
            })
            .await
    }
}

/// Which rows are wanted.
struct Filter {
    severity: Option<Severity>,
    address: Option<std::net::IpAddr>,
    kind: Option<AuditKind>,
    since: Option<UnixMillis>,
    place: Option<Place>,
}

/// On which side of a number.
enum Place {
    Below(u64),
    Above(u64),
}

fn select<T>(
    connection: &Connection,
    filter: &Filter,
    order: &str,
    limit: u32,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    // Only conditions that are asked for: `?1 IS NULL OR …` would keep SQLite from using an index.
    let mut conditions = vec!["1"];
    let mut values: Vec<Value> = Vec::new();
    let mut want = |condition, value: Value| {
        conditions.push(condition);
        values.push(value);
    };
    if let Some(severity) = filter.severity {
        want("severity >= ?", rank(severity).into());
    }
    if let Some(address) = filter.address {
        want("address = ?", address.to_string().into());
    }
    if let Some(kind) = filter.kind {
        want("kind = ?", name(&kind)?.into());
    }
    if let Some(since) = filter.since {
        want("at >= ?", since.0.into());
    }
    match &filter.place {
        Some(Place::Below(number_above)) => want("sequence < ?", number(*number_above).into()),
        Some(Place::Above(number_below)) => want("sequence > ?", number(*number_below).into()),
        None => {}
    }
    values.push(limit.into());
    let sql = format!("SELECT * FROM audit_logs WHERE {} ORDER BY sequence {order} LIMIT ?", conditions.join(" AND "));
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_map(params_from_iter(values), |row| read(row))?.collect()
}

/// Severities in order, so that "this and above" is a comparison.
pub(super) fn rank(severity: Severity) -> i64 {
    match severity {
        Severity::Low => 1,
        Severity::Medium => 2,
        Severity::High => 3,
        Severity::Critical => 4,
    }
}

pub(super) fn severity(row: &Row<'_>) -> rusqlite::Result<Severity> {
    match row.get::<_, i64>("severity")? {
        1 => Ok(Severity::Low),
        2 => Ok(Severity::Medium),
        3 => Ok(Severity::High),
        4 => Ok(Severity::Critical),
        other => Err(rusqlite::Error::IntegralValueOutOfRange(0, other)),
    }
}

fn audit_row(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    Ok(AuditRow {
        sequence: unsigned(row, "sequence")?,
        event: AuditEvent {
            at: UnixMillis(row.get("at")?),
            kind: named(row, "kind")?,
            severity: severity(row)?,
            request_id: named_or_none(row, "request_id")?,
            address: parsed_or_none(row, "address")?,
            key: named_or_none(row, "key")?,
            endpoint: row.get("endpoint")?,
            engine: named_or_none(row, "engine")?,
            status: row.get("status")?,
            latency_ms: row.get("latency_ms")?,
            details: row.get("details")?,
        },
    })
}

fn chained(row: &Row<'_>) -> rusqlite::Result<ChainedRow> {
    Ok(ChainedRow { row: audit_row(row)?, code: row.get("code")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::security_store::tests::store;
    use crate::types::ids::{EngineId, KeyId, RequestId};

    fn row(sequence: u64, kind: AuditKind, severity: Severity) -> ChainedRow {
        let at = UnixMillis(i64::try_from(sequence).expect("small") * 10);
        ChainedRow {
            row: AuditRow { sequence, event: AuditEvent::new(at, kind, severity, format!("row {sequence}")) },
            code: [u8::try_from(sequence).expect("small"); 32],
        }
    }

    fn full_row(sequence: u64) -> ChainedRow {
        let mut chained = row(sequence, AuditKind::AuthenticationFailed, Severity::Medium);
        let event = &mut chained.row.event;
        event.request_id = Some(RequestId::from_random(5));
        event.address = Some("2001:db8::1".parse().expect("address"));
        event.key = Some(KeyId::parse("Ab12Cd34").expect("id"));
        event.endpoint = Some("/v1/models".into());
        event.engine = Some(EngineId::parse("ollama").expect("id"));
        event.status = Some(401);
        event.latency_ms = Some(3);
        chained
    }

    #[tokio::test]
    async fn rows_come_back_with_every_field_and_their_code() {
        let (_folder, store) = store();
        assert_eq!(store.audit_head().await.expect("reads"), None);
        let rows = vec![full_row(1), row(2, AuditKind::KeyChanged, Severity::Low)];
        store.append_audit(rows.clone()).await.expect("appends");
        assert_eq!(store.audit_after(0, 10).await.expect("reads"), rows);
        assert_eq!(store.audit_after(1, 10).await.expect("reads"), rows[1..]);
        assert_eq!(store.audit_after(0, 1).await.expect("reads"), rows[..1]);
        assert_eq!(store.audit_head().await.expect("reads"), rows.last().cloned());
    }

    #[tokio::test]
    async fn a_gap_is_refused_and_nothing_of_the_batch_is_kept() {
        let (_folder, store) = store();
        let low = |sequence| row(sequence, AuditKind::RuleHit, Severity::Low);
        for wrong in [vec![low(2)], vec![low(0)], vec![low(1), low(3)]] {
            let error = store.append_audit(wrong).await.expect_err("gap");
            assert!(matches!(error, StorageError::Conflict { .. }), "{error}");
            assert_eq!(store.audit_head().await.expect("reads"), None);
        }
        store.append_audit(vec![low(1)]).await.expect("appends");
        assert!(store.append_audit(vec![low(1)]).await.is_err(), "the number is taken");
    }

    #[tokio::test]
    async fn the_database_refuses_to_change_or_delete_a_row() {
        let (_folder, store) = store();
        store.append_audit(vec![full_row(1)]).await.expect("appends");
        for sql in [
            "UPDATE audit_logs SET details = 'nothing happened'",
            "DELETE FROM audit_logs",
            "INSERT OR REPLACE INTO audit_logs SELECT * FROM audit_logs",
            "REPLACE INTO audit_logs SELECT sequence, at, kind, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '', code
             FROM audit_logs",
            "INSERT INTO audit_logs SELECT * FROM audit_logs WHERE 1 ON CONFLICT DO UPDATE SET details = ''",
        ] {
            let error = store.tamper(sql).await.expect_err(sql);
            assert!(matches!(error, StorageError::Conflict { .. }), "{sql}: {error}");
        }
        assert_eq!(store.audit_after(0, 10).await.expect("reads"), [full_row(1)]);
    }

    #[tokio::test]
    async fn pages_follow_filters_newest_first() {
        let (_folder, store) = store();
        let rows: Vec<_> = (1..=9)
            .map(|n| match n % 3 {
                0 => full_row(n),
                1 => row(n, AuditKind::RuleHit, Severity::Critical),
                _ => row(n, AuditKind::KeyChanged, Severity::Low),
            })
            .collect();
        store.append_audit(rows).await.expect("appends");
        let page = async |query: ListAudit| {
            store.audit_page(query).await.expect("reads").iter().map(|row| row.sequence).collect::<Vec<_>>()
        };
        let all = ListAudit::default();
        assert_eq!(page(all.clone()).await, [9, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(page(ListAudit { limit: 2, before: Some(5), ..all.clone() }).await, [4, 3]);
        assert_eq!(page(ListAudit { severity: Some(Severity::Medium), ..all.clone() }).await, [9, 7, 6, 4, 3, 1]);
        assert_eq!(page(ListAudit { kind: Some(AuditKind::KeyChanged), ..all.clone() }).await, [8, 5, 2]);
        assert_eq!(page(ListAudit { since: Some(UnixMillis(80)), ..all.clone() }).await, [9, 8]);
        let address = Some("2001:db8::1".parse().expect("address"));
        assert_eq!(page(ListAudit { address, before: Some(9), ..all.clone() }).await, [6, 3]);
        let address = Some("192.0.2.1".parse().expect("address"));
        assert_eq!(page(ListAudit { address, severity: Some(Severity::Low), ..all }).await, [0; 0]);
    }

    #[tokio::test]
    async fn a_page_has_100_rows_unless_told_and_never_more_than_1000() {
        let (_folder, store) = store();
        let rows = (1..=1_100).map(|n| ChainedRow { code: [0; 32], ..row_numbered(n) }).collect();
        store.append_audit(rows).await.expect("appends");
        for (limit, expected) in [(0, 100), (3, 3), (u32::MAX, 1_000)] {
            let page = store.audit_page(ListAudit { limit, ..ListAudit::default() }).await.expect("reads");
            assert_eq!(page.len(), expected);
        }
    }

    fn row_numbered(sequence: u64) -> ChainedRow {
        let mut chained = row(1, AuditKind::RuleHit, Severity::Low);
        chained.row.sequence = sequence;
        chained
    }
}
