//! Archiving: old rows leave the log for a chained anchor, and by no other way (SPEC §5.9).
//!
//! Called by `operations` for the command and by the keeper for the retention.

use std::time::Duration;

use super::chain::{Chain, GENESIS};
use crate::storage::{AuditAnchor, SecurityStore, StorageError};
use crate::types::clock::UnixMillis;

/// Rows that one anchor takes at most, so that the writer never waits long behind one transaction.
const SEGMENT: u64 = 20_000;

/// Replaces the oldest rows by anchors, as far as they are older than `before`; answers how many rows. The newest row
/// always stays. Each anchor is one transaction; what was done before an error stays done.
///
/// # Errors
/// Of the database.
pub async fn archive(store: &SecurityStore, before: UnixMillis, now: UnixMillis) -> Result<u64, StorageError> {
    let mut archived = 0;
    while let Some(rows) = archive_segment(store, before, now).await? {
        archived += rows;
    }
    Ok(archived)
}

/// Archives what is older than `keep`, and then the oldest until the log is not larger than `size` bytes, as far as
/// its size can be told from its newest rows; answers how many rows.
///
/// # Errors
/// Of the database.
pub async fn retain(store: &SecurityStore, keep: Duration, size: u64, now: UnixMillis) -> Result<u64, StorageError> {
    let mut archived = archive(store, now.minus(keep), now).await?;
    loop {
        let log = store.audit_size().await?;
        if log.bytes <= size || log.rows <= 1 {
            return Ok(archived);
        }
        match archive_segment(store, UnixMillis(i64::MAX), now).await? {
            Some(rows) => archived += rows,
            None => return Ok(archived),
        }
    }
}

