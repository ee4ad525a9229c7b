//! [`AuditLog`]: the one writer. Numbers rows from the stored head, chains them, commits in batches, tells consoles.
//!
//! Started by the owner of the home. Must never give up while the owner lives: a failing disk is tried again with
//! back-off while the queue sheds its least severe events.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::alerts::Tap;
use super::chain::{Chain, Head};
use super::head::SignedHead;
use super::queue::{CAPACITY, Queue, Waiting};
use super::sink::Sink;
use crate::storage::{ChainedRow, SecurityStore, StorageError};
use crate::telemetry::live::Hub;
use crate::telemetry::tasks::Tasks;
use crate::types::audit::{AuditEvent, AuditKind, AuditRow, Severity};
use crate::types::calls::audit::{AuditHealth, ListAudit};
use crate::types::clock::{Clock, UnixMillis};
use crate::types::live::LiveEvent;
use crate::types::text::redact_keys;

/// Rows of one transaction at most.
pub(super) const BATCH: usize = 512;

/// Least time between two transactions under load; the first event after a pause is written at once.
const PACE: Duration = Duration::from_millis(50);

/// Rows kept in memory for consoles that attach (`types::live::LiveSnapshot`).
const RECENT: usize = 500;

/// Rows of one batch that consoles get as events; in a flood the rest is found by paging. Keeps a flood from pushing
/// engines and requests out of the live ring.
const LIVE_ROWS: usize = 64;

/// First and longest pause before a failed transaction is tried again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Tries for what is left when the owner ends.
const LAST_TRIES: u32 = 3;

/// Longest path and longest line for people that are kept, characters (`types::audit::AuditEvent`).
const LONGEST_ENDPOINT: usize = 256;
const LONGEST_DETAILS: usize = 2_000;

/// The audit log of a running owner. Cloned freely.
#[derive(Clone)]
pub struct AuditLog {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
}

/// What readers see; the writer alone changes it.
struct Shared {
    /// Newest last. Held for a push or a copy, never across an await.
    recent: Mutex<VecDeque<AuditRow>>,
    head: Mutex<Head>,
    /// Where alerts begin.
    tap: Tap,
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLog").field("head", &self.head().sequence).finish_non_exhaustive()
    }
}

impl AuditLog {
    /// Reads the head and the newest rows and starts the writer on the current runtime. It writes what is queued
    /// before it ends with `tasks`: end those before the store is closed.
    ///
    /// # Errors
    /// When head or newest rows cannot be read.
    pub async fn start(store: SecurityStore, hub: Hub, tasks: &Tasks, clock: Clock) -> Result<Self, StorageError> {
        Self::start_with(store, hub, tasks, clock, CAPACITY).await
    }

    async fn start_with(
        store: SecurityStore,
        hub: Hub,
        tasks: &Tasks,
        clock: Clock,
        capacity: usize,
    ) -> Result<Self, StorageError> {
        let head = stored_head(&store).await?;
        let newest = ListAudit { limit: u32::try_from(RECENT).unwrap_or(u32::MAX), ..ListAudit::default() };
        let recent: VecDeque<_> = store.audit_page(newest).await?.into_iter().rev().collect();
        let log = Self {
            queue: Arc::new(Queue::new(capacity)),
            shared: Arc::new(Shared { recent: Mutex::new(recent), head: Mutex::new(head), tap: Tap::default() }),
        };
        let writer = Writer { log: log.clone(), chain: Chain::of(&store), store, hub, clock, head };
        let ending = tasks.ending().clone();
        tasks.spawn("audit writer", writer.run(ending));
        Ok(log)
    }

    /// Where events go.
    #[must_use]
    pub fn sink(&self) -> Sink {
        Sink::new(self.queue.clone())
    }

    /// Where alerts are told of rows that are on disk.
    #[must_use]
    pub fn tap(&self) -> Tap {
        self.shared.tap.clone()
    }

    /// The newest rows, newest first, at most 500.
    #[must_use]
    pub fn recent(&self) -> Vec<AuditRow> {
        self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }

