//! Addresses that present wrong keys are blocked, and whose address it is (SPEC §5, head and §5.3).

use std::net::SocketAddr;
use std::time::Duration;

use flm::proxy::client_address::{ForwardingHeader, ProxyProtocol, TrustedProxies};
use flm::proxy::limits::ProxyLimits;
use flm::types::address::{BlockSource, ListedNetwork};
use flm::types::audit::{AuditKind, AuditRow};
use flm::types::calls::addresses::{ListBlocks, NetworkList, RemoveBlock};
use flm::types::calls::audit::ListAudit;
use flm::types::calls::policy::{SetPolicy, ShowPolicy};
use flm::types::calls::settings::SetSetting;
use flm::types::clock::{Clock, UnixMillis};
use flm::types::failure::ErrorCode;
use flm::types::key::KeyLimits;
use flm::types::listener::Exposure;
use flm::types::policy::SecurityPolicy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::Proxy;
use crate::fake_engine::PATIENCE;
use crate::owner::{OwnHome, Running};

/// Sends bytes from one of this machine's loopback addresses and answers the status; 0 is a closed connection.
pub(crate) async fn raw(from: &str, to: SocketAddr, bytes: &[u8]) -> u16 {
    let exchange = async {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(from.parse().expect("address"), 0)).expect("a loopback address");
        let mut stream = socket.connect(to).await.expect("connects");
        stream.write_all(bytes).await.expect("sends");
        let mut head = [0; 12];
        match stream.read_exact(&mut head).await {
            Ok(_) => std::str::from_utf8(&head[9..]).expect("a status").parse().expect("a number"),
            Err(_closed) => 0,
        }
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time")
}

/// `GET /v1/models` with a key and more lines of head.
pub(crate) fn models(key: &str, more: &str) -> Vec<u8> {
    format!(
        "GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: curl/8.9.1\r\nconnection: close\r\n\
         authorization: Bearer {key}\r\n{more}\r\n"
    )
    .into_bytes()
}

async fn public(running: &Running) {
    running.call(SetSetting { key: "guard.exposure".into(), value: "public".into() }).await;
}

