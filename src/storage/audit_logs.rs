//! Table `audit_logs`: append-only and numbered without gaps, by triggers (SPEC §5.9).

use std::net::IpAddr;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params_from_iter};

use super::columns::{name, named, named_or_none, number, parsed_or_none, unsigned};
use super::error::StorageError;
use super::security_store::SecurityStore;
use crate::types::audit::{AuditEvent, AuditKind, AuditRow, Severity};
use crate::types::calls::audit::{AuditColumn, ExportAudit, ListAudit};
use crate::types::clock::UnixMillis;
use crate::types::order::{Order, Place};

/// Rows of a page when the query names no number (`types::calls::audit`).
const DEFAULT_PAGE: u32 = 100;

/// Most rows of one page.
const LARGEST_PAGE: u32 = 1000;

/// Rows that are looked at in one go for what no index knows: some ten milliseconds.
const SCANNED_AT_ONCE: u64 = 20_000;

/// Where a row lies among addresses, as the index of `migrations/security_0010.sql` knows it.
const ADDRESS_RANK: &str = "CASE WHEN address IS NULL THEN -1
    WHEN json_valid('[' || replace(address, '.', ',') || ']') THEN coalesce(
        (json_extract('[' || replace(address, '.', ',') || ']', '$[0]') << 24)
            + (json_extract('[' || replace(address, '.', ',') || ']', '$[1]') << 16)
            + (json_extract('[' || replace(address, '.', ',') || ']', '$[2]') << 8)
            + json_extract('[' || replace(address, '.', ',') || ']', '$[3]'),
        address)
    ELSE address END";

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

    /// A page, in the order asked for.
    pub async fn audit_page(&self, query: ListAudit) -> Result<Vec<AuditRow>, StorageError> {
        let limit = if query.limit == 0 { DEFAULT_PAGE } else { query.limit.min(LARGEST_PAGE) };
        let goes_back = query.place.goes_back();
        let mut rows = if query.by == AuditColumn::Time {
            self.audit_page_by_number(query, limit).await?
        } else {
            self.database
                .read("reading the audit log", move |connection| select_by_column(connection, &query, limit))
                .await?
        };
        if goes_back {
            rows.reverse();
        }
        Ok(rows)
    }

    /// A page in the order of numbers, as it is met from its place on. What no index knows (a text, a time) is looked for
    /// some rows at a time, so that other readers get their turn.
    async fn audit_page_by_number(&self, query: ListAudit, limit: u32) -> Result<Vec<AuditRow>, StorageError> {
        let order = if query.place.goes_back() { query.order.reversed() } else { query.order };
        let beyond = match query.place {
            Place::Start | Place::End => None,
            Place::Behind(row) | Place::Before(row) => Some(row),
        };
        let mut place = beyond.map(|row| match order {
            Order::Descending => Bound::Below(row),
            Order::Ascending => Bound::Above(row),
        });
        let scans = !query.text.is_empty() || query.since.is_some();
        let mut found: Vec<AuditRow> = Vec::new();
        loop {
            let missing = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
            let query = query.clone();
            let (rows, next) = self
                .database
                .read("reading the audit log", move |connection| {
                    let mut filter = Filter::of(&query);
                    filter.bounds.extend(place);
                    let edge = if scans { edge(connection, place, order)? } else { None };
                    filter.bounds.extend(edge);
                    Ok((select(connection, &filter, order, missing, audit_row)?, edge))
                })
                .await?;
            found.extend(rows);
            let Some(edge) = next.filter(|_| found.len() < limit as usize) else { return Ok(found) };
            place = Some(edge.other_side());
        }
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
                    bounds: vec![Bound::Above(query.after)],
                    ..Filter::default()
                };
                let rows = select(connection, &filter, Order::Ascending, limit, chained)?;
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
#[derive(Default)]
struct Filter {
    severity: Option<Severity>,
    address: Option<IpAddr>,
    kind: Option<AuditKind>,
    since: Option<UnixMillis>,
    text: String,
    named: Vec<AuditKind>,
    bounds: Vec<Bound>,
}

/// On which side of a number.
#[derive(Debug, Clone, Copy)]
enum Bound {
    Below(u64),
    Above(u64),
}