    /// The newest row that is on disk: for verification, backups and the daemon's log.
    #[must_use]
    pub fn head(&self) -> Head {
        *self.shared.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the head, signed, into the daemon's log, so that a cut tail can be told later (SPEC §5.9).
    pub fn note_head(&self, store: &SecurityStore, at: UnixMillis, occasion: &'static str) {
        let head = SignedHead::sign(store, self.head(), at);
        // A target of its own: it is written whatever the log's level.
        tracing::info!(target: "flm::audit::head", %head, "{occasion}");
    }

    /// What was shed or could not be written.
    #[must_use]
    pub fn health(&self) -> AuditHealth {
        self.queue.health()
    }
}

async fn stored_head(store: &SecurityStore) -> Result<Head, StorageError> {
    if let Some(newest) = store.audit_head().await? {
        return Ok(Head { sequence: newest.row.sequence, code: newest.code });
    }
    // Archiving leaves the newest row; if someone took it, the numbers go on all the same.
    let anchor = store.audit_anchors().await?.pop();
    Ok(anchor.map_or_else(Head::default, |anchor| Head { sequence: anchor.through, code: anchor.code }))
}

/// Events that were taken from the queue and must be written together.
struct Batch {
    events: Vec<AuditEvent>,
    waiting: Vec<tokio::sync::oneshot::Sender<()>>,
}

struct Writer {
    log: AuditLog,
    store: SecurityStore,
    chain: Chain,
    hub: Hub,
    clock: Clock,
    head: Head,
}

impl Writer {
    async fn run(mut self, ending: CancellationToken) {
        self.log.note_head(&self.store, self.clock.wall(), "the audit log begins");
        loop {
            tokio::select! {
                () = self.log.queue.filled.notified() => {}
                () = ending.cancelled() => break,
            }
            while let Some(batch) = self.take() {
                self.write(batch, &ending).await;
                if ending.is_cancelled() {
                    break;
                }
                if self.log.queue.length() < BATCH {
                    // Lets a batch fill up, unless someone waits for it.
                    tokio::select! {
                        () = tokio::time::sleep(PACE) => {}
                        () = self.log.queue.urgent.notified() => {}
                        () = ending.cancelled() => {}
                    }
                }
            }
        }
        while let Some(batch) = self.take() {
            self.write(batch, &ending).await;
        }
        self.log.queue.close();
        self.log.note_head(&self.store, self.clock.wall(), "the audit log ends");
    }

    /// The next batch; an own row tells what was shed before it.
    fn take(&self) -> Option<Batch> {
        let (taken, shed) = self.log.queue.take(BATCH);
        let mut batch = Batch { events: Vec::with_capacity(taken.len() + 1), waiting: Vec::new() };
        for Waiting { mut event, written } in taken {
            if let Some(endpoint) = &mut event.endpoint {
                cut(endpoint, LONGEST_ENDPOINT);
                redact(endpoint);
            }
            cut(&mut event.details, LONGEST_DETAILS);
            redact(&mut event.details);
            batch.events.push(event);
            batch.waiting.extend(written);
        }
        if shed > 0 {
            let details =
                format!("{shed} security events were not recorded: the queue was full; the least severe went first");
            batch.events.push(AuditEvent::new(self.clock.wall(), AuditKind::Maintenance, Severity::High, details));
        }
        (!batch.events.is_empty()).then_some(batch)
    }

    /// Writes a batch, trying again until it is on disk or the owner ends.
    async fn write(&mut self, batch: Batch, ending: &CancellationToken) {
        let mut pause = BACK_OFF.0;
        let mut tries = 0;
        let mut rows = self.chained(&batch.events);
        loop {
            let Err(error) = self.store.append_audit(rows.clone()).await else { break };
            tries += 1;
            let first_failure = self.log.queue.health().failing.is_none();
            self.log.queue.set_failing(Some(error.to_string()));
            if first_failure {
                tracing::error!(%error, rows = rows.len(), "the audit log cannot be written; trying again");
                self.alert_of_failure(&error);
            }
            let hopeless = self.store.read_only().is_some() || matches!(error, StorageError::Closed { .. });
            if hopeless || (ending.is_cancelled() && tries >= LAST_TRIES) {
                // Consoles still see them, numbered on; the health tells that they are not on disk.
                self.log.queue.count_unwritten(batch.events.len());
                if let Some(last) = rows.last() {
                    self.head = Head { sequence: last.row.sequence, code: last.code };
                }
                self.tell(&rows);
                return;
            }
            if !ending.is_cancelled() {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = ending.cancelled() => {}
                }
            }
            pause = (pause * 2).min(BACK_OFF.1);
            // A transaction that failed to say so may have been kept, and a head that moved needs new numbers.
            match stored_head(&self.store).await {
                Ok(head) if rows.last().is_some_and(|last| last.code == head.code) => break,
                Ok(head) if head != self.head => {
                    self.head = head;
                    rows = self.chained(&batch.events);
                }
                Ok(_) | Err(_) => {}
            }
        }
        if let Some(last) = rows.last() {
            self.head = Head { sequence: last.row.sequence, code: last.code };
            *self.log.shared.head.lock().unwrap_or_else(PoisonError::into_inner) = self.head;
        }
        if self.log.queue.health().failing.is_some() {
            tracing::info!("the audit log is written again");
            self.log.queue.set_failing(None);
        }
        self.tell(&rows);
        for written in batch.waiting {
            // Whoever recorded it may have stopped waiting.
            let _caller_gone = written.send(());
        }
    }

