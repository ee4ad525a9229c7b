//! An engine's failure as the client is told it (ENGINES.md §5; SPEC §4.4).
//!
//! Called by the adapters. Must never blame the client for FLM's own credentials, nor call something retryable that
//! another try cannot heal.

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

use crate::engines::adapter::{AdapterInfo, EngineFault};
use crate::wire::openai::{ErrorDocument, WholeFault};
use crate::wire::openai_tap::StreamFault;

/// Longest wait that clients are asked for, seconds (SPEC §4.4).
const RETRY_AFTER_LIMIT: u32 = 120;

/// Whether another engine may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    Elsewhere,
    Never,
}

/// Reads an answer whose status is not 200.
pub(super) fn from_answer(info: &AdapterInfo, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> EngineFault {
    let document = ErrorDocument::read(body);
    let (client_status, code, retry) = classify(status.as_u16(), &document);
    let message = match status.as_u16() {
        // The engine's own words could quote FLM's key for it.
        401 | 403 => format!(
            "{} refused FLM's own credentials (status {}): the operator must name the variable with the engine's key, \
             flm engines add --api-key-env VARIABLE",
            info.title,
            status.as_u16()
        ),
        // A route that is not there: the engine's own words are no more than "Not Found".
        404 | 405 if code == "not_implemented" => {
            format!("{} does not offer this route, or not with this model: it answers {status}", info.title)
        }
        _ if document.message.is_empty() => format!("{} answered {status} without a reason", info.title),
        _ => document.message,
    };
    EngineFault {
        status: client_status,
        code: code.to_owned(),
        kind: kind_of(client_status).to_owned(),
        message,
        param: document.param.filter(|_| client_status < 500),
        retryable: retry == Retry::Elsewhere,
        retry_after: retry_after(headers).filter(|_| matches!(client_status, 429 | 503)),
    }
}

fn classify(status: u16, document: &ErrorDocument) -> (u16, &'static str, Retry) {
    let message = document.message.to_ascii_lowercase();
    let says = |words: &str| message.contains(words);
    // These come as 400 from one engine and as 500 from another; what they mean decides.
    if matches!(status, 400 | 500) {
        let overflow = document.kind.as_deref() == Some("exceed_context_size_error")
            || document.code.as_deref() == Some("context_length_exceeded")
            || says("maximum context length")
            || says("exceeds the context length")
            || says("exceeds the available context size")
            || says("too large to process");
        if overflow {
            return (400, "context_length_exceeded", Retry::Never);
        }
        // Ollama names a capability of `ollama show` (its `server/routes.go`).
        let named = ["tools", "thinking", "vision", "chat", "completion", "generate", "embedding", "insert"];
        let modality = says("is not a multimodal model")
            || ((says("image input") || says("audio input") || says("video input")) && says("not support"))
            || named.iter().any(|capability| says(&format!("does not support {capability}")));
        if modality {
            return (422, "unsupported_modalities", Retry::Never);
        }
    }
    let about_model = says("model") || document.param.as_deref() == Some("model");
    match status {
        // A llama.cpp router says 400, everyone else 404.
        400 if says("model '") && says("not found") => (404, "model_not_found", Retry::Never),
        400 | 409 | 410 | 415 => (status, "invalid_request", Retry::Never),
        404 if about_model => (404, "model_not_found", Retry::Never),
        // A route that is not mounted: vLLM without pooling model, an engine that is older than the route.
        404 | 405 | 501 => (501, "not_implemented", Retry::Never),
        408 | 504 => (504, "engine_timeout", Retry::Elsewhere),
        413 => (413, "payload_too_large", Retry::Never),
        422 => (422, "invalid_request", Retry::Never),
        // One that is busy says nothing about the others; when all are, the last one's wait is told.
        429 => (429, "rate_limited", Retry::Elsewhere),
        502 => (502, "engine_error", Retry::Elsewhere),
        503 => (503, "engine_unavailable", Retry::Elsewhere),
        _ => (502, "engine_error", Retry::Never),
    }
}

/// OpenAI's `type` for a status.
fn kind_of(status: u16) -> &'static str {
    match status {
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}

fn retry_after(headers: &HeaderMap) -> Option<u32> {
    let seconds: u32 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(seconds.min(RETRY_AFTER_LIMIT))
}

/// A fault of the engine's protocol: 502. Another engine may be tried while the client got nothing, which only the
/// relay knows.
pub(super) fn broken(info: &AdapterInfo, reason: &str) -> EngineFault {
    EngineFault {
        status: 502,
        code: "engine_error".to_owned(),
        kind: "server_error".to_owned(),
        message: format!("{}: {reason}", info.title),
        param: None,
        retryable: true,
        retry_after: None,
    }
}

/// An error that the engine told under status 200.
fn told(info: &AdapterInfo, document: &ErrorDocument) -> EngineFault {
    let (status, code, _retry) =
        classify(document.code.as_deref().and_then(|c| c.parse().ok()).unwrap_or(500), document);
    let message = if document.message.is_empty() {
        format!("{} ended the answer with an error and no reason", info.title)
    } else {
        document.message.clone()
    };
    EngineFault {
        status,
        code: code.to_owned(),
        kind: kind_of(status).to_owned(),
        message,
        param: document.param.clone().filter(|_| status < 500),
        retryable: false,
        retry_after: None,
    }
}

/// The fault of a stream.
pub(super) fn from_stream(info: &AdapterInfo, fault: &StreamFault) -> EngineFault {
    match fault {
        StreamFault::Error(document) => told(info, document),
        StreamFault::Garbage(_) | StreamFault::TooLong(_) | StreamFault::Cut => broken(info, &fault.to_string()),
    }
}

/// The fault of a whole answer.
pub(super) fn from_whole(info: &AdapterInfo, fault: &WholeFault) -> EngineFault {
    match fault {
        WholeFault::Error(document) => told(info, document),
        WholeFault::WrongShape(reason) => broken(info, reason),
    }
}
