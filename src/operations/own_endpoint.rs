//! [`OwnEndpoint`]: FLM as a client of itself, over a real listener, with a key that dies with the call.
//!
//! Made by `chat`, `bench`, `comparisons` and `connect`, one per call; dropping it ends its requests and its key. Its
//! requests go the way of every client's: they are guarded, logged and counted. Must never go around the pipeline.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::context::Context;
use super::keys::draw_any;
use crate::guard::minted_key::MintedKey;
use crate::net::connect::Trust;
use crate::net::egress::Egress;
use crate::net::message::Outgoing;
use crate::net::pool::{Answered, Pool, PoolConfig, Repeat, SendError, UpstreamBody};
use crate::net::upstream::Upstream;
use crate::tls::modes::{self, Privacy};
use crate::types::clock::Clock;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::listener::{ListenerConfig, ListenerPhase, ListenerStatus, TlsMode};
use crate::types::text::escape;

/// How FLM names itself to itself.
const AGENT: &str = concat!("flm/", env!("CARGO_PKG_VERSION"));
/// Idle connections are closed as soon as a call is over.
const IDLE: Duration = Duration::from_secs(5);
/// Largest error document that is read: the proxy's own are below a kilobyte, engines' messages are cut.
const ERROR_LIMIT: usize = 64 * 1024;

/// A client of an own listener.
pub(super) struct OwnEndpoint {
    upstream: Upstream,
    pool: Pool,
    key: MintedKey,
    /// Base URL, for people.
    pub(super) url: String,
    pub(super) clock: Clock,
}

/// An answer whose head has come.
pub(super) struct OwnAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: UpstreamBody,
}

impl OwnEndpoint {
    /// Mints a key and finds a listener. The key's requests show under `label`.
    ///
    /// # Errors
    /// `NOT_FOUND` with the command that starts one, when no proxy or no listener runs.
    pub(super) fn open(context: &Context, label: &str) -> Outcome<Self> {
        let live = context.live()?;
        let listener = nearest(&live.host.status().listeners)?;
        let (upstream, url) = client_of(&listener.config)?;
        let trust = trust_in(&listener)?;
        let config = PoolConfig { idle_timeout: IDLE, ..PoolConfig::default() };
        Ok(Self {
            upstream,
            pool: Pool::trusting(trust, config, Egress::direct(), context.tasks.clone()),
            key: MintedKey::new(&live.proxy.guard, draw_any()?, label, context.clock.wall()),
            url,
            clock: context.clock.clone(),
        })
    }

    /// Sends a request with the key as Bearer; other headers may be added. Answers whatever the status is.
    ///
    /// # Errors
    /// `IO_ERROR` when the listener cannot be reached.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> Outcome<OwnAnswer> {
        let bearer = header(&format!("Bearer {}", self.key.text().expose()))?;
        let mut fields = vec![
            (USER_AGENT, HeaderValue::from_static(AGENT)),
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (AUTHORIZATION, bearer),
        ];
        for (name, value) in headers {
            fields.push((HeaderName::from_static(name), header(value)?));
        }
        let request = Outgoing { method, target: path.to_owned().into(), fields, body };
        let sent = self.pool.send(&self.upstream, request, Repeat::ByMethod).await;
        let Answered { status, fields, body } = sent.map_err(|error| self.unreached(&error))?;
        Ok(OwnAnswer { status, headers: fields.map(), body })
    }

    fn unreached(&self, error: &SendError) -> Failure {
        Failure::new(ErrorCode::IoError, format!("the own endpoint {} does not answer: {error}", self.url))
            .hint("see whether its listener runs with: flm proxy status")
    }
}

impl OwnAnswer {
    /// The id under which the Proxy tab and the logs know the request.
    pub(super) fn request_id(&self) -> Option<String> {
        let id = self.headers.get("x-request-id")?.to_str().ok()?;
        Some(id.to_owned())
    }

