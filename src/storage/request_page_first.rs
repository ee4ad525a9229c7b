//! The first form of a page of the request log, which releases before the second wrote: bytes to rows. Nothing writes it any more.
//!
//! Used by [`super::request_page`].

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::request_page::{PageFault, Shape, Text, end, template};
use crate::types::clock::UnixMillis;
use crate::types::ids::RequestId;
use crate::types::request::{Progress, RequestRow, StageTimes, TokenUsage};

/// First byte of such a page.
pub(super) const FORMAT: u8 = 1;

#[derive(Deserialize)]
struct Page<'a> {
    /// Every text of the rows, once.
    #[serde(borrow)]
    texts: Vec<&'a str>,
    #[serde(borrow)]
    rows: Vec<StoredRow<'a>>,
}

#[derive(Deserialize)]
struct StoredRow<'a> {
    id: &'a str,
    at: i64,
    client: IpAddr,
    key: Option<Text>,
    key_label: Option<Text>,
    method: Text,
    path: Text,
    route: Option<Text>,
    model: Option<Text>,
    engine: Option<Text>,
    status: u16,
    error_code: Option<Text>,
    stream: bool,
    tokens: [u64; 3],
    tokens_source: u8,
    bytes: [u64; 2],
    stages: [Option<u32>; 7],
    /// How it ended and after how many microseconds.
    ended: Option<(u8, u64)>,
    user_agent: Option<Text>,
}

/// Reads what follows the first byte.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<RequestRow>, PageFault> {
    let page: Page<'_> = postcard::from_bytes(bytes)?;
    // A label or a model is one allocation for all rows that name it.
    let shared: Vec<Arc<str>> = page.texts.iter().map(|text| Arc::from(*text)).collect();
    page.rows.iter().map(|row| restore(row, &shared)).collect()
}

fn restore(row: &StoredRow<'_>, texts: &[Arc<str>]) -> Result<RequestRow, PageFault> {
    let shape = Shape {
        client: row.client,
        key: row.key,
        key_label: row.key_label,
        method: row.method,
        path: row.path,
        route: row.route,
        model: row.model,
        engine: row.engine,
        status: row.status,
        error_code: row.error_code,
        stream: row.stream,
        tokens_source: row.tokens_source,
        end: row.ended.map(|(code, _took)| code),
        // The stages stand in the row itself.
        timed: 0,
        user_agent: row.user_agent,
    };
    let template = template(&shape, texts)?;
    let [screened, authenticated, parsed, resolved, sent, first_byte, first_token] = row.stages;
    let [prompt, completion, cached] = row.tokens;
    let [bytes_in, bytes_out] = row.bytes;
    Ok(RequestRow {
        id: RequestId::try_from(row.id.to_owned()).map_err(PageFault::damaged)?,
        at: UnixMillis(row.at),
        tokens: TokenUsage { prompt, completion, cached, source: template.tokens.source },
        bytes_in,
        bytes_out,
        stages: StageTimes { screened, authenticated, parsed, resolved, sent, first_byte, first_token },
        progress: match row.ended {
            None => Progress::Running,
            Some((code, took_us)) => end(code, took_us)?,
        },
        ..template
    })
}

#[cfg(test)]
mod tests {
    use crate::storage::request_page::decode;
    use crate::storage::request_page::tests::{bare, bytes_of, full};

    #[test]
    fn a_page_of_the_first_form_is_still_read() {
        let rows = [full(1, 10), bare(2, 20)];
        assert_eq!(decode(&bytes_of(include_str!("request_page_1.hex"))).expect("decodes"), rows);
    }

    #[test]
    fn a_cut_page_of_the_first_form_is_an_error() {
        let good = bytes_of(include_str!("request_page_1.hex"));
        assert!((1..good.len()).all(|length| decode(&good[..length]).is_err()));
    }
}
