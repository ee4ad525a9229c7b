//! Engines: detection, registering, health (SPEC §3).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::join_all;

use super::context::{Context, blocking_panicked};
use crate::config::table;
use crate::engines::detection::{EngineProcessController, detect as look_around, suggest_id};
use crate::engines::process_controller::is_of_this_machine;
use crate::engines::registry::{ADAPTERS, Engine, adapter};
use crate::net::upstream::Upstream;
use crate::proxy::is_own_name;
use crate::types::address::canonical;
use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::calls::engines::{
    AddEngine, DetectEngines, EditEngine, EngineHealth, EngineKindInfo, ListEngineKinds, ListEngines, RemoveEngine,
};
use crate::types::engine::{
    DetectedEngine, DetectionReport, EngineKind, EngineOrigin, EngineRecord, EngineView, HealthPoint,
};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::ids::EngineId;
use crate::types::listener::ListenerConfig;
use crate::types::text::escape;

/// Looks for engines on this machine and registers what answers. A detection that is young enough is answered from
/// the cache and registers nothing (SPEC §3.3).
///
/// # Errors
/// `ENGINE_NOT_FOUND` for a kind that this version does not know.
pub async fn detect(context: &Context, call: DetectEngines) -> Outcome<DetectionReport> {
    if let Some(kind) = &call.kind {
        known_kind(kind)?;
    }
    if !call.fresh
        && let Some(report) = current_detection(context).await?
    {
        let mut report = DetectionReport { cached: true, ..report };
        report.engines.retain(|engine| call.kind.as_ref().is_none_or(|kind| engine.kind == *kind));
        return Ok(report);
    }
    let own = own_addresses(context);
    let controller = tokio::task::spawn_blocking(move || EngineProcessController::look(own))
        .await
        .map_err(|_| blocking_panicked("detection"))?;
    let report = look_around(&controller, call.kind.as_ref(), &context.pool, &context.clock).await;
    // A home that is read-only still tells what it found.
    let changing = context.begin_change().await;
    if changing.is_ok() {
        if call.kind.is_none() {
            context.stores.config.put_detection(report.clone()).await?;
        }
        register_found(context, &report).await?;
    }
    Ok(report)
}

/// The last detection, if it still counts as current (SPEC §3.3).
pub async fn current_detection(context: &Context) -> Outcome<Option<DetectionReport>> {
    let report = context.stores.config.detection().await?;
    let (now, keep) = (context.clock.wall(), context.settings.load().get(table::ENGINE_DETECTION_CACHE));
    // A report from the future was made by another clock.
    Ok(report.filter(|report| report.at <= now && now.since(report.at) < keep))
}

/// Lists registered engines with their state; without an owner they are checked first, since nobody else has.
pub async fn list(context: &Context, _call: ListEngines) -> Outcome<Vec<EngineView>> {
    if context.live.is_none() {
        check_all(context).await?;
    }
    Ok(context.registry.views())
}

/// Registers an engine by hand and checks it once. One that was found by itself at the same place gives way: it had a name
/// and settings of FLM's own choice, and twice in the registry its slots would count twice.
///
/// # Errors
/// `INVALID_ARGUMENT` for an id that is taken, a URL that is no base URL or FLM's own, and a bad variable name;
/// `ENGINE_NOT_FOUND` for an unknown kind.
pub async fn add(context: &Context, call: AddEngine) -> Outcome<EngineView> {
    known_kind(&call.kind)?;
    let (url, upstream) = checked_place(context, &call.url, call.api_key_env.as_deref())?;
    let changing = context.begin_change().await?;
    let found = found_at(context, &upstream);
    if context.registry.engine(&call.id).is_some() && !found.contains(&call.id) {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("an engine is already registered as {}", call.id),
        )
        .hint(format!("choose another id, or remove that one first: flm engines remove {}", call.id)));
    }
    let record = EngineRecord {
        id: call.id,
        kind: call.kind,
        url,
        api_key_env: call.api_key_env,
        direct: call.direct,
        slots: call.slots,
        origin: EngineOrigin::Manual,
        created: context.clock.wall(),
    };
    register(context, &record).await?;
    for id in found.iter().filter(|id| **id != record.id) {
        context.stores.config.remove_engine(id.clone()).await?;
        context.registry.remove(id);
        self::record(
            context,
            id,
            format!("engine {id}, found by itself, gives way to {} at the same place", record.id),
        )
        .await;
    }
    drop(changing);
    checked(context, &record.id).await
}

