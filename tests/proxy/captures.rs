//! Capture of bodies (SPEC §10): what is kept, of whom, and that nothing is kept of anybody else.

use std::time::Duration;

use flm::control::Step as Told;
use flm::guard::key_table::KeyEntry;
use flm::types::calls::captures::{CapturePage, ListCaptures, ReplayCapture};
use flm::types::calls::chat::ChatProgress;
use flm::types::calls::keys::{CaptureSwitch, EditKey};
use flm::types::calls::requests::ListRequests;
use flm::types::capture::{Capture, Kept};
use flm::types::clock::{Clock, UnixMillis};
use flm::types::failure::ErrorCode;
use flm::types::ids::RequestId;
use flm::types::key::{KeyLimits, KeyRecord, KeyView};
use flm::types::request::TokenSource;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::json;

use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, PATIENCE, Reply, Step};
use crate::owner::OwnHome;
use crate::{Proxy, add_key};

impl Proxy {
    fn capture_until(&self, until: Option<UnixMillis>) {
        let KeyEntry { record, .. } = &*self.shared.guard.key(self.key_id).expect("the key");
        let view = KeyView { capture_until: until, ..record.view.clone() };
        self.shared.guard.put_key(KeyRecord { view, hash: record.hash.clone() });
    }

    fn captures(&self) {
        self.capture_until(Some(self.shared.clock.wall().plus(Duration::from_secs(3600))));
    }

    async fn captured(&self) -> Capture {
        let mut lane = self.captured.lock().await;
        let recorded = tokio::time::timeout(PATIENCE, lane.recv()).await.expect("in time").expect("an exchange");
        recorded.into_capture().expect("of a key")
    }

    async fn captured_nothing(&self) -> bool {
        self.captured.lock().await.try_recv().is_err()
    }
}

async fn proxy_with(reply: Reply) -> (Proxy, FakeEngine) {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", reply)).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    (proxy, engine)
}

fn recorded() -> Reply {
    Reply::recorded("llamacpp/b11434/chat_stream")
}

fn chat(streams: bool) -> serde_json::Value {
    json!({"model": "flm-tiny", "stream": streams, "messages": [{"role": "user", "content": "say 日本 \u{202e}"}]})
}

#[tokio::test]
async fn bodies_are_kept_as_the_client_sent_and_got_them_and_only_of_a_key_that_is_captured() {
    let (proxy, _engine) = proxy_with(Reply::recorded("llamacpp/b11434/chat")).await;
    let (_, other) = add_key(&proxy.shared, "other", KeyLimits::default());
    proxy.captures();
    let mut request = proxy.request(Method::POST, "/v1/chat/completions", Some(&chat(false)));
    request.headers_mut().insert("authorization", format!("Bearer {other}").parse().expect("a header"));
    assert_eq!(proxy.send(request).await.status, 200);
    assert!(proxy.captured_nothing().await, "the other key is not captured");

    let answer = proxy.post("/v1/chat/completions", &chat(false)).await;
    let capture = proxy.captured().await;
    assert_eq!(Some(capture.entry.id.as_str()), answer.header("x-request-id"));
    assert_eq!((capture.entry.key, capture.entry.status, capture.entry.method.as_str()), (proxy.key_id, 200, "POST"));
    assert_eq!(
        (capture.entry.path.as_str(), capture.entry.model.as_deref()),
        ("/v1/chat/completions", Some("flm-tiny"))
    );
    assert_eq!(capture.request_text, chat(false).to_string());
    assert_eq!(capture.answer_text, answer.text());
    assert_eq!((capture.entry.request.kept, capture.entry.answer.kept), (Kept::Whole, Kept::Whole));
    let told = format!("{capture:?}");
    assert!(!told.contains("Bearer") && !told.contains(&proxy.key[13..]), "no header and no key: {told}");

    proxy.capture_until(Some(proxy.shared.clock.wall()));
    proxy.post("/v1/chat/completions", &chat(false)).await;
    proxy.capture_until(None);
    proxy.post("/v1/chat/completions", &chat(false)).await;
    assert!(proxy.captured_nothing().await, "its time is over");
}

