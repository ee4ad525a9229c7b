//! A pool of keep-alive connections, one per worker thread: connections are driven on the thread that uses them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;

use super::upstream::Upstream;
use crate::telemetry::tasks::Tasks;

/// Deadlines of a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolConfig {
    /// TCP (and TLS) connect; ENGINES.md §6: 1 s.
    pub connect_timeout: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Idle connections kept per upstream.
    pub idle_per_upstream: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(1), idle_timeout: Duration::from_secs(60), idle_per_upstream: 64 }
    }
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection: nothing was sent, another engine may be tried.
    #[error("cannot connect to {upstream}: {reason}")]
    Connect {
        /// Where.
        upstream: String,
        /// What the system said.
        reason: String,
    },
    /// The connection broke before the head of the answer.
    #[error("{upstream} closed the connection before it answered: {reason}")]
    BeforeAnswer {
        /// Where.
        upstream: String,
        /// What was seen.
        reason: String,
    },
}

/// Keep-alive connections of one worker. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Pool {}

impl Pool {
    /// An empty pool whose connection tasks `tasks` owns.
    pub fn new(config: PoolConfig, tasks: Tasks) -> Self {
        let _ = (config, tasks);
        todo!()
    }

    /// Sends a request and answers when its head has come. The pool sets `Host`; a request whose idle
    /// connection turns out closed before anything was sent is sent again on a new one.
    ///
    /// Dropping the future, or the body before its end, closes the connection: the engine sees the client leave.
    pub async fn send(
        &self,
        upstream: &Upstream,
        request: http::Request<Full<Bytes>>,
    ) -> Result<http::Response<UpstreamBody>, SendError> {
        let _ = (upstream, request);
        todo!()
    }
}

/// The body of an engine's answer; gives its connection back to the pool when read to the end.
#[derive(Debug)]
pub struct UpstreamBody {}

impl http_body::Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, hyper::Error>>> {
        let _ = cx;
        todo!()
    }
}
