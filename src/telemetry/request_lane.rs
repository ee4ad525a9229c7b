//! [`RequestLane`]: the way of ended requests from the collector to the request log on disk.
//!
//! Made by the daemon, which stores what comes out; the collector alone puts in. Never waits: it is bounded by rows, not by
//! batches, so that a flood of short requests takes as little memory as its bound says, and what finds no room is shed, rows of
//! refused requests first.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::types::request::{Progress, RequestEnd, RequestRow};

/// Rows that may wait for the disk: some 2 MB of them. At a thousand requests a second the disk may stand still for four seconds
/// before any is shed.
pub const ROWS_FOR_THE_DISK: usize = 4096;
/// Rows of one batch, which is one page of the log: what is encoded at once.
const BATCH: usize = 1024;

/// Where rows go in.
#[derive(Debug)]
pub struct RequestLane {
    room: Arc<Semaphore>,
    batches: mpsc::Sender<LoggedRows>,
}

/// Where they come out, in batches of at most a thousand or so.
pub type Logged = mpsc::Receiver<LoggedRows>;

/// A batch of rows, oldest first. Their room is free again when this is dropped: once they are on disk.
#[derive(Debug)]
pub struct LoggedRows {
    rows: Vec<Arc<RequestRow>>,
    _room: OwnedSemaphorePermit,
}

impl LoggedRows {
    /// The rows; only once.
    pub fn take(&mut self) -> Vec<Arc<RequestRow>> {
        std::mem::take(&mut self.rows)
    }
}

impl RequestLane {
    /// A lane of so many rows, and its end.
    #[must_use]
    pub fn new(rows: usize) -> (Self, Logged) {
        // No batch is empty, so room for rows is room for batches.
        let (batches, out) = mpsc::channel(rows.clamp(1, Semaphore::MAX_PERMITS));
        (Self { room: Arc::new(Semaphore::new(rows)), batches }, out)
    }

    /// Hands on rows of ended requests; answers how many found no room, or nobody who takes them.
    pub(super) fn offer(&self, mut rows: Vec<Arc<RequestRow>>) -> usize {
        // Only this side takes room, so what is free now is there still when it is taken.
        let shed = rows.len().saturating_sub(self.room.available_permits());
        if shed > 0 {
            let refused = |row: &RequestRow| matches!(row.progress, Progress::Ended { end: RequestEnd::Refused, .. });
            let (room, in_all) = (rows.len() - shed, rows.iter().filter(|row| refused(row)).count());
            // The oldest that were refused stay, in their places.
            let mut nth = 0;
            rows.retain(|row| {
                nth += usize::from(refused(row));
                !refused(row) || nth + shed <= in_all
            });
            rows.truncate(room);
        }
        let mut lost = shed;
        while !rows.is_empty() {
            let rest = rows.split_off(rows.len().min(BATCH));
            let batch = std::mem::replace(&mut rows, rest);
            let count = batch.len();
            let room = u32::try_from(count).ok().and_then(|count| self.room.clone().try_acquire_many_owned(count).ok());
            let sent = room.is_some_and(|room| self.batches.try_send(LoggedRows { rows: batch, _room: room }).is_ok());
            lost += if sent { 0 } else { count };
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::clock::UnixMillis;

    fn rows(ids: std::ops::Range<u32>, end: RequestEnd) -> Vec<Arc<RequestRow>> {
        let progress = Progress::Ended { end, took_us: 1 };
        let row = |id| RequestRow { at: UnixMillis(i64::from(id)), progress, ..RequestRow::example(u128::from(id)) };
        ids.map(|id| Arc::new(row(id))).collect()
    }

    fn times(rows: &[Arc<RequestRow>]) -> Vec<i64> {
        rows.iter().map(|row| row.at.0).collect()
    }

    #[tokio::test]
    async fn rows_have_their_room_until_they_are_on_disk() {
        let (lane, mut out) = RequestLane::new(BATCH + 10);
        assert_eq!(lane.offer(rows(0..1500, RequestEnd::Completed)), 1500 - BATCH - 10);
        let (mut first, mut second) = (out.recv().await.expect("a batch"), out.recv().await.expect("a batch"));
        assert_eq!((first.take().len(), second.take().len()), (BATCH, 10));
        // Taken, but not yet written.
        assert_eq!(lane.offer(rows(0..5, RequestEnd::Completed)), 5);
        drop(second);
        assert_eq!(lane.offer(rows(0..15, RequestEnd::Completed)), 5);
        drop(first);
        assert_eq!(lane.offer(rows(0..15, RequestEnd::Completed)), 0);
    }

    #[tokio::test]
    async fn in_a_flood_refused_requests_are_shed_before_those_that_were_served() {
        let (lane, mut out) = RequestLane::new(3);
        let mut all = rows(0..4, RequestEnd::Refused);
        all.extend(rows(4..6, RequestEnd::Completed));
        assert_eq!(lane.offer(all), 3);
        assert_eq!(times(&out.recv().await.expect("a batch").take()), [0, 4, 5]);
    }

    #[tokio::test]
    async fn rows_that_nobody_takes_are_counted_as_lost() {
        let (lane, out) = RequestLane::new(10);
        drop(out);
        assert_eq!(lane.offer(rows(0..4, RequestEnd::Completed)), 4);
    }
}
