//! Outside text on its way through the whole program (SPEC §5.13): what a client's path, agent and model and an engine's model
//! hold comes out of no command, log, export or page of metrics as it went in. The console has a test of its own.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use crate::engine::{answer, serve};
use crate::home::{Home, PATIENCE, wait_until};
use crate::run;

/// An escape sequence that changes the title and the clipboard, a bell, C1 controls, bidi overrides and isolates, a tag character
/// and a byte-order mark.
const HOSTILE: &str = "\u{1b}]0;owned\u{7}\u{1b}]52;c;b3duZWQ=\u{7}\u{9b}31m\u{202e}gnp\u{2066}\u{e0041}\u{feff}";

/// An engine whose only model has a hostile name.
fn engine() -> u16 {
    let id = serde_json::to_string(&format!("evil{HOSTILE}")).expect("JSON");
    let list = format!(r#"{{"object":"list","data":[{{"id":{id},"object":"model","created":1,"owned_by":"x"}}]}}"#);
    let refusal = serde_json::json!({"error": {"message": format!("no {HOSTILE}"), "type": "x", "code": HOSTILE}});
    let refusal = refusal.to_string();
    serve(move |first, writer| {
        let listed = first.starts_with("GET /v1/models ");
        let (status, body) = if listed { ("200 OK", &list) } else { ("500 Internal Server Error", &refusal) };
        answer(writer, status, body)
    })
}

/// The whole answer to bytes.
fn talk(home: &Home, bytes: &[u8]) -> String {
    let port = home.proxy_port().expect("a listener");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    stream.write_all(bytes).expect("sends");
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[track_caller]
fn harmless(what: &str, text: &str) {
    let found = text.chars().find(|c| *c != '\n' && flm::types::text::is_hostile(*c));
    assert_eq!(found, None, "{what}: {text:?}");
}

#[test]
fn hostile_text_of_clients_and_engines_comes_out_of_nothing_as_it_went_in() {
    let home = Home::new();
    home.start_proxy();
    home.answer(&["config", "set", "guard.exposure", "public"]);
    home.answer(&["config", "set", "log.level", "trace"]);
    home.add_engine("openai", "evil", engine());
    home.answer(&["models", "refresh"]);
    let created = home.answer(&["api-keys", "create", "--label", "=HYPERLINK(1)", "--rights", "infer,metrics"]);
    let key = created["key"].as_str().expect("a key").to_owned();
    // Bytes above 0x7f pass in a path and in a header; control characters only in JSON.
    let agent = "sqlmap/1.0 \u{9b}31m\u{202e}gnp\u{2066}";
    let head = format!("host: localhost\r\nuser-agent: {agent}\r\nconnection: close\r\n");
    let bearer = format!("authorization: Bearer {key}\r\n");
    for path in ["/=cmd|'calc'!A1\u{202e}?q=<script>", "/..%2f..%2fetc%2fpasswd\u{9b}31m", "/%1b]0;owned%07"] {
        talk(&home, format!("GET {path} HTTP/1.1\r\n{head}\r\n").as_bytes());
        talk(&home, format!("GET {path} HTTP/1.1\r\n{head}{bearer}\r\n").as_bytes());
    }
    for model in [format!("evil{HOSTILE}"), format!("unknown{HOSTILE}")] {
        let body = serde_json::json!({"model": model, "messages": [{"role": "user", "content": "hi"}]}).to_string();
        let length = body.len();
        let answer = talk(
            &home,
            format!(
                "POST /v1/chat/completions HTTP/1.1\r\n{head}{bearer}content-type: application/json\r\n\
                 content-length: {length}\r\n\r\n{body}"
            )
            .as_bytes(),
        );
        // JSON keeps what it escapes; no control character leaves in clear.
        assert!(!answer.contains('\u{1b}') && !answer.contains('\u{7}'), "{answer:?}");
    }
    let metrics = talk(&home, format!("GET /metrics HTTP/1.1\r\n{head}{bearer}\r\n").as_bytes());
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    harmless("metrics", &metrics.replace('\r', ""));
    assert!(!metrics.contains("passwd") && !metrics.contains("sqlmap") && !metrics.contains("unknown"), "{metrics}");
    wait_until("the events are written", PATIENCE, || {
        let events = home.answer(&["security", "events", "--type", "rule-hit"]);
        events.as_array().is_some_and(|events| !events.is_empty())
    });
    for command in [
        &["security", "events"][..],
        &["security", "audit-logs", "list"],
        &["security", "stats"],
        &["models", "list"],
        &["engines", "list"],
        &["usage"],
        &["api-keys", "list"],
        &["proxy", "status"],
        &["logs"],
    ] {
        let ended = run(&home, &[command, &["--format", "text"]].concat());
        assert_eq!(ended.code, 0, "{command:?}: {}", ended.err);
        harmless(&command.join(" "), &ended.out);
    }
    let file = home.path().join("events.csv");
    let path = file.to_str().expect("UTF-8");
    assert_eq!(run(&home, &["security", "audit-logs", "export", "--format", "csv", "--output", path]).code, 0);
    let csv = std::fs::read_to_string(&file).expect("reads");
    harmless("CSV", &csv.replace('\r', ""));
    for cell in csv.lines().flat_map(|line| line.split(',')) {
        let cell = cell.trim_matches('"');
        assert!(!cell.starts_with(['=', '+', '@', '\t']), "a cell that a spreadsheet runs: {cell}");
    }
    for entry in std::fs::read_dir(home.path().join("logs")).expect("logs").map_while(Result::ok) {
        let text = std::fs::read_to_string(entry.path()).expect("UTF-8");
        harmless(&entry.path().display().to_string(), &text);
        assert!(!text.contains(&key), "a key in a log");
    }
}
