//! Fourth stage: which endpoint is it, and may this key use it? A closed table of exact paths (SPEC §4.1, §4.2).

use http::Method;
use http::header::CONTENT_TYPE;
use http::request::Parts;

use super::exchange::{Authenticated, Exchange, Routed};
use super::passthrough::OwnCall;
use super::refusal::{Refusal, sentence};
use super::sanity::cut;
use crate::engines::inference_route::{InferenceRoute, Takes};
use crate::guard::key_glob;
use crate::types::key::Right;
use crate::wire::client::ClientDialect;
use crate::wire::multipart::Boundary;
use crate::wire::pivot::OllamaCall;

/// What a request wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `GET /v1/models`.
    Models,
    /// `GET /v1/models/{id}`: the id, decoded.
    Model(String),
    /// `GET /metrics`.
    Metrics,
    /// `GET /api/tags`.
    OllamaTags,
    /// `GET /api/ps`.
    OllamaPs,
    /// `POST /api/show`.
    OllamaShow,
    /// `GET /api/version`.
    OllamaVersion,
    /// An engine's own API.
    Own(OwnCall),
    /// A route that an engine answers.
    Inference(Inference),
}

/// A route that an engine answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inference {
    /// The route as adapters know it.
    pub(super) route: InferenceRoute,
    /// Its name in logs, metrics, prompts and the console.
    pub(super) name: &'static str,
    /// What the client speaks there.
    pub(super) dialect: ClientDialect,
}

struct Row {
    path: &'static str,
    inference: Inference,
}

const fn row(path: &'static str, name: &'static str, route: InferenceRoute, dialect: ClientDialect) -> Row {
    Row { path, inference: Inference { route, name, dialect } }
}

/// Every inference route. Adding one adds a row.
const INFERENCE: &[Row] = &[
    row("/v1/chat/completions", "chat.completions", InferenceRoute::Chat, ClientDialect::OpenAi),
    row("/v1/messages", "messages", InferenceRoute::Chat, ClientDialect::Messages),
    row("/v1/messages/count_tokens", "messages.count_tokens", InferenceRoute::Chat, ClientDialect::CountTokens),
    row("/v1/responses", "responses", InferenceRoute::Chat, ClientDialect::Responses),
    row("/api/chat", "api.chat", InferenceRoute::Chat, ClientDialect::Ollama(OllamaCall::Chat)),
    row("/api/generate", "api.generate", InferenceRoute::Chat, ClientDialect::Ollama(OllamaCall::Generate)),
    row("/api/embed", "api.embed", InferenceRoute::Embeddings, ClientDialect::Ollama(OllamaCall::Embed)),
    row("/api/embeddings", "api.embeddings", InferenceRoute::Embeddings, ClientDialect::Ollama(OllamaCall::Embeddings)),
    row("/v1/completions", "completions", InferenceRoute::Completions, ClientDialect::OpenAi),
    row("/v1/embeddings", "embeddings", InferenceRoute::Embeddings, ClientDialect::OpenAi),
    row("/v1/rerank", "rerank", InferenceRoute::Rerank, ClientDialect::OpenAi),
    row("/v1/images/generations", "images.generations", InferenceRoute::ImageGenerations, ClientDialect::OpenAi),
    row("/v1/images/edits", "images.edits", InferenceRoute::ImageEdits, ClientDialect::OpenAi),
    row("/v1/audio/transcriptions", "audio.transcriptions", InferenceRoute::Transcriptions, ClientDialect::OpenAi),
    row("/v1/audio/translations", "audio.translations", InferenceRoute::Translations, ClientDialect::OpenAi),
    row("/v1/audio/speech", "audio.speech", InferenceRoute::Speech, ClientDialect::OpenAi),
];

/// The names of the inference routes of one kind. Counting has the prompts of what it counts for.
pub(super) fn names(route: InferenceRoute) -> impl Iterator<Item = &'static str> {
    let rows = INFERENCE.iter().map(|row| row.inference);
    rows.filter(move |row| row.route == route && row.dialect != ClientDialect::CountTokens).map(|row| row.name)
}

/// Other paths that clients and monitors ask for often.
const OFTEN: [&str; 5] = ["/health", "/metrics", "/v1/models", "/api/tags", "/"];

/// A path that is often asked for, for as long as the program runs.
pub(super) fn known_path(path: &str) -> Option<&'static str> {
    INFERENCE.iter().map(|row| row.path).chain(OFTEN).find(|known| *known == path)
}

/// What the inference route of a path is, and what is spoken there: for requests of a log.
#[must_use]
pub fn inference_of(path: &str) -> Option<(InferenceRoute, ClientDialect)> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let row = INFERENCE.iter().find(|row| row.path == path)?;
    (row.inference.dialect != ClientDialect::CountTokens).then_some((row.inference.route, row.inference.dialect))
}

