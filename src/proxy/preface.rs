//! [`PrefaceInTime`]: an HTTP/2 client must have said its whole preface before a deadline. Afterwards hyper's own pings find
//! out who is gone; before, it waits without a timer (SECURITY.md §H, half an h2 preface).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

use super::watched::Watch;

/// Length of `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n` with the head of the SETTINGS frame that must follow (RFC 9113 §3.4).
const PREFACE: usize = 24 + 9;

/// See the head of the file.
pub(super) struct PrefaceInTime {
    /// Bytes that came so far.
    read: usize,
    /// Until the preface is complete.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Set when it did not come in time; read by whoever serves the connection.
    overdue: Arc<AtomicBool>,
}

impl PrefaceInTime {
    pub(super) fn new(within: Duration, overdue: Arc<AtomicBool>) -> Self {
        Self { read: 0, deadline: Some(Box::pin(tokio::time::sleep(within))), overdue }
    }
}

impl Watch for PrefaceInTime {
    fn came(&mut self, bytes: usize) {
        if self.deadline.is_some() {
            self.read += bytes;
            if self.read >= PREFACE {
                self.deadline = None;
            }
        }
    }

    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline.as_mut() else { return Poll::Pending };
        let overdue = deadline.as_mut().poll(cx);
        if overdue.is_ready() {
            self.overdue.store(true, Ordering::Relaxed);
        }
        overdue
    }
}
