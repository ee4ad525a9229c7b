//! The table `request_log` as a list that is read page by page: by number, which is the order in which requests ended, or
//! sorted by a column; searched on the way.
//!
//! The log has no index but numbers (ADR 6), so whatever else is asked for is met by going through its pages, some at a time
//! so that other readers get their turn, and so that a caller who leaves ends it.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rusqlite::{Connection, OptionalExtension as _};

use super::columns::{number, unsigned};
use super::error::StorageError;
use super::request_log::{FOLDED_AT_ONCE, LARGEST_PAGE, unreadable};
use super::request_page;
use super::security_store::SecurityStore;
use crate::types::calls::requests::{NumberedRequest, PageRequests, RequestColumn, RequestKey, RequestPage};
use crate::types::clock::UnixMillis;
use crate::types::order::{Order, Place};
use crate::types::request::{Progress, RequestRow};

/// Rows of a page when the query names no number (`types::calls::requests`).
const DEFAULT_PAGE: u32 = 100;

/// Which way along the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// Whether a look at rows goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Going {
    On,
    Enough,
}

/// A row with its rank in the order asked for, as they are met: the smallest is met first.
struct Ranked {
    rank: (u64, u64),
    request: NumberedRequest,
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl SecurityStore {
    /// A page of the log, in the order asked for. A page beside a row that was trimmed meanwhile is empty, unless numbers
    /// are the order.
    pub async fn request_page(&self, query: PageRequests) -> Result<RequestPage, StorageError> {
        let limit = if query.limit == 0 { DEFAULT_PAGE } else { query.limit.min(LARGEST_PAGE) };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let bounds = self.database.read_if_there("reading the request log", bounds).await?;
        let Some((oldest, newest)) = bounds else { return Ok(RequestPage::default()) };
        let goes_back = query.place.goes_back();
        let way = if (query.order == Order::Descending) == goes_back { Way::Up } else { Way::Down };
        let mut rows = if query.by == RequestColumn::Time {
            self.requests_by_number(query, way, limit).await?
        } else {
            self.requests_by_column(query, way, limit).await?
        };
        if goes_back {
            rows.reverse();
        }
        Ok(RequestPage { rows, oldest, newest })
    }

    async fn requests_by_number(
        &self,
        query: PageRequests,
        way: Way,
        limit: usize,
    ) -> Result<Vec<NumberedRequest>, StorageError> {
        let mut from = match query.place {
            Place::Start | Place::End => None,
            Place::Behind(RequestKey::Number(number)) | Place::Before(RequestKey::Number(number)) => Some(number),
            Place::Behind(RequestKey::Time(at)) | Place::Before(RequestKey::Time(at)) => {
                let search = move |connection: &Connection| first_after(connection, at);
                let number = self.database.read_if_there("reading the request log", search).await?;
                Some(if way == Way::Down { number } else { number.saturating_sub(1) })
            }
        };
        let mut found = Vec::new();
        loop {
            let (text, missing) = (query.text.clone(), limit - found.len());
            let look = move |connection: &Connection| {
                let mut found = Vec::new();
                let next = walk(connection, from, way, |number, row| {
                    if row.holds(&text) {
                        found.push(NumberedRequest { number, row });
                    }
                    if found.len() < missing { Going::On } else { Going::Enough }
                })?;
                Ok((found, next))
            };
            let (rows, next) = self.database.read_if_there("reading the request log", look).await?;
            found.extend(rows);
            from = next;
            if from.is_none() {
                return Ok(found);
            }
        }
    }

    /// Goes through the whole log and keeps what comes first behind the place.
    async fn requests_by_column(
        &self,
        query: PageRequests,
        way: Way,
        limit: usize,
    ) -> Result<Vec<NumberedRequest>, StorageError> {
        let by = query.by;
        let beyond = match query.place {
            Place::Start | Place::End => None,
            Place::Behind(RequestKey::Number(number)) | Place::Before(RequestKey::Number(number)) => {
                let find = move |connection: &Connection| numbered(connection, number);
                match self.database.read_if_there("reading the request log", find).await? {
                    Some(row) => Some(rank(by, way, number, &row)),
                    None => return Ok(Vec::new()),
                }
            }
            // A time lies beside no row in this order.
            Place::Behind(RequestKey::Time(_)) | Place::Before(RequestKey::Time(_)) => return Ok(Vec::new()),
        };
        let mut best = BinaryHeap::new();
        let mut from = None;
        loop {
            let text = query.text.clone();
            let look = move |connection: &Connection| {
                let next = walk(connection, from, Way::Down, |number, row| {
                    let rank = rank(by, way, number, &row);
                    let is_beyond = beyond.is_none_or(|beyond| rank > beyond);
                    let fits = best.len() < limit || best.peek().is_some_and(|last: &Ranked| rank < last.rank);
                    if is_beyond && fits && row.holds(&text) {
                        best.push(Ranked { rank, request: NumberedRequest { number, row } });
                        if best.len() > limit {
                            best.pop();
                        }
                    }
                    Going::On
                })?;
                Ok((best, next))
            };
            (best, from) = self.database.read_if_there("reading the request log", look).await?;
            if from.is_none() {
                return Ok(best.into_sorted_vec().into_iter().map(|ranked| ranked.request).collect());
            }
        }
    }
}

/// Where a row lies in an order, as the rows are met: the smallest first.
fn rank(by: RequestColumn, way: Way, number: u64, row: &RequestRow) -> (u64, u64) {
    let value = match by {
        RequestColumn::Time => 0,
        RequestColumn::Status => u64::from(row.status),
        RequestColumn::Tokens => row.tokens.completion,
        RequestColumn::FirstToken => row.stages.first_token.map_or(0, |us| u64::from(us) + 1),
        RequestColumn::Latency => match row.progress {
            Progress::Ended { took_us, .. } => took_us,
            Progress::Running => 0,
        },
    };
    match way {
        Way::Up => (value, number),
        Way::Down => (u64::MAX - value, u64::MAX - number),
    }
}

/// Numbers of the oldest and of the newest request; `None` when there is none.
fn bounds(connection: &Connection) -> rusqlite::Result<Option<(u64, u64)>> {
    let oldest = connection
        .prepare_cached("SELECT last - count + 1 AS first FROM request_log ORDER BY last LIMIT 1")?
        .query_row([], |row| unsigned(row, "first"))
        .optional()?;
    let newest = connection
        .prepare_cached("SELECT last FROM request_log ORDER BY last DESC LIMIT 1")?
        .query_row([], |row| unsigned(row, "last"))
        .optional()?;
    Ok(oldest.zip(newest))
}

/// Shows the rows of some pages, beyond `from` where there is one, until it is enough; answers beyond which number it goes
/// on, or `None` at the end and when it was enough.
fn walk(
    connection: &Connection,
    from: Option<u64>,
    way: Way,
    mut each: impl FnMut(u64, RequestRow) -> Going,
) -> rusqlite::Result<Option<u64>> {
    let sql = match way {
        // The page that holds the number may hold rows below it too.
        Way::Down => {
            "SELECT last, count, page FROM request_log
             WHERE last <= coalesce((SELECT min(last) FROM request_log WHERE last >= ?1), ?1)
             ORDER BY last DESC LIMIT ?2"
        }
        Way::Up => "SELECT last, count, page FROM request_log WHERE last > ?1 ORDER BY last LIMIT ?2",
    };
    let beyond = from.unwrap_or(if way == Way::Down { u64::MAX } else { 0 });
    let mut statement = connection.prepare_cached(sql)?;
    let mut pages = statement.query((number(beyond), FOLDED_AT_ONCE))?;
    let (mut seen, mut reached) = (0, None);
    while let Some(page) = pages.next()? {
        let (last, count) = (unsigned(page, "last")?, unsigned(page, "count")?);
        let first = last.saturating_sub(count) + 1;
        let rows = request_page::decode(page.get_ref("page")?.as_blob()?).map_err(unreadable)?;
        let rows = rows.into_iter().enumerate().map(|(at, row)| (first + u64::try_from(at).unwrap_or(0), row));
        let going = match way {
            Way::Down => show(rows.rev().skip_while(|(number, _)| *number >= beyond), &mut each),
            Way::Up => show(rows.skip_while(|(number, _)| *number <= beyond), &mut each),
        };
        if going == Going::Enough {
            return Ok(None);
        }
        seen += 1;
        reached = Some(if way == Way::Down { first } else { last });
    }
    Ok(reached.filter(|_| seen == FOLDED_AT_ONCE))
}

fn show(rows: impl Iterator<Item = (u64, RequestRow)>, each: &mut impl FnMut(u64, RequestRow) -> Going) -> Going {
    for (number, row) in rows {
        if each(number, row) == Going::Enough {
            return Going::Enough;
        }
    }
    Going::On
}

/// The row of this number, when it is still there.
fn numbered(connection: &Connection, wanted: u64) -> rusqlite::Result<Option<RequestRow>> {
    let mut found = None;
    walk(connection, Some(wanted.saturating_sub(1)), Way::Up, |number, row| {
        if number == wanted {
            found = Some(row);
        }
        Going::Enough
    })?;
    Ok(found)
}

/// Number of the first request that came after a time, by halves: pages lie in the order of time, but for what ended out of
/// order within moments.
fn first_after(connection: &Connection, at: UnixMillis) -> rusqlite::Result<u64> {
    let Some((oldest, newest)) = bounds(connection)? else { return Ok(0) };
    let mut statement = connection
        .prepare_cached("SELECT last, count, newest FROM request_log WHERE last >= ?1 ORDER BY last LIMIT 1")?;
    let (mut low, mut high) = (oldest, newest.saturating_add(1));
    while low < high {
        let middle = low + (high - low) / 2;
        let (first, last, latest) = statement.query_row([number(middle)], |page| {
            let last = unsigned(page, "last")?;
            Ok((last.saturating_sub(unsigned(page, "count")?) + 1, last, page.get::<_, i64>("newest")?))
        })?;
        if latest > at.0 {
            high = first.max(low).min(middle);
        } else {
            low = last + 1;
        }
    }
    // Rows of one page lie in the order in which they came.
    let mut first = low;
    walk(connection, Some(low.saturating_sub(1)), Way::Up, |number, row| {
        first = number;
        if row.at > at { Going::Enough } else { Going::On }
    })?;
    Ok(first.max(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::request_page::tests::bare;
    use crate::storage::security_store::tests::store;
    use crate::types::request::RequestEnd;

    /// Requests that came a second apart, with latencies and states all over the place, in pages of `size`.
    async fn filled(store: &SecurityStore, count: u32, size: usize) -> Vec<NumberedRequest> {
        let rows: Vec<_> = (1..=count)
            .map(|n| RequestRow {
                status: if n % 7 == 0 { 503 } else { 200 },
                progress: Progress::Ended { end: RequestEnd::Completed, took_us: u64::from(n * 37 % 101) },
                path: format!("/v1/number/{n}").into(),
                ..bare(n, i64::from(n) * 1000)
            })
            .collect();
        for page in rows.chunks(size) {
            store.append_requests(page.to_vec()).await.expect("appends");
        }
        rows.into_iter().zip(1..).map(|(row, number)| NumberedRequest { number, row }).collect()
    }

    fn numbers(rows: &[NumberedRequest]) -> Vec<u64> {
        rows.iter().map(|request| request.number).collect()
    }

    #[tokio::test]
    async fn pages_follow_each_other_in_every_order_forth_and_back() {
        let (_folder, store) = store();
        let rows = filled(&store, 500, 3).await;
        for by in [RequestColumn::Time, RequestColumn::Status, RequestColumn::Latency] {
            for order in [Order::Ascending, Order::Descending] {
                let mut expected = rows.clone();
                expected.sort_by_key(|request| rank(by, Way::Up, request.number, &request.row));
                if order == Order::Descending {
                    expected.reverse();
                }
                let query = PageRequests { by, order, limit: 61, ..PageRequests::default() };
                let page = async |place| {
                    store.request_page(PageRequests { place, ..query.clone() }).await.expect("reads").rows
                };
                let mut forth = page(Place::Start).await;
                while let Some(last) = forth.last().map(|request| request.number) {
                    let more = page(Place::Behind(RequestKey::Number(last))).await;
                    if more.is_empty() {
                        break;
                    }
                    forth.extend(more);
                }
                assert_eq!(numbers(&forth), numbers(&expected), "{by:?} {order:?}");
                assert_eq!(forth, expected);
                let mut back = page(Place::End).await;
                while let Some(first) = back.first().map(|request| request.number) {
                    let mut more = page(Place::Before(RequestKey::Number(first))).await;
                    if more.is_empty() {
                        break;
                    }
                    more.append(&mut back);
                    back = more;
                }
                assert_eq!(numbers(&back), numbers(&expected), "{by:?} {order:?} from its end");
            }
        }
    }

    #[tokio::test]
    async fn a_text_is_found_in_every_page_and_the_log_tells_how_far_it_reaches() {
        let (_folder, store) = store();
        assert_eq!(store.request_page(PageRequests::default()).await.expect("reads"), RequestPage::default());
        filled(&store, 1_000, 2).await;
        store.trim_requests(UnixMillis(0), std::time::Duration::from_secs(1), 980).await.expect("trims");
        let find = async |text: &str, by| {
            let query = PageRequests { text: text.into(), by, limit: 3, ..PageRequests::default() };
            store.request_page(query).await.expect("reads")
        };
        let found = find("NUMBER/9", RequestColumn::Time).await;
        assert_eq!((found.oldest, found.newest), (21, 1_000));
        assert_eq!(numbers(&found.rows), [999, 998, 997]);
        assert_eq!(numbers(&find("number/32", RequestColumn::Time).await.rows), [329, 328, 327]);
        assert_eq!(numbers(&find("number/20", RequestColumn::Latency).await.rows).len(), 3);
        assert_eq!(find("number/1001", RequestColumn::Time).await.rows, []);
    }

    #[tokio::test]
    async fn a_row_without_a_number_is_met_by_its_time() {
        let (_folder, store) = store();
        filled(&store, 100, 7).await;
        for size in [0_i64, 1, 13, 14, 15, 50, 99, 100, 101] {
            let place = Place::Behind(RequestKey::Time(UnixMillis(size * 1000 + 500)));
            let page = store.request_page(PageRequests { place, limit: 2, ..PageRequests::default() }).await;
            let expected: Vec<u64> =
                (1..=100).rev().filter(|number| *number <= u64::try_from(size).expect("small")).take(2).collect();
            assert_eq!(numbers(&page.expect("reads").rows), expected, "before second {size}");
        }
    }

    #[tokio::test]
    async fn a_page_beside_a_row_that_is_gone_goes_on_in_the_order_of_numbers() {
        let (_folder, store) = store();
        filled(&store, 100, 10).await;
        store.trim_requests(UnixMillis(0), std::time::Duration::from_secs(1), 50).await.expect("trims");
        let page = async |by, place| {
            let query = PageRequests { by, place, limit: 2, ..PageRequests::default() };
            numbers(&store.request_page(query).await.expect("reads").rows)
        };
        assert_eq!(page(RequestColumn::Time, Place::Behind(RequestKey::Number(20))).await, [0; 0]);
        assert_eq!(page(RequestColumn::Time, Place::Before(RequestKey::Number(20))).await, [52, 51]);
        assert_eq!(page(RequestColumn::Latency, Place::Behind(RequestKey::Number(20))).await, [0; 0]);
    }
}
