//! `flm usage` on a home whose proxy has served.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::{Pid, Signal, kill_process};

use crate::engine::{Engine, MODEL};
use crate::home::{Home, PATIENCE, is_running, wait_until};
use crate::stream::ChatStream;
use crate::{redacted, run, text};

#[test]
fn a_home_without_requests_has_used_nothing() {
    let home = Home::new();
    let report = home.answer(&["usage", "--by", "key"]);
    assert_eq!((&report["by"], &report["rows"]), (&"key".into(), &serde_json::json!([])));
    assert_eq!(report["total"]["requests"], 0);
    let told = redacted(&home, &text(&home, &["usage", "--since", "24h"]));
    assert_eq!(told, "nothing was used since [time]\n");
    let wrong = run(&home, &["usage", "--by", "colour"]);
    assert_eq!((wrong.code, wrong.error()["code"].as_str()), (1, Some("INVALID_ARGUMENT")));
    assert!(wrong.error()["message"].as_str().expect("text").contains("engine"), "{}", wrong.out);
}

/// A home whose proxy has served one stream of three words, which its engine did not count, to a key with a budget.
fn used_home() -> (Home, String, String, Engine) {
    let engine = Engine::start();
    for _ in 0..3 {
        engine.speak();
    }
    engine.finish();
    let home = Home::new();
    let url = home.start_proxy();
    home.add_engine("openai", "lab", engine.port);
    let created = home.answer(&["api-keys", "create", "--label", "laptop", "--tokens-per-day", "3"]);
    let key = created["key"].as_str().expect("the key").to_owned();
    let mut stream = ChatStream::open(&url, &key, MODEL, 10);
    while stream.next_event().is_some() {}
    (home, url, key, engine)
}

#[test]
fn what_was_used_is_summed_by_key_model_engine_and_day() {
    let (home, ..) = used_home();
    for (by, name) in [("key", None), ("model", Some(MODEL)), ("engine", Some("lab")), ("day", None)] {
        let report = home.answer(&["usage", "--by", by]);
        let row = &report["rows"][0];
        assert_eq!(report["rows"].as_array().map(Vec::len), Some(1), "{by}");
        assert!(name.is_none_or(|name| row["name"] == name), "{by}: {row}");
        assert_eq!((&row["completion_tokens"], &row["estimated"]), (&3.into(), &1.into()), "{by}: {row}");
        assert!(row["ttft_ms"].is_f64() && row["latency_ms"].is_f64(), "{by}: {row}");
    }
    assert_eq!(home.answer(&["usage", "--by", "key"])["rows"][0]["label"], "laptop");
    let ended = run(&home, &["usage", "--by", "engine", "--format", "text"]);
    let words: Vec<_> = ended.out.lines().nth(1).expect("a row").split_whitespace().take(6).collect();
    assert_eq!(words, ["lab", "1", "0", "0", "0", "~3"]);
    assert!(ended.err.contains("counted as they came"), "{}", ended.err);
}

#[test]
fn a_kill_keeps_what_was_stored_and_the_budget_with_it() {
    let (home, _, key, _engine) = used_home();
    assert_eq!(home.answer(&["usage"])["total"]["requests"], 1);
    let pid = home.owner().expect("a daemon");
    kill_process(i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id"), Signal::KILL).expect("kills");
    wait_until("the daemon is gone", PATIENCE, || !is_running(pid));
    assert_eq!(home.answer(&["usage"])["total"]["completion_tokens"], 3, "read without a daemon too");
    assert_eq!(home.answer(&["api-keys", "list"])[0]["tokens_today"], 3);
    let url = home.start_proxy();
    // The new daemon asks the engine for its models by itself, but not before the first request can come.
    home.answer(&["models", "refresh"]);
    let address = url.strip_prefix("http://").expect("plain HTTP");
    let mut stream = TcpStream::connect(address).expect("connects");
    let body = format!(r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":"hi"}}]}}"#);
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("budget_exceeded"), "{answer}");
    assert!(answer.contains("x-should-retry: false") && answer.contains("x-ratelimit-remaining-tokens: 0"), "{answer}");
}
