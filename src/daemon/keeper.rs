//! The keeper: brings what happened in memory to the stores, and lifts blocks at their exact time.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::config::table;
use crate::guard::failures::LONGEST_FOR_OWN;
use crate::guard::{Guard, PendingChanges};
use crate::operations::audit_log::retain as retain_audit;
use crate::operations::context::Context;
use crate::operations::keys::store_key_use;
use crate::operations::usage::store_usage;
use crate::operations::{backup, captures, firewall};
use crate::telemetry::captures::Ended;
use crate::telemetry::request_lane::Logged;
use crate::types::address::{BlockEntry, single};
use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::firewall::SshSession;
use crate::types::live::Noun;
use crate::types::text::escape;

/// How often the last use of keys is stored: it is shown to the minute (see `KeyView`).
const KEY_USE: Duration = Duration::from_mins(1);
/// How often usage is stored: what a kill can lose, of reports and of budgets.
const USAGE: Duration = Duration::from_secs(5);
/// How long after a failure it is tried again.
const USAGE_AGAIN: Duration = Duration::from_mins(1);
/// How often the audit log's head is noted in the daemon's log: what a cut of the log can hide at most.
const HEAD: Duration = Duration::from_mins(5);
/// How long after the start the daily backup is thought of.
const FIRST_BACKUP: Duration = Duration::from_mins(10);
/// Least and most time until it is thought of again: a backup by hand puts it off, and so does a failure.
const BACKUP_LOOK: Duration = Duration::from_mins(1);
const BACKUP_AGAIN: Duration = Duration::from_hours(1);
/// How often old rows are rolled up and trimmed.
const TRIM: Duration = Duration::from_hours(1);

/// Lifts blocks when their time has come; sleeps until then.
pub(super) async fn lift_blocks(context: Arc<Context>) {
    let Some(live) = &context.live else { return };
    loop {
        let now = context.clock.wall();
        let (lifted, next) = live.proxy.guard.expire(now);
        if !lifted.is_empty() {
            let networks: Vec<_> = lifted.iter().map(|entry| entry.network).collect();
            told("lifting blocks", context.stores.security.remove_blocks(networks.clone()).await);
            for network in networks {
                let details = format!("block of {network} ran out");
                let event = AuditEvent::new(context.clock.wall(), AuditKind::BlockLifted, Severity::Low, details);
                context.record_event(AuditEvent { address: single(network), ..event }).await;
            }
            context.changed(Noun::Blocklist);
        }
        let Some(next) = next else {
            live.blocks_changed.notified().await;
            continue;
        };
        tokio::select! {
            // A millisecond more, so that the block is over when it is looked at.
            () = sleep(next.since(now) + Duration::from_millis(1)) => {}
            () = live.blocks_changed.notified() => {}
        }
    }
}

/// Least time between two writes of what the guard decided: a flood of wrong keys is written in batches.
const DECISIONS_PACE: Duration = Duration::from_millis(250);

/// Stores what the guard decided as it is decided; the guard's own state is in force already.
pub(super) async fn store_decisions(context: Arc<Context>) {
    let Some(live) = &context.live else { return };
    loop {
        live.proxy.guard.pending_changed().notified().await;
        if store_pending(&context).await {
            live.blocks_changed.notify_one();
            context.changed(Noun::Blocklist);
        }
        sleep(DECISIONS_PACE).await;
    }
}

/// Stores what waits now; answers whether there was a block among it.
pub(super) async fn store_pending(context: &Context) -> bool {
    let Some(live) = &context.live else { return false };
    let PendingChanges { mut blocks, failures } = live.proxy.guard.take_pending();
    let blocked = !blocks.is_empty();
    if blocks.iter().any(|entry| entry.expires.is_none()) {
        spare_operators(context, &live.proxy.guard, &mut blocks).await;
    }
    if blocked {
        told("storing blocks", context.stores.security.put_blocks(blocks).await);
    }
    if !failures.is_empty() {
        told("storing failures", context.stores.security.put_failures(failures).await);
    }
    blocked
}

