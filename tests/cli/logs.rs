//! `flm logs`: reading, following, changing the level while the proxy runs; and what no log may hold.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::home::{Home, PATIENCE};
use crate::{run, text};

/// Sends bytes to the proxy and answers what comes back.
fn send(home: &Home, bytes: &str) -> String {
    let port = home.proxy_port().expect("a listener");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    stream.write_all(bytes.as_bytes()).expect("sends");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

fn chat(key: &str, prompt: &str) -> String {
    let body = json!({"model": "no-such-model", "messages": [{"role": "user", "content": prompt}]}).to_string();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         authorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn the_level_changes_while_the_proxy_runs_and_lines_are_read_and_followed() {
    let home = Home::new();
    home.start_proxy();
    let lines = home.answer(&["logs"]);
    let messages = |lines: &Value| -> Vec<String> {
        let all = lines.as_array().expect("a list");
        all.iter().filter_map(|line| line["fields"]["message"].as_str().map(str::to_owned)).collect()
    };
    assert!(messages(&lines).iter().any(|message| message == "owner started"), "{lines}");
    let shown = text(&home, &["logs", "--since", "1h", "--min", "info"]);
    assert!(shown.contains(" INFO  flm::daemon::owner owner started home="), "{shown}");
    assert_eq!(home.answer(&["logs", "--min", "error"]), json!([]));

    assert_eq!(text(&home, &["logs", "--level", "error"]), "log.level = error\n");
    assert_eq!(home.answer(&["config", "get", "log.level"])["value"], "error");
    let changed = home.answer(&["logs", "--level", "warn", "--target", "proxy=trace,control=info"]);
    assert_eq!(changed[1]["value"], "proxy=trace, control=info");
    let wrong = run(&home, &["logs", "--target", "hyper"]);
    assert_eq!((wrong.code, wrong.error()["code"].as_str()), (1, Some("PROXY_INVALID_CONFIG")));
    assert_eq!(run(&home, &["logs", "--level", "loud"]).code, 1);
    home.answer(&["logs", "--target", "none"]);

    home.answer(&["logs", "--level", "info"]);
    let mut following =
        home.flm(&["logs", "--follow", "--limit", "1", "--format", "jsonl"]).stdout(Stdio::piped()).spawn();
    let following = following.as_mut().expect("starts");
    let mut lines = BufReader::new(following.stdout.take().expect("a pipe")).lines();
    lines.next().expect("the newest line").expect("reads");
    home.answer(&["proxy", "reload", "--all"]);
    let line = lines.map(|line| line.expect("reads")).find(|line| line.contains("read again")).expect("the new line");
    assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON")["level"], "INFO");
    following.kill().expect("ends");
    following.wait().expect("has ended");
}

/// Case 6.
#[test]
fn neither_keys_nor_prompts_nor_secrets_are_in_any_file_at_any_level() {
    let home = Home::new();
    home.start_proxy();
    let key = home.create_key("laptop");
    home.answer(&["logs", "--level", "trace"]);
    home.answer(&["config", "set", "guard.exposure", "public"]);
    let (prompt, wrong) = ("the-canary-sings-in-the-prompt", format!("{}x", &key[..key.len() - 1]));
    for presented in [key.as_str(), wrong.as_str(), "sk-proj-0123456789abcdefghijkl", "\u{9b}2Jnot-a-key"] {
        send(&home, &chat(presented, prompt));
    }
    // In the path, in the query, and in a head that is none.
    send(&home, &format!("GET /v1/models?api_key={key} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"));
    send(&home, &format!("GET /v1/{key} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"));
    send(&home, &format!("NONSENSE {key}\r\n\r\n"));
    let requests = run(&home, &["logs", "requests"]).out;
    home.answer(&["proxy", "stop", "--all"]);
    let secret = &key["flm_Ab12Cd34_".len()..];
    let wrong_secret = &wrong["flm_Ab12Cd34_".len()..];
    let mut whole = String::new();
    for entry in std::fs::read_dir(home.path().join("logs")).expect("lists").flatten() {
        let log = std::fs::read_to_string(entry.path()).expect("reads");
        for canary in [secret, wrong_secret, prompt, "0123456789abcdefghijkl"] {
            assert!(!log.contains(canary), "{canary} is in {:?}: {log}", entry.path());
        }
        let hostile = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!log.contains(hostile), "a control character is in {:?}", entry.path());
        whole.push_str(&log);
    }
    assert!(whole.contains("\"level\":\"TRACE\"") || whole.contains("\"level\":\"DEBUG\""), "the level was in force");
    let told = run(&home, &["security", "audit-logs", "list"]).out;
    assert!(!told.contains(secret), "{told}");
    assert!(!requests.contains(prompt) && !requests.contains(secret), "{requests}");
}
