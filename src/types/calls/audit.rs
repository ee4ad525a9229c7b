//! Operations on the audit log (SPEC §2 `flm security audit-logs`, §5.9).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::audit::{AuditKind, AuditRow, Severity};
use crate::types::clock::UnixMillis;

/// Lists rows, newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListAudit {
    /// Only this severity and above.
    pub severity: Option<Severity>,
    /// Only this address.
    pub address: Option<IpAddr>,
    /// Only this kind.
    pub kind: Option<AuditKind>,
    /// Only rows from this time on.
    pub since: Option<UnixMillis>,
    /// Only rows below this number: the key for the next page.
    pub before: Option<u64>,
    /// How many, at most 1000; 0 is 100.
    pub limit: u32,
}
call!(ListAudit, "audit/list", Reads, Vec<AuditRow>);

/// Recomputes the chain over every row.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct VerifyAudit {}
call!(VerifyAudit, "audit/verify", Reads, AuditVerdict);

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditVerdict {
    /// Rows read.
    pub rows: u64,
    /// The first row that does not fit the chain, with the reason; `None` when all fit.
    pub broken_at: Option<(u64, String)>,
}
