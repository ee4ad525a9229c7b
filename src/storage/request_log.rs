//! Table `request_log`: requests that ended, without bodies (SPEC §10), in pages.

use std::borrow::Borrow;
use std::time::Duration;

use rusqlite::{Error, types::Type};

use super::columns::{number, unsigned};
use super::error::StorageError;
use super::request_page::{self, PageFault};
use super::security_store::SecurityStore;
use crate::types::clock::UnixMillis;
use crate::types::request::RequestRow;

/// Most rows of one answer (`types::calls::requests`).
pub(super) const LARGEST_PAGE: u32 = 1000;

/// Pages that are read at once when all are gone through: some milliseconds.
pub(super) const FOLDED_AT_ONCE: u32 = 64;

/// Pages that one transaction drops, so that the audit writer never waits long behind it.
const DROPPED_AT_ONCE: u64 = 500;

impl SecurityStore {
    /// Appends to the request log, in the order given, as one page.
    pub async fn append_requests<R>(&self, rows: Vec<R>) -> Result<(), StorageError>
    where
        R: Borrow<RequestRow> + Send + 'static,
    {
        let Some(newest) = rows.iter().map(|row| row.borrow().at.0).max() else { return Ok(()) };
        self.database
            .write("appending to the request log", move |transaction| {
                let page = request_page::encode(&rows).map_err(|fault| Error::ToSqlConversionFailure(fault.into()))?;
                transaction
                    .prepare_cached(
                        "INSERT INTO request_log (last, count, newest, page)
                         VALUES ((SELECT coalesce(max(last), 0) FROM request_log) + ?1, ?1, ?2, ?3)",
                    )?
                    .execute((number(rows.len() as u64), newest, page))
                    .map(|_one| ())
            })
            .await
    }

    /// The newest requests, newest first, at most 1000.
    pub async fn requests(&self, limit: u32) -> Result<Vec<RequestRow>, StorageError> {
        let limit = usize::try_from(limit.min(LARGEST_PAGE)).unwrap_or(usize::MAX);
        self.database
            .read_if_there("reading the request log", move |connection| {
                let mut statement = connection.prepare_cached("SELECT page FROM request_log ORDER BY last DESC")?;
                let mut pages = statement.query([])?;
                let mut found = Vec::new();
                while found.len() < limit
                    && let Some(row) = pages.next()?
                {
                    let page = request_page::decode(row.get_ref(0)?.as_blob()?).map_err(unreadable)?;
                    found.extend(page.into_iter().rev());
                }
                found.truncate(limit);
                Ok(found)
            })
            .await
    }

    /// Goes through the requests from a time on, newest page first, some pages at a time so that other readers get their
    /// turn.
    pub async fn fold_requests<T, F>(&self, since: UnixMillis, fold: F) -> Result<T, StorageError>
    where
        T: Default + Send + 'static,
        F: Fn(&mut T, &RequestRow) + Send + Sync + Clone + 'static,
    {
        let mut state = T::default();
        let mut below = i64::MAX;
        loop {
            let fold = fold.clone();
            let (next, reached): (T, Option<i64>) = self
                .database
                .read_if_there("reading the request log", move |connection| {
                    // Pages may overlap in time a little, as requests end out of order.
                    let mut statement = connection.prepare_cached(
                        "SELECT last, newest, page FROM request_log WHERE last < ?1 ORDER BY last DESC LIMIT ?2",
                    )?;
                    let mut pages = statement.query((below, FOLDED_AT_ONCE))?;
                    let mut reached = None;
                    while let Some(row) = pages.next()? {
                        reached = Some(row.get("last")?);
                        if row.get::<_, i64>("newest")? < since.0 {
                            continue;
                        }
                        let page = request_page::decode(row.get_ref("page")?.as_blob()?).map_err(unreadable)?;
                        page.iter().filter(|request| request.at >= since).for_each(|request| fold(&mut state, request));
                    }
                    Ok((state, reached))
                })
                .await?;
            state = next;
            match reached {
                Some(last) => below = last,
                None => return Ok(state),
            }
        }
    }

