//! One question to an engine: sent with the engine's own key, bounded in time and in size.
//!
//! Called by the adapters for identity, health, models and their management. Must never read more than [`ANSWER_LIMIT`] bytes, follow
//! a redirect, or send a client's key.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::engines::adapter::{EngineError, Session};
use crate::net::message::Outgoing;
use crate::net::pool::{Answered, Repeat};
use crate::types::secret::Secret;
use crate::types::text::escape;
use crate::wire::openai::ErrorDocument;

/// Longest answer that is read. vLLM's metrics are 63 KB, a list of some thousand models is below 4 MiB.
const ANSWER_LIMIT: usize = 8 * 1024 * 1024;

/// Longest line of an answer that comes in lines; a progress line has some 200 bytes.
const LINE_LIMIT: usize = 256 * 1024;

/// What came back.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body as JSON, whatever the status.
    pub(super) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The document of a 200 answer; every other answer as the fault that it is.
    pub(super) fn document(&self, path: &str) -> Result<Value, EngineError> {
        self.success()?;
        self.json().ok_or_else(|| EngineError::Api(format!("its answer to {path} is not JSON")))
    }

    /// Whether it answers 200.
    pub(super) fn success(&self) -> Result<(), EngineError> {
        let status = self.status.as_u16();
        match status {
            200 => Ok(()),
            401 | 403 => Err(EngineError::Locked(status)),
            429 | 503 => Err(EngineError::Busy { status, reason: self.reason() }),
            _ => Err(EngineError::Api(format!("it answers {status}: {}", self.reason()))),
        }
    }

    /// The engine's words, made safe to show.
    pub(super) fn reason(&self) -> String {
        let message = ErrorDocument::read(&self.body).message;
        if message.is_empty() {
            return self.status.canonical_reason().unwrap_or("no reason given").to_owned();
        }
        escape(&message.chars().take(200).collect::<String>()).into_owned()
    }

    /// A header as text.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// `Authorization: Bearer` with the engine's own key. A key with characters that no header can carry is left out and
/// logged: the engine then answers 401, which names the setting.
pub(super) fn authorization(api_key: Option<&Secret>) -> Option<(HeaderName, HeaderValue)> {
    match HeaderValue::from_str(&format!("Bearer {}", api_key?.expose())) {
        Ok(mut value) => {
            value.set_sensitive(true);
            Some((AUTHORIZATION, value))
        }
        Err(_invalid) => {
            tracing::error!("an engine's API key has characters that no HTTP header can carry; not sent");
            None
        }
    }
}

/// A name as one segment of a path or one value of a query: everything but unreserved characters as `%XX` (RFC 3986,
/// section 2).
pub(super) fn path_segment(name: &str) -> String {
    use std::fmt::Write as _;
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _infallible = write!(segment, "%{byte:02X}");
        }
    }
    segment
}

impl Session<'_> {
    /// Asks with GET.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, EngineError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Asks with POST and a JSON body.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Answer, EngineError> {
        self.ask(Method::POST, path, Bytes::from(body.to_string())).await
    }

    /// Asks with DELETE and a JSON body.
    pub(super) async fn delete(&self, path: &str, body: &Value) -> Result<Answer, EngineError> {
        self.ask(Method::DELETE, path, Bytes::from(body.to_string())).await
    }

    /// Asks with POST for an answer of JSON lines, each handed to `line` as it comes, until one ends the question. The
    /// session's deadline bounds each silence, not the whole. An answer other than 200 is returned, unread by `line`.
    pub(super) async fn post_for_lines<E: From<EngineError>>(
        &self,
        path: &str,
        body: &Value,
        mut line: impl FnMut(&Value) -> Result<(), E> + Send,
    ) -> Result<Answer, E> {
        let silent = |_elapsed| EngineError::Timeout(self.deadline);
        let begun = self.begin(Method::POST, path, Bytes::from(body.to_string()));
        let answered = tokio::time::timeout(self.deadline, begun).await.map_err(silent)??;
        if answered.status != StatusCode::OK {
            let rest = tokio::time::timeout(self.deadline, whole(path, answered)).await.map_err(silent)?;
            return Ok(rest?);
        }
        let Answered { status, fields, mut body } = answered;
        let mut read = BytesMut::new();
        loop {
            let frame = tokio::time::timeout(self.deadline, body.frame()).await.map_err(silent)?;
            let ended = frame.is_none();
            if let Some(frame) = frame {
                let Ok(data) = frame.map_err(broken_off)?.into_data() else { continue };
                if read.len() + data.len() > LINE_LIMIT {
                    return Err(EngineError::Api(format!("a line of its answer to {path} is too long")).into());
                }
                read.extend_from_slice(&data);
            }
            while let Some(end) = memchr::memchr(b'\n', &read) {
                parse_line(&read.split_to(end + 1), path, &mut line)?;
            }
            if ended {
                parse_line(&read, path, &mut line)?;
                return Ok(Answer { status, headers: fields.map(), body: Bytes::new() });
            }
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, EngineError> {
        match tokio::time::timeout(self.deadline, self.exchange(method, path, body)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(EngineError::Timeout(self.deadline)),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, EngineError> {
        let answered = self.begin(method, path, body).await?;
        whole(path, answered).await
    }

    /// Sends a question and waits for the head of its answer.
    async fn begin(&self, method: Method, path: &str, body: Bytes) -> Result<Answered, EngineError> {
        let json = HeaderValue::from_static("application/json");
        let mut fields = vec![(ACCEPT, json.clone()), (CONTENT_TYPE, json)];
        fields.extend(authorization(self.api_key));
        let request = Outgoing { method, target: Cow::Owned(path.to_owned()), fields, body };
        let sent = self.pool.send(self.upstream, request, Repeat::ByMethod).await;
        sent.map_err(|fault| EngineError::Network(fault.to_string()))
    }
}

/// Reads an answer to its end.
async fn whole(path: &str, answered: Answered) -> Result<Answer, EngineError> {
    let Answered { status, fields, mut body } = answered;
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(broken_off)?.into_data() {
            if read.len() + data.len() > ANSWER_LIMIT {
                return Err(EngineError::Api(format!("its answer to {path} is longer than {ANSWER_LIMIT} bytes")));
            }
            read.extend_from_slice(&data);
        }
    }
    Ok(Answer { status, headers: fields.map(), body: read.freeze() })
}

fn broken_off(fault: impl std::fmt::Display) -> EngineError {
    EngineError::Network(format!("it broke the answer off: {fault}"))
}

fn parse_line<E: From<EngineError>>(
    bytes: &[u8],
    path: &str,
    line: &mut impl FnMut(&Value) -> Result<(), E>,
) -> Result<(), E> {
    let bytes = bytes.trim_ascii();
    if bytes.is_empty() {
        return Ok(());
    }
    let value = serde_json::from_slice(bytes)
        .map_err(|_no_json| EngineError::Api(format!("a line of its answer to {path} is not JSON")))?;
    line(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(path_segment("user/repo:Q4 ../é?x=1&y"), "user%2Frepo%3AQ4%20..%2F%C3%A9%3Fx%3D1%26y");
    }
}
