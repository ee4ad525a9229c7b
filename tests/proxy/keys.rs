//! Whose key it is, and what it may do.

use std::sync::Arc;
use std::time::Duration;

use flm::guard::minted_key::MintedKey;
use flm::proxy::limits::{ProxyLimits, Revoking};
use flm::types::address::{BlockEntry, BlockSource, ListedNetwork};
use flm::types::audit::AuditKind;
use flm::types::calls::addresses::NetworkList;
use flm::types::calls::keys::RevokeKey;
use flm::types::clock::{Clock, UnixMillis};
use flm::types::key::{KeyLimits, KeyView, Right};
use flm::types::request::RequestEnd;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::blocking::{models, raw};
use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, Reply, Step};
use crate::owner::OwnHome;
use crate::{Proxy, add_key, rights};

fn with_key(key: &str) -> Request<Full<bytes::Bytes>> {
    Request::get("/v1/models").header("x-api-key", key).body(Full::default()).expect("a request")
}

/// Case 4.
#[tokio::test]
async fn wrong_expired_and_revoked_keys_get_the_same_words() {
    let proxy = Proxy::start();
    let (expired_id, expired) = add_key(&proxy.shared, "expired", KeyLimits::default());
    let (revoked_id, revoked) = add_key(&proxy.shared, "revoked", KeyLimits::default());
    for (id, change) in [(expired_id, true), (revoked_id, false)] {
        let mut record = proxy.shared.guard.key(id).expect("a key").record.clone();
        if change {
            record.view.expires = Some(UnixMillis(1));
        } else {
            record.view.revoked = Some(UnixMillis(1));
        }
        proxy.shared.guard.put_key(record);
    }
    let mut damaged = proxy.key.clone();
    damaged.replace_range(20..21, if &damaged[20..21] == "x" { "y" } else { "x" });
    let mut bodies = Vec::new();
    for key in [expired.as_str(), &revoked, &damaged, "sk-other", "flm_", &"k".repeat(10_000)] {
        let answer = proxy.send(with_key(key)).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        let mut error = answer.json();
        error["error"]["request_id"] = json!(null);
        bodies.push(error.to_string());
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    let missing = proxy.send(Request::get("/v1/models").body(Full::default()).expect("a request")).await;
    assert_eq!((missing.status.as_u16(), missing.json()["error"]["code"].as_str()), (401, Some("invalid_api_key")));
    assert_eq!(proxy.get("/v1/models").await.status, 200);
}

/// SPEC §5.3: no key, and one whose secret is right but whose time is over, is 401 and told, and no step towards a block.
#[tokio::test]
async fn expired_revoked_and_missing_keys_are_audited_and_no_failures_of_their_address() {
    let proxy = Proxy::start();
    proxy.shared.guard.exposure().notice();
    let (expired_id, expired) = add_key(&proxy.shared, "expired", KeyLimits::default());
    let (revoked_id, revoked) = add_key(&proxy.shared, "revoked", KeyLimits::default());
    let change = |id, change: fn(&mut KeyView)| {
        let mut record = proxy.shared.guard.key(id).expect("a key").record.clone();
        change(&mut record.view);
        proxy.shared.guard.put_key(record);
    };
    change(expired_id, |view| view.expires = Some(UnixMillis(1)));
    change(revoked_id, |view| view.revoked = Some(UnixMillis(1)));
    let nothing = "GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: curl/8\r\nconnection: close\r\n\r\n";
    let requests = [models(&expired, ""), models(&revoked, ""), nothing.into()];
    for _ in 0..6 {
        for bytes in &requests {
            assert_eq!(raw("127.0.0.2", proxy.address(), bytes).await, 401);
        }
    }
    let (guard, now) = (&proxy.shared.guard, proxy.shared.clock.wall());
    let from = |text: &str| guard.failures_of(text.parse().expect("an address"), now);
    assert_eq!(from("127.0.0.2"), 0);
    assert_eq!(raw("127.0.0.3", proxy.address(), &models("flm_wrong", "")).await, 401);
    assert_eq!(from("127.0.0.3"), 1, "a wrong one is");
    let told = proxy.audited.take();
    for details in ["expired key 'expired'", "revoked key 'revoked'", "no key"] {
        let rows = told.iter().filter(|event| event.details == details);
        let rows: Vec<_> = rows.map(|event| (event.kind, event.status)).collect();
        assert_eq!(rows, [(AuditKind::AuthenticationMissing, Some(401)); 6], "{details}");
    }
    assert!(told.iter().all(|event| event.kind != AuditKind::AuthenticationOk), "none was accepted: {told:?}");
    let failed = told.iter().find(|event| event.kind == AuditKind::AuthenticationFailed).expect("a failure");
    assert_eq!((failed.address, failed.endpoint.as_deref()), ("127.0.0.3".parse().ok(), Some("/v1/models")));
    assert!(failed.request_id.is_some() && failed.latency_ms.is_some(), "{failed:?}");
}

/// SPEC §5.1: from the operator's word to the first refusal, what is stored and audited on the way included.
#[tokio::test]
async fn a_revoked_key_is_refused_within_a_tenth_of_a_second() {
    let home = OwnHome::at(Clock::system());
    let running = home.start().await;
    let mut took = Vec::new();
    for number in 0..5 {
        let (id, key) = running.key(&format!("key {number}"), KeyLimits::default()).await;
        assert_eq!(raw("127.0.0.1", running.address(), &models(&key, "")).await, 200);
        let began = home.clock.monotonic();
        running.call(RevokeKey { id }).await;
        assert_eq!(raw("127.0.0.1", running.address(), &models(&key, "")).await, 401, "as soon as it is answered");
        took.push(home.clock.monotonic() - began);
    }
    took.sort();
    // The middle one: a single write may wait for a disk that is busy with something else.
    assert!(took[2] < Duration::from_millis(100), "{took:?}");
    running.end().await;
}

#[tokio::test]
async fn rights_routes_and_models_bind_a_key() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let chat = json!({"model": "flm-tiny", "messages": [{"role": "user", "content": "hi"}]});
    let send = |key: String| {
        let mut request = proxy.request(Method::POST, "/v1/chat/completions", Some(&chat));
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse().expect("value"));
        proxy.send(request)
    };
    let only_metrics = KeyLimits { rights: rights(&[Right::Metrics]), ..KeyLimits::default() };
    let other_routes = KeyLimits { routes: vec!["/v1/embeddings".into()], ..KeyLimits::default() };
    let other_models = KeyLimits { models: vec!["flm://ollama/*".into()], ..KeyLimits::default() };
    let this_model = KeyLimits { models: vec!["flm://*/flm-*".into()], ..KeyLimits::default() };
    for (name, limits, status, code) in [
        ("rights", only_metrics, 403, Some("permission_denied")),
        ("routes", other_routes, 403, Some("permission_denied")),
        ("models", other_models.clone(), 403, Some("model_not_allowed")),
        ("fitting models", this_model, 200, None),
    ] {
        let (_, key) = add_key(&proxy.shared, name, limits);
        let answer = send(key).await;
        assert_eq!((answer.status.as_u16(), answer.json()["error"]["code"].as_str()), (status, code), "{name}");
    }
    let (_, key) = add_key(&proxy.shared, "sees nothing", other_models);
    let list = proxy.send(with_key(&key)).await.json();
    assert_eq!(list["data"], json!([]), "models that a key may not use are not listed");
}

