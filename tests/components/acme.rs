//! Mode `https-acme` against Pebble, the directory that the makers of Let's Encrypt test clients with, and BIND as the name
//! server that takes signed changes. Everything on loopback.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::egress::{flm_inside, strays, watch};
use crate::free_port;
use crate::home::{Home, PATIENCE, wait_until};
use crate::llama_server::components;
use crate::namespace::Namespace;

const DOMAIN: &str = "llm.flm.test";
const MISSING: &str = "is missing: run scripts/install-test-components.sh";

/// A program that ends with the test.
struct Running(Child);

impl Running {
    #[track_caller]
    fn start(command: &mut Command, port: u16) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let running = Self(child.unwrap_or_else(|error| panic!("{name} {MISSING} ({error})")));
        wait_until(&format!("{name} answers on port {port}"), PATIENCE, || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Pebble's name server, which answers no challenge itself and tells IPv4 addresses alone.
const CHALLTESTSRV: (&str, [&str; 8]) =
    ("pebble-challtestsrv", ["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);

/// How Pebble is started.
#[derive(Default)]
struct Options<'a> {
    environment: &'a [(&'a str, &'a str)],
    /// Of the name server that it asks; challtestsrv when there is none.
    name_server: Option<u16>,
    /// Key id and HMAC key of the one external account that it knows and wants.
    binding: Option<(&'a str, &'a str)>,
    program: Pebble,
}

/// Which Pebble.
#[derive(Default, Clone, Copy)]
enum Pebble {
    /// The system's own.
    #[default]
    Packaged,
    /// A later one, which gives advice on renewal (RFC 9773).
    Advising,
}

/// A home whose settings lead to a Pebble that calls its plain port.
struct Stage {
    home: Home,
    program: Pebble,
    pebble: Option<Running>,
    _names: Option<Running>,
    config: String,
    environment: Vec<(String, String)>,
    dns: u16,
    /// Where names are set, in challtestsrv.
    management: u16,
    directory_port: u16,
    roots_port: u16,
    plain: u16,
    secure: u16,
}

impl Stage {
    #[track_caller]
    fn new(options: &Options<'_>) -> Self {
        let home = Home::new();
        let path = |name: &str| home.path().join(name).to_str().expect("text").to_owned();
        let (authority, leaf, key) = certificate("localhost");
        std::fs::write(path("pebble-ca.pem"), authority).expect("writes");
        std::fs::write(path("pebble.pem"), leaf).expect("writes");
        std::fs::write(path("pebble.key"), key).expect("writes");
        let [directory_port, roots_port, plain, secure, management, tls_alpn] = [(); 6].map(|()| free_port());
        let mut config = json!({
            "listenAddress": format!("127.0.0.1:{directory_port}"),
            "managementListenAddress": format!("127.0.0.1:{roots_port}"),
            "certificate": path("pebble.pem"),
            "privateKey": path("pebble.key"),
            "httpPort": plain,
            "tlsPort": tls_alpn,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": options.binding.is_some(),
        });
        if let Some((id, key)) = options.binding {
            config["externalAccountMACKeys"] = json!({ id: key });
        }
        std::fs::write(path("pebble.json"), json!({ "pebble": config }).to_string()).expect("writes");
        let dns = options.name_server.unwrap_or_else(free_port);
        let names = options.name_server.is_none().then(|| {
            let mut command = Command::new(CHALLTESTSRV.0);
            command.args(CHALLTESTSRV.1).args(["-defaultIPv4", "127.0.0.1"]);
            command.args(["-dns01", &format!("127.0.0.1:{dns}"), "-management", &format!("127.0.0.1:{management}")]);
            Running::start(&mut command, management)
        });
        let mut environment =
            vec![("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_AUTHZREUSE", "0"), ("PEBBLE_WFE_NONCEREJECT", "0")];
        environment.extend(options.environment);
        let config = path("pebble.json");
        let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let ca = path("pebble-ca.pem");
        let mut stage = Self {
            home,
            program: options.program,
            pebble: None,
            _names: names,
            config,
            environment,
            dns,
            management,
            directory_port,
            roots_port,
            plain,
            secure,
        };
        stage.start_pebble();
        stage.set("acme.directory", &format!("https://localhost:{directory_port}/dir"));
        stage.set("acme.ca_file", &ca);
        stage
    }

    /// Its memory is its own: a new one knows no accounts.
    fn start_pebble(&mut self) {
        self.pebble = None;
        let mut command = Command::new(match self.program {
            Pebble::Packaged => "pebble".into(),
            Pebble::Advising => components().join("pebble/usr/bin/pebble"),
        });
        command.args(["-config", &self.config, "-dnsserver", &format!("127.0.0.1:{}", self.dns)]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.pebble = Some(Running::start(&mut command, self.directory_port));
    }

    fn set(&self, key: &str, value: &str) {
        self.home.answer(&["config", "set", key, value]);
    }

    fn start(&self, domains: &[&str], more: &[&str]) -> Output {
        let (plain, secure) = (self.plain.to_string(), self.secure.to_string());
        let mut words = vec!["proxy", "start", "--mode", "https-acme", "--bind", "127.0.0.1", "--acme-agree-tos"];
        words.extend(["--port", &plain, "--https-port", &secure, "--acme-email", "ops@flm.test", "--format", "text"]);
        words.extend(domains.iter().flat_map(|domain| ["--acme-domain", domain]));
        words.extend(more);
        self.home.flm(&words).output().expect("runs flm")
    }

    #[track_caller]
    fn starts(&self, domains: &[&str], more: &[&str]) {
        let output = self.start(domains, more);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{out}{err}");
    }

    fn listener(&self) -> Value {
        self.home.answer(&["proxy", "status"])["listeners"][0].clone()
    }

    fn fingerprint(&self) -> String {
        self.listener()["tls"]["certificate"]["fingerprint"].as_str().expect("a fingerprint").to_owned()
    }

    #[track_caller]
    fn renew(&self) {
        let renewed =
            self.home.flm(&["security", "certificate", "renew", "--format", "text"]).output().expect("runs flm");
        assert!(renewed.status.success(), "{}", String::from_utf8_lossy(&renewed.stderr));
    }

    /// What curl says to the endpoint under a name, trusting nobody but Pebble's root.
    #[track_caller]
    fn curl(&self, name: &str) -> String {
        let path = |name: &str| self.home.path().join(name).to_str().expect("text").to_owned();
        let roots = format!("https://localhost:{}/roots/0", self.roots_port);
        let root = curl(&["--cacert", &path("pebble-ca.pem"), &roots]);
        std::fs::write(path("root.pem"), &root).expect("writes");
        let to = format!("{name}:{}:127.0.0.1", self.secure);
        let url = format!("https://{name}:{}/health", self.secure);
        String::from_utf8(curl(&["--cacert", &path("root.pem"), "--resolve", &to, &url])).expect("text")
    }
}

#[track_caller]
fn curl(words: &[&str]) -> Vec<u8> {
    let mut command = Command::new("/usr/bin/curl");
    command.args(["--silent", "--show-error", "--fail", "--noproxy", "*"]).args(words);
    let output = command.output().unwrap_or_else(|error| panic!("curl {MISSING} ({error})"));
    assert!(output.status.success(), "curl {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// For Pebble's own door: root, leaf and key, as PEM.
fn certificate(name: &str) -> (String, String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("params");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "root of the tests");
    let root = params.self_signed(&key).expect("a root").pem();
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("params");
    // Of the same name as its issuer it would count as self-signed.
    params.distinguished_name.push(rcgen::DnType::CommonName, "pebble");
    let leaf = params.signed_by(&key, &issuer).expect("a leaf").pem();
    (root, leaf, key.serialize_pem())
}

fn private(path: &Path, content: &str, mode: u32) {
    let mut file = std::fs::File::create(path).expect("makes");
    file.set_permissions(std::fs::Permissions::from_mode(mode)).expect("sets the mode");
    file.write_all(content.as_bytes()).expect("writes");
}

/// Case 33.
#[test]
#[ignore = "needs pebble and curl: run scripts/install-test-components.sh"]
fn http_01_gets_a_certificate_that_curl_trusts_although_every_fifth_nonce_is_refused() {
    let stage = Stage::new(&Options { environment: &[("PEBBLE_WFE_NONCEREJECT", "20")], ..Options::default() });
    stage.starts(&[DOMAIN, "api.flm.test"], &[]);
    assert_eq!(stage.curl(DOMAIN), stage.curl("api.flm.test"));
    let first = stage.fingerprint();
    stage.renew();
    assert_ne!(stage.fingerprint(), first);
    assert!(!stage.curl(DOMAIN).is_empty());
}

#[test]
#[ignore = "needs pebble and curl: run scripts/install-test-components.sh"]
fn an_account_that_went_with_its_directory_is_made_anew() {
    let mut stage = Stage::new(&Options::default());
    stage.starts(&[DOMAIN], &[]);
    let first = stage.fingerprint();
    stage.start_pebble();
    stage.renew();
    assert_ne!(stage.fingerprint(), first);
    assert!(!stage.curl(DOMAIN).is_empty(), "the new root signed it");
}

/// RFC 9773, at a directory that checks what a new certificate is said to replace.
#[test]
#[ignore = "needs pebble and curl: run scripts/install-test-components.sh"]
fn the_directorys_advice_on_renewal_is_followed_and_the_replacement_taken() {
    let stage = Stage::new(&Options { program: Pebble::Advising, ..Options::default() });
    stage.starts(&[DOMAIN], &[]);
    let first = stage.fingerprint();
    stage.curl(DOMAIN);
    let path = |name: &str| stage.home.path().join(name).to_str().expect("text").to_owned();
    let (ca, root) = (path("pebble-ca.pem"), path("root.pem"));
    let (to, url) =
        (format!("{DOMAIN}:{}:127.0.0.1", stage.secure), format!("https://{DOMAIN}:{}/health", stage.secure));
    let served = curl(&["--cacert", &root, "--resolve", &to, "--output", "/dev/null", "--write-out", "%{certs}", &url]);

    // Two days ago it ought to have gone.
    let days_ago = |days: i64| (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days)).to_string();
    let advice = json!({ "suggestedWindow": { "start": days_ago(3), "end": days_ago(2) } }).to_string();
    let order = json!({ "certificate": String::from_utf8_lossy(&served), "ariResponse": advice }).to_string();
    let management = format!("https://localhost:{}/set-renewal-info/", stage.roots_port);
    curl(&["--cacert", &ca, "--data", &order, &management]);
    // It is asked once a minute in passing. A certificate that the new one cannot replace would have been told.
    wait_until("it is renewed in passing", 3 * PATIENCE, || stage.fingerprint() != first);
    assert_eq!(stage.listener()["tls"]["last_error"], Value::Null);
    assert!(!stage.curl(DOMAIN).is_empty());
}

/// Case 33.
#[test]
#[ignore = "needs pebble and curl: run scripts/install-test-components.sh"]
fn a_hook_proves_a_wildcard_by_dns() {
    let stage = Stage::new(&Options::default());
    let hook = stage.home.path().join("hook");
    let to = format!("http://127.0.0.1:{}", stage.management);
    let script = format!(
        "#!/bin/sh\nset -eu\ncase $1 in\n\
         present) curl -sf -d \"{{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}}\" {to}/set-txt ;;\n\
         cleanup) curl -sf -d \"{{\\\"host\\\":\\\"$2.\\\"}}\" {to}/clear-txt ;;\nesac\n"
    );
    private(&hook, &script, 0o700);
    stage.set("acme.challenge", "dns-01");
    stage.set("acme.dns.command", hook.to_str().expect("text"));
    stage.set("acme.dns.resolvers", &format!("127.0.0.1:{}", stage.dns));
    stage.starts(&["flm.test", "*.flm.test"], &[]);
    assert!(!stage.curl("anything.flm.test").is_empty());
    assert!(!stage.curl("flm.test").is_empty());
}

#[test]
#[ignore = "needs pebble, bind9 and curl: run scripts/install-test-components.sh"]
fn signed_changes_at_bind_prove_a_wildcard_and_leave_nothing_behind() {
    let folder = tempfile::Builder::new().prefix("flm-bind-").tempdir_in("/tmp").expect("a folder");
    let place = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let (port, secret) = (free_port(), "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMhISE=");
    let zone = "$TTL 60\n@ IN SOA ns.flm.test. ops.flm.test. 1 60 60 60 60\n@ IN NS ns.flm.test.\n* IN A 127.0.0.1\n@ IN A 127.0.0.1\n";
    private(Path::new(&place("flm.test.zone")), zone, 0o644);
    let config = format!(
        "options {{ directory \"{0}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no;\n\
         pid-file none; session-keyfile none; }};\ncontrols {{ }};\n\
         key \"flm-key\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n\
         zone \"flm.test\" {{ type primary; file \"{0}/flm.test.zone\"; update-policy {{ grant flm-key zonesub TXT; }}; }};\n",
        folder.path().display()
    );
    private(Path::new(&place("named.conf")), &config, 0o644);
    let _bind = Running::start(Command::new("/usr/sbin/named").args(["-g", "-c", &place("named.conf")]), port);

    let stage = Stage::new(&Options { name_server: Some(port), ..Options::default() });
    let secret_file = stage.home.path().join("tsig");
    private(&secret_file, &format!("{secret}\n"), 0o600);
    let server = format!("127.0.0.1:{port}");
    for (key, value) in [
        ("acme.challenge", "dns-01"),
        ("acme.dns.provider", "rfc2136"),
        ("acme.dns.rfc2136_server", server.as_str()),
        ("acme.dns.resolvers", server.as_str()),
        ("acme.dns.user", "flm-key"),
        ("acme.dns.secret_file", secret_file.to_str().expect("text")),
    ] {
        stage.set(key, value);
    }
    stage.starts(&["flm.test", "*.flm.test"], &[]);
    assert!(!stage.curl("deep.flm.test").is_empty());
    // Asked for its records once more, the name server has none left.
    let names = flm::net::dns::DnsClient::new(flm::net::egress::Egress::direct());
    let asked = flm::net::dns::NameServer::parse(&server).expect("a server");
    let name = flm::net::dns::message::Name::parse("_acme-challenge.flm.test").expect("a name");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let left = runtime.block_on(names.texts(&asked, &name, flm::net::dns::message::Recursion::Unwanted));
    assert!(left.expect("answers").is_empty());

    // BIND says what it dislikes, and FLM says what to do.
    private(&secret_file, "b3RoZXI=\n", 0o600);
    let refused = stage.home.flm(&["security", "certificate", "renew", "--format", "text"]).output().expect("runs flm");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("BADSIG") && said.contains("acme.dns.user"), "{said}");
    stage.set("acme.dns.user", "another-key");
    let refused = stage.home.flm(&["security", "certificate", "renew", "--format", "text"]).output().expect("runs flm");
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("BADKEY"),
        "{}",
        String::from_utf8_lossy(&refused.stderr)
    );
}

#[test]
#[ignore = "needs pebble and curl: run scripts/install-test-components.sh"]
fn an_external_account_is_bound_and_a_wrong_one_told() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let stage = Stage::new(&Options { binding: Some(("kid-1", key)), ..Options::default() });
    let refused = stage.start(&[DOMAIN], &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("acme.eab.key_id"), "{said}");
    let file = stage.home.path().join("eab");
    private(&file, key, 0o600);
    stage.set("acme.eab.key_id", "kid-1");
    stage.set("acme.eab.hmac_file", file.to_str().expect("text"));
    stage.starts(&[DOMAIN], &[]);
    assert!(!stage.curl(DOMAIN).is_empty());
}

#[test]
#[ignore = "needs pebble and curl: run scripts/install-test-components.sh"]
fn a_port_that_the_directory_cannot_reach_is_told_in_its_words_and_a_lenient_one_does_not_look() {
    let reachable = |environment: &[(&str, &str)]| {
        let mut stage = Stage::new(&Options { environment, ..Options::default() });
        // Another port than the one that Pebble calls.
        stage.plain = free_port();
        let output = stage.start(&[DOMAIN], &[]);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (served, said) = reachable(&[]);
    assert!(!served && said.contains(DOMAIN) && said.contains("connection") && said.contains("port 80"), "{said}");
    let (served, said) = reachable(&[("PEBBLE_VA_ALWAYS_VALID", "1")]);
    assert!(served, "{said}");
}

/// Pebble's own door and the port that it calls, where it is behind a proxy.
const FAR_DIRECTORY: u16 = 14000;
const FAR_PLAIN: u16 = 5002;

#[test]
#[ignore = "needs root, pebble, iproute2, nftables and microsocks: run scripts/install-test-components.sh"]
fn behind_a_socks_proxy_the_directory_is_reached_by_its_name_and_nothing_goes_past_the_proxy() {
    let (near, mut far) = Namespace::joined();
    let folders = [&far, &near].map(|namespace| format!("/etc/netns/{}", namespace.name));
    for folder in &folders {
        std::fs::create_dir_all(folder).expect("a folder");
    }
    // Only the proxy knows who the directory is; the name server that this machine would ask counts as a stray.
    std::fs::write(format!("{}/hosts", folders[0]), "10.88.0.1 directory.test\n").expect("writes");
    std::fs::write(format!("{}/resolv.conf", folders[1]), "nameserver 10.77.0.2\n").expect("writes");
    far.run("ip", &["address", "add", "10.88.0.1/32", "dev", "lo"]);
    near.run("ip", &["route", "add", "default", "via", "10.77.0.2"]);
    watch(&near);
    // The directory calls the plain port; what goes back to it belongs to its own connection.
    near.run("nft", &["insert rule inet watch out ct direction reply tcp sport 5002 accept"]);

    let home = Home::new();
    let path = |name: &str| home.path().join(name).to_str().expect("text").to_owned();
    let (authority, leaf, key) = certificate("directory.test");
    std::fs::write(path("pebble-ca.pem"), authority).expect("writes");
    std::fs::write(path("pebble.pem"), leaf).expect("writes");
    std::fs::write(path("pebble.key"), key).expect("writes");
    let config = json!({ "pebble": {
        "listenAddress": format!("10.88.0.1:{FAR_DIRECTORY}"),
        "managementListenAddress": "10.88.0.1:15000",
        "certificate": path("pebble.pem"),
        "privateKey": path("pebble.key"),
        "httpPort": FAR_PLAIN,
        "tlsPort": 5001,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": false,
    }});
    std::fs::write(path("pebble.json"), config.to_string()).expect("writes");
    let (own, ports) = (["-defaultIPv4", "10.77.0.1"], ["-dns01", "127.0.0.1:8053", "-management", "127.0.0.1:8055"]);
    far.start(CHALLTESTSRV.0, &[&CHALLTESTSRV.1[..], &own, &ports].concat());
    let pebble = ["PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "pebble", "-config", &path("pebble.json")];
    far.start("env", &[&pebble[..], &["-dnsserver", "127.0.0.1:8053"]].concat());
    far.start("microsocks", &["-i", "10.77.0.2", "-p", "1080"]);
    for port in [("10.88.0.1", FAR_DIRECTORY), ("10.77.0.2", 1080)] {
        let reached = format!("import socket; socket.create_connection({port:?}, timeout=2)");
        wait_until("the world is up", PATIENCE, || {
            let mut command = Command::new("/usr/bin/python3");
            command.args(["-c", &reached]);
            far.inside(&command).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        });
    }

    home.answer(&["config", "set", "acme.directory", &format!("https://directory.test:{FAR_DIRECTORY}/dir")]);
    home.answer(&["config", "set", "acme.ca_file", &path("pebble-ca.pem")]);
    let plain = FAR_PLAIN.to_string();
    let start: Vec<_> =
        "proxy start --mode https-acme --bind 10.77.0.1 --https-port 5443 --acme-agree-tos --acme-email ops@flm.test \
                         --egress-mode socks5 --socks5-endpoint 10.77.0.2:1080"
            .split_ascii_whitespace()
            .chain(["--port", &plain, "--acme-domain", DOMAIN])
            .collect();
    let (started, told) = flm_inside(&near, &home, &start, &[]);
    assert!(started, "{told:#}");
    let status = home.answer(&["proxy", "status"]);
    assert_eq!(status["listeners"][0]["tls"]["certificate"]["names"], json!([DOMAIN]), "{status:#}");
    assert_eq!(status["egress"]["mode"], "socks5", "{status:#}");
    assert!(status["egress"]["ready"].is_number(), "the directory was reached through it: {status:#}");
    assert_eq!(strays(&near), 1, "packets left past the proxy");

    // Without the proxy there is no other way: the failure names it, and the certificate is served on.
    let before = status["listeners"][0]["tls"]["certificate"]["fingerprint"].clone();
    drop(far);
    let (renewed, told) = flm_inside(&near, &home, &["security", "certificate", "renew"], &[]);
    assert!(!renewed && told.to_string().contains("10.77.0.2:1080"), "{told:#}");
    assert_eq!(home.answer(&["proxy", "status"])["listeners"][0]["tls"]["certificate"]["fingerprint"], before);
    assert_eq!(strays(&near), 1, "packets left past the proxy");
    for folder in &folders {
        let _gone = std::fs::remove_dir_all(folder);
    }
}
