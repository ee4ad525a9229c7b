//! Reading and verifying the audit log (SPEC §5.9).

use super::context::Context;
use crate::audit;
use crate::types::audit::AuditRow;
use crate::types::calls::audit::{AuditVerdict, ListAudit, VerifyAudit};
use crate::types::failure::Outcome;

/// Rows answered when the caller names no number, and at most (see `ListAudit`).
const DEFAULT_PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1000;

/// Lists rows, newest first.
pub async fn list(context: &Context, call: ListAudit) -> Outcome<Vec<AuditRow>> {
    let limit = if call.limit == 0 { DEFAULT_PAGE } else { call.limit.min(LARGEST_PAGE) };
    Ok(context.stores.security.audit_page(ListAudit { limit, ..call }).await?)
}

/// Recomputes the chain over every row.
pub async fn verify(context: &Context, _call: VerifyAudit) -> Outcome<AuditVerdict> {
    Ok(audit::verify(&context.stores.security, Some(context.audit.head())).await?)
}
