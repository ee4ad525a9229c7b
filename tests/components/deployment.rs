//! What stands in front of FLM: nginx and Caddy, with the very blocks of docs/deployment.md.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::home::{PATIENCE, wait_until};
use crate::stream::ChatStream;
use crate::{LONG_MODEL, Stage, documents, free_port};

const THIS: &str = "tests/components/deployment.rs";
const RECIPES: &str = "docs/deployment.md";

/// A server with the recipe, once with TLS and once without; ended on drop.
struct Front {
    child: Child,
    _folder: TempDir,
    tls: u16,
    plain: u16,
}

impl Front {
    fn nginx(flm: &str) -> Self {
        let recipe = documents::run_by(THIS, RECIPES, "listen 443 ssl");
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
        let (chain, key) = (path("chain.pem"), path("key.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=llm.example.org", "-addext", "subjectAltName=DNS:llm.example.org"])
            .args(["-keyout", &key, "-out", &chain])
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("openssl: run scripts/install-test-components.sh").success());
        let (tls, plain) = (free_port(), free_port());
        let ports = |listen: &str| {
            recipe
                .replace("listen 443 ssl", listen)
                .replace("http://127.0.0.1:8484", flm)
                .replace("/etc/letsencrypt/live/llm.example.org/fullchain.pem", &chain)
                .replace("/etc/letsencrypt/live/llm.example.org/privkey.pem", &key)
        };
        let config = format!(
            "daemon off;\nworker_processes 1;\npid {pid};\nerror_log {log} info;\nevents {{}}\nhttp {{\naccess_log off;\n\
             client_body_temp_path {temp};\nproxy_temp_path {temp};\nfastcgi_temp_path {temp};\nuwsgi_temp_path {temp};\n\
             scgi_temp_path {temp};\n{}\n{}\n}}\n",
            ports(&format!("listen 127.0.0.1:{tls} ssl")),
            ports(&format!("listen 127.0.0.1:{plain}")),
            pid = path("nginx.pid"),
            log = path("error.log"),
            temp = path("temp"),
        );
        let file = path("nginx.conf");
        std::fs::write(&file, config).expect("writes");
        let program =
            ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| std::path::Path::new(path).exists());
        let child = Command::new(program.expect("nginx is missing: run scripts/install-test-components.sh"))
            .args(["-c", &file, "-p", folder.path().to_str().expect("UTF-8"), "-e", &path("error.log")])
            .stdout(Stdio::null())
            .spawn()
            .expect("starts nginx");
        Self { child, _folder: folder, tls, plain }.ready()
    }

    /// With a certificate of its own authority, since nobody in the world vouches for the name.
    fn caddy(flm: &str) -> Self {
        let recipe = documents::run_by(THIS, RECIPES, "reverse_proxy");
        let folder = tempfile::tempdir().expect("a folder");
        let (tls, plain) = (free_port(), free_port());
        let site = |name: &str| {
            let changed =
                recipe.replace("llm.example.org {", name).replace("127.0.0.1:8484", flm.trim_start_matches("http://"));
            assert!(changed != recipe && changed.contains(name), "{recipe}");
            changed
        };
        let config = format!(
            "{{\nadmin off\nauto_https disable_redirects\nskip_install_trust\nhttp_port {plain}\nhttps_port {tls}\n\
             default_bind 127.0.0.1\nstorage file_system {}\n}}\n{}\n{}\n",
            folder.path().join("storage").display(),
            site(&format!("https://llm.example.org:{tls} {{\ntls internal")),
            site(&format!("http://:{plain} {{")),
        );
        let file = folder.path().join("Caddyfile");
        std::fs::write(&file, config).expect("writes");
        let child = Command::new("/usr/bin/caddy")
            .args(["run", "--adapter", "caddyfile", "--config", file.to_str().expect("UTF-8")])
            .env("HOME", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("caddy is missing: run scripts/install-test-components.sh");
        Self { child, _folder: folder, tls, plain }.ready()
    }

    fn ready(self) -> Self {
        for port in [self.plain, self.tls] {
            wait_until("the server in front listens", PATIENCE, || {
                TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
            });
        }
        self
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // Workers end with their master's last words, not with SIGKILL.
        let _told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ended = self.child.wait();
    }
}