/// Changes where and how an engine is reached; requests that run go on as they began.
///
/// # Errors
/// `ENGINE_NOT_FOUND`; `INVALID_ARGUMENT` as of [`add`].
pub async fn edit(context: &Context, call: EditEngine) -> Outcome<EngineView> {
    let (url, _upstream) = checked_place(context, &call.url, call.api_key_env.as_deref())?;
    let changing = context.begin_change().await?;
    let known = context.registry.views().into_iter().find(|view| view.record.id == call.id);
    let known = known.ok_or_else(|| unknown(context, &call.id))?.record;
    let EditEngine { id, api_key_env, direct, slots, .. } = call;
    let record = EngineRecord { url, api_key_env, direct, slots, origin: EngineOrigin::Manual, ..known };
    register(context, &record).await?;
    drop(changing);
    checked(context, &id).await
}

/// Checks a registered engine and answers how it is.
async fn checked(context: &Context, id: &EngineId) -> Outcome<EngineView> {
    check(context, id).await?;
    context.registry.views().into_iter().find(|view| view.record.id == *id).ok_or_else(|| unknown(context, id))
}

/// The place of an engine as it is stored: a base URL that is not FLM's own, and a variable that can be one.
fn checked_place(context: &Context, url: &str, variable: Option<&str>) -> Outcome<(String, Upstream)> {
    let url = url.trim().trim_end_matches('/').to_owned();
    let upstream =
        Upstream::parse(&url).map_err(|error| Failure::new(ErrorCode::InvalidArgument, escape(&error.to_string())))?;
    refuse_self(context, &upstream)?;
    if let Some(variable) = variable {
        check_variable_name(variable)?;
    }
    Ok((url, upstream))
}

/// Removes an engine from the registry; running requests on it end by themselves.
///
/// # Errors
/// `ENGINE_NOT_FOUND`.
pub async fn remove(context: &Context, call: RemoveEngine) -> Outcome<()> {
    let _changing = context.begin_change().await?;
    if !context.stores.config.remove_engine(call.id.clone()).await? && context.registry.engine(&call.id).is_none() {
        return Err(unknown(context, &call.id));
    }
    context.registry.remove(&call.id);
    record(context, &call.id, format!("engine {} removed", call.id)).await;
    Ok(())
}

/// Checks one or all engines now and answers their health history.
///
/// # Errors
/// `ENGINE_NOT_FOUND`.
pub async fn health(context: &Context, call: EngineHealth) -> Outcome<Vec<HealthPoint>> {
    match &call.id {
        Some(id) => {
            registered(context, id)?;
            check(context, id).await?;
        }
        None => check_all(context).await?,
    }
    let since = context.clock.wall().minus(call.since);
    Ok(context.stores.config.health(call.id, since).await?)
}

/// The engine kinds that this program knows.
pub async fn kinds(_context: &Context, _call: ListEngineKinds) -> Outcome<Vec<EngineKindInfo>> {
    let kinds = ADAPTERS
        .iter()
        .map(|adapter| adapter.info())
        .map(|info| EngineKindInfo {
            kind: info.kind.clone(),
            title: info.title.to_owned(),
            default_port: info.ports.first().copied().unwrap_or(0),
        })
        .collect();
    std::future::ready(Ok(kinds)).await
}

