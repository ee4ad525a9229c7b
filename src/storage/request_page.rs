//! A batch of ended requests as one blob of the table `request_log`: bytes to rows and back, no SQL.
//!
//! Used by [`super::request_log`] alone. A row of its own for each request cost 1.3 µs of CPU in a flood, a page costs
//! 0.3 µs a request, since names that repeat are written once (ADR 6).
//! A page that was written by a release must stay readable: a change of [`StoredRow`] is a new [`FORMAT`].

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::types::clock::UnixMillis;
use crate::types::ids::{EngineId, KeyId, RequestId};
use crate::types::request::{Progress, RequestEnd, RequestRow, StageTimes, TokenSource, TokenUsage};

/// First byte of a page: the form of what follows.
const FORMAT: u8 = 1;

/// Why a page could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum PageFault {
    /// Not what [`encode`] writes.
    #[error("a page of the request log is damaged: {0}")]
    Damaged(String),
    /// A later FLM wrote it.
    #[error("a page of the request log has the form {0}, which this version does not know")]
    Newer(u8),
}

impl From<postcard::Error> for PageFault {
    fn from(error: postcard::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

#[derive(Serialize, Deserialize)]
struct Page<'a> {
    /// Every text of the rows, once.
    #[serde(borrow)]
    texts: Vec<&'a str>,
    #[serde(borrow)]
    rows: Vec<StoredRow<'a>>,
}

/// Place of a text in [`Page::texts`].
type Text = u32;

#[derive(Serialize, Deserialize)]
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

/// Numbers the texts of a page.
#[derive(Default)]
struct Texts<'a> {
    list: Vec<&'a str>,
    places: HashMap<&'a str, Text>,
}

/// The text that a column had last: most rows repeat it, and comparing is cheaper than hashing.
type Last<'a> = Option<(&'a str, Text)>;

/// One [`Last`] for each column with names.
#[derive(Default)]
struct Columns<'a> {
    key: Last<'a>,
    key_label: Last<'a>,
    method: Last<'a>,
    path: Last<'a>,
    route: Last<'a>,
    model: Last<'a>,
    engine: Last<'a>,
    error_code: Last<'a>,
    user_agent: Last<'a>,
}

impl<'a> Texts<'a> {
    fn place(&mut self, last: &mut Last<'a>, text: &'a str) -> Text {
        if let Some((same, place)) = *last
            && same == text
        {
            return place;
        }
        let place = *self.places.entry(text).or_insert_with(|| {
            self.list.push(text);
            // A page has far fewer texts than 2^32: a shard holds 4096 rows (telemetry::metrics).
            u32::try_from(self.list.len() - 1).unwrap_or(u32::MAX)
        });
        *last = Some((text, place));
        place
    }

    fn maybe(&mut self, last: &mut Last<'a>, text: Option<&'a str>) -> Option<Text> {
        text.map(|text| self.place(last, text))
    }
}

/// Writes a page.
pub(super) fn encode(rows: &[impl Borrow<RequestRow>]) -> Result<Vec<u8>, PageFault> {
    let (mut texts, mut columns) = (Texts::default(), Columns::default());
    let stored = rows.iter().map(|row| store(row.borrow(), &mut texts, &mut columns)).collect();
    let page = Page { texts: texts.list, rows: stored };
    Ok(postcard::to_extend(&page, vec![FORMAT])?)
}

/// Reads a page.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<RequestRow>, PageFault> {
    let page: Page<'_> = match bytes.split_first() {
        Some((&FORMAT, rest)) => postcard::from_bytes(rest)?,
        Some((&other, _)) => return Err(PageFault::Newer(other)),
        None => return Err(PageFault::Damaged("it is empty".into())),
    };
    // A label or a model is one allocation for all rows that name it.
    let shared: Vec<Arc<str>> = page.texts.iter().map(|text| Arc::from(*text)).collect();
    page.rows.iter().map(|row| restore(row, &shared)).collect()
}