/// GET /v1/models from an address of loopback that is not 127.0.0.1, with more headers; answers the status.
fn models_from(port: u16, from: Ipv4Addr, key: &str, headers: &str) -> u16 {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("binds");
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("connects");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("sets a bound");
    write!(
        stream,
        "GET /v1/models HTTP/1.1\r\nHost: llm.example.org\r\nUser-Agent: OpenAI/Python\r\nAuthorization: Bearer {key}\r\n\
         {headers}Connection: close\r\n\r\n"
    )
    .expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}

#[test]
#[ignore = "needs nginx, caddy, openssl, curl and llama.cpp: run scripts/install-test-components.sh"]
fn behind_nginx_and_caddy_clients_are_told_apart_streams_come_unbuffered_and_leaving_ends_the_work() {
    let stage = Stage::new(LONG_MODEL);
    stage.home.answer(&["config", "set", "trusted_proxies", "127.0.0.1"]);
    stage.home.answer(&["config", "set", "proxy.allowed_hosts", "llm.example.org"]);
    behind(&stage, &Front::nginx(&stage.url), Ipv4Addr::new(127, 0, 0, 9));
    behind(&stage, &Front::caddy(&stage.url), Ipv4Addr::new(127, 0, 0, 10));
}

fn behind(stage: &Stage, front: &Front, somebody: Ipv4Addr) {
    // TLS ends at the server in front.
    let port = front.tls.to_string();
    let fetch = || {
        Command::new("/usr/bin/curl")
            .args(["--silent", "--show-error", "--insecure", "--noproxy", "*", "--user-agent", "OpenAI/Python"])
            .args(["--resolve", &format!("llm.example.org:{port}:127.0.0.1")])
            .args(["--header", &format!("Authorization: Bearer {}", stage.key)])
            .arg(format!("https://llm.example.org:{port}/v1/models"))
            .output()
            .expect("runs curl")
    };
    // Caddy makes its certificate after it began to listen.
    wait_until("a client is served over TLS", PATIENCE, || {
        String::from_utf8_lossy(&fetch().stdout).contains(LONG_MODEL)
    });

    // The client's address is told, and what a client claims to be is not believed.
    assert_eq!(models_from(front.plain, somebody, &stage.key, ""), 200);
    let wrong = |number: u32| format!("flm_{number:08}_{}", "x".repeat(49));
    for number in 0..5 {
        assert_eq!(models_from(front.plain, somebody, &wrong(number), "X-Forwarded-For: 203.0.113.7\r\n"), 401);
    }
    let of = somebody.to_string();
    let failed = ["security", "audit-logs", "list", "--type", "authentication_failed"];
    // Rows are written in batches.
    wait_until("the failures are in the audit log", PATIENCE, || {
        let audit: Value = stage.home.answer(&[&failed[..], &["--ip", &of]].concat());
        audit.as_array().is_some_and(|rows| !rows.is_empty())
    });
    let everybody = stage.home.answer(&failed).to_string();
    assert!(!everybody.contains("203.0.113.7") && !everybody.contains("\"127.0.0.1\""), "{everybody}");
    // FLM never takes itself for exposed to nobody when somebody stands in front.
    assert_eq!(stage.home.answer(&["proxy", "status"])["exposure"], "public");

    // Events come one by one although the answer goes on for minutes, and the engine stops when the client leaves.
    let mut stream = ChatStream::open(&format!("http://127.0.0.1:{}", front.plain), &stage.key, LONG_MODEL, 100_000);
    for _ in 0..5 {
        stream.next_event().expect("a chunk");
    }
    assert_eq!(stage.chat.busy_slots(), 1, "the engine works while the client reads");
    drop(stream);
    wait_until("the engine works on nothing", Duration::from_secs(5), || stage.chat.busy_slots() == 0);
}