/// A block for ever lasts a day where somebody is logged in from its network by SSH (SPEC §5.3). Looked at when it is stored, a
/// moment after it came into force: until the day is over the two do not differ, and no request waits for the look.
async fn spare_operators(context: &Context, guard: &Guard, blocks: &mut Vec<BlockEntry>) {
    let own = context.variable("SSH_CONNECTION").as_deref().and_then(SshSession::parse);
    let Ok(peers) = tokio::task::spawn_blocking(move || firewall::ssh_peers(own)).await else { return };
    guard.set_operators(peers.iter().copied().collect());
    for entry in blocks.iter_mut().filter(|entry| entry.expires.is_none()) {
        let Some(peer) = peers.iter().find(|peer| entry.network.contains(*peer)) else { continue };
        entry.expires = Some(entry.created.plus(LONGEST_FOR_OWN));
        guard.shorten(entry);
        let details = format!("{} blocked for a day only: somebody is logged in from {peer} by SSH", entry.network);
        let event = AuditEvent::new(context.clock.wall(), AuditKind::BlockAdded, Severity::High, details);
        context.record_event(AuditEvent { address: Some(*peer), ..event }).await;
    }
    // What was lifted during the look must not come back with the next start.
    blocks.retain(|entry| guard.block(entry.network, entry.created).is_some());
}

/// How long after the end of a countdown the firewall's watchdog is done: a moment, unless another program holds the firewall.
const FIREWALL_LATE: Duration = Duration::from_secs(2);

/// Has it in the audit log what became of rules in the machine's firewall that nobody decided about: they are taken back by a
/// process that knows no home, maybe while no owner lives.
pub(super) async fn note_firewall(context: Arc<Context>) {
    let Some(live) = &context.live else { return };
    loop {
        match firewall::notice(&context).await {
            Ok(Some(until)) => {
                let wait = until.since(context.clock.wall()) + FIREWALL_LATE;
                tokio::select! {
                    () = sleep(wait) => {}
                    () = live.firewall_applied.notified() => {}
                }
            }
            outcome => {
                told("noting what became of the firewall's rules", outcome);
                live.firewall_applied.notified().await;
            }
        }
    }
}

/// Writes ended requests to the request log, in the batches that they come in, until the sender is gone.
pub(super) async fn log_requests(context: Arc<Context>, mut logged: Logged) {
    while let Some(mut batch) = logged.recv().await {
        told("logging requests", context.stores.security.append_requests(batch.take()).await);
    }
}

/// Exchanges whose bodies are stored at once: at most some tens of megabytes.
const CAPTURES_AT_ONCE: usize = 16;
/// Least time between two writes of captured bodies: consoles are told of each.
const CAPTURES_PACE: Duration = Duration::from_millis(250);

/// Stores captured bodies until it is told to end, and then those that are left.
pub(super) async fn store_captures(context: Arc<Context>, mut ended: Ended, ending: CancellationToken) {
    let mut batch = Vec::new();
    let mut lost = 0;
    loop {
        let count = tokio::select! {
            count = ended.recv_many(&mut batch, CAPTURES_AT_ONCE) => count,
            () = ending.cancelled(), if !ended.is_closed() => {
                // No request runs any more: what waits is the last.
                ended.close();
                continue;
            }
        };
        if count == 0 {
            return;
        }
        told("storing captures", captures::store(&context, std::mem::take(&mut batch)).await);
        let now_lost = context.live.as_ref().map_or(0, |live| live.proxy.captures.lost());
        if now_lost > lost {
            lost = now_lost;
            tracing::warn!(total = lost, "the disk is slow: captured exchanges were lost");
        }
        tokio::select! {
            () = sleep(CAPTURES_PACE) => {}
            () = ending.cancelled() => {}
        }
    }
}

