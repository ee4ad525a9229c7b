//! Stage after the address lists: intrusion rules and honeypots (SPEC §5.4 to §5.6). Finds before authentication, scores
//! when it is known whether a valid key came with it; a block that a score leads to is in force for the next request.
//!
//! Nothing here waits or refuses: what an attacker is told does not depend on what was found, except in a trap.

use std::net::IpAddr;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{EXPECT, HeaderValue, LOCATION};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::exchange::{Accepted, Answer, Exchange, Screened};
use super::shared::ProxyShared;
use super::{authenticate, route};
use crate::guard::Standing;
use crate::guard::detectors::head::Head;
use crate::guard::detectors::{self, Page, Trap};
use crate::guard::suspects::{Finding, Reached, Scored};
use crate::types::address::BlockEntry;
use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::policy::{Mode, RuleName};

/// Bytes of a body that tell it from others, together with its announced length.
const BODY_HEAD: usize = 4 << 10;

/// What was found about a request and is not scored yet.
#[derive(Debug, Default)]
pub(super) struct Watch {
    findings: Vec<Finding>,
    /// The path is no route of this endpoint.
    unknown_route: bool,
    /// A key came with it that was verified before and is valid.
    known_key: bool,
    /// Its answer is that of a trap.
    trapped: bool,
}

/// Whose request it turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// Somebody with a valid key: only what no client ever sends counts (SPEC §5.4).
    KeyHolder,
    /// Anybody.
    Stranger,
}

impl Exchange {
    /// Whose request it turned out to be.
    pub(super) fn sender(&self) -> Sender {
        if self.key.is_some() { Sender::KeyHolder } else { Sender::Stranger }
    }

    /// Whether what it gets is the answer of a trap. Nothing remembers that once the request was scored.
    pub(super) fn is_trapped(&self) -> bool {
        self.watch.trapped
    }
}

/// Looks at the head; answers what a trap answers.
pub(super) fn look(exchange: &mut Exchange, accepted: &Accepted) -> Option<Answer> {
    let shared = exchange.peer.worker.shared.clone();
    if !shared.guard.is_public() {
        return None;
    }
    let parts = &accepted.parts;
    let policy = shared.guard.policy();
    let head = Head {
        method: &parts.method,
        uri: &parts.uri,
        headers: &parts.headers,
        body_limit: exchange.limits.json_body_bytes as u64,
    };
    let watch = &mut exchange.watch;
    watch.findings = detectors::look(&policy, &head);
    watch.unknown_route = is_unknown(parts, &head);
    if watch.findings.is_empty() && !watch.unknown_route {
        return None;
    }
    watch.known_key = has_known_key(&shared, &parts.headers);
    if watch.known_key {
        return None;
    }
    match detectors::trap(&policy, parts.uri.path()) {
        Some(Trap::Page(page)) => {
            (watch.unknown_route, watch.trapped) = (false, true);
            exchange.account.note(|row| row.route = Some("honeypot".into()));
            Some(trapped(page))
        }
        Some(Trap::Probe) | None => None,
    }
}

/// A path that is none of this endpoint's, and not one that every browser and crawler asks for.
fn is_unknown(parts: &http::request::Parts, head: &Head<'_>) -> bool {
    !detectors::says_nothing(head) && !parts.uri.path().starts_with("/.well-known/") && route::is_unknown(parts)
}

fn has_known_key(shared: &ProxyShared, headers: &HeaderMap) -> bool {
    let presented = authenticate::presented_key(headers).ok().flatten();
    presented.is_some_and(|presented| shared.guard.is_known_key(presented, shared.clock.wall()))
}

fn trapped(page: Page) -> Answer {
    let status = StatusCode::from_u16(page.status).unwrap_or(StatusCode::OK);
    match page.location {
        Some(location) => Answer::Empty { status, headers: vec![(LOCATION, HeaderValue::from_static(location))] },
        None => {
            Answer::Document { status, content_type: page.content_type, body: Bytes::from_static(page.body.as_bytes()) }
        }
    }
}

/// Notes that an address sent a burst.
pub(super) fn burst(exchange: &mut Exchange, headers: &HeaderMap) {
    let shared = exchange.peer.worker.shared.clone();
    if shared.guard.is_public() {
        exchange.watch.known_key |= has_known_key(&shared, headers);
        let evidence = "more requests in a second or a minute than a client sends";
        exchange.watch.findings.push(Finding::new(RuleName::RequestBurst, evidence));
    }
}

/// Counts the body of a request that is refused for want of a key: what came with its head, and waits for nothing more.
pub(super) async fn refused_body(exchange: &mut Exchange, screened: &Screened, mut incoming: Incoming) {
    // To ask for a body is to say 100, send it (RFC 9110 §10.1.1), and it is not wanted.
    if screened.parts.headers.contains_key(EXPECT) {
        return;
    }
    let shared = exchange.peer.worker.shared.clone();
    let policy = shared.guard.policy();
    let rule = &policy.rules.repeated_body;
    if !shared.guard.is_public() || rule.mode == Mode::Off || http_body::Body::is_end_stream(&incoming) {
        return;
    }
    let announced = http_body::Body::size_hint(&incoming).exact().unwrap_or(0);
    let mut frame = incoming.frame().now_or_never();
    if frame.is_none() {
        // hyper reads a body only once it is asked for; what has arrived is there after one turn.
        tokio::task::yield_now().await;
        frame = incoming.frame().now_or_never();
    }
    let Some(Some(Ok(frame))) = frame else { return };
    let Some(bytes) = frame.data_ref().filter(|bytes| !bytes.is_empty()) else { return };
    let what = [&announced.to_le_bytes()[..], &bytes[..bytes.len().min(BODY_HEAD)]].concat();
    let times = shared.guard.count(rule, RuleName::RepeatedBody, exchange.client, &what, shared.clock.wall());
    if let Some(times) = times {
        let evidence = format!("the same body {times} times within a minute");
        exchange.watch.findings.push(Finding::new(RuleName::RepeatedBody, evidence));
    }
}

