//! An engine's own API: `/engine/{id}/*`, and Ollama's `/api/*` beyond what FLM answers itself (SPEC §4.1, §4.11).
//!
//! Called by the pipeline after the key's right `passthrough` was checked. What is not in the engine's table of own routes
//! never reaches it; nor does the client's key, query or address, a header that is not named here, or a URL that the
//! engine would fetch.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use super::account::Stage;
use super::exchange::{Answer, Exchange};
use super::limits::Revoking;
use super::passed::Passed;
use super::refusal::Refusal;
use super::resolve::may_use;
use super::sanity::cut;
use super::{body, budget};
use crate::engines::adapter::EngineError;
use crate::engines::own_routes::{self, Effect, Found, OwnRoute};
use crate::engines::registry::{self, Engine, InFlight};
use crate::engines::resolution::Named;
use crate::guard::key_table::KeyEntry;
use crate::net::message::Outgoing;
use crate::net::pool::{Answered, Repeat, SendError};
use crate::types::audit::{AuditKind, Severity};
use crate::types::engine::EngineKind;
use crate::types::ids::{CanonicalModel, EngineId};
use crate::types::key::Right;
use crate::types::text::escape;
use crate::wire::json_body::JsonBody;
use crate::wire::remote_media;

/// The engine whose own API stands under `/api/`.
const OLLAMA: EngineKind = EngineKind::named("ollama");

/// Registries that an engine may be told to fetch models from; any other host in a model's name would let a client choose
/// what the engine connects to.
const MODEL_HOSTS: [&str; 4] = ["registry.ollama.ai", "ollama.com", "hf.co", "huggingface.co"];

/// Headers of the client that an engine gets: what Anthropic's clients say about their API's version (CLIENTS.md).
const PASSED_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("anthropic-version"), HeaderName::from_static("anthropic-beta")];

/// Largest error document of an engine that is read.
const MAX_FAULT: usize = 64 << 10;

/// Longest `content-type` of an engine that is told on.
const MAX_CONTENT_TYPE: usize = 200;

/// A request for an engine's own API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnCall {
    /// The engine that the path names; `None` under `/api/`.
    pub(super) engine: Option<EngineId>,
    pub(super) method: Method,
    /// Path on the engine.
    pub(super) path: String,
    /// The client's headers that go with it.
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl OwnCall {
    /// Reads a path of pass-through; `None` when it is none.
    pub(super) fn read(parts: &http::request::Parts) -> Option<Self> {
        let path = parts.uri.path();
        let (engine, path) = match path.strip_prefix("/engine/") {
            Some(rest) => {
                let (id, _) = rest.split_once('/')?;
                (Some(EngineId::parse(id).ok()?), &rest[id.len()..])
            }
            None => (None, path),
        };
        let method = parts.method.clone();
        if engine.is_none() && !path.starts_with("/api/") {
            return None;
        }
        if engine.is_none() && matches!(own_routes::find(ollama_routes(), &method, path), Found::Nothing) {
            return None;
        }
        let field = |name: HeaderName| Some((name.clone(), parts.headers.get(name)?.clone()));
        let fields = PASSED_HEADERS.into_iter().filter_map(field).collect();
        Some(Self { engine, method, path: path.to_owned(), fields })
    }
}

fn ollama_routes() -> &'static [OwnRoute] {
    registry::adapter(&OLLAMA).map_or(&[], |adapter| adapter.info().own_routes)
}

