//! Detection: binaries, the engines' own variables, processes and default ports, side by side (SPEC §3.1).
//!
//! Called by `operations` (detect) and `daemon` (first start). Must never contact another machine, FLM itself, or a
//! `llama-server` that Ollama or a router started.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::engines::adapter::{Adapter, EngineError, Identity, Session};
use crate::engines::registry::ADAPTERS;
use crate::net::pool::Pool;
use crate::net::upstream::Upstream;
use crate::types::address::url_host;
use crate::types::clock::Clock;
use crate::types::engine::{DetectedEngine, DetectionReport, EngineKind, EngineState};
use crate::types::ids::EngineId;
use crate::types::text::escape;

pub use crate::engines::process_controller::{BinarySeen, EngineProcessController, ProcessSeen};

/// SPEC §3.1: all engines side by side, 5 s at most.
pub const DETECTION_LIMIT: Duration = Duration::from_secs(5);

/// ENGINES.md §2: 1 s for each question.
const QUESTION_LIMIT: Duration = Duration::from_secs(1);

/// A place where an engine may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    /// Who is expected there, and is asked first.
    pub(super) expected: EngineKind,
    /// How it was found: "port 8080", "process 4242", a variable.
    pub(super) evidence: String,
}

/// Looks for engines.
pub async fn detect(
    controller: &EngineProcessController,
    only: Option<&EngineKind>,
    pool: &Pool,
    clock: &Clock,
) -> DetectionReport {
    let begin = clock.monotonic();
    let adapters: Vec<&'static dyn Adapter> = ADAPTERS
        .iter()
        .copied()
        .filter(|adapter| !adapter.info().ports.is_empty())
        .filter(|adapter| only.is_none_or(|kind| adapter.info().kind == *kind))
        .collect();
    let mut asked: FuturesUnordered<_> =
        controller.places(&adapters).into_iter().map(|place| ask(place, &adapters, pool, clock)).collect();
    let mut found: Vec<(Place, DetectedEngine)> = Vec::new();
    let collect = async {
        while let Some(answer) = asked.next().await {
            found.extend(answer);
        }
    };
    // What was found until then counts; what still hangs is no engine that could be used.
    if tokio::time::timeout(DETECTION_LIMIT, collect).await.is_err() {
        tracing::debug!(waiting = asked.len(), "detection ended at its limit");
    }
    drop(asked);
    let took = clock.monotonic().saturating_duration_since(begin);
    DetectionReport {
        engines: report(found, controller, &adapters),
        at: clock.wall(),
        took_ms: u32::try_from(took.as_millis()).unwrap_or(u32::MAX),
        cached: false,
    }
}

