//! The main job with nothing replaced: a real llama.cpp server, the unmodified OpenAI client, the real programs, and
//! the real console on a terminal.
//!
//! Ignored by default, since they need what scripts/install-test-components.sh installs. Run by
//! `cargo test --test components -- --include-ignored`; a missing component is then a failure, not a pass.
#![expect(clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "a test ends by panicking")]

mod acme;
mod authority;
mod connect;
mod deployment;
mod dialects;
#[path = "documents.rs"]
mod document_blocks;
#[expect(dead_code, reason = "other test binaries use the rest")]
#[path = "../support/documents.rs"]
mod documents;
mod egress;
#[expect(dead_code, reason = "other test binaries use the rest")]
#[path = "../support/engine_scripts.rs"]
mod engine_scripts;
#[expect(dead_code, reason = "other test binaries use the rest")]
#[path = "../support/fake_engine.rs"]
mod fake_engine;
mod firewall;
mod full_disk;
#[expect(dead_code, reason = "the pty tests use the rest of it")]
#[path = "../support/home.rs"]
mod home;
mod llama_server;
mod matrix;
mod media;
mod namespace;
mod packaging;
mod prometheus;
#[path = "../support/stream.rs"]
mod stream;
#[expect(dead_code, reason = "the pty tests use the rest of it")]
#[path = "../support/terminal.rs"]
mod terminal;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use home::{Home, PATIENCE, wait_until};
use llama_server::{LlamaServer, component};
use serde_json::{Value, json};
use stream::ChatStream;

const CHAT_MODEL: &str = "flm-tiny";
/// Answers for minutes.
const LONG_MODEL: &str = "flm-long";
const EMBEDDING_MODEL: &str = "flm-embed";

/// What SPEC §9.3 promises between a request and its row in the Proxy tab.
const SOON: Duration = Duration::from_secs(1);

/// A policy that counts no address: for many requests of one.
pub(crate) const NO_ADDRESS_LIMITS: &str =
    r#"{"address_rate":{"mode":"off"},"address_in_flight":{"mode":"off"},"rules":{"request_burst":{"mode":"off"}}}"#;

/// A port that was free a moment ago, for programs that cannot tell which one they took.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    listener.local_addr().expect("an address").port()
}

/// The JSON that a local server answers to a GET; `None` when it answers nothing or no JSON.
pub(crate) fn get(port: u16, path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_head, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

/// FLM in front of two real engines, with a key.
struct Stage {
    home: Home,
    chat: LlamaServer,
    chat_model: &'static str,
    // Serves until the stage is dropped.
    _embedding: LlamaServer,
    url: String,
    key: String,
}

impl Stage {
    fn new(chat_model: &'static str) -> Self {
        let window = if chat_model == LONG_MODEL { "262144" } else { "1024" };
        let chat = LlamaServer::start(chat_model, &["-c", window]);
        let embedding = LlamaServer::start(EMBEDDING_MODEL, &["-c", "1024", "--embeddings"]);
        let home = Home::new();
        let url = home.start_proxy();
        home.add_engine("llamacpp", "chat", chat.port);
        home.add_engine("llamacpp", "embed", embedding.port);
        let key = home.create_key("e2e");
        let stage = Self { home, chat, chat_model, _embedding: embedding, url, key };
        wait_until("both models are listed", PATIENCE, || {
            let ids = stage.step("models")["ids"].to_string();
            ids.contains(chat_model) && ids.contains(EMBEDDING_MODEL)
        });
        stage
    }

    /// Lets the OpenAI client do one thing.
    #[track_caller]
    fn step(&self, step: &str) -> Value {
        self.step_of("openai_e2e.py", step)
    }

    /// Lets the clients of a script do one thing.
    #[track_caller]
    fn step_of(&self, script: &str, step: &str) -> Value {
        let script = format!("{}/tests/components/clients/{script}", env!("CARGO_MANIFEST_DIR"));
        let output = Command::new(component("python/bin/python"))
            .args([script.as_str(), &self.url, &self.key, step, self.chat_model, EMBEDDING_MODEL])
            .env_remove("OPENAI_BASE_URL")
            .env("NO_PROXY", "127.0.0.1")
            .stderr(Stdio::piped())
            .output()
            .expect("runs the client");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "step {step} failed: {err}");
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error} in {out:?}"))
    }

    /// The row of a request, once it is over; at most [`SOON`] after the client had its answer.
    #[track_caller]
    fn row(&self, id: &Value) -> Value {
        let began = Instant::now();
        loop {
            let rows = self.home.answer(&["logs", "requests"]);
            let row = rows.as_array().expect("rows").iter().find(|row| row["id"] == *id);
            if let Some(row) = row.filter(|row| row["progress"]["progress"] == "ended") {
                return row.clone();
            }
            // Asking starts a program; its start is not the proxy's delay.
            assert!(began.elapsed() < SOON + Duration::from_secs(1), "no row of request {id} in {rows:#}");
        }
    }
}

