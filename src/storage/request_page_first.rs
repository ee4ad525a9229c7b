//! The first form of a page of the request log, which releases before the second wrote: bytes to rows. Nothing writes it any more.
//!
//! Used by [`super::request_page`].

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::request_page::{PageFault, end, source};
use crate::types::clock::UnixMillis;
use crate::types::ids::{EngineId, KeyId, RequestId};
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

/// Place of a text in [`Page::texts`].
type Text = u32;

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
    let text = |place: Text| -> Result<&Arc<str>, PageFault> {
        let found = usize::try_from(place).ok().and_then(|place| texts.get(place));
        found.ok_or_else(|| PageFault::Damaged(format!("it has no text {place}")))
    };
    let maybe = |place: Option<Text>| place.map(text).transpose();
    let owned = |place: Option<Text>| maybe(place).map(|found| found.map(ToString::to_string));
    let [screened, authenticated, parsed, resolved, sent, first_byte, first_token] = row.stages;
    let [prompt, completion, cached] = row.tokens;
    let [bytes_in, bytes_out] = row.bytes;
    Ok(RequestRow {
        id: RequestId::try_from(row.id.to_owned()).map_err(PageFault::damaged)?,
        at: UnixMillis(row.at),
        client: row.client,
        key: maybe(row.key)?.map(|id| KeyId::parse(id)).transpose().map_err(PageFault::damaged)?,
        key_label: maybe(row.key_label)?.cloned(),
        method: text(row.method)?.to_string().into(),
        path: text(row.path)?.to_string().into(),
        route: owned(row.route)?.map(Cow::Owned),
        model: maybe(row.model)?.cloned(),
        engine: maybe(row.engine)?.map(|id| EngineId::parse(id)).transpose().map_err(PageFault::damaged)?,
        status: row.status,
        error_code: owned(row.error_code)?.map(Cow::Owned),
        stream: row.stream,
        tokens: TokenUsage { prompt, completion, cached, source: source(row.tokens_source)? },
        bytes_in,
        bytes_out,
        stages: StageTimes { screened, authenticated, parsed, resolved, sent, first_byte, first_token },
        progress: match row.ended {
            None => Progress::Running,
            Some((code, took_us)) => end(code, took_us)?,
        },
        user_agent: maybe(row.user_agent)?.cloned(),
        trace: None,
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