    /// Reads a refusal and tells it as a failure.
    pub(super) async fn refusal(mut self) -> Failure {
        let mut read = BytesMut::new();
        // What was read of a refusal that breaks off is better than nothing.
        while let Some(Ok(frame)) = self.body.frame().await {
            if let Ok(data) = frame.into_data() {
                read.extend_from_slice(&data);
            }
            if read.len() > ERROR_LIMIT {
                break;
            }
        }
        let document: Value = serde_json::from_slice(&read).unwrap_or_default();
        refused(self.status, &document, self.request_id())
    }
}

/// The failure that an error document tells, in the words of OpenAI, Anthropic or Ollama.
pub(super) fn refused(status: StatusCode, document: &Value, request_id: Option<String>) -> Failure {
    let error = &document["error"];
    let message = error["message"].as_str().or(error.as_str()).unwrap_or("it gives no reason");
    let code = error["code"].as_str().or(error["type"].as_str()).unwrap_or_default();
    let named = if code.is_empty() { String::new() } else { format!(" {}", escape(code)) };
    let text = format!("the endpoint answered {}{named}: {}", status.as_u16(), escape(message));
    let mut failure = Failure::new(kind(status), text);
    failure.request_id = request_id;
    match hint(status, code) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn kind(status: StatusCode) -> ErrorCode {
    match status {
        StatusCode::NOT_FOUND => ErrorCode::NotFound,
        StatusCode::GATEWAY_TIMEOUT => ErrorCode::EngineTimeout,
        StatusCode::INTERNAL_SERVER_ERROR => ErrorCode::Internal,
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => ErrorCode::EngineApiError,
        _ => ErrorCode::InvalidArgument,
    }
}

/// What helps against the codes of SPEC §4.4 that the operator can meet.
fn hint(status: StatusCode, code: &str) -> Option<&'static str> {
    match code {
        "model_not_found" | "invalid_model" => Some("list the models with: flm models list"),
        "ip_blocked" => Some("lift the block with: flm security ip-blocklist unblock 127.0.0.1"),
        "ip_not_allowed" => Some("let this machine in with: flm security ip-allowlist add 127.0.0.1"),
        "unsupported_modalities" => Some("see what each model can do with: flm models show MODEL"),
        "overloaded" | "rate_limited" => Some("try again in a moment; flm proxy status says what is short"),
        _ if status.is_server_error() => Some("see the state of the engines with: flm engines list"),
        _ => None,
    }
}

/// Base URL and mode of the listener that this machine reaches best.
///
/// # Errors
/// As [`OwnEndpoint::open`].
pub(super) fn address(context: &Context) -> Outcome<(String, TlsMode)> {
    let listener = nearest(&context.live()?.host.status().listeners)?;
    let (_, url) = client_of(&listener.config)?;
    Ok((url, listener.config.mode))
}

fn header(text: &str) -> Outcome<HeaderValue> {
    HeaderValue::from_str(text)
        .map_err(|error| Failure::new(ErrorCode::Internal, format!("a header cannot be written: {error}")))
}

/// The listener that this machine reaches best: loopback, then every address, then a single other one.
fn nearest(listeners: &[ListenerStatus]) -> Outcome<ListenerStatus> {
    let distance = |listener: &&ListenerStatus| match listener.config.bind {
        bind if bind.is_loopback() => 0,
        bind if bind.is_unspecified() => 1,
        _ => 2,
    };
    let running = listeners.iter().filter(|listener| matches!(listener.phase, ListenerPhase::Running));
    running.min_by_key(distance).cloned().ok_or_else(|| {
        Failure::new(ErrorCode::NotFound, "no listener runs that could be asked")
            .hint("start one with: flm proxy start")
    })
}