#[tokio::test]
async fn a_stream_is_kept_as_it_was_written_and_as_far_as_it_came() {
    let (proxy, _engine) = proxy_with(recorded()).await;
    proxy.captures();
    let answer = proxy.post("/v1/chat/completions", &chat(true)).await;
    let capture = proxy.captured().await;
    assert_eq!(capture.answer_text, answer.text());
    assert!(capture.answer_text.ends_with("data: [DONE]\n\n"), "{}", capture.answer_text);

    let (proxy, _engine) = proxy_with(recorded().cut_after(3, Step::Die)).await;
    proxy.captures();
    let answer = proxy.post("/v1/chat/completions", &chat(true)).await;
    assert_eq!(proxy.captured().await.answer_text, answer.text(), "the error inside it too");

    let (proxy, engine) = proxy_with(recorded().cut_after(3, Step::Stall)).await;
    proxy.captures();
    let mut response = proxy.open(proxy.request(Method::POST, "/v1/chat/completions", Some(&chat(true)))).await;
    let first = response.body_mut().frame().await.expect("a frame").expect("no error").into_data().expect("data");
    drop(response);
    engine.wait_until(|seen| seen.left == 1).await;
    let capture = proxy.captured().await;
    assert!(capture.answer_text.as_bytes().starts_with(&first), "{}", capture.answer_text);
    assert!(!capture.answer_text.contains("[DONE]"));
}

#[tokio::test]
async fn refusals_and_bodies_that_are_wrong_are_kept_too_but_not_what_a_rate_refused() {
    let key_limits = KeyLimits { requests_per_minute: 60, burst: 2, ..KeyLimits::default() };
    let proxy = Proxy::with(flm::proxy::limits::ProxyLimits::default(), key_limits);
    proxy.captures();
    let absent = json!({"model": "absent", "messages": []});
    let answer = proxy.post("/v1/chat/completions", &absent).await;
    let capture = proxy.captured().await;
    assert_eq!((capture.entry.status, answer.status.as_u16()), (404, 404));
    assert_eq!((capture.request_text, capture.answer_text.as_str()), (absent.to_string(), answer.text()));
    let mut request = proxy.request(Method::POST, "/v1/chat/completions", Some(&json!({})));
    *request.body_mut() = http_body_util::Full::new("{\"model\": ".into());
    assert_eq!(proxy.send(request).await.status, 400);
    assert_eq!(proxy.captured().await.request_text, "{\"model\": ");
    assert_eq!(proxy.get("/v1/models").await.status, 429);
    assert!(proxy.captured_nothing().await);
}

#[tokio::test]
async fn every_dialect_is_kept_in_the_clients_own_words() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    proxy.captures();
    let message = json!([{"role": "user", "content": "hi"}]);
    for (path, body, said) in [
        ("/v1/messages", json!({"model": "flm-tiny", "max_tokens": 9, "messages": message}), "\"type\":\"message\""),
        ("/api/chat", json!({"model": "flm-tiny", "messages": message, "stream": false}), "\"done\":true"),
        ("/v1/responses", json!({"model": "flm-tiny", "input": "hi"}), "\"object\":\"response\""),
    ] {
        let answer = proxy.post(path, &body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let capture = proxy.captured().await;
        assert_eq!((capture.entry.path.as_str(), capture.request_text), (path, body.to_string()));
        assert_eq!(capture.answer_text, answer.text());
        assert!(capture.answer_text.contains(said), "{path}: {}", capture.answer_text);
    }
}