/// Answers with what the engine answers.
pub(super) async fn answer(
    exchange: &mut Exchange,
    key: &Arc<KeyEntry>,
    call: OwnCall,
    incoming: Incoming,
) -> Result<Answer, Refusal> {
    let named = match &call.engine {
        Some(id) => Some(registered(exchange, id)?),
        None => None,
    };
    let routes = named.as_ref().map_or_else(ollama_routes, |engine| engine.adapter.info().own_routes);
    let title = named.as_ref().map_or("Ollama", |engine| engine.adapter.info().title);
    let route = match own_routes::find(routes, &call.method, &call.path) {
        Found::Route(route) => route,
        Found::OtherMethod(method) => {
            return Err(Refusal::method_not_allowed(
                call.method.as_str(),
                &cut(&call.path, 100),
                if *method == Method::GET {
                    "GET"
                } else if *method == Method::DELETE {
                    "DELETE"
                } else {
                    "POST"
                },
            ));
        }
        Found::Nothing => {
            let path = cut(&call.path, 100);
            let refusal = Refusal::route_disabled(format!("FLM does not pass {} {path} on to {title}.", call.method));
            return Err(denied(exchange, refusal));
        }
    };
    let limits = &key.record.view.limits;
    if route.effect == Effect::Manages && !limits.rights.contains(&Right::Manage) {
        let message = "Creating, deleting, fetching, pushing, copying, loading and unloading models needs an API key with the right 'manage'.";
        return Err(denied(exchange, Refusal::permission_denied(message)));
    }
    let body = read(exchange, route, incoming).await?;
    let names = named_models(route, body.as_ref())?;
    refuse_remote(route, body.as_ref(), &names)?;
    let engine = match named {
        Some(engine) => engine,
        None => the_ollama(exchange, &call, &names)?,
    };
    may_use_models(exchange, key, &engine, route, &names)?;
    if let Some((_, name)) = names.first() {
        exchange.account.note(|row| row.model = Some(cut(name, 256).into()));
    }
    if route.effect == Effect::Infers {
        budget::hold(exchange, key)?;
    }
    exchange.account.mark(Stage::Resolved);
    let model = names.first().map_or_else(|| Arc::from("-"), |(_, name)| Arc::from(cut(name, 256)));
    exchange.account.asked(engine.record.id.clone(), model);
    send(exchange, key, &engine, route, call, body.map(|body| body.bytes().clone()).unwrap_or_default()).await
}

/// A refusal that stands in the audit log.
fn denied(exchange: &Exchange, refusal: Refusal) -> Refusal {
    exchange.audit(AuditKind::PermissionDenied, Severity::Medium, refusal.status, refusal.message.clone());
    refusal
}

/// An engine that is registered and serves.
fn registered(exchange: &Exchange, id: &EngineId) -> Result<Arc<Engine>, Refusal> {
    let registry = &exchange.peer.worker.shared.registry;
    let engine = registry.engine(id).ok_or_else(|| Refusal::no_engine(id.as_str()))?;
    if registry.state(id).is_some_and(|state| state.serves()) {
        return Ok(engine);
    }
    Err(Refusal::engine_unavailable(format!("The engine '{id}' does not answer now.")))
}

async fn read(exchange: &mut Exchange, route: &OwnRoute, incoming: Incoming) -> Result<Option<JsonBody>, Refusal> {
    if route.method == Method::GET {
        return Ok(None);
    }
    let bytes = body::collect(exchange, incoming, exchange.limits.json_body_bytes).await?;
    exchange.account.note(|row| row.bytes_in = bytes.len() as u64);
    exchange.account.came_in(&bytes);
    let body = JsonBody::parse(bytes)?;
    exchange.account.note(|row| row.stream = body.raw("stream") == Some("true"));
    exchange.account.mark(Stage::Parsed);
    Ok(Some(body))
}

/// Every model that the body names, with the field that names it.
fn named_models(route: &OwnRoute, body: Option<&JsonBody>) -> Result<Vec<(&'static str, String)>, Refusal> {
    let Some(body) = body else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for field in route.names_model {
        match body.string(field) {
            Ok(Some(name)) if !name.is_empty() => names.push((*field, name.into_owned())),
            Ok(_) => {}
            Err(_) => {
                return Err(Refusal::invalid_model(format!("The field '{field}' must be a string.")).param(*field));
            }
        }
    }
    Ok(names)
}

