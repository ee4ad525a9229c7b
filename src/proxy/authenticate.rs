//! Third stage: whose key is it, and is that key not too fast? (SPEC §4.4, §5.1.)

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use super::account::Stage;
use super::exchange::{Authenticated, Exchange, Screened};
use super::refusal::Refusal;
use super::rules::{self, Sender};
use crate::guard::gcra::RateDecision;
use crate::guard::key_table::{KeyCheck, KeyEntry};
use crate::guard::key_text::PREFIX;
use crate::guard::{FailureVerdict, HashOutcome, key_hash, retry_after_seconds};
use crate::telemetry::hashing::HashingError;
use crate::types::address::BlockEntry;
use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::policy::Mode;

/// A key that is right and in force.
pub(super) struct Known {
    key: Arc<KeyEntry>,
    running: u32,
}

impl Known {
    /// The request that it came with.
    pub(super) fn with(self, screened: Screened) -> Authenticated {
        Authenticated { parts: screened.parts, key: self.key, running: self.running }
    }
}

/// Finds the key and checks it.
pub(super) async fn check(exchange: &mut Exchange, screened: &Screened) -> Result<Known, Refusal> {
    if screened.parts.uri.query().is_some_and(|query| query.contains(PREFIX)) {
        // It already stands in every log on the way: say so instead of accepting it (SECURITY.md, attack case 7).
        let refusal = Refusal::bad_request("Do not put an API key into the URL; send it as a header, and rotate it.");
        exchange.audit(AuditKind::AuthenticationFailed, Severity::Medium, refusal.status, "key in the URL".to_owned());
        return Err(refusal);
    }
    let presented = presented_key(&screened.parts.headers).inspect_err(|refusal| {
        // It says what is wrong with the headers and quotes none of them.
        let details = refusal.message.clone();
        exchange.audit(AuditKind::AuthenticationMissing, Severity::Low, refusal.status, details);
    })?;
    let Some(presented) = presented else {
        let refusal = Refusal::missing_key();
        exchange.audit(AuditKind::AuthenticationMissing, Severity::Low, refusal.status, "no key".to_owned());
        return Err(refusal);
    };
    let shared = exchange.peer.worker.shared.clone();
    let mut verdict = shared.guard.check_key(presented, exchange.at);
    let (mut turn, mut first_use) = (None, false);
    if matches!(verdict, KeyCheck::NeedsHash { .. }) {
        // All that come with the same key at once share one run.
        turn = Some(shared.hashing.turn(presented).await);
        verdict = shared.guard.check_key(presented, exchange.at);
    }
    if let KeyCheck::NeedsHash { id, phc } = verdict {
        let owned = presented.to_owned();
        let outcome = shared.hashing.run(move || key_hash::verify(&owned, &phc.record.hash)).await;
        verdict = match outcome {
            Ok(Ok(outcome)) => {
                first_use = outcome == HashOutcome::Matches;
                shared.guard.settle_key(presented, id, outcome, shared.clock.wall())
            }
            Ok(Err(error)) => {
                tracing::error!(%error, key = %id, "the stored hash of a key cannot be used");
                return Err(Refusal::internal("The key could not be checked."));
            }
            Err(error @ (HashingError::Busy | HashingError::Gone)) => {
                return Err(Refusal::overloaded(format!("The key could not be checked now: {error}.")));
            }
        };
    }
    drop(turn);
    let key = match verdict {
        KeyCheck::Known(key) => key,
        KeyCheck::Expired(key) => return Err(not_counted(exchange, &key.label, "expired")),
        KeyCheck::Revoked(key) => return Err(not_counted(exchange, &key.label, "revoked")),
        KeyCheck::Wrong | KeyCheck::NeedsHash { .. } => {
            return Err(wrong_key(exchange, presented));
        }
    };
    exchange.key = Some(key.clone());
    let is_news = exchange.peer.authenticates(key.record.view.id, exchange.client)
        && key.counts.tells_use(exchange.client, exchange.at);
    if is_news || first_use {
        let often = if first_use { ", for the first time since the start" } else { "" };
        let details = format!("key '{}'{often}", key.label);
        exchange.audit(AuditKind::AuthenticationOk, Severity::Low, http::StatusCode::OK, details);
    }
    // Before anything waits for an engine: a client that leaves does not take its score along.
    rules::settle(exchange, Sender::KeyHolder);
    let running = exchange.account.belongs_to(&key);
    Ok(Known { key, running })
}

/// Counts the request against its key: how fast, and how many at once (SPEC §5.7).
pub(super) fn key_rate(exchange: &mut Exchange, authenticated: Authenticated) -> Result<Authenticated, Refusal> {
    let key = &authenticated.key;
    let shared = &exchange.peer.worker.shared;
    let now = shared.clock.monotonic();
    let decision = shared.guard.key_rate(key, now);
    exchange.rate = Some((key.rate.per_minute, decision));
    if let RateDecision::Limited { retry_after, .. } = decision {
        let message = format!("This API key may send {} requests a minute.", key.rate.per_minute);
        let refusal = Refusal::rate_limited(message, retry_after_seconds(retry_after));
        exchange.audit(AuditKind::RateLimited, Severity::Low, refusal.status, "per-key rate".to_owned());
        return Err(refusal);
    }
    if let Some(limit) = key.record.view.limits.max_parallel
        && authenticated.running > limit
    {
        let refusal = Refusal::rate_limited(format!("This API key may run {limit} requests at once."), 1);
        exchange.audit(AuditKind::RateLimited, Severity::Low, refusal.status, "max_parallel".to_owned());
        return Err(refusal);
    }
    // Not before the rates: refusals of a flood say nothing and would push out what does.
    if let Some(until) = key.record.view.capture_until
        && until > exchange.at
    {
        exchange.account.captures(shared.captures.recorder());
    }
    exchange.account.mark_at(Stage::Authenticated, now);
    Ok(authenticated)
}

