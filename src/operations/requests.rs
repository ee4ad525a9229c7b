//! Recent requests (SPEC §9.3).

use std::collections::HashSet;

use super::context::Context;
use crate::types::calls::requests::{ListRequests, PageRequests, RequestPage};
use crate::types::failure::Outcome;
use crate::types::request::RequestRow;

/// Rows answered when the caller names no number, and at most (see `ListRequests`).
const DEFAULT_PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1000;

/// Lists recent requests, newest first: those in memory, and behind them those of the request log.
pub async fn list(context: &Context, call: ListRequests) -> Outcome<Vec<RequestRow>> {
    let limit = if call.limit == 0 { DEFAULT_PAGE } else { call.limit.min(LARGEST_PAGE) };
    let count = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut rows = match &context.live {
        Some(live) => live.proxy.metrics.recent(count),
        None => Vec::new(),
    };
    if rows.len() < count {
        let seen: HashSet<_> = rows.iter().map(|row| row.id).collect();
        let logged = context.stores.security.requests(limit).await?;
        rows.extend(logged.into_iter().filter(|row| !seen.contains(&row.id)));
        rows.sort_by_key(|row| std::cmp::Reverse(row.at));
        rows.truncate(count);
    }
    Ok(rows)
}

/// A page of the request log.
pub async fn page(context: &Context, call: PageRequests) -> Outcome<RequestPage> {
    Ok(context.stores.security.request_page(call).await?)
}