/// Refuses what would make the engine connect to a place of the client's choice (SPEC §4.11).
fn refuse_remote(route: &OwnRoute, body: Option<&JsonBody>, names: &[(&'static str, String)]) -> Result<(), Refusal> {
    let Some(body) = body else { return Ok(()) };
    if let Some(path) = body.may_name_places().then(|| remote_media::find(body.text())).flatten() {
        return Err(Refusal::remote_reference(path));
    }
    if route.effect != Effect::Manages {
        return Ok(());
    }
    for (field, name) in names {
        if remote_media::is_remote(name) && name.contains("//") || names_foreign_host(name) {
            return Err(Refusal::remote_reference(*field));
        }
    }
    if body.raw("insecure").is_some_and(|raw| !matches!(raw, "false" | "null")) {
        return Err(Refusal::bad_request("FLM does not let an engine fetch without TLS: leave 'insecure' out.")
            .param("insecure"));
    }
    Ok(())
}

/// Whether a model's name names a host to fetch it from, other than the public registries
/// (`ollama/ollama` `types/model/name.go`: host/namespace/model:tag).
fn names_foreign_host(name: &str) -> bool {
    let mut segments = name.split('/');
    let first = segments.next().unwrap_or_default();
    let more = segments.count();
    let looks_like_host = match more {
        0 => false,
        1 => first.contains(':'),
        _ => first.contains(['.', ':']) || first.eq_ignore_ascii_case("localhost"),
    };
    looks_like_host && !MODEL_HOSTS.iter().any(|known| first.eq_ignore_ascii_case(known))
}

/// The Ollama engine that a request under `/api/` is for.
fn the_ollama(exchange: &Exchange, call: &OwnCall, names: &[(&'static str, String)]) -> Result<Arc<Engine>, Refusal> {
    let registry = &exchange.peer.worker.shared.registry;
    let ids: Vec<EngineId> =
        registry.views().into_iter().filter(|view| view.record.kind == OLLAMA).map(|view| view.record.id).collect();
    if let [only] = ids.as_slice() {
        return registered(exchange, only);
    }
    let models = registry.models();
    let has = |id: &EngineId| {
        names.iter().any(|(_, name)| {
            let name = with_tag(name);
            models.iter().any(|model| model.name.engine == *id && *model.name.model == *name)
        })
    };
    let owners: Vec<&EngineId> = ids.iter().filter(|id| has(id)).collect();
    match (ids.len(), owners.as_slice()) {
        (0, _) => Err(Refusal::engine_unavailable("No Ollama engine is registered.")),
        (_, [owner]) => registered(exchange, owner),
        _ => Err(Refusal::bad_request(format!(
            "There are several Ollama engines ({}): say which one with /engine/ID{}.",
            ids.iter().map(EngineId::as_str).collect::<Vec<_>>().join(", "),
            cut(&call.path, 100)
        ))),
    }
}

/// A name as Ollama lists it: the tag `latest` goes without saying.
fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

/// Keys that are restricted to models may name only those, and must name one.
fn may_use_models(
    exchange: &Exchange,
    key: &KeyEntry,
    engine: &Engine,
    route: &OwnRoute,
    names: &[(&'static str, String)],
) -> Result<(), Refusal> {
    let globs = &key.record.view.limits.models;
    if globs.is_empty() {
        return Ok(());
    }
    if names.is_empty() {
        let message = "This API key is restricted to some models, and this request names none.";
        return Err(denied(exchange, Refusal::permission_denied(message)));
    }
    let models = exchange.peer.worker.shared.registry.models();
    for (field, name) in names {
        let own = if engine.record.kind == OLLAMA { with_tag(name) } else { name.clone() };
        let canonical = CanonicalModel { engine: engine.record.id.clone(), model: own.as_str().into() };
        // An engine with one model may take any name for it, so a name must be one that it lists. What is managed need not
        // be there yet.
        let listed = route.effect == Effect::Manages || models.iter().any(|model| model.name == canonical);
        if !listed || !may_use(globs, Named { canonical: &canonical, alias: None }) {
            let refusal = Refusal::model_not_allowed(&escape(&cut(name, 200))).param(*field);
            return Err(denied(exchange, refusal));
        }
    }
    Ok(())
}

async fn send(
    exchange: &mut Exchange,
    key: &Arc<KeyEntry>,
    engine: &Arc<Engine>,
    route: &'static OwnRoute,
    call: OwnCall,
    bytes: Bytes,
) -> Result<Answer, Refusal> {
    let worker = exchange.peer.worker.clone();
    let id = &engine.record.id;
    let in_flight = InFlight::on(engine.clone());
    let mut fields = call.fields;
    if !bytes.is_empty() {
        fields.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    }
    fields.push((ACCEPT, HeaderValue::from_static("*/*")));
    fields.extend(engine.authorization());
    fields.extend(exchange.account.trace_fields());
    let request = Outgoing { method: route.method.clone(), target: Cow::Owned(call.path), fields, body: bytes };
    exchange.account.mark(Stage::Sent);
    let repeat = if route.effect == Effect::Infers { Repeat::Harmless } else { Repeat::ByMethod };
    let patience = exchange.limits.engine_first_byte;
    let sent = tokio::time::timeout(patience, worker.pool.send(&engine.upstream, request, repeat)).await;
    let answered = match sent {
        Err(_elapsed) => {
            return Err(Refusal::engine_timeout(format!(
                "The engine '{id}' sent nothing for {} s.",
                patience.as_secs()
            )));
        }
        Ok(Err(error)) => {
            let reason = error.to_string();
            worker.shared.registry.observed(id, Err(&EngineError::Network(reason.clone())));
            return Err(match error {
                SendError::Connect { .. } => {
                    Refusal::engine_unavailable(format!("The engine '{id}' does not answer: {reason}."))
                }
                SendError::BeforeAnswer { .. } => Refusal::engine_error(format!("The engine '{id}' failed: {reason}.")),
            });
        }
        Ok(Ok(answered)) => answered,
    };
    exchange.account.mark(Stage::FirstByte);
    let Answered { status, fields, body: mut upstream } = answered;
    if status.is_redirection() {
        let place = fields.get(&LOCATION);
        let place = place.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        tracing::warn!(engine = %id, location = %escape(&cut(place, 200)), "an engine redirects; not followed");
        return Err(Refusal::engine_error(format!(
            "The engine '{id}' answered with a redirect, which FLM does not follow."
        )));
    }
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        // The client's key was right: it is FLM's own for the engine that is not, and the engine could quote it.
        let limited = http_body_util::Limited::new(&mut upstream, MAX_FAULT).collect();
        let document = match tokio::time::timeout(patience, limited).await {
            Ok(Ok(document)) => document.to_bytes(),
            Ok(Err(_)) | Err(_) => Bytes::new(),
        };
        return Err(engine.adapter.fault(status, &fields.map(), &document).into());
    }
    worker.shared.registry.observed(id, Ok(()));
    let revoked = match exchange.limits.revoking {
        Revoking::EndsStreams => key.counts.ended.clone(),
        Revoking::LetsStreamsEnd => CancellationToken::new(),
    };
    let content_type = fields.get(&CONTENT_TYPE).filter(|value| value.len() <= MAX_CONTENT_TYPE);
    let passed = Passed::new(upstream, in_flight, route.effect, exchange.limits.engine_gap, revoked);
    Ok(Answer::Passed { status, content_type, body: Box::new(passed) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_name_may_name_a_public_registry_and_no_other_host() {
        for name in ["qwen3:8b", "user/model:tag", "hf.co/user/repo:q4", "registry.ollama.ai/library/tiny", "a/b/c"] {
            assert!(!names_foreign_host(name), "{name}");
        }
        for name in
            ["127.0.0.1:5000/a/b", "evil.example/a/b", "localhost/a/b", "host:80/a", "HF.CO.evil/a/b", "10.0.0.1/a/b"]
        {
            assert!(names_foreign_host(name), "{name}");
        }
    }

    #[test]
    fn the_tag_latest_goes_without_saying() {
        assert_eq!(with_tag("tiny"), "tiny:latest");
        assert_eq!(with_tag("tiny:q4"), "tiny:q4");
        assert_eq!(with_tag("hf.co:443/user/tiny"), "hf.co:443/user/tiny:latest");
    }
}