/// Asks one place who it is: the expected engine first, then the others, until one recognises itself.
async fn ask(
    place: Place,
    adapters: &[&'static dyn Adapter],
    pool: &Pool,
    clock: &Clock,
) -> Option<(Place, DetectedEngine)> {
    let url = format!("http://{}:{}", url_host(place.address), place.port);
    let upstream = Upstream::parse(&url).ok()?;
    let session = Session { pool, upstream: &upstream, api_key: None, deadline: QUESTION_LIMIT };
    let expected = adapters.iter().filter(|adapter| adapter.info().kind == place.expected);
    let others = adapters.iter().filter(|adapter| adapter.info().kind != place.expected);
    for adapter in expected.chain(others) {
        match adapter.identify(session).await {
            Ok(Some(identity)) => {
                let engine = describe(*adapter, session, identity, url, &place, clock).await;
                return Some((place, engine));
            }
            Ok(None) => {}
            // Nobody there, or somebody who does not answer: the other engines would not either.
            Err(EngineError::Network(_) | EngineError::Timeout(_)) => return None,
            Err(_trouble) => {}
        }
    }
    None
}

async fn describe(
    adapter: &'static dyn Adapter,
    session: Session<'_>,
    identity: Identity,
    url: String,
    place: &Place,
    clock: &Clock,
) -> DetectedEngine {
    let begin = clock.monotonic();
    let listed = if identity.locked { None } else { Some(adapter.models(session).await) };
    let took = clock.monotonic().saturating_duration_since(begin);
    let latency_ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
    let (models, state) = match listed {
        None => {
            let reason = "it wants an API key: name its variable with --api-key-env".to_owned();
            (0, EngineState::ErrorApi { reason })
        }
        Some(Ok(list)) => (u32::try_from(list.len()).unwrap_or(u32::MAX), EngineState::RunningHealthy { latency_ms }),
        Some(Err(EngineError::Busy { reason, .. })) => (0, EngineState::RunningDegraded { latency_ms, reason }),
        Some(Err(fault)) => (0, EngineState::ErrorApi { reason: escape(&fault.to_string()).into_owned() }),
    };
    DetectedEngine {
        kind: adapter.info().kind.clone(),
        url: Some(url),
        binary: None,
        version: identity.version,
        state,
        models,
        evidence: place.evidence.clone(),
    }
}

/// One entry per engine, loopback preferred, and one for each program whose engine does not answer.
fn report(
    found: Vec<(Place, DetectedEngine)>,
    controller: &EngineProcessController,
    adapters: &[&'static dyn Adapter],
) -> Vec<DetectedEngine> {
    // An engine that listens on all addresses answers on each: kind and port say that it is the same.
    let mut unique: BTreeMap<(EngineKind, u16), (Place, DetectedEngine)> = BTreeMap::new();
    for (place, engine) in found {
        let rank = |place: &Place| (!place.address.is_loopback(), place.address.is_ipv6());
        let key = (engine.kind.clone(), place.port);
        if unique.get(&key).is_none_or(|(known, _)| rank(&place) < rank(known)) {
            unique.insert(key, (place, engine));
        }
    }
    let mut engines: Vec<DetectedEngine> = unique.into_values().map(|(_, engine)| engine).collect();
    for adapter in adapters {
        let info = adapter.info();
        let Some(binary) = controller.binaries.iter().find(|seen| info.binaries.contains(&seen.program.as_str()))
        else {
            continue;
        };
        let mut answers = false;
        for engine in engines.iter_mut().filter(|engine| engine.kind == info.kind) {
            engine.binary = Some(binary.path.clone());
            answers = true;
        }
        if !answers {
            engines.push(DetectedEngine {
                kind: info.kind.clone(),
                url: None,
                binary: Some(binary.path.clone()),
                version: None,
                state: EngineState::InstalledOnly,
                models: 0,
                evidence: format!("program {}", binary.program),
            });
        }
    }
    engines
}

/// A free id for a detected engine: its kind, with the port when that is not the kind's default or the name is taken.
#[must_use]
pub fn suggest_id(kind: &EngineKind, url: &str, taken: &dyn Fn(&EngineId) -> bool) -> Option<EngineId> {
    let port = Upstream::parse(url).ok()?.port;
    let default = ADAPTERS.iter().find(|adapter| adapter.info().kind == *kind)?.info().ports.first();
    let plain = (default == Some(&port)).then(|| kind.to_string());
    let with_port = format!("{kind}-{port}");
    let numbered = (2..100).map(|number| format!("{with_port}-{number}"));
    plain
        .into_iter()
        .chain([with_port.clone()])
        .chain(numbered)
        .filter_map(|text| EngineId::parse(&text).ok())
        .find(|id| !taken(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_the_port_when_it_is_not_the_default_or_the_name_is_taken() {
        let kind = EngineKind::named("llamacpp");
        let none = |_: &EngineId| false;
        let text = |id: Option<EngineId>| id.map(|id| id.to_string()).unwrap_or_default();
        assert_eq!(text(suggest_id(&kind, "http://127.0.0.1:8080", &none)), "llamacpp");
        assert_eq!(text(suggest_id(&kind, "http://127.0.0.1:9931", &none)), "llamacpp-9931");
        let taken = |id: &EngineId| matches!(id.as_str(), "llamacpp" | "llamacpp-8080");
        assert_eq!(text(suggest_id(&kind, "http://127.0.0.1:8080", &taken)), "llamacpp-8080-2");
    }
}
