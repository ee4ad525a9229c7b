//! CORS: preflights are answered right after the address stages, since they carry no key (ARCHITECTURE.md,
//! Settled); the headers are put on every answer, refusals included, and never with credentials (SPEC §4.4).

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::exchange::{Answer, Exchange, Screened};
use super::limits::ProxyLimits;

/// What client libraries send (CLIENTS.md).
const ALLOWED_HEADERS: &str = "authorization, content-type, x-api-key, anthropic-version, anthropic-beta, \
     openai-organization, openai-project, openai-beta, idempotency-key";
/// Libraries that Stainless generates describe themselves in headers that begin so, and new ones come with each version.
const LIBRARY_PREFIX: &str = "x-stainless-";
/// More of them than any library sends (openai-python 3.54 sends ten).
const MOST_LIBRARY_HEADERS: usize = 32;
/// What client libraries read (CLIENTS.md).
pub(super) const EXPOSED_HEADERS: &str = "x-request-id, request-id, retry-after, x-should-retry, x-ratelimit-limit-requests, \
     x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, \
     x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens";

/// The request's origin, when it may read the answer. `*` in the setting allows every origin.
pub(super) fn allowed_origin(headers: &HeaderMap, limits: &ProxyLimits) -> Option<HeaderValue> {
    if limits.cors_allowed_origins.is_empty() {
        return None;
    }
    let origin = headers.get(ORIGIN)?;
    let allowed =
        limits.cors_allowed_origins.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin.as_bytes());
    allowed.then(|| origin.clone())
}

/// Answers a preflight; `None` when the request is none. An origin that is not allowed gets no CORS headers, so
/// its browser refuses to go on.
pub(super) fn preflight(exchange: &Exchange, screened: &Screened) -> Option<Answer> {
    let parts = &screened.parts;
    let is_preflight = parts.method == Method::OPTIONS
        && parts.headers.contains_key(ORIGIN)
        && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if !is_preflight {
        return None;
    }
    let headers = match exchange.allowed_origin {
        None => Vec::new(),
        Some(_) => vec![
            (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS")),
            (ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(&parts.headers)),
            // A day; browsers cap it themselves.
            (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400")),
            (VARY, HeaderValue::from_static("access-control-request-headers")),
        ],
    };
    Some(Answer::Empty { status: StatusCode::NO_CONTENT, headers })
}

/// The headers that a client may send: those that are known, and what the request names of a library's own.
fn allowed_headers(asked: &HeaderMap) -> HeaderValue {
    let mut list = ALLOWED_HEADERS.to_owned();
    let named = asked.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().filter_map(|value| value.to_str().ok());
    // A header name holds nothing but token characters (RFC 9110 §5.6.2): what the client wrote is checked, not echoed.
    let names = named.flat_map(|value| value.split(',')).filter_map(|name| HeaderName::try_from(name.trim()).ok());
    for name in names.filter(|name| name.as_str().starts_with(LIBRARY_PREFIX)).take(MOST_LIBRARY_HEADERS) {
        list.push_str(", ");
        list.push_str(name.as_str());
    }
    HeaderValue::try_from(list).unwrap_or_else(|_| HeaderValue::from_static(ALLOWED_HEADERS))
}

/// Headers for every answer to an allowed origin.
pub(super) fn put(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    if let Some(origin) = origin {
        headers.insert(http::header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
}