#[test]
#[ignore = "needs llama.cpp and the OpenAI client: run scripts/install-test-components.sh"]
fn an_unmodified_openai_client_does_everything_through_flm_and_the_console_shows_it() {
    let stage = Stage::new(CHAT_MODEL);
    let console = stage.home.console(&[], 200, 50);
    console.wait_for("chat", PATIENCE);
    console.send("3");
    console.wait_until("the Proxy tab shows its list", PATIENCE, |screen| screen.text().contains("127.0.0.1"));

    let chat = stage.step("chat");
    let shown = console.wait_until("a chat's row with model and status", SOON, |screen| {
        screen.text().lines().any(|line| line.contains(CHAT_MODEL) && line.contains("200"))
    });
    assert!(shown < SOON);
    assert!(!chat["text"].as_str().expect("a text").is_empty());
    assert_eq!(chat["usage"]["completion_tokens"], 16);
    let row = stage.row(&chat["request_id"]);
    assert_eq!(row["status"], 200);
    assert_eq!(row["model"], CHAT_MODEL);
    assert_eq!(row["engine"], "chat");
    assert_eq!(row["key_label"], "e2e");
    assert_eq!(row["tokens"]["source"], "engine");
    assert_eq!(row["tokens"]["completion"], 16);
    assert!(row["tokens"]["prompt"].as_u64().expect("a count") > 0);
    assert!(row["progress"]["took_us"].as_u64().expect("a time") > 0);

    let stream = stage.step("stream_without_usage");
    assert!(stream["pieces"].as_u64().expect("a count") > 1, "the answer came in pieces: {stream}");
    assert_eq!(stream["ids"].as_array().map(Vec::len), Some(1), "one id on all chunks");
    assert_eq!(stream["usages"], json!([]), "no usage was asked for");
    assert_eq!(stream["without_choices"], 0, "programs index choices[0]");
    let row = stage.row(&stream["request_id"]);
    assert_eq!(row["stream"], true);
    assert_eq!(row["tokens"]["completion"], 16, "FLM counts even where the client did not ask");
    assert!(row["stages"]["first_token"].as_u64().expect("a time to first token") > 0);

    console.wait_until("the stream's row with tokens, time to first token and latency", SOON, |screen| {
        // The row, without the details that stand beside it.
        let text = screen.text();
        let mut cells = text.lines().flat_map(|line| line.split('│')).map(|row| row.split_whitespace());
        cells.any(|row| {
            let cells: Vec<_> = row.collect();
            let has = |wanted: &str| cells.contains(&wanted);
            let times = cells.iter().filter(|cell| matches!(**cell, "ms" | "s")).count();
            has(CHAT_MODEL) && has("200") && has("16") && times == 2
        })
    });

    let stream = stage.step("stream_with_usage");
    assert_eq!(stream["usages"][0]["completion_tokens"], 16);
    assert_eq!(stream["usages"].as_array().map(Vec::len), Some(1));
    console.wait_until("three rows of the model", SOON, |screen| {
        screen.text().lines().filter(|line| line.contains(CHAT_MODEL) && line.contains("200")).count() >= 3
    });

    let completion = stage.step("completion");
    assert_eq!(stage.row(&completion["request_id"])["status"], 200);

    let embedding = stage.step("embed");
    console.wait_until("the embedding's row", SOON, |screen| {
        screen.text().lines().any(|line| line.contains(EMBEDDING_MODEL) && line.contains("200"))
    });
    assert_eq!(embedding["vectors"], json!([64, 64]));
    let row = stage.row(&embedding["request_id"]);
    assert_eq!(row["engine"], "embed");
    assert_eq!(row["tokens"]["prompt"], embedding["prompt_tokens"]);
}