    /// Nobody may miss that the log stands still, so this one alert does not come out of the log. Once per failure.
    fn alert_of_failure(&self, error: &StorageError) {
        let details = format!("the audit log cannot be written: {error}");
        let event = AuditEvent::new(self.clock.wall(), AuditKind::Maintenance, Severity::Critical, details);
        self.log.shared.tap.offer(std::iter::once(&AuditRow { sequence: 0, event }));
    }

    fn chained(&self, events: &[AuditEvent]) -> Vec<ChainedRow> {
        let mut last = self.head;
        let mut rows = Vec::with_capacity(events.len());
        for event in events {
            let row = AuditRow { sequence: last.sequence + 1, event: event.clone() };
            let code = self.chain.code(&last.code, &row);
            last = Head { sequence: row.sequence, code };
            rows.push(ChainedRow { row, code });
        }
        rows
    }

    /// Puts rows where alerts and consoles see them: first into what snapshots hold, then onto the live lane.
    fn tell(&self, rows: &[ChainedRow]) {
        self.log.shared.tap.offer(rows.iter().map(|chained| &chained.row));
        {
            let mut recent = self.log.shared.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.extend(rows.iter().map(|chained| chained.row.clone()));
            let surplus = recent.len().saturating_sub(RECENT);
            recent.drain(..surplus);
        }
        if self.hub.listeners() == 0 {
            return;
        }
        let mut low_left_out = rows.len().saturating_sub(LIVE_ROWS);
        for chained in rows {
            if low_left_out > 0 && chained.row.event.severity == Severity::Low {
                low_left_out -= 1;
                continue;
            }
            self.hub.publish(LiveEvent::Audit(Box::new(chained.row.clone())));
        }
    }
}

/// A key that somebody put into a path must not outlive its request (SECURITY.md, case 7).
fn redact(text: &mut String) {
    if let Cow::Owned(redacted) = redact_keys(text) {
        *text = redacted;
    }
}

