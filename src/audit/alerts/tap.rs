//! [`Tap`]: where the audit log's writer hands rows over to the alerts. Never waits.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use crate::types::audit::{AuditRow, Severity};

/// Batches that may wait for the dispatcher, each of at most one transaction's rows.
const BATCHES: usize = 16;

/// The writer's end, shared with whoever connects the other one. Cloned freely.
#[derive(Debug, Clone, Default)]
pub struct Tap(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Set once, by the dispatcher.
    batches: OnceLock<mpsc::Sender<Vec<AuditRow>>>,
    /// The least severity that any channel wants, so that a flood of lesser rows costs nothing; 0 until it is known.
    least: AtomicU8,
    /// Rows that did not fit.
    missed: AtomicU64,
}

impl Tap {
    /// Connects the dispatcher; `None` when one is connected already.
    pub(super) fn connect(&self) -> Option<mpsc::Receiver<Vec<AuditRow>>> {
        let (sender, receiver) = mpsc::channel(BATCHES);
        self.0.batches.set(sender).ok().map(|()| receiver)
    }

    /// Says from which severity on rows are wanted.
    pub(super) fn want(&self, least: Option<Severity>) {
        self.0.least.store(least.map_or(u8::MAX, rank), Ordering::Relaxed);
    }

    /// Takes how many wanted rows did not fit since the last call.
    pub(super) fn take_missed(&self) -> u64 {
        self.0.missed.swap(0, Ordering::Relaxed)
    }

    /// Hands rows over. What nobody wants is left out, and what does not fit is counted.
    pub(in crate::audit) fn offer<'a>(&self, rows: impl Iterator<Item = &'a AuditRow>) {
        let Some(batches) = self.0.batches.get() else { return };
        let least = self.0.least.load(Ordering::Relaxed);
        let wanted: Vec<AuditRow> = rows.filter(|row| rank(row.event.severity) >= least).cloned().collect();
        if wanted.is_empty() {
            return;
        }
        let count = wanted.len() as u64;
        if batches.try_send(wanted).is_err() {
            self.0.missed.fetch_add(count, Ordering::Relaxed);
        }
    }
}

fn rank(severity: Severity) -> u8 {
    match severity {
        Severity::Low => 1,
        Severity::Medium => 2,
        Severity::High => 3,
        Severity::Critical => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::audit::{AuditEvent, AuditKind};
    use crate::types::clock::UnixMillis;

    fn row(severity: Severity) -> AuditRow {
        AuditRow { sequence: 1, event: AuditEvent::new(UnixMillis(1), AuditKind::RuleHit, severity, "x") }
    }

    #[tokio::test]
    async fn what_does_not_fit_is_counted_and_what_nobody_wants_is_left_out() {
        let tap = Tap::default();
        tap.offer([row(Severity::Critical)].iter());
        let mut batches = tap.connect().expect("the first");
        assert!(tap.connect().is_none());
        tap.want(Some(Severity::High));
        tap.offer([row(Severity::Low), row(Severity::High)].iter());
        tap.offer([row(Severity::Medium)].iter());
        assert_eq!(batches.recv().await.map(|batch| batch.len()), Some(1));
        for _ in 0..BATCHES + 2 {
            tap.offer([row(Severity::Critical), row(Severity::Critical)].iter());
        }
        assert_eq!((tap.take_missed(), tap.take_missed()), (4, 0));
        tap.want(None);
        while batches.try_recv().is_ok() {}
        tap.offer([row(Severity::Critical)].iter());
        assert!(batches.try_recv().is_err(), "no channel wants anything");
    }
}
