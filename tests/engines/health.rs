//! The registry's checks against fake engines.

use flm::engines::registry::Registry;
use flm::engines::resolution::Resolution;
use flm::telemetry::live::Hub;
use flm::types::clock::{Clock, UnixMillis};
use flm::types::engine::{EngineKind, EngineOrigin, EngineRecord, EngineState};
use flm::types::ids::EngineId;

use crate::engine_scripts as scripts;
use crate::fake_engine::FakeEngine;
use crate::pool;

fn record(kind: &'static str, url: String) -> EngineRecord {
    EngineRecord {
        id: EngineId::parse(kind).expect("an id"),
        kind: EngineKind::named(kind),
        url,
        api_key_env: None,
        direct: false,
        slots: None,
        origin: EngineOrigin::Manual,
        created: UnixMillis(0),
    }
}

#[tokio::test]
async fn the_first_check_makes_an_engine_healthy_with_version_models_and_history() {
    let engine = FakeEngine::start(scripts::vllm()).await;
    let registry = Registry::new(Hub::new(), Clock::system());
    registry.put(record("vllm", engine.url()), &|_| None).expect("registers");
    let id = EngineId::parse("vllm").expect("an id");
    let point = registry.check(&id, &pool()).await.expect("a point");
    assert!(point.latency_ms.is_some() && point.reason.is_none(), "{point:?}");
    let view = registry.views().remove(0);
    assert!(matches!(view.state, EngineState::RunningHealthy { .. }), "{:?}", view.state);
    assert_eq!((view.version.as_deref(), view.models, view.latency_history.len()), (Some("0.32.0"), 1, 1));
    assert!(matches!(registry.resolve("flm-tiny", &|_| true), Resolution::Candidates(list) if list.len() == 1));
}

#[tokio::test]
async fn an_engine_that_goes_away_is_unreachable_and_its_models_unavailable() {
    let engine = FakeEngine::start(scripts::llamacpp()).await;
    let registry = Registry::new(Hub::new(), Clock::system());
    registry.put(record("llamacpp", engine.url()), &|_| None).expect("registers");
    let id = EngineId::parse("llamacpp").expect("an id");
    let pool = pool();
    registry.check(&id, &pool).await.expect("a point");
    drop(engine);
    for _ in 0..3 {
        let point = registry.check(&id, &pool).await.expect("a point");
        assert!(point.latency_ms.is_none() && point.reason.is_some());
    }
    assert!(matches!(registry.state(&id), Some(EngineState::ErrorNetwork { failures: 3, .. })));
    assert!(matches!(registry.resolve("flm-tiny", &|_| true), Resolution::Unavailable { .. }));
}

#[tokio::test]
async fn a_loading_engine_is_degraded_and_a_foreign_one_an_error() {
    let registry = Registry::new(Hub::new(), Clock::system());
    let id = EngineId::parse("llamacpp").expect("an id");
    let loading = FakeEngine::start(scripts::llamacpp_loading()).await;
    registry.put(record("llamacpp", loading.url()), &|_| None).expect("registers");
    registry.check(&id, &pool()).await.expect("a point");
    let state = registry.state(&id);
    assert!(
        matches!(&state, Some(EngineState::RunningDegraded { reason, .. }) if reason.contains("Loading model")),
        "{state:?}"
    );
    let foreign = FakeEngine::start(scripts::lmstudio()).await;
    registry.put(record("llamacpp", foreign.url()), &|_| None).expect("registers");
    registry.check(&id, &pool()).await.expect("a point");
    assert!(matches!(registry.state(&id), Some(EngineState::ErrorApi { .. })));
}

#[tokio::test]
async fn an_engine_that_wants_a_key_says_so() {
    let engine = FakeEngine::start(scripts::llamacpp_locked()).await;
    let registry = Registry::new(Hub::new(), Clock::system());
    registry.put(record("llamacpp", engine.url()), &|_| None).expect("registers");
    let id = EngineId::parse("llamacpp").expect("an id");
    let point = registry.check(&id, &pool()).await.expect("a point");
    assert!(point.reason.is_some_and(|reason| reason.contains("API key")));
}