/// Waits until so many events of a kind are written.
pub(crate) async fn audited(running: &Running, kind: AuditKind, count: usize) -> Vec<AuditRow> {
    let waiting = async {
        loop {
            let rows = running.call(ListAudit { kind: Some(kind), ..ListAudit::default() }).await;
            if rows.len() >= count {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the events are written")
}

async fn wrong_keys(running: &Running, from: &str, run: &str, count: usize) -> Vec<u16> {
    let mut told = Vec::new();
    for number in 0..count {
        told.push(raw(from, running.address(), &models(&format!("wrong-{run}-{number}"), "")).await);
    }
    told
}

/// Case 9.
#[tokio::test]
async fn wrong_keys_block_for_longer_and_longer_and_a_restart_forgets_nothing() {
    let clock = Clock::stepped(UnixMillis(1_800_000_000_000));
    let home = OwnHome::at(clock.clone());
    let running = home.start().await;
    public(&running).await;
    let (_, key) = running.key("laptop", KeyLimits::default()).await;
    assert_eq!(wrong_keys(&running, "127.0.0.2", "a", 5).await, [401; 5]);
    assert_eq!(raw("127.0.0.2", running.address(), &models(&key, "")).await, 403, "with the right key too");
    assert_eq!(raw("127.0.0.3", running.address(), &models(&key, "")).await, 200, "others are not meant");
    running.end().await;

    let running = home.start().await;
    let page = running.call(ListBlocks { offset: 0, limit: 10 }).await;
    assert_eq!(page.entries.len(), 1);
    let block = &page.entries[0];
    assert_eq!((block.network.to_string().as_str(), block.source), ("127.0.0.2/32", BlockSource::FailedAuthentication));
    assert_eq!((block.failures, block.expires), (5, Some(block.created.plus(Duration::from_mins(30)))));
    clock.advance(Duration::from_mins(30) - Duration::from_millis(1));
    assert_eq!(raw("127.0.0.2", running.address(), &models(&key, "")).await, 403);
    clock.advance(Duration::from_millis(1));
    assert_eq!(raw("127.0.0.2", running.address(), &models(&key, "")).await, 200);
    assert_eq!(wrong_keys(&running, "127.0.0.2", "b", 6).await, [401, 401, 401, 401, 401, 403]);
    running.end().await;

    let running = home.start().await;
    let page = running.call(ListBlocks { offset: 0, limit: 10 }).await;
    assert_eq!(
        (page.entries[0].failures, page.entries[0].expires.map(|at| at.since(page.entries[0].created))),
        (10, Some(Duration::from_hours(24)))
    );
    running.call(RemoveBlock { network: page.entries[0].network }).await;
    assert_eq!(wrong_keys(&running, "127.0.0.2", "c", 10).await, [401; 10]);
    let page = running.call(ListBlocks { offset: 0, limit: 10 }).await;
    let lasting = page.entries[0].expires.map(|at| at.since(page.entries[0].created));
    assert_eq!(
        (page.entries[0].failures, lasting),
        (20, Some(Duration::from_hours(24))),
        "loopback is never blocked for ever"
    );
    let told = audited(&running, AuditKind::BlockAdded, 3).await;
    assert!(told[0].event.details.contains("20 wrong keys"), "{told:?}");
    running.end().await;
}

/// Case 10.
#[tokio::test]
async fn the_same_wrong_key_a_missing_one_and_trusted_addresses_lead_to_no_block() {
    let home = OwnHome::at(Clock::system());
    let running = home.start().await;
    public(&running).await;
    for _ in 0..12 {
        assert_eq!(raw("127.0.0.2", running.address(), &models("the-same-wrong-key", "")).await, 401);
        let nothing = b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: curl/8\r\nconnection: close\r\n\r\n";
        assert_eq!(raw("127.0.0.2", running.address(), nothing).await, 401);
    }
    assert_eq!(wrong_keys(&running, "127.0.0.1", "t", 30).await, [401; 30]);
    assert_eq!(running.call(ListBlocks { offset: 0, limit: 10 }).await.total, 0);
    running.end().await;
}

#[tokio::test]
async fn a_policy_takes_effect_with_the_next_request_and_a_wrong_one_names_its_field() {
    let home = OwnHome::at(Clock::system());
    let running = home.start().await;
    public(&running).await;
    let set = |json: &str| SetPolicy { json: json.to_owned() };
    running.call(set(r#"{"failed_authentication":{"mode":"simulate"}}"#)).await;
    assert_eq!(wrong_keys(&running, "127.0.0.2", "a", 7).await, [401; 7], "only said");
    let told = audited(&running, AuditKind::Simulated, 1).await;
    assert!(told[0].event.details.contains("would be blocked for 30 min"), "{told:?}");
    let refused = running.operator.call(set(r#"{"score":{"block_at":0}}"#)).await.expect_err("refused");
    assert_eq!(refused.code, ErrorCode::PolicyInvalid);
    assert!(refused.message.contains("score.block_at") || refused.message.contains("score"), "{refused:?}");
    let steps = r#"{"failed_authentication":{"steps":[{"failures":1,"block_minutes":1}]}}"#;
    running.call(set(steps)).await;
    assert_eq!(wrong_keys(&running, "127.0.0.4", "b", 2).await, [401, 403]);
    running.end().await;
    let running = home.start().await;
    let policy = running.call(ShowPolicy {}).await;
    assert_eq!(policy.failed_authentication.steps.as_slice().len(), 1, "it was kept");
    running.end().await;
}

#[tokio::test]
async fn an_endpoint_counts_as_public_once_something_forwards_to_it() {
    let proxy = Proxy::start();
    let exposure = proxy.shared.guard.exposure();
    assert_eq!(exposure.now(), Exposure::Local);
    for number in 0..6 {
        assert_eq!(raw("127.0.0.2", proxy.address(), &models(&format!("wrong {number}"), "")).await, 401);
    }
    assert_eq!(exposure.now(), Exposure::Local);
    let forwarded = models(&proxy.key, "x-forwarded-for: 198.51.100.7\r\n");
    assert_eq!(raw("127.0.0.1", proxy.address(), &forwarded).await, 200);
    assert_eq!(exposure.now(), Exposure::Public);
}

#[tokio::test]
async fn an_endpoint_counts_as_public_once_it_is_asked_for_under_a_foreign_name_and_it_is_told() {
    let proxy = Proxy::start();
    let exposure = proxy.shared.guard.exposure();
    assert_eq!(proxy.get("/v1/models").await.status, 200);
    assert_eq!(exposure.now(), Exposure::Local);
    let foreign = String::from_utf8(models(&proxy.key, "")).expect("text").replace("127.0.0.1", "llm.example.org");
    for _ in 0..2 {
        assert_eq!(raw("127.0.0.1", proxy.address(), foreign.as_bytes()).await, 421);
    }
    assert_eq!(exposure.now(), Exposure::Public);
    let told = proxy.audited.take();
    let told: Vec<_> = told.iter().filter(|event| event.kind == AuditKind::PolicyChanged).collect();
    assert_eq!(told.len(), 1, "once: {told:?}");
    assert!(told[0].details.contains("counts as public from now on: a request named a host"), "{told:?}");
}

/// A proxy's loopback is not this machine's: what it says of its own neighbours gives them nothing here.
#[tokio::test]
async fn loopback_that_a_proxy_tells_of_has_no_privilege() {
    let networks = vec!["127.0.0.5/32".parse().expect("network")];
    let trusted_proxies =
        TrustedProxies { networks, header: ForwardingHeader::None, protocol: ProxyProtocol::Required };
    let proxy = Proxy::with(ProxyLimits { trusted_proxies, ..ProxyLimits::default() }, KeyLimits::default());
    proxy.shared.guard.exposure().notice();
    let trusted = ListedNetwork {
        network: "127.0.0.1/32".parse().expect("network"),
        note: String::new(),
        created: UnixMillis(0),
    };
    proxy.shared.guard.load_networks(NetworkList::Trusted, &[trusted]);
    let through = |bytes: Vec<u8>| [b"PROXY TCP4 127.0.0.1 127.0.0.1 4711 80\r\n".to_vec(), bytes].concat();
    let metrics = b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: curl/8\r\nconnection: close\r\n\r\n";
    assert_eq!(raw("127.0.0.1", proxy.address(), metrics).await, 200, "this machine's own");
    assert_eq!(raw("127.0.0.5", proxy.address(), &through(metrics.to_vec())).await, 401);
    for number in 0..5 {
        let wrong = models(&format!("wrong {number}"), "");
        assert_eq!(raw("127.0.0.1", proxy.address(), &wrong).await, 401);
        assert_eq!(raw("127.0.0.5", proxy.address(), &through(wrong)).await, 401);
    }
    assert_eq!(raw("127.0.0.5", proxy.address(), &through(models(&proxy.key, ""))).await, 403);
    assert_eq!(raw("127.0.0.1", proxy.address(), &models(&proxy.key, "")).await, 200, "it stays trusted");

    // The same of what a connection does before there is a request.
    proxy.shared.guard.clear_blocks();
    let policy = r#"{"score":{"warn_at":1,"block_at":15}}"#;
    proxy.shared.guard.set_policy(SecurityPolicy::parse(policy).expect("a policy"));
    for _ in 0..10 {
        raw("127.0.0.5", proxy.address(), &through(b"\x16\x03\x01 nonsense\r\n\r\n".to_vec())).await;
    }
    let blocked = async {
        while proxy.shared.guard.blocks(0, 1, proxy.shared.clock.wall()).total == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, blocked).await.expect("it is blocked");
}

/// SPEC §5.3: where somebody is logged in by SSH no block is for ever, nor where it would hold his network.
#[tokio::test]
async fn a_block_for_ever_lasts_a_day_where_somebody_is_logged_in_by_ssh() {
    for (operator, attacker, network) in [
        ("203.0.113.7", "203.0.113.7", "203.0.113.7/32"),
        ("2001:db8:1:2::7", "2001:db8:1:2::bad", "2001:db8:1:2::/64"),
    ] {
        let home = OwnHome::at(Clock::system());
        let session = format!("{operator} 50022 192.0.2.1 22");
        let variables = [("SSH_CONNECTION", session.as_str()), ("FLM_TRUSTED_PROXIES", "127.0.0.5/32")];
        let running = home.start_with(&variables).await;
        let policy = r#"{"failed_authentication":{"steps":[{"failures":1,"block_minutes":null}]}}"#;
        running.call(SetPolicy { json: policy.into() }).await;
        for client in [attacker, "198.51.100.8"] {
            let wrong = models(&format!("wrong of {client}"), &format!("x-forwarded-for: {client}\r\n"));
            assert_eq!(raw("127.0.0.5", running.address(), &wrong).await, 401);
            assert_eq!(raw("127.0.0.5", running.address(), &wrong).await, 403, "{client}");
        }
        let lasting = async |network: &str| {
            let page = running.call(ListBlocks { offset: 0, limit: 10 }).await;
            let block = page.entries.into_iter().find(|entry| entry.network.to_string() == network);
            let block = block.unwrap_or_else(|| panic!("{network} is blocked"));
            block.expires.map(|at| at.since(block.created))
        };
        // The blocks, and what became of one.
        let told = audited(&running, AuditKind::BlockAdded, 3).await;
        let spared = format!("{network} blocked for a day only: somebody is logged in from {operator} by SSH");
        assert_eq!(told.iter().filter(|row| row.event.details == spared).count(), 1, "{told:?}");
        assert_eq!(lasting(network).await, Some(Duration::from_hours(24)));
        assert_eq!(lasting("198.51.100.8/32").await, None);
        running.end().await;
        let running = home.start_with(&variables).await;
        let page = running.call(ListBlocks { offset: 0, limit: 10 }).await;
        let spared = page.entries.iter().find(|entry| entry.network.to_string() == network).expect("it is kept");
        assert_eq!(spared.expires, Some(spared.created.plus(Duration::from_hours(24))), "and so it is stored");
        running.end().await;
    }
}

/// Case 15.
#[tokio::test]
async fn a_header_of_an_untrusted_peer_blocks_the_peer_and_never_whom_it_names() {
    let proxy = Proxy::start();
    for number in 0..5 {
        let attack = models(&format!("wrong {number}"), "x-forwarded-for: 127.0.0.9\r\n");
        assert_eq!(raw("127.0.0.2", proxy.address(), &attack).await, 401);
    }
    assert_eq!(raw("127.0.0.2", proxy.address(), &models(&proxy.key, "")).await, 403);
    assert_eq!(raw("127.0.0.9", proxy.address(), &models(&proxy.key, "")).await, 200);
}

#[tokio::test]
async fn loopback_with_a_forwarding_header_has_no_privilege() {
    let proxy = Proxy::start();
    for number in 0..5 {
        let attack = models(&format!("wrong {number}"), "x-forwarded-for: 198.51.100.7\r\n");
        assert_eq!(raw("127.0.0.1", proxy.address(), &attack).await, 401);
    }
    let forwarded = models(&proxy.key, "x-forwarded-for: 198.51.100.8\r\n");
    assert_eq!(raw("127.0.0.1", proxy.address(), &forwarded).await, 403, "whoever comes the same way");
}

#[tokio::test]
async fn a_trusted_proxy_tells_the_client_by_header_and_by_the_proxy_protocol() {
    let networks = vec!["127.0.0.5/32".parse().expect("network")];
    let by_header = TrustedProxies { networks, ..TrustedProxies::default() };
    for protocol in [ProxyProtocol::Off, ProxyProtocol::Required] {
        let header =
            if protocol == ProxyProtocol::Off { ForwardingHeader::XForwardedFor } else { ForwardingHeader::None };
        let trusted_proxies = TrustedProxies { header, protocol, ..by_header.clone() };
        let proxy = Proxy::with(ProxyLimits { trusted_proxies, ..ProxyLimits::default() }, KeyLimits::default());
        proxy.shared.guard.exposure().notice();
        let request = |client: &str, key: &str| match protocol {
            ProxyProtocol::Off => models(key, &format!("x-forwarded-for: 1.2.3.4, {client}\r\n")),
            ProxyProtocol::Required => {
                [format!("PROXY TCP4 {client} 127.0.0.1 4711 80\r\n").into_bytes(), models(key, "")].concat()
            }
        };
        for number in 0..5 {
            assert_eq!(raw("127.0.0.5", proxy.address(), &request("198.51.100.7", &format!("{number}"))).await, 401);
        }
        assert_eq!(raw("127.0.0.5", proxy.address(), &request("198.51.100.7", &proxy.key)).await, 403, "{protocol:?}");
        assert_eq!(raw("127.0.0.5", proxy.address(), &request("198.51.100.8", &proxy.key)).await, 200, "{protocol:?}");
        if protocol == ProxyProtocol::Required {
            assert_eq!(raw("127.0.0.5", proxy.address(), &models(&proxy.key, "")).await, 0, "without it: closed");
            assert_eq!(raw("127.0.0.6", proxy.address(), &models(&proxy.key, "")).await, 200, "others do not speak it");
        }
    }
}

/// Case 14: lifting a block by hand is in force with the very next request, on a connection from before the block too.
#[tokio::test]
async fn given_a_block_when_it_is_lifted_then_the_next_request_on_the_same_connection_passes_and_it_is_audited() {
    let home = OwnHome::at(Clock::system());
    let running = home.start().await;
    public(&running).await;
    let (_, key) = running.key("laptop", KeyLimits::default()).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.2:0".parse().expect("an address")).expect("a loopback address");
    let mut stream = socket.connect(running.address()).await.expect("connects");
    let request = String::from_utf8(models(&key, "")).expect("text").replace("connection: close\r\n", "");
    let mut ask = async || {
        stream.write_all(request.as_bytes()).await.expect("sends");
        let mut answer = vec![0; 8192];
        let count = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await.expect("in time").expect("reads");
        String::from_utf8_lossy(&answer[9..count.min(12)]).into_owned()
    };
    assert_eq!(ask().await, "200");
    assert_eq!(wrong_keys(&running, "127.0.0.2", "a", 5).await, [401; 5]);
    assert_eq!(raw("127.0.0.2", running.address(), &models(&key, "")).await, 403);
    // At once: what was decided a moment ago is not stored yet.
    running.call(RemoveBlock { network: "127.0.0.2/32".parse().expect("a network") }).await;
    assert_eq!(ask().await, "200");
    assert_eq!(raw("127.0.0.2", running.address(), &models(&key, "")).await, 200);
    let lifted = audited(&running, AuditKind::BlockLifted, 1).await;
    assert_eq!(lifted[0].event.details, "block of 127.0.0.2/32 lifted by hand");
    assert_eq!(lifted[0].event.address, Some("127.0.0.2".parse().expect("an address")));
    // It is no amnesty: the failures still count, and the next step of the ladder is theirs.
    assert_eq!(wrong_keys(&running, "127.0.0.2", "b", 6).await, [401, 401, 401, 401, 401, 403]);
    running.end().await;
}
