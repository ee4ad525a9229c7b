//! The only exit: every answer and every refusal gets its headers here (SPEC §4.4).
//!
//! Answers are built anew: no header of an engine reaches a client but the media type of what is passed through.

use std::sync::LazyLock;
use std::time::Duration;

use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, STRICT_TRANSPORT_SECURITY, UPGRADE, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::answer::AnswerBody;
use super::cors;
use super::door;
use super::exchange::{Answer, Exchange};
use super::refusal::{Refusal, Retrying};
use super::rules::{self, Sender};
use crate::guard::gcra::RateDecision;
use crate::types::request::RequestEnd;
use crate::wire::client::ErrorShape;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const LIMIT_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");
const LIMIT_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-limit-tokens");
const REMAINING_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-tokens");
const RESET_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-reset-tokens");

/// What keys without a limit are told, since the headers are on every authenticated answer (SPEC §4.4): more than any client
/// reaches, and a number to every language. Zero would tell client libraries to wait.
const NO_LIMIT: HeaderValue = HeaderValue::from_static("2147483647");
/// Nothing has to be waited for.
const NO_WAIT: HeaderValue = HeaderValue::from_static("0ms");

/// Room for the headers of an ordinary answer, and of one to somebody without a key.
const HEADERS: usize = 12;
const HEADERS_WITHOUT_KEY: usize = 6;

/// The headers of an answer in JSON to a key without limits. Those of every known key begin with a copy of them: putting eight
/// headers together costs several times as much.
static OF_KEYS: LazyLock<HeaderMap> = LazyLock::new(|| {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_REQUEST_ID, HeaderValue::from_static(""));
    for name in [LIMIT_REQUESTS, REMAINING_REQUESTS, LIMIT_TOKENS, REMAINING_TOKENS] {
        headers.insert(name, NO_LIMIT);
    }
    for name in [RESET_REQUESTS, RESET_TOKENS] {
        headers.insert(name, NO_WAIT);
    }
    headers
});

/// Turns an answer into a response and ends the account, or hands it to the stream.
pub(super) fn answered(mut exchange: Box<Exchange>, answer: Answer) -> Response<AnswerBody> {
    rules::settle(&mut exchange, Sender::Stranger);
    let receiver = exchange.sender();
    respond(exchange, answer).map(|body| body.for_sender(receiver))
}

fn respond(mut exchange: Box<Exchange>, answer: Answer) -> Response<AnswerBody> {
    let response = match answer {
        Answer::Document { status, content_type, body } => {
            exchange.account.note(|row| {
                row.status = status.as_u16();
                row.bytes_out = body.len() as u64;
            });
            exchange.account.went_out(&body);
            let mut response = Response::new(AnswerBody::whole(body));
            *response.status_mut() = status;
            *response.headers_mut() = head(&exchange, Some(HeaderValue::from_static(content_type)));
            response
        }
        Answer::Empty { status, headers } => {
            exchange.account.note(|row| row.status = status.as_u16());
            let mut response = Response::new(AnswerBody::empty());
            *response.status_mut() = status;
            *response.headers_mut() = head(&exchange, None);
            response.headers_mut().extend(headers);
            response
        }
        Answer::Passed { status, content_type, mut body } => {
            let head = head(&exchange, content_type);
            exchange.account.note(|row| row.status = status.as_u16());
            if exchange.account.is_stream() {
                exchange.account.streams();
            }
            body.own(exchange.account);
            let mut response = Response::new(AnswerBody::passed(body));
            *response.status_mut() = status;
            *response.headers_mut() = head;
            let headers = response.headers_mut();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            // The bytes are the engine's: no browser shall guess that they are a page of this origin.
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
            return response;
        }
        Answer::Events(mut stream) => {
            let head = head(&exchange, Some(HeaderValue::from_static(stream.media_type())));
            stream.own(exchange.account);
            let mut response = Response::new(AnswerBody::events(stream));
            *response.headers_mut() = head;
            let headers = response.headers_mut();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            // nginx and its like hold chunks back otherwise.
            headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
            return response;
        }
    };
    exchange.account.end(RequestEnd::Completed);
    response
}