/// Checks every engine, side by side, and stores what the checks found.
pub async fn check_all(context: &Context) -> Outcome<()> {
    let ids: Vec<_> = context.registry.views().into_iter().map(|view| view.record.id).collect();
    let checks = ids.iter().map(|id| context.registry.check(id, &context.pool));
    store_points(context, join_all(checks).await.into_iter().flatten().collect()).await
}

/// Checks one engine and stores what the check found.
pub(super) async fn check(context: &Context, id: &EngineId) -> Outcome<()> {
    let point = context.registry.check(id, &context.pool).await;
    store_points(context, point.into_iter().collect()).await
}

async fn store_points(context: &Context, points: Vec<HealthPoint>) -> Outcome<()> {
    if !points.is_empty() {
        context.stores.config.append_health(points).await?;
    }
    Ok(())
}

/// Registers what answers and is not registered yet. The caller holds the change.
async fn register_found(context: &Context, report: &DetectionReport) -> Outcome<()> {
    let mut added = Vec::new();
    for found in &report.engines {
        let Some(record) = suggest(context, found) else { continue };
        register(context, &record).await?;
        added.push(record.id);
    }
    let checks = added.iter().map(|id| context.registry.check(id, &context.pool));
    store_points(context, join_all(checks).await.into_iter().flatten().collect()).await
}

/// The record for a found engine: `None` when it does not answer or is registered already, under whatever id.
fn suggest(context: &Context, found: &DetectedEngine) -> Option<EngineRecord> {
    let url = found.url.as_ref()?;
    if !found.state.serves() {
        return None;
    }
    let upstream = Upstream::parse(url).ok()?;
    let known = context.registry.views();
    let same = |view: &EngineView| Upstream::parse(&view.record.url).is_ok_and(|other| same_place(&other, &upstream));
    if known.iter().any(same) {
        return None;
    }
    let id = suggest_id(&found.kind, url, &|id| known.iter().any(|view| view.record.id == *id))?;
    Some(EngineRecord {
        id,
        kind: found.kind.clone(),
        url: url.clone(),
        api_key_env: None,
        direct: false,
        slots: None,
        origin: EngineOrigin::Detected,
        created: context.clock.wall(),
    })
}

/// Engines at a place that nobody registered by hand.
fn found_at(context: &Context, place: &Upstream) -> Vec<EngineId> {
    let here = |url: &str| Upstream::parse(url).is_ok_and(|other| same_place(&other, place));
    let known = context.registry.views().into_iter().map(|view| view.record);
    known
        .filter(|record| record.origin == EngineOrigin::Detected && here(&record.url))
        .map(|record| record.id)
        .collect()
}

/// Commits, publishes and audits one engine. The caller holds the change.
async fn register(context: &Context, engine: &EngineRecord) -> Outcome<()> {
    context.stores.config.put_engine(engine.clone()).await?;
    context
        .registry
        .put(engine.clone(), &|name| context.variable(name))
        .map_err(|error| Failure::new(ErrorCode::InvalidArgument, escape(&error.to_string())))?;
    let how = match engine.origin {
        EngineOrigin::Detected => "found",
        EngineOrigin::Manual => "added by hand",
        EngineOrigin::Demo => "made for the demo",
    };
    record(context, &engine.id, format!("engine {} ({}) at {} {how}", engine.id, engine.kind, escape(&engine.url)))
        .await;
    Ok(())
}

async fn record(context: &Context, id: &EngineId, details: String) {
    let event = AuditEvent::new(context.clock.wall(), AuditKind::EngineChanged, Severity::Low, details);
    context.record_event(AuditEvent { engine: Some(id.clone()), ..event }).await;
}

fn known_kind(kind: &EngineKind) -> Outcome<()> {
    if adapter(kind).is_some() {
        return Ok(());
    }
    let known: Vec<_> = ADAPTERS.iter().map(|adapter| adapter.info().kind.as_str()).collect();
    Err(Failure::new(ErrorCode::EngineNotFound, format!("there is no engine kind {:?}", escape(kind.as_str())))
        .hint(format!("kinds that FLM knows: {}", known.join(", "))))
}

