//! What `/metrics` promises: one line per series, names and labels that stay, nothing of what strangers write (SPEC §5.13).

use std::collections::{BTreeMap, BTreeSet};

use flm::types::key::{KeyLimits, Right};
use http::Method;
use serde_json::json;

use crate::fake_engine::FakeEngine;
use crate::{Proxy, engine_scripts, rights};

const CHAT: &str = "/v1/chat/completions";

/// Samples by series, of a page that is checked on the way: each family has its help and type first and stands once, no
/// series is told twice, every value is a number.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let mut out = BTreeMap::new();
    let mut families: BTreeMap<&str, &str> = BTreeMap::new();
    let mut family = "";
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect("words");
            assert!(words.ends_with('.'), "{line}");
            family = name;
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a kind");
            assert_eq!(name, family, "help comes first");
            assert!(families.insert(name, kind).is_none(), "{name} stands twice");
            assert!(kind != "counter" || name.ends_with("_total"), "{name}");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            let name = series.split('{').next().expect("a name");
            let of = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
            assert!(name == family || (of == family && families[family] == "histogram"), "{line} within {family}");
            let value = value.parse().unwrap_or_else(|fault| panic!("{line}: {fault}"));
            assert!(out.insert(series.to_owned(), value).is_none(), "told twice: {series}");
        }
    }
    out
}

#[tokio::test]
async fn a_request_is_counted_by_route_key_model_and_engine() {
    let limits = KeyLimits { rights: rights(&[Right::Infer, Right::Metrics]), ..KeyLimits::default() };
    let proxy = Proxy::with(flm::proxy::limits::ProxyLimits::default(), limits);
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let chat = json!({"model": "flm-tiny", "messages": [{"role": "user", "content": "hi"}]});
    for _ in 0..2 {
        assert_eq!(proxy.post(CHAT, &chat).await.status, 200);
    }
    // Names that strangers make up: they are no labels.
    for model in ["no\"such\nmodel", "flm://llamacpp/../../etc"] {
        proxy.post(CHAT, &json!({"model": model, "messages": [{"role": "user", "content": "hi"}]})).await;
        proxy.send(proxy.request(Method::GET, "/made-up-by-a-stranger", None)).await;
    }
    let key = proxy.key_id.as_str();
    proxy.row(|row| row.status == 404).await;
    let page = proxy.get("/metrics").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let samples = samples(page.text());
    let of = |series: &str| *samples.get(series).unwrap_or_else(|| panic!("{series}: {}", page.text()));
    assert!((of("flm_route_requests_total{route=\"chat.completions\",status=\"2xx\"}") - 2.0).abs() < 1e-9);
    assert!(of("flm_route_requests_total{route=\"none\",status=\"4xx\"}") >= 2.0);
    let who = format!("key=\"{key}\",model=\"flm-tiny\",engine=\"llamacpp\"");
    assert!((of(&format!("flm_usage_requests_total{{{who}}}")) - 2.0).abs() < 1e-9);
    assert!(of(&format!("flm_usage_tokens_total{{{who},direction=\"completion\"}}")) > 0.0);
    let engine = "engine=\"llamacpp\",kind=\"llamacpp\"";
    assert!((of(&format!("flm_engine_up{{{engine}}}")) - 1.0).abs() < 1e-9);
    assert!(of(&format!("flm_engine_slots{{{engine}}}")) >= 1.0);
    assert!(of("flm_audit_events_total{kind=\"authentication_ok\",severity=\"low\"}") >= 1.0);
    for outside in ["such", "etc", "made-up"] {
        assert!(!page.text().contains(outside), "{outside} in {}", page.text());
    }
}

/// SPEC §4.1: loopback, or a key with the right; behind a proxy everybody is on loopback.
#[tokio::test]
async fn from_elsewhere_the_page_needs_a_key_with_the_right_to_it() {
    let proxy = Proxy::start();
    let key = |label: &str, right: Right| {
        crate::add_key(&proxy.shared, label, KeyLimits { rights: rights(&[right]), ..KeyLimits::default() }).1
    };
    for (key, status, code) in [
        (None, 401, Some("invalid_api_key")),
        (Some(key("asks", Right::Infer)), 403, Some("permission_denied")),
        (Some(key("watches", Right::Metrics)), 200, None),
    ] {
        let mut request = http::Request::get("/metrics").header("x-forwarded-for", "203.0.113.9");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let answer = proxy.send(request.body(http_body_util::Full::default()).expect("a request")).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
        if code.is_some() {
            assert_eq!(answer.json()["error"]["code"].as_str(), code);
        }
    }
}

#[tokio::test]
async fn every_family_that_the_documentation_promises_is_there_and_none_is_missing_in_it() {
    let proxy = Proxy::start();
    let page =
        proxy.send(http::Request::get("/metrics").body(http_body_util::Full::default()).expect("a request")).await;
    let told: BTreeSet<&str> = page
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let document = include_str!("../../docs/monitoring.md");
    let promised: BTreeSet<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `flm_"))
        .filter_map(|line| line.split(['{', '`']).next())
        .collect();
    let told: BTreeSet<&str> = told.into_iter().filter_map(|name| name.strip_prefix("flm_")).collect();
    assert_eq!(told, promised, "docs/monitoring.md and the page differ");
}
