//! Capture of bodies by command: switched on for a while, listed, shown, deleted.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use http::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::engine_scripts as scripts;
use crate::fake_engine::{Asked, FakeEngine, Reply, Step};
use crate::home::{Home, PATIENCE, wait_until};
use crate::{run, text};

fn key(home: &Home) -> (String, String) {
    let created = home.answer(&["api-keys", "create", "--label", "laptop"]);
    let word = |value: &Value| value.as_str().expect("a word").to_owned();
    (word(&created["view"]["id"]), word(&created["key"]))
}

fn post(key: &str, body: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         authorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Asks for a model that is not there; answers the request's id.
fn ask(home: &Home, key: &str, prompt: &str) -> String {
    let body = json!({"model": "no-such-model", "messages": [{"role": "user", "content": prompt}]}).to_string();
    let port = home.proxy_port().expect("a listener");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.write_all(post(key, &body).as_bytes()).expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let line = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).expect("an id");
    line.trim().to_owned()
}

/// Waits until that many exchanges are stored: the disk is written beside the requests.
fn captured(home: &Home, count: usize) -> Value {
    let mut page = Value::Null;
    wait_until("the bodies are stored", PATIENCE, || {
        page = home.answer(&["logs", "captures"]);
        page["captures"].as_array().map(Vec::len) == Some(count)
    });
    page
}

#[test]
fn bodies_are_kept_only_while_a_key_is_captured_and_are_shown_escaped_and_deleted() {
    let home = Home::new();
    home.start_proxy();
    let (id, secret) = key(&home);
    ask(&home, &secret, "before");
    let shown = text(&home, &["api-keys", "edit", &id, "--capture", "2h"]);
    assert!(shown.contains("bodies               captured until "), "{shown}");
    assert!(text(&home, &["api-keys", "list"]).contains("works, captured"));
    let request = ask(&home, &secret, "during \u{1b}[31m\u{202e}");
    let page = captured(&home, 1);
    assert_eq!((page["captures"][0]["id"].as_str(), page["total"].as_u64()), (Some(request.as_str()), Some(1)));
    let capture = home.answer(&["logs", "capture", &request]);
    assert_eq!((capture["key"].as_str(), capture["status"].as_u64()), (Some(id.as_str()), Some(404)));
    assert!(capture["request_text"].as_str().expect("text").contains("during"), "{capture}");
    assert!(capture["answer_text"].as_str().expect("text").contains("model_not_found"), "{capture}");
    assert!(!capture.to_string().contains(&secret[13..]), "no key: {capture}");
    let shown = text(&home, &["logs", "capture", &request]);
    assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown}");
    let listed = text(&home, &["logs", "captures", "--key", &id]);
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["TIME", "KEY", "STATUS", "PATH", "MODEL", "REQUEST", "ANSWER", "ID"]);
    assert_eq!(rows[1][2..6], [id.as_str(), "404", "/v1/chat/completions", "no-such-model"]);
    assert_eq!((rows.len(), rows[1].last()), (2, Some(&request.as_str())));

    assert!(text(&home, &["api-keys", "edit", &id, "--capture", "off"]).contains("bodies               not captured"));
    ask(&home, &secret, "after");
    let kinds = home.answer(&["security", "audit-logs", "list", "--type", "key-changed"]).to_string();
    assert!(
        kinds.contains("has its bodies captured for 120 min") && kinds.contains("no longer has its bodies captured"),
        "{kinds}"
    );

    assert_eq!(home.answer(&["logs", "captures", "clear"]), 1);
    assert_eq!(captured(&home, 0)["bytes"], 0);
    let gone = run(&home, &["logs", "capture", &request]);
    assert_eq!((gone.code, gone.error()["code"].as_str()), (1, Some("NOT_FOUND")));
}

#[test]
fn a_capture_has_an_end_within_a_day_and_only_a_key_that_works_has_one() {
    let home = Home::new();
    let (id, _) = key(&home);
    let refused = |arguments: &[&str]| {
        let ended = run(&home, arguments);
        assert_eq!((ended.code, ended.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")), "{arguments:?}");
        ended.error()["message"].as_str().expect("a message").to_owned()
    };
    assert!(refused(&["api-keys", "edit", &id, "--capture", "25h"]).contains("at most 24 hours"));
    assert_eq!(run(&home, &["api-keys", "edit", &id, "--capture", "forever"]).code, 1);
    let until = home.answer(&["api-keys", "edit", &id, "--capture", "24h"])["capture_until"].clone();
    assert!(until.is_i64(), "{until}");
    let edited = home.answer(&["api-keys", "edit", &id, "--label", "desk"]);
    assert_eq!(edited["capture_until"], until, "what is not named stays");
    let rotated = home.answer(&["api-keys", "rotate", &id]);
    assert!(rotated["view"]["capture_until"].is_null(), "a new key is not captured: {rotated}");
    refused(&["api-keys", "edit", &id, "--capture", "1h"]);
    assert_eq!(run(&home, &["logs", "capture", "x"]).code, 1);
    assert_eq!(
        text(&home, &["logs", "captures"]),
        "nothing captured: capture a key with 'flm api-keys edit ID --capture 2h'\n"
    );
}

#[test]
fn switching_it_off_leaves_nothing_of_a_stream_that_runs() {
    let gate = CancellationToken::new();
    let mut held = Reply::recorded("llamacpp/b11434/chat_stream");
    held.steps.insert(2, Step::Until(gate.clone()));
    let is_held = |asked: &Asked| asked.json()["messages"][0]["content"] == "held";
    let script = scripts::llamacpp().first_when(Method::POST, "/v1/chat/completions", is_held, held);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let engine = runtime.block_on(FakeEngine::start(script));
    let home = Home::new();
    let url = home.start_proxy();
    home.answer(&["engines", "add", "--kind", "llamacpp", "--id", "lab", "--url", &engine.url()]);
    home.answer(&["models", "refresh"]);
    let (id, secret) = key(&home);
    let chat = |content: &str| {
        let body = json!({"model": "flm-tiny", "stream": true, "messages": [{"role": "user", "content": content}]});
        let mut stream = TcpStream::connect(url.strip_prefix("http://").expect("plain HTTP")).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream.write_all(post(&secret, &body.to_string()).as_bytes()).expect("sends");
        stream
    };
    home.answer(&["api-keys", "edit", &id, "--capture", "1h"]);
    let mut running = chat("held");
    let mut begun = [0; 200];
    running.read_exact(&mut begun).expect("begins");
    home.answer(&["api-keys", "edit", &id, "--capture", "off"]);
    gate.cancel();
    let mut rest = String::new();
    running.read_to_string(&mut rest).expect("ends");
    assert!(rest.contains("[DONE]"), "{rest}");

    home.answer(&["api-keys", "edit", &id, "--capture", "1h"]);
    let mut answer = String::new();
    chat("again").read_to_string(&mut answer).expect("an answer");
    let page = captured(&home, 1);
    assert_eq!(page["lost"], 0);
    let request = page["captures"][0]["id"].as_str().expect("an id");
    let capture = home.answer(&["logs", "capture", request]);
    assert!(capture["request_text"].as_str().is_some_and(|text| text.contains("again")), "only what came after");
    let stream = capture["answer_text"].as_str().expect("text");
    assert!(stream.starts_with("data: ") && stream.ends_with("data: [DONE]\n\n"), "{stream}");
}