fn store<'a>(row: &'a RequestRow, texts: &mut Texts<'a>, last: &mut Columns<'a>) -> StoredRow<'a> {
    let StageTimes { screened, authenticated, parsed, resolved, sent, first_byte, first_token } = row.stages;
    StoredRow {
        id: row.id.as_str(),
        at: row.at.0,
        client: row.client,
        key: texts.maybe(&mut last.key, row.key.as_ref().map(KeyId::as_str)),
        key_label: texts.maybe(&mut last.key_label, row.key_label.as_deref()),
        method: texts.place(&mut last.method, &row.method),
        path: texts.place(&mut last.path, &row.path),
        route: texts.maybe(&mut last.route, row.route.as_deref()),
        model: texts.maybe(&mut last.model, row.model.as_deref()),
        engine: texts.maybe(&mut last.engine, row.engine.as_ref().map(EngineId::as_str)),
        status: row.status,
        error_code: texts.maybe(&mut last.error_code, row.error_code.as_deref()),
        stream: row.stream,
        tokens: [row.tokens.prompt, row.tokens.completion, row.tokens.cached],
        tokens_source: source_code(row.tokens.source),
        bytes: [row.bytes_in, row.bytes_out],
        stages: [screened, authenticated, parsed, resolved, sent, first_byte, first_token],
        ended: match row.progress {
            Progress::Running => None,
            Progress::Ended { end, took_us } => Some((end_code(end), took_us)),
        },
        user_agent: texts.maybe(&mut last.user_agent, row.user_agent.as_deref()),
    }
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
        id: RequestId::try_from(row.id.to_owned()).map_err(|error| PageFault::Damaged(error.to_string()))?,
        at: UnixMillis(row.at),
        client: row.client,
        key: maybe(row.key)?
            .map(|id| KeyId::parse(id))
            .transpose()
            .map_err(|error| PageFault::Damaged(error.to_string()))?,
        key_label: maybe(row.key_label)?.cloned(),
        method: text(row.method)?.to_string().into(),
        path: text(row.path)?.to_string().into(),
        route: owned(row.route)?.map(Cow::Owned),
        model: maybe(row.model)?.cloned(),
        engine: maybe(row.engine)?
            .map(|id| EngineId::parse(id))
            .transpose()
            .map_err(|error| PageFault::Damaged(error.to_string()))?,
        status: row.status,
        error_code: owned(row.error_code)?.map(Cow::Owned),
        stream: row.stream,
        tokens: TokenUsage { prompt, completion, cached, source: source(row.tokens_source)? },
        bytes_in,
        bytes_out,
        stages: StageTimes { screened, authenticated, parsed, resolved, sent, first_byte, first_token },
        progress: match row.ended {
            None => Progress::Running,
            Some((code, took_us)) => Progress::Ended { end: end(code)?, took_us },
        },
        user_agent: owned(row.user_agent)?,
        trace: None,
    })
}

fn end_code(end: RequestEnd) -> u8 {
    match end {
        RequestEnd::Completed => 0,
        RequestEnd::Refused => 1,
        RequestEnd::EngineFailed => 2,
        RequestEnd::ClientLeft => 3,
        RequestEnd::Cancelled => 4,
    }
}

fn end(code: u8) -> Result<RequestEnd, PageFault> {
    Ok(match code {
        0 => RequestEnd::Completed,
        1 => RequestEnd::Refused,
        2 => RequestEnd::EngineFailed,
        3 => RequestEnd::ClientLeft,
        4 => RequestEnd::Cancelled,
        other => return Err(PageFault::Damaged(format!("no request ends with {other}"))),
    })
}

fn source_code(source: TokenSource) -> u8 {
    match source {
        TokenSource::None => 0,
        TokenSource::Engine => 1,
        TokenSource::Estimated => 2,
    }
}

fn source(code: u8) -> Result<TokenSource, PageFault> {
    Ok(match code {
        0 => TokenSource::None,
        1 => TokenSource::Engine,
        2 => TokenSource::Estimated,
        other => return Err(PageFault::Damaged(format!("tokens have no source {other}"))),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::storage) fn bare(number: u32, at: i64) -> RequestRow {
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
            trace: None,
        }
    }

    pub(in crate::storage) fn full(number: u32, at: i64) -> RequestRow {
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
    fn a_page_gives_back_every_field_of_every_row() {
        let mut rows = vec![full(1, 10), bare(2, -20), RequestRow { progress: Progress::Running, ..bare(3, 0) }];
        for end in [RequestEnd::Completed, RequestEnd::EngineFailed, RequestEnd::Cancelled] {
            rows.push(RequestRow { progress: Progress::Ended { end, took_us: u64::MAX }, ..full(4, i64::MAX) });
        }
        for source in [TokenSource::Estimated, TokenSource::None] {
            rows.push(RequestRow { tokens: TokenUsage { source, ..full(5, 0).tokens }, ..full(5, 1) });
        }
        assert_eq!(decode(&encode(&rows).expect("encodes")).expect("decodes"), rows);
    }

    #[test]
    fn names_that_repeat_are_written_once() {
        let one = encode(&[full(1, 10)]).expect("encodes").len();
        let rows: Vec<_> = (0..100).map(|number| full(number, 10)).collect();
        let each = encode(&rows).expect("encodes").len() / 100;
        assert!(each * 2 < one, "{each} B a row in a page of 100, {one} B alone");
    }

    #[test]
    fn a_damaged_or_newer_page_is_an_error_and_never_a_panic() {
        let good = encode(&[full(1, 10), bare(2, 20)]).expect("encodes");
        assert!(matches!(decode(&[]), Err(PageFault::Damaged(_))));
        assert!(matches!(decode(&[9, 1, 2]), Err(PageFault::Newer(9))));
        for length in 1..good.len() {
            assert!(decode(&good[..length]).is_err(), "cut to {length}");
        }
        for place in 1..good.len() {
            let mut wrong = good.clone();
            wrong[place] ^= 0xff;
            // Some bytes are numbers that may be anything; what matters is that it comes back.
            let _either = decode(&wrong).is_ok();
        }
    }

    /// A page as version 1 of the form wrote it: it must stay readable for ever.
    #[test]
    fn a_page_of_the_first_form_is_still_read() {
        let rows = [full(1, 10), bare(2, 20)];
        let hex = include_str!("request_page_1.hex").trim_end().as_bytes();
        let bytes: Vec<u8> = hex
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal"))
            .collect();
        assert_eq!(decode(&bytes).expect("decodes"), rows);
    }
}
