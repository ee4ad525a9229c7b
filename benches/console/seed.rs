//! A home with a long history: security events and requests as months of use leave them.

use std::path::Path;
use std::time::{Duration, Instant};

use flm::audit::AuditLog;
use flm::storage::SecurityStore;
use flm::telemetry::live::Hub;
use flm::telemetry::tasks::Tasks;
use flm::types::audit::{AuditEvent, AuditKind, Severity};
use flm::types::calls::audit::{AuditColumn, ListAudit};
use flm::types::calls::requests::{PageRequests, RequestColumn, RequestKey};
use flm::types::clock::{Clock, UnixMillis};
use flm::types::ids::RequestId;
use flm::types::order::Place;
use flm::types::request::{Progress, RequestEnd, RequestRow, StageTimes, TokenSource, TokenUsage};

use crate::Fault;

/// Events that wait at most, well below what the queue holds, so that none is shed.
const AHEAD: u64 = 4_096;
/// Requests of one page of the log.
const PAGE: u64 = 1_000;

/// What was asked of the stores, and how many milliseconds the answer took.
pub(crate) type Asked = Vec<(&'static str, f64)>;

/// Writes so many events and so many requests into the home, whose owner must have ended, and asks for some pages of them.
pub(crate) fn fill(home: &Path, events: u64, requests: u64) -> Result<Asked, Fault> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let store = SecurityStore::open(&home.join("security.db"), &home.join("keys").join("security.key"))?;
        let (tasks, clock) = (Tasks::new(), Clock::system());
        let log = AuditLog::start(store.clone(), Hub::new(), &tasks, clock.clone()).await?;
        let sink = log.sink();
        let now = clock.wall();
        for number in 0..events {
            while number.saturating_sub(log.head().sequence) >= AHEAD {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            sink.record(event(number, now.minus(Duration::from_millis((events - number) * 5_000))));
        }
        sink.record_acknowledged(event(events, now)).await;
        for page in 0..requests.div_ceil(PAGE) {
            let numbers = page * PAGE..(page * PAGE + PAGE).min(requests);
            let rows =
                numbers.map(|number| request(number, now.minus(Duration::from_millis((requests - number) * 500))));
            store.append_requests(rows.collect()).await?;
        }
        let asked = pages(&store, events, requests).await?;
        tasks.shutdown(Duration::from_secs(10)).await;
        store.close().await?;
        Ok(asked)
    })
}

async fn pages(store: &SecurityStore, events: u64, requests: u64) -> Result<Asked, Fault> {
    let page = ListAudit { limit: 200, ..ListAudit::default() };
    let middle = Place::Behind(events / 2);
    let mut asked = Vec::new();
    for (what, call) in [
        ("the newest events", page.clone()),
        ("events from the middle", ListAudit { place: middle, ..page.clone() }),
        ("the oldest events", ListAudit { place: Place::End, ..page.clone() }),
        ("severe events from the middle", ListAudit { severity: Some(Severity::High), place: middle, ..page.clone() }),
        ("events sorted by severity", ListAudit { by: AuditColumn::Severity, place: middle, ..page.clone() }),
        ("events sorted by address", ListAudit { by: AuditColumn::Address, place: middle, ..page.clone() }),
        ("events with a text that many hold", ListAudit { text: "traversal".to_owned(), ..page.clone() }),
        ("events with a text that none holds", ListAudit { text: "no such text".to_owned(), ..page }),
    ] {
        let began = Instant::now();
        store.audit_page(call).await?;
        asked.push((what, began.elapsed().as_secs_f64() * 1e3));
    }
    let page = PageRequests { limit: 200, ..PageRequests::default() };
    let middle = Place::Behind(RequestKey::Number(requests / 2));
    for (what, call) in [
        ("the newest requests", page.clone()),
        ("requests from the middle", PageRequests { place: middle, ..page.clone() }),
        ("requests sorted by latency", PageRequests { by: RequestColumn::Latency, ..page.clone() }),
        ("requests with a text that none holds", PageRequests { text: "no such text".to_owned(), ..page }),
    ] {
        let began = Instant::now();
        store.request_page(call).await?;
        asked.push((what, began.elapsed().as_secs_f64() * 1e3));
    }
    Ok(asked)
}

fn event(number: u64, at: UnixMillis) -> AuditEvent {
    let (kind, severity, details) = match number % 50 {
        0 => (AuditKind::RuleHit, Severity::High, "path-traversal: /v1/../../etc/passwd".to_owned()),
        1 => (AuditKind::BlockAdded, Severity::Medium, "5 wrong keys in 15 minutes".to_owned()),
        _ => (AuditKind::AddressRefused, Severity::Low, format!("refused, number {number}")),
    };
    let mut event = AuditEvent::new(at, kind, severity, details);
    let [_, a, b, c] = u32::try_from(number % 16_000_000).unwrap_or(0).to_be_bytes();
    event.address = Some(std::net::Ipv4Addr::new(198, a, b, c).into());
    event.endpoint = Some("/v1/chat/completions".to_owned());
    event.status = Some(403);
    event
}

/// A request that ended well, or now and then found no engine.
pub(crate) fn request(number: u64, at: UnixMillis) -> RequestRow {
    RequestRow {
        id: RequestId::from_random(u128::from(number) + 1),
        at,
        client: std::net::IpAddr::from([192, 168, 1, 20]),
        key: None,
        key_label: Some("laptop".into()),
        method: "POST".into(),
        path: "/v1/chat/completions".into(),
        route: Some("chat.completions".into()),
        model: Some("bench-fast".into()),
        engine: None,
        status: if number.is_multiple_of(97) { 503 } else { 200 },
        error_code: None,
        stream: false,
        tokens: TokenUsage { prompt: 12, completion: number % 900, cached: 0, source: TokenSource::Engine },
        bytes_in: 120,
        bytes_out: 400,
        stages: StageTimes { first_token: Some(900), ..StageTimes::default() },
        progress: Progress::Ended { end: RequestEnd::Completed, took_us: 1_000 + number * 7_919 % 90_000 },
        user_agent: None,
        trace: None,
    }
}
