//! The daemon's log (SPEC §5.11).

use super::context::{Context, blocking_panicked};
use crate::telemetry::log_reader;
use crate::types::calls::logs::{LogPage, ReadLogs};
use crate::types::failure::{ErrorCode, Failure, Outcome};

/// Lines answered when the caller names no number, and at most (see `ReadLogs`).
const DEFAULT_PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1000;

/// Reads lines of the log.
///
/// # Errors
/// `IO_ERROR` when a file cannot be read.
pub async fn read(context: &Context, call: ReadLogs) -> Outcome<LogPage> {
    let limit = if call.limit == 0 { DEFAULT_PAGE } else { call.limit.min(LARGEST_PAGE) };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let folder = context.paths.log_dir.clone();
    let reading = move || match &call.after {
        Some(place) => log_reader::after(&folder, place, limit),
        None => log_reader::newest(&folder, call.since, limit),
    };
    tokio::task::spawn_blocking(reading).await.map_err(|_| blocking_panicked("reading the log"))?.map_err(|error| {
        Failure::new(ErrorCode::IoError, format!("the log cannot be read: {error}"))
            .hint("flm config path tells where it is")
    })
}
