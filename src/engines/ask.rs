//! One question to an engine: sent with the engine's own key, bounded in time and in size.
//!
//! Called by the adapters for identity, health and models. Must never read more than [`ANSWER_LIMIT`] bytes, follow
//! a redirect, or send a client's key.

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;

use crate::engines::adapter::{EngineError, Session};
use crate::types::secret::Secret;
use crate::types::text::escape;
use crate::wire::openai::ErrorDocument;

/// Longest answer that is read. vLLM's metrics are 63 KB, a list of some thousand models is below 4 MiB.
const ANSWER_LIMIT: usize = 8 * 1024 * 1024;

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
pub(super) fn authorize(headers: &mut HeaderMap, api_key: Option<&Secret>) {
    let Some(key) = api_key else { return };
    match HeaderValue::from_str(&format!("Bearer {}", key.expose())) {
        Ok(mut value) => {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Err(_invalid) => tracing::error!("an engine's API key has characters that no HTTP header can carry; not sent"),
    }
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

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, EngineError> {
        match tokio::time::timeout(self.deadline, self.exchange(method, path, body)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(EngineError::Timeout(self.deadline)),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, EngineError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|fault| EngineError::Api(format!("{path:?} is no path: {fault}")))?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        authorize(headers, self.api_key);
        let (head, mut body) = self
            .pool
            .send(self.upstream, request)
            .await
            .map_err(|fault| EngineError::Network(fault.to_string()))?
            .into_parts();
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|fault| EngineError::Network(format!("it broke the answer off: {fault}")))?;
            if let Ok(data) = frame.into_data() {
                if read.len() + data.len() > ANSWER_LIMIT {
                    return Err(EngineError::Api(format!("its answer to {path} is longer than {ANSWER_LIMIT} bytes")));
                }
                read.extend_from_slice(&data);
            }
        }
        Ok(Answer { status: head.status, headers: head.headers, body: read.freeze() })
    }
}