impl Bound {
    /// What begins where this ends.
    fn other_side(self) -> Self {
        match self {
            Self::Below(number) => Self::Above(number.saturating_sub(1)),
            Self::Above(number) => Self::Below(number.saturating_add(1)),
        }
    }
}

impl Filter {
    fn of(query: &ListAudit) -> Self {
        Self {
            severity: query.severity,
            address: query.address,
            kind: query.kind,
            since: query.since,
            text: query.text.clone(),
            named: query.named.clone(),
            bounds: Vec::new(),
        }
    }

    /// Conditions, with numbered parameters, and the values of these. Only conditions that are asked for: `?1 IS NULL OR …`
    /// would keep SQLite from using an index.
    fn conditions(&self) -> rusqlite::Result<(Vec<String>, Vec<Value>)> {
        let mut conditions = vec!["1".to_owned()];
        let mut values: Vec<Value> = Vec::new();
        let mut want = |condition: &str, value: Value| {
            values.push(value);
            conditions.push(format!("{condition} ?{}", values.len()));
        };
        if let Some(address) = self.address {
            want(
                &format!("{ADDRESS_RANK} ="),
                match address {
                    IpAddr::V4(address) => Value::from(i64::from(u32::from(address))),
                    IpAddr::V6(address) => address.to_string().into(),
                },
            );
        }
        if let Some(kind) = self.kind {
            want("kind =", name(&kind)?.into());
        }
        if let Some(since) = self.since {
            want("at >=", since.0.into());
        }
        for bound in &self.bounds {
            match bound {
                Bound::Below(above) => want("sequence <", number(*above).into()),
                Bound::Above(below) => want("sequence >", number(*below).into()),
            }
        }
        if !self.text.is_empty() {
            values.push(like(&self.text).into());
            let place = values.len();
            let mut ways: Vec<String> = ["details", "address", "endpoint", "request_id", "key"]
                .iter()
                .map(|column| format!("{column} LIKE ?{place} ESCAPE '\\'"))
                .collect();
            for kind in &self.named {
                values.push(name(kind)?.into());
                ways.push(format!("kind = ?{}", values.len()));
            }
            conditions.push(format!("({})", ways.join(" OR ")));
        }
        Ok((conditions, values))
    }
}

/// A pattern that finds `text` anywhere.
fn like(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for letter in text.chars() {
        if matches!(letter, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push('%');
    pattern
}

/// Where a look at some rows from `place` on ends; `None` when it reaches the end of the log.
fn edge(connection: &Connection, place: Option<Bound>, order: Order) -> rusqlite::Result<Option<Bound>> {
    // Each on its own: SQLite finds one smallest or one largest in an index, and looks at every row for two.
    let (first, last) = connection
        .prepare_cached("SELECT (SELECT min(sequence) FROM audit_logs), (SELECT max(sequence) FROM audit_logs)")?
        .query_row([], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)))?;
    let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
    let (first, last) = (u64::try_from(first).unwrap_or(0), u64::try_from(last).unwrap_or(0));
    Ok(if order == Order::Descending {
        let from = match place {
            Some(Bound::Below(number)) => number.min(last.saturating_add(1)),
            _ => last.saturating_add(1),
        };
        let edge = from.saturating_sub(SCANNED_AT_ONCE);
        (edge > first).then(|| Bound::Above(edge.saturating_sub(1)))
    } else {
        let from = match place {
            Some(Bound::Above(number)) => number.max(first.saturating_sub(1)),
            _ => first.saturating_sub(1),
        };
        let edge = from.saturating_add(SCANNED_AT_ONCE);
        (edge < last).then(|| Bound::Below(edge.saturating_add(1)))
    })
}

