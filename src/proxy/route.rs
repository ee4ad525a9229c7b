//! Fourth stage: which endpoint is it, and may this key use it? A closed table of exact paths (SPEC §4.1, §4.2).

use http::Method;
use http::header::CONTENT_TYPE;
use http::request::Parts;

use super::exchange::{Authenticated, Exchange, Routed};
use super::passthrough::OwnCall;
use super::refusal::Refusal;
use super::sanity::cut;
use crate::engines::adapter::InferenceRoute;
use crate::guard::key_glob;
use crate::types::engine::Capability;
use crate::types::key::Right;
use crate::wire::client::ClientDialect;
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
    /// What a model must be able to do.
    pub(super) needs: Capability,
    /// The same for people.
    pub(super) needs_title: &'static str,
    /// What the client speaks there.
    pub(super) dialect: ClientDialect,
}

struct Row {
    path: &'static str,
    inference: Inference,
}

/// Every inference route. Adding one adds a row.
const INFERENCE: &[Row] = &[
    Row {
        path: "/v1/chat/completions",
        inference: Inference {
            route: InferenceRoute::Chat,
            name: "chat.completions",
            needs: Capability::Chat,
            needs_title: "chat",
            dialect: ClientDialect::OpenAi,
        },
    },
    Row {
        path: "/v1/messages",
        inference: Inference {
            route: InferenceRoute::Chat,
            name: "messages",
            needs: Capability::Chat,
            needs_title: "chat",
            dialect: ClientDialect::Messages,
        },
    },
    Row {
        path: "/v1/messages/count_tokens",
        inference: Inference {
            route: InferenceRoute::Chat,
            name: "messages.count_tokens",
            needs: Capability::Chat,
            needs_title: "chat",
            dialect: ClientDialect::CountTokens,
        },
    },
    Row {
        path: "/v1/responses",
        inference: Inference {
            route: InferenceRoute::Chat,
            name: "responses",
            needs: Capability::Chat,
            needs_title: "chat",
            dialect: ClientDialect::Responses,
        },
    },
    Row {
        path: "/api/chat",
        inference: Inference {
            route: InferenceRoute::Chat,
            name: "api.chat",
            needs: Capability::Chat,
            needs_title: "chat",
            dialect: ClientDialect::Ollama(OllamaCall::Chat),
        },
    },
    Row {
        path: "/api/generate",
        inference: Inference {
            route: InferenceRoute::Chat,
            name: "api.generate",
            needs: Capability::Chat,
            needs_title: "chat",
            dialect: ClientDialect::Ollama(OllamaCall::Generate),
        },
    },
    Row {
        path: "/api/embed",
        inference: Inference {
            route: InferenceRoute::Embeddings,
            name: "api.embed",
            needs: Capability::Embeddings,
            needs_title: "embeddings",
            dialect: ClientDialect::Ollama(OllamaCall::Embed),
        },
    },
    Row {
        path: "/api/embeddings",
        inference: Inference {
            route: InferenceRoute::Embeddings,
            name: "api.embeddings",
            needs: Capability::Embeddings,
            needs_title: "embeddings",
            dialect: ClientDialect::Ollama(OllamaCall::Embeddings),
        },
    },
    Row {
        path: "/v1/completions",
        inference: Inference {
            route: InferenceRoute::Completions,
            name: "completions",
            needs: Capability::Completions,
            needs_title: "completions",
            dialect: ClientDialect::OpenAi,
        },
    },
    Row {
        path: "/v1/embeddings",
        inference: Inference {
            route: InferenceRoute::Embeddings,
            name: "embeddings",
            needs: Capability::Embeddings,
            needs_title: "embeddings",
            dialect: ClientDialect::OpenAi,
        },
    },
];

/// The names of the inference routes of one kind. Counting has the prompts of what it counts for.
pub(super) fn names(route: InferenceRoute) -> impl Iterator<Item = &'static str> {
    let rows = INFERENCE.iter().map(|row| row.inference);
    rows.filter(move |row| row.route == route && row.dialect != ClientDialect::CountTokens).map(|row| row.name)
}

/// Finds the endpoint and checks method, media type, and the key's rights and routes.
pub(super) fn find(exchange: &mut Exchange, authenticated: Authenticated) -> Result<Routed, Refusal> {
    let Authenticated { parts, key } = authenticated;
    let endpoint = endpoint(&parts)?;
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
    Ok(Routed { key, endpoint })
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

fn endpoint(parts: &Parts) -> Result<Endpoint, Refusal> {
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
                return Ok(Endpoint::Own(call));
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
        Endpoint::Inference(_) => check_media_type(parts, MediaType::Json)?,
        _ => {}
    }
    Ok(endpoint)
}

/// What a body must say it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MediaType {
    Json,
    /// Ollama never looks: its own examples send JSON as curl does by itself, as a form.
    AsOllama,
}

/// Inference routes of this table take JSON, as it is: an encoded body could be a decompression bomb.
fn check_media_type(parts: &Parts, wanted: MediaType) -> Result<(), Refusal> {
    if let Some(encoding) = parts.headers.get(http::header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(Refusal::unsupported_media_type("Send the body without Content-Encoding."));
    }
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
        assert_eq!(endpoint(&parts("GET", "/v1/models/", None)), Ok(Endpoint::Models));
        assert_eq!(
            endpoint(&parts("GET", "/v1/models/hf.co%2Fa/b:q4", None)),
            Ok(Endpoint::Model("hf.co/a/b:q4".into()))
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
    }
}
