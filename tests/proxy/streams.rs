//! Streams that do not go well.

use std::num::NonZeroU32;
use std::time::Duration;

use flm::net::egress::Egress;
use flm::net::pool::{Pool, PoolConfig};
use flm::proxy::limits::ProxyLimits;
use flm::telemetry::tasks::Tasks;
use flm::types::key::KeyLimits;
use flm::types::request::RequestEnd;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, PATIENCE, Reply, Seen, Step};
use crate::{Answer, Proxy};

async fn engine_that(reply: Reply) -> FakeEngine {
    FakeEngine::start(engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", reply)).await
}

fn recorded() -> Reply {
    Reply::recorded("llamacpp/b11434/chat_stream")
}

async fn stream_of(proxy: &Proxy) -> Answer {
    let chat = json!({"model": "flm-tiny", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    proxy.post("/v1/chat/completions", &chat).await
}

fn ends_with_an_error(answer: &Answer, code: &str) {
    let text = answer.text();
    assert_eq!(answer.status, 200);
    let events: Vec<&str> = text.split("\n\n").filter(|event| !event.is_empty()).collect();
    let [.., error, done] = events.as_slice() else { panic!("{text}") };
    assert_eq!(*done, "data: [DONE]");
    let error: serde_json::Value = serde_json::from_str(error.strip_prefix("data: ").expect("data")).expect("JSON");
    assert_eq!(error["error"]["code"], code, "{text}");
    assert_eq!(error["error"]["request_id"].as_str(), answer.header("x-request-id"));
}

#[tokio::test]
async fn an_engine_that_dies_in_the_middle_is_told_inside_the_stream() {
    let proxy = Proxy::start();
    let engine = engine_that(recorded().cut_after(3, Step::Die)).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    ends_with_an_error(&stream_of(&proxy).await, "engine_error");
    let row = proxy.ended(RequestEnd::EngineFailed).await;
    assert_eq!((row.status, row.error_code.as_deref()), (200, Some("engine_error")));
    assert!(row.tokens.completion > 0, "what came was counted");
}

#[tokio::test]
async fn an_engine_that_stops_without_an_end_is_told_inside_the_stream() {
    let proxy = Proxy::start();
    let mut reply = recorded();
    reply.steps.truncate(3);
    let engine = engine_that(reply).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    ends_with_an_error(&stream_of(&proxy).await, "engine_error");
}

#[tokio::test]
async fn an_engine_that_stalls_is_given_up_after_the_gap() {
    let limits = ProxyLimits { engine_gap: Duration::from_millis(200), ..ProxyLimits::default() };
    let proxy = Proxy::with(limits, KeyLimits::default());
    let engine = engine_that(recorded().cut_after(3, Step::Stall)).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    ends_with_an_error(&stream_of(&proxy).await, "engine_timeout");
    engine.wait_until(|seen| seen.left == 1).await;
}

#[tokio::test]
async fn an_engine_that_sends_garbage_is_a_502_before_the_first_byte() {
    let proxy = Proxy::start();
    let engine = engine_that(Reply::stream(&["\u{0}\u{1}garbage\n\nmore\n\n"])).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let answer = stream_of(&proxy).await;
    assert_eq!((answer.status.as_u16(), answer.json()["error"]["code"].as_str()), (502, Some("engine_error")));
    let whole = json!({"model": "flm-tiny", "messages": [{"role": "user", "content": "hi"}]});
    let answer = proxy.post("/v1/chat/completions", &whole).await;
    assert_eq!((answer.status.as_u16(), answer.json()["error"]["code"].as_str()), (502, Some("engine_error")));
}

/// Case 30.
#[tokio::test]
async fn a_client_that_leaves_ends_the_engines_work_at_once_and_the_row_says_so() {
    let proxy = Proxy::start();
    let engine = engine_that(recorded().cut_after(3, Step::Stall)).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let chat = json!({"model": "flm-tiny", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let mut response = proxy.open(proxy.request(Method::POST, "/v1/chat/completions", Some(&chat))).await;
    response.body_mut().frame().await.expect("a frame").expect("no error");
    let running = proxy.row(|row| row.stream).await;
    assert_eq!(running.progress, flm::types::request::Progress::Running, "shown while it runs");
    drop(response);
    engine.wait_until(|seen| seen.left == 1).await;
    let row = proxy.ended(RequestEnd::ClientLeft).await;
    assert_eq!(row.id, running.id);
    assert_eq!(proxy.shared.metrics.sums().streams, 0);
    assert_eq!(proxy.shared.metrics.sums().in_flight, 0);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_ends_the_engines_work_too() {
    let proxy = Proxy::start();
    let engine = engine_that(recorded().after(Duration::from_secs(3600))).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let chat = json!({"model": "flm-tiny", "messages": [{"role": "user", "content": "hi"}]});
    let request = proxy.request(Method::POST, "/v1/chat/completions", Some(&chat));
    let mut sending = Box::pin(proxy.open(request));
    tokio::select! {
        _ = &mut sending => panic!("the engine thinks for an hour"),
        _ = engine.wait_until(|seen| seen.asked.iter().any(|asked| asked.method == Method::POST)) => {}
    }
    drop(sending);
    proxy.ended(RequestEnd::ClientLeft).await;
    engine.wait_until(|seen| seen.left == 1).await;
}

#[tokio::test]
async fn a_slow_engine_gets_its_client_comments_until_it_speaks() {
    let limits = ProxyLimits { heartbeat: Duration::from_millis(50), ..ProxyLimits::default() };
    let proxy = Proxy::with(limits, KeyLimits::default());
    let engine = engine_that(recorded().after(Duration::from_millis(300))).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let answer = stream_of(&proxy).await;
    assert_eq!(answer.status, 200);
    let comments = answer.text().lines().filter(|line| line.starts_with(':')).count();
    assert!(comments >= 2, "{}", answer.text());
    assert!(answer.text().starts_with(": "), "{}", answer.text());
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
    assert!(!answer.text().contains("\"error\""));
    proxy.ended(RequestEnd::Completed).await;
}

#[tokio::test]
async fn a_failure_after_the_first_comment_is_told_inside_the_stream() {
    let limits = ProxyLimits { heartbeat: Duration::from_millis(50), ..ProxyLimits::default() };
    let proxy = Proxy::with(limits, KeyLimits::default());
    let failing =
        Reply::json(500, &json!({"error": {"message": "out of memory", "code": 500, "type": "server_error"}}));
    let engine = engine_that(failing.after(Duration::from_millis(200))).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    ends_with_an_error(&stream_of(&proxy).await, "engine_error");
}

/// SPEC §3.8: only an engine's bytes end fail-over.
#[tokio::test]
async fn comments_do_not_end_fail_over() {
    let limits = ProxyLimits { heartbeat: Duration::from_millis(50), ..ProxyLimits::default() };
    let proxy = Proxy::with(limits, KeyLimits::default());
    let failing = Reply::json(503, &json!({"error": {"message": "Loading model", "code": 503}}));
    let (bad, good) = (engine_that(failing.after(Duration::from_millis(200))).await, engine_that(recorded()).await);
    proxy.engine("a", "llamacpp", &bad).await;
    proxy.engine("b", "llamacpp", &good).await;
    let answer = stream_of(&proxy).await;
    assert!(answer.text().starts_with(": "), "the first engine was waited for: {}", answer.text());
    assert!(answer.text().ends_with("data: [DONE]\n\n") && !answer.text().contains("\"error\""), "{}", answer.text());
    let row = proxy.ended(RequestEnd::Completed).await;
    assert_eq!(row.engine.expect("an engine").as_str(), "b");
}

/// SPEC §3.5: until its first byte, whatever the reason.
#[tokio::test]
async fn an_engine_that_says_nothing_is_passed_over_and_alone_is_a_504() {
    let limits = ProxyLimits { engine_first_byte: Duration::from_millis(300), ..ProxyLimits::default() };
    let mut head_alone = Reply::json(200, &json!({}));
    head_alone.steps = vec![Step::Stall];
    for silent in [recorded().after(Duration::from_hours(1)), head_alone] {
        for streams in [true, false] {
            let proxy = Proxy::with(limits.clone(), KeyLimits::default());
            let bad = engine_that(silent.clone()).await;
            proxy.engine("a", "llamacpp", &bad).await;
            let chat = json!({"model": "flm-tiny", "stream": streams, "messages": [{"role": "user", "content": "hi"}]});
            let alone = proxy.post("/v1/chat/completions", &chat).await;
            assert_eq!((alone.status.as_u16(), alone.json()["error"]["code"].as_str()), (504, Some("engine_timeout")));
            let good = FakeEngine::start(engine_scripts::llamacpp()).await;
            proxy.engine("b", "llamacpp", &good).await;
            let answer = proxy.post("/v1/chat/completions", &chat).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            // On a busy machine it may be given up before it has read the request.
            let asked = |seen: &Seen| seen.asked.iter().filter(|asked| asked.method == Method::POST).count();
            bad.wait_until(|seen| seen.left == asked(seen)).await;
        }
    }
}

/// Five hundred streams need four descriptors each in this process: more than the soft limit of many systems.
fn raise_the_limit_of_descriptors() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("a soft limit may be raised");
}

#[tokio::test]
async fn of_five_hundred_streams_exactly_those_are_cancelled_whose_clients_leave_and_nothing_stays() {
    const STREAMS: usize = 500;
    raise_the_limit_of_descriptors();
    let limits = ProxyLimits { connections_per_address: 1_000, ..ProxyLimits::default() };
    let proxy = Proxy::with(limits, KeyLimits { requests_per_minute: 0, ..KeyLimits::default() });
    proxy.shared.guard.set_policy(crate::no_address_limits());
    // The key's first use costs an Argon2 run.
    assert_eq!(proxy.get("/v1/models").await.status, 200);
    let gate = CancellationToken::new();
    let mut reply = recorded();
    reply.steps.insert(2, Step::Until(gate.clone()));
    let whole = reply.body();
    let engine = engine_that(reply).await;
    proxy.engine_with_slots("llamacpp", "llamacpp", &engine, NonZeroU32::new(1_000)).await;
    let chat = json!({"model": "flm-tiny", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    // A client that keeps no connection: what is left afterwards is the proxy's.
    let config = PoolConfig { idle_per_upstream: 0, ..PoolConfig::default() };
    let client = Pool::new(config, Egress::direct(), Tasks::new());
    let tasks = proxy.tasks();
    let ask = || proxy.request(Method::POST, "/v1/chat/completions", Some(&chat));
    let opening = (0..STREAMS).map(|_| proxy.open_by(&client, ask()));
    let mut open = futures_util::future::join_all(opening).await;
    if let Some(at) = open.iter().position(|response| response.status() != 200) {
        let (parts, body) = open.remove(at).into_parts();
        panic!("{}: {:?}", parts.status, body.collect().await.expect("a body").to_bytes());
    }
    let load = || proxy.shared.registry.load().remove(0);
    assert_eq!(proxy.shared.metrics.sums().streams as usize, STREAMS);
    assert_eq!((load().in_flight as usize, load().queued), (STREAMS, 0));
    assert!(proxy.tasks() >= tasks + STREAMS);

    let mut number = 0;
    open.retain(|_| {
        number += 1;
        number % 2 == 0
    });
    let seen = engine.wait_until(|seen| seen.left == STREAMS / 2).await;
    assert_eq!(seen.completed + seen.left, seen.asked.len() - STREAMS / 2, "the other half goes on");
    gate.cancel();
    let events = |body: &[u8]| body.windows(6).filter(|window| window == b"data: ").count();
    for response in open {
        let body = response.into_body().collect().await.expect("to its end").to_bytes();
        assert!(body.ends_with(b"data: [DONE]\n\n"));
        assert_eq!(events(&body), events(&whole), "nothing is missing");
    }
    assert_eq!(engine.seen().left, STREAMS / 2);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let all_is_free = || {
        let sums = proxy.shared.metrics.sums();
        let nothing_runs = (sums.streams, sums.in_flight, load().in_flight, load().queued) == (0, 0, 0, 0);
        // Each of the two workers has one for its idle connections to the engine, which it keeps for a while.
        nothing_runs && sums.connections <= 1 && proxy.tasks() <= tasks + 2
    };
    while !all_is_free() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{:?} {:?} {}",
            proxy.shared.metrics.sums(),
            load(),
            proxy.tasks()
        );
        tokio::task::yield_now().await;
    }
    let slots = proxy.shared.registry.engine(&load().engine).expect("registered").slots.running();
    assert_eq!(slots, 0);
}