fn unknown(context: &Context, id: &EngineId) -> Failure {
    let known: Vec<_> = context.registry.views().into_iter().map(|view| view.record.id.to_string()).collect();
    let hint = match known.as_slice() {
        [] => "look for engines with: flm engines detect".to_owned(),
        known => format!("there are: {}", known.join(", ")),
    };
    Failure::new(ErrorCode::EngineNotFound, format!("no engine is registered as {id}")).hint(hint)
}

/// A registered engine.
///
/// # Errors
/// `ENGINE_NOT_FOUND` that names those that are.
pub(super) fn registered(context: &Context, id: &EngineId) -> Outcome<Arc<Engine>> {
    context.registry.engine(id).ok_or_else(|| unknown(context, id))
}

/// `localhost`, `127.0.0.1` and `::1` on one port are one engine.
fn same_place(a: &Upstream, b: &Upstream) -> bool {
    a.port == b.port && (a.host.eq_ignore_ascii_case(&b.host) || (is_loopback(&a.host) && is_loopback(&b.host)))
}

fn is_loopback(host: &str) -> bool {
    // Whoever connects to `0.0.0.0` or `::` reaches loopback.
    let here = |address| canonical(address).is_loopback() || address.is_unspecified();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(here)
}

/// Where FLM itself listens: never taken for an engine, since that would be a loop.
fn own_addresses(context: &Context) -> Vec<SocketAddr> {
    let Some(live) = &context.live else { return Vec::new() };
    let listeners = live.host.status().listeners;
    let ports = |config: &ListenerConfig| [Some(config.port), config.https_port].into_iter().flatten();
    let places = listeners.iter().flat_map(|l| ports(&l.config).map(move |port| SocketAddr::new(l.config.bind, port)));
    places.collect()
}

/// Refuses an engine that would be FLM itself. No name is looked up: those of this machine and those that clients may call FLM by
/// are known.
pub(super) fn refuse_self(context: &Context, upstream: &Upstream) -> Outcome<()> {
    let host = upstream.host.trim_end_matches('.');
    let leads_here = |own: SocketAddr| {
        if let Ok(ip) = host.parse::<IpAddr>().map(canonical) {
            return is_loopback(host) || ip == own.ip() || own.ip().is_unspecified() && is_of_this_machine(ip);
        }
        let limits = context.live.as_ref().map(|live| live.proxy.limits.load_full());
        is_own_name(host, limits.as_ref().map_or(&[], |limits| &limits.allowed_hosts))
    };
    if !own_addresses(context).into_iter().any(|own| own.port() == upstream.port && leads_here(own)) {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::InvalidArgument,
        format!("port {} is FLM's own: it would send requests to itself", upstream.port),
    )
    .hint("give the address of the engine itself, such as http://127.0.0.1:8000"))
}

