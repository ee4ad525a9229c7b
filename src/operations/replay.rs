//! Recorded requests through the rules, and counts of what the rules found. Changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::context::Context;
use crate::config::files;
use crate::guard::detectors::{self, head::Head};
use crate::guard::failures::network_of;
use crate::guard::rates::AddressRates;
use crate::guard::suspects::{Finding, Outcome, Reached, Suspects};
use crate::proxy::knows_route;
use crate::types::address::counting_prefix;
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::audit::ListAudit;
use crate::types::calls::replay::{
    RecordedRequest, ReplayReport, ReplayRequests, ReplayedBlock, SecurityCounts, SecurityStats,
};
use crate::types::clock::UnixMillis;
use crate::types::failure::{ErrorCode, Failure, Outcome as Answer};
use crate::types::order::Place;
use crate::types::policy::{RuleName, SecurityPolicy};

/// Largest file that is replayed: a million requests have a few hundred megabytes.
const LARGEST: u64 = 2 << 30;
/// Findings that are told with a block.
const TOLD: usize = 5;
/// Rows of the audit log that are read at once, and addresses that are told.
const PAGE: u32 = 1000;
const SOURCES: usize = 10;

/// Runs recorded requests through the rules of the policy in force.
///
/// # Errors
/// When the file cannot be read by the process that owns the home, or holds no request at all.
pub async fn replay(context: &Context, call: ReplayRequests) -> Answer<ReplayReport> {
    let path = Path::new(&call.path);
    if files::size(path)? > LARGEST {
        let what = format!("{} is larger than 2 GiB", call.path);
        return Err(Failure::new(ErrorCode::InvalidArgument, what).hint("cut it into parts by time"));
    }
    let policy = super::policy::stored(context).await?;
    let trusted: Vec<_> = {
        let list = crate::types::calls::addresses::NetworkList::Trusted;
        context.stores.security.networks(list).await?.into_iter().map(|entry| entry.network).collect()
    };
    let (clock, owned) = (context.clock.clone(), path.to_owned());
    let work = tokio::task::spawn_blocking(move || {
        let text = files::read_limited(&owned, LARGEST)?;
        let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
        Answer::Ok(run(&policy, &text, clock.monotonic(), is_trusted))
    });
    let report = work.await.map_err(|_panicked| Failure::new(ErrorCode::Internal, "replaying broke off"))??;
    if report.requests == 0 {
        let why = report
            .first_unreadable
            .map_or_else(|| "it is empty".to_owned(), |(line, why)| format!("line {line}: {why}"));
        return Err(Failure::new(ErrorCode::InvalidArgument, format!("{} holds no request: {why}", call.path)).hint(
            "write one with: flm logs requests --format jsonl > FILE; docs/schemas/request-log.json tells the form",
        ));
    }
    Ok(report)
}

/// The state of a replay.
struct Replay<'a> {
    policy: &'a SecurityPolicy,
    suspects: Suspects,
    rates: AddressRates,
    /// When the block of a prefix would end.
    blocked: HashMap<IpAddr, UnixMillis>,
    why: HashMap<IpAddr, Vec<String>>,
    report: ReplayReport,
}

fn run(
    policy: &SecurityPolicy,
    text: &[u8],
    origin: std::time::Instant,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> ReplayReport {
    let mut replay = Replay {
        policy,
        suspects: Suspects::default(),
        rates: AddressRates::default(),
        blocked: HashMap::new(),
        why: HashMap::new(),
        report: ReplayReport::default(),
    };
    let mut requests = Vec::new();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<RecordedRequest>(line) {
            Ok(request) => requests.push(request),
            Err(error) => {
                replay.report.unreadable += 1;
                replay.report.first_unreadable.get_or_insert((number as u64 + 1, error.to_string()));
            }
        }
    }
    // Logs are listed newest first.
    requests.sort_by_key(|request| request.at);
    let first = requests.first().map_or(0, |request| request.at);
    for request in &requests {
        let since = Duration::from_millis(u64::try_from(request.at - first).unwrap_or(0));
        replay.one(request, origin + since, is_trusted(request.client));
    }
    replay.report
}

impl Replay<'_> {
    fn one(&mut self, request: &RecordedRequest, at: std::time::Instant, trusted: bool) {
        let now = UnixMillis(request.at);
        let prefix = counting_prefix(request.client);
        self.report.requests += 1;
        if !trusted && self.blocked.get(&prefix).is_some_and(|until| *until > now) {
            self.report.refused += 1;
            return;
        }
        let mut findings = self.findings(request, at, now);
        if request.key.is_some() {
            findings.retain(|finding| finding.rule.holds_for_keys());
        }
        if findings.is_empty() {
            return;
        }
        let outcome = self.suspects.add(self.policy, request.client, findings, now);
        self.told(request, &outcome, trusted);
    }

    fn told(&mut self, request: &RecordedRequest, outcome: &Outcome, trusted: bool) {
        let prefix = counting_prefix(request.client);
        self.report.scored += u64::from(!outcome.scored.is_empty());
        let why = self.why.entry(prefix).or_default();
        for scored in &outcome.scored {
            *self.report.rules.entry(scored.finding.rule).or_default() += 1;
            why.push(format!("{} +{}: {}", scored.finding.rule, scored.points, scored.finding.evidence));
        }
        why.drain(..why.len().saturating_sub(TOLD));
        if let (Reached::Blocked(span), false) = (outcome.reached, trusted) {
            let at = UnixMillis(request.at);
            self.blocked.insert(prefix, at.plus(span));
            self.report.blocks.push(ReplayedBlock {
                network: network_of(request.client),
                at,
                minutes: span.as_secs() / 60,
                score: outcome.scored.last().map_or(0, |scored| scored.score),
                why: std::mem::take(why),
            });
        }
    }

    fn findings(&self, request: &RecordedRequest, at: std::time::Instant, now: UnixMillis) -> Vec<Finding> {
        let (Some(uri), Ok(method)) = (target(request), request.method.parse::<Method>()) else { return Vec::new() };
        let headers = headers(request);
        let head = Head { method: &method, uri: &uri, headers: &headers, body_limit: u64::MAX };
        let mut findings = detectors::look(self.policy, &head);
        if self.rates.arrive(self.policy, request.client, at).burst {
            findings.push(Finding::new(RuleName::RequestBurst, "more requests than a client sends"));
        }
        let quiet = detectors::says_nothing(&head) || uri.path().starts_with("/.well-known/");
        let trapped = matches!(detectors::trap(self.policy, uri.path()), Some(detectors::Trap::Page(_)));
        if !quiet && !trapped && !knows_route(&method, &uri) {
            let rules = &self.policy.rules;
            let count = |policy, rule, what: &[u8]| self.suspects.count(policy, rule, request.client, what, now);
            let many = count(&rules.many_not_found, RuleName::ManyNotFound, b"");
            let same = count(&rules.unknown_endpoint, RuleName::UnknownEndpoint, uri.path().as_bytes());
            findings.extend(many.map(|n| Finding::new(RuleName::ManyNotFound, format!("{n} within a minute"))));
            findings.extend(same.map(|n| Finding::new(RuleName::UnknownEndpoint, format!("{n} within a minute"))));
        }
        findings
    }
}

