//! Clients that take their time on purpose: frames and heads of HTTP/2 that never end, connections that only ping, answers that
//! nobody reads (SPEC §4.6, §5.5, §5.14; SECURITY.md, case 23).

use std::time::Duration;

use flm::proxy::limits::ProxyLimits;
use flm::types::clock::Clock;
use flm::types::key::KeyLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::Proxy;
use crate::fake_engine::PATIENCE;

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM_AND_HEADERS: u8 = 5;

/// `GET /health` to localhost in HPACK's static table and one literal (RFC 7541 §6).
const GET_HEALTH: &[u8] = b"\x82\x86\x44\x07/health\x41\x09localhost\x7a\x04curl";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn opening(settings: &[u8]) -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, settings)].concat()
}

fn public(limits: ProxyLimits) -> Proxy {
    let proxy = Proxy::at(Clock::system(), limits, KeyLimits::default());
    proxy.shared.guard.exposure().notice();
    proxy
}

fn score(proxy: &Proxy, of: &str) -> u32 {
    proxy.shared.guard.score_of(of.parse().expect("an address"), proxy.shared.clock.wall())
}

async fn connect(from: &str, proxy: &Proxy) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{from}:0").parse().expect("an address")).expect("a loopback address");
    socket.connect(proxy.address()).await.expect("connects")
}

/// Reads until the other side closes; what came.
async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut came = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut came)).await;
    drop(end.expect("closed in time"));
    came
}

