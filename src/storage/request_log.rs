//! Table `request_log`: requests that ended, without bodies (SPEC §10).

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Row, params};

use super::columns::{named, named_or_none, number, parsed, unsigned};
use super::error::StorageError;
use super::security_store::SecurityStore;
use crate::types::clock::UnixMillis;
use crate::types::request::{Progress, RequestEnd, RequestRow, StageTimes, TokenSource, TokenUsage};

/// Most rows of one answer (`types::calls::requests`).
const LARGEST_PAGE: u32 = 1000;

/// Rows that one transaction drops, so that the audit writer never waits long behind it.
const DROPPED_AT_ONCE: u64 = 5_000;

impl SecurityStore {
    /// Appends to the request log, in the order given.
    pub async fn append_requests(&self, rows: Vec<RequestRow>) -> Result<(), StorageError> {
        self.database
            .write("appending to the request log", move |transaction| {
                let mut statement = transaction.prepare_cached(
                    "INSERT INTO request_log (id, at, client, key, key_label, method, path, route, model, engine,
                         status, error_code, stream, tokens_prompt, tokens_completion, tokens_cached, tokens_source,
                         bytes_in, bytes_out, screened_us, authenticated_us, parsed_us, resolved_us, sent_us,
                         first_byte_us, first_token_us, ended, took_us, user_agent)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
                         ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29)",
                )?;
                for row in rows {
                    let (ended, took_us) = match row.progress {
                        Progress::Running => (None, None),
                        Progress::Ended { end, took_us } => (Some(end_name(end)), Some(number(took_us))),
                    };
                    // By position: looking 29 names up costs more than writing the row.
                    statement.execute(params![
                        row.id.as_str(),
                        row.at.0,
                        row.client.to_string(),
                        row.key.map(String::from),
                        row.key_label.as_deref(),
                        row.method,
                        row.path,
                        row.route,
                        row.model.as_deref(),
                        row.engine.map(String::from),
                        row.status,
                        row.error_code,
                        row.stream,
                        number(row.tokens.prompt),
                        number(row.tokens.completion),
                        number(row.tokens.cached),
                        source_name(row.tokens.source),
                        number(row.bytes_in),
                        number(row.bytes_out),
                        row.stages.screened,
                        row.stages.authenticated,
                        row.stages.parsed,
                        row.stages.resolved,
                        row.stages.sent,
                        row.stages.first_byte,
                        row.stages.first_token,
                        ended,
                        took_us,
                        row.user_agent,
                    ])?;
                }
                Ok(())
            })
            .await
    }

    /// The newest requests, newest first, at most 1000.
    pub async fn requests(&self, limit: u32) -> Result<Vec<RequestRow>, StorageError> {
        self.database
            .read("reading the request log", move |connection| {
                let mut statement =
                    connection.prepare_cached("SELECT * FROM request_log ORDER BY number DESC LIMIT ?1")?;
                statement.query_map([limit.min(LARGEST_PAGE)], request)?.collect()
            })
            .await
    }

    /// Drops requests beyond age and count (SPEC §10: 7 days or 1 M rows); answers how many.
    pub async fn trim_requests(&self, now: UnixMillis, keep: Duration, rows: u64) -> Result<u64, StorageError> {
        let oldest = now.minus(keep).0;
        let mut dropped = 0;
        loop {
            let now_dropped = self
                .database
                .write("trimming the request log", move |transaction| {
                    // Numbers are handed out without gaps and dropped from the low end, so they count rows; an
                    // out-of-order time only keeps a few rows longer.
                    transaction
                        .prepare_cached(
                            "DELETE FROM request_log WHERE number IN (
                                 SELECT number FROM request_log
                                 WHERE at < ?1 OR number <= (SELECT max(number) FROM request_log) - ?2
                                 ORDER BY number LIMIT ?3)",
                        )?
                        .execute((oldest, number(rows), number(DROPPED_AT_ONCE)))
                        .map(|rows| rows as u64)
                })
                .await?;
            dropped += now_dropped;
            if now_dropped < DROPPED_AT_ONCE {
                return Ok(dropped);
            }
        }
    }
}

fn request(row: &Row<'_>) -> rusqlite::Result<RequestRow> {
    let progress = match (named_or_none(row, "ended")?, row.get::<_, Option<i64>>("took_us")?) {
        (Some(end), Some(took)) => Progress::Ended { end, took_us: u64::try_from(took).unwrap_or(0) },
        _ => Progress::Running,
    };
    Ok(RequestRow {
        id: named(row, "id")?,
        at: UnixMillis(row.get("at")?),
        client: parsed(row, "client")?,
        key: named_or_none(row, "key")?,
        key_label: row.get::<_, Option<String>>("key_label")?.map(Arc::from),
        method: row.get("method")?,
        path: row.get("path")?,
        route: row.get("route")?,
        model: row.get::<_, Option<String>>("model")?.map(Arc::from),
        engine: named_or_none(row, "engine")?,
        status: row.get("status")?,
        error_code: row.get("error_code")?,
        stream: row.get("stream")?,
        tokens: TokenUsage {
            prompt: unsigned(row, "tokens_prompt")?,
            completion: unsigned(row, "tokens_completion")?,
            cached: unsigned(row, "tokens_cached")?,
            source: named(row, "tokens_source")?,
        },
        bytes_in: unsigned(row, "bytes_in")?,
        bytes_out: unsigned(row, "bytes_out")?,
        stages: StageTimes {
            screened: row.get("screened_us")?,
            authenticated: row.get("authenticated_us")?,
            parsed: row.get("parsed_us")?,
            resolved: row.get("resolved_us")?,
            sent: row.get("sent_us")?,
            first_byte: row.get("first_byte_us")?,
            first_token: row.get("first_token_us")?,
        },
        progress,
        user_agent: row.get("user_agent")?,
    })
}