#[tokio::test]
async fn a_key_that_is_too_fast_gets_429_with_a_wait_and_its_limits() {
    let limits = KeyLimits { requests_per_minute: 60, burst: 2, ..KeyLimits::default() };
    let proxy = Proxy::with(ProxyLimits::default(), limits);
    assert_eq!(proxy.get("/v1/models").await.header("x-ratelimit-remaining-requests"), Some("1"));
    assert_eq!(proxy.get("/v1/models").await.status, 200);
    let limited = proxy.get("/v1/models").await;
    assert_eq!((limited.status.as_u16(), limited.json()["error"]["code"].as_str()), (429, Some("rate_limited")));
    assert_eq!(limited.header("retry-after"), Some("1"));
    assert_eq!(limited.header("x-ratelimit-remaining-requests"), Some("0"));
    assert_eq!(limited.header("x-should-retry"), None);
}

/// What every answer to a known key has (SPEC §4.4).
const RATE_HEADERS: [&str; 6] = [
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
];

#[tokio::test]
async fn every_authenticated_answer_tells_the_limits_whatever_they_are() {
    let limited = KeyLimits { requests_per_minute: 60, tokens_per_day: Some(9), ..KeyLimits::default() };
    let unlimited = KeyLimits { requests_per_minute: 0, ..KeyLimits::default() };
    let none_at_once = KeyLimits { max_parallel: Some(0), ..KeyLimits::default() };
    for (name, limits, status) in
        [("limited", limited, 200), ("unlimited", unlimited, 200), ("busy", none_at_once, 429)]
    {
        let proxy = Proxy::with(ProxyLimits::default(), limits);
        let answer = proxy.get("/v1/models").await;
        assert_eq!(answer.status.as_u16(), status, "{name}");
        for header in RATE_HEADERS {
            let value = answer.header(header).unwrap_or_else(|| panic!("{name}: {header} is missing"));
            let is_number = value.parse::<i32>().is_ok();
            assert_eq!(is_number, !header.contains("reset"), "{name}: {header}: {value}");
        }
        let unknown = proxy.get("/v1/nowhere").await;
        assert!(unknown.header("x-ratelimit-limit-requests").is_some(), "{name}: refusals too");
        let missing = proxy.send(Request::get("/v1/models").body(Full::default()).expect("a request")).await;
        assert!(RATE_HEADERS.iter().all(|header| missing.header(header).is_none()), "{name}: not without a key");
    }
}

