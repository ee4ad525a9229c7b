//! [`Client`]: the ACME client's way to the directory, over `net` (SPEC §7), and what a directory's errors mean.
//!
//! It also notes what the protocol client has no eye for: when the directory wants to be asked again (RFC 8555 §6.6) and how
//! far its clock is from this machine's.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use super::error::{AcmeError, Problem, Skew};
use crate::net::web::Web;
use crate::types::clock::{Clock, UnixMillis};
use crate::types::text::escape;

/// RFC 8555 §6.1: a client says who it is.
const AGENT: &str = concat!("flm/", env!("CARGO_PKG_VERSION"), " instant-acme");
/// Clocks that differ by more are worth a word: certificates and nonces bear minutes.
const SKEW: Duration = Duration::from_mins(10);
/// A directory that wants to be left alone for longer is asked again after this: it may have meant another unit.
const RETRY_MAX: Duration = Duration::from_hours(24 * 8);

/// The way to one directory.
#[derive(Clone)]
pub(super) struct Client {
    web: Web,
    clock: Clock,
    directory: Arc<str>,
    /// What was seen last. Locked for a note or a look.
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    retry: Option<UnixMillis>,
    skew: Option<Skew>,
}

impl Client {
    pub(super) fn new(web: Web, clock: Clock, directory: &str) -> Self {
        Self { web, clock, directory: directory.into(), seen: Arc::default() }
    }

    /// For the protocol client, which owns one.
    pub(super) fn boxed(&self) -> Box<dyn HttpClient> {
        Box::new(self.clone())
    }

    /// What an error means that came while `step` was asked for.
    pub(super) fn error(&self, step: &'static str, error: &Error) -> AcmeError {
        let Seen { retry, skew } = *self.seen();
        let unusable = |reason: String| AcmeError::Unreachable {
            directory: self.directory.to_string(),
            reason: escape(&reason.chars().take(400).collect::<String>()).into_owned(),
            skew,
        };
        match error {
            Error::Api(problem) => AcmeError::Refused { step, problem: Problem::of(problem), retry, skew },
            Error::Json(fault) => unusable(format!("its answer to {step} is not that of an ACME directory ({fault})")),
            Error::Crypto | Error::KeyRejected => AcmeError::Inside(format!("{step}: {error}")),
            other => unusable(format!("{step}: {other}")),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, status: StatusCode, headers: &HeaderMap) {
        let now = self.clock.wall();
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let mut seen = self.seen();
        if let Some(there) = text(DATE).and_then(date) {
            let apart = now.since(there).max(there.since(now));
            seen.skew = (apart > SKEW).then_some(Skew { here: now, there });
        }
        seen.retry = text(RETRY_AFTER).filter(|_| !status.is_success()).and_then(|text| retry_after(text, now));
    }

    async fn call(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let (mut parts, body) = request.into_parts();
        // Every address comes from the directory: none of them may leave TLS (RFC 8555 §6.1).
        if parts.uri.scheme_str() != Some("https") {
            let address: String = parts.uri.to_string().chars().take(200).collect();
            return Err(odd(format!("it sent the address {address}, which is not https")));
        }
        parts.headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        // Cannot fail: the body is in memory.
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let answer =
            self.web.send(Request::from_parts(parts, body)).await.map_err(|error| Error::Other(Box::new(error)))?;
        let (parts, body) = answer.into_parts();
        self.note(parts.status, &parts.headers);
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !parts.status.is_success() && !kind.contains("json") {
            return Err(odd(format!("it answered {}", parts.status)));
        }
        Ok(BytesResponse { parts, body: Box::new(body) })
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().call(request))
    }
}

fn odd(what: String) -> Error {
    Error::Other(what.into())
}

