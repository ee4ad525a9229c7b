//! [`Door`]: what is spoken on a port, and what the plain port beside a TLS port answers (SPEC §6).
//!
//! Client libraries drop the key or the method on a redirect, so only a browser's page view is sent on; an API call is told
//! where to go. A key that came in clear may have been read on the way: it is flagged, and never logged itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};

use super::exchange::{Answer, Exchange, Screened};
use super::refusal::Refusal;
use crate::guard::key_text::{self, KeyText, PREFIX};
use crate::tls::challenges::{self, Challenges};
use crate::tls::resolver::Resolver;
use crate::types::audit::{AuditKind, Severity};

/// What is spoken on a port.
#[derive(Debug)]
pub(super) enum Door {
    /// The API, in clear.
    Clear,
    /// The API, encrypted.
    Encrypted {
        /// Certificate and handshake.
        resolver: Arc<Resolver>,
        /// Whether browsers may be told to come back encrypted only.
        hsts: Hsts,
    },
    /// Nothing but the way to the TLS port, in clear.
    Signpost {
        /// The TLS port.
        https_port: u16,
        /// What a certificate authority that checks a name is answered.
        challenges: Arc<Challenges>,
    },
}

/// Whether browsers are told to call a name by https only (RFC 6797).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hsts {
    /// They are not.
    Never,
    /// For as long as the setting `tls.hsts` says.
    BySetting,
}

/// The header that tells browsers to come back encrypted only; `None` where that is not wanted.
pub(super) fn hsts(door: &Door, span: Duration) -> Option<HeaderValue> {
    match door {
        Door::Encrypted { hsts: Hsts::BySetting, .. } if !span.is_zero() => {
            HeaderValue::from_str(&format!("max-age={}", span.as_secs())).ok()
        }
        _ => None,
    }
}

/// Answers a certificate authority that checks a name; `None` for all other requests. Comes first: the authority
/// calls from addresses that nobody knows before, under the name that is being checked.
pub(super) fn challenge(exchange: &mut Exchange, parts: &Parts) -> Option<Answer> {
    let Door::Signpost { challenges, .. } = exchange.peer.door.as_ref() else { return None };
    let answer = challenges.answer(parts.uri.path().strip_prefix(challenges::PATH)?)?;
    exchange.account.note(|row| row.route = Some("acme-challenge".into()));
    let body = Bytes::copy_from_slice(answer.as_bytes());
    Some(Answer::Document { status: StatusCode::OK, content_type: "application/octet-stream", body })
}

/// Shows the way to the TLS port; `None` on every other port.
pub(super) fn signpost(exchange: &Exchange, screened: &Screened) -> Option<Result<Answer, Refusal>> {
    let Door::Signpost { https_port, .. } = exchange.peer.door.as_ref() else { return None };
    let parts = &screened.parts;
    flag_key(exchange, parts);
    let host = host_of(parts).unwrap_or_else(|| "localhost".to_owned());
    let base = if *https_port == 443 { format!("https://{host}") } else { format!("https://{host}:{https_port}") };
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    if is_page_view(parts)
        && let Ok(location) = HeaderValue::from_str(&format!("{base}{target}"))
    {
        let headers = vec![(LOCATION, location)];
        return Some(Ok(Answer::Empty { status: StatusCode::PERMANENT_REDIRECT, headers }));
    }
    Some(Err(Refusal::https_required(&base)))
}

/// A browser that opens a page: it asks for HTML, and not for a path of the API.
fn is_page_view(parts: &Parts) -> bool {
    let html = parts.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| {
        accept.split(',').any(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"))
    });
    let path = parts.uri.path();
    let api = ["/v1", "/api", "/engine"]
        .iter()
        .any(|first| path.strip_prefix(first).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    let reads = parts.method == Method::GET || parts.method == Method::HEAD;
    reads && html && !api && !key_in_url(parts)
}

/// The host that the client called, without its port.
fn host_of(parts: &Parts) -> Option<String> {
    let named = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let authority = named.or_else(|| parts.uri.authority().map(ToString::to_string))?;
    let authority = http::uri::Authority::try_from(authority).ok()?;
    Some(authority.host().to_owned())
}

fn key_in_url(parts: &Parts) -> bool {
    parts.uri.query().is_some_and(|query| query.contains(PREFIX))
}

/// Notes that a key travelled in clear. Only its public id is told, and only when the key is well-formed.
fn flag_key(exchange: &Exchange, parts: &Parts) {
    let bearer = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.split_once(' ')).map(|(_, key)| key.trim());
    let header = parts.headers.get("x-api-key").and_then(|value| value.to_str().ok()).map(str::trim);
    let presented: Vec<&str> = bearer.into_iter().chain(header).filter(|key| !key.is_empty()).collect();
    if presented.is_empty() && !key_in_url(parts) {
        return;
    }
    let id = presented.iter().find_map(|key| match key_text::parse(key) {
        KeyText::Parsed(parsed) => Some(parsed.id),
        KeyText::Damaged | KeyText::Foreign => None,
    });
    let details = match id {
        Some(id) => format!("key {id} was sent in clear to the plain port: rotate it (flm api-keys rotate {id})"),
        None => "a key was sent in clear to the plain port".to_owned(),
    };
    exchange.audit(AuditKind::KeyInClear, Severity::High, StatusCode::UPGRADE_REQUIRED, details);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, accept: &str) -> Parts {
        let request =
            http::Request::builder().method(method).uri(path).header("accept", accept).header("host", "box:80");
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn browsers_are_told_to_come_back_encrypted_only_where_it_is_set_and_the_certificate_is_trusted() {
        let year = Duration::from_hours(365 * 24);
        let resolver = Resolver::new().expect("TLS");
        let by_setting = Door::Encrypted { resolver: resolver.clone(), hsts: Hsts::BySetting };
        assert_eq!(hsts(&by_setting, year).expect("told"), "max-age=31536000");
        assert_eq!(hsts(&by_setting, Duration::ZERO), None);
        assert_eq!(hsts(&Door::Encrypted { resolver, hsts: Hsts::Never }, year), None);
        assert_eq!(hsts(&Door::Clear, year), None);
    }

    #[test]
    fn only_a_browser_that_opens_a_page_is_sent_on() {
        const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert!(is_page_view(&request("GET", "/", BROWSER)));
        assert!(is_page_view(&request("HEAD", "/v10", BROWSER)));
        for (method, path, accept) in [
            ("GET", "/", "*/*"),
            ("GET", "/v1/models", BROWSER),
            ("GET", "/api/tags", BROWSER),
            ("GET", "/engine/x/props", BROWSER),
            ("POST", "/", BROWSER),
            ("GET", "/?key=flm_abc", BROWSER),
        ] {
            assert!(!is_page_view(&request(method, path, accept)), "{method} {path} {accept}");
        }
    }
}