async fn archive_segment(
    store: &SecurityStore,
    before: UnixMillis,
    now: UnixMillis,
) -> Result<Option<u64>, StorageError> {
    let Some(segment) = store.audit_segment(before, SEGMENT).await? else { return Ok(None) };
    let previous = store.audit_anchors().await?.last().map_or(GENESIS, |anchor| anchor.seal);
    let mut anchor = AuditAnchor { made: now, ..segment };
    anchor.seal = Chain::of(store).seal(&previous, &anchor);
    let rows = anchor.through - anchor.first + 1;
    store.put_audit_anchor(anchor).await?;
    Ok(Some(rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{AuditLog, Head, SignedHead, verify};
    use crate::telemetry::live::Hub;
    use crate::telemetry::tasks::Tasks;
    use crate::types::audit::{AuditEvent, AuditKind, Severity};
    use crate::types::calls::audit::AuditVerdict;
    use crate::types::clock::Clock;

    struct Log {
        _folder: tempfile::TempDir,
        store: SecurityStore,
        _tasks: Tasks,
        writer: AuditLog,
    }

    impl Log {
        /// Ten rows; row n happened at n.
        async fn new() -> Self {
            let folder = tempfile::tempdir().expect("folder");
            let store =
                SecurityStore::open(&folder.path().join("security.db"), &folder.path().join("key")).expect("opens");
            let tasks = Tasks::new();
            let clock = Clock::stepped(UnixMillis(0));
            let writer = AuditLog::start(store.clone(), Hub::new(), &tasks, clock).await.expect("starts");
            let log = Self { _folder: folder, store, _tasks: tasks, writer };
            for number in 1..=10 {
                log.row(number, AuditKind::RuleHit).await;
            }
            log
        }

        async fn row(&self, at: i64, kind: AuditKind) {
            let event = AuditEvent::new(UnixMillis(at), kind, Severity::Low, format!("row {at}"));
            self.writer.sink().record_acknowledged(event).await;
        }

        async fn verdict(&self, noted: &[SignedHead]) -> AuditVerdict {
            verify(&self.store, Some(self.writer.head()), noted).await.expect("verifies")
        }

        fn signed(&self, at: i64) -> SignedHead {
            SignedHead::sign(&self.store, self.writer.head(), UnixMillis(at))
        }

        async fn tamper(&self, sql: &str) {
            for trigger in ["logs_no_update", "logs_no_delete", "logs_no_gap", "anchors_no_update", "anchors_no_delete"]
            {
                self.store.tamper(&format!("DROP TRIGGER IF EXISTS audit_{trigger}")).await.expect("drops");
            }
            self.store.tamper(sql).await.expect(sql);
        }
    }

    #[tokio::test]
    async fn old_rows_leave_for_an_anchor_and_the_chain_goes_on() {
        let log = Log::new().await;
        assert_eq!(archive(&log.store, UnixMillis(4), UnixMillis(20)).await.expect("archives"), 3);
        assert_eq!(archive(&log.store, UnixMillis(4), UnixMillis(20)).await.expect("nothing left"), 0);
        assert_eq!(archive(&log.store, UnixMillis(7), UnixMillis(21)).await.expect("archives"), 3);
        log.row(11, AuditKind::RuleHit).await;
        let verdict = log.verdict(&[]).await;
        assert_eq!((verdict.rows, verdict.archived, verdict.broken_at), (5, 6, None));
        let anchors = log.store.audit_anchors().await.expect("reads");
        let ranges: Vec<_> = anchors.iter().map(|a| (a.first, a.through, a.oldest.0, a.newest.0, a.made.0)).collect();
        assert_eq!(ranges, [(1, 3, 1, 3, 20), (4, 6, 4, 6, 21)]);
    }

    #[tokio::test]
    async fn a_row_that_is_young_keeps_what_comes_after_it_and_the_newest_row_stays() {
        let log = Log::new().await;
        // The clock had gone back: row 11 happened "before" row 3.
        log.row(0, AuditKind::RuleHit).await;
        assert_eq!(archive(&log.store, UnixMillis(3), UnixMillis(20)).await.expect("archives"), 2);
        assert_eq!(archive(&log.store, UnixMillis(i64::MAX), UnixMillis(20)).await.expect("archives"), 8);
        let verdict = log.verdict(&[]).await;
        assert_eq!((verdict.rows, verdict.archived, verdict.broken_at), (1, 10, None));
    }

    #[tokio::test]
    async fn retention_keeps_age_and_size() {
        let log = Log::new().await;
        let keep = Duration::from_millis(15);
        assert_eq!(retain(&log.store, keep, u64::MAX, UnixMillis(20)).await.expect("retains"), 4);
        assert_eq!(retain(&log.store, Duration::MAX, 1, UnixMillis(20)).await.expect("retains"), 5);
        assert_eq!(log.store.audit_size().await.expect("measures").rows, 1);
        assert_eq!(log.verdict(&[]).await.broken_at, None);
    }

    #[tokio::test]
    async fn only_an_anchor_lets_rows_leave_and_it_must_fit() {
        let log = Log::new().await;
        let segment = log.store.audit_segment(UnixMillis(5), 100).await.expect("reads").expect("a segment");
        for wrong in [
            AuditAnchor { first: 2, ..segment.clone() },
            AuditAnchor { through: 99, ..segment.clone() },
            AuditAnchor { code: [7; 32], ..segment.clone() },
        ] {
            let error = log.store.put_audit_anchor(wrong).await.expect_err("does not fit");
            assert!(matches!(error, StorageError::Conflict { .. }), "{error}");
        }
        assert_eq!(log.store.audit_after(0, 100).await.expect("reads").len(), 10);
        log.store.put_audit_anchor(segment).await.expect("fits");
        for sql in [
            "DELETE FROM audit_anchors",
            "UPDATE audit_anchors SET made = 0",
            "DELETE FROM audit_logs WHERE sequence = 5",
            "INSERT INTO audit_logs SELECT 2, at, kind, severity, request_id, address, key, endpoint, engine, status,
                 latency_ms, details, code FROM audit_logs LIMIT 1",
        ] {
            let error = log.store.tamper(sql).await.expect_err(sql);
            assert!(matches!(error, StorageError::Conflict { .. }), "{sql}: {error}");
        }
    }

    #[tokio::test]
    async fn verification_finds_every_change_of_an_anchor() {
        for (change, at) in [
            ("UPDATE audit_anchors SET made = made + 1 WHERE through = 3", 1),
            ("UPDATE audit_anchors SET oldest = 0 WHERE through = 3", 1),
            ("UPDATE audit_anchors SET newest = newest + 1 WHERE through = 6", 4),
            ("UPDATE audit_anchors SET code = zeroblob(32) WHERE through = 6", 4),
            ("DELETE FROM audit_anchors WHERE through = 3", 4),
            // Nothing stands for rows 4 to 6 any more.
            ("DELETE FROM audit_anchors WHERE through = 6", 4),
            ("DELETE FROM audit_logs WHERE sequence = 7", 7),
            ("DELETE FROM audit_logs WHERE sequence > 8", 9),
            ("DELETE FROM audit_logs", 7),
        ] {
            let log = Log::new().await;
            archive(&log.store, UnixMillis(4), UnixMillis(20)).await.expect("archives");
            archive(&log.store, UnixMillis(7), UnixMillis(21)).await.expect("archives");
            log.tamper(change).await;
            assert_eq!(log.verdict(&[]).await.broken_at.map(|(at, _)| at), Some(at), "{change}");
        }
    }

    #[tokio::test]
    async fn an_archive_that_is_cut_off_leaves_the_log_as_it_was() {
        let log = Log::new().await;
        // Fails within the statement that puts the anchor in: in the middle of its deletions.
        log.store
            .tamper(
                "CREATE TRIGGER break_it BEFORE DELETE ON audit_logs WHEN OLD.sequence = 3
                 BEGIN SELECT RAISE(ABORT, 'no power'); END",
            )
            .await
            .expect("prepares");
        archive(&log.store, UnixMillis(9), UnixMillis(20)).await.expect_err("is cut off");
        assert_eq!((log.verdict(&[]).await.rows, log.store.audit_anchors().await.expect("reads").len()), (10, 0));
        log.store.tamper("DROP TRIGGER break_it").await.expect("power again");
        assert_eq!(archive(&log.store, UnixMillis(9), UnixMillis(20)).await.expect("archives"), 8);
        assert_eq!(log.verdict(&[]).await.broken_at, None);
    }

    #[tokio::test]
    async fn a_cut_tail_shows_by_a_head_that_was_kept_outside() {
        let log = Log::new().await;
        let noted: SignedHead = log.signed(10).to_string().parse().expect("survives as text");
        assert_eq!(log.verdict(std::slice::from_ref(&noted)).await.heads, 1);
        log.tamper("DELETE FROM audit_logs WHERE sequence > 6").await;
        // As after a restart: the writer knows only what it found.
        let verdict = verify(&log.store, None, std::slice::from_ref(&noted)).await.expect("verifies");
        assert_eq!(verdict.broken_at.expect("cut").0, 7);
        let verdict = verify(&log.store, None, &[]).await.expect("verifies");
        assert_eq!(verdict.broken_at, None, "without the head nothing tells");

        // A log that was cut and written on in the same length.
        let mut forged = noted.clone();
        forged.head.code = [1; 32];
        let verdict = verify(&log.store, None, &[forged]).await.expect("verifies");
        assert_eq!((verdict.foreign_heads, verdict.broken_at), (1, None), "whoever changes a head is told from it");
    }

    #[tokio::test]
    async fn heads_of_a_log_that_a_backup_replaced_are_no_cut() {
        let log = Log::new().await;
        let later = |sequence, at| SignedHead::sign(&log.store, Head { sequence, code: [9; 32] }, UnixMillis(at));
        // Of the replaced log, which had gone further.
        let replaced = [later(11, 11), later(25, 12), later(12, 13)];
        log.row(13, AuditKind::Restored).await;
        log.row(14, AuditKind::RuleHit).await;
        assert_eq!(log.verdict(&replaced).await.broken_at, None);
        // Noted after the restoration, so it is of this log.
        assert_eq!(log.verdict(&[later(25, 14)]).await.broken_at.expect("cut").0, 13);
        archive(&log.store, UnixMillis(14), UnixMillis(30)).await.expect("archives");
        assert_eq!(log.verdict(&replaced).await.broken_at, None, "the row that told it is archived");
    }
}