#[tokio::test]
async fn streams_of_every_api_tell_the_limits_too() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let messages = json!([{"role": "user", "content": "hi"}]);
    for (path, body) in [
        ("/v1/chat/completions", json!({"model": "flm-tiny", "stream": true, "messages": messages})),
        ("/v1/messages", json!({"model": "flm-tiny", "stream": true, "max_tokens": 5, "messages": messages})),
        ("/v1/responses", json!({"model": "flm-tiny", "stream": true, "input": "hi"})),
        ("/api/chat", json!({"model": "flm-tiny", "messages": messages})),
    ] {
        let answer = proxy.post(path, &body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let missing: Vec<_> = RATE_HEADERS.iter().filter(|header| answer.header(header).is_none()).collect();
        assert!(missing.is_empty(), "{path}: {missing:?}");
        assert!(answer.header("x-request-id").is_some(), "{path}");
    }
}

#[tokio::test]
async fn a_spent_token_budget_is_429_that_no_library_tries_again() {
    let limits = KeyLimits { tokens_per_day: Some(1), ..KeyLimits::default() };
    let proxy = Proxy::with(ProxyLimits::default(), limits);
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let chat = json!({"model": "flm-tiny", "messages": [{"role": "user", "content": "hi"}]});
    let first = proxy.post("/v1/chat/completions", &chat).await;
    assert_eq!((first.status.as_u16(), first.header("x-ratelimit-limit-tokens")), (200, Some("1")));
    let second = proxy.post("/v1/chat/completions", &chat).await;
    assert_eq!((second.status.as_u16(), second.json()["error"]["code"].as_str()), (429, Some("budget_exceeded")));
    assert_eq!(second.header("x-should-retry"), Some("false"));
    assert_eq!(second.header("x-ratelimit-remaining-tokens"), Some("0"));
}