#[test]
#[ignore = "needs llama.cpp and the OpenAI client: run scripts/install-test-components.sh"]
fn the_client_understands_what_flm_refuses() {
    let stage = Stage::new(CHAT_MODEL);
    let wrong = stage.step("wrong_key");
    assert_eq!(wrong["class"], "AuthenticationError");
    assert_eq!(wrong["status"], 401);
    assert_eq!(wrong["code"], "invalid_api_key");
    assert!(wrong["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{wrong}");

    let unknown = stage.step("unknown_model");
    assert_eq!(unknown["class"], "NotFoundError");
    assert_eq!(unknown["status"], 404);
    assert_eq!(unknown["code"], "model_not_found");
    assert!(unknown["message"].as_str().is_some_and(|text| text.contains(CHAT_MODEL)), "names near matches: {unknown}");
    let row = stage.row(&unknown["request_id"]);
    assert_eq!(row["error_code"], "model_not_found");
}

#[test]
#[ignore = "needs llama.cpp and the OpenAI client: run scripts/install-test-components.sh"]
fn a_client_that_leaves_mid_stream_ends_the_engines_work() {
    let stage = Stage::new(LONG_MODEL);
    let mut stream = ChatStream::open(&stage.url, &stage.key, LONG_MODEL, 100_000);
    for _ in 0..5 {
        stream.next_event().expect("a chunk");
    }
    assert_eq!(stage.chat.busy_slots(), 1, "the engine works while the client reads");
    drop(stream);
    wait_until("the engine works on nothing", Duration::from_secs(2), || stage.chat.busy_slots() == 0);

    assert_eq!(stage.step("leave"), json!({"pieces": 5}));
    wait_until("the engine works on nothing again", Duration::from_secs(2), || stage.chat.busy_slots() == 0);
    let left = || {
        let rows = stage.home.answer(&["logs", "requests"]);
        rows.as_array().expect("rows").iter().filter(|row| row["progress"]["end"] == "client_left").count()
    };
    wait_until("both requests are listed as left by the client", PATIENCE, || left() == 2);
}

#[test]
#[ignore = "needs llama.cpp and the OpenAI client: run scripts/install-test-components.sh"]
fn an_engine_that_dies_mid_stream_ends_the_stream_with_an_error_and_the_other_still_serves() {
    let mut stage = Stage::new(LONG_MODEL);
    let mut stream = ChatStream::open(&stage.url, &stage.key, LONG_MODEL, 100_000);
    stream.next_event().expect("a chunk");
    stage.chat.kill();
    let events: Vec<String> = std::iter::from_fn(|| stream.next_event()).collect();
    let [.., error, done] = events.as_slice() else { panic!("{events:?}") };
    let error: Value = serde_json::from_str(error).expect("JSON");
    assert_eq!(error["error"]["code"], "engine_error", "{error}");
    assert_eq!(done, "[DONE]");

    let refused = stage.step("refused_chat");
    assert!(matches!(refused["status"].as_u64(), Some(502 | 503)), "{refused}");
    assert_eq!(stage.step("embed")["vectors"], json!([64, 64]));
}
