//! A batch of ended requests as one blob of the table `request_log`: bytes to rows and back, no SQL.
//!
//! Used by [`super::request_log`] and [`super::request_list`]. A row of its own for each request cost 1.3 µs of CPU in a flood.
//! In a page what requests have in common is written once and the rest takes some 30 bytes: encrypting and writing cost by
//! the byte (ADR 6).
//! A page that was written by a release must stay readable: a change of [`Shape`] or [`StoredRow`] is a new [`FORMAT`].

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::request_page_first as first;
use crate::types::clock::UnixMillis;
use crate::types::ids::{EngineId, KeyId, RequestId};
use crate::types::request::{Progress, RequestEnd, RequestRow, StageTimes, TokenSource, TokenUsage};

/// First byte of a page: the form of what follows.
const FORMAT: u8 = 2;
/// The 100 bits of a request's id, in bytes.
const ID_BYTES: usize = 13;
/// What a row takes, about.
const ROW: usize = 40;

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

impl PageFault {
    pub(super) fn damaged(error: impl fmt::Display) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<postcard::Error> for PageFault {
    fn from(error: postcard::Error) -> Self {
        Self::damaged(error)
    }
}

/// What stands before the rows.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    /// Every text of the rows, once.
    #[serde(borrow)]
    texts: Vec<&'a str>,
    /// What rows have in common, once.
    shapes: Vec<Shape>,
    rows: u64,
}

/// Place of a text in [`Head::texts`].
pub(super) type Text = u32;

/// All of a request but its id and its numbers: somebody who asks the same again has the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Shape {
    pub(super) client: IpAddr,
    pub(super) key: Option<Text>,
    pub(super) key_label: Option<Text>,
    pub(super) method: Text,
    pub(super) path: Text,
    pub(super) route: Option<Text>,
    pub(super) model: Option<Text>,
    pub(super) engine: Option<Text>,
    pub(super) status: u16,
    pub(super) error_code: Option<Text>,
    pub(super) stream: bool,
    pub(super) tokens_source: u8,
    /// How it ended, unless it runs.
    pub(super) end: Option<u8>,
    /// Which stages were timed: a bit for each, the first lowest.
    pub(super) timed: u8,
    pub(super) user_agent: Option<Text>,
}

/// What a request has for itself. Its timed stages follow, each in microseconds after the one before.
#[derive(Serialize, Deserialize)]
struct StoredRow {
    /// Place in [`Head::shapes`].
    shape: u32,
    /// The bits of its id, lowest byte first.
    id: [u8; ID_BYTES],
    /// Milliseconds after the row before; of the first after 1970.
    at: i64,
    tokens: [u64; 3],
    bytes: [u64; 2],
    /// Microseconds until it ended.
    took: u64,
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

/// Numbers the shapes of a page.
#[derive(Default)]
struct Shapes {
    list: Vec<Shape>,
    places: HashMap<Shape, u32>,
    last: Option<(Shape, u32)>,
}

impl Shapes {
    fn place(&mut self, shape: Shape) -> u32 {
        if let Some((same, place)) = self.last
            && same == shape
        {
            return place;
        }
        let place = *self.places.entry(shape).or_insert_with(|| {
            self.list.push(shape);
            u32::try_from(self.list.len() - 1).unwrap_or(u32::MAX)
        });
        self.last = Some((shape, place));
        place
    }
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
    let (mut texts, mut columns, mut shapes) = (Texts::default(), Columns::default(), Shapes::default());
    let mut stored = Vec::with_capacity(rows.len() * ROW);
    let mut before = 0_i64;
    for row in rows {
        let row: &RequestRow = row.borrow();
        let numbers = StoredRow {
            shape: shapes.place(shape(row, &mut texts, &mut columns)),
            id: id_bytes(row.id),
            at: row.at.0.wrapping_sub(before),
            tokens: [row.tokens.prompt, row.tokens.completion, row.tokens.cached],
            bytes: [row.bytes_in, row.bytes_out],
            took: match row.progress {
                Progress::Running => 0,
                Progress::Ended { took_us, .. } => took_us,
            },
        };
        before = row.at.0;
        stored = postcard::to_extend(&numbers, stored)?;
        let mut until = 0;
        for stage in stages(&row.stages).into_iter().flatten() {
            stored = postcard::to_extend(&(i64::from(stage) - until), stored)?;
            until = stage.into();
        }
    }
    let head = Head { texts: texts.list, shapes: shapes.list, rows: rows.len() as u64 };
    let mut page = postcard::to_extend(&head, vec![FORMAT])?;
    page.append(&mut stored);
    Ok(page)
}

/// Reads a page.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<RequestRow>, PageFault> {
    let (head, mut rest): (Head<'_>, &[u8]) = match bytes.split_first() {
        Some((&FORMAT, rest)) => postcard::take_from_bytes(rest)?,
        Some((&first::FORMAT, rest)) => return first::decode(rest),
        Some((&other, _)) => return Err(PageFault::Newer(other)),
        None => return Err(PageFault::Damaged("it is empty".into())),
    };
    // A label or a model is one allocation for all rows that name it.
    let texts: Vec<Arc<str>> = head.texts.iter().map(|text| Arc::from(*text)).collect();
    let templates = head.shapes.iter().map(|shape| template(shape, &texts)).collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::new();
    let mut before = 0_i64;
    for _ in 0..head.rows {
        let stored: StoredRow = next(&mut rest)?;
        let place = usize::try_from(stored.shape).unwrap_or(usize::MAX);
        let (Some(shape), Some(template)) = (head.shapes.get(place), templates.get(place)) else {
            return Err(PageFault::Damaged(format!("it has no shape {place}")));
        };
        before = before.wrapping_add(stored.at);
        rows.push(restore(template, &stored, UnixMillis(before), timed_stages(shape.timed, &mut rest)?));
    }
    if rest.is_empty() { Ok(rows) } else { Err(PageFault::Damaged("something follows the last row".into())) }
}

