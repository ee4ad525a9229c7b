//! The way out with real proxies, in network namespaces: microsocks in front of a world that is reachable through it alone,
//! and tor where there is no world at all.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::home::{Home, PATIENCE, wait_until};
use crate::llama_server::component;
use crate::namespace::Namespace;

/// An engine of the world: lists one model and answers every chat.
const ENGINE: &str = r#"
import http.server, json, sys
class Engine(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def tell(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.tell({"object": "list", "data": [{"id": "far-away", "object": "model", "owned_by": "world", "created": 1}]})
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.tell({"id": "c", "object": "chat.completion", "created": 1, "model": "far-away", "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "from afar"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}})
http.server.ThreadingHTTPServer(("10.88.0.1", 80), Engine).serve_forever()
"#;

/// Asks a proxy inside a namespace.
const CLIENT: &str = r#"
import json, sys, urllib.request, urllib.error
url, key, model = sys.argv[1:]
body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hi"}]}).encode()
request = urllib.request.Request(url + "/v1/chat/completions", body,
    {"authorization": "Bearer " + key, "content-type": "application/json"})
try:
    answer = urllib.request.urlopen(request, timeout=60)
    print(json.dumps({"status": answer.status, "body": json.load(answer)}))
except urllib.error.HTTPError as error:
    print(json.dumps({"status": error.code, "body": json.load(error)}))
"#;

fn python() -> String {
    component("python/bin/python").to_string_lossy().into_owned()
}

#[track_caller]
fn flm_inside(namespace: &Namespace, home: &Home, arguments: &[&str], variables: &[(&str, &str)]) -> (bool, Value) {
    let mut command: Command = home.flm(arguments);
    command.args(["--format", "json"]).envs(variables.iter().copied());
    let output = namespace.inside(&command).output().expect("runs flm");
    let text = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
    let text = String::from_utf8_lossy(text);
    let answer = serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error} in {text:?}"));
    (output.status.success(), answer)
}

fn ask(namespace: &Namespace, home: &Home, key: &str, model: &str) -> Value {
    let port = home.proxy_port().expect("a listener");
    let url = format!("http://127.0.0.1:{port}");
    let said = namespace.run(&python(), &["-c", CLIENT, &url, key, model]);
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error} in {said:?}"))
}

/// What the rules of the near namespace counted: packets that wanted to leave it past the proxy.
fn strays(near: &Namespace) -> u64 {
    let rules: Value =
        serde_json::from_str(&near.run("nft", &["-j", "list", "counter", "inet", "watch", "strays"])).expect("JSON");
    let counter = rules["nftables"].as_array().expect("a list").iter().find_map(|item| item.get("counter"));
    counter.expect("the counter")["packets"].as_u64().expect("a number")
}

#[test]
#[ignore = "needs root, iproute2, nftables, microsocks and Python: run scripts/install-test-components.sh"]
fn everything_leaves_through_the_socks_port_and_nothing_else_even_when_it_is_gone() {
    let (near, mut far) = Namespace::joined();
    far.run("ip", &["address", "add", "10.88.0.1/32", "dev", "lo"]);
    // The world's own names: only the proxy knows them.
    let names = format!("/etc/netns/{}", far.name);
    std::fs::create_dir_all(&names).expect("a folder");
    std::fs::write(format!("{names}/hosts"), "10.88.0.1 engine.test\n").expect("writes");
    let near_names = format!("/etc/netns/{}", near.name);
    std::fs::create_dir_all(&near_names).expect("a folder");
    std::fs::write(format!("{near_names}/resolv.conf"), "nameserver 10.77.0.2\n").expect("writes");
    near.run("ip", &["route", "add", "default", "via", "10.77.0.2"]);
    near.run(
        "nft",
        &["add table inet watch; add counter inet watch strays; \
           add chain inet watch out { type filter hook output priority 0; policy accept; }; \
           add rule inet watch out oif lo accept; \
           add rule inet watch out ip daddr 10.77.0.2 tcp dport 1080 accept; \
           add rule inet watch out meta l4proto { tcp, udp } counter name strays drop"],
    );
    // The watch itself works: something that does stray is counted, once.
    let stray = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('10.88.0.1', 53))";
    let _not_permitted = near.inside(Command::new(python()).args(["-c", stray])).output();
    assert_eq!(strays(&near), 1, "the watch counts");
    far.start("microsocks", &["-i", "10.77.0.2", "-p", "1080", "-u", "ada", "-P", "lovelace"]);
    far.start(&python(), &["-c", ENGINE]);

    let home = Home::new();
    let start = [
        "proxy",
        "start",
        "--port",
        "0",
        "--egress-mode",
        "socks5",
        "--socks5-endpoint",
        "10.77.0.2:1080",
        "--socks5-user",
        "ada",
        "--socks5-password-env",
        "SOCKS_PASSWORD",
    ];
    let (started, wrong) = flm_inside(&near, &home, &start, &[("SOCKS_PASSWORD", "byron")]);
    assert!(!started && wrong.to_string().contains("refused user and password"), "{wrong}");
    assert!(!wrong.to_string().contains("byron"), "{wrong}");
    wait_until("microsocks listens and lets FLM in", PATIENCE, || {
        flm_inside(&near, &home, &start, &[("SOCKS_PASSWORD", "lovelace")]).0
    });
    let status = home.answer(&["proxy", "status"]);
    assert_eq!(status["egress"]["state"], "reached", "{status:#}");
    home.answer(&["engines", "add", "--kind", "openai", "--id", "far", "--url", "http://engine.test"]);
    let key = home.create_key("e2e");
    wait_until("the engine elsewhere answers", PATIENCE, || ask(&near, &home, &key, "far-away")["status"] == 200);
    let answer = ask(&near, &home, &key, "far-away");
    assert_eq!(answer["body"]["choices"][0]["message"]["content"], "from afar", "{answer:#}");
    assert!(home.answer(&["proxy", "status"])["egress"]["ready"].is_number());
    assert_eq!(strays(&near), 1, "packets left past the proxy");

    // The proxy goes away: requests fail, and still nothing goes past it.
    drop(far);
    let began = Instant::now();
    let answer = ask(&near, &home, &key, "far-away");
    assert!(answer["status"].as_u64().is_some_and(|status| status >= 500), "{answer:#}");
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    wait_until("the outage is seen", PATIENCE, || {
        home.answer(&["proxy", "status"])["egress"]["state"] == "unreachable"
    });
    wait_until("the outage is recorded", PATIENCE, || {
        home.answer(&["security", "audit-logs", "list"]).to_string().contains("tor_unreachable")
    });
    assert_eq!(strays(&near), 1, "packets left past the proxy while it was away");
    drop(home);
    for names in [names, near_names] {
        std::fs::remove_dir_all(names).expect("removes");
    }
}

#[test]
#[ignore = "needs root, iproute2 and tor: run scripts/install-test-components.sh"]
fn an_open_port_of_tor_is_negotiated_with_and_not_called_ready() {
    // Nothing but loopback: tor has nobody to dial.
    let mut alone = Namespace::new("tor");
    let data = tempfile::tempdir().expect("a folder");
    // tor reads a file or nothing at all; this one is empty.
    let torrc = data.path().join("torrc");
    std::fs::write(&torrc, "").expect("writes");
    let (torrc, data) = (torrc.to_str().expect("UTF-8"), data.path().to_str().expect("UTF-8"));
    alone.start("tor", &["-f", torrc, "--SocksPort", "127.0.0.1:9050", "--DataDirectory", data]);
    let home = Home::new();
    wait_until("tor's port is open and FLM starts", PATIENCE, || {
        flm_inside(&alone, &home, &["proxy", "start", "--port", "0", "--egress-mode", "tor"], &[]).0
    });
    let egress = home.answer(&["proxy", "status"])["egress"].clone();
    assert_eq!((&egress["mode"], &egress["state"]), (&Value::from("tor"), &Value::from("reached")), "{egress:#}");
    assert!(egress["ready"].is_null(), "{egress:#}");
    let began = Instant::now();
    home.answer(&["engines", "add", "--kind", "openai", "--id", "far", "--url", "http://engine.test"]);
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    wait_until("the check through tor was given up", Duration::from_secs(40), || {
        home.answer(&["proxy", "status"])["egress"]["last_error"].is_string()
    });
    let egress = home.answer(&["proxy", "status"])["egress"].clone();
    assert!(egress["ready"].is_null() && egress["state"] == "reached", "an open port is not a ready Tor: {egress:#}");
}
