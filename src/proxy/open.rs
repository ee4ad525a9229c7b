//! The routes that need no key: `GET /` and `HEAD /` say nothing, `GET /health` says only ok, and `GET /metrics`
//! is open to a loopback peer without forwarding headers (SPEC §4.1, §5).

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Method, StatusCode};

use super::exchange::{Answer, Exchange, Screened};
use super::metrics_page;

/// Answers an open route; `None` when a key is needed.
pub(super) fn answer(exchange: &mut Exchange, screened: &Screened) -> Option<Answer> {
    let parts = &screened.parts;
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return None;
    }
    let nothing = Answer::Empty { status: StatusCode::NO_CONTENT, headers: Vec::new() };
    match parts.uri.path() {
        "/" => Some(nothing),
        "/health" => {
            exchange.account.note(|row| row.route = Some("health".into()));
            Some(Answer::json(Bytes::from_static(b"{\"status\":\"ok\"}")))
        }
        "/metrics" if exchange.client.is_loopback() && !exchange.peer.forwards(&parts.headers) && !has_key(parts) => {
            exchange.account.note(|row| row.route = Some("metrics".into()));
            Some(metrics_page::answer(exchange))
        }
        _ => None,
    }
}

fn has_key(parts: &Parts) -> bool {
    parts.headers.contains_key(AUTHORIZATION) || parts.headers.contains_key("x-api-key")
}