/// RFC 9110 §10.2.3: seconds, or a date.
fn retry_after(text: &str, now: UnixMillis) -> Option<UnixMillis> {
    let at = match text.trim().parse::<u64>() {
        Ok(seconds) => now.plus(Duration::from_secs(seconds.min(RETRY_MAX.as_secs()))),
        Err(_) => date(text)?,
    };
    (at > now).then(|| at.min(now.plus(RETRY_MAX)))
}

fn date(text: &str) -> Option<UnixMillis> {
    let at = httpdate::parse_http_date(text.trim()).ok()?;
    let since = at.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(UnixMillis)
}

/// Whether only the nonce was at fault: then the very same is asked again (RFC 8555 §6.5).
pub(super) fn is_bad_nonce(error: &Error) -> bool {
    is_problem(error, "badNonce")
}

/// Whether the directory named that kind of problem.
pub(super) fn is_problem(error: &Error, kind: &str) -> bool {
    matches!(error, Error::Api(problem) if Problem::of(problem).kind == kind)
}

/// How often a step is asked again after the protocol client's own tries because a nonce was refused.
pub(super) const NONCE_TRIES: u32 = 6;

/// Asks for a step until the directory likes the nonce: `with_nonces!(order.refresh().await.map(|state| state.status))`.
macro_rules! with_nonces {
    ($step:expr) => {{
        let mut left = $crate::tls::acme::client::NONCE_TRIES;
        loop {
            match $step {
                Err(error) if left > 0 && $crate::tls::acme::client::is_bad_nonce(&error) => left -= 1,
                outcome => break outcome,
            }
        }
    }};
}
pub(super) use with_nonces;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::connect::Trust;
    use crate::net::egress::Egress;
    use crate::telemetry::tasks::Tasks;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn client() -> Client {
        let web = Web::new(Trust::System, Egress::direct(), Tasks::new());
        Client::new(web, Clock::stepped(NOW), "https://ca.example/directory")
    }

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn when_to_ask_again_is_read_in_both_forms_and_bounded() {
        for (text, expected) in [
            ("120", Some(NOW.plus(Duration::from_secs(120)))),
            (" 5 ", Some(NOW.plus(Duration::from_secs(5)))),
            ("Mon, 21 Sep 2026 14:14:20 GMT", Some(UnixMillis(1_790_000_060_000))),
            ("Thu, 01 Jan 1970 00:00:00 GMT", None),
            ("0", None),
            ("soon", None),
            ("999999999999", Some(NOW.plus(RETRY_MAX))),
        ] {
            assert_eq!(retry_after(text, NOW), expected, "{text}");
        }
    }

    #[test]
    fn a_refusal_carries_when_to_ask_again_and_how_far_the_clock_is_off() {
        let client = client();
        let problem: instant_acme::Problem = serde_json::from_str(
            r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many certificates"}"#,
        )
        .expect("a problem");
        client.note(
            StatusCode::TOO_MANY_REQUESTS,
            &headers(&[(RETRY_AFTER, "3600"), (DATE, "Mon, 21 Sep 2026 15:13:20 GMT")]),
        );
        let error = client.error("the order", &Error::Api(problem));
        let AcmeError::Refused { retry, skew: Some(skew), .. } = &error else { panic!("{error:?}") };
        assert_eq!(*retry, Some(NOW.plus(Duration::from_hours(1))));
        assert_eq!(skew.there.since(skew.here), Duration::from_hours(1));
        client.note(StatusCode::OK, &headers(&[(RETRY_AFTER, "9"), (DATE, "Mon, 21 Sep 2026 14:13:20 GMT")]));
        let Seen { retry, skew } = *client.seen();
        assert_eq!((retry, skew), (None, None), "an answer that is fine takes both back");
    }

    #[tokio::test]
    async fn no_address_of_a_directory_leaves_tls() {
        let request = Request::get("http://127.0.0.1:9/x").body(BodyWrapper::default()).expect("a request");
        let error = client().call(request).await.err().expect("refused");
        assert!(error.to_string().contains("not https"), "{error}");
    }
}