fn target(request: &RecordedRequest) -> Option<Uri> {
    let target = match &request.query {
        Some(query) => format!("{}?{query}", request.path),
        None => request.path.clone(),
    };
    target.parse().ok()
}

fn headers(request: &RecordedRequest) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let told = request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in told.chain(request.user_agent.as_deref().map(|agent| ("user-agent", agent))) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value.as_bytes())) {
            headers.insert(name, value);
        }
    }
    headers
}

/// Counts what the audit log holds.
pub async fn stats(context: &Context, call: SecurityStats) -> Answer<SecurityCounts> {
    let mut counts = SecurityCounts::default();
    let mut sources: BTreeMap<IpAddr, u64> = BTreeMap::new();
    let mut place = Place::Start;
    loop {
        let page = ListAudit { since: call.since, place, limit: PAGE, ..ListAudit::default() };
        let rows = context.stores.security.audit_page(page).await?;
        for row in &rows {
            let event = &row.event;
            counts.count(event.at, event.kind, event.severity);
            let of_rule = matches!(event.kind, AuditKind::RuleHit | AuditKind::Simulated);
            let rule = event.details.split(':').next().filter(|_| of_rule).unwrap_or_default();
            if RuleName::ALL.iter().any(|known| known.as_str() == rule) {
                *counts.rules.entry(rule.to_owned()).or_default() += 1;
            }
            if let Some(address) = event.address.filter(|_| of_rule || event.severity > Severity::Low) {
                *sources.entry(counting_prefix(address)).or_default() += 1;
            }
        }
        let Some(last) = rows.last().filter(|_| rows.len() == PAGE as usize) else { break };
        place = Place::Behind(last.sequence);
    }
    counts.sources = sources.into_iter().collect();
    counts.sources.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.sources.truncate(SOURCES);
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: i64, client: &str, path: &str, more: &str) -> String {
        format!(
            r#"{{"at":{at},"client":"{client}","method":"GET","path":"{path}","user_agent":"curl/8","status":401{more}}}"#
        )
    }

    fn replayed(lines: &[String]) -> ReplayReport {
        let origin = crate::types::clock::Clock::stepped(UnixMillis(0)).monotonic();
        let trusted: IpAddr = "127.0.0.1".parse().expect("address");
        run(&SecurityPolicy::default(), lines.join("\n").as_bytes(), origin, |address| address == trusted)
    }

    #[test]
    fn what_would_have_been_blocked_is_told_with_its_reasons() {
        let attack = r#","query":"id=1'+or+1=1--""#;
        // Newest first, as the log is listed.
        let mut lines: Vec<_> = (0..7).rev().map(|n| line(n, "203.0.113.5", "/v1/models", attack)).collect();
        lines.push(line(9, "203.0.113.6", "/v1/models", ""));
        lines.push("nonsense".to_owned());
        let report = replayed(&lines);
        assert_eq!((report.requests, report.scored, report.refused, report.unreadable), (8, 5, 2, 1));
        let block = &report.blocks[0];
        assert_eq!(
            (block.network.to_string().as_str(), block.at, block.minutes),
            ("203.0.113.5/32", UnixMillis(4), 60)
        );
        assert_eq!((block.score, block.why.len()), (100, 5));
        assert!(block.why[0].contains("sql_injection +20"), "{block:?}");
        assert_eq!(report.first_unreadable.map(|(line, _)| line), Some(9));
    }

    #[test]
    fn valid_keys_and_trusted_addresses_are_replayed_as_they_would_be_treated() {
        let keyed: Vec<_> = (0..20).map(|n| line(n, "203.0.113.5", "/nothing", r#","key":"Ab12Cd34""#)).collect();
        assert_eq!(replayed(&keyed).scored, 0);
        let trusted: Vec<_> = (0..20).map(|n| line(n, "127.0.0.1", "/a/../../etc/passwd", "")).collect();
        let report = replayed(&trusted);
        assert_eq!((report.scored > 0, report.blocks.len(), report.refused), (true, 0, 0));
        let unknown: Vec<_> = (0..10).map(|n| line(n, "203.0.113.7", &format!("/x{n}"), "")).collect();
        assert_eq!(replayed(&unknown).rules.get(&RuleName::ManyNotFound), Some(&1));
    }
}
