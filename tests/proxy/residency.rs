//! Models that are not in their engine's memory: load on demand, idle unload (SPEC §3.10).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flm::proxy::limits::{AbsentModels, ProxyLimits};
use flm::types::clock::{Clock, UnixMillis};
use flm::types::key::KeyLimits;
use http::Method;
use serde_json::{Value, json};

use crate::Proxy;
use crate::engine_scripts;
use crate::fake_engine::{Asked, FakeEngine, Reply, Script};
use crate::owner::OwnHome;

/// Ollama with nothing in memory.
fn idle_ollama() -> Script {
    engine_scripts::ollama().first(Method::GET, "/api/ps", Reply::json(200, &json!({"models": []})))
}

/// Ollama that has nothing in memory until it is told to load, and tells what it has.
fn truthful_ollama() -> Script {
    let loaded = Arc::new(AtomicBool::new(false));
    let asked = loaded.clone();
    let ps = Reply::recorded("ollama/0.33.0-documented/api_ps");
    let empty = Reply::json(200, &json!({"models": []}));
    let (load, unload) = (loaded.clone(), loaded);
    let done = Reply::recorded("ollama/0.33.0-documented/generate_load");
    engine_scripts::ollama()
        .first_when(Method::GET, "/api/ps", |_| true, empty)
        .first_when(Method::GET, "/api/ps", move |_| asked.load(Ordering::Relaxed), ps)
        .first_when(
            Method::POST,
            "/api/generate",
            move |asked| tells(asked, -1) && !load.swap(true, Ordering::Relaxed),
            done.clone(),
        )
        .first_when(
            Method::POST,
            "/api/generate",
            move |asked| tells(asked, 0) && unload.swap(false, Ordering::Relaxed),
            done,
        )
}

fn chat() -> Value {
    json!({"model": "tiny:latest", "messages": [{"role": "user", "content": "hi"}]})
}

/// An empty request to generate: Ollama's way to be told to load or unload.
fn tells(asked: &Asked, keep_alive: i64) -> bool {
    asked.path == "/api/generate" && asked.json()["keep_alive"] == keep_alive
}

fn count(engine: &FakeEngine, fits: impl Fn(&Asked) -> bool) -> usize {
    engine.seen().asked.iter().filter(|asked| fits(asked)).count()
}

#[tokio::test]
async fn a_model_that_is_not_in_memory_is_loaded_once_before_the_requests_that_need_it() {
    let (proxy, engine) = (Proxy::start(), FakeEngine::start(idle_ollama()).await);
    proxy.engine("ollama", "ollama", &engine).await;
    let body = chat();
    let answers = futures_util::future::join_all((0..4).map(|_| proxy.post("/v1/chat/completions", &body))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(count(&engine, |asked| tells(asked, -1)), 1);
    let order: Vec<_> = engine.seen().asked.into_iter().filter(|asked| asked.method == Method::POST).collect();
    let loaded = order.iter().position(|asked| tells(asked, -1));
    let first = order.iter().position(|asked| asked.path == "/api/chat");
    assert!(loaded < first, "{order:?}");
}

#[tokio::test]
async fn a_model_in_memory_is_not_loaded_and_the_setting_switches_it_off() {
    let engine = FakeEngine::start(engine_scripts::ollama()).await;
    let proxy = Proxy::start();
    proxy.engine("ollama", "ollama", &engine).await;
    assert_eq!(proxy.post("/v1/chat/completions", &chat()).await.status, 200);
    assert_eq!(count(&engine, |asked| tells(asked, -1)), 0);

    let engine = FakeEngine::start(idle_ollama()).await;
    let limits = ProxyLimits { absent_models: AbsentModels::AreTheEngines, ..ProxyLimits::default() };
    let proxy = Proxy::with(limits, KeyLimits::default());
    proxy.engine("ollama", "ollama", &engine).await;
    assert_eq!(proxy.post("/v1/chat/completions", &chat()).await.status, 200);
    assert_eq!(count(&engine, |asked| tells(asked, -1)), 0);
}

#[tokio::test]
async fn an_engine_that_cannot_load_it_is_passed_over_and_alone_says_why() {
    let full = Reply::json(500, &json!({"error": "model requires more system memory (9 GiB) than is available"}));
    let bad = FakeEngine::start(idle_ollama().first(Method::POST, "/api/generate", full)).await;
    let proxy = Proxy::start();
    proxy.engine("a", "ollama", &bad).await;
    let refused = proxy.post("/v1/chat/completions", &chat()).await;
    assert_eq!((refused.status.as_u16(), refused.json()["error"]["code"].as_str()), (503, Some("engine_unavailable")));
    assert!(refused.text().contains("more system memory"), "{}", refused.text());
    let good = FakeEngine::start(engine_scripts::ollama()).await;
    proxy.engine("b", "ollama", &good).await;
    assert_eq!(proxy.post("/v1/chat/completions", &chat()).await.status, 200);
    assert_eq!(count(&bad, |asked| asked.path == "/api/chat"), 0);
}

#[tokio::test]
async fn what_flm_loaded_is_unloaded_when_nobody_used_it_for_long() {
    let clock = Clock::stepped(UnixMillis(1_700_000_000_000));
    let home = OwnHome::at(clock.clone());
    let running = home.start_with(&[("FLM_ENGINE_CHECK_INTERVAL", "1s"), ("FLM_ENGINE_IDLE_UNLOAD", "10m")]).await;
    let (used, other) = (FakeEngine::start(truthful_ollama()).await, FakeEngine::start(engine_scripts::ollama()).await);
    running.engine("used", "ollama", &used).await;
    running.engine("other", "ollama", &other).await;
    let (_, key) = running.key("test", KeyLimits::default()).await;
    for model in ["used/tiny:latest", "other/tiny:latest"] {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
        assert_eq!(running.post(&key, "/v1/chat/completions", &body).await.status, 200);
    }
    assert_eq!(count(&used, |asked| tells(asked, 0)), 0);
    clock.advance(Duration::from_secs(600));
    used.wait_until(|seen| seen.asked.iter().any(|asked| tells(asked, 0))).await;
    assert_eq!(count(&other, |asked| tells(asked, 0)), 0, "that one was in memory before");
    running.end().await;
}
