//! Intrusion rules, honeypots and what they lead to, on real sockets (SPEC §5.4 to §5.6; SECURITY.md, cases 17 to 20,
//! 23, 25).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use flm::proxy::limits::ProxyLimits;
use flm::types::audit::{AuditKind, Severity};
use flm::types::calls::addresses::ListBlocks;
use flm::types::calls::policy::SetPolicy;
use flm::types::calls::proxy::Status;
use flm::types::calls::settings::SetSetting;
use flm::types::clock::{Clock, UnixMillis};
use flm::types::key::KeyLimits;
use flm::types::listener::Overload;
use flm::types::policy::SecurityPolicy;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::blocking::{audited, models, raw};
use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, PATIENCE, Reply, Step};
use crate::owner::{OwnHome, Running};
use crate::{Proxy, no_address_limits};

/// A public proxy.
fn public() -> Proxy {
    at(Clock::system(), ProxyLimits::default())
}

fn at(clock: Clock, limits: ProxyLimits) -> Proxy {
    let proxy = Proxy::at(clock, limits, KeyLimits::default());
    proxy.shared.guard.exposure().notice();
    proxy
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

impl Proxy {
    fn score(&self, of: &str) -> u32 {
        self.shared.guard.score_of(address(of), self.shared.clock.wall())
    }
}

/// A request from an agent that is none of interest.
fn request(method: &str, target: &str, more: &str) -> Vec<u8> {
    format!(
        "{method} {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: curl/8.9.1\r\nconnection: close\r\n{more}\r\n"
    )
    .into_bytes()
}

fn bearer(key: &str) -> String {
    format!("authorization: Bearer {key}\r\n")
}

/// The whole answer to bytes from a loopback address.
async fn talk(from: &str, proxy: &Proxy, bytes: &[u8]) -> String {
    let exchange = async {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((address(from), 0).into()).expect("a loopback address");
        let mut stream = socket.connect(proxy.address()).await.expect("connects");
        stream.write_all(bytes).await.expect("sends");
        let mut answer = Vec::new();
        let _closed = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("in time")
}

#[tokio::test]
async fn five_injections_block_with_the_next_request_and_others_go_on() {
    let proxy = public();
    let attack = request("GET", "/v1/models?id=1%27%20or%20%271%27=%271", "");
    for number in 1..=5_u32 {
        assert_eq!(raw("127.0.0.2", proxy.address(), &attack).await, 401);
        assert_eq!(proxy.score("127.0.0.2"), number * 20);
    }
    let good = request("GET", "/v1/models", &bearer(&proxy.key));
    assert_eq!(raw("127.0.0.2", proxy.address(), &good).await, 403);
    assert_eq!(raw("127.0.0.3", proxy.address(), &good).await, 200);
}

#[tokio::test]
async fn a_local_endpoint_asks_no_rule() {
    let proxy = Proxy::start();
    let attack = request("GET", "/.env?id=1%27%20or%20%271%27=%271", "");
    assert_eq!(raw("127.0.0.2", proxy.address(), &attack).await, 401);
    assert_eq!(proxy.score("127.0.0.2"), 0);
}

#[tokio::test]
async fn a_valid_key_scores_only_what_no_client_sends() {
    let proxy = public();
    let with_key = |method: &str, target: &str, more: &str| request(method, target, &(bearer(&proxy.key) + more));
    for (method, target) in [("GET", "/nothing"), ("PUT", "/v1/models"), ("GET", "/index.php"), ("GET", "/.env")] {
        let status = raw("127.0.0.2", proxy.address(), &with_key(method, target, "")).await;
        assert!(status == 404 || status == 405, "{method} {target}: {status}");
    }
    assert_eq!(proxy.score("127.0.0.2"), 0);
    for (target, more, points) in [
        ("/v1/models?id=1+or+1=1--", "", 20),
        ("/v1/models?f=../../etc/passwd", "", 20),
        ("/v1/models", "referer: ${jndi:ldap://x/a}\r\n", 0),
    ] {
        let before = proxy.score("127.0.0.2");
        assert_eq!(raw("127.0.0.2", proxy.address(), &with_key("GET", target, more)).await, 200, "{target}");
        assert_eq!(proxy.score("127.0.0.2") - before, points, "{target}");
    }
    let scanner = with_key("GET", "/v1/models", "").iter().map(|byte| char::from(*byte)).collect::<String>();
    let scanner = scanner.replace("curl/8.9.1", "sqlmap/1.8");
    assert_eq!(raw("127.0.0.2", proxy.address(), scanner.as_bytes()).await, 200);
    assert_eq!(proxy.score("127.0.0.2"), 50);
    let stranger = request("GET", "/v1/models", "referer: ${jndi:ldap://x/a}\r\n");
    assert_eq!(raw("127.0.0.3", proxy.address(), &stranger).await, 401);
    assert_eq!(proxy.score("127.0.0.3"), 10, "without a key it scores");
}

/// Case 20.
#[tokio::test]
async fn a_honeypot_looks_plausible_scores_ten_and_never_blocks_at_once() {
    let proxy = public();
    for (number, (path, status, content_type, word)) in [
        ("/admin", 200, "text/html", "<form"),
        ("/wp-admin", 302, "", "location: /wp-login.php"),
        ("/wp-login.php", 200, "text/html", "WordPress"),
        ("/phpmyadmin/index.php", 200, "text/html", "phpMyAdmin"),
        ("/api/v1/users", 200, "application/json", "\"admin\""),
        ("/.env", 200, "text/plain", "APP_ENV"),
        ("/.git/config", 200, "text/plain", "[core]"),
    ]
    .into_iter()
    .enumerate()
    {
        let from = format!("127.0.2.{}", number + 1);
        let answer = talk(&from, &proxy, &request("GET", path, "")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        assert!(answer.contains(content_type) && answer.contains(word), "{path}: {answer}");
        assert!(!answer.to_lowercase().contains("\r\nserver:"), "{path}: {answer}");
        assert_eq!(proxy.score(&from), 10, "{path}");
        assert_eq!(raw(&from, proxy.address(), &request("GET", "/health", "")).await, 200, "{path}: not blocked");
    }
    for (method, path) in [("HEAD", "/"), ("GET", "/robots.txt"), ("GET", "/favicon.ico")] {
        let bytes = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
        raw("127.0.0.9", proxy.address(), bytes.as_bytes()).await;
    }
    assert_eq!(proxy.score("127.0.0.9"), 0);
}

#[tokio::test]
async fn a_path_of_the_policy_is_a_trap_too() {
    let proxy = public();
    proxy.shared.guard.set_policy(SecurityPolicy::parse(r#"{"honeypot_paths":["/secret.json"]}"#).expect("a policy"));
    let answer = talk("127.0.0.2", &proxy, &request("GET", "/secret.json", "")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("application/json"), "{answer}");
    assert_eq!(proxy.score("127.0.0.2"), 10);
}

#[tokio::test]
async fn many_unknown_routes_and_the_same_one_again_are_counted_and_models_are_not() {
    let proxy = at(Clock::stepped(UnixMillis(1_800_000_000_000)), ProxyLimits::default());
    for number in 0..9 {
        raw("127.0.0.2", proxy.address(), &request("GET", &format!("/nothing/{number}"), "")).await;
    }
    assert_eq!(proxy.score("127.0.0.2"), 0);
    raw("127.0.0.2", proxy.address(), &request("GET", "/nothing/9", "")).await;
    assert_eq!(proxy.score("127.0.0.2"), 15, "ten within a minute");
    for _ in 0..5 {
        raw("127.0.0.3", proxy.address(), &request("GET", "/same", "")).await;
    }
    assert_eq!(proxy.score("127.0.0.3"), 10, "five times the same");
    for number in 0..12 {
        let model = request("GET", &format!("/v1/models/none-{number}"), &bearer(&proxy.key));
        assert_eq!(raw("127.0.0.4", proxy.address(), &model).await, 404);
    }
    assert_eq!(proxy.score("127.0.0.4"), 0, "an unknown model is no unknown route");
    for trick in ["/v1//models", "/v1/./x", "/v1/%2Fengine"] {
        for _ in 0..4 {
            raw("127.0.0.5", proxy.address(), &request("GET", trick, "")).await;
        }
    }
    assert_eq!(proxy.score("127.0.0.5"), 15, "path tricks are unknown routes");
    for _ in 0..10 {
        raw("127.0.0.6", proxy.address(), b"\x16\x03\x01 nonsense\r\n\r\n").await;
    }
    let scored = async {
        while proxy.score("127.0.0.6") < 15 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, scored).await.expect("heads that hyper refuses count");
}

#[tokio::test]
async fn a_head_that_is_held_open_scores_and_an_idle_connection_does_not() {
    let limits = ProxyLimits {
        head: Duration::from_millis(50),
        keep_alive_idle: Duration::from_millis(50),
        ..ProxyLimits::default()
    };
    let proxy = at(Clock::system(), limits);
    let idle = request("GET", "/health", "").iter().map(|byte| char::from(*byte)).collect::<String>();
    talk("127.0.0.3", &proxy, idle.replace("connection: close\r\n", "").as_bytes()).await;
    talk("127.0.0.2", &proxy, b"GET /v1/models HTTP/1.1\r\nhost: 127").await;
    let scored = async {
        while proxy.score("127.0.0.2") < 15 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, scored).await.expect("scored");
    assert_eq!(proxy.score("127.0.0.3"), 0);
}

/// SPEC §5.5: never a response stream, however long it takes and rests.
#[tokio::test]
async fn an_answer_that_takes_long_is_nobodys_held_open_request() {
    let short = Duration::from_millis(40);
    let limits = ProxyLimits { head: short, body_idle: short, keep_alive_idle: short, ..ProxyLimits::default() };
    let proxy = at(Clock::system(), limits);
    let mut reply = Reply::recorded("llamacpp/b11434/chat_stream").after(short * 4);
    reply.steps.insert(2, Step::Wait(short * 4));
    let engine = FakeEngine::start(engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", reply)).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let body =
        json!({"model": "flm-tiny", "stream": true, "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let more = format!("{}content-type: application/json\r\ncontent-length: {}\r\n", bearer(&proxy.key), body.len());
    let sent = [request("POST", "/v1/chat/completions", &more), body.into_bytes()].concat();
    let answer = talk("127.0.0.2", &proxy, &sent).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("data: [DONE]"), "{answer}");
    assert_eq!(proxy.score("127.0.0.2"), 0);
}

#[tokio::test]
async fn an_upload_that_is_held_open_scores_whoever_sends_it_and_however() {
    let limits =
        ProxyLimits { body_idle: Duration::from_millis(60), head: Duration::from_millis(60), ..ProxyLimits::default() };
    let proxy = at(Clock::system(), limits);
    let head = |length: &str| {
        let more = format!("{}content-type: application/json\r\ncontent-length: {length}\r\n", bearer(&proxy.key));
        request("POST", "/v1/chat/completions", &more)
    };
    // One that stops coming.
    let answer = talk("127.0.0.2", &proxy, &[head("100"), b"{".to_vec()].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(proxy.score("127.0.0.2"), 15);
    // One that never pauses for long.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.3:0".parse().expect("an address")).expect("binds");
    let (mut reader, mut writer) = socket.connect(proxy.address()).await.expect("connects").into_split();
    writer.write_all(&head("100000")).await.expect("sends");
    let drops = async {
        let mut pause = tokio::time::interval(Duration::from_millis(10));
        loop {
            pause.tick().await;
            if writer.write_all(b" ").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut answer = [0; 12];
    tokio::select! {
        read = tokio::time::timeout(PATIENCE, reader.read_exact(&mut answer)) => drop(read.expect("in time").expect("an answer")),
        () = drops => {}
    }
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert_eq!(proxy.score("127.0.0.3"), 15);
    // Half a preface of HTTP/2.
    talk("127.0.0.4", &proxy, b"PRI * HTTP/2.0\r\n\r\n").await;
    let scored = async {
        while proxy.score("127.0.0.4") < 15 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, scored).await.expect("scored");
}

#[tokio::test]
async fn bursts_announced_giants_and_the_same_body_again_are_seen_without_a_key_only() {
    let proxy = at(Clock::stepped(UnixMillis(1_800_000_000_000)), ProxyLimits::default());
    let (_, key) = crate::add_key(&proxy.shared, "busy", KeyLimits { requests_per_minute: 0, ..KeyLimits::default() });
    let key = bearer(&key);
    for _ in 0..100 {
        raw("127.0.0.2", proxy.address(), &request("GET", "/health", "")).await;
        raw("127.0.0.3", proxy.address(), &request("GET", "/v1/models", &key)).await;
    }
    assert_eq!((proxy.score("127.0.0.2"), proxy.score("127.0.0.3")), (30, 0), "a burst");
    let giant = "content-type: application/json\r\ncontent-length: 999999999\r\n";
    assert_eq!(raw("127.0.0.4", proxy.address(), &request("POST", "/v1/chat/completions", giant)).await, 401);
    assert_eq!(raw("127.0.0.5", proxy.address(), &request("POST", "/v1/chat/completions", &(key + giant))).await, 413);
    assert_eq!((proxy.score("127.0.0.4"), proxy.score("127.0.0.5")), (20, 0), "a giant");
    let body = r#"{"model":"m"}"#;
    let head = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    let same = [request("POST", "/v1/chat/completions", &head), body.into()].concat();
    for number in 0..40 {
        raw("127.0.0.6", proxy.address(), &same).await;
        let other = String::from_utf8_lossy(&same).replace("\"m\"", &format!("\"{}\"", char::from(b'A' + number % 26)));
        raw("127.0.0.7", proxy.address(), other.as_bytes()).await;
    }
    assert_eq!((proxy.score("127.0.0.6"), proxy.score("127.0.0.7")), (20, 0), "twice twenty times the same");
}

/// RFC 9110 §10.1.1: 100 says that the body is wanted.
#[tokio::test]
async fn who_asks_before_it_sends_a_body_and_has_no_key_is_refused_at_once() {
    let proxy = public();
    let head = "content-type: application/json\r\ncontent-length: 20\r\nexpect: 100-continue\r\n";
    let asks = |key: &str| request("POST", "/v1/chat/completions", &format!("{head}{key}"));
    assert_eq!(raw("127.0.0.2", proxy.address(), &asks("")).await, 401);
    assert_eq!(raw("127.0.0.2", proxy.address(), &asks(&bearer("wrong"))).await, 401);
    assert_eq!(raw("127.0.0.2", proxy.address(), &asks(&bearer(&proxy.key))).await, 100, "with a key it is wanted");
}

/// Case 18.
#[tokio::test]
async fn every_attack_in_a_chat_message_is_a_prompt_and_gets_its_answer() {
    let proxy = public();
    proxy.shared.guard.set_policy(no_address_limits());
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let (_, key) = crate::add_key(&proxy.shared, "busy", KeyLimits { requests_per_minute: 0, ..KeyLimits::default() });
    let corpus = include_str!("../fixtures/guard/attacks.jsonl");
    let payloads: BTreeSet<String> = corpus
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).expect("JSON")["payload"].as_str().map(str::to_owned))
        .collect();
    assert!(payloads.len() >= 500);
    for payload in payloads {
        let body = json!({"model": "flm-tiny", "messages": [{"role": "user", "content": payload}]});
        let mut request = proxy.request(Method::POST, "/v1/chat/completions", Some(&body));
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse().expect("a value"));
        request.headers_mut().insert("user-agent", "OpenAI/Python 1.52.0".parse().expect("a value"));
        assert_eq!(proxy.send(request).await.status, 200, "{payload}");
    }
    assert_eq!(proxy.score("127.0.0.1"), 0);
}

async fn started(home: &OwnHome) -> Running {
    let running = home.start().await;
    running.call(SetSetting { key: "guard.exposure".into(), value: "public".into() }).await;
    running
}

#[tokio::test]
async fn what_was_found_stands_in_the_audit_log_with_rule_points_and_score() {
    let home = OwnHome::at(Clock::system());
    let running = started(&home).await;
    let attack = request("GET", "/v1/models?f=..%2f..%2fetc%2fpasswd", "");
    for _ in 0..5 {
        raw("127.0.0.2", running.address(), &attack).await;
    }
    let hits = audited(&running, AuditKind::RuleHit, 5).await;
    let severities: Vec<_> = hits.iter().rev().map(|row| row.event.severity).collect();
    assert_eq!(severities, [Severity::Low, Severity::Low, Severity::Medium, Severity::Medium, Severity::High]);
    assert!(hits[0].event.details.starts_with("path_traversal: +20, score 100: query: climbs in"), "{hits:?}");
    assert_eq!(hits[0].event.address, Some(address("127.0.0.2")));
    assert_eq!(hits[0].event.endpoint.as_deref(), Some("/v1/models"));
    assert!(hits[0].event.request_id.is_some() && hits[0].event.latency_ms.is_some(), "{hits:?}");
    let blocks = audited(&running, AuditKind::BlockAdded, 1).await;
    assert!(blocks[0].event.details.contains("blocked for 60 min: scored by path_traversal"), "{blocks:?}");
    // The trusted are told of, and never blocked.
    for _ in 0..6 {
        assert_eq!(raw("127.0.0.1", running.address(), &attack).await, 401);
    }
    let hits = audited(&running, AuditKind::RuleHit, 10).await;
    assert_eq!(hits[0].event.address, Some(address("127.0.0.1")));
    assert_eq!(running.call(ListBlocks { offset: 0, limit: 10 }).await.total, 1);
    running.end().await;
}

/// Case 16.
#[tokio::test]
async fn a_rule_in_simulate_only_tells_what_it_would_have_done() {
    let home = OwnHome::at(Clock::system());
    let running = started(&home).await;
    running.call(SetPolicy { json: r#"{"rules":{"path_traversal":{"mode":"simulate"}}}"#.into() }).await;
    for _ in 0..6 {
        assert_eq!(raw("127.0.0.2", running.address(), &request("GET", "/v1/models?f=../../x", "")).await, 401);
    }
    let told = audited(&running, AuditKind::Simulated, 5).await;
    assert!(told[0].event.details.contains("would score and block, +20, score 100"), "{told:?}");
    assert_eq!(running.call(ListBlocks { offset: 0, limit: 10 }).await.total, 0);
    running.end().await;
}

#[tokio::test]
async fn an_overload_refuses_new_work_and_what_runs_goes_on() {
    let proxy = Proxy::start();
    let thinking = Duration::from_millis(300);
    let engine = FakeEngine::start(engine_scripts::llamacpp().first(
        Method::POST,
        "/v1/chat/completions",
        Reply::recorded("llamacpp/b11434/chat").after(thinking),
    ))
    .await;
    proxy.engine("llamacpp", "llamacpp", &engine).await;
    let body = json!({"model": "flm-tiny", "messages": [{"role": "user", "content": "hi"}]});
    let running = proxy.post("/v1/chat/completions", &body);
    let overload = async {
        engine.wait_until(|seen| seen.asked.iter().any(|asked| asked.path == "/v1/chat/completions")).await;
        proxy.shared.guard.set_overload(Some(Overload::Processor { percent: 97 }));
        let refused = proxy.get("/v1/models").await;
        assert_eq!((refused.status.as_u16(), refused.json()["error"]["code"].as_str()), (503, Some("overloaded")));
        assert!(refused.header("retry-after").is_some());
        assert_eq!(proxy.get("/health").await.status, 200, "whoever watches is answered");
    };
    let (answer, ()) = tokio::join!(running, overload);
    assert_eq!(answer.status, 200, "{}", answer.text());
    proxy.shared.guard.set_overload(None);
    assert_eq!(proxy.get("/v1/models").await.status, 200);
}

/// SPEC §5.8 from the policy to the client, with a machine that can never have as much free memory as is asked for.
#[tokio::test]
async fn too_little_memory_refuses_new_work_says_why_and_a_simulating_rule_only_says_so() {
    let home = OwnHome::at(Clock::system());
    let running = home.start().await;
    let (_, key) = running.key("laptop", KeyLimits::default()).await;
    let status = async |wanted: u16| {
        let asking = async {
            while raw("127.0.0.1", running.address(), &models(&key, "")).await != wanted {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE * 2, asking).await.unwrap_or_else(|_| panic!("it never becomes {wanted}"));
    };
    let in_mode = |mode: &str| {
        let json = json!({"resources": {"mode": mode, "memory_megabytes": 1_048_576, "memory_seconds": 1}});
        SetPolicy { json: json.to_string() }
    };
    running.call(in_mode("simulate")).await;
    let told = audited(&running, AuditKind::Simulated, 1).await;
    assert!(told[0].event.details.starts_with("would take no new work: "), "{told:?}");
    assert_eq!(raw("127.0.0.1", running.address(), &models(&key, "")).await, 200);
    running.call(in_mode("enforce")).await;
    status(503).await;
    let told = audited(&running, AuditKind::ResourceAlert, 2).await;
    assert!(told[0].event.details.starts_with("no new work is taken: "), "{told:?}");
    assert_eq!(told[0].event.severity, Severity::High);
    let overload = running.call(Status {}).await.overload;
    assert!(matches!(overload, Some(Overload::Memory { .. } | Overload::ControlGroup { .. })), "{overload:?}");
    running.call(in_mode("off")).await;
    status(200).await;
    assert_eq!(running.call(Status {}).await.overload, None);
    running.end().await;
}