/// Takes the next value off a page.
fn next<'a, T: Deserialize<'a>>(rest: &mut &'a [u8]) -> Result<T, PageFault> {
    let (value, left) = postcard::take_from_bytes(rest)?;
    *rest = left;
    Ok(value)
}

fn id_bytes(id: RequestId) -> [u8; ID_BYTES] {
    let mut bytes = [0; ID_BYTES];
    bytes.copy_from_slice(&id.bits().to_le_bytes()[..ID_BYTES]);
    bytes
}

fn stages(times: &StageTimes) -> [Option<u32>; 7] {
    let StageTimes { screened, authenticated, parsed, resolved, sent, first_byte, first_token } = *times;
    [screened, authenticated, parsed, resolved, sent, first_byte, first_token]
}

fn timed_stages(timed: u8, rest: &mut &[u8]) -> Result<StageTimes, PageFault> {
    let mut until = 0_i64;
    let mut stages = [None; 7];
    for (bit, stage) in stages.iter_mut().enumerate().filter(|(bit, _)| timed >> bit & 1 == 1) {
        until = until.wrapping_add(next(rest)?);
        let us = u32::try_from(until);
        *stage = Some(us.map_err(|_outside| PageFault::Damaged(format!("stage {bit} ends after {until} µs")))?);
    }
    let [screened, authenticated, parsed, resolved, sent, first_byte, first_token] = stages;
    Ok(StageTimes { screened, authenticated, parsed, resolved, sent, first_byte, first_token })
}

fn shape<'a>(row: &'a RequestRow, texts: &mut Texts<'a>, last: &mut Columns<'a>) -> Shape {
    Shape {
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
        tokens_source: source_code(row.tokens.source),
        end: match row.progress {
            Progress::Running => None,
            Progress::Ended { end, .. } => Some(end_code(end)),
        },
        timed: stages(&row.stages)
            .iter()
            .zip(0..)
            .fold(0, |timed, (stage, bit)| timed | u8::from(stage.is_some()) << bit),
        user_agent: texts.maybe(&mut last.user_agent, row.user_agent.as_deref()),
    }
}

