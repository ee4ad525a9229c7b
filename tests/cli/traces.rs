//! Traces of a real proxy, at a collector that listens on loopback (docs/monitoring.md, "Traces").

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::engine_scripts as scripts;
use crate::fake_engine::{Asked, FakeEngine, Reply, Script};
use crate::home::{Home, PATIENCE, wait_until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Sends a request with a client's trace and answers head and body.
fn call(url: &str, line: &str, key: &str, body: &str) -> String {
    let address = url.strip_prefix("http://").expect("plain HTTP");
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("sets a bound");
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nUser-Agent: OpenAI/Python\r\n\
         traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: vendor=1\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    answer
}

fn chat(url: &str, key: &str) -> String {
    let body = json!({"model": "flm-tiny", "messages": [{"role": "user", "content": "the-secret-of-the-prompt"}]});
    call(url, "POST /v1/chat/completions", key, &body.to_string())
}

/// Every span that the collector was sent.
fn spans(posts: &[Asked]) -> Vec<Value> {
    let all = posts.iter().filter(|post| post.path == "/v1/traces").map(Asked::json);
    all.flat_map(|document| {
        assert_eq!(document["resourceSpans"][0]["resource"]["attributes"][0]["value"]["stringValue"], "flm");
        document["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans").clone()
    })
    .collect()
}

fn attribute(span: &Value, key: &str) -> Value {
    let all = span["attributes"].as_array().expect("attributes");
    all.iter().find(|one| one["key"] == key).map_or(Value::Null, |one| one["value"]["stringValue"].clone())
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let line = answer.lines().find(|line| line.split(':').next().is_some_and(|found| found.eq_ignore_ascii_case(name)));
    line.and_then(|line| line.split_once(": ")).map(|(_, value)| value).expect("the header")
}

#[test]
fn traces_are_off_until_a_collector_is_named_then_go_on_from_the_client_to_the_engine() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let engine = runtime.block_on(FakeEngine::start(scripts::llamacpp()));
    let takes =
        Script::new(Reply::json(400, &json!({"message": "no"}))).post("/v1/traces", Reply::json(200, &json!({})));
    let collector = runtime.block_on(FakeEngine::start(takes));
    let home = Home::new();
    let mut start = home.flm(&["proxy", "start", "--port", "0"]);
    assert!(start.env("TRACE_HEADERS", "authorization=Bearer%20abc").output().expect("runs").status.success());
    let url = format!("http://127.0.0.1:{}", home.proxy_port().expect("a listener"));
    home.answer(&["engines", "add", "--kind", "llamacpp", "--id", "lab", "--url", &engine.url()]);
    let created = home.answer(&["api-keys", "create", "--label", "laptop", "--rights", "infer,metrics"]);
    let key = created["key"].as_str().expect("the key's text").to_owned();

    assert!(chat(&url, &key).starts_with("HTTP/1.1 200"), "it works without");
    let chats = |asked: &[Asked]| -> Vec<Asked> {
        asked.iter().filter(|asked| asked.path.contains("completions")).cloned().collect()
    };
    let untraced = chats(&engine.seen().asked);
    assert!(untraced[0].headers.get("traceparent").is_none(), "off, an engine is told nothing");

    home.answer(&["config", "set", "traces.headers_env", "TRACE_HEADERS"]);
    home.answer(&["config", "set", "traces.endpoint", &collector.url()]);
    let answer = chat(&url, &key);
    let refused = call(&url, "GET /v1/models", "flm_wrong", "");
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    let seen =
        runtime.block_on(collector.wait_until(|seen| spans(&seen.asked).iter().any(|span| span["name"] == "GET")));
    let spans = spans(&seen.asked);

    let ours: Vec<_> = spans.iter().filter(|span| span["traceId"] == TRACE).collect();
    let names: Vec<_> = ours.iter().filter_map(|span| span["name"].as_str()).collect();
    let stages = ["screen", "authenticate", "read body", "resolve model", "wait for a slot"];
    assert_eq!(names, [&["POST chat.completions"], &stages[..], &["chat flm-tiny"]].concat());
    assert_eq!((&ours[0]["parentSpanId"], &ours[0]["traceState"]), (&PARENT.into(), &"vendor=1".into()));
    assert_eq!(attribute(ours[0], "flm.request.id"), header(&answer, "x-request-id"));
    assert_eq!(attribute(ours[6], "flm.engine"), "lab");
    let time = |span: &Value, name: &str| span[name].as_str().and_then(|at| at.parse::<u64>().ok()).expect("a time");
    for pair in ours[1..].windows(2) {
        assert_eq!(time(pair[0], "endTimeUnixNano"), time(pair[1], "startTimeUnixNano"), "{pair:#?}");
    }
    assert_eq!(time(ours[6], "endTimeUnixNano"), time(ours[0], "endTimeUnixNano"));

    let told = &chats(&engine.seen().asked)[1].headers;
    let parent = format!("00-{TRACE}-{}-01", ours[6]["spanId"].as_str().expect("an id"));
    assert_eq!(told["traceparent"], parent.as_str(), "the engine goes on from FLM");
    assert_eq!(told["tracestate"], "vendor=1");
    let stranger = spans.iter().find(|span| span["name"] == "GET").expect("its span");
    assert!(stranger["traceId"] != TRACE && stranger["parentSpanId"].is_null(), "{stranger}");
    assert!(seen.asked.iter().all(|post| post.headers["authorization"] == "Bearer abc"));
    let sent = seen.asked.iter().map(|post| String::from_utf8_lossy(&post.body).into_owned()).collect::<String>();
    assert!(!sent.contains("the-secret-of-the-prompt") && !sent.contains(&key), "{sent}");

    // A collector that refuses costs traces, which are counted, and no request.
    home.answer(&["config", "set", "traces.endpoint", &format!("{}/elsewhere", collector.url())]);
    assert!(chat(&url, &key).starts_with("HTTP/1.1 200"));
    let counted = |name: &str| -> u64 {
        let page = call(&url, "GET /metrics", &key, "");
        let line = page.lines().find_map(|line| line.strip_prefix(name)).expect("the counter");
        line.trim().parse().expect("a number")
    };
    wait_until("what was refused is counted", PATIENCE, || counted("flm_traces_dropped_total ") > 0);
    assert!(counted("flm_traces_exported_total ") >= 2);
    home.answer(&["config", "set", "traces.endpoint", ""]);
    assert!(chat(&url, &key).starts_with("HTTP/1.1 200"), "and off again");
    assert!(chats(&engine.seen().asked)[3].headers.get("traceparent").is_none());
}
