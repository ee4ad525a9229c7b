//! `flm expose-check`: which ports answer from where on this machine.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::home::Home;
use crate::text;

/// An engine's place on every IPv4 address that answers as `status` says, or nothing when the address is `loopback`.
fn engine(bind: &str, status: &'static str) -> u16 {
    let listener = TcpListener::bind((bind, 0)).expect("binds");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("connects");
            let mut head = [0; 1024];
            let count = stream.read(&mut head).unwrap_or(0);
            assert!(
                !String::from_utf8_lossy(&head[..count]).to_lowercase().contains("authorization"),
                "no key is sent"
            );
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}");
            // It may have left.
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    port
}

fn port_of(report: &Value, port: u16) -> Value {
    let ports = report["ports"].as_array().expect("a list");
    ports.iter().find(|seen| seen["port"] == port).cloned().unwrap_or_else(|| panic!("{port} is not in {report}"))
}

#[test]
fn engines_and_flm_are_seen_from_every_address_of_this_machine() {
    let home = Home::new();
    home.start_proxy();
    let proxy = home.proxy_port().expect("a listener");
    let (shut, open, guarded) =
        (engine("127.0.0.1", "200 OK"), engine("0.0.0.0", "200 OK"), engine("0.0.0.0", "401 Unauthorized"));
    home.add_engine("ollama", "shut", shut);
    home.add_engine("ollama", "open", open);
    home.add_engine("vllm", "guarded", guarded);
    let report = home.answer(&["expose-check"]);
    assert_eq!(report["elsewhere"], json!([]));
    let answers = |port| port_of(&report, port)["answers"].as_array().expect("a list").clone();
    assert_eq!(answers(shut), [json!({"address": "127.0.0.1", "reach": "loopback", "key": "none"})]);
    assert!(answers(guarded).iter().all(|answer| answer["key"] == "key"), "{report}");
    assert_eq!(answers(proxy)[0], json!({"address": "127.0.0.1", "reach": "loopback", "key": "key"}));
    assert_eq!(port_of(&report, proxy)["what"], "proxy");
    let findings = report["findings"].as_array().expect("a list");
    assert!(findings.iter().all(|finding| finding["port"] != shut && finding["port"] != proxy), "{report}");

    // A machine without any address but loopback exposes nothing.
    let beyond = report["addresses"].as_array().expect("a list").iter().any(|at| at["reach"] != "loopback");
    if beyond {
        let of = |port: u16| findings.iter().find(|finding| finding["port"] == port).expect("a finding");
        assert_eq!((&of(open)["problem"], &of(open)["id"]), (&json!("engine_open"), &json!("open")));
        assert!(of(open)["mend"][0].as_str().expect("text").contains(&format!("OLLAMA_HOST=127.0.0.1:{open}")));
        assert_eq!(of(guarded)["problem"], "engine_reachable");
        assert!(of(guarded)["mend"][0].as_str().expect("text").contains("--host 127.0.0.1"));
        let shown = text(&home, &["expose-check"]);
        assert!(shown.contains("open (ollama)") && shown.contains("without a key"), "{shown}");
    }
}