/// Case 2.
#[tokio::test]
async fn revoking_a_key_ends_its_running_stream_and_the_engines_work() {
    let proxy = Proxy::start();
    let endless = Reply::recorded("llamacpp/b11434/chat_stream").cut_after(2, Step::Stall);
    let engine =
        FakeEngine::start(engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", endless)).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let chat = json!({"model": "flm-tiny", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let request = proxy.request(Method::POST, "/v1/chat/completions", Some(&chat));
    let response = proxy.open(request).await;
    let mut record = proxy.shared.guard.key(proxy.key_id).expect("a key").record.clone();
    record.view.revoked = Some(UnixMillis(1));
    proxy.shared.guard.put_key(record);
    let text = http_body_util::BodyExt::collect(response.into_body()).await.expect("an end").to_bytes();
    let text = String::from_utf8(text.to_vec()).expect("UTF-8");
    assert!(text.contains("\"error\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
    engine.wait_until(|seen| seen.left == 1).await;
    proxy.ended(RequestEnd::Cancelled).await;
    assert_eq!(proxy.get("/v1/models").await.status, 401);
}

#[tokio::test]
async fn a_stream_outlives_its_key_where_the_setting_says_so() {
    let limits = ProxyLimits { revoking: Revoking::LetsStreamsEnd, ..ProxyLimits::default() };
    let proxy = Proxy::with(limits, KeyLimits::default());
    let go_on = CancellationToken::new();
    let mut reply = Reply::recorded("llamacpp/b11434/chat_stream");
    reply.steps.insert(2, Step::Until(go_on.clone()));
    let engine = FakeEngine::start(engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", reply)).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let chat = json!({"model": "flm-tiny", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let response = proxy.open(proxy.request(Method::POST, "/v1/chat/completions", Some(&chat))).await;
    let mut record = proxy.shared.guard.key(proxy.key_id).expect("a key").record.clone();
    record.view.revoked = Some(UnixMillis(1));
    proxy.shared.guard.put_key(record);
    assert_eq!(proxy.get("/v1/models").await.status, 401, "nothing new");
    go_on.cancel();
    let text = http_body_util::BodyExt::collect(response.into_body()).await.expect("an end").to_bytes();
    let text = String::from_utf8(text.to_vec()).expect("UTF-8");
    assert!(!text.contains("\"error\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
    proxy.ended(RequestEnd::Completed).await;
}

#[tokio::test]
async fn a_key_runs_no_more_requests_at_once_than_it_may() {
    let limits = KeyLimits { max_parallel: Some(1), ..KeyLimits::default() };
    let proxy = Proxy::with(ProxyLimits::default(), limits);
    let endless = Reply::recorded("llamacpp/b11434/chat_stream").cut_after(2, Step::Stall);
    let engine =
        FakeEngine::start(engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", endless)).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let chat = json!({"model": "flm-tiny", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let running = proxy.open(proxy.request(Method::POST, "/v1/chat/completions", Some(&chat))).await;
    assert_eq!(proxy.get("/v1/models").await.status, 429);
    drop(running);
    proxy.ended(RequestEnd::ClientLeft).await;
    assert_eq!(proxy.get("/v1/models").await.status, 200, "the place came back");
}

#[tokio::test]
async fn blocked_and_not_allowed_addresses_are_403_before_anything_else() {
    let proxy = Proxy::start();
    proxy.shared.guard.put_blocks(&[BlockEntry {
        network: "127.0.0.1/32".parse().expect("network"),
        reason: "test".into(),
        source: BlockSource::Manual,
        failures: 0,
        created: UnixMillis(0),
        expires: None,
    }]);
    let blocked = proxy.get("/v1/models").await;
    assert_eq!((blocked.status.as_u16(), blocked.json()["error"]["code"].as_str()), (403, Some("ip_blocked")));
    assert_eq!(blocked.header("x-should-retry"), Some("false"));
    proxy.shared.guard.clear_blocks();
    let elsewhere = ListedNetwork {
        network: "192.0.2.0/24".parse().expect("network"),
        note: String::new(),
        created: UnixMillis(0),
    };
    proxy.shared.guard.load_networks(NetworkList::Allow, &[elsewhere]);
    assert_eq!(proxy.get("/v1/models").await.json()["error"]["code"], "ip_not_allowed");
    proxy.shared.guard.load_networks(NetworkList::Allow, &[]);
    assert_eq!(proxy.get("/v1/models").await.status, 200);
    let traffic = Arc::clone(&proxy.shared.metrics).sums();
    assert_eq!(traffic.refused_by_address, 2);
}

#[tokio::test]
async fn a_minted_key_serves_without_limits_and_is_refused_as_soon_as_it_is_dropped() {
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    let proxy = Proxy::start();
    proxy.engine("lab", "llamacpp", &engine).await;
    let drawn = flm::guard::key_text::write(&mut || fastrand::u8(..));
    let minted = MintedKey::new(&proxy.shared.guard, drawn, "flm chat", UnixMillis(0));
    let body = serde_json::json!({"model": "flm-tiny", "messages": [{"role": "user", "content": "hi"}]});
    let request = || {
        let mut request = proxy.request(http::Method::POST, "/v1/chat/completions", Some(&body));
        let bearer = format!("Bearer {}", minted.text().expose());
        request.headers_mut().insert("authorization", bearer.parse().expect("a header"));
        request
    };
    let (first, later) = (request(), request());
    let answer = proxy.send(first).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    for limit in RATE_HEADERS.iter().filter(|name| !name.contains("reset")) {
        assert_eq!(answer.header(limit), Some("2147483647"), "nothing limits it, and {limit} says so");
    }
    let row = proxy.row(|row| row.key_label.as_deref() == Some("flm chat")).await;
    assert_eq!(row.key, Some(flm::types::ids::KeyId::OWN));
    drop(minted);
    assert_eq!(proxy.send(later).await.status, 401);
}

/// A client library opens many connections at once: the first check of a key costs one Argon2 run, not one for each, and
/// none of them is told that too many keys are being checked.
#[tokio::test]
async fn a_key_that_comes_for_the_first_time_on_many_connections_at_once_is_checked_once() {
    let proxy = Proxy::with(ProxyLimits::default(), KeyLimits { burst: 200, ..KeyLimits::default() });
    let asked = (0..60).map(|_| {
        let address = proxy.address();
        let bytes = crate::blocking::models(&proxy.key, "");
        async move { crate::blocking::raw("127.0.0.1", address, &bytes).await }
    });
    let told = futures_util::future::join_all(asked).await;
    assert_eq!(told, [200; 60]);
    let accepted = proxy.audited.take().into_iter().filter(|event| event.kind == AuditKind::AuthenticationOk);
    let (first, later): (Vec<_>, Vec<_>) = accepted.partition(|event| event.details.contains("first time"));
    // The other worker may tell of it before the one that ran Argon2 does.
    assert!(first.len() == 1 && later.len() <= 1, "one run, and no row of each connection: {later:?}");
}

/// An audit row for each connection and key (SPEC §5.9), but not more than one a minute from the same client: what comes between is in
/// the request log.
#[tokio::test]
async fn an_accepted_key_is_audited_when_it_connects_and_at_most_once_a_minute_from_one_client() {
    let clock = Clock::stepped(UnixMillis(1_800_000_000_000));
    let proxy = Proxy::at(clock.clone(), ProxyLimits::default(), KeyLimits::default());
    let (other, other_key) = add_key(&proxy.shared, "other", KeyLimits::default());
    let accepted = || {
        let events = proxy.audited.take().into_iter().filter(|event| event.kind == AuditKind::AuthenticationOk);
        events.map(|event| event.key.expect("a key") == other).collect::<Vec<_>>()
    };
    for key in [&proxy.key, &proxy.key, &other_key, &proxy.key] {
        assert_eq!(proxy.send(with_key(key)).await.status, 200);
    }
    assert_eq!(accepted(), [false, true]);
    clock.advance(Duration::from_secs(60));
    assert_eq!(proxy.send(with_key(&proxy.key)).await.status, 200);
    assert_eq!(accepted(), [] as [bool; 0], "the same connection goes on");
    let again = crate::blocking::raw("127.0.0.1", proxy.address(), &crate::blocking::models(&proxy.key, "")).await;
    assert_eq!((again, accepted()), (200, vec![false]));
    let elsewhere = crate::blocking::raw("127.0.0.8", proxy.address(), &crate::blocking::models(&proxy.key, "")).await;
    assert_eq!((elsewhere, accepted()), (200, vec![false]));
}
