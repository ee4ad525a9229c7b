//! What streams leave behind in a real owner of a home: nothing.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::num::NonZeroU32;

use http::{HeaderValue, Method};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::engine_scripts as scripts;
use crate::fake_engine::{FakeEngine, Reply, Step};
use crate::home::{Home, PATIENCE, is_running, wait_until};

const STREAMS: usize = 500;

/// Rounds before anything is compared: the allocator, the tables of recent requests and the threads settle.
const SETTLING: usize = 2;
const ROUNDS: usize = 4;

/// Growth of the whole process over the rounds that are compared, KiB: 4 KiB for each of their streams, of which one holds
/// some 25. Some 2 MiB were seen, since the allocator settles for longer than the first rounds.
const GROWTH: u64 = 4096;

/// Sockets that have nothing to do with streams and come and go: a health check of the engine, a command's call.
const OTHERS: usize = 4;

fn sockets(pid: u32) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs");
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a figure");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Each stream has two ends in this process and two in the owner, which inherits the limit.
fn raise_the_limit_of_descriptors() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("a soft limit may be raised");
}

fn words(round: usize) -> String {
    format!("round {round}")
}

/// Opens a stream and reads up to its first event.
fn open(address: &str, key: &str, round: usize) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("sets a bound");
    let messages = [json!({"role": "user", "content": words(round)})];
    let body = json!({"model": "flm-tiny", "stream": true, "messages": messages}).to_string();
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\
         Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("sends");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert!(reader.read_line(&mut line).expect("reads") > 0, "it ended early");
        assert!(!line.starts_with("HTTP/") || line.starts_with("HTTP/1.1 200"), "{line}");
    }
    reader
}

#[test]
fn five_hundred_streams_leave_no_memory_and_no_socket_behind() {
    raise_the_limit_of_descriptors();
    let gates: Vec<_> = (0..ROUNDS).map(|_| CancellationToken::new()).collect();
    let mut script = scripts::llamacpp();
    for (round, gate) in gates.iter().enumerate() {
        let mut reply = Reply::recorded("llamacpp/b11434/chat_stream");
        reply.steps.insert(2, Step::Until(gate.clone()));
        // Else the pool keeps connections on purpose.
        reply.headers.insert("connection", HeaderValue::from_static("close"));
        let fits = move |asked: &crate::fake_engine::Asked| asked.json()["messages"][0]["content"] == words(round);
        script = script.first_when(Method::POST, "/v1/chat/completions", fits, reply);
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let engine = runtime.block_on(FakeEngine::start(script));
    let home = Home::new();
    home.answer(&["config", "set", "limits.connections_per_address", "2000"]);
    let url = home.start_proxy();
    let address = url.strip_prefix("http://").expect("plain HTTP");
    let policy = home.path().join("policy.json");
    let no_limits = r#"{"address_rate":{"mode":"off"},"address_in_flight":{"mode":"off"},"resources":{"mode":"off"}}"#;
    std::fs::write(&policy, no_limits).expect("writes");
    home.answer(&["security", "policy", "set", "--json", policy.to_str().expect("UTF-8")]);
    let slots = NonZeroU32::new(1_000).expect("a number").to_string();
    let lab = ["engines", "add", "--kind", "llamacpp", "--id", "lab", "--slots", &slots, "--url", &engine.url()];
    home.answer(&lab);
    home.answer(&["models", "refresh"]);
    let created = home.answer(&["api-keys", "create", "--label", "streams", "--rpm", "0"]);
    let key = created["key"].as_str().expect("the key's text").to_owned();
    let pid = home.owner().expect("an owner");

    let before = sockets(pid);
    let mut settled = None;
    for (round, gate) in gates.iter().enumerate() {
        let mut open: Vec<_> = (0..STREAMS).map(|_| open(address, &key, round)).collect();
        assert!(sockets(pid) >= 2 * STREAMS, "{}", sockets(pid));
        drop(open.split_off(STREAMS / 2));
        let left = (round + 1) * STREAMS / 2;
        runtime.block_on(engine.wait_until(|seen| seen.left == left));
        gate.cancel();
        for mut stream in open {
            let mut rest = String::new();
            stream.read_to_string(&mut rest).expect("to its end");
            assert!(rest.contains("data: [DONE]"), "{rest}");
        }
        assert_eq!(engine.seen().left, left, "nobody else was cancelled");
        wait_until("the sockets of all streams are closed", PATIENCE, || sockets(pid) <= before + OTHERS);
        let now = resident_kib(pid);
        match settled {
            None if round + 1 < SETTLING => {}
            None => settled = Some(now),
            Some(settled) => assert!(now <= settled + GROWTH, "it grew from {settled} KiB to {now} KiB"),
        }
    }
}

/// SPEC §4.8: a signal ends the proxy as gently as `flm proxy stop` does.
#[test]
fn sigterm_takes_no_new_connection_and_lets_a_stream_come_to_its_end() {
    let gate = CancellationToken::new();
    let mut reply = Reply::recorded("llamacpp/b11434/chat_stream");
    reply.steps.insert(2, Step::Until(gate.clone()));
    let script = scripts::llamacpp().first(Method::POST, "/v1/chat/completions", reply);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let engine = runtime.block_on(FakeEngine::start(script));
    let home = Home::new();
    let url = home.start_proxy();
    let address = url.strip_prefix("http://").expect("plain HTTP");
    home.add_engine("llamacpp", "lab", engine.address.port());
    home.answer(&["models", "refresh"]);
    let key = home.create_key("laptop");
    let mut stream = open(address, &key, 0);
    let daemon = home.owner().expect("a daemon");
    let pid = i32::try_from(daemon).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::TERM).expect("signals");
    wait_until("no new connection is taken", PATIENCE, || TcpStream::connect(address).is_err());
    assert!(is_running(daemon), "it waits for the stream");
    gate.cancel();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("to its end");
    assert!(rest.contains("data: [DONE]") && !rest.contains("\"error\""), "{rest}");
    wait_until("the daemon has ended", PATIENCE, || !is_running(daemon));
}
