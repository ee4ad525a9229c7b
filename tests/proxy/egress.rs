//! The way out (SPEC §7): through the proxy by name, never past it, and told when it fails.

use std::net::SocketAddr;
use std::time::Duration;

use flm::net::connect;
use flm::net::egress::{DialError, Egress, EgressEvent, ProxyConfig, Reach};
use flm::net::socks5::{Credentials, SocksFault, Step};
use flm::net::upstream::Upstream;
use flm::types::audit::AuditKind;
use flm::types::calls::audit::ListAudit;
use flm::types::calls::engines::{AddEngine, EngineHealth};
use flm::types::calls::models::RefreshModels;
use flm::types::calls::proxy::Status;
use flm::types::calls::settings::SetSetting;
use flm::types::clock::Clock;
use flm::types::egress::{EgressMode, EgressState, OnOutage};
use flm::types::engine::EngineKind;
use flm::types::failure::ErrorCode;
use flm::types::ids::EngineId;
use flm::types::key::KeyLimits;
use flm::types::secret::Secret;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, PATIENCE, Reply};
use crate::fake_socks::{FakeSocks, Manner, Target};
use crate::owner::{OwnHome, Running};

fn through(address: SocketAddr, on_outage: OnOutage, credentials: Option<Credentials>) -> Egress {
    let (mode, host, port) = (EgressMode::Socks5, address.ip().to_string(), address.port());
    Egress::through(ProxyConfig { mode, host, port, credentials, on_outage }, Clock::system())
}

fn credentials(password: &str) -> Credentials {
    Credentials::new(Secret::new("ada".to_owned()), Secret::new(password.to_owned())).expect("fits")
}

/// A port where nothing listens.
async fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.expect("listens").local_addr().expect("an address")
}

fn name(host: &str, port: u16) -> Target {
    Target { kind: 3, host: host.to_owned(), port }
}

async fn add_elsewhere(running: &Running, direct: bool) -> EngineId {
    let id = EngineId::parse("far").expect("id");
    let url = "http://engine.test:11434".to_owned();
    let kind = EngineKind::named("llamacpp");
    running.call(AddEngine { id: id.clone(), kind, url, api_key_env: None, direct, slots: None }).await;
    running.call(RefreshModels {}).await;
    id
}

fn question(stream: bool) -> Value {
    json!({"model": "flm-tiny", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]})
}

async fn kinds(running: &Running) -> Vec<AuditKind> {
    running.call(ListAudit::default()).await.into_iter().map(|row| row.event.kind).collect()
}

/// Case 39.
#[tokio::test]
async fn an_engine_elsewhere_is_reached_through_the_proxy_by_its_name_and_a_local_one_is_not() {
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    let socks = FakeSocks::start(Manner::Wants("ada", "lovelace"), &[("engine.test", engine.address)]).await;
    let home = OwnHome::at(Clock::system());
    let endpoint = socks.address.to_string();
    let running = home
        .start_with(&[
            ("FLM_EGRESS_MODE", "socks5"),
            ("FLM_EGRESS_SOCKS5_ENDPOINT", &endpoint),
            ("FLM_EGRESS_USER", "ada"),
            ("FLM_EGRESS_PASSWORD_ENV", "SOCKS_PASSWORD"),
            ("SOCKS_PASSWORD", "lovelace"),
        ])
        .await;
    let before = running.call(Status {}).await.egress;
    assert_eq!((before.state, before.ready), (EgressState::Reached, None), "negotiated, and nothing more is known");
    add_elsewhere(&running, false).await;
    let (_, key) = running.key("test", KeyLimits::default()).await;
    let answer = running.post(&key, "/v1/chat/completions", &question(false)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let asked = socks.asked();
    assert!(!asked.is_empty() && asked.iter().all(|target| *target == name("engine.test", 11434)), "{asked:?}");
    let after = running.call(Status {}).await.egress;
    assert!(after.ready.is_some() && after.last_error.is_none(), "{after:?}");
    assert_eq!(after.endpoint.as_deref(), Some(endpoint.as_str()));
    assert!(!serde_json::to_string(&after).expect("JSON").contains("lovelace"));

    let near = FakeEngine::start(engine_scripts::llamacpp()).await;
    let connections = socks.connections();
    running.engine("near", "llamacpp", &near).await;
    running.call(EngineHealth { id: EngineId::parse("near").ok(), since: Duration::from_secs(60) }).await;
    assert!(!near.seen().asked.is_empty(), "reached");
    assert_eq!(socks.connections(), connections, "and not by the proxy");

    let set = SetSetting { key: "egress.mode".to_owned(), value: "tor".to_owned() };
    running.call(set).await;
    let status = running.call(Status {}).await;
    assert_eq!(status.egress.mode, EgressMode::Socks5, "what leaves goes on as before");
    running.end().await;
}

#[tokio::test]
async fn a_changed_mode_is_told_to_wait_for_a_restart() {
    let home = OwnHome::at(Clock::system());
    let running = home.start().await;
    running.call(SetSetting { key: "egress.mode".to_owned(), value: "tor".to_owned() }).await;
    let status = running.call(Status {}).await;
    assert_eq!((status.egress.mode, status.needs_restart), (EgressMode::Direct, vec!["egress.mode".to_owned()]));
    running.end().await;
}

#[tokio::test]
async fn flm_does_not_start_when_its_way_out_is_not_there() {
    let socks = FakeSocks::start(Manner::Wants("ada", "lovelace"), &[]).await;
    let liar = FakeSocks::start(Manner::Says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), &[]).await;
    for (place, expected) in [
        (nowhere().await, "cannot be reached"),
        (socks.address, "without user and password"),
        (liar.address, "an HTTP server"),
    ] {
        let home = OwnHome::at(Clock::system());
        let place = place.to_string();
        let variables = [("FLM_EGRESS_MODE", "socks5"), ("FLM_EGRESS_SOCKS5_ENDPOINT", place.as_str())];
        let failure = home.try_start(&variables).await.expect_err("no way out");
        assert_eq!(failure.code, ErrorCode::ProxyInvalidConfig);
        assert!(failure.message.contains(expected), "{}", failure.message);
        assert!(failure.hint.is_some_and(|hint| hint.contains("--egress-fail-open")));
        // The home is free again: nothing was left running.
        let running = home.start().await;
        running.end().await;
    }
    assert!(socks.connections() >= 3, "it was tried three times");
}

