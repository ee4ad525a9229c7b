//! Aliases: names of the operator's own for models (SPEC §3.5).

use flm::types::alias::{AliasOrder, AliasView};
use flm::types::clock::UnixMillis;
use flm::types::key::KeyLimits;
use http::{HeaderValue, Method};
use serde_json::{Value, json};

use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, Reply};
use crate::{Answer, Proxy, add_key};

fn alias(name: &str, targets: &[&str], order: AliasOrder) -> AliasView {
    AliasView {
        name: name.into(),
        targets: targets.iter().map(|target| (*target).into()).collect(),
        order,
        updated: UnixMillis(0),
    }
}

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hi"}]})
}

fn chats(engine: &FakeEngine) -> usize {
    engine.seen().asked.iter().filter(|asked| asked.path.ends_with("/chat/completions")).count()
}

async fn with_key(proxy: &Proxy, key: &str, method: Method, path: &str, body: Option<&Value>) -> Answer {
    let mut request = proxy.request(method, path, body);
    request.headers_mut().insert("authorization", HeaderValue::from_str(&format!("Bearer {key}")).expect("a header"));
    proxy.send(request).await
}

async fn two_engines() -> (Proxy, FakeEngine, FakeEngine) {
    let (a, b) =
        (FakeEngine::start(engine_scripts::llamacpp()).await, FakeEngine::start(engine_scripts::llamacpp()).await);
    let proxy = Proxy::start();
    proxy.engine("a", "llamacpp", &a).await;
    proxy.engine("b", "llamacpp", &b).await;
    (proxy, a, b)
}

#[tokio::test]
async fn an_alias_reaches_its_model_and_the_engine_is_asked_for_its_own_name() {
    let (proxy, a, b) = two_engines().await;
    proxy.shared.registry.set_aliases(vec![alias("gpt-4o", &["b/flm-tiny"], AliasOrder::Balanced)]);
    let answer = proxy.post("/v1/chat/completions", &chat("gpt-4o")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((chats(&a), chats(&b)), (0, 1));
    let asked = b.seen().asked.pop().expect("asked").json();
    assert_eq!(asked["model"], "flm-tiny");
}

#[tokio::test]
async fn in_order_the_second_target_serves_only_when_the_first_does_not() {
    let failing = Reply::json(503, &json!({"error": {"message": "loading"}}));
    let a = FakeEngine::start(engine_scripts::llamacpp()).await;
    let b = FakeEngine::start(engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", failing)).await;
    let proxy = Proxy::start();
    proxy.engine("a", "llamacpp", &a).await;
    proxy.engine("b", "llamacpp", &b).await;
    let order = AliasOrder::FirstServing;
    proxy.shared.registry.set_aliases(vec![
        alias("good-first", &["flm://a/flm-tiny", "b/flm-tiny"], order),
        alias("bad-first", &["flm://b/flm-tiny", "a/flm-tiny"], order),
    ]);
    for _ in 0..3 {
        assert_eq!(proxy.post("/v1/chat/completions", &chat("good-first")).await.status, 200);
    }
    assert_eq!((chats(&a), chats(&b)), (3, 0), "the first as long as it serves");
    assert_eq!(proxy.post("/v1/chat/completions", &chat("bad-first")).await.status, 200);
    assert_eq!((chats(&a), chats(&b)), (4, 1), "tried, then fallen back from");
}

#[tokio::test]
async fn lists_show_aliases_with_the_canonical_name_behind_them() {
    let (proxy, ..) = two_engines().await;
    proxy.shared.registry.set_aliases(vec![
        alias("fast", &["a/flm-tiny", "b/flm-tiny"], AliasOrder::Balanced),
        alias("gone", &["nowhere"], AliasOrder::Balanced),
    ]);
    let listed = proxy.get("/v1/models").await.json();
    let ids: Vec<_> = listed["data"].as_array().expect("a list").iter().map(|item| item["id"].clone()).collect();
    assert_eq!(ids, ["fast", "a/flm-tiny", "b/flm-tiny"], "an alias without a model is not listed");
    assert_eq!(listed["data"][0]["flm"], "flm://a/flm-tiny");
    assert_eq!(proxy.get("/v1/models/fast").await.json()["id"], "fast");
    let bare = proxy.get("/v1/models/flm-tiny").await.json();
    assert!(bare["id"].as_str().is_some_and(|id| id.ends_with("/flm-tiny")), "no alias was asked for: {bare}");
    let tags = proxy.get("/api/tags").await.json();
    assert_eq!(tags["models"][0]["name"], "fast");
    assert_eq!(proxy.post("/v1/chat/completions", &chat("gone")).await.status, 404);
}

#[tokio::test]
async fn an_alias_goes_before_a_model_of_the_same_name() {
    let (proxy, a, b) = two_engines().await;
    proxy.shared.registry.set_aliases(vec![alias("flm-tiny", &["flm://b/flm-tiny"], AliasOrder::Balanced)]);
    for _ in 0..3 {
        assert_eq!(proxy.post("/v1/chat/completions", &chat("flm-tiny")).await.status, 200);
    }
    assert_eq!((chats(&a), chats(&b)), (0, 3));
}

#[tokio::test]
async fn a_keys_globs_count_for_every_target_or_name_the_alias() {
    let (proxy, a, b) = two_engines().await;
    let order = AliasOrder::FirstServing;
    proxy.shared.registry.set_aliases(vec![alias("fast", &["a/flm-tiny", "b/flm-tiny"], order)]);
    let key = |label: &str, glob: &str| {
        add_key(&proxy.shared, label, KeyLimits { models: vec![glob.to_owned()], ..KeyLimits::default() }).1
    };
    let (only_b, by_alias, nothing) = (key("b", "flm://b/*"), key("alias", "fast"), key("none", "flm://c/*"));
    let ask = |key: String, model: &'static str| {
        let proxy = &proxy;
        async move { with_key(proxy, &key, Method::POST, "/v1/chat/completions", Some(&chat(model))).await }
    };
    assert_eq!(ask(only_b.clone(), "fast").await.status, 200);
    assert_eq!((chats(&a), chats(&b)), (0, 1), "the first target is not this key's");
    assert_eq!(ask(by_alias.clone(), "fast").await.status, 200);
    assert_eq!((chats(&a), chats(&b)), (1, 1));
    assert_eq!(ask(by_alias.clone(), "a/flm-tiny").await.status, 403, "the alias, not the model");
    assert_eq!(ask(nothing.clone(), "fast").await.status, 403);
    let listed = |answer: Answer| -> Vec<Value> {
        answer.json()["data"].as_array().expect("a list").iter().map(|item| item["id"].clone()).collect()
    };
    assert_eq!(listed(with_key(&proxy, &by_alias, Method::GET, "/v1/models", None).await), ["fast"]);
    assert_eq!(listed(with_key(&proxy, &only_b, Method::GET, "/v1/models", None).await), ["fast", "b/flm-tiny"]);
    assert!(listed(with_key(&proxy, &nothing, Method::GET, "/v1/models", None).await).is_empty());
}
