//! Reading, exporting, verifying and archiving the audit log (SPEC §5.9).

use std::path::Path;

use super::backup;
use super::context::{Context, blocking_panicked};
use crate::audit::{self, SignedHead};
use crate::config::{files, table};
use crate::telemetry::logging;
use crate::types::audit::{AuditKind, AuditRow, Severity};
use crate::types::calls::audit::{
    ArchiveAudit, ArchivedAudit, AuditExport, AuditVerdict, ExportAudit, ExportedAudit, ListAudit, VerifyAudit,
};
use crate::types::clock::UnixMillis;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::text::hex;

/// Rows answered when the caller names no number, and at most (see `ListAudit`).
const DEFAULT_PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1000;

/// Lists rows, newest first.
pub async fn list(context: &Context, call: ListAudit) -> Outcome<Vec<AuditRow>> {
    let limit = if call.limit == 0 { DEFAULT_PAGE } else { call.limit.min(LARGEST_PAGE) };
    Ok(context.stores.security.audit_page(ListAudit { limit, ..call }).await?)
}

/// The next rows, oldest first, with their codes.
pub async fn export(context: &Context, call: ExportAudit) -> Outcome<AuditExport> {
    let (rows, next) = context.stores.security.audit_export(call, LARGEST_PAGE).await?;
    let rows = rows.into_iter().map(|chained| ExportedAudit { row: chained.row, code: hex(&chained.code) }).collect();
    Ok(AuditExport { rows, next })
}

/// Recomputes the chain over every row, and compares it with the heads in the daemon's log and in the backups.
pub async fn verify(context: &Context, _call: VerifyAudit) -> Outcome<AuditVerdict> {
    let noted = noted_heads(context).await?;
    let verdict = audit::verify(&context.stores.security, Some(context.audit.head()), &noted).await?;
    Ok(AuditVerdict { health: context.audit.health(), ..verdict })
}

/// Heads that were kept outside the database.
async fn noted_heads(context: &Context) -> Outcome<Vec<SignedHead>> {
    let (logs, backups) = (context.paths.log_dir.clone(), context.paths.backups_dir());
    let read = move || {
        let mut heads = heads_in_logs(&logs);
        heads.extend(backup::heads(&backups));
        heads
    };
    tokio::task::spawn_blocking(read).await.map_err(|_| blocking_panicked("reading the heads of the audit log"))
}

fn heads_in_logs(folder: &Path) -> Vec<SignedHead> {
    let mut heads = Vec::new();
    for file in logging::log_files_in(folder) {
        match files::read(&file) {
            Ok(content) => heads.extend(SignedHead::all_in(&String::from_utf8_lossy(&content))),
            // It may be rotated away meanwhile.
            Err(error) => tracing::warn!(%error, "a log file could not be searched for heads of the audit log"),
        }
    }
    heads
}

/// Replaces rows that are older than the given time by anchors.
///
/// # Errors
/// `INVALID_ARGUMENT` for a time to come; of the database.
pub async fn archive(context: &Context, call: ArchiveAudit) -> Outcome<ArchivedAudit> {
    let now = context.clock.wall();
    if call.before > now {
        return Err(Failure::new(ErrorCode::InvalidArgument, "only rows of the past can be archived")
            .hint("name a day that is over, such as --before 2026-01-31, or a span such as --before 90d"));
    }
    let _changing = context.begin_change().await?;
    let store = &context.stores.security;
    // What is about to leave is still told by a head outside the database.
    context.audit.note_head(store, now, "audit rows are archived");
    let rows = audit::archive(store, call.before, now).await?;
    let through = store.audit_anchors().await?.last().map_or(0, |anchor| anchor.through);
    if rows > 0 {
        let details = format!("{rows} audit rows up to number {through} were archived by the operator");
        context.record(AuditKind::Maintenance, Severity::Medium, details).await;
    }
    Ok(ArchivedAudit { rows, through })
}

/// Archives what the settings do not keep: called by the keeper.
///
/// # Errors
/// Of the database.
pub async fn retain(context: &Context) -> Outcome<u64> {
    let settings = context.settings.load();
    let (keep, size) = (settings.get(table::AUDIT_KEEP), settings.get(table::AUDIT_SIZE));
    let _changing = context.begin_change().await?;
    let now: UnixMillis = context.clock.wall();
    let rows = audit::retain(&context.stores.security, keep, size, now).await?;
    if rows > 0 {
        let details = format!("{rows} audit rows were archived: the log keeps audit.keep and audit.size");
        context.record(AuditKind::Maintenance, Severity::Low, details).await;
    }
    Ok(rows)
}