/// Turns a refusal into a response and ends the account.
pub(super) fn refused(mut exchange: Box<Exchange>, refusal: &Refusal) -> Response<AnswerBody> {
    rules::settle(&mut exchange, Sender::Stranger);
    let document = refusal.document(exchange.errors, &exchange.id);
    exchange.account.note(|row| row.bytes_out = document.len() as u64);
    exchange.account.went_out(&document);
    let mut response = Response::new(AnswerBody::whole(document).for_sender(exchange.sender()));
    *response.status_mut() = refusal.status;
    *response.headers_mut() = head(&exchange, Some(HeaderValue::from_static("application/json")));
    let headers = response.headers_mut();
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if refusal.retrying == Retrying::Useless {
        headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if let Some(allow) = refusal.allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    if refusal.status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if refusal.status == StatusCode::UPGRADE_REQUIRED {
        headers.insert(UPGRADE, HeaderValue::from_static("TLS/1.2, HTTP/1.1"));
    }
    exchange.account.refused(refusal.status.as_u16(), refusal.code.clone(), refusal.by);
    response
}

/// Media type, request id, rate limits and CORS.
fn head(exchange: &Exchange, content_type: Option<HeaderValue>) -> HeaderMap {
    let mut map = if exchange.rate.is_some() { OF_KEYS.clone() } else { HeaderMap::with_capacity(HEADERS_WITHOUT_KEY) };
    let headers = &mut map;
    match content_type {
        Some(content_type) => drop(headers.insert(CONTENT_TYPE, content_type)),
        None => drop(headers.remove(CONTENT_TYPE)),
    }
    if let Ok(id) = HeaderValue::from_str(exchange.id.as_str()) {
        headers.insert(X_REQUEST_ID, id);
    }
    match exchange.rate {
        Some((limit, RateDecision::Allowed { remaining, reset })) => put_rate(headers, limit, remaining, reset),
        Some((limit, RateDecision::Limited { reset, .. })) => put_rate(headers, limit, 0, reset),
        Some((_, RateDecision::Unlimited)) | None => {}
    }
    if let Some(key) = &exchange.key
        && let Some(budget) = key.record.view.limits.tokens_per_day
    {
        let day = key.counts.tokens.state(exchange.peer.worker.shared.clock.wall());
        headers.insert(LIMIT_TOKENS, HeaderValue::from(budget));
        headers.insert(REMAINING_TOKENS, HeaderValue::from(budget.saturating_sub(day.spent)));
        put_text(headers, RESET_TOKENS, &duration(day.left));
    }
    if exchange.errors == ErrorShape::Anthropic
        && let Some(id) = headers.get(X_REQUEST_ID).cloned()
    {
        // Where Anthropic's client libraries look for it (anthropic-sdk-python `_exceptions.py`).
        headers.insert(HeaderName::from_static("request-id"), id);
    }
    if let Some(hsts) = door::hsts(&exchange.peer.door, exchange.limits.hsts) {
        headers.insert(STRICT_TRANSPORT_SECURITY, hsts);
    }
    headers.extend(exchange.headers.iter().cloned());
    cors::put(headers, exchange.allowed_origin.clone());
    map
}

fn put_rate(headers: &mut HeaderMap, limit: u32, remaining: u32, reset: Duration) {
    headers.insert(LIMIT_REQUESTS, HeaderValue::from(limit));
    headers.insert(REMAINING_REQUESTS, HeaderValue::from(remaining));
    put_text(headers, RESET_REQUESTS, &duration(reset));
}

fn put_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// A duration as OpenAI writes it: `120ms`, `1s`, `6m0s`, `3h0m0s` (CLIENTS.md).
fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m{}s", seconds / 3600, seconds % 3600 / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_clients_expect_them() {
        for (millis, text) in [(0, "0ms"), (100, "100ms"), (1000, "1s"), (360_000, "6m0s"), (7_261_000, "2h1m1s")] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }
}