/// Counts a wrong key against its address (SPEC §5.3). The answer is the same, whatever it led to.
fn wrong_key(exchange: &Exchange, presented: &str) -> Refusal {
    let refusal = Refusal::wrong_key();
    let shared = &exchange.peer.worker.shared;
    let now = shared.clock.wall();
    let verdict = shared.guard.failed(exchange.client, exchange.standing, presented, now);
    let details = match &verdict {
        FailureVerdict::NotCounted => "wrong key, not counted".to_owned(),
        FailureVerdict::Counted { failures, .. } => format!("wrong key, number {failures} of this address"),
    };
    exchange.audit(AuditKind::AuthenticationFailed, Severity::Medium, refusal.status, details);
    if let FailureVerdict::Counted { blocks, mode, .. } = verdict {
        for block in blocks {
            exchange.blocked(&block, mode);
        }
    }
    refusal
}

impl Exchange {
    /// Records a block that this request led to, or would have.
    pub(super) fn blocked(&self, block: &BlockEntry, mode: Mode) {
        let now = self.peer.worker.shared.clock.wall();
        let lasting = match block.expires {
            Some(until) => format!("for {} min", until.since(now).as_secs().div_ceil(60)),
            None => "until it is lifted by hand".to_owned(),
        };
        let (kind, severity, would) = match mode {
            Mode::Enforce => (AuditKind::BlockAdded, Severity::High, ""),
            Mode::Off | Mode::Simulate => (AuditKind::Simulated, Severity::Medium, "would be "),
        };
        let details = format!("{} {would}blocked {lasting}: {}", block.network, block.reason);
        self.record(AuditEvent::new(now, kind, severity, details));
    }
}

fn not_counted(exchange: &Exchange, label: &Arc<str>, state: &str) -> Refusal {
    let refusal = Refusal::wrong_key();
    exchange.audit(AuditKind::AuthenticationMissing, Severity::Low, refusal.status, format!("{state} key '{label}'"));
    refusal
}

/// The key that the request presents: Bearer or `x-api-key`; with both present they must be equal or exactly one
/// must start with `flm_` (SPEC §4.4).
pub(super) fn presented_key(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let bearer = match single(headers, &AUTHORIZATION)? {
        None => None,
        Some(value) => match value.split_at_checked(BEARER.len()) {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case(BEARER) => Some(key.trim()),
            _ => return Err(Refusal::bad_request("The Authorization header must be 'Bearer' and the key.")),
        },
    };
    let header = single(headers, &X_API_KEY)?.map(str::trim);
    match (bearer, header) {
        (Some(one), Some(other)) if one != other => match (one.starts_with(PREFIX), other.starts_with(PREFIX)) {
            (true, false) => Ok(Some(one)),
            (false, true) => Ok(Some(other)),
            _ => Err(Refusal::bad_request("Authorization and x-api-key hold different keys; send one.")),
        },
        (Some(key), _) | (None, Some(key)) => Ok(Some(key).filter(|key| !key.is_empty())),
        (None, None) => Ok(None),
    }
}

/// The scheme of keys, with the blank after it.
const BEARER: &str = "bearer ";
/// Where Anthropic's client libraries put the key.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(Refusal::bad_request(format!("The header {name} stands there twice."))),
        // A key is ASCII: other bytes cannot be right, and need not be told apart from a wrong key.
        (Some(value), None) => Ok(Some(value.to_str().unwrap_or("?"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().expect("value"));
        }
        map
    }

    #[test]
    fn keys_are_taken_from_either_header() {
        for pairs in [
            &[("authorization", "Bearer flm_a")][..],
            &[("authorization", "bearer  flm_a ")],
            &[("x-api-key", "flm_a")],
            &[("authorization", "Bearer flm_a"), ("x-api-key", "flm_a")],
            &[("authorization", "Bearer flm_a"), ("x-api-key", "sk-other")],
            &[("authorization", "Bearer sk-other"), ("x-api-key", "flm_a")],
        ] {
            assert_eq!(presented_key(&headers(pairs)), Ok(Some("flm_a")), "{pairs:?}");
        }
        assert_eq!(presented_key(&headers(&[])), Ok(None));
        assert_eq!(presented_key(&headers(&[("authorization", "Bearer ")])), Ok(None));
    }

    #[test]
    fn doubtful_headers_are_refused() {
        for pairs in [
            &[("authorization", "Basic dXNlcg==")][..],
            &[("authorization", "flm_a")],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearerflm_a")],
            &[("authorization", "Bearer flm_a"), ("authorization", "Bearer flm_a")],
            &[("authorization", "Bearer flm_a"), ("x-api-key", "flm_b")],
            &[("authorization", "Bearer a"), ("x-api-key", "b")],
        ] {
            let refusal = presented_key(&headers(pairs)).expect_err("refused");
            assert_eq!(refusal.status, 400, "{pairs:?}");
        }
    }
}
