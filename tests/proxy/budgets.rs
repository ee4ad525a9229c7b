//! Tokens of a day: counted, refused, persistent, and gone at midnight (SPEC §5.7).

use std::num::NonZeroU32;
use std::time::Duration;

use flm::proxy::limits::ProxyLimits;
use flm::types::audit::AuditKind;
use flm::types::calendar::LocalDay;
use flm::types::calls::keys::EditKey;
use flm::types::calls::usage::ShowUsage;
use flm::types::clock::{Clock, UnixMillis};
use flm::types::ids::EngineId;
use flm::types::key::KeyLimits;
use flm::types::request::{RequestEnd, TokenSource};
use flm::types::usage::{UsageBy, UsageReport};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, Reply, Step};
use crate::owner::{OwnHome, Running};
use crate::queue::load;
use crate::{Answer, Proxy};

/// Noon of some day, so that a test begins well away from a midnight.
fn noon() -> UnixMillis {
    LocalDay::of(UnixMillis(1_800_000_000_000)).start.plus(Duration::from_hours(12))
}

fn chat() -> Value {
    json!({"model": "flm-tiny", "messages": [{"role": "user", "content": "hi"}]})
}

fn limited(tokens_per_day: u64) -> KeyLimits {
    KeyLimits { tokens_per_day: Some(tokens_per_day), ..KeyLimits::default() }
}

fn code(answer: &Answer) -> (u16, Value) {
    (answer.status.as_u16(), answer.json()["error"]["code"].clone())
}

#[tokio::test]
async fn a_budget_is_full_again_at_local_midnight_and_the_headers_say_when() {
    let clock = Clock::stepped(noon());
    let proxy = Proxy::at(clock.clone(), ProxyLimits::default(), limited(10));
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let first = proxy.post("/v1/chat/completions", &chat()).await;
    assert_eq!((first.status.as_u16(), first.header("x-ratelimit-limit-tokens")), (200, Some("10")));
    let left = LocalDay::of(noon()).end.since(clock.wall());

    let second = proxy.post("/v1/chat/completions", &chat()).await;
    assert_eq!(code(&second), (429, json!("budget_exceeded")));
    assert_eq!(second.header("x-should-retry"), Some("false"));
    assert_eq!(second.header("x-ratelimit-remaining-tokens"), Some("0"));
    assert_eq!(second.header("x-ratelimit-reset-tokens"), Some(format!("{}h0m0s", left.as_secs() / 3600).as_str()));
    assert_eq!(proxy.get("/v1/models").await.status, 200, "what costs no token is served all the same");

    clock.advance(left.checked_sub(Duration::from_millis(1)).expect("hours"));
    let at_night = proxy.post("/v1/chat/completions", &chat()).await;
    assert_eq!(code(&at_night), (429, json!("budget_exceeded")), "a millisecond before midnight");
    clock.advance(Duration::from_millis(1));
    let next_day = proxy.post("/v1/chat/completions", &chat()).await;
    assert_eq!(next_day.status, 200, "{}", next_day.text());
}

#[tokio::test]
async fn no_more_requests_run_than_there_are_tokens_left() {
    let proxy = Proxy::at(Clock::stepped(noon()), ProxyLimits::default(), limited(2));
    let endless = Reply::recorded("llamacpp/b11434/chat_stream").cut_after(2, Step::Stall);
    let script = engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", endless);
    let engine = FakeEngine::start(script).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let mut body = chat();
    body["stream"] = json!(true);
    let mut streams = Vec::new();
    for _ in 0..2 {
        let stream = proxy.open(proxy.request(Method::POST, "/v1/chat/completions", Some(&body))).await;
        assert_eq!(stream.status(), 200);
        streams.push(stream);
    }
    let third = proxy.post("/v1/chat/completions", &body).await;
    assert_eq!(code(&third), (429, json!("budget_exceeded")), "two running ones are sure to cost the two tokens");
    drop(streams);
    engine.wait_until(|seen| seen.left == 2).await;
}

