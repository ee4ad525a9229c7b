//! Exports the traces of ended requests to an OpenTelemetry collector by OTLP over HTTP, in JSON; off until
//! `traces.endpoint` names one (ADR 19).
//!
//! The collector of rows offers them ([`Offer`]), the owner runs [`export`]. Must never hold a request up: the queue is
//! bounded, what does not fit is dropped and counted. Dials by the egress setting, as everything that leaves (SPEC §7).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::table;
use crate::net::post::{Hosts, PostError, post};
use crate::net::web_address::WebAddress;
use crate::operations::context::Context;
use crate::telemetry::metrics::TraceCounts;
use crate::types::request::RequestRow;
use crate::types::text::escape;
use crate::wire::otlp;

/// Requests that may wait for the exporter: some 2 MB.
const QUEUE: usize = 4096;
/// Requests that are sent at once, seven spans each: some 600 kB.
const BATCH: usize = 128;
/// How long a batch waits for more.
const GATHER: Duration = Duration::from_secs(1);
/// Time for one try.
const LIMIT: Duration = Duration::from_secs(10);
/// Time for what is still on its way when the owner ends.
const LAST: Duration = Duration::from_secs(1);
/// Pauses between tries; after the last of them a batch is dropped.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(10), Duration::from_secs(30)];
/// Longest pause that a collector may ask for.
const LONGEST: Duration = Duration::from_secs(60);

/// Takes ended requests for export, and never waits.
pub(super) struct Offer {
    queue: mpsc::Sender<Arc<RequestRow>>,
    counts: Arc<TraceCounts>,
}

impl Offer {
    /// The two ends of the queue.
    pub(super) fn new(counts: Arc<TraceCounts>) -> (Self, mpsc::Receiver<Arc<RequestRow>>) {
        let (queue, rows) = mpsc::channel(QUEUE);
        (Self { queue, counts }, rows)
    }

    /// Offers those that are recorded.
    pub(super) fn offer(&self, rows: &[Arc<RequestRow>]) {
        for row in rows.iter().filter(|row| otlp::recorded(row).is_some()) {
            if self.queue.try_send(row.clone()).is_err() {
                self.counts.dropped(1);
            }
        }
    }
}

/// Where traces go, as the settings say now.
struct Receiver {
    address: WebAddress,
    headers: HeaderMap,
}

/// Why a batch did not arrive.
#[derive(Debug, thiserror::Error)]
enum Undelivered {
    #[error("{0}")]
    Settings(String),
    #[error(transparent)]
    Post(#[from] PostError),
    #[error("it answered {status}: {body}")]
    Refused { status: StatusCode, body: String, after: Option<Duration> },
}

impl Undelivered {
    /// Whether, and how long after, the same may be sent again (OTLP/HTTP, "Failures": 429, 502, 503 and 504).
    fn again(&self) -> Option<Duration> {
        match self {
            Self::Settings(_) | Self::Post(PostError::NotPublic { .. }) => None,
            Self::Post(_) => Some(Duration::ZERO),
            Self::Refused { status, after, .. } => {
                matches!(status.as_u16(), 429 | 502..=504).then(|| after.unwrap_or_default().min(LONGEST))
            }
        }
    }
}

/// Sends batches until the queue is closed and empty; once `ending` fires nothing is tried again.
pub(super) async fn export(
    context: Arc<Context>,
    mut queue: mpsc::Receiver<Arc<RequestRow>>,
    counts: Arc<TraceCounts>,
    ending: CancellationToken,
) {
    let mut failing = false;
    let mut batch = Vec::new();
    while let Some(row) = queue.recv().await {
        batch.push(row);
        gather(&mut queue, &mut batch, &ending).await;
        let outcome = deliver(&context, &batch, &ending).await;
        let count = batch.drain(..).len() as u64;
        match outcome {
            Ok(()) => {
                counts.exported(count);
                if std::mem::take(&mut failing) {
                    tracing::info!("traces reach their collector again");
                }
            }
            Err(why) => {
                counts.dropped(count);
                // Once for each outage: a collector that is away for a day is told of once.
                if !std::mem::replace(&mut failing, true) {
                    let why = escape(&why.to_string()).into_owned();
                    tracing::warn!(traces = count, why, "traces did not reach their collector and are dropped");
                }
                if ending.is_cancelled() {
                    return;
                }
            }
        }
    }
}

/// Fills a batch from what comes within a moment.
async fn gather(
    queue: &mut mpsc::Receiver<Arc<RequestRow>>,
    batch: &mut Vec<Arc<RequestRow>>,
    ending: &CancellationToken,
) {
    let more = async { while batch.len() < BATCH && queue.recv_many(batch, BATCH - batch.len()).await > 0 {} };
    tokio::select! {
        biased;
        () = more => {}
        () = ending.cancelled() => {}
        () = tokio::time::sleep(GATHER) => {}
    }
}

/// What the settings name.
fn receiver(context: &Context) -> Result<Receiver, String> {
    let settings = context.settings.load();
    let endpoint = settings.get(table::TRACES_ENDPOINT);
    if endpoint.is_empty() {
        return Err("they were switched off meanwhile".to_owned());
    }
    let address = WebAddress::parse(&with_path(&endpoint)).map_err(|fault| format!("traces.endpoint: {fault}"))?;
    let variable = settings.get(table::TRACES_HEADERS_ENV);
    let mut headers = HeaderMap::new();
    if !variable.is_empty() {
        let text = context.variable(&variable).ok_or_else(|| format!("the variable {variable} is not set"))?;
        headers =
            parse_headers(&text).ok_or_else(|| format!("the variable {variable} is not NAME=VALUE,NAME=VALUE"))?;
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(Receiver { address, headers })
}

/// A collector that is named without a path takes traces at `/v1/traces` (OTLP/HTTP, "Request").
fn with_path(endpoint: &str) -> String {
    let host = endpoint.trim_end_matches('/');
    if host.matches('/').count() == 2 { format!("{host}/v1/traces") } else { endpoint.to_owned() }
}

/// Headers as `OTEL_EXPORTER_OTLP_HEADERS` writes them: `name=value,…`, values percent-encoded.
fn parse_headers(text: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let mut value = HeaderValue::from_bytes(&percent_decoded(value.trim())?).ok()?;
        value.set_sensitive(true);
        headers.append(name.trim().parse::<HeaderName>().ok()?, value);
    }
    Some(headers)
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        decoded.push(u8::from_str_radix(code, 16).ok()?);
        decoded.extend_from_slice(rest.as_bytes());
    }
    Some(decoded)
}