async fn scored(proxy: &Proxy, of: &str, points: u32) {
    let wanted = async {
        while score(proxy, of) < points {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wanted).await.unwrap_or_else(|_| panic!("{of}: {}", score(proxy, of)));
}

/// Case 23: a head of HTTP/2 counts as one of HTTP/1.1 does.
#[tokio::test]
async fn given_a_head_of_http2_that_does_not_end_then_it_is_closed_and_scores() {
    let proxy = public(ProxyLimits { head: Duration::from_millis(200), ..ProxyLimits::default() });
    let begun = opening(&[]);
    for (from, more) in [
        ("127.0.0.2", frame(HEADERS, 1, 1, GET_HEALTH)),
        ("127.0.0.3", frame(HEADERS, END_STREAM_AND_HEADERS, 1, GET_HEALTH)[..15].to_vec()),
        ("127.0.0.4", frame(PING, 0, 0, &[0; 8])[..5].to_vec()),
        ("127.0.0.5", Vec::new()),
    ] {
        let mut stream = connect(from, &proxy).await;
        let sent = if from == "127.0.0.5" { begun[..30].to_vec() } else { [begun.clone(), more].concat() };
        stream.write_all(&sent).await.expect("sends");
        closed(&mut stream).await;
        scored(&proxy, from, 15).await;
        assert_eq!(proxy.get("/v1/models").await.status, 200, "others are served");
    }
    // Drop by drop it takes no longer.
    let (mut reader, mut writer) = connect("127.0.0.6", &proxy).await.into_split();
    writer.write_all(&[begun.clone(), frame(HEADERS, 1, 1, GET_HEALTH)].concat()).await.expect("sends");
    let drops = async {
        let rest = frame(9, 0, 1, &[0; 16_000]);
        for byte in rest {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if writer.write_all(&[byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut rest = Vec::new();
    tokio::select! {
        () = drops => {}
        end = tokio::time::timeout(PATIENCE, reader.read_to_end(&mut rest)) => drop(end.expect("closed in time")),
    }
    scored(&proxy, "127.0.0.6", 15).await;
    // One that is whole, and one that comes in two pieces within the time, are served and do not score.
    let mut stream = connect("127.0.0.7", &proxy).await;
    let request = frame(HEADERS, END_STREAM_AND_HEADERS, 1, GET_HEALTH);
    stream.write_all(&[&begun[..], &request[..12]].concat()).await.expect("sends");
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.write_all(&request[12..]).await.expect("sends");
    let mut came = vec![0; 4096];
    let mut all = Vec::new();
    while !all.windows(4).any(|window| window == b"\"ok\"") {
        let count = tokio::time::timeout(PATIENCE, stream.read(&mut came)).await.expect("in time").expect("reads");
        assert!(count > 0, "{all:?}");
        all.extend_from_slice(&came[..count]);
    }
    assert_eq!(score(&proxy, "127.0.0.7"), 0);
}

#[tokio::test]
async fn given_a_client_that_only_answers_pings_then_it_is_told_to_go_as_an_idle_one_of_http1_is() {
    let proxy = public(ProxyLimits { keep_alive_idle: Duration::from_millis(300), ..ProxyLimits::default() });
    let mut stream = connect("127.0.0.2", &proxy).await;
    stream.write_all(&opening(&[])).await.expect("sends");
    let (mut reader, mut writer) = stream.split();
    let pings = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if writer.write_all(&frame(PING, 0, 0, &[0; 8])).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut came = vec![0; 65_536];
    let told = async {
        let mut all = Vec::new();
        loop {
            let count = reader.read(&mut came).await.unwrap_or(0);
            all.extend_from_slice(&came[..count]);
            let goes =
                all.windows(5).any(|window| window[3] == GOAWAY && window[0] == 0 && window[1] == 0 && window[4] == 0);
            if goes || count == 0 {
                return goes;
            }
        }
    };
    tokio::select! {
        () = pings => {}
        goes = tokio::time::timeout(PATIENCE, told) => assert!(goes.expect("in time"), "it ends in peace"),
    }
    assert_eq!(score(&proxy, "127.0.0.2"), 0, "to be idle is no misdeed");
}

/// Whoever holds connections without reading gives them back.
#[tokio::test]
async fn given_answers_that_nobody_reads_then_their_connection_is_ended_and_others_are_served() {
    let limits = ProxyLimits {
        // How often it is looked, too.
        head: Duration::from_millis(300),
        keep_alive_idle: Duration::from_millis(300),
        connections_per_address: 1,
        ..ProxyLimits::default()
    };
    let proxy = public(limits);
    // HTTP/1.1: requests without end, no answer is read.
    let mut lazy = connect("127.0.0.2", &proxy).await;
    let request = b"GET /v1/nothing HTTP/1.1\r\nhost: localhost\r\nuser-agent: curl/8\r\n\r\n".repeat(100);
    let flood = async { while lazy.write_all(&request).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, flood).await.expect("ended in time");
    // HTTP/2: no room for any answer (SETTINGS_INITIAL_WINDOW_SIZE 0).
    let mut lazy = connect("127.0.0.3", &proxy).await;
    let request = frame(HEADERS, END_STREAM_AND_HEADERS, 1, GET_HEALTH);
    lazy.write_all(&[opening(&[0, 4, 0, 0, 0, 0]), request].concat()).await.expect("sends");
    closed(&mut lazy).await;
    for from in ["127.0.0.2", "127.0.0.3"] {
        let served = async {
            loop {
                let mut stream = connect(from, &proxy).await;
                drop(stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await);
                // Whatever it is told by now; 503 is what there is without a place.
                let answer = closed(&mut stream).await;
                if answer.starts_with(b"HTTP/1.1 ") && !answer.starts_with(b"HTTP/1.1 503") {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, served).await.expect("their place is free again");
    }
}

/// A few addresses could hold every place with a request a minute each: when places run short, those without a key give way.
#[tokio::test]
async fn given_strangers_that_hold_most_connections_then_they_give_way_and_holders_of_keys_stay() {
    let limits = ProxyLimits { connections: 5, head: Duration::from_millis(300), ..ProxyLimits::default() };
    let proxy = public(limits);
    let ask = async |stream: &mut TcpStream, more: &str| {
        let request = format!("GET /v1/models HTTP/1.1\r\nhost: localhost\r\nuser-agent: curl/8\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.expect("sends");
        let mut answer = vec![0; 8192];
        let count = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await.expect("in time").expect("reads");
        String::from_utf8_lossy(&answer[..count]).into_owned()
    };
    let bearer = format!("authorization: Bearer {}\r\n", proxy.key);
    let mut own = connect("127.0.0.9", &proxy).await;
    assert!(ask(&mut own, &bearer).await.starts_with("HTTP/1.1 200"));
    let mut strangers = Vec::new();
    for number in 2..5 {
        let mut stranger = connect(&format!("127.0.0.{number}"), &proxy).await;
        assert!(ask(&mut stranger, "").await.starts_with("HTTP/1.1 401"));
        strangers.push(stranger);
    }
    // Four of five places: long before the 75 s that a connection may rest.
    closed(&mut strangers[0]).await;
    assert!(ask(&mut own, &bearer).await.starts_with("HTTP/1.1 200"), "whoever has a key stays");
}

#[tokio::test]
async fn given_a_blocked_address_then_it_is_told_so_and_holds_no_connections() {
    let proxy = public(ProxyLimits::default());
    proxy.shared.guard.put_blocks(&[flm::types::address::BlockEntry {
        network: "127.0.0.2/32".parse().expect("a network"),
        reason: "a test".to_owned(),
        source: flm::types::address::BlockSource::Manual,
        failures: 0,
        created: proxy.shared.clock.wall(),
        expires: None,
    }]);
    let request = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nuser-agent: curl/8\r\n\r\n";
    let mut told = connect("127.0.0.2", &proxy).await;
    told.write_all(request).await.expect("sends");
    let answer = String::from_utf8_lossy(&closed(&mut told).await).into_owned();
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("\"ip_blocked\""), "{answer}");
    // Closed by the answer, not by the time that a connection may rest. More than a few it may not even begin.
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(connect("127.0.0.2", &proxy).await);
    }
    let refused = async {
        loop {
            let mut more = connect("127.0.0.2", &proxy).await;
            if closed(&mut more).await.starts_with(b"HTTP/1.1 503") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("the ninth is refused");
    assert_eq!(proxy.get("/v1/models").await.status, 200, "others are served");
}