/// An encrypted listener is known by the very certificate that it shows now: it may be for other names than the loopback
/// address that is dialled, and signed by nobody whom the system trusts.
pub(super) fn trust_in(listener: &ListenerStatus) -> Outcome<Trust> {
    let Some(tls) = &listener.tls else { return Ok(Trust::System) };
    let Some(certificate) = &tls.certificate else {
        return Err(Failure::new(
            ErrorCode::ProxyCertFailed,
            "the listener has no certificate yet, so its port is closed",
        )
        .hint("see what it waits for with: flm proxy status"));
    };
    let mut sha256 = [0; 32];
    let pairs = certificate.fingerprint.split(':').map(|pair| u8::from_str_radix(pair, 16));
    for (byte, pair) in sha256.iter_mut().zip(pairs) {
        *byte =
            pair.map_err(|error| Failure::new(ErrorCode::Internal, format!("a fingerprint is unreadable: {error}")))?;
    }
    Trust::pinned(sha256).map_err(|error| Failure::new(ErrorCode::Internal, format!("TLS is not to be had: {error}")))
}

/// Where an own listener is for a client on this machine, and its base URL: the one place that knows how each mode is
/// reached.
fn client_of(listener: &ListenerConfig) -> Outcome<(Upstream, String)> {
    let host = match listener.bind {
        IpAddr::V4(bind) if bind.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(bind) if bind.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        bind => bind,
    };
    let (scheme, port) = match modes::find(&listener.mode.0).map(|mode| mode.privacy) {
        Some(Privacy::Encrypted) => ("https", listener.https_port.unwrap_or(listener.port)),
        Some(Privacy::Clear) | None => ("http", listener.port),
    };
    let url = format!("{scheme}://{}", SocketAddr::new(host, port));
    let upstream = Upstream::parse(&url).map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
    Ok((upstream, url))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn listener(bind: &str, port: u16, phase: ListenerPhase) -> ListenerStatus {
        let config = ListenerConfig {
            mode: TlsMode::local_http(),
            bind: bind.parse().expect("an address"),
            port,
            insecure_plain_http: true,
            ..ListenerConfig::default()
        };
        ListenerStatus { config, phase, addresses: Vec::new(), started: None, tls: None }
    }

    #[test]
    fn of_several_listeners_the_one_on_loopback_is_asked_and_never_one_that_ends() {
        let running = |bind, port| listener(bind, port, ListenerPhase::Running);
        let draining = listener("127.0.0.1", 1, ListenerPhase::Draining { connections: 1 });
        let all = [draining, running("192.0.2.1", 2), running("::", 3), running("127.0.0.1", 4)];
        for (listeners, url) in
            [(&all[..], "http://127.0.0.1:4"), (&all[..3], "http://[::1]:3"), (&all[..2], "http://192.0.2.1:2")]
        {
            assert_eq!(client_of(&nearest(listeners).expect("one").config).expect("a client").1, url);
        }
        let none = nearest(&all[..1]).expect_err("none runs");
        assert_eq!((none.code, none.hint.as_deref()), (ErrorCode::NotFound, Some("start one with: flm proxy start")));
    }

    #[test]
    fn refusals_are_told_in_the_words_of_every_dialect_and_made_safe() {
        for (status, document, code, words) in [
            (
                404,
                json!({"error": {"message": "The model 'x\u{1b}[2J' does not exist.", "code": "model_not_found"}}),
                ErrorCode::NotFound,
                "the endpoint answered 404 model_not_found: The model 'x\\x1b[2J' does not exist.",
            ),
            (
                529,
                json!({"type": "error", "error": {"type": "overloaded_error", "message": "Busy."}}),
                ErrorCode::EngineApiError,
                "the endpoint answered 529 overloaded_error: Busy.",
            ),
            (400, json!({"error": "no prompt"}), ErrorCode::InvalidArgument, "the endpoint answered 400: no prompt"),
            (504, Value::Null, ErrorCode::EngineTimeout, "the endpoint answered 504: it gives no reason"),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let failure = refused(status, &document, Some("req_1".to_owned()));
            assert_eq!((failure.code, failure.message.as_str()), (code, words));
            assert_eq!(failure.request_id.as_deref(), Some("req_1"));
        }
    }
}