/// Stores the last use of keys every minute in which there was any.
pub(super) async fn note_key_use(context: Arc<Context>) {
    loop {
        sleep(KEY_USE).await;
        told("noting the use of keys", store_key_use(&context).await);
    }
}

/// Stores what was used, every few seconds in which there was any.
pub(super) async fn note_usage(context: Arc<Context>) {
    loop {
        sleep(USAGE).await;
        let outcome = store_usage(&context).await;
        let failed = outcome.is_err();
        told("storing usage", outcome);
        if failed {
            // It stays in memory; a full disk is not told of every few seconds.
            sleep(USAGE_AGAIN).await;
        }
    }
}

/// Rolls up and trims once an hour, beginning at once: the owner may have been away for days.
pub(super) async fn trim(context: Arc<Context>) {
    let mut ticks = interval(TRIM);
    loop {
        ticks.tick().await;
        let now = context.clock.wall();
        let settings = context.settings.load();
        let (keep, rows) = (settings.get(table::REQUEST_LOG_KEEP), settings.get(table::REQUEST_LOG_ROWS));
        let (config, security) = (&context.stores.config, &context.stores.security);
        told("rolling up health", config.roll_up_health(now).await);
        told("trimming usage", config.trim_usage(now, settings.get(table::USAGE_KEEP)).await);
        told("forgetting captures", captures::forget_old(&context).await);
        told("trimming requests", security.trim_requests(now, keep, u64::from(rows)).await);
        let window = context.live.as_ref().map(|live| live.proxy.guard.policy().failed_authentication.window_hours);
        let window = Duration::from_secs(window.map_or(24, |hours| u64::from(hours.get())) * 3600);
        told("forgetting failures", security.forget_failures(now.minus(window)).await);
        told("forgetting blocks", security.forget_lifted_blocks(now).await);
        told("forgetting old alerts", security.trim_alerts(now, settings.get(table::ALERTS_KEEP)).await);
        told("archiving audit rows", retain_audit(&context).await);
    }
}

/// Makes a backup a day, unless the setting says no; beginning some minutes after the start, when a day has passed since the
/// last: a start has enough to do.
pub(super) async fn back_up(context: Arc<Context>) {
    sleep(FIRST_BACKUP).await;
    loop {
        let due = backup::next_daily(&context).await.map(|at| at.since(context.clock.wall()));
        let wait = match due {
            Ok(wait) if wait.is_zero() && context.settings.load().get(table::BACKUP_DAILY) => {
                match backup::daily(&context).await {
                    Ok(made) => {
                        tracing::info!(path = %escape(&made.path), "daily backup made");
                        continue;
                    }
                    Err(failure) => {
                        let details = format!("the daily backup could not be made: {}", failure.message);
                        context.record(AuditKind::Maintenance, Severity::High, details).await;
                        told::<(), _>("making the daily backup", Err(failure));
                        BACKUP_AGAIN
                    }
                }
            }
            Ok(wait) => wait.clamp(BACKUP_LOOK, BACKUP_AGAIN),
            Err(failure) => {
                told::<(), _>("looking for the last backup", Err(failure));
                BACKUP_AGAIN
            }
        };
        sleep(wait).await;
    }
}

/// Notes the head of the audit log whenever it moved.
pub(super) async fn note_audit_head(context: Arc<Context>) {
    let mut noted = context.audit.head();
    loop {
        sleep(HEAD).await;
        if context.audit.head() != noted {
            noted = context.audit.head();
            context.audit.note_head(&context.stores.security, context.clock.wall(), "the audit log goes on");
        }
    }
}

/// The keeper goes on after a fault: the next batch may pass.
fn told<T, E: Display>(what: &'static str, result: Result<T, E>) {
    if let Err(error) = result {
        tracing::error!(error = %escape(&error.to_string()), what, "the keeper could not store something");
    }
}