/// The serialised name, without going through a serialiser: this runs for every request.
fn end_name(end: RequestEnd) -> &'static str {
    match end {
        RequestEnd::Completed => "completed",
        RequestEnd::Refused => "refused",
        RequestEnd::EngineFailed => "engine_failed",
        RequestEnd::ClientLeft => "client_left",
        RequestEnd::Cancelled => "cancelled",
    }
}

/// The same for where token counts come from.
fn source_name(source: TokenSource) -> &'static str {
    match source {
        TokenSource::Engine => "engine",
        TokenSource::Estimated => "estimated",
        TokenSource::None => "none",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::columns::name;
    use crate::storage::security_store::tests::store;
    use crate::types::ids::{EngineId, KeyId, RequestId};

    fn bare(number: u32, at: i64) -> RequestRow {
        RequestRow {
            id: RequestId::from_random(u128::from(number)),
            at: UnixMillis(at),
            client: "127.0.0.1".parse().expect("address"),
            key: None,
            key_label: None,
            method: "GET".into(),
            path: "/v1/models".into(),
            route: None,
            model: None,
            engine: None,
            status: 401,
            error_code: None,
            stream: false,
            tokens: TokenUsage::default(),
            bytes_in: 0,
            bytes_out: 12,
            stages: StageTimes::default(),
            progress: Progress::Ended { end: RequestEnd::Refused, took_us: 90 },
            user_agent: None,
        }
    }

    fn full(number: u32, at: i64) -> RequestRow {
        RequestRow {
            client: "2001:db8::1".parse().expect("address"),
            key: Some(KeyId::parse("Ab12Cd34").expect("id")),
            key_label: Some("laptop".into()),
            route: Some("chat.completions".into()),
            model: Some("llama".into()),
            engine: Some(EngineId::parse("ollama").expect("id")),
            status: 200,
            error_code: Some("engine_error".into()),
            stream: true,
            tokens: TokenUsage { prompt: 1, completion: 2, cached: 3, source: TokenSource::Engine },
            stages: StageTimes {
                screened: Some(1),
                authenticated: Some(2),
                parsed: Some(3),
                resolved: Some(4),
                sent: Some(5),
                first_byte: Some(6),
                first_token: Some(7),
            },
            progress: Progress::Ended { end: RequestEnd::ClientLeft, took_us: 1_000_000 },
            user_agent: Some("OpenAI/Python".into()),
            ..bare(number, at)
        }
    }

    #[test]
    fn written_names_are_the_serialised_ones() {
        for end in [
            RequestEnd::Completed,
            RequestEnd::Refused,
            RequestEnd::EngineFailed,
            RequestEnd::ClientLeft,
            RequestEnd::Cancelled,
        ] {
            assert_eq!(name(&end).expect("a name"), end_name(end));
        }
        for source in [TokenSource::Engine, TokenSource::Estimated, TokenSource::None] {
            assert_eq!(name(&source).expect("a name"), source_name(source));
        }
    }

    #[tokio::test]
    async fn requests_come_back_with_every_field_newest_first() {
        let (_folder, store) = store();
        let running = RequestRow { progress: Progress::Running, ..bare(3, 0) };
        let rows = [full(1, 10), bare(2, 20), running];
        store.append_requests(rows.to_vec()).await.expect("appends");
        let mut read = store.requests(10).await.expect("reads");
        read.reverse();
        assert_eq!(read, rows);
        assert_eq!(store.requests(1).await.expect("reads"), rows[2..]);
    }

    #[tokio::test]
    async fn old_and_surplus_requests_are_dropped() {
        let (_folder, store) = store();
        store.append_requests((0..10).map(|n| bare(n, i64::from(n))).collect()).await.expect("appends");
        let keep = Duration::from_millis(100);
        assert_eq!(store.trim_requests(UnixMillis(103), keep, 100).await.expect("trims"), 3, "too old");
        assert_eq!(store.trim_requests(UnixMillis(103), keep, 4).await.expect("trims"), 3, "too many");
        let left: Vec<_> = store.requests(100).await.expect("reads").iter().map(|row| row.at.0).collect();
        assert_eq!(left, [9, 8, 7, 6]);
        assert_eq!(store.trim_requests(UnixMillis(103), keep, 4).await.expect("trims"), 0);
    }

    #[tokio::test]
    async fn more_than_one_transaction_drops_is_dropped_all_the_same() {
        let (_folder, store) = store();
        let count = u32::try_from(DROPPED_AT_ONCE).expect("small") + 1;
        store.append_requests((0..count).map(|n| bare(n, 0)).collect()).await.expect("appends");
        let dropped = store.trim_requests(UnixMillis(10), Duration::from_millis(1), 10).await.expect("trims");
        assert_eq!(dropped, u64::from(count));
    }
}
