//! The way out with real proxies, in network namespaces: microsocks in front of a world that is reachable through it alone,
//! and tor where there is no world at all.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::home::{Home, PATIENCE, wait_until};
use crate::llama_server::component;
use crate::namespace::Namespace;

/// An engine of the world: lists one model and answers every chat.
const ENGINE: &str = r#"
import http.server, json, socketserver, sys
class Server(http.server.ThreadingHTTPServer):
    def server_bind(self):
        # Without asking a name server who this machine is.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "engine", 80
class Engine(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    traced = []
    def tell(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        name = "seen-" + self.client_address[0] if len(sys.argv) > 2 else "far-away"
        models = [{"id": one, "object": "model", "owned_by": "world", "created": 1} for one in [name] + Engine.traced]
        self.tell({"object": "list", "data": models})
    def do_POST(self):
        asked = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/v1/traces":
            Engine.traced = ["traced-" + self.client_address[0]]
        said = "a picture" if b"data:image/png;base64," in asked and b"93.184.216.34" not in asked else "from afar"
        self.tell({"id": "c", "object": "chat.completion", "created": 1, "model": "far-away", "choices": [
            {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}})
Server((sys.argv[1], 80), Engine).serve_forever()
"#;

/// A host of pictures in the world: at an address that is public, in a namespace that holds nothing of the public.
const PICTURES: &str = r#"
import base64, http.server
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
class Pictures(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "image/png")
        self.send_header("content-length", str(len(PNG)))
        self.end_headers()
        self.wfile.write(PNG)
http.server.ThreadingHTTPServer(("93.184.216.34", 80), Pictures).serve_forever()
"#;

/// Asks a proxy inside a namespace, with a picture where one is named.
const CLIENT: &str = r#"
import json, sys, urllib.request, urllib.error
url, key, model = sys.argv[1:4]
content = "Hi"
if len(sys.argv) > 4:
    content = [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": sys.argv[4]}}]
body = json.dumps({"model": model, "messages": [{"role": "user", "content": content}]}).encode()
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
pub(crate) fn flm_inside(
    namespace: &Namespace,
    home: &Home,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> (bool, Value) {
    let mut command: Command = home.flm(arguments);
    command.args(["--format", "json"]).envs(variables.iter().copied());
    let output = namespace.inside(&command).output().expect("runs flm");
    let text = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
    let text = String::from_utf8_lossy(text);
    // What takes long also tells how far it is, a line each.
    let last = text.trim().lines().last().unwrap_or_default();
    let answer = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error} in {text:?}"));
    (output.status.success(), answer)
}

fn ask(namespace: &Namespace, home: &Home, key: &str, picture: Option<&str>) -> Value {
    let port = home.proxy_port().expect("a listener");
    let url = format!("http://127.0.0.1:{port}");
    let words = ["-c", CLIENT, &url, key, "far-away"];
    let said = namespace.run(&python(), &[&words[..], picture.as_slice()].concat());
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error} in {said:?}"))
}

/// What the rules of the near namespace counted under a name.
fn counted(near: &Namespace, name: &str) -> u64 {
    let rules: Value =
        serde_json::from_str(&near.run("nft", &["-j", "list", "counter", "inet", "watch", name])).expect("JSON");
    let counter = rules["nftables"].as_array().expect("a list").iter().find_map(|item| item.get("counter"));
    counter.expect("the counter")["packets"].as_u64().expect("a number")
}

/// Packets that wanted to leave it past the proxy.
pub(crate) fn strays(near: &Namespace) -> u64 {
    counted(near, "strays")
}

/// Connections to the proxy's port that were begun.
fn dials(near: &Namespace) -> u64 {
    counted(near, "dials")
}

/// Drops and counts what wants to leave a namespace past the SOCKS port, and counts one stray of its own.
pub(crate) fn watch(near: &Namespace) {
    // Whatever its protocol; only what kernels tell their neighbours by themselves (MLD, neighbour discovery) is no
    // packet of a program.
    near.run(
        "nft",
        &["add table inet watch; add counter inet watch strays; add counter inet watch dials; \
           add chain inet watch out { type filter hook output priority 0; policy accept; }; \
           add rule inet watch out oif lo accept; \
           add rule inet watch out ip daddr 10.77.0.2 tcp dport 1080 tcp flags & (syn | ack) == syn counter name dials accept; \
           add rule inet watch out ip daddr 10.77.0.2 tcp dport 1080 accept; \
           add rule inet watch out meta l4proto ipv6-icmp icmpv6 type { mld2-listener-report, nd-neighbor-solicit, \
             nd-router-solicit, nd-neighbor-advert } accept; \
           add rule inet watch out counter name strays drop"],
    );
    // The watch itself works: something that does stray is counted, once.
    let stray = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('10.88.0.1', 53))";
    let _not_permitted = near.inside(Command::new(python()).args(["-c", stray])).output();
    assert_eq!(strays(near), 1, "the watch counts");
}

/// A machine from which only a SOCKS port is reachable, a world behind that, and FLM on the machine.
struct World {
    near: Namespace,
    far: Option<Namespace>,
    home: Home,
    key: String,
    names: [String; 2],
}

impl World {
    fn new() -> Self {
        let (near, mut far) = Namespace::joined();
        for address in ["10.88.0.1/32", "93.184.216.34/32"] {
            far.run("ip", &["address", "add", address, "dev", "lo"]);
        }
        let folders = [&far, &near].map(|namespace| format!("/etc/netns/{}", namespace.name));
        for folder in &folders {
            std::fs::create_dir_all(folder).expect("a folder");
        }
        // The world's own names: only the proxy knows them.
        std::fs::write(format!("{}/hosts", folders[0]), "10.88.0.1 engine.test\n93.184.216.34 pictures.test\n")
            .expect("writes");
        std::fs::write(format!("{}/resolv.conf", folders[1]), "nameserver 10.77.0.2\n").expect("writes");
        near.run("ip", &["route", "add", "default", "via", "10.77.0.2"]);
        watch(&near);
        far.start("microsocks", &["-i", "10.77.0.2", "-p", "1080", "-u", "ada", "-P", "lovelace"]);
        far.start(&python(), &["-c", ENGINE, "10.88.0.1"]);
        far.start(&python(), &["-c", PICTURES]);

        let home = Home::new();
        home.answer(&["config", "set", "media.fetch_remote", "true"]);
        let start: Vec<_> =
            "proxy start --port 0 --egress-mode socks5 --socks5-endpoint 10.77.0.2:1080 --socks5-user ada \
            --socks5-password-env SOCKS_PASSWORD"
                .split_ascii_whitespace()
                .collect();
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
        let world = Self { near, far: Some(far), home, key, names: folders };
        wait_until("the engine elsewhere answers", PATIENCE, || world.ask(None)["status"] == 200);
        world
    }

    fn ask(&self, picture: Option<&str>) -> Value {
        ask(&self.near, &self.home, &self.key, picture)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for names in &self.names {
            let _gone = std::fs::remove_dir_all(names);
        }
    }
}

#[test]
#[ignore = "needs root, iproute2, nftables, microsocks and Python: run scripts/install-test-components.sh"]
fn every_kind_of_connection_goes_through_the_socks_port_and_nothing_else_leaves() {
    let mut world = World::new();
    // Asking an engine, in a connection that is kept.
    let answer = world.ask(None);
    assert_eq!(answer["body"]["choices"][0]["message"]["content"], "from afar", "{answer:#}");
    // Looking at its health and models.
    let before = dials(&world.near);
    world.home.answer(&["engines", "add", "--kind", "openai", "--id", "again", "--url", "http://10.88.0.1"]);
    let health = world.home.answer(&["engines", "health", "again"]).to_string();
    assert!(dials(&world.near) > before, "a connection of its own: {health}");
    // Fetching a picture that a request names by its address.
    let before = dials(&world.near);
    let answer = world.ask(Some("http://93.184.216.34/a.png"));
    assert_eq!(answer["body"]["choices"][0]["message"]["content"], "a picture", "{answer:#}");
    assert!(dials(&world.near) > before, "the picture came through the proxy");
    // By a name it is refused without a look-up: who resolves it could lead anywhere.
    let refused = world.ask(Some("http://pictures.test/a.png"));
    assert_eq!(refused["status"], 400, "{refused:#}");
    assert!(refused.to_string().contains("send the image inline"), "{refused:#}");
    // Telling somebody elsewhere of an event, by name.
    let webhook = ["alerts", "add", "webhook", "--id", "hook", "--private", "--url", "http://engine.test/hook"];
    let ntfy =
        ["alerts", "add", "ntfy", "--id", "push", "--private", "--topic", "flm-test", "--server", "http://engine.test"];
    for (id, add) in [("hook", &webhook[..]), ("push", &ntfy)] {
        let before = dials(&world.near);
        world.home.answer(add);
        let told = world.home.answer(&["alerts", "test", id]);
        assert!(dials(&world.near) > before, "{id}: {told:#}");
    }
    // Traces of requests, by name: the collector lists whom it saw.
    world.home.answer(&["config", "set", "traces.endpoint", "http://engine.test"]);
    world.ask(None);
    wait_until("the request was traced", PATIENCE, || {
        world.home.answer(&["models", "refresh"]).to_string().contains("traced-")
    });
    // An engine that nobody knows, and one whose port is closed.
    for (id, url) in [("nowhere", "http://nowhere.test"), ("closed", "http://10.88.0.1:81")] {
        world.home.answer(&["engines", "add", "--kind", "openai", "--id", id, "--url", url]);
    }
    wait_until("both were looked for", PATIENCE, || {
        let engines = world.home.answer(&["engines", "list"]);
        let state = |id: &str| {
            let engines = engines.as_array().expect("a list");
            engines.iter().find(|engine| engine["record"]["id"] == id).map(|engine| engine["state"].to_string())
        };
        ["nowhere", "closed"].iter().all(|id| state(id).is_some_and(|state| !state.contains("unchecked")))
    });
    // One at a private address goes through the proxy as well, unless it is said to be reached straight. The engine tells whom
    // it sees, and what it says goes back to the proxy.
    world.near.run("nft", &["insert rule inet watch out ip daddr 10.77.0.2 tcp sport 80 accept"]);
    world.near.start(&python(), &["-c", ENGINE, "10.77.0.1", "tells"]);
    let reached = "import socket; socket.create_connection(('10.77.0.1', 80), timeout=2)";
    wait_until("the engine on the machine is up", PATIENCE, || {
        let mut command = Command::new(python());
        command.args(["-c", reached]);
        world.near.inside(&command).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    });
    for (id, more, seen) in [("by-proxy", None, "seen-10.77.0.2"), ("straight", Some("--direct"), "seen-10.77.0.1")] {
        let add = ["engines", "add", "--kind", "openai", "--id", id, "--url", "http://10.77.0.1"];
        world.home.answer(&[&add[..], more.as_slice()].concat());
        wait_until(seen, PATIENCE, || world.home.answer(&["models", "list"]).to_string().contains(seen));
        world.home.answer(&["engines", "remove", id]);
    }
    assert_eq!(strays(&world.near), 1, "packets left past the proxy");
}

/// Case 38.
#[test]
#[ignore = "needs root, iproute2, nftables, microsocks and Python: run scripts/install-test-components.sh"]
fn everything_leaves_through_the_socks_port_and_nothing_else_even_when_it_is_gone() {
    let mut world = World::new();
    let answer = world.ask(None);
    assert_eq!(answer["body"]["choices"][0]["message"]["content"], "from afar", "{answer:#}");
    assert!(world.home.answer(&["proxy", "status"])["egress"]["ready"].is_number());
    assert_eq!(strays(&world.near), 1, "packets left past the proxy");

    // The proxy goes away: requests fail, and still nothing goes past it.
    drop(world.far.take());
    let began = Instant::now();
    let answer = world.ask(None);
    assert!(answer["status"].as_u64().is_some_and(|status| status >= 500), "{answer:#}");
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    wait_until("the outage is seen", PATIENCE, || {
        world.home.answer(&["proxy", "status"])["egress"]["state"] == "unreachable"
    });
    wait_until("the outage is recorded", PATIENCE, || {
        world.home.answer(&["security", "audit-logs", "list"]).to_string().contains("tor_unreachable")
    });
    assert_eq!(strays(&world.near), 1, "packets left past the proxy while it was away");
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