/// Scores what was found. The first call counts; a later one finds nothing left.
pub(super) fn settle(exchange: &mut Exchange, sender: Sender) {
    let watch = std::mem::take(&mut exchange.watch);
    if watch.findings.is_empty() && !watch.unknown_route {
        return;
    }
    let shared = exchange.peer.worker.shared.clone();
    let mut findings = watch.findings;
    if sender == Sender::KeyHolder || watch.known_key {
        findings.retain(|finding| finding.rule.holds_for_keys());
    } else if watch.unknown_route {
        let path = exchange.account.path().unwrap_or_default();
        findings.extend(unknown_route(&shared, exchange.client, &path));
    }
    let told = |event| exchange.record(event);
    score(&shared, exchange.client, exchange.standing, findings, told);
}

/// Counts a request for a route that does not exist.
fn unknown_route(shared: &ProxyShared, client: IpAddr, path: &str) -> Vec<Finding> {
    let (guard, policy, now) = (&shared.guard, shared.guard.policy(), shared.clock.wall());
    let mut findings = Vec::new();
    if let Some(times) = guard.count(&policy.rules.many_not_found, RuleName::ManyNotFound, client, b"", now) {
        let evidence = format!("{times} requests within a minute for routes that do not exist");
        findings.push(Finding::new(RuleName::ManyNotFound, evidence));
    }
    let rule = &policy.rules.unknown_endpoint;
    if let Some(times) = guard.count(rule, RuleName::UnknownEndpoint, client, path.as_bytes(), now) {
        let evidence = format!("the same unknown endpoint {times} times within a minute");
        findings.push(Finding::new(RuleName::UnknownEndpoint, evidence));
    }
    findings
}

/// What a connection did that never became a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misdeed {
    /// Its head was held open past the limit.
    HeldOpen,
    /// The body of its request was held open past the limit.
    BodyHeldOpen,
    /// Its head was none of HTTP: counts as a request for a route that does not exist.
    RefusedHead,
    /// It sent frames that cost work and bring nothing, more than any client does.
    Flood,
}

/// Scores a connection. `client` must be the client's own address, never a proxy's.
pub(super) fn connection(shared: &ProxyShared, client: IpAddr, standing: Standing, misdeed: Misdeed) {
    let guard = &shared.guard;
    if !guard.is_public() {
        return;
    }
    let findings = match misdeed {
        Misdeed::HeldOpen => vec![Finding::new(RuleName::HeldOpen, "the head of a request did not come in time")],
        Misdeed::BodyHeldOpen => vec![Finding::new(RuleName::HeldOpen, "the body of a request did not come in time")],
        Misdeed::Flood => vec![Finding::new(RuleName::RequestBurst, "more frames of HTTP/2 than a client sends")],
        Misdeed::RefusedHead => unknown_route(shared, client, "(no valid head)"),
    };
    score(shared, client, standing, findings, |mut event| {
        event.address = Some(client);
        shared.audit.record(event);
    });
}

/// Adds findings to the score of an address and tells the audit log.
fn score(shared: &ProxyShared, client: IpAddr, standing: Standing, findings: Vec<Finding>, told: impl Fn(AuditEvent)) {
    if findings.is_empty() {
        return;
    }
    let now = shared.clock.wall();
    let verdict = shared.guard.score(client, standing, findings, now);
    let outcome = &verdict.outcome;
    for scored in &outcome.scored {
        let reached = if scored.simulated { outcome.would_reach } else { outcome.reached };
        let kind = if scored.simulated { AuditKind::Simulated } else { AuditKind::RuleHit };
        told(AuditEvent::new(now, kind, severity(reached), details(scored, reached)));
    }
    if let Some(block) = &verdict.block {
        told(AuditEvent::new(now, AuditKind::BlockAdded, Severity::High, blocked(block)));
    }
}

fn severity(reached: Reached) -> Severity {
    match reached {
        Reached::Logged => Severity::Low,
        Reached::Warned => Severity::Medium,
        Reached::Blocked(_) => Severity::High,
    }
}

fn details(scored: &Scored, reached: Reached) -> String {
    let Scored { finding, points, score, simulated } = scored;
    let would = match (simulated, reached) {
        (true, Reached::Blocked(_)) => "would score and block, ",
        (true, _) => "would score, ",
        (false, _) => "",
    };
    format!("{}: {would}+{points}, score {score}: {}", finding.rule, finding.evidence)
}

fn blocked(block: &BlockEntry) -> String {
    let minutes = block.expires.map_or(0, |until| until.since(block.created).as_secs().div_ceil(60));
    format!("{} blocked for {minutes} min: {}", block.network, block.reason)
}
