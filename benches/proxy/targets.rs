//! The programs under measurement, each started as its own process and ended with its handle.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::load::{self, Spoken, Target};
use crate::{Fault, Shape};

/// How long a program may take until it accepts connections.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// A running program; killed and reaped on drop.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    /// Where it listens, and what it wants.
    pub(crate) target: Target,
    /// Its files; deleted with it.
    home: Option<PathBuf>,
}

impl Program {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts a role of this executable that writes `listening PORT`.
    fn own_role(arguments: &[String]) -> Result<Self, Fault> {
        let mut child = Command::new(std::env::current_exe()?).args(arguments).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let port =
            line.trim().strip_prefix("listening ").ok_or_else(|| format!("{arguments:?} did not start"))?.parse()?;
        Ok(Self { child, target: at(port, Spoken::Clear, ""), home: None })
    }

    /// The fake engine.
    pub(crate) fn engine() -> Result<Self, Fault> {
        Self::own_role(&["engine".into()])
    }

    /// The bare hyper pass-through.
    pub(crate) fn baseline(shape: Shape, spoken: Spoken, workers: usize, engine: SocketAddr) -> Result<Self, Fault> {
        let role = if spoken == Spoken::Tls { "baseline-tls" } else { "baseline" };
        let mut program = Self::own_role(&[role.into(), shape.name().into(), workers.to_string(), engine.to_string()])?;
        program.target.spoken = spoken;
        Ok(program)
    }

    /// nginx as a pass-through that checks a key, limits the rate per address and writes an access log, since FLM
    /// does all three.
    pub(crate) fn nginx(workers: usize, engine: SocketAddr) -> Result<Self, Fault> {
        let home = scratch("nginx")?;
        let port = free_port()?;
        let config = home.join("nginx.conf");
        put(&config, &nginx_config(&home, workers, port, engine))?;
        let mut command = Command::new("nginx");
        command.args(["-e", "stderr", "-p"]).arg(&home).arg("-c").arg(&config).stdout(Stdio::null());
        Self::peer(command, home, port)
    }

    /// haproxy with the same duties as nginx; its log goes to stdout, which is a file.
    pub(crate) fn haproxy(workers: usize, engine: SocketAddr) -> Result<Self, Fault> {
        let home = scratch("haproxy")?;
        let port = free_port()?;
        let config = home.join("haproxy.cfg");
        put(&config, &haproxy_config(workers, port, engine))?;
        let mut command = Command::new("haproxy");
        command
            .args(["-db", "-f"])
            .arg(&config)
            .stdout(std::fs::File::create(home.join("access.log"))?)
            .stderr(Stdio::null());
        Self::peer(command, home, port)
    }

    fn peer(mut command: Command, home: PathBuf, port: u16) -> Result<Self, Fault> {
        let child = command.spawn().map_err(|error| format!("{command:?} does not start: {error}"))?;
        let mut program = Self { child, target: at(port, Spoken::Clear, PEERS_KEY), home: Some(home) };
        program.wait_until_it_listens()?;
        Ok(program)
    }

