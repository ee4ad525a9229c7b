//! Slots, the queue before them, circuits, and conversations that stay where their cache is warm (SPEC §3.5, §3.8, §3.9).

use std::num::NonZeroU32;
use std::time::Duration;

use flm::proxy::limits::ProxyLimits;
use flm::types::clock::{Clock, UnixMillis};
use flm::types::engine::{EngineLoad, EngineState};
use flm::types::ids::EngineId;
use flm::types::key::{KeyLimits, Priority};
use flm::types::request::RequestEnd;
use http::{HeaderValue, Method};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, PATIENCE, Reply, Step};
use crate::{Answer, Proxy, add_key};

const ONE: Option<NonZeroU32> = NonZeroU32::new(1);

fn chat(text: &str) -> Value {
    json!({"model": "flm-tiny", "stream": true, "messages": [{"role": "user", "content": text}]})
}

/// An engine whose streams wait for the gate after their first piece.
async fn gated(gate: &CancellationToken) -> FakeEngine {
    let mut reply = Reply::recorded("llamacpp/b11434/chat_stream");
    reply.steps.insert(1, Step::Until(gate.clone()));
    FakeEngine::start(engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", reply)).await
}

async fn refusing(status: u16, retry_after: Option<&'static str>) -> FakeEngine {
    let mut reply = Reply::json(status, &json!({"error": {"message": "not now", "type": "server_error"}}));
    if let Some(seconds) = retry_after {
        reply.headers.insert("retry-after", HeaderValue::from_static(seconds));
    }
    FakeEngine::start(engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", reply)).await
}

/// What the chats that reached the engine said, in order.
fn said(engine: &FakeEngine) -> Vec<String> {
    let chats = engine.seen().asked.into_iter().filter(|asked| asked.path.ends_with("/chat/completions"));
    chats.map(|asked| asked.json()["messages"][0]["content"].as_str().unwrap_or_default().to_owned()).collect()
}

pub(crate) async fn load(proxy: &Proxy, fits: impl Fn(&EngineLoad) -> bool) -> EngineLoad {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let load = proxy.shared.registry.load();
        if let Some(found) = load.iter().find(|load| fits(load)) {
            return found.clone();
        }
        assert!(tokio::time::Instant::now() < deadline, "never so: {load:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn requests_beyond_the_slots_wait_and_run_by_priority() {
    let gate = CancellationToken::new();
    let (proxy, engine) = (Proxy::start(), gated(&gate).await);
    proxy.engine_with_slots("llamacpp", "llamacpp", &engine, ONE).await;
    let running = proxy.open(proxy.request(Method::POST, "/v1/chat/completions", Some(&chat("first")))).await;
    let mut waiting = Vec::new();
    for (place, priority) in [(1, Priority::Low), (2, Priority::Normal), (3, Priority::High)] {
        let limits = KeyLimits { priority, ..KeyLimits::default() };
        let (_, key) = add_key(&proxy.shared, &format!("{priority:?}"), limits);
        let mut request = proxy.request(Method::POST, "/v1/chat/completions", Some(&chat(&format!("{priority:?}"))));
        let bearer = HeaderValue::from_str(&format!("Bearer {key}")).expect("a header");
        request.headers_mut().insert("authorization", bearer);
        waiting.push(Box::pin(proxy.send(request)));
        // Sent one after the other, so that the order of arrival is the reverse of the priority.
        let sent = futures_util::future::join_all(waiting.iter_mut());
        tokio::select! {
            _ = sent => panic!("none is answered while the slot is taken"),
            seen = load(&proxy, |load| load.queued == place) => {
                assert_eq!((seen.in_flight, seen.slots), (1, 1));
                assert_eq!(seen.waiting.first().map(|first| first.priority), Some(priority));
            }
        }
    }
    assert_eq!(said(&engine), ["first"]);
    gate.cancel();
    running.into_body().collect().await.expect("a body");
    for answer in futures_util::future::join_all(waiting).await {
        assert_eq!(answer.status, 200);
    }
    assert_eq!(said(&engine), ["first", "High", "Normal", "Low"]);
    load(&proxy, |load| (load.in_flight, load.queued) == (0, 0)).await;
}

#[tokio::test]
async fn a_full_queue_is_429_with_advice() {
    let gate = CancellationToken::new();
    let limits = ProxyLimits { queue_length: 0, ..ProxyLimits::default() };
    let (proxy, engine) = (Proxy::with(limits, KeyLimits::default()), gated(&gate).await);
    proxy.engine_with_slots("llamacpp", "llamacpp", &engine, ONE).await;
    let _running = proxy.open(proxy.request(Method::POST, "/v1/chat/completions", Some(&chat("first")))).await;
    let refused = proxy.post("/v1/chat/completions", &chat("second")).await;
    assert_eq!(code(&refused), (429, "rate_limited".to_owned()), "{}", refused.text());
    let wait: u32 = refused.header("retry-after").and_then(|text| text.parse().ok()).expect("seconds");
    assert!((1..=120).contains(&wait));
    assert_eq!(refused.header("x-should-retry"), None, "a retry heals it");
    assert_eq!(said(&engine), ["first"]);
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_429_and_inside_a_stream_an_error_event() {
    let gate = CancellationToken::new();
    for (heartbeat, told_inside) in [(Duration::from_secs(10), false), (Duration::from_millis(30), true)] {
        let limits = ProxyLimits { queue_wait: Duration::from_millis(200), heartbeat, ..ProxyLimits::default() };
        let (proxy, engine) = (Proxy::with(limits, KeyLimits::default()), gated(&gate).await);
        proxy.engine_with_slots("llamacpp", "llamacpp", &engine, ONE).await;
        let _running = proxy.open(proxy.request(Method::POST, "/v1/chat/completions", Some(&chat("first")))).await;
        let answer = proxy.post("/v1/chat/completions", &chat("second")).await;
        if told_inside {
            assert_eq!(answer.status, 200);
            assert!(answer.text().starts_with(": "), "comments while it waits: {}", answer.text());
            assert!(answer.text().contains("\"rate_limited\"") && answer.text().ends_with("data: [DONE]\n\n"));
        } else {
            assert_eq!(code(&answer), (429, "rate_limited".to_owned()));
        }
        assert_eq!(said(&engine), ["first"]);
        load(&proxy, |load| (load.in_flight, load.queued) == (1, 0)).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_never_reaches_the_engine() {
    let gate = CancellationToken::new();
    let (proxy, engine) = (Proxy::start(), gated(&gate).await);
    proxy.engine_with_slots("llamacpp", "llamacpp", &engine, ONE).await;
    let running = proxy.open(proxy.request(Method::POST, "/v1/chat/completions", Some(&chat("first")))).await;
    let second = chat("second");
    let mut leaves = Box::pin(proxy.post("/v1/chat/completions", &second));
    tokio::select! {
        _ = &mut leaves => panic!("it waits"),
        _ = load(&proxy, |load| load.queued == 1) => {}
    }
    drop(leaves);
    load(&proxy, |load| load.queued == 0).await;
    proxy.ended(RequestEnd::ClientLeft).await;
    gate.cancel();
    running.into_body().collect().await.expect("a body");
    assert_eq!(proxy.post("/v1/chat/completions", &chat("third")).await.status, 200);
    assert_eq!(said(&engine), ["first", "third"]);
}

#[tokio::test]
async fn a_request_that_two_engines_could_serve_goes_to_the_first_that_is_free() {
    let (gate_a, gate_b) = (CancellationToken::new(), CancellationToken::new());
    let (proxy, a, b) = (Proxy::start(), gated(&gate_a).await, gated(&gate_b).await);
    proxy.engine_with_slots("a", "llamacpp", &a, ONE).await;
    proxy.engine_with_slots("b", "llamacpp", &b, ONE).await;
    let _on_a = proxy.open(proxy.request(Method::POST, "/v1/chat/completions", Some(&chat("one")))).await;
    let on_b = proxy.open(proxy.request(Method::POST, "/v1/chat/completions", Some(&chat("two")))).await;
    let three = chat("three");
    let mut third = Box::pin(proxy.post("/v1/chat/completions", &three));
    tokio::select! {
        _ = &mut third => panic!("it waits"),
        _ = load(&proxy, |load| load.engine.as_str() == "b" && load.queued == 1) => {}
    }
    gate_b.cancel();
    on_b.into_body().collect().await.expect("a body");
    assert_eq!(third.await.status, 200);
    assert_eq!((said(&a), said(&b)), (vec!["one".to_owned()], vec!["two".to_owned(), "three".to_owned()]));
    load(&proxy, |load| load.engine.as_str() == "a" && (load.in_flight, load.queued) == (1, 0)).await;
}

#[tokio::test]
async fn an_engine_that_tells_its_slots_gets_no_more_requests_than_that() {
    let gate = CancellationToken::new();
    let (proxy, engine) = (Proxy::start(), gated(&gate).await);
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let props = Reply::recorded("llamacpp/b11434/props").body();
    let told = serde_json::from_slice::<Value>(&props).expect("JSON")["total_slots"].as_u64().expect("a number");
    assert_eq!(u64::from(load(&proxy, |_| true).await.slots), told);
}

#[tokio::test]
async fn an_engine_that_fails_again_and_again_gets_no_requests_until_a_probe_succeeds() {
    let clock = Clock::stepped(UnixMillis(1_700_000_000_000));
    let proxy = Proxy::at(clock.clone(), ProxyLimits::default(), KeyLimits::default());
    let (bad, good) = (refusing(503, None).await, FakeEngine::start(engine_scripts::llamacpp()).await);
    let bad_id = proxy.engine("a", "llamacpp", &bad).await;
    proxy.engine("b", "llamacpp", &good).await;
    for number in 0..8 {
        let answer = proxy.post("/v1/chat/completions", &chat(&format!("question {number}"))).await;
        assert_eq!(answer.status, 200, "the other engine serves it");
    }
    assert_eq!((said(&bad).len(), said(&good).len()), (5, 8));
    let state = proxy.shared.registry.state(&bad_id);
    assert!(
        matches!(&state, Some(EngineState::RunningDegraded { reason, .. }) if reason.contains("5 times")),
        "{state:?}"
    );
    clock.advance(Duration::from_secs(5));
    // One request probes. A degraded engine comes after a healthy one, so it is named.
    let named = json!({"model": "a/flm-tiny", "messages": [{"role": "user", "content": "probe"}]});
    assert_eq!(code(&proxy.post("/v1/chat/completions", &named).await).0, 503);
    assert_eq!(said(&bad).len(), 6);
    let refused = proxy.post("/v1/chat/completions", &named).await;
    assert_eq!(code(&refused), (503, "engine_unavailable".to_owned()));
    assert_eq!((refused.header("retry-after"), said(&bad).len()), (Some("10"), 6), "the rest was doubled");
}

#[tokio::test]
async fn an_engine_that_asks_for_rest_gets_it() {
    let clock = Clock::stepped(UnixMillis(1_700_000_000_000));
    let proxy = Proxy::at(clock.clone(), ProxyLimits::default(), KeyLimits::default());
    let engine = refusing(429, Some("30")).await;
    proxy.engine("a", "llamacpp", &engine).await;
    let first = proxy.post("/v1/chat/completions", &chat("one")).await;
    assert_eq!((first.status.as_u16(), first.header("retry-after")), (429, Some("30")));
    clock.advance(Duration::from_secs(10));
    let second = proxy.post("/v1/chat/completions", &chat("two")).await;
    assert_eq!(code(&second), (503, "engine_unavailable".to_owned()));
    assert_eq!(second.header("retry-after"), Some("20"));
    assert_eq!(said(&engine), ["one"]);
    clock.advance(Duration::from_secs(20));
    proxy.post("/v1/chat/completions", &chat("three")).await;
    assert_eq!(said(&engine), ["one", "three"]);
}

#[tokio::test]
async fn an_engine_that_is_too_busy_is_passed_over_and_gets_its_rest() {
    let clock = Clock::stepped(UnixMillis(1_700_000_000_000));
    let proxy = Proxy::at(clock, ProxyLimits::default(), KeyLimits::default());
    let (busy, idle) = (refusing(429, Some("30")).await, FakeEngine::start(engine_scripts::llamacpp()).await);
    proxy.engine("a", "llamacpp", &busy).await;
    proxy.engine("b", "llamacpp", &idle).await;
    for text in ["one", "two"] {
        assert_eq!(proxy.post("/v1/chat/completions", &chat(text)).await.status, 200, "{text}");
    }
    assert_eq!((said(&busy), said(&idle)), (vec!["one".to_owned()], vec!["one".to_owned(), "two".to_owned()]));
}

#[tokio::test]
async fn a_conversation_stays_with_the_engine_that_served_it() {
    let (proxy, a, b) = (
        Proxy::start(),
        FakeEngine::start(engine_scripts::llamacpp()).await,
        FakeEngine::start(engine_scripts::llamacpp()).await,
    );
    proxy.engine("a", "llamacpp", &a).await;
    proxy.engine("b", "llamacpp", &b).await;
    let talk = |messages: &[(&str, &str)]| {
        let messages: Vec<Value> =
            messages.iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
        json!({"model": "flm-tiny", "messages": messages})
    };
    // While "a" is busy the conversation begins on "b".
    let engine = proxy.shared.registry.engine(&EngineId::parse("a").expect("id")).expect("registered");
    let busy = flm::engines::registry::InFlight::on(engine);
    let mut messages = vec![("system", "be brief"), ("user", "one")];
    assert_eq!(proxy.post("/v1/chat/completions", &talk(&messages)).await.status, 200);
    drop(busy);
    for (answer, question) in [("1", "two"), ("2", "three")] {
        messages.extend([("assistant", answer), ("user", question)]);
        assert_eq!(proxy.post("/v1/chat/completions", &talk(&messages)).await.status, 200);
    }
    assert_eq!((said(&a).len(), said(&b).len()), (0, 3));
    // Another conversation is balanced as ever: to the first of two idle engines.
    assert_eq!(proxy.post("/v1/chat/completions", &talk(&[("user", "else")])).await.status, 200);
    assert_eq!((said(&a).len(), said(&b).len()), (1, 3));
}