#[tokio::test]
async fn an_outage_fails_requests_is_recorded_once_and_ends_by_itself() {
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    let leads = [("engine.test", engine.address)];
    let socks = FakeSocks::start(Manner::Serves, &leads).await;
    let endpoint = socks.address.to_string();
    let home = OwnHome::at(Clock::system());
    let running = home.start_with(&[("FLM_EGRESS_MODE", "tor"), ("FLM_EGRESS_SOCKS5_ENDPOINT", &endpoint)]).await;
    let id = add_elsewhere(&running, false).await;
    let (_, key) = running.key("test", KeyLimits::default()).await;
    let asked = engine.seen().asked.len();
    assert!(asked > 0, "it was checked");

    let address = socks.end().await;
    for _ in 0..2 {
        // The first may meet the closed connection that was kept.
        let answer = running.post(&key, "/v1/chat/completions", &question(false)).await;
        assert!(answer.status.is_server_error(), "{}", answer.text());
    }
    running.call(EngineHealth { id: Some(id.clone()), since: Duration::from_secs(60) }).await;
    let status = running.call(Status {}).await.egress;
    assert_eq!(status.state, EgressState::Unreachable, "{status:?}");
    assert!(status.last_error.is_some());
    assert_eq!(engine.seen().asked.len(), asked, "nothing went past the proxy");

    let _back = FakeSocks::start_at(address, Manner::Serves, &leads).await;
    running.call(EngineHealth { id: Some(id), since: Duration::from_secs(60) }).await;
    running.call(RefreshModels {}).await;
    let answer = running.post(&key, "/v1/chat/completions", &question(false)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(running.call(Status {}).await.egress.state, EgressState::Reached);
    let told = async {
        loop {
            let kinds = kinds(&running).await;
            if kinds.contains(&AuditKind::EgressRecovered) {
                return kinds.iter().filter(|kind| **kind == AuditKind::TorUnreachable).count();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, told).await.expect("recorded"), 1);
    running.end().await;
}

#[tokio::test]
async fn fail_open_starts_goes_straight_and_says_so() {
    let endpoint = nowhere().await.to_string();
    let home = OwnHome::at(Clock::system());
    let variables = [
        ("FLM_EGRESS_MODE", "socks5"),
        ("FLM_EGRESS_SOCKS5_ENDPOINT", endpoint.as_str()),
        ("FLM_EGRESS_FAIL_OPEN", "true"),
    ];
    let running = home.start_with(&variables).await;
    let status = running.call(Status {}).await.egress;
    assert_eq!((status.state, status.on_outage), (EgressState::FallenBack, OnOutage::GoDirect));
    assert!(kinds(&running).await.contains(&AuditKind::EgressFailOpenTriggered));
    running.end().await;
}

#[tokio::test]
async fn fail_open_goes_straight_only_while_the_proxy_is_away() {
    let address = nowhere().await;
    let egress = through(address, OnOutage::GoDirect, None);
    egress.prove().await.expect("goes straight");
    let failed = egress.open("engine.test", 80, Reach::ByMode).await.expect_err("there is no such name");
    assert!(matches!(failed, DialError::Direct(_) | DialError::NoAddress), "{failed}");
    assert_eq!(egress.look_ups(), 1, "straight: looked up here");
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    let socks = FakeSocks::start_at(address, Manner::Serves, &[("engine.test", engine.address)]).await;
    egress.probe().await;
    egress.open("engine.test", 80, Reach::ByMode).await.expect("through the proxy");
    assert_eq!((egress.look_ups(), socks.asked()), (1, vec![name("engine.test", 80)]));
    assert!(matches!(egress.take_events().as_slice(), [EgressEvent::FellBack(_), EgressEvent::Recovered]));
}

#[tokio::test]
async fn a_proxy_that_dies_in_the_middle_ends_the_stream_and_nothing_goes_on_past_it() {
    let engine = FakeEngine::start(engine_scripts::llamacpp().first(
        Method::POST,
        "/v1/chat/completions",
        Reply::recorded("llamacpp/b11434/chat_stream"),
    ))
    .await;
    let socks = FakeSocks::start(Manner::Serves, &[("engine.test", engine.address)]).await;
    let endpoint = socks.address.to_string();
    let home = OwnHome::at(Clock::system());
    let running = home.start_with(&[("FLM_EGRESS_MODE", "socks5"), ("FLM_EGRESS_SOCKS5_ENDPOINT", &endpoint)]).await;
    add_elsewhere(&running, false).await;
    let (_, key) = running.key("test", KeyLimits::default()).await;
    socks.set(Manner::DiesAfter(900));
    let posts = |engine: &FakeEngine| engine.seen().asked.iter().filter(|asked| asked.method == Method::POST).count();
    let before = posts(&engine);
    let body = running.open(&key, "/v1/chat/completions", &question(true)).await.into_body();
    let read = tokio::time::timeout(PATIENCE, body.collect()).await.expect("in time");
    let text = read.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    assert!(posts(&engine) <= before + 1, "asked at most once: {text}");
    running.end().await;
}

#[tokio::test]
async fn user_and_password_are_right_wrong_or_missing() {
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    let socks = FakeSocks::start(Manner::Wants("ada", "lovelace"), &[("engine.test", engine.address)]).await;
    through(socks.address, OnOutage::Refuse, Some(credentials("lovelace")))
        .open("engine.test", 1, Reach::ByMode)
        .await
        .expect("connects");
    for (credentials, expected) in [(Some(credentials("byron")), "refused user"), (None, "without user and password")] {
        let egress = through(socks.address, OnOutage::Refuse, credentials);
        let error = egress.open("engine.test", 1, Reach::ByMode).await.expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!format!("{error:?}{:?}", egress.status()).contains("byron"));
        assert_eq!(egress.look_ups(), 0);
    }
    assert_eq!(socks.asked().len(), 1);
}

#[tokio::test]
async fn what_the_destination_does_is_no_outage_of_the_proxy() {
    let socks = FakeSocks::start(Manner::Refuses(5), &[]).await;
    let egress = through(socks.address, OnOutage::GoDirect, None);
    let error = egress.open("engine.test", 1, Reach::ByMode).await.expect_err("refused");
    assert!(error.to_string().contains("the destination refused"), "{error}");
    assert_eq!((egress.look_ups(), egress.status().state), (0, EgressState::Reached), "fail-open is for outages");
    assert!(egress.status().ready.is_none() && egress.status().last_error.is_some());
}

/// Time is the test's own: it moves on when everybody waits.
#[tokio::test(start_paused = true)]
async fn a_proxy_that_hangs_is_given_up_within_the_limits() {
    for (manner, step, limit) in [
        (Manner::HangsAtMethod, Step::Method, Duration::from_secs(3 * 2 + 2)),
        (Manner::HangsAtReply, Step::Reply, Duration::from_secs(20)),
    ] {
        let socks = FakeSocks::start(manner, &[]).await;
        let egress = through(socks.address, OnOutage::Refuse, None);
        let begin = tokio::time::Instant::now();
        let error = egress.open("engine.test", 1, Reach::ByMode).await.expect_err("hangs");
        assert!(
            matches!(&error, DialError::Proxy { fault: SocksFault::Silent(silent), .. } if *silent == step),
            "{error}"
        );
        let took = begin.elapsed();
        assert!(took >= limit && took < limit + Duration::from_secs(1), "{took:?}");
        assert_eq!(egress.look_ups(), 0);
    }
}

#[tokio::test]
async fn tls_goes_on_top_with_the_name_of_the_engine() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let socks = FakeSocks::start(Manner::Serves, &[("models.test", listener.local_addr().expect("an address"))]).await;
    let egress = through(socks.address, OnOutage::Refuse, None);
    let upstream = Upstream::parse("https://models.test").expect("a URL");
    let server = async {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        let mut hello = vec![0; 4096];
        let length = stream.read(&mut hello).await.expect("reads");
        stream.write_all(b"not TLS").await.expect("writes");
        hello.truncate(length);
        hello
    };
    let both = async { tokio::join!(server, connect::dial(&egress, &upstream, &connect::Trust::System)) };
    let (hello, dialed) = tokio::time::timeout(PATIENCE, both).await.expect("in time");
    assert_eq!(hello[0], 22, "a TLS handshake");
    assert!(hello.windows(11).any(|window| window == b"models.test"), "SNI names the engine");
    assert_eq!(socks.asked(), [name("models.test", 443)]);
    let error = dialed.err().expect("no TLS there");
    assert!(matches!(error, DialError::Tls(_) | DialError::Direct(_)), "{error}");
}