fn cut(text: &mut String, characters: usize) {
    if let Some((end, _)) = text.char_indices().nth(characters) {
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Acknowledgement, verify};
    use crate::telemetry::live::Delivery;
    use crate::telemetry::tasks::ShutdownEnd;

    const PATIENCE: Duration = Duration::from_secs(20);

    struct Owner {
        _folder: tempfile::TempDir,
        paths: (std::path::PathBuf, std::path::PathBuf),
        store: SecurityStore,
        hub: Hub,
        tasks: Tasks,
        log: AuditLog,
    }

    impl Owner {
        async fn new(capacity: usize) -> Self {
            let folder = tempfile::tempdir().expect("folder");
            let paths = (folder.path().join("security.db"), folder.path().join("security.key"));
            let store = SecurityStore::open(&paths.0, &paths.1).expect("opens");
            let (hub, tasks) = (Hub::new(), Tasks::new());
            let log =
                AuditLog::start_with(store.clone(), hub.clone(), &tasks, clock(), capacity).await.expect("starts");
            Self { _folder: folder, paths, store, hub, tasks, log }
        }

        async fn restart(&mut self) {
            assert_eq!(self.tasks.shutdown(PATIENCE).await, ShutdownEnd::Clean);
            self.store.close().await.expect("closes");
            self.store = SecurityStore::open(&self.paths.0, &self.paths.1).expect("opens");
            self.tasks = Tasks::new();
            self.log =
                AuditLog::start(self.store.clone(), self.hub.clone(), &self.tasks, clock()).await.expect("starts");
        }

        async fn verdict(&self) -> (u64, Option<u64>) {
            let verdict = verify(&self.store, Some(self.log.head()), &[]).await.expect("verifies");
            (verdict.rows, verdict.broken_at.map(|(at, _)| at))
        }

        /// Lets someone with the key past the triggers.
        async fn tamper(&self, sql: &str) {
            for trigger in ["no_update", "no_delete", "no_gap"] {
                self.store.tamper(&format!("DROP TRIGGER IF EXISTS audit_logs_{trigger}")).await.expect("drops");
            }
            self.store.tamper(&format!("PRAGMA ignore_check_constraints = ON; {sql}")).await.expect(sql);
        }
    }

    fn clock() -> Clock {
        Clock::stepped(UnixMillis(1_000))
    }

    fn event(details: &str) -> AuditEvent {
        let mut event = AuditEvent::new(UnixMillis(5), AuditKind::RuleHit, Severity::Low, details);
        event.address = Some("192.0.2.1".parse().expect("address"));
        event.endpoint = Some("/v1/models".into());
        event.status = Some(403);
        event
    }

    /// Waits for a condition, looking again whenever a row was written.
    async fn until(what: &str, condition: impl Fn() -> bool) {
        let waiting = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited for {what}"));
    }

    #[tokio::test]
    async fn an_acknowledged_event_is_on_disk_in_memory_and_on_the_live_lane() {
        let owner = Owner::new(CAPACITY).await;
        let mut live = owner.hub.subscribe();
        assert_eq!(owner.log.sink().record_acknowledged(event("key revoked")).await, Acknowledgement::Written);
        let stored = owner.store.audit_head().await.expect("reads").expect("a row");
        assert_eq!((stored.row.sequence, stored.row.event.clone()), (1, event("key revoked")));
        assert_eq!(owner.log.head(), Head { sequence: 1, code: stored.code });
        let Delivery::Event(delivered) = live.next().await else { panic!("an event") };
        assert_eq!(*delivered.event, LiveEvent::Audit(Box::new(stored.row.clone())));
        assert_eq!(owner.log.recent(), [stored.row]);
    }

    #[tokio::test]
    async fn the_chain_goes_on_after_a_restart() {
        let mut owner = Owner::new(CAPACITY).await;
        for number in 0..3 {
            owner.log.sink().record(event(&format!("first run {number}")));
        }
        // Ending writes what is queued.
        owner.restart().await;
        assert_eq!(owner.log.head().sequence, 3);
        assert_eq!(owner.log.recent()[0].event.details, "first run 2");
        owner.log.sink().record_acknowledged(event("second run")).await;
        assert_eq!(owner.verdict().await, (4, None));
    }

    #[tokio::test]
    async fn a_flood_is_written_in_order_and_memory_keeps_the_newest_500() {
        let owner = Owner::new(CAPACITY).await;
        let mut live = owner.hub.subscribe();
        for number in 0..2_000 {
            owner.log.sink().record(event(&number.to_string()));
        }
        owner.log.sink().record_acknowledged(event("last")).await;
        assert_eq!(owner.verdict().await, (2_001, None));
        let rows = owner.store.audit_after(1_998, 10).await.expect("reads");
        let details: Vec<_> = rows.iter().map(|chained| chained.row.event.details.as_str()).collect();
        assert_eq!(details, ["1998", "1999", "last"]);
        until("the newest rows in memory", || owner.log.recent()[0].event.details == "last").await;
        assert_eq!(owner.log.recent().len(), RECENT);
        assert_eq!(owner.log.health(), AuditHealth::default());
        // Consoles get a part of a flood, and its end.
        let mut delivered = 0;
        loop {
            let Delivery::Event(numbered) = live.next().await else { panic!("an event") };
            delivered += 1;
            let LiveEvent::Audit(row) = &*numbered.event else { panic!("an audit row") };
            if row.event.details == "last" {
                break;
            }
        }
        assert!(delivered < 1_000, "{delivered}");
    }

    /// Case 43.
    #[tokio::test]
    async fn verification_names_the_row_that_was_changed_whatever_was_changed_in_it() {
        for change in [
            "at = at + 1",
            "kind = 'key_changed'",
            "kind = 'no kind'",
            "severity = 2",
            "severity = 9",
            "request_id = 'req_00000000000000000000'",
            "address = '192.0.2.2'",
            "address = NULL",
            "address = 'nobody'",
            "key = 'Ab12Cd34'",
            "endpoint = ''",
            "engine = 'ollama'",
            "status = 200",
            "latency_ms = 0",
            "details = details || ' '",
            "code = zeroblob(32)",
            "code = x'00'",
        ] {
            let owner = Owner::new(CAPACITY).await;
            for number in 1..=4 {
                owner.log.sink().record(event(&number.to_string()));
            }
            owner.log.sink().record_acknowledged(event("5")).await;
            assert_eq!(owner.verdict().await, (5, None));
            owner.tamper(&format!("UPDATE audit_logs SET {change} WHERE sequence = 3")).await;
            assert_eq!(owner.verdict().await, (2, Some(3)), "{change}");
        }
    }

    #[tokio::test]
    async fn verification_finds_gaps_swaps_a_cut_tail_and_an_emptied_log() {
        for (change, expected) in [
            ("DELETE FROM audit_logs WHERE sequence = 2", (1, Some(2))),
            ("DELETE FROM audit_logs WHERE sequence = 1", (0, Some(1))),
            ("DELETE FROM audit_logs WHERE sequence > 3", (3, Some(4))),
            ("DELETE FROM audit_logs", (0, Some(1))),
            (
                "DELETE FROM audit_logs WHERE sequence = 2;
                 UPDATE audit_logs SET sequence = 2 WHERE sequence = 3;
                 UPDATE audit_logs SET sequence = 3 WHERE sequence = 4;
                 UPDATE audit_logs SET sequence = 4 WHERE sequence = 5",
                (1, Some(2)),
            ),
        ] {
            let owner = Owner::new(CAPACITY).await;
            for number in 1..=4 {
                owner.log.sink().record(event(&number.to_string()));
            }
            owner.log.sink().record_acknowledged(event("5")).await;
            owner.tamper(change).await;
            assert_eq!(owner.verdict().await, expected, "{change}");
        }
    }

    /// Case 42.
    #[tokio::test]
    async fn a_full_disk_is_tried_again_and_nothing_is_lost_or_doubled() {
        let owner = Owner::new(CAPACITY).await;
        owner.log.sink().record_acknowledged(event("before")).await;
        owner.store.tamper("PRAGMA max_page_count = 1").await.expect("limits");
        for number in 0..300 {
            owner.log.sink().record(event(&format!("{number} {}", "x".repeat(1_000))));
        }
        until("a failure", || owner.log.health().failing.is_some()).await;
        assert!(owner.log.health().failing.expect("told").contains("no space"));
        owner.log.sink().record(event("meanwhile"));
        owner.store.tamper("PRAGMA max_page_count = 1000000").await.expect("space again");
        until("recovery", || owner.log.head().sequence == 302).await;
        assert_eq!(owner.verdict().await, (302, None));
        until("all clear", || owner.log.health() == AuditHealth::default()).await;
    }

    #[tokio::test]
    async fn a_store_that_only_reads_keeps_events_in_memory_and_counts_them() {
        let mut owner = Owner::new(CAPACITY).await;
        owner.log.sink().record_acknowledged(event("before")).await;
        assert_eq!(owner.tasks.shutdown(PATIENCE).await, ShutdownEnd::Clean);
        owner.store.close().await.expect("closes");
        owner.store = SecurityStore::open_after_failed_migration(&owner.paths.0, &owner.paths.1);
        let tasks = Tasks::new();
        let log = AuditLog::start(owner.store.clone(), owner.hub.clone(), &tasks, clock()).await.expect("starts");
        for details in ["first", "second"] {
            assert_eq!(log.sink().record_acknowledged(event(details)).await, Acknowledgement::Waiting);
        }
        let seen: Vec<_> = log.recent().into_iter().map(|row| (row.sequence, row.event.details)).collect();
        assert_eq!(seen, [(3, "second".to_owned()), (2, "first".to_owned()), (1, "before".to_owned())]);
        assert_eq!((log.health().unwritten, log.head().sequence), (2, 1));
        assert!(log.health().failing.expect("told").contains("read-only"));
        assert_eq!(tasks.shutdown(PATIENCE).await, ShutdownEnd::Clean);
        assert_eq!(log.sink().record_acknowledged(event("after the end")).await, Acknowledgement::Waiting);
    }

    #[tokio::test]
    async fn what_was_shed_is_told_by_a_row_of_its_own() {
        let owner = Owner::new(4).await;
        // The writer shares this thread, so it cannot take anything before the first await.
        for number in 0..10 {
            owner.log.sink().record(event(&number.to_string()));
        }
        until("the rows", || owner.log.head().sequence == 5).await;
        assert_eq!(owner.log.health().shed, 6);
        let told = owner.store.audit_head().await.expect("reads").expect("a row").row.event;
        assert_eq!((told.kind, told.at), (AuditKind::Maintenance, UnixMillis(1_000)));
        assert!(told.details.starts_with("6 security events"), "{}", told.details);
        assert_eq!(owner.verdict().await, (5, None));
    }

    #[tokio::test]
    async fn long_outside_text_is_cut() {
        let owner = Owner::new(CAPACITY).await;
        let mut long = event(&"é".repeat(5_000));
        long.endpoint = Some(format!("/{}", "a".repeat(9_000)));
        owner.log.sink().record_acknowledged(long).await;
        let row = &owner.log.recent()[0];
        assert_eq!(row.event.endpoint.as_deref().map(str::len), Some(LONGEST_ENDPOINT));
        assert_eq!(row.event.details.chars().count(), LONGEST_DETAILS);
    }
}
