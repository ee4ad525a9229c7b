//! `flm alerts`: channels are added, tried, changed and removed, with a daemon and without one; secrets are shown once.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::home::{Home, PATIENCE, wait_until};
use crate::{run, text};

/// A server on loopback that takes what it is sent: head and JSON body.
fn receiver() -> (SocketAddr, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let place = listener.local_addr().expect("an address");
    let (sender, seen) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("connects");
            let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
            let whole = loop {
                let count = stream.read(&mut piece).expect("reads");
                bytes.extend_from_slice(&piece[..count]);
                let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
                if bytes.len() >= end + 4 + length.parse::<usize>().expect("a number") {
                    break (head, serde_json::from_slice(&bytes[end + 4..]).expect("JSON"));
                }
            };
            stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").expect("answers");
            if sender.send(whole).is_err() {
                return;
            }
        }
    });
    (place, seen)
}

#[test]
fn a_webhook_is_added_tried_and_told_of_what_happens() {
    let (place, seen) = receiver();
    let home = Home::new();
    home.start_proxy();
    let url = format!("http://{place}/flm?token=hunter2");
    let refused = run(&home, &["alerts", "add", "webhook", "--id", "ops", "--url", &url]);
    assert_eq!(refused.code, 1);
    assert!(refused.error()["hint"].as_str().expect("a hint").contains("--private"), "{}", refused.out);
    assert!(!refused.out.contains("hunter2"), "{}", refused.out);

    let add = ["alerts", "add", "webhook", "--id", "ops", "--url", &url, "--private", "--severity", "medium"];
    let added = home.answer(&add);
    let secret = added["secret"].as_str().expect("made and shown once").to_owned();
    assert!(secret.starts_with("whsec_") && secret.len() == 70, "{secret}");
    assert_eq!(added["view"]["place"], format!("http://{place}/…"));
    assert_eq!(run(&home, &add).code, 1, "the name is taken");
    // The first thing that happens after it is that it is there: it shows that it works.
    let (_, body) = seen.recv_timeout(PATIENCE).expect("the channel itself");
    assert_eq!((&body["groups"][0]["type"], &body["events"]), (&json!("policy_changed"), &json!(1)));

    home.answer(&["alerts", "test", "ops"]);
    let (head, body) = seen.recv_timeout(PATIENCE).expect("the test");
    assert!(head.contains("x-flm-signature: v1=") && head.contains("x-flm-timestamp: "), "{head}");
    assert_eq!((&body["test"], &body["channel"]), (&json!(true), &json!("ops")));

    home.answer(&["security", "ip-blocklist", "add", "203.0.113.9", "--reason", "tries keys"]);
    let (_, body) = seen.recv_timeout(PATIENCE).expect("the block");
    assert_eq!((&body["groups"][0]["type"], &body["severity"]), (&json!("block_added"), &json!("medium")));
    wait_until("the delivery is written down", PATIENCE, || {
        let deliveries = home.answer(&["alerts", "deliveries", "ops"]);
        deliveries.as_array().is_some_and(|list| list.len() == 3 && list[0]["fault"].is_null())
    });

    let changed = home.answer(&["alerts", "edit", "ops", "--type", "key-changed", "--group", "none"]);
    assert_eq!((&changed["view"]["kinds"], &changed["secret"]), (&json!(["key_changed"]), &Value::Null));
    home.answer(&["security", "ip-blocklist", "add", "203.0.113.10"]);
    home.answer(&["api-keys", "create", "--label", "laptop"]);
    let (_, body) = seen.recv_timeout(PATIENCE).expect("the key");
    assert_eq!(body["groups"][0]["type"], "key_changed", "the block is filtered away, at once after the change");

    // Neither the secret nor what is in the path is ever told again, by no command and in no log.
    for arguments in [&["alerts", "list"][..], &["alerts", "deliveries"], &["security", "audit-logs", "list"]] {
        for format in ["json", "text"] {
            let out = run(&home, &[arguments, &["--format", format]].concat()).out;
            assert!(!out.contains(&secret) && !out.contains("hunter2"), "{arguments:?}: {out}");
        }
    }
    let renewed = home.answer(&["alerts", "edit", "ops", "--new-secret"])["secret"].as_str().expect("shown").to_owned();
    assert_ne!(renewed, secret);
    home.answer(&["alerts", "remove", "ops"]);
    home.answer(&["api-keys", "create", "--label", "phone"]);
    assert_eq!(run(&home, &["alerts", "test", "ops"]).error()["code"], "NOT_FOUND");
    home.answer(&["proxy", "stop", "--all"]);
    assert!(seen.try_recv().is_err(), "a removed channel tells nothing");
    for log in std::fs::read_dir(home.path().join("logs")).expect("logs").flatten() {
        let log = std::fs::read_to_string(log.path()).expect("reads");
        assert!(!log.contains(&secret) && !log.contains(&renewed) && !log.contains("hunter2"), "{log}");
    }
}

