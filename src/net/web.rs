//! [`Web`]: single calls to services in the world, such as an ACME directory or the API of a DNS provider.
//!
//! Called by `tls/acme`. Connections come from a [`Pool`], so that the egress setting covers them (SPEC §7). No redirects, no
//! cookies, answers of bounded size in bounded time.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Limited};

use super::connect::Trust;
use super::egress::{CONNECT_LIMIT, Egress};
use super::message::Outgoing;
use super::pool::{Answered, Pool, PoolConfig, Repeat};
use super::upstream::{InvalidUpstream, Upstream};
use crate::telemetry::tasks::Tasks;

/// Largest answer, bytes: certificate chains have some KiB, lists of zones some hundred.
const LARGEST: usize = 1 << 20;
/// How long a call may take, where no proxy is in between.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that served a call wait for the next one this long: an order takes about a dozen calls.
const IDLE: Duration = Duration::from_secs(10);

/// Calls services.
#[derive(Debug, Clone)]
pub struct Web {
    pool: Pool,
}

/// Why a service did not answer.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The address is none.
    #[error("{0}")]
    Address(#[from] InvalidUpstream),
    /// No connection, or it broke before the answer.
    #[error("{0}")]
    Unreachable(#[from] super::pool::SendError),
    /// It took too long.
    #[error("{host} did not answer within {} s", .limit.as_secs())]
    Slow {
        /// Who.
        host: String,
        /// How long it had.
        limit: Duration,
    },
    /// The answer broke off or is too large.
    #[error("the answer of {host} did not arrive whole: {reason}")]
    Broken {
        /// Who.
        host: String,
        /// What was seen.
        reason: String,
    },
}

impl Web {
    /// Calls by the way of `egress`; whose certificates are accepted is `trust`'s business.
    #[must_use]
    pub fn new(trust: Trust, egress: Egress, tasks: Tasks) -> Self {
        let config = PoolConfig { connect_timeout: CONNECT_LIMIT, idle_timeout: IDLE, idle_per_upstream: 4 };
        Self { pool: Pool::trusting(trust, config, egress, tasks) }
    }

    /// Sends a request whose target is a whole URL, and reads the whole answer.
    ///
    /// # Errors
    /// See [`WebError`]; a status that says no is an answer.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, WebError> {
        let upstream = upstream_of(request.uri())?;
        let limit = PATIENCE + self.pool.allowance(&upstream);
        let host = upstream.address();
        let exchanged = self.exchange(&upstream, request);
        match tokio::time::timeout(limit, exchanged).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(WebError::Slow { host, limit }),
        }
    }

    async fn exchange(&self, upstream: &Upstream, request: Request<Bytes>) -> Result<Response<Bytes>, WebError> {
        let (parts, body) = request.into_parts();
        let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let fields = parts.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let request = Outgoing { method: parts.method, target: target.into(), fields, body };
        let Answered { status, fields, body } = self.pool.send(upstream, request, Repeat::ByMethod).await?;
        let collected = Limited::new(body, LARGEST).collect().await;
        let body =
            collected.map_err(|error| WebError::Broken { host: upstream.address(), reason: error.to_string() })?;
        let mut response = Response::new(body.to_bytes());
        *response.status_mut() = status;
        *response.headers_mut() = fields.map();
        Ok(response)
    }
}

fn upstream_of(uri: &Uri) -> Result<Upstream, InvalidUpstream> {
    let base = format!(
        "{}://{}",
        uri.scheme_str().unwrap_or_default(),
        uri.authority().map_or("", http::uri::Authority::as_str)
    );
    Upstream::parse(&base)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_whole_url_is_called_and_the_whole_answer_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("an address");
        let tasks = Tasks::new();
        let service = tasks.spawn("service", async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.expect("reads");
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnone").await.expect("writes");
            String::from_utf8(head[..read].to_vec()).expect("text")
        });
        let web = Web::new(Trust::System, Egress::direct(), Tasks::new());
        let request = Request::get(format!("http://{address}/a/b?c=d")).body(Bytes::new()).expect("a request");
        let answer = web.send(request).await.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (404, &b"none"[..]));
        let head = service.await.expect("joins").to_ascii_lowercase();
        assert!(head.starts_with("get /a/b?c=d http/1.1\r\n") && head.contains(&format!("host: {address}")), "{head}");
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_and_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("an address");
        let tasks = Tasks::new();
        tasks.spawn_until_end("service", async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let written = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            let mut more = written.is_ok();
            while more {
                more = stream.write_all(&[b'x'; 8_192]).await.is_ok();
            }
        });
        let web = Web::new(Trust::System, Egress::direct(), Tasks::new());
        let request = Request::get(format!("http://{address}/")).body(Bytes::new()).expect("a request");
        let error = web.send(request).await.expect_err("too large");
        assert!(error.to_string().contains("did not arrive whole"), "{error}");
    }
}