fn check_variable_name(name: &str) -> Outcome<()> {
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if starts_well && name.len() <= 128 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Ok(());
    }
    // Not quoted: it may be the key itself, pasted into the wrong field.
    Err(Failure::new(ErrorCode::InvalidArgument, "that is no name of an environment variable")
        .hint("give the name of the variable that holds the engine's key, such as VLLM_API_KEY, not the key itself"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::backup::tests::TestHome;

    fn found(id: &str, url: &str) -> EngineRecord {
        EngineRecord {
            id: EngineId::parse(id).expect("an id"),
            kind: EngineKind::named("llamacpp"),
            url: url.into(),
            api_key_env: None,
            direct: false,
            slots: None,
            origin: EngineOrigin::Detected,
            created: crate::types::clock::UnixMillis(1),
        }
    }

    fn by_hand(id: &str, url: &str) -> AddEngine {
        AddEngine {
            id: EngineId::parse(id).expect("an id"),
            kind: EngineKind::named("llamacpp"),
            url: url.into(),
            api_key_env: None,
            direct: false,
            slots: None,
        }
    }

    #[tokio::test]
    async fn what_is_registered_by_hand_takes_the_place_of_what_was_found_there() {
        let home = TestHome::new();
        let context = home.open().await;
        let nobody =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds").local_addr().expect("an address");
        let (here, same) = (format!("http://{nobody}"), format!("http://localhost:{}", nobody.port()));
        register(&context, &found("llamacpp", &here)).await.expect("registers");
        register(&context, &found("llamacpp-9", "http://127.0.0.1:9")).await.expect("registers");
        let ids = || context.registry.views().into_iter().map(|view| view.record.id.to_string()).collect::<Vec<_>>();

        add(&context, by_hand("mine", &same)).await.expect("takes its place");
        assert_eq!(ids(), ["llamacpp-9", "mine"]);
        add(&context, by_hand("second", &here)).await.expect("by hand there may be two, with a key each");
        assert_eq!(ids(), ["llamacpp-9", "mine", "second"]);
        // Under its own name too, with other settings.
        add(&context, by_hand("llamacpp-9", "http://127.0.0.1:9")).await.expect("takes its place");
        let taken = add(&context, by_hand("llamacpp-9", "http://127.0.0.1:9")).await.expect_err("is taken now");
        assert!(taken.message.contains("already registered"), "{taken:?}");
        let stored = context.stores.config.engines().await.expect("reads");
        let manual = stored.iter().filter(|engine| engine.origin == EngineOrigin::Manual).count();
        assert_eq!((stored.len(), manual), (3, 3));
        context.close().await;
    }

    /// SPEC §3.3: what was found counts for five minutes, `--fresh` looks again.
    #[tokio::test]
    async fn a_detection_counts_as_current_for_five_minutes_and_is_never_shown_after() {
        let home = TestHome::new();
        let clock = crate::types::clock::Clock::stepped(crate::types::clock::UnixMillis(1_700_000_000_000));
        let mut context = home.open().await;
        context.clock = clock.clone();
        let context = context;
        let nobody = DetectedEngine {
            kind: EngineKind::named("ollama"),
            url: None,
            binary: Some("/no/such/ollama".into()),
            version: None,
            state: crate::types::engine::EngineState::InstalledOnly,
            models: 0,
            evidence: "a test".into(),
        };
        let seen = DetectionReport { engines: vec![nobody], at: clock.wall(), took_ms: 7, cached: false };
        let cache = || context.stores.config.put_detection(seen.clone());
        let ask = |fresh| detect(&context, DetectEngines { kind: None, fresh });
        cache().await.expect("stores");
        clock.advance(std::time::Duration::from_secs(299));
        let cached = ask(false).await.expect("answers");
        assert_eq!((cached.cached, &cached.engines, cached.at), (true, &seen.engines, seen.at));
        let only = DetectEngines { kind: Some(EngineKind::named("vllm")), fresh: false };
        assert!(detect(&context, only).await.expect("answers").engines.is_empty(), "of the kind that is asked for");

        clock.advance(std::time::Duration::from_secs(1));
        let late = ask(false).await.expect("looks");
        assert_eq!((late.cached, late.at), (false, clock.wall()));
        assert!(late.engines.iter().all(|engine| engine.evidence != "a test"), "{late:?}");

        let newer = DetectionReport { at: clock.wall(), ..seen.clone() };
        context.stores.config.put_detection(newer).await.expect("stores");
        assert!(ask(false).await.expect("answers").cached);
        assert!(!ask(true).await.expect("looks").cached, "--fresh skips the cache");
        // What another clock wrote is no knowledge of now.
        let ahead = DetectionReport { at: clock.wall().plus(std::time::Duration::from_secs(1)), ..seen.clone() };
        context.stores.config.put_detection(ahead).await.expect("stores");
        assert!(current_detection(&context).await.expect("reads").is_none());
        context.close().await;
    }
}