/// Rows in the order of their numbers.
fn select<T>(
    connection: &Connection,
    filter: &Filter,
    order: Order,
    limit: u32,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let (conditions, mut values) = filter.conditions()?;
    values.push(limit.into());
    let tail = format!("ORDER BY sequence {} LIMIT ?{}", direction(order), values.len());
    let conditions = conditions.join(" AND ");
    let sql = match filter.severity.map(rank) {
        None | Some(1) => format!("SELECT * FROM audit_logs WHERE {conditions} {tail}"),
        // One level after the other lies in the order of numbers in the index; "this and above" does not.
        Some(least) => {
            let levels: Vec<String> = (least..=rank(Severity::Critical))
                .map(|level| {
                    format!("SELECT * FROM (SELECT * FROM audit_logs WHERE severity = {level} AND {conditions} {tail})")
                })
                .collect();
            format!("{} {tail}", levels.join(" UNION ALL "))
        }
    };
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_map(params_from_iter(values), |row| read(row))?.collect()
}

/// Rows sorted by another column, as they are met from their place on: first the rest of those that are equal to the row that
/// they lie beside, then those beyond. Each is a part of an index, in its order.
fn select_by_column(connection: &Connection, query: &ListAudit, limit: u32) -> rusqlite::Result<Vec<AuditRow>> {
    let mut found = Vec::new();
    for (sql, values) in by_column(query, limit)? {
        let mut statement = connection.prepare_cached(&sql)?;
        for row in statement.query_map(params_from_iter(values), audit_row)? {
            found.push(row?);
        }
    }
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(found)
}

fn by_column(query: &ListAudit, limit: u32) -> rusqlite::Result<Vec<(String, Vec<Value>)>> {
    let column = match query.by {
        AuditColumn::Time => "sequence",
        AuditColumn::Severity => "severity",
        AuditColumn::Kind => "kind",
        AuditColumn::Address => ADDRESS_RANK,
    };
    let order = if query.place.goes_back() { query.order.reversed() } else { query.order };
    let (mut conditions, mut values) = Filter::of(query).conditions()?;
    if let Some(least) = query.severity {
        values.push(rank(least).into());
        // Only one index serves, and it is that of the order.
        let severity = if query.by == AuditColumn::Severity { "severity" } else { "+severity" };
        conditions.push(format!("{severity} >= ?{}", values.len()));
    }
    values.push(limit.into());
    let (conditions, way, most) = (conditions.join(" AND "), direction(order), values.len());
    let part = |which: &str, order: &str| {
        format!("SELECT * FROM audit_logs WHERE {conditions} {which} ORDER BY {order}sequence {way} LIMIT ?{most}")
    };
    let whole_order = format!("{column} {way}, ");
    let (Place::Behind(row) | Place::Before(row)) = query.place else {
        return Ok(vec![(part("", &whole_order), values)]);
    };
    values.push(number(row).into());
    let (place, beyond) = (values.len(), if order == Order::Descending { "<" } else { ">" });
    let own = format!("(SELECT {column} FROM audit_logs WHERE sequence = ?{place})");
    let equal = part(&format!("AND {column} = {own} AND sequence {beyond} ?{place}"), "");
    let others = part(&format!("AND {column} {beyond} {own}"), &whole_order);
    Ok(vec![(equal, values.clone()), (others, values)])
}