#[test]
fn a_command_is_run_without_a_daemon_too_and_its_failure_is_told() {
    let home = Home::new();
    let script = home.path().join("alert.sh");
    std::fs::write(&script, "#!/bin/sh\ncat > \"$1\"\n[ -z \"$2\" ] || { echo \"no $2\" >&2; exit 4; }\n")
        .expect("writes");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("mode");
    let (script, out) = (script.to_string_lossy().into_owned(), home.path().join("out").to_string_lossy().into_owned());
    // What stands behind the program is the program's, so the format comes first.
    let told = run(&home, &["--format", "text", "alerts", "add", "command", "--id", "mail", "--", &script, &out]).out;
    assert!(told.contains("alert channel mail added") && told.contains("high and above"), "{told}");
    home.answer(&["alerts", "test", "mail"]);
    let json: Value = serde_json::from_str(&std::fs::read_to_string(&out).expect("it ran")).expect("JSON on stdin");
    assert_eq!((&json["test"], &json["version"]), (&json!(true), &json!("1.0")));
    assert_eq!(run(&home, &["alerts", "edit", "mail", "--off", "--", &script, &out, "disk"]).code, 0);
    let failed = run(&home, &["alerts", "test", "mail"]);
    assert_eq!((failed.code, failed.error()["code"].as_str()), (2, Some("IO_ERROR")));
    assert!(failed.out.contains("exit status: 4: no disk"), "{}", failed.out);
    let list = text(&home, &["alerts", "list"]);
    let line = list.lines().find(|line| line.starts_with("mail")).expect("a line");
    assert!(line.contains("off") && line.contains("failed: it ended with exit status: 4: no disk"), "{line}");

    let refused = run(&home, &["alerts", "add", "command", "--id", "other", "--", "mail"]);
    assert!(refused.error()["message"].as_str().expect("text").contains("absolute path"), "{}", refused.out);
    assert_eq!(run(&home, &["alerts", "edit", "mail"]).error()["code"], "INVALID_ARGUMENT");
    let wrong = run(&home, &["alerts", "edit", "mail", "--url", "https://x.example/"]);
    assert!(wrong.error()["message"].as_str().expect("text").contains("has not a URL"), "{}", wrong.out);
}

#[test]
fn the_inbox_fills_and_is_marked_read() {
    let home = Home::new();
    home.start_proxy();
    let listed = home.answer(&["alerts", "list"]);
    assert_eq!((&listed[0]["id"], &listed[0]["kind"]), (&json!("console"), &json!("terminal")), "every home has it");
    home.answer(&["security", "ip-blocklist", "add", "203.0.113.9"]);
    home.answer(&["security", "ip-blocklist", "clear"]);
    wait_until("the alert is in the inbox", PATIENCE, || home.answer(&["alerts", "inbox"])["unread"] == 1);
    let inbox = home.answer(&["alerts", "inbox"]);
    assert_eq!(
        (&inbox["alerts"][0]["kind"], &inbox["alerts"][0]["severity"]),
        (&json!("block_lifted"), &json!("high"))
    );
    let number = inbox["alerts"][0]["number"].to_string();
    assert_eq!(home.answer(&["alerts", "read", &number])["marked"], 1);
    assert_eq!(home.answer(&["alerts", "read", "--all"])["marked"], 0);
    assert_eq!(home.answer(&["alerts", "inbox", "--unread"])["alerts"], json!([]));
    assert!(text(&home, &["alerts", "inbox"]).contains("block_lifted"));
    assert_eq!(run(&home, &["alerts", "read"]).code, 1, "which ones?");
}