/// Finds the endpoint and checks method, media type, and the key's rights and routes.
pub(super) fn find(exchange: &mut Exchange, authenticated: Authenticated) -> Result<Routed, Refusal> {
    let Authenticated { parts, key, .. } = authenticated;
    let (endpoint, boundary) = endpoint(&parts)?;
    let (name, right) = match &endpoint {
        Endpoint::Models => ("models", Right::Infer),
        Endpoint::Model(_) => ("model", Right::Infer),
        Endpoint::Metrics => ("metrics", Right::Metrics),
        Endpoint::OllamaTags => ("api.tags", Right::Infer),
        Endpoint::OllamaPs => ("api.ps", Right::Infer),
        Endpoint::OllamaShow => ("api.show", Right::Infer),
        Endpoint::OllamaVersion => ("api.version", Right::Infer),
        Endpoint::Own(_) => ("passthrough", Right::Passthrough),
        Endpoint::Inference(inference) => (inference.name, Right::Infer),
    };
    exchange.account.note(|row| row.route = Some(name.into()));
    let limits = &key.record.view.limits;
    let denied = if !limits.rights.contains(&right) {
        Some(format!("This API key does not have the right '{}'.", right_name(right)))
    } else if !key_glob::allowed(&limits.routes, parts.uri.path()) {
        Some(format!("This API key may not use {}.", cut(parts.uri.path(), 100)))
    } else {
        None
    };
    if let Some(message) = denied {
        let refusal = Refusal::permission_denied(message);
        exchange.audit(
            crate::types::audit::AuditKind::PermissionDenied,
            crate::types::audit::Severity::Medium,
            refusal.status,
            refusal.message.clone(),
        );
        return Err(refusal);
    }
    Ok(Routed { key, endpoint, boundary })
}

/// Whether a request is for a route of this endpoint, whatever its method: for requests of a log.
#[must_use]
pub fn knows_route(method: &Method, uri: &http::Uri) -> bool {
    let mut request = http::Request::new(());
    (*request.method_mut(), *request.uri_mut()) = (method.clone(), uri.clone());
    !is_unknown(&request.into_parts().0)
}

/// Whether the path is no route of this endpoint, whatever the method: what a rule counts (SPEC §5.4).
pub(super) fn is_unknown(parts: &Parts) -> bool {
    let path = parts.uri.path();
    let open = matches!(path, "/" | "/health");
    !open
        && !INFERENCE.iter().any(|row| row.path == path)
        && endpoint(parts).is_err_and(|refusal| refusal.code == "not_found")
}

/// The endpoint, and what separates the parts of its form where it takes one.
fn endpoint(parts: &Parts) -> Result<(Endpoint, Option<Boundary>), Refusal> {
    let path = parts.uri.path();
    // Client libraries with a base URL that ends in a slash are not punished for it (CLIENTS.md, Engines' edges).
    let path = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
    let (endpoint, method) = match path {
        "/v1/models" => (Endpoint::Models, Method::GET),
        "/metrics" => (Endpoint::Metrics, Method::GET),
        "/api/tags" => (Endpoint::OllamaTags, Method::GET),
        "/api/ps" => (Endpoint::OllamaPs, Method::GET),
        "/api/show" => (Endpoint::OllamaShow, Method::POST),
        "/api/version" => (Endpoint::OllamaVersion, Method::GET),
        _ => {
            if let Some(row) = INFERENCE.iter().find(|row| row.path == path) {
                (Endpoint::Inference(row.inference), Method::POST)
            } else if let Some(id) = path.strip_prefix("/v1/models/").and_then(decode) {
                (Endpoint::Model(id), Method::GET)
            } else if let Some(call) = OwnCall::read(parts) {
                // Which methods it takes is the engine's table to say.
                check_media_type(parts, MediaType::AsOllama)?;
                return Ok((Endpoint::Own(call), None));
            } else {
                return Err(Refusal::not_found(parts.method.as_str(), &cut(path, 100)));
            }
        }
    };
    let allow = if method == Method::GET { "GET" } else { "POST" };
    let as_get = parts.method == Method::HEAD && method == Method::GET;
    if parts.method != method && !as_get {
        return Err(Refusal::method_not_allowed(parts.method.as_str(), &cut(path, 100), allow));
    }
    match &endpoint {
        Endpoint::Inference(Inference { dialect: ClientDialect::Ollama(_), .. }) | Endpoint::OllamaShow => {
            check_media_type(parts, MediaType::AsOllama)?;
        }
        Endpoint::Inference(inference) => match inference.route.facts().takes {
            Takes::Json(_) => check_media_type(parts, MediaType::Json)?,
            Takes::Form(_) => return form_boundary(parts).map(|boundary| (endpoint, Some(boundary))),
        },
        _ => {}
    }
    Ok((endpoint, None))
}