    /// The real `flm`, with a home of its own, the fake engine registered and a key without a rate.
    pub(crate) fn flm(spoken: Spoken, engine: SocketAddr) -> Result<Self, Fault> {
        let home = scratch("flm")?;
        let flm = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_flm"));
            command.args(arguments).args(["--format", "json"]).env("FLM_HOME", &home);
            command.env("FLM_LIMITS_CONNECTIONS_PER_ADDRESS", "4096");
            command
        };
        let (mode, port) = match spoken {
            Spoken::Clear => ("local-http", "port"),
            Spoken::Tls => ("dev-selfsigned", "https_port"),
        };
        let mut child = flm(&["proxy", "start", "--no-daemon", "--mode", mode, "--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        // What is written later is read and dropped, so that the daemon never waits for a full pipe.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        let mut program = Self { child, target: at(0, spoken, ""), home: Some(home.clone()) };
        let answer: serde_json::Value = serde_json::from_str(&line)?;
        let port = answer["data"]["listeners"][0]["config"][port].as_u64().ok_or("flm told no port")?;
        program.target = at(u16::try_from(port)?, spoken, "");
        let policy = home.join("policy.json");
        put(&policy, POLICY)?;
        answer_of(flm(&["security", "policy", "set", "--json", &policy.to_string_lossy()]))?;
        let url = format!("http://{engine}");
        // More than any plan opens: nobody queues in front of the other targets either.
        let slots = "4096";
        answer_of(flm(&["engines", "add", "--kind", "openai", "--id", "bench", "--url", &url, "--slots", slots]))?;
        let created = answer_of(flm(&["api-keys", "create", "--label", "bench", "--rpm", "0"]))?;
        created["data"]["key"].as_str().ok_or("api-keys create told no key")?.clone_into(&mut program.target.key);
        program.wait_until_it_routes()?;
        Ok(program)
    }

    /// Waits until the models of the fake engine are known and answered for.
    fn wait_until_it_routes(&self) -> Result<(), Fault> {
        let sizes = load::Sizes { single: 1, ..load::Sizes::QUICK };
        let begun = Instant::now();
        loop {
            let outcome = load::drive_client(&sizes.single(&self.target))?;
            if outcome.failed == 0 {
                return Ok(());
            }
            if begun.elapsed() > START_PATIENCE {
                return Err(format!("flm does not answer for the fake engine: {:?}", outcome.reason).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn wait_until_it_listens(&mut self) -> Result<(), Fault> {
        let begun = Instant::now();
        while TcpStream::connect(self.target.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the program for {} ended with {status}", self.target.address).into());
            }
            if begun.elapsed() > START_PATIENCE {
                return Err(format!("nothing listens on {} after {START_PATIENCE:?}", self.target.address).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // nginx's master ends its workers on SIGTERM and would leave them on SIGKILL.
        let told = Command::new("kill").arg(self.pid().to_string()).status().is_ok_and(|status| status.success());
        if !told {
            let _already_gone = self.child.kill();
        }
        let _status = self.child.wait();
        if let Some(home) = &self.home {
            let _best_effort = std::fs::remove_dir_all(home);
        }
    }
}

fn at(port: u16, spoken: Spoken, key: &str) -> Target {
    Target { address: (Ipv4Addr::LOCALHOST, port).into(), spoken, key: key.to_owned() }
}

/// Whether a program is there to be measured.
pub(crate) fn is_installed(program: &str) -> bool {
    Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Runs a command to its end and reads its JSON answer.
fn answer_of(mut command: Command) -> Result<serde_json::Value, Fault> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        return Err(format!("{command:?} failed with {}: {out}{err}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A port that was free a moment ago: the programs that are measured cannot tell a port that they chose.
fn free_port() -> Result<u16, Fault> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A new private folder below the system's temporary one.
fn scratch(name: &str) -> Result<PathBuf, Fault> {
    let nanoseconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
    let folder = std::env::temp_dir().join(format!("flm-bench-{name}-{}-{nanoseconds}", std::process::id()));
    std::fs::create_dir(&folder)?;
    Ok(folder)
}

fn put(path: &Path, text: &str) -> Result<(), Fault> {
    std::fs::write(path, text)?;
    Ok(())
}

/// One address sends everything here: its requests are counted, but not refused, nor is work when the machine is busy.
const POLICY: &str = r#"{
    "address_rate": {"per_minute": 1000000, "burst": 1000000},
    "address_in_flight": {"most": 1000000},
    "resources": {"mode": "off"}
}"#;

/// The key that nginx and haproxy compare with.
const PEERS_KEY: &str = "flm_benchkey_0000000000000000000000000000000000000000000000000";

fn nginx_config(home: &Path, workers: usize, port: u16, engine: SocketAddr) -> String {
    let home = home.display();
    format!(
        r#"daemon off;
worker_processes {workers};
pid {home}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    log_format json escape=json '{{"time":"$time_iso8601","id":"$request_id","address":"$remote_addr","method":"$request_method","uri":"$uri","status":$status,"bytes":$body_bytes_sent,"took":$request_time,"upstream":"$upstream_addr","upstream_took":"$upstream_response_time"}}';
    map_hash_bucket_size 256;
    limit_req_zone $binary_remote_addr zone=addresses:10m rate=1000000r/s;
    map $http_authorization $known {{ default 0; "Bearer {PEERS_KEY}" 1; }}
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    keepalive_requests 10000000;
    tcp_nodelay on;
    upstream engine {{ server {engine}; keepalive 512; keepalive_requests 10000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        access_log {home}/access.log json;
        client_max_body_size 32m;
        location / {{
            if ($known = 0) {{ return 401; }}
            limit_req zone=addresses burst=100000 nodelay;
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"#
    )
}

fn haproxy_config(workers: usize, port: u16, engine: SocketAddr) -> String {
    format!(
        r#"global
    nbthread {workers}
    maxconn 8192
    log stdout format raw local0
defaults
    mode http
    log global
    option http-no-delay
    timeout connect 5s
    timeout client 10m
    timeout server 10m
    log-format '{{"time":"%t","id":"%ID","address":"%ci","method":"%HM","uri":"%HU","status":%ST,"bytes":%B,"took":%Ta,"upstream":"%s","upstream_took":%Tr}}'
frontend clients
    bind 127.0.0.1:{port} backlog 1024
    unique-id-format %{{+X}}o\ %ci%cp%fi%fp%Ts%rt%pid
    stick-table type ip size 100k expire 60s store http_req_rate(10s)
    http-request deny deny_status 401 unless {{ req.hdr(authorization) -m str "Bearer {PEERS_KEY}" }}
    http-request track-sc0 src
    http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 100000000 }}
    default_backend engine
backend engine
    http-reuse always
    server engine {engine}
"#
    )
}