/// A row as all of a shape begin.
pub(super) fn template(shape: &Shape, texts: &[Arc<str>]) -> Result<RequestRow, PageFault> {
    let text = |place: Text| -> Result<&Arc<str>, PageFault> {
        let found = usize::try_from(place).ok().and_then(|place| texts.get(place));
        found.ok_or_else(|| PageFault::Damaged(format!("it has no text {place}")))
    };
    let maybe = |place: Option<Text>| place.map(text).transpose();
    let owned = |place: Option<Text>| maybe(place).map(|found| found.map(ToString::to_string));
    Ok(RequestRow {
        id: RequestId::from_random(0),
        at: UnixMillis(0),
        client: shape.client,
        key: maybe(shape.key)?.map(|id| KeyId::parse(id)).transpose().map_err(PageFault::damaged)?,
        key_label: maybe(shape.key_label)?.cloned(),
        method: text(shape.method)?.to_string().into(),
        path: text(shape.path)?.to_string().into(),
        route: owned(shape.route)?.map(Cow::Owned),
        model: maybe(shape.model)?.cloned(),
        engine: maybe(shape.engine)?.map(|id| EngineId::parse(id)).transpose().map_err(PageFault::damaged)?,
        status: shape.status,
        error_code: owned(shape.error_code)?.map(Cow::Owned),
        stream: shape.stream,
        tokens: TokenUsage { source: source(shape.tokens_source)?, ..TokenUsage::default() },
        bytes_in: 0,
        bytes_out: 0,
        stages: StageTimes::default(),
        progress: shape.end.map(|code| end(code, 0)).transpose()?.unwrap_or(Progress::Running),
        user_agent: maybe(shape.user_agent)?.cloned(),
        trace: None,
    })
}

fn restore(template: &RequestRow, stored: &StoredRow, at: UnixMillis, stages: StageTimes) -> RequestRow {
    let mut bits = [0; 16];
    bits[..ID_BYTES].copy_from_slice(&stored.id);
    let [prompt, completion, cached] = stored.tokens;
    let [bytes_in, bytes_out] = stored.bytes;
    RequestRow {
        id: RequestId::from_random(u128::from_le_bytes(bits)),
        at,
        tokens: TokenUsage { prompt, completion, cached, source: template.tokens.source },
        bytes_in,
        bytes_out,
        stages,
        progress: match template.progress {
            Progress::Running => Progress::Running,
            Progress::Ended { end, .. } => Progress::Ended { end, took_us: stored.took },
        },
        ..template.clone()
    }
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

/// The end of that code, after so many microseconds.
pub(super) fn end(code: u8, took_us: u64) -> Result<Progress, PageFault> {
    let end = match code {
        0 => RequestEnd::Completed,
        1 => RequestEnd::Refused,
        2 => RequestEnd::EngineFailed,
        3 => RequestEnd::ClientLeft,
        4 => RequestEnd::Cancelled,
        other => return Err(PageFault::Damaged(format!("no request ends with {other}"))),
    };
    Ok(Progress::Ended { end, took_us })
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

    /// A page as this form wrote it first: it must stay readable for ever.
    #[test]
    fn a_page_of_this_form_is_still_read() {
        let rows = [full(1, 10), bare(2, 20)];
        assert_eq!(decode(&bytes_of(include_str!("request_page_2.hex"))).expect("decodes"), rows);
    }

    #[test]
    fn requests_of_one_client_take_few_bytes_each() {
        let rows: Vec<_> = (0..1000).map(|number| full(number, 1_700_000_000_000 + i64::from(number))).collect();
        let each = encode(&rows).expect("encodes").len() / 1000;
        assert!(each <= 36, "{each} B a row");
    }

    #[test]
    fn times_that_go_back_and_large_numbers_come_back() {
        let mut rows = vec![full(1, i64::MAX), full(2, i64::MIN), full(u32::MAX, 0)];
        rows[0].id = RequestId::from_random(u128::MAX);
        rows[1].stages = StageTimes { screened: Some(u32::MAX), sent: Some(0), ..StageTimes::default() };
        rows[2].tokens.prompt = u64::MAX;
        rows[2].bytes_in = u64::MAX;
        assert_eq!(decode(&encode(&rows).expect("encodes")).expect("decodes"), rows);
    }

    /// What a file of hexadecimal digits holds.
    pub(in crate::storage) fn bytes_of(hex: &str) -> Vec<u8> {
        let pairs = hex.trim_end().as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal"))
            .collect()
    }
}