/// SPEC §5.7: overshot by what the one request of each slot uses, and by none of those that waited for it.
#[tokio::test]
async fn who_waited_for_a_slot_is_refused_when_the_one_before_has_spent_the_rest() {
    let proxy = Proxy::at(Clock::stepped(noon()), ProxyLimits::default(), limited(5));
    let go_on = CancellationToken::new();
    let mut reply = Reply::recorded("llamacpp/b11434/chat");
    reply.steps.insert(0, Step::Until(go_on.clone()));
    let engine = FakeEngine::start(engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", reply)).await;
    proxy.engine_with_slots("llamacpp", "llamacpp", &engine, NonZeroU32::new(1)).await;
    let body = chat();
    let ask = || proxy.post("/v1/chat/completions", &body);
    let let_on = async {
        load(&proxy, |load| (load.in_flight, load.queued) == (1, 2)).await;
        go_on.cancel();
    };
    let (one, two, three, ()) = tokio::join!(ask(), ask(), ask(), let_on);
    let mut told: Vec<_> = [one, two, three].iter().map(|answer| answer.status.as_u16()).collect();
    told.sort_unstable();
    assert_eq!(told, [200, 429, 429]);
    let asked = engine.seen().asked.iter().filter(|asked| asked.path == "/v1/chat/completions").count();
    assert_eq!(asked, 1, "one request spent more than there was, and no other reached the engine");
    let refused = proxy.post("/v1/chat/completions", &body).await;
    assert_eq!(code(&refused), (429, json!("budget_exceeded")));
    let told = proxy.audited.take().into_iter().filter(|event| event.kind == AuditKind::RateLimited);
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), 3, "those that waited too: {told:?}");
    for event in told {
        assert_eq!(event.engine.as_ref().map(EngineId::as_str), Some("llamacpp"), "{event:?}");
        assert_eq!((event.status, event.endpoint.as_deref()), (Some(429), Some("/v1/chat/completions")), "{event:?}");
        assert!(event.key == Some(proxy.key_id) && event.request_id.is_some() && event.address.is_some(), "{event:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_charged_what_came_and_it_is_marked_estimated() {
    let proxy = Proxy::at(Clock::stepped(noon()), ProxyLimits::default(), limited(1_000));
    let endless = Reply::recorded("llamacpp/b11434/chat_stream").cut_after(4, Step::Stall);
    let script = engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", endless);
    let engine = FakeEngine::start(script).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let mut body = chat();
    body["stream"] = json!(true);
    let mut stream = proxy.open(proxy.request(Method::POST, "/v1/chat/completions", Some(&body))).await.into_body();
    // Read until every piece that the engine will ever send has come.
    let mut deltas = 0;
    while deltas < 3 {
        let frame = stream.frame().await.expect("a frame").expect("no fault");
        deltas += frame.into_data().map_or(0, |data| String::from_utf8_lossy(&data).matches("\"content\"").count());
    }
    drop(stream);
    let row = proxy.ended(RequestEnd::ClientLeft).await;
    assert_eq!(row.tokens.source, TokenSource::Estimated);
    assert!(row.tokens.completion > 0, "{row:?}");
    let entry = proxy.shared.guard.key(proxy.key_id).expect("a key");
    assert_eq!(entry.counts.tokens.state(noon()).spent, row.tokens.total());
    let used = proxy.shared.metrics.take_usage();
    assert_eq!(used.len(), 1);
    let (slot, sums) = &used[0];
    assert_eq!((slot.engine.as_str(), &*slot.model, slot.key), ("llamacpp", "flm-tiny", proxy.key_id));
    assert_eq!((sums.requests, sums.estimated, sums.completion_tokens), (1, 1, row.tokens.completion));
}

async fn usage(running: &Running, by: UsageBy) -> UsageReport {
    running.call(ShowUsage { by, since: Duration::from_hours(48) }).await
}

#[tokio::test]
async fn usage_and_budget_outlive_a_restart_and_midnight_ends_them() {
    let home = OwnHome::at(Clock::stepped(noon()));
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    let running = home.start().await;
    running.engine("lab", "llamacpp", &engine).await;
    let (id, key) = running.key("laptop", limited(30)).await;
    let first = running.post(&key, "/v1/chat/completions", &chat()).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let spent = first.json()["usage"]["total_tokens"].as_u64().expect("tokens");
    running.end().await;

    let running = home.start().await;
    let refused = running.post(&key, "/v1/chat/completions", &chat()).await;
    assert_eq!(code(&refused), (429, json!("budget_exceeded")), "{spent} tokens were used before the restart");
    let by_key = usage(&running, UsageBy::Key).await;
    assert_eq!((by_key.rows[0].name.as_str(), by_key.rows[0].label.as_deref()), (id.as_str(), Some("laptop")));
    assert_eq!((by_key.total.requests, by_key.total.tokens()), (1, spent), "a refused request is no usage");

    home.clock.advance(Duration::from_hours(12));
    let next_day = running.post(&key, "/v1/chat/completions", &chat()).await;
    assert_eq!(next_day.status, 200, "{}", next_day.text());
    let by_day = usage(&running, UsageBy::Day).await;
    let days: Vec<_> = by_day.rows.iter().map(|row| (row.name.as_str(), row.sums.tokens())).collect();
    assert_eq!(days.iter().map(|(_, tokens)| *tokens).collect::<Vec<_>>(), [spent, spent], "{days:?}");
    assert!(days[0].0 < days[1].0, "oldest first: {days:?}");
    for (by, name) in [(UsageBy::Model, "flm-tiny"), (UsageBy::Engine, "lab")] {
        let report = usage(&running, by).await;
        assert_eq!((report.rows.len(), report.rows[0].name.as_str()), (1, name));
        assert_eq!(report.rows[0].sums, report.total);
    }
    running.end().await;
}

#[tokio::test]
async fn a_budget_given_during_the_day_counts_what_was_used_before() {
    let home = OwnHome::at(Clock::stepped(noon()));
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    let running = home.start().await;
    running.engine("lab", "llamacpp", &engine).await;
    let (id, key) = running.key("laptop", KeyLimits::default()).await;
    assert_eq!(running.post(&key, "/v1/chat/completions", &chat()).await.status, 200);
    let edit = |limits| EditKey { id, label: None, limits: Some(limits), expires: None, capture: None };
    running.call(edit(limited(5))).await;
    let refused = running.post(&key, "/v1/chat/completions", &chat()).await;
    assert_eq!(code(&refused), (429, json!("budget_exceeded")));
    running.call(edit(KeyLimits::default())).await;
    assert_eq!(running.post(&key, "/v1/chat/completions", &chat()).await.status, 200, "the limit is gone");
    running.end().await;
}