#[tokio::test]
async fn keys_in_bodies_are_cut_and_bodies_beyond_a_mebibyte_too() {
    let (proxy, _engine) = proxy_with(Reply::recorded("llamacpp/b11434/chat")).await;
    proxy.captures();
    let said = format!("my key is {} {}", proxy.key, "x".repeat(3 << 20));
    let body = json!({"messages": [{"role": "user", "content": said}], "model": "flm-tiny"});
    assert_eq!(proxy.post("/v1/chat/completions", &body).await.status, 200);
    let capture = proxy.captured().await;
    assert_eq!((capture.entry.request.kept, capture.entry.request.bytes), (Kept::Cut, body.to_string().len() as u64));
    assert!(capture.request_text.len() <= 1 << 20);
    assert!(capture.request_text.contains(&format!("{}…", &proxy.key[..12])), "{}", &capture.request_text[..200]);
    assert!(!capture.request_text.contains(&proxy.key[13..40]));
    assert_eq!(CapturePage::default().lost, proxy.shared.captures.lost());
}

#[tokio::test]
async fn a_captured_request_is_asked_again_of_another_model_through_the_endpoint() {
    let home = OwnHome::at(Clock::system());
    let (first, other) =
        (FakeEngine::start(engine_scripts::llamacpp()).await, FakeEngine::start(engine_scripts::vllm()).await);
    let running = home.start().await;
    running.engine("first", "llamacpp", &first).await;
    running.engine("other", "vllm", &other).await;
    let (id, key) = running.key("laptop", KeyLimits::default()).await;
    let switch = Some(CaptureSwitch::For(Duration::from_secs(3600)));
    running.call(EditKey { id, label: None, limits: None, expires: None, capture: switch }).await;
    // Not in OpenAI's words, and not as a stream: the other model is asked for one all the same.
    let said = "what was captured";
    let body = json!({"model": "first/flm-tiny", "max_tokens": 9, "messages": [{"role": "user", "content": said}]});
    let answer = running.post(&key, "/v1/messages", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let captured = async {
        loop {
            if let Some(entry) = running.call(ListCaptures::default()).await.captures.pop() {
                return entry.id;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let captured = tokio::time::timeout(PATIENCE, captured).await.expect("stored beside the requests");

    let call = ReplayCapture { id: captured, model: "other/flm-tiny".to_owned() };
    let mut replay = running.operator.follow(&call).await.expect("begins");
    let mut pieces = String::new();
    let whole = loop {
        match tokio::time::timeout(PATIENCE, replay.next()).await.expect("in time").expect("no failure") {
            Told::Progress(ChatProgress::Text(text)) => pieces.push_str(&text),
            Told::Progress(_) => {}
            Told::Done(answer) => break answer,
        }
    };
    assert_eq!((whole.status, whole.model.as_str()), (200, "other/flm-tiny"));
    assert!(!whole.text.is_empty() && pieces == whole.text, "it came in pieces: {pieces:?} {whole:?}");
    assert_eq!(whole.usage.source, TokenSource::Engine);
    let asked = other.seen().asked.into_iter().rfind(|asked| asked.method == Method::POST).expect("asked").json();
    assert_eq!((asked["model"].as_str(), asked["stream"].as_bool()), (Some("flm-tiny"), Some(true)));
    assert!(asked["messages"].to_string().contains(said), "{asked}");
    // It is a request as any other, under a name of its own, and no request of the captured key.
    let logged = async {
        loop {
            let rows = running.call(ListRequests { limit: 100 }).await;
            if let Some(row) = rows.into_iter().find(|row| row.key_label.as_deref() == Some("flm replay")) {
                return row;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let row = tokio::time::timeout(PATIENCE, logged).await.expect("in the log");
    assert_eq!(Some(row.id.as_str()), whole.request_id.as_deref());
    let unknown = ReplayCapture { id: RequestId::from_random(1), model: "other/flm-tiny".to_owned() };
    let mut unknown = running.operator.follow(&unknown).await.expect("begins");
    assert_eq!(unknown.next().await.expect_err("there is none").code, ErrorCode::NotFound);
    running.end().await;
}