fn direction(order: Order) -> &'static str {
    match order {
        Order::Ascending => "ASC",
        Order::Descending => "DESC",
    }
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
        assert_eq!(page(ListAudit { limit: 2, place: Place::Behind(5), ..all.clone() }).await, [4, 3]);
        assert_eq!(page(ListAudit { limit: 2, place: Place::Before(5), ..all.clone() }).await, [7, 6], "the nearest");
        assert_eq!(page(ListAudit { limit: 2, place: Place::End, ..all.clone() }).await, [2, 1]);
        let oldest_first = ListAudit { order: Order::Ascending, ..all.clone() };
        assert_eq!(page(ListAudit { limit: 3, ..oldest_first.clone() }).await, [1, 2, 3]);
        assert_eq!(page(ListAudit { limit: 2, place: Place::Behind(5), ..oldest_first.clone() }).await, [6, 7]);
        assert_eq!(page(ListAudit { limit: 2, place: Place::Before(5), ..oldest_first }).await, [3, 4]);
        let worse = ListAudit { severity: Some(Severity::Medium), limit: 2, ..all.clone() };
        assert_eq!(page(ListAudit { place: Place::Behind(6), ..worse.clone() }).await, [4, 3]);
        assert_eq!(page(ListAudit { place: Place::Before(3), ..worse }).await, [6, 4]);
        assert_eq!(page(ListAudit { severity: Some(Severity::Medium), ..all.clone() }).await, [9, 7, 6, 4, 3, 1]);
        assert_eq!(page(ListAudit { kind: Some(AuditKind::KeyChanged), ..all.clone() }).await, [8, 5, 2]);
        assert_eq!(page(ListAudit { since: Some(UnixMillis(80)), ..all.clone() }).await, [9, 8]);
        let address = Some("2001:db8::1".parse().expect("address"));
        assert_eq!(page(ListAudit { address, place: Place::Behind(9), ..all.clone() }).await, [6, 3]);
        let address = Some("192.0.2.1".parse().expect("address"));
        assert_eq!(page(ListAudit { address, severity: Some(Severity::Low), ..all }).await, [0; 0]);
    }

    #[tokio::test]
    async fn pages_follow_each_other_in_every_order_forth_and_back() {
        let (_folder, store) = store();
        let kinds = [AuditKind::RuleHit, AuditKind::AuthenticationFailed, AuditKind::BlockAdded];
        let severities = [Severity::Low, Severity::High, Severity::Medium, Severity::Low, Severity::Critical];
        let addresses =
            ["10.0.0.9", "10.0.0.10", "", "9.255.255.255", "2001:db8::1", "255.255.255.255", "::ffff:1.2.3.4"];
        let of = |n: u8, count: usize| usize::from(n) % count;
        let rows: Vec<_> = (1..=60_u8)
            .map(|n| {
                let mut chained = row(n.into(), kinds[of(n, kinds.len())], severities[of(n, severities.len())]);
                chained.row.event.address = addresses[of(n, addresses.len())].parse().ok();
                chained
            })
            .collect();
        store.append_audit(rows.clone()).await.expect("appends");
        for by in [AuditColumn::Time, AuditColumn::Severity, AuditColumn::Kind, AuditColumn::Address] {
            for order in [Order::Ascending, Order::Descending] {
                let mut expected: Vec<_> = rows.iter().map(|chained| chained.row.clone()).collect();
                expected.sort_by_key(|row| {
                    let kind =
                        if by == AuditColumn::Kind { name(&row.event.kind).expect("a name") } else { String::new() };
                    let severity = if by == AuditColumn::Severity { rank(row.event.severity) } else { 0 };
                    // Without one first, then IPv4 by its number, then IPv6 by its text.
                    let address = match row.event.address.filter(|_| by == AuditColumn::Address) {
                        None => (0, 0, String::new()),
                        Some(IpAddr::V4(address)) => (1, address.to_bits(), String::new()),
                        Some(IpAddr::V6(address)) => (2, 0, address.to_string()),
                    };
                    (severity, kind, address, row.sequence)
                });
                if order == Order::Descending {
                    expected.reverse();
                }
                let query = ListAudit { by, order, limit: 7, ..ListAudit::default() };
                let mut forth: Vec<AuditRow> = Vec::new();
                loop {
                    let place = forth.last().map_or(Place::Start, |row| Place::Behind(row.sequence));
                    let page = store.audit_page(ListAudit { place, ..query.clone() }).await.expect("reads");
                    if page.is_empty() {
                        break;
                    }
                    forth.extend(page);
                }
                assert_eq!(forth, expected, "{by:?} {order:?}");
                let mut back = store.audit_page(ListAudit { place: Place::End, ..query.clone() }).await.expect("reads");
                while let Some(first) = back.first().map(|row| row.sequence) {
                    let place = Place::Before(first);
                    let mut page = store.audit_page(ListAudit { place, ..query.clone() }).await.expect("reads");
                    if page.is_empty() {
                        break;
                    }
                    page.append(&mut back);
                    back = page;
                }
                assert_eq!(back, expected, "{by:?} {order:?} from its end");
            }
        }
    }

    /// SPEC §9.4 with a million rows: nothing is sorted, and nothing is read that is not shown.
    #[tokio::test]
    async fn every_page_of_every_order_is_a_part_of_an_index() {
        let (_folder, store) = store();
        let plan = async |sql: String, values: Vec<Value>| {
            let explain = move |connection: &Connection| {
                let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                statement.query_map(params_from_iter(values), |row| row.get::<_, String>("detail"))?.collect()
            };
            let told: Vec<String> = store.database.read("explaining", explain).await.expect("explains");
            told.join("; ")
        };
        for by in [AuditColumn::Severity, AuditColumn::Kind, AuditColumn::Address] {
            for place in [Place::Start, Place::End, Place::Behind(5), Place::Before(5)] {
                for severity in [None, Some(Severity::Medium)] {
                    let query = ListAudit { severity, by, place, ..ListAudit::default() };
                    for (sql, values) in by_column(&query, 100).expect("builds") {
                        let plan = plan(sql, values).await;
                        let own = match by {
                            AuditColumn::Address => "INDEX audit_logs_by_address",
                            AuditColumn::Kind => "INDEX audit_logs_kind",
                            AuditColumn::Severity | AuditColumn::Time => "INDEX audit_logs_severity",
                        };
                        let told = format!("{query:?}: {plan}");
                        assert!(plan.contains(own) && !plan.contains("TEMP B-TREE"), "{told}");
                        let beside = matches!(place, Place::Behind(_) | Place::Before(_));
                        assert!(!beside || plan.starts_with("SEARCH"), "{told}");
                    }
                }
            }
        }
        let query = ListAudit { address: Some("192.0.2.1".parse().expect("address")), ..ListAudit::default() };
        let (conditions, values) = Filter::of(&query).conditions().expect("builds");
        let of_one = plan(format!("SELECT * FROM audit_logs WHERE {}", conditions.join(" AND ")), values).await;
        assert!(of_one.contains("INDEX audit_logs_by_address (<expr>=?"), "{of_one}");
    }

    #[tokio::test]
    async fn an_address_that_somebody_wrote_into_the_file_is_a_text_like_another() {
        let (_folder, store) = store();
        store.append_audit(vec![full_row(1)]).await.expect("appends");
        store.tamper("DROP TRIGGER audit_logs_no_update").await.expect("drops");
        for odd in ["somebody", "1", "1.2.3", "[", "a.b.c.d", ""] {
            store
                .tamper(&format!("UPDATE audit_logs SET address = '{odd}'"))
                .await
                .expect("no index stands in the way");
        }
    }

    #[tokio::test]
    async fn a_text_is_found_wherever_it_lies_and_signs_of_patterns_are_letters() {
        let (_folder, store) = store();
        let count = SCANNED_AT_ONCE * 2 + 10;
        let mut rows: Vec<_> = (1..=count).map(row_numbered).collect();
        for (place, details) in [(3, "100% of it"), (20_003, "a_b"), (40_003, "Needle in capitals"), (7, "a\\b")] {
            rows[place].row.event.details = details.into();
        }
        rows[9].row.event.kind = AuditKind::BlockAdded;
        store.append_audit(rows).await.expect("appends");
        let found = async |text: &str, place, order| {
            let query = ListAudit { text: text.into(), place, order, limit: 2, ..ListAudit::default() };
            store.audit_page(query).await.expect("reads").iter().map(|row| row.sequence).collect::<Vec<_>>()
        };
        let newest = Order::Descending;
        assert_eq!(found("needle", Place::Start, newest).await, [40_004]);
        assert_eq!(found("0%", Place::Start, newest).await, [4], "at the other end of the log");
        assert_eq!(found("0%", Place::Start, Order::Ascending).await, [4]);
        assert_eq!(found("a_b", Place::End, newest).await, [20_004]);
        assert_eq!(found("A\\B", Place::Start, newest).await, [8]);
        assert_eq!(found("row", Place::Behind(3), newest).await, [2, 1]);
        assert_eq!(found("row", Place::Before(3), newest).await, [6, 5], "the nearest");
        assert_eq!(found("nowhere", Place::Start, newest).await, [0; 0]);
        let named = vec![AuditKind::BlockAdded];
        let query = ListAudit { text: "no row holds this".into(), named, ..ListAudit::default() };
        assert_eq!(store.audit_page(query).await.expect("reads").len(), 1, "a kind whose name was meant");
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