    /// Drops requests beyond age and count (SPEC §10: 7 days or 1 M rows), whole pages at a time, so that up to one
    /// page more is kept; answers how many.
    pub async fn trim_requests(&self, now: UnixMillis, keep: Duration, rows: u64) -> Result<u64, StorageError> {
        let oldest = now.minus(keep).0;
        let mut dropped = 0;
        loop {
            let (pages, requests) = self
                .database
                .write("trimming the request log", move |transaction| {
                    // Numbers are handed out without gaps and dropped from the low end, so they count requests; an
                    // out-of-order time only keeps a few longer.
                    let mut statement = transaction.prepare_cached(
                        "DELETE FROM request_log WHERE last IN (
                             SELECT last FROM request_log
                             WHERE newest < ?1 OR last <= (SELECT max(last) FROM request_log) - ?2
                             ORDER BY last LIMIT ?3)
                         RETURNING count",
                    )?;
                    let mut counts = statement.query((oldest, number(rows), number(DROPPED_AT_ONCE)))?;
                    let (mut pages, mut requests) = (0, 0);
                    while let Some(row) = counts.next()? {
                        pages += 1;
                        requests += unsigned(row, "count")?;
                    }
                    Ok((pages, requests))
                })
                .await?;
            dropped += requests;
            if pages < DROPPED_AT_ONCE {
                return Ok(dropped);
            }
        }
    }
}

pub(super) fn unreadable(fault: PageFault) -> Error {
    Error::FromSqlConversionFailure(0, Type::Blob, fault.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::request_page::tests::{bare, full};
    use crate::storage::security_store::tests::store;
    use crate::types::request::Progress;

    #[tokio::test]
    async fn requests_come_back_with_every_field_newest_first() {
        let (_folder, store) = store();
        let running = RequestRow { progress: Progress::Running, ..bare(3, 0) };
        let rows = [full(1, 10), bare(2, 20), running];
        store.append_requests(rows[..1].to_vec()).await.expect("appends");
        store.append_requests(rows[1..].to_vec()).await.expect("appends");
        store.append_requests(Vec::<RequestRow>::new()).await.expect("appends nothing");
        let mut read = store.requests(10).await.expect("reads");
        read.reverse();
        assert_eq!(read, rows);
        assert_eq!(store.requests(1).await.expect("reads"), rows[2..]);
        assert_eq!(store.requests(0).await.expect("reads"), []);
    }

    #[tokio::test]
    async fn going_through_the_log_meets_every_request_of_the_span_once() {
        let (_folder, store) = store();
        let pages = u8::try_from(FOLDED_AT_ONCE).expect("small") * 2 + 1;
        for number in 0..pages {
            store.append_requests(vec![bare(number.into(), number.into())]).await.expect("appends");
        }
        let collect = |found: &mut Vec<i64>, row: &RequestRow| found.push(row.at.0);
        let found = store.fold_requests(UnixMillis(3), collect).await.expect("reads");
        assert_eq!(found, (3..i64::from(pages)).rev().collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn old_and_surplus_requests_are_dropped() {
        let (_folder, store) = store();
        for number in 0..10 {
            store.append_requests(vec![bare(number, i64::from(number))]).await.expect("appends");
        }
        let keep = Duration::from_millis(100);
        assert_eq!(store.trim_requests(UnixMillis(103), keep, 100).await.expect("trims"), 3, "too old");
        assert_eq!(store.trim_requests(UnixMillis(103), keep, 4).await.expect("trims"), 3, "too many");
        let left: Vec<_> = store.requests(100).await.expect("reads").iter().map(|row| row.at.0).collect();
        assert_eq!(left, [9, 8, 7, 6]);
        assert_eq!(store.trim_requests(UnixMillis(103), keep, 4).await.expect("trims"), 0);
    }

    #[tokio::test]
    async fn a_page_is_kept_while_any_of_its_requests_is_within_the_limits() {
        let (_folder, store) = store();
        store.append_requests((0..10).map(|n| bare(n, i64::from(n))).collect()).await.expect("appends");
        store.append_requests((10..20).map(|n| bare(n, i64::from(n))).collect()).await.expect("appends");
        let keep = Duration::from_millis(100);
        assert_eq!(store.trim_requests(UnixMillis(105), keep, 11).await.expect("trims"), 0);
        assert_eq!(store.trim_requests(UnixMillis(110), keep, 100).await.expect("trims"), 10);
        assert_eq!(store.requests(100).await.expect("reads").len(), 10);
    }

    #[tokio::test]
    async fn more_than_one_transaction_drops_is_dropped_all_the_same() {
        let (_folder, store) = store();
        let count = u32::try_from(DROPPED_AT_ONCE).expect("small") + 1;
        for number in 0..count {
            store.append_requests(vec![bare(number, 0)]).await.expect("appends");
        }
        let dropped = store.trim_requests(UnixMillis(10), Duration::from_millis(1), 10).await.expect("trims");
        assert_eq!(dropped, u64::from(count));
    }
}
