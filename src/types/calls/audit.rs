//! Operations on the audit log (SPEC §2 `flm security audit-logs`, §5.9).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::audit::{AuditKind, AuditRow, Severity};
use crate::types::clock::UnixMillis;
use crate::types::order::{Order, Place};

/// What a list of the audit log is sorted by; rows that are equal in it by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditColumn {
    /// Their number, which is the order of time.
    #[default]
    Time,
    /// How much they matter.
    Severity,
    /// Name of the kind as it is stored.
    Kind,
    /// Without an address first, then IPv4 by number, then IPv6 by text.
    Address,
}

/// Lists rows page by page, newest first unless another order is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ListAudit {
    /// Only this severity and above.
    pub severity: Option<Severity>,
    /// Only this address.
    pub address: Option<IpAddr>,
    /// Only this kind.
    pub kind: Option<AuditKind>,
    /// Only rows from this time on.
    pub since: Option<UnixMillis>,
    /// Only rows that hold this text in details, address, endpoint, request id or key (`types::text::mentions`), or that
    /// are of one of [`ListAudit::named`].
    pub text: String,
    /// Kinds whose name, in the language of whoever asks, holds the text.
    pub named: Vec<AuditKind>,
    /// What they are sorted by.
    pub by: AuditColumn,
    /// Which way.
    pub order: Order,
    /// Which page, by the number of a row.
    pub place: Place<u64>,
    /// How many, at most 1000; 0 is 100.
    pub limit: u32,
}
call!(ListAudit, "audit/list", Reads, Vec<AuditRow>);

/// Pages through the log from its oldest row, for exports; rows come with their codes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ExportAudit {
    /// Only rows above this number: the last one of the page before.
    pub after: u64,
    /// Only this severity and above.
    pub severity: Option<Severity>,
    /// Only this address.
    pub address: Option<IpAddr>,
    /// Only this kind.
    pub kind: Option<AuditKind>,
    /// Only rows from this time on.
    pub since: Option<UnixMillis>,
}
call!(ExportAudit, "audit/export", Reads, AuditExport);

/// A page of an export.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuditExport {
    /// The rows that were asked for, oldest first.
    pub rows: Vec<ExportedAudit>,
    /// The newest row that was looked at: where the next page goes on; `None` at the end.
    pub next: Option<u64>,
}

/// A row with its code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ExportedAudit {
    /// The row.
    #[serde(flatten)]
    pub row: AuditRow,
    /// Its code in the chain, hexadecimal.
    pub code: String,
}

/// Replaces rows that are older by an anchor that goes on with the chain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArchiveAudit {
    /// Rows older than this go.
    pub before: UnixMillis,
}
call!(ArchiveAudit, "audit/archive", Destroys, ArchivedAudit);

/// What was archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ArchivedAudit {
    /// Rows that an anchor stands for now.
    pub rows: u64,
    /// The newest of them; 0 when nothing was ever archived.
    pub through: u64,
}

/// Recomputes the chain over every row.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct VerifyAudit {}
call!(VerifyAudit, "audit/verify", Reads, AuditVerdict);

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuditVerdict {
    /// Rows read.
    pub rows: u64,
    /// Rows that anchors stand for.
    pub archived: u64,
    /// Heads kept outside the database (the daemon's log, backups) that the rows were compared with.
    pub heads: u64,
    /// Heads found there that no key of this log signed: changed, or of another home.
    pub foreign_heads: u64,
    /// The first row that does not fit the chain, with the reason; `None` when all fit.
    pub broken_at: Option<(u64, String)>,
    /// How the log fares.
    pub health: AuditHealth,
}

/// How the audit log fares since its owner started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuditHealth {
    /// Events that were shed because the queue was full.
    pub shed: u64,
    /// Events that could not be written before the end, or because the database only reads.
    pub unwritten: u64,
    /// Why the writer cannot write now; it goes on trying.
    pub failing: Option<String>,
}