/// Sends one batch, again and again where that may help.
async fn deliver(context: &Context, rows: &[Arc<RequestRow>], ending: &CancellationToken) -> Result<(), Undelivered> {
    let receiver = receiver(context).map_err(Undelivered::Settings)?;
    let document = otlp::document(rows, env!("CARGO_PKG_VERSION"), &mut || fastrand::u64(1..));
    let body = Bytes::from(document.to_string());
    let mut pauses = PAUSES.into_iter();
    loop {
        let Err(why) = send(context, &receiver, body.clone(), ending).await else { return Ok(()) };
        let (Some(asked), Some(pause)) = (why.again(), pauses.next()) else { return Err(why) };
        tracing::debug!(why = %escape(&why.to_string()), "traces did not arrive; trying again");
        tokio::select! {
            biased;
            () = ending.cancelled() => return Err(why),
            () = tokio::time::sleep(pause.max(asked)) => {}
        }
    }
}

async fn send(
    context: &Context,
    receiver: &Receiver,
    body: Bytes,
    ending: &CancellationToken,
) -> Result<(), Undelivered> {
    let Receiver { address, headers } = receiver;
    let try_once = post(&context.egress, address, Hosts::Any, headers.clone(), body, LIMIT);
    let last = async {
        ending.cancelled().await;
        tokio::time::sleep(LAST).await;
    };
    let posted = tokio::select! {
        biased;
        posted = try_once => posted?,
        () = last => return Err(PostError::Timeout { host: address.host.clone(), limit: LAST }.into()),
    };
    if posted.status.is_success() {
        if posted.body.contains("rejectedSpans") {
            tracing::warn!(answer = %escape(&posted.body), "the collector of traces did not take all of them");
        }
        return Ok(());
    }
    Err(Undelivered::Refused { status: posted.status, body: posted.body, after: posted.retry_after })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::clock::UnixMillis;
    use crate::types::request::{Progress, RequestEnd};
    use crate::types::trace::{RequestTrace, Sampled};

    fn row(sampled: Sampled) -> RequestRow {
        RequestRow {
            at: UnixMillis(1),
            progress: Progress::Ended { end: RequestEnd::Completed, took_us: 1 },
            trace: Some(Box::new(RequestTrace::new(None, None, (1, 1), sampled))),
            ..RequestRow::example(1)
        }
    }

    #[test]
    fn what_does_not_fit_the_queue_is_dropped_and_counted_and_nothing_waits() {
        let counts = Arc::new(TraceCounts::default());
        let (offer, mut queue) = Offer::new(counts.clone());
        offer.offer(&[row(Sampled::No).into(), RequestRow { trace: None, ..row(Sampled::Yes) }.into()]);
        assert!(queue.try_recv().is_err(), "nobody asked for these");
        let rows: Vec<_> = (0..QUEUE + 3).map(|_| row(Sampled::Yes).into()).collect();
        offer.offer(&rows);
        assert_eq!((counts.sums().1, queue.len()), (3, QUEUE));
    }

    #[test]
    fn a_collector_without_a_path_gets_the_usual_one() {
        for (named, asked) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            ("https://otel.example/otlp/v1/traces", "https://otel.example/otlp/v1/traces"),
        ] {
            assert_eq!(with_path(named), asked);
        }
    }

    #[test]
    fn headers_are_read_as_opentelemetry_writes_them() {
        let headers = parse_headers("authorization=Basic%20eHg%3D, x-scope = a ,").expect("reads");
        assert_eq!(headers.get("authorization").expect("there"), "Basic eHg=");
        assert_eq!(headers.get("x-scope").expect("there"), "a");
        assert!(!format!("{headers:?}").contains("eHg"), "{headers:?}");
        for bad in ["authorization", "a b=c", "a=%4", "a=%zz", "a=b%0d%0ac"] {
            assert_eq!(parse_headers(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_what_may_heal_is_sent_again() {
        let refused = |status: u16, after: Option<u64>| {
            let status = StatusCode::from_u16(status).expect("a status");
            let after = after.map(Duration::from_secs);
            Undelivered::Refused { status, body: String::new(), after }.again().map(|pause| pause.as_secs())
        };
        let told = [(400, None), (401, None), (500, None), (429, Some(7)), (503, Some(9_999)), (502, None)];
        let again = told.map(|(status, after)| refused(status, after));
        assert_eq!(again, [None, None, None, Some(7), Some(60), Some(0)]);
    }
}