/// The boundary of a form: routes that take files take nothing else.
fn form_boundary(parts: &Parts) -> Result<Boundary, Refusal> {
    refuse_encoded(parts)?;
    let media_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match Boundary::of_media_type(media_type) {
        Ok(Some(boundary)) => Ok(boundary),
        Ok(None) => Err(Refusal::unsupported_media_type(format!(
            "The Content-Type must be multipart/form-data with the file in it, not '{}'.",
            crate::types::text::escape(&cut(media_type, 60))
        ))),
        Err(fault) => Err(Refusal::bad_request(sentence(&fault.to_string()))),
    }
}

/// What a body must say it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MediaType {
    Json,
    /// Ollama never looks: its own examples send JSON as curl does by itself, as a form.
    AsOllama,
}

/// An encoded body could be a decompression bomb.
fn refuse_encoded(parts: &Parts) -> Result<(), Refusal> {
    match parts.headers.get(http::header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(Refusal::unsupported_media_type("Send the body without Content-Encoding."))
        }
        _ => Ok(()),
    }
}

/// Most inference routes of this table take JSON, as it is.
fn check_media_type(parts: &Parts, wanted: MediaType) -> Result<(), Refusal> {
    refuse_encoded(parts)?;
    let Some(media_type) = parts.headers.get(CONTENT_TYPE) else {
        if wanted == MediaType::AsOllama {
            return Ok(());
        }
        return Err(Refusal::unsupported_media_type("Send the body with Content-Type: application/json."));
    };
    let essence = media_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let is_form = wanted == MediaType::AsOllama && essence.eq_ignore_ascii_case("application/x-www-form-urlencoded");
    if is_form || essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Refusal::unsupported_media_type(format!(
        "The Content-Type must be application/json, not '{}'.",
        crate::types::text::escape(&cut(essence, 60))
    )))
}

/// Decodes `%xx` once; `None` when it is not valid or not UTF-8.
fn decode(segment: &str) -> Option<String> {
    if segment.is_empty() {
        return None;
    }
    let mut out = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let pair = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

fn right_name(right: Right) -> &'static str {
    match right {
        Right::Infer => "infer",
        Right::Metrics => "metrics",
        Right::Manage => "manage",
        Right::Passthrough => "passthrough",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, path: &str, media_type: Option<&str>) -> Parts {
        let mut request = http::Request::builder().method(method).uri(path);
        if let Some(media_type) = media_type {
            request = request.header(CONTENT_TYPE, media_type);
        }
        request.body(()).expect("request").into_parts().0
    }

    #[test]
    fn paths_match_exactly_and_a_slash_at_the_end_does_not_matter() {
        assert_eq!(endpoint(&parts("GET", "/v1/models/", None)), Ok((Endpoint::Models, None)));
        assert_eq!(
            endpoint(&parts("GET", "/v1/models/hf.co%2Fa/b:q4", None)),
            Ok((Endpoint::Model("hf.co/a/b:q4".into()), None))
        );
        for path in ["/v1", "/v1/chat", "/v1/chat/completionsx", "/V1/models", "/v1/models/%zz", "/engine/x", "/admin"]
        {
            assert_eq!(endpoint(&parts("GET", path, None)).expect_err(path).status, 404, "{path}");
        }
    }

    #[test]
    fn methods_and_media_types_are_checked() {
        let wrong_method = endpoint(&parts("DELETE", "/v1/models", None)).expect_err("refused");
        assert_eq!((wrong_method.status.as_u16(), wrong_method.allow), (405, Some("GET")));
        for media_type in [None, Some("text/plain"), Some("multipart/form-data; boundary=x"), Some("application/jsonx")]
        {
            let refusal = endpoint(&parts("POST", "/v1/chat/completions", media_type)).expect_err("refused");
            assert_eq!(refusal.status, 415, "{media_type:?}");
        }
        assert!(endpoint(&parts("POST", "/v1/embeddings", Some("Application/JSON; charset=utf-8"))).is_ok());
        for (media_type, status) in [
            (None, 415),
            (Some("application/json"), 415),
            (Some("multipart/mixed; boundary=x"), 415),
            (Some("multipart/form-data"), 400),
            (Some("multipart/form-data; boundary=\"\""), 400),
        ] {
            let refusal = endpoint(&parts("POST", "/v1/audio/transcriptions", media_type)).expect_err("refused");
            assert_eq!(refusal.status, status, "{media_type:?}");
        }
        let (_, boundary) =
            endpoint(&parts("POST", "/v1/images/edits", Some("multipart/form-data; boundary=x"))).expect("a form");
        assert!(boundary.is_some());
    }
}
