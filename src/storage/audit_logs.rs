//! Table `audit_logs`: append-only and numbered without gaps, by triggers (SPEC §5.9).

use rusqlite::{OptionalExtension as _, Row, named_params};

use super::columns::{name, named, named_or_none, number, parsed_or_none, unsigned};
use super::error::StorageError;
use super::security_store::SecurityStore;
use crate::types::audit::{AuditEvent, AuditRow, Severity};
use crate::types::calls::audit::ListAudit;
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
        self.database
            .read("reading the audit log", move |connection| {
                let limit = if query.limit == 0 { DEFAULT_PAGE } else { query.limit.min(LARGEST_PAGE) };
                let kind = query.kind.map(|kind| name(&kind)).transpose()?;
                // Only conditions that are asked for: `?1 IS NULL OR …` would keep SQLite from using an index.
                let conditions = [
                    (query.severity.is_some(), "severity >= :severity"),
                    (query.address.is_some(), "address = :address"),
                    (kind.is_some(), "kind = :kind"),
                    (query.since.is_some(), "at >= :since"),
                    (query.before.is_some(), "sequence < :before"),
                ];
                let wanted: Vec<_> = conditions.iter().filter(|(asked, _)| *asked).map(|(_, sql)| *sql).collect();
                let filter = if wanted.is_empty() { "1".to_owned() } else { wanted.join(" AND ") };
                let sql = format!("SELECT * FROM audit_logs WHERE {filter} ORDER BY sequence DESC LIMIT :limit");
                let mut statement = connection.prepare_cached(&sql)?;
                let values: [(&str, Option<rusqlite::types::Value>); 5] = [
                    (":severity", query.severity.map(|severity| rank(severity).into())),
                    (":address", query.address.map(|address| address.to_string().into())),
                    (":kind", kind.map(Into::into)),
                    (":since", query.since.map(|since| since.0.into())),
                    (":before", query.before.map(|before| number(before).into())),
                ];
                for (parameter, value) in values {
                    if let (Some(index), Some(value)) = (statement.parameter_index(parameter)?, value) {
                        statement.raw_bind_parameter(index, value)?;
                    }
                }
                if let Some(index) = statement.parameter_index(":limit")? {
                    statement.raw_bind_parameter(index, limit)?;
                }
                let mut rows = statement.raw_query();
                let mut page = Vec::new();
                while let Some(row) = rows.next()? {
                    page.push(audit_row(row)?);
                }
                Ok(page)
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

/// Severities in order, so that "this and above" is a comparison.
fn rank(severity: Severity) -> i64 {
    match severity {
        Severity::Low => 1,
        Severity::Medium => 2,
        Severity::High => 3,
        Severity::Critical => 4,
    }
}

fn severity(row: &Row<'_>) -> rusqlite::Result<Severity> {
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
